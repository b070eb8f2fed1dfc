"""the options of tripost queue … and tripost explain"""

from __future__ import annotations

import argparse
from collections.abc import Callable

STATES = "ready, deferred, held, suspended, active, down, ending"
VERBS = {
    "summary": ("the queue by next hop and age", "tripost queue summary"),
    "list": ("list queued messages", "tripost queue list --domain example.com --state deferred"),
    "count": ("count queued messages", "tripost queue count --older-than 1d"),
    "show": ("show a message's envelope and header", "tripost queue show 06M3D2EH0WN2Q0R7C4"),
    "hold": ("keep messages from being tried", "tripost queue hold --sender 'list@*' --dry-run"),
    "release": ("let held messages go on", "tripost queue release --id 06M3D2EH0WN2Q0R7C4"),
    "retry": ("try messages and their next hops now", "tripost queue retry --domain example.net"),
    "reroute": ("send messages another way", "tripost queue reroute --domain example.com --to smtp://relay.example:25"),
    "priority": ("let messages go before or after others", "tripost queue priority 5 --sender 'billing@*'"),
    "bounce": ("return messages to their senders", "tripost queue bounce --domain example.com --reason 'closed down'"),
    "delete": ("delete messages; nobody is told", "tripost queue delete --sender spammer@example.com --dry-run"),
    "expire": ("return messages as if their time were up", "tripost queue expire --older-than 3d"),
    "undo": ("take back an action", "tripost queue undo 17"),
    "audit": ("who did what", "tripost queue audit"),
    "suspend": (
        "try nothing for a next hop, or from a sender, account or client",
        "tripost queue suspend mx:example.com --for 2h --reason 'they move'",
    ),
    "resume": ("end a suspension", "tripost queue resume mx:example.com"),
    "suspensions": ("list what is suspended", "tripost queue suspensions"),
    "limit": (
        "set a site's limits, until told otherwise",
        "tripost queue limit smtp://relay.example:25 --connections 50 --rate 100/s",
    ),
    "limits": ("list limits that operators set", "tripost queue limits"),
    "export": ("copy messages into a folder", "tripost queue export --domain example.com exported"),
    "import": ("queue messages that were exported", "tripost queue import exported"),
    "explain": ("why mail is not delivered yet", "tripost queue explain marc@example.com"),
    "verify": ("compare every checksum in the spool; exit 0, or 1 for damage", "tripost queue verify"),
}
CHANGES = ("hold", "release", "retry", "reroute", "priority", "bounce", "delete", "expire")
FILTERED = ("list", "count", "export", *CHANGES)


def add_queue(queue: argparse.ArgumentParser, config_option: Callable[[argparse.ArgumentParser], None]) -> None:
    verbs = queue.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, (text, example) in VERBS.items():
        one = verbs.add_parser(
            verb,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"Example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if verb in CHANGES:
            _add_change(verb, one)
        if verb in FILTERED:
            _add_filter(one)
        if verb in ("suspend", "resume"):
            _add_suspension(verb, one)
        if verb == "export":
            one.add_argument("folder", metavar="FOLDER", help="made where it is not there; two files a message")
            one.add_argument("--limit", type=int, default=0, metavar="N", help="messages at most (default: all)")
        if verb == "import":
            one.add_argument("paths", nargs="+", metavar="PATH", help="an exported ID.json, or a folder of them")
        if verb == "limit":
            _add_limit(one)
        if verb == "undo":
            one.add_argument(
                "action", nargs="?", default="", metavar="ACTION", help="as queue audit tells it (default: your newest)"
            )
            one.add_argument("--reason", default="", metavar="TEXT", help="for the audit trail")
        if verb == "show":
            one.add_argument("id", metavar="ID", help="a message's")
            one.add_argument(
                "--content", action="store_true", help="the whole content, octet by octet, and nothing else"
            )
        if verb in ("list", "summary"):
            one.add_argument(
                "--limit", type=int, default=100, metavar="N", help="rows at most, 0 for all (default: 100)"
            )
        if verb == "explain":
            add_explain(one)
        if verb == "verify":
            one.add_argument("--offline", action="store_true", help="insist that no gateway runs: the answer is final")
        one.add_argument("--json", action="store_true", help="one JSON object per row")
        config_option(one)


def _add_change(verb: str, one: argparse.ArgumentParser) -> None:
    if verb == "reroute":
        one.add_argument(
            "--to",
            required=True,
            metavar="URL",
            help="smtp://host:port, lmtp://host:port, mx, local, discard, or config: as the configuration says today",
        )
    if verb == "priority":
        one.add_argument("to", metavar="N", help="-9 to 9; higher goes first (MT-PRIORITY)")
    one.add_argument("--dry-run", action="store_true", help="tell only how many messages fit")
    one.add_argument("--yes", action="store_true", help="do not ask, however many there are")
    one.add_argument("--now", action="store_true", help="at once and for good: without [admin] grace for an undo")
    one.add_argument("--reason", default="", metavar="TEXT", help="for the audit trail, and for the sender of a bounce")


def _add_limit(one: argparse.ArgumentParser) -> None:
    one.add_argument("site", metavar="SITE", help="a site, or one of its next hops as queue summary tells it")
    one.add_argument("--connections", type=int, metavar="N", help="at a time")
    one.add_argument("--rate", default="", metavar="RATE", help="messages, 50/s or none")
    one.add_argument("--connection-rate", default="", metavar="RATE", help="new connections, 10/min or none")
    one.add_argument("--default", action="store_true", help="again as it is configured")


def _add_suspension(verb: str, one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "next_hop",
        nargs="?",
        default="",
        metavar="NEXT_HOP",
        help="as queue summary tells it; example.com is mx:example.com",
    )
    one.add_argument("--sender", default="", metavar="ADDRESS", help="mail from this sender; * and ? are wild")
    one.add_argument("--account", default="", metavar="ADDRESS", help="mail that this account submitted")
    one.add_argument("--client", default="", metavar="NETWORK", help="mail that came from this address or network")
    if verb == "suspend":
        one.add_argument(
            "--for", dest="duration", default="0", metavar="DURATION", help="2h, 3d… (default: until resumed)"
        )
        one.add_argument("--reason", default="", metavar="TEXT", help="told to whoever asks")


def add_explain(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "about", metavar="ID|ADDRESS|@DOMAIN", help="a message, a sender or recipient, or a recipients' domain"
    )


def _add_filter(one: argparse.ArgumentParser) -> None:
    group = one.add_argument_group("which messages", "All conditions must be true; * and ? are wild cards.")
    for name, metavar, text in (
        ("id", "ID", "the id told with the 250"),
        ("sender", "ADDRESS", "envelope sender, '<>' for reports"),
        ("recipient", "ADDRESS", "envelope recipient"),
        ("domain", "DOMAIN", "the recipient's"),
        ("next-hop", "HOP", "as queue summary tells it"),
        ("account", "ADDRESS", "who submitted it"),
        ("site", "SITE", "where its next hop's mail goes"),
        ("error", "TEXT", "a part of the last reply, or its class: busy, rate, blocked, greylisted, full, tls…"),
        ("header", "'NAME: TEXT'", "a header field that holds the text"),
        ("older-than", "AGE", "90s, 5m, 4h, 3d"),
        ("younger-than", "AGE", "likewise"),
        ("larger-than", "SIZE", "100KiB, 5MiB"),
    ):
        group.add_argument(f"--{name}", default="", metavar=metavar, help=text)
    group.add_argument("--attempts", type=int, default=0, metavar="N", help="tried at least N times")
    group.add_argument("--state", action="append", default=[], metavar="STATE", help=STATES)
