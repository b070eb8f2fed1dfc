"""the command `tripost`

Exit codes: 0 done, 1 nothing matched or refused, 2 usage or configuration, 3 no gateway
answers, 130 interrupted. stdout is the result, stderr the talk. Every command's module is
imported only when it is used, so that `tripost --help` is quick.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from tripost.gateway.cli.config_options import add_check, add_config, add_init
from tripost.gateway.cli.history_options import add_history
from tripost.gateway.cli.queue_options import add_explain, add_queue
from tripost.gateway.cli.sendmail_options import NAMES, add_sendmail
from tripost.gateway.cli.session_options import add_session
from tripost.gateway.cli.top_options import add_top
from tripost.gateway.cli.trace_options import add_trace
from tripost.gateway.cli.user_options import add_user

USAGE, INTERRUPTED = 2, 130
CONFIG_HELP = "TOML file (default: tripost.toml, then /etc/tripost/tripost.toml, then the built-in settings)"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="tripost", description="A mail gateway that says 250 only for what is on disk.")
    top.add_argument("--version", action="version", version=f"tripost {importlib.metadata.version('tripost')}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    _add_whole(commands)
    route = _add(commands, "route", "tell where mail for an address goes", "tripost route marc@machin.com x@y.example")
    route.add_argument("addresses", nargs="+", metavar="ADDRESS")
    route.add_argument("--from", dest="sender", default="", metavar="SENDER", help="who sends; nobody (<>) by default")
    route.add_argument("--json", action="store_true", help="one JSON object per address")

    add_sendmail(commands.add_parser("sendmail", help="hand in a message, as /usr/sbin/sendmail does", add_help=False))
    session = _add(
        commands,
        "session",
        "play an SMTP dialogue from a claimed client, and be told why",
        "printf 'EHLO me\\r\\nQUIT\\r\\n' | tripost session --client 192.0.2.7",
    )
    add_session(session)
    _config_option(session)

    user = commands.add_parser("user", help="local users")
    add_user(user, _config_option)
    queue = commands.add_parser("queue", help="the queue")
    add_queue(queue, _config_option)
    history = commands.add_parser("history", help="what became of messages")
    add_history(history)
    trace = commands.add_parser("trace", help="watch what live sessions say")
    add_trace(trace)
    top_command = commands.add_parser("top", help="watch a gateway, and steer it, in a terminal")
    add_top(top_command)
    _config_option(top_command)
    reload, restart = _add_life(commands)
    status = _add(commands, "status", "what the running gateway is and does", "tripost status")
    explain = _add(
        commands,
        "explain",
        "why queued mail is not delivered yet (= queue explain)",
        "tripost explain marc@example.com",
    )
    add_explain(explain)
    for one in (status, reload, restart, explain, history, trace):
        one.add_argument("--json", action="store_true", help="JSON")
        _config_option(one)
    _config_option(route)
    _add_about_commands(commands)
    return top


def _add_whole(commands: Any) -> None:
    """What runs a gateway, or would."""
    demo = _add(commands, "demo", "play the story: Fred's mail reaches Marc through two gateways", "tripost demo")
    demo.add_argument("--keep", action="store_true", help="leave both gateways running until Ctrl-C")
    demo.add_argument("--imap", action="store_true", help="Marc reads by IMAP, where the mail lies")
    serve = _add(commands, "serve", "run a gateway", "tripost serve tripost.toml")
    serve.add_argument("config_file", nargs="?", metavar="CONFIG", help=CONFIG_HELP)
    check = _add(commands, "check", "check a configuration; exit 0 or 2", "tripost check tripost.toml")
    add_check(check)
    for one in (serve, check):
        _config_option(one, "config_option")
    init = _add(commands, "init", "write a configuration to start from", "tripost init --hostname mx.machin.com --yes")
    add_init(init)
    add_config(commands.add_parser("config", help="the configuration"), _config_option)


def _add_life(commands: Any) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """What a running gateway is told about itself: reload and restart."""
    reload = _add(commands, "reload", "take the file's configuration into use, all or nothing", "tripost reload")
    restart = _add(
        commands, "restart", "replace the running gateway by what is installed now, refusing nobody", "tripost restart"
    )
    drain = _add(commands, "drain", "end the running gateway when what is under way is done", "tripost drain")
    drain.add_argument("--no-wait", action="store_true", help="do not wait for its end")
    _config_option(drain)
    return reload, restart


def _add_about_commands(commands: Any) -> None:
    events = commands.add_parser("events", help="what the lines of the event log look like")
    verbs = events.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("schema", help="their JSON Schema", epilog="Example: tripost events schema")
    verbs.add_parser("kinds", help="every kind and its fields, as Markdown", epilog="Example: tripost events kinds")
    schema = _add(commands, "schema", "the JSON Schema of a command's --json", "tripost schema queue list")
    schema.add_argument("words", nargs="*", metavar="COMMAND", help="as queue list (default: which there are)")
    completion = _add(
        commands, "completion", "a script for your shell that completes commands", "source <(tripost completion bash)"
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))


def _add(commands: Any, name: str, help: str, example: str) -> argparse.ArgumentParser:
    """The example stays one line, however long."""
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=help, epilog=f"Example: {example}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return made


def _config_option(where: argparse.ArgumentParser, dest: str = "config_file") -> None:
    where.add_argument("--config", dest=dest, metavar="FILE", help="the gateway's TOML file")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    called = os.path.basename(sys.argv[0]) if arguments is None else "tripost"
    try:
        if called in NAMES or (words[:1] == ["sendmail"] and words[1:] not in (["--help"], ["-h"])):
            return _sendmail(called if called in NAMES else "sendmail", words[called not in NAMES :])
        options = parser().parse_args(words)
        if getattr(options, "config_option", None):
            options.config_file = options.config_option
        return _run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (BrokenPipeError, BaseExceptionGroup) as wrong:
        if isinstance(wrong, BaseExceptionGroup) and wrong.split(BrokenPipeError)[1] is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `tripost … | head` has seen enough
        return 0


def _sendmail(program: str, words: list[str]) -> int:
    """Its arguments are not argparse's: values stick to letters."""
    from tripost.gateway.cli import sendmail

    return sendmail.run(program, words)


WITHOUT_CONFIG = ("demo", "events", "schema", "completion", "check", "config", "init")


def _run_without_config(options: argparse.Namespace) -> int:
    """What reads no configuration, or reads it in its own way."""
    if options.command == "demo":
        from tripost.gateway.cli import demo

        return demo.run(keep=options.keep, imap=options.imap)
    if options.command == "check":
        from tripost.gateway.cli import check

        return check.run(options.config_file, as_json=options.json)
    if options.command == "config":
        from tripost.gateway.cli import config

        return config.run(options)
    if options.command == "init":
        from tripost.gateway.cli import init

        return init.run(options)
    if options.command == "events":
        from tripost.gateway.cli import events

        return events.run(options)
    if options.command == "schema":
        from tripost.gateway.cli import schema

        return schema.run(options.words)
    from tripost.gateway.cli import completion, tree

    print(completion.script(options.shell, list(tree.commands(parser()))), end="")
    return 0


def _run(options: argparse.Namespace) -> int:
    if options.command in WITHOUT_CONFIG:
        return _run_without_config(options)
    if options.command == "top" and options.url:
        from tripost.gateway.cli import top

        return top.run(None, options)
    from tripost.gateway.config import ConfigError, load, read

    try:
        config = load(options.config_file)
    except ConfigError as wrong:
        for line in wrong.errors:
            print(f"tripost: {line}", file=sys.stderr)
        return USAGE
    if options.command == "serve":
        from tripost.gateway.cli import serve

        return serve.run(config, partial(read, options.config_file))
    if options.command == "route":
        from tripost.gateway.cli import route

        return route.run(config, options.addresses, sender=options.sender, as_json=options.json)
    if options.command == "session":
        from tripost.gateway.cli import session

        return session.run(config, options)
    if options.command in ("queue", "status", "explain"):
        from tripost.gateway.cli import queue

        return queue.run(config, options)
    if options.command in ("reload", "drain", "restart"):
        from tripost.gateway.cli import life

        return life.run(config, options)
    if options.command == "history":
        from tripost.gateway.cli import history

        return history.run(config, options)
    if options.command == "top":
        from tripost.gateway.cli import top

        return top.run(config, options)
    if options.command == "trace":
        from tripost.gateway.cli import trace

        return trace.run(config, options)
    from tripost.gateway.cli import user

    return user.run(config, options)
