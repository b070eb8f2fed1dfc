"""tripost queue …: looks into the running gateway's queue, and steers it

Fails    exit codes as every command: 1 when nothing fits, 2 for what cannot be
         meant, 3 when no gateway answers.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import msgspec

from tripost.gateway import units
from tripost.gateway.cli import queue_verify
from tripost.gateway.config import Config
from tripost.gateway.control.client import ControlError, ask
from tripost.gateway.control.explain import clock_text

MANY = 10  # messages; more are asked about before they are changed
_json = msgspec.json.Encoder().encode


def run(config: Config, options: argparse.Namespace) -> int:
    verb = options.verb if options.command == "queue" else options.command
    if verb == "verify":
        return queue_verify.run(config, offline=options.offline, as_json=options.json)
    try:
        return status(config, options) if verb == "status" else talk(config, verb, options)
    except ControlError as wrong:
        print(f"tripost: {wrong}", file=sys.stderr)
        return wrong.exit
    except ValueError as wrong:
        print(f"tripost: {wrong}", file=sys.stderr)
        return 2


def status(config: Config, options: argparse.Namespace) -> int:
    (row,) = [row["sum"] for row in ask(config.state, "status")]
    if options.json:
        _print(row)
        return 0
    queue = row["queue"]
    print(f"{row['hostname']}, tripost {row['version']}, process {row['pid']}, up {row['up']:.0f} s")
    for service, addresses in row["listeners"].items():
        print(f"{service:<12} {' '.join(addresses)}")
    print("takes mail" if row["accepting"] else "TAKES NO MAIL: the spool cannot store it")
    print(f"queued: {queue['messages']} messages for {queue['queued']} recipients, {queue['octets']} octets")
    return 0


def talk(config: Config, verb: str, options: argparse.Namespace) -> int:
    if verb in ("hold", "release", "retry"):
        return _change(config, verb, options)
    rows = list(ask(config.state, f"queue.{verb}", **_arguments(verb, options)))
    if options.json:
        for row in [rows[-1]["sum"]] if verb in ("count", "suspend", "resume") else rows[:-1]:
            _print(row)
    else:
        SHOW[verb](rows[:-1], rows[-1]["sum"])
    return 1 if verb in ("list", "count") and not rows[-1]["sum"]["messages"] else 0


def _print(row: dict[str, Any]) -> None:
    print(_json(row).decode())


def _arguments(verb: str, options: argparse.Namespace) -> dict[str, Any]:
    """Raises ValueError."""
    if verb == "explain":
        return {"about": options.about}
    if verb in ("suspend", "resume"):
        hop = options.next_hop
        found: dict[str, Any] = {"next_hop": hop if ":" in hop or hop == "local" else f"mx:{hop}"}
        if verb == "suspend":
            found |= {"seconds": units.duration(options.duration), "reason": options.reason}
        return found
    return _filter(options) if verb in ("list", "count") else {"limit": getattr(options, "limit", 0)}


def _filter(options: argparse.Namespace) -> dict[str, Any]:
    names = ("id", "sender", "recipient", "domain", "next_hop", "account", "error")
    found: dict[str, Any] = {name: getattr(options, name) for name in names if getattr(options, name)}
    for name, key, read in (
        ("older_than", "older", units.duration),
        ("younger_than", "younger", units.duration),
        ("larger_than", "larger", units.size),
    ):
        if getattr(options, name):
            found[key] = read(getattr(options, name))
    states = [part for one in options.state for part in one.split(",")]
    return found | {"attempts": options.attempts, "states": states, "limit": getattr(options, "limit", 0)}


# --- changing ---


def _change(config: Config, verb: str, options: argparse.Namespace) -> int:
    wanted = _filter(options)
    dry = _done(config, verb, wanted | {"dry_run": True})
    if not options.dry_run:
        if dry["fit"] > MANY and not options.yes and not _agreed(verb, dry["fit"]):
            return 1
        dry = _done(config, verb, wanted)
    if options.json:
        _print(dry)
    elif options.dry_run:
        print(f"{dry['fit']} messages fit; nothing was changed")
    else:
        print(f"{dry['fit']} messages fit, {dry['changed']} changed")
    return 0


def _done(config: Config, verb: str, wanted: dict[str, Any]) -> dict[str, Any]:
    (row,) = list(ask(config.state, f"queue.{verb}", **wanted))
    found: dict[str, Any] = row["sum"]
    return found


def _agreed(verb: str, count: int) -> bool:
    if not sys.stdin.isatty():
        print(f"tripost: {count} messages fit; say --yes to {verb} them all", file=sys.stderr)
        return False
    print(f"{verb} {count} messages? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# --- showing ---


def _show_summary(rows: list[dict[str, Any]], sum: dict[str, Any]) -> None:
    ages = [*[f"{age}m" for age in sum["ages"]], f">{sum['ages'][-1]}m"]
    width = max([len("next hop"), *[len(row["next_hop"]) for row in rows]])
    print(f"{'next hop':<{width}} {'state':<9} {'total':>8} " + " ".join(f"{age:>6}" for age in ages))
    for row in rows:
        cells = " ".join(f"{count or '.':>6}" for count in row["ages"])
        print(f"{row['next_hop']:<{width}} {row['state']:<9} {row['deliveries']:>8} {cells}")
    rest = sum["next_hops"] - len(rows)
    more = f"; {rest} next hops more (--limit 0)" if rest else ""
    print(f"{sum['messages']} messages for {sum['queued']} recipients to {sum['next_hops']} next hops{more}")


def _show_list(rows: list[dict[str, Any]], sum: dict[str, Any]) -> None:
    for row in rows:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["accepted"]))
        print(f"{row['id']}  {when}  {row['size']:>9}  {row['sender'] or '<>'}")
        for one in row["deliveries"]:
            due = "" if one["due"] <= time.time() else f", next {clock_text(one['due'], time.time())}"
            print(f"    {one['recipient']}  {one['state']} at {one['next_hop']}, tried {one['attempts']} times{due}")
            if one["reply"]:
                print(f"        {one['reply']}")
    print(f"{sum['messages']} messages" + (", and more (--limit 0)" if sum["more"] else ""))


def _show_count(rows: list[dict[str, Any]], sum: dict[str, Any]) -> None:
    print(f"{sum['messages']} messages, {sum['recipients']} recipients, {sum['octets']} octets")


def _show_suspended(rows: list[dict[str, Any]], sum: dict[str, Any]) -> None:
    until = f"; ends {clock_text(sum['until'], time.time())}" if sum["until"] else " until it is resumed"
    print(f"{sum['next_hop']} is suspended{until}")


def _show_resumed(rows: list[dict[str, Any]], sum: dict[str, Any]) -> None:
    print(f"{sum['next_hop']} goes on")


def _show_suspensions(rows: list[dict[str, Any]], sum: dict[str, Any]) -> None:
    for row in rows:
        until = f"ends {clock_text(row['until'], time.time())}" if row["until"] else "until resumed"
        print(f"{row['next_hop']}  {until}  {row['reason']}")
    if not rows:
        print("nothing is suspended")


def _show_explain(rows: list[dict[str, Any]], sum: dict[str, Any]) -> None:
    now = time.time()
    for row in rows:
        print(f"{row['id']} from {row['sender'] or '<>'} to {row['recipient']}")
        print(f"    why:     {row['reason']}")
        if row["next"]:
            print(f"    next:    {clock_text(row['next'], now)}")
        print(f"    expires: {clock_text(row['expires'], now)}")
        if row["command"]:
            print(f"    now:     {row['command']}")
    if sum["more"]:
        print("and more: say it more exactly")


SHOW = {
    "summary": _show_summary,
    "list": _show_list,
    "count": _show_count,
    "suspend": _show_suspended,
    "resume": _show_resumed,
    "suspensions": _show_suspensions,
    "explain": _show_explain,
}
