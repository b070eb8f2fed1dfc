"""tripost queue …: looks into the running gateway's queue, and steers it

Fails    exit codes as every command: 1 when nothing fits, 2 for what cannot be
         meant, 3 when no gateway answers.
"""

from __future__ import annotations

import argparse
import base64
import sys
import time
from typing import Any

from tripost.gateway import units
from tripost.gateway.cli import queue_actions, queue_transfer, queue_verify
from tripost.gateway.cli.printing import print_row
from tripost.gateway.config import Config
from tripost.gateway.control.client import ControlError, ask
from tripost.gateway.control.explain import clock_text

TIMES = ("accepted", "expires", "release", "deliver_by")


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
        print_row(row)
        return 0
    queue = row["queue"]
    print(f"{row['hostname']}, tripost {row['version']}, process {row['pid']}, up {row['up']:.0f} s")
    for service, addresses in row["listeners"].items():
        print(f"{service:<12} {' '.join(addresses)}")
    print(f"configuration {row['generation']}, since {time.strftime('%F %T', time.localtime(row['loaded']))}")
    _print_processes(row)
    print(row["state"] if row["ready"] else f"{row['state']}, NOT READY: {row['why']}")
    if row["ready"] or not row["accepting"]:
        print("takes mail" if row["accepting"] else "TAKES NO MAIL: the spool cannot store it")
    print(f"queued: {queue['messages']} messages for {queue['queued']} recipients, {queue['octets']} octets")
    shed = row["shed"]
    if shed["now"]:
        print(f"OVERLOAD: connections wait {shed['wait']:g} s, above half of [limits] lag they get 421")
    if shed["connections"]:
        print(f"told to come again by overload: {shed['connections']} connections")
    for reader in row["events"]["readers"]:
        if reader["dropped"] or reader["wrong"]:
            print(f"the {reader['name']} has lost {reader['dropped']} events: {reader['wrong'] or 'it was too slow'}")
    return 0


def _print_processes(row: dict[str, Any]) -> None:
    """Where there are several. Which configuration they have is told where it is another one."""
    processes: list[dict[str, Any]] = row["processes"]
    for one in processes if len(processes) > 1 else []:
        behind = one["generation"] not in (0, row["generation"])
        print(f"{one['name']:<12} {one['pid']}{', has configuration ' + str(one['generation']) if behind else ''}")


def talk(config: Config, verb: str, options: argparse.Namespace) -> int:
    if verb in queue_actions.VERBS:
        return queue_actions.run(config, verb, options, _filter(options) if verb in queue_actions.CHANGES else {})
    if verb == "export":
        return queue_transfer.export(config, options, _filter(options))
    if verb == "import":
        return queue_transfer.bring(config, options)
    if verb == "show":
        return show(config, options)
    rows = list(ask(config.state, f"queue.{verb}", **_arguments(verb, options)))
    if options.json:
        for row in [rows[-1]["sum"]] if verb == "count" else rows[:-1]:
            print_row(row)
    else:
        SHOW[verb](rows[:-1], rows[-1]["sum"])
    return 1 if verb in ("list", "count") and not rows[-1]["sum"]["messages"] else 0


def show(config: Config, options: argparse.Namespace) -> int:
    """The envelope and the header; or the content alone, octet by octet."""
    rows = ask(config.state, "queue.show", id=options.id, content=options.content)
    message = next(rows)
    data = (base64.b64decode(row["data"]) for row in rows if "data" in row)
    if options.content:
        for piece in data:
            sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        return 0
    header = b"".join(data).decode("utf-8", "replace").replace("\r\n", "\n").strip()
    if options.json:
        print_row(message | {"header": header})
    else:
        _show_message(message)
        print(header)
    return 0


def _show_message(row: dict[str, Any]) -> None:
    for name, value in row.items():
        if name == "recipients":
            for one in value:
                told = " ".join(f"{key}={one[key]}" for key in ("next_hop", "state", "attempts", "reply") if one[key])
                print(f"recipient: {one['address']}  {told}")
        elif value not in ("", 0, False, None):
            text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value)) if name in TIMES else value
            print(f"{name.replace('_', ' ')}: {text}")
    print()


def _arguments(verb: str, options: argparse.Namespace) -> dict[str, Any]:
    """Raises ValueError."""
    if verb == "explain":
        return {"about": options.about}
    return _filter(options) if verb in ("list", "count") else {"limit": getattr(options, "limit", 0)}


def _filter(options: argparse.Namespace) -> dict[str, Any]:
    names = ("id", "sender", "recipient", "domain", "next_hop", "site", "account", "error", "header")
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


# --- showing ---


def _show_summary(rows: list[dict[str, Any]], sum: dict[str, Any]) -> None:
    ages = [*[f"{age}m" for age in sum["ages"]], f">{sum['ages'][-1]}m"]
    width = max([len("next hop"), *[len(row["next_hop"]) for row in rows]])
    print(f"{'next hop':<{width}} {'state':<9} {'total':>8} " + " ".join(f"{age:>6}" for age in ages) + "  site")
    for row in rows:
        cells = " ".join(f"{count or '.':>6}" for count in row["ages"])
        site = "" if row["site"] == row["next_hop"] else row["site"]
        print(f"{row['next_hop']:<{width}} {row['state']:<9} {row['deliveries']:>8} {cells}  {site}".rstrip())
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


def _show_explain(rows: list[dict[str, Any]], sum: dict[str, Any]) -> None:
    now = time.time()
    for row in rows:
        print(f"{row['id']} from {row['sender'] or '<>'} to {row['recipient']}")
        print(f"    why:     {row['reason']}")
        if row["site"] not in ("", row["next_hop"]):
            print(f"    site:    {row['site']}")
        if row["next"]:
            print(f"    next:    {clock_text(row['next'], now)}")
        if row["expires"]:
            print(f"    expires: {clock_text(row['expires'], now)}")
        if row["command"]:
            print(f"    now:     {row['command']}")
    if sum["more"]:
        print("and more: say it more exactly")


SHOW = {
    "summary": _show_summary,
    "list": _show_list,
    "count": _show_count,
    "explain": _show_explain,
}
