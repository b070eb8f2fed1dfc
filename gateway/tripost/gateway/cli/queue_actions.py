"""the verbs of tripost queue … that change something

What fits is counted first; more than MANY messages are asked about, on a terminal,
or need --yes. Fails as tripost.gateway.cli.queue.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from tripost.gateway import units
from tripost.gateway.cli.printing import print_row
from tripost.gateway.config import Config
from tripost.gateway.control.client import ask
from tripost.gateway.control.explain import clock_text

CHANGES = ("hold", "release", "retry", "reroute", "priority", "bounce", "delete", "expire")
VERBS = (*CHANGES, "undo", "audit", "suspend", "resume", "suspensions", "limit", "limits")
MANY = 10  # messages; more are asked about before they are changed
ENDS = {"bounce": "returned to their senders", "delete": "deleted", "expire": "returned as expired"}


def run(config: Config, verb: str, options: argparse.Namespace, wanted: dict[str, Any]) -> int:
    """`wanted`: the conditions. Raises ControlError, ValueError."""
    if verb in CHANGES:
        return _change(config, verb, options, wanted)
    if verb == "undo":
        return _undo(config, options)
    if verb == "audit":
        return _audit(config, options)
    if verb == "suspensions":
        return _suspensions(config, options)
    if verb == "limit":
        return _limit(config, options)
    if verb == "limits":
        return _limits(config, options)
    return _suspend(config, verb, options)


# --- messages ---


def _change(config: Config, verb: str, options: argparse.Namespace, wanted: dict[str, Any]) -> int:
    wanted = wanted | {"to": getattr(options, "to", ""), "reason": options.reason, "now": options.now}
    wanted.pop("limit", None)
    done: dict[str, Any] = {}
    if options.dry_run or not options.yes:
        done = _done(config, verb, wanted | {"dry_run": True})
    if not options.dry_run:
        if done.get("fit", 0) > MANY and not _agreed(verb, done["fit"]):
            return 1
        done = _done(config, verb, wanted)
    if options.json:
        print_row(done)
    elif options.dry_run:
        print(f"{done['fit']} messages fit; nothing was changed")
    else:
        _tell(verb, done)
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


def _tell(verb: str, done: dict[str, Any]) -> None:
    now = time.time()
    line = f"{done['fit']} messages fit, {done['changed']} changed"
    if done["action"] and verb in ENDS:
        line += f": they will be {ENDS[verb]} {clock_text(done['until'], now)}"
    if done["action"] and verb != "retry" and done["until"] > now:
        line += f"; tripost queue undo {done['action']} takes it back"
    print(line)
    if done["skipped"]:
        print(f"{done['skipped']} recipients are being delivered now and were left alone")


def _undo(config: Config, options: argparse.Namespace) -> int:
    (row,) = list(ask(config.state, "queue.undo", action=options.action, reason=options.reason))
    done = row["sum"]
    if options.json:
        print_row(done)
    elif not done["action"]:
        print("nothing of it is queued any more, or is being delivered now")
    else:
        print(f"action {done['undone']} was undone, on {done['changed']} messages as far as they are queued yet")
    return 0


def _audit(config: Config, options: argparse.Namespace) -> int:
    rows = [row for row in ask(config.state, "queue.audit") if "sum" not in row]
    for row in rows:
        if options.json:
            print_row(row)
            continue
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"]))
        what = f"{row['verb']} {row['to']}".rstrip()
        which = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in row["filter"].items())
        state = f"undone by {row['undone_by']}" if row["undone_by"] else row["state"]
        ends = f", ends {clock_text(row['until'], time.time())}" if row["state"] == "pending" else ""
        print(f"{row['action']:>5}  {when}  {row['who']}  {what}: {row['messages']} messages, {state}{ends}")
        print(f"       {which}" + (f"  ({row['reason']})" if row["reason"] else ""))
    if not rows and not options.json:
        print("nobody has changed anything")
    return 0


# --- where mail goes, and where it comes from ---


def _suspend(config: Config, verb: str, options: argparse.Namespace) -> int:
    kinds = [(kind, getattr(options, kind)) for kind in ("sender", "account", "client") if getattr(options, kind)]
    if options.next_hop:
        hop = options.next_hop
        kinds.append(("destination", hop if ":" in hop or hop == "local" else f"mx:{hop}"))
    if len(kinds) != 1:
        raise ValueError("say one: a next hop, --sender, --account or --client")
    kind, what = kinds[0]
    arguments: dict[str, Any] = {"kind": kind, "what": what}
    if verb == "suspend":
        arguments |= {"seconds": units.duration(options.duration), "reason": options.reason}
    (row,) = list(ask(config.state, f"queue.{verb}", **arguments))
    if options.json:
        print_row(row["sum"])
    else:
        name = what if kind == "destination" else f"{kind} {what}"
        until = row["sum"].get("until")
        ends = f"; ends {clock_text(until, time.time())}" if until else " until it is resumed"
        print(f"{name} is suspended{ends}" if verb == "suspend" else f"{name} goes on")
    return 0


def _suspensions(config: Config, options: argparse.Namespace) -> int:
    rows = [row for row in ask(config.state, "queue.suspensions") if "sum" not in row]
    for row in rows:
        if options.json:
            print_row(row)
            continue
        until = f"ends {clock_text(row['until'], time.time())}" if row["until"] else "until resumed"
        name = row["what"] if row["kind"] == "destination" else f"{row['kind']} {row['what']}"
        print(f"{name}  {until}  {row['reason']}")
    if not rows and not options.json:
        print("nothing is suspended")
    return 0


def _limit(config: Config, options: argparse.Namespace) -> int:
    said = {name: getattr(options, name) for name in ("connections", "rate", "connection_rate")}
    said = {name: value for name, value in said.items() if value not in (None, "")}
    if bool(said) == options.default:
        raise ValueError("say --connections, --rate or --connection-rate, or --default for what is configured")
    (row,) = list(ask(config.state, "queue.limit", site=options.site, **said))
    if options.json:
        print_row(row["sum"])
    else:
        told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in said.items())
        print(f"{options.site}: {told or 'as configured'}")
    return 0


def _limits(config: Config, options: argparse.Namespace) -> int:
    rows = [row for row in ask(config.state, "queue.limits") if "sum" not in row]
    for row in rows:
        if options.json:
            print_row(row)
        else:
            told = ", ".join(f"{name.replace('_', ' ')} {row[name]}" for name in row if name != "site" and row[name])
            print(f"{row['site']}: {told}")
    if not rows and not options.json:
        print("all limits are as configured")
    return 0
