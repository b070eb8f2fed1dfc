"""the options of check, config and init"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config_file", nargs="?", metavar="CONFIG", help="TOML file")
    parser.add_argument("--json", action="store_true", help="JSON")


def add_config(parser: argparse.ArgumentParser, config_option: Callable[[argparse.ArgumentParser], None]) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser(
        "schema",
        help="the JSON Schema of a configuration, for editors",
        epilog="Example: tripost config schema > tripost.schema.json",
    )
    show = verbs.add_parser(
        "show",
        help="the values in force, and where each comes from",
        epilog="Example: tripost config show limits spool.min_free",
    )
    show.add_argument("keys", nargs="*", metavar="KEY", help="keys and tables (default: all)")
    show.add_argument("--written", action="store_true", help="only what a file says")
    diff = verbs.add_parser(
        "diff",
        help="how the file differs from what the running gateway has; exit 1 when it does",
        epilog="Example: tripost config diff",
    )
    for one in (show, diff):
        one.add_argument("--json", action="store_true", help="JSON")
        config_option(one)


def add_init(parser: argparse.ArgumentParser) -> None:
    more: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("--hostname", metavar="NAME", help="the name this machine has in DNS")
    parser.add_argument(
        "--listen", metavar="ADDRESS", help="where mail comes in, as 0.0.0.0:25; again for more", **more
    )
    parser.add_argument("--relay-network", metavar="NETWORK", help="who may send anywhere; again for more", **more)
    parser.add_argument(
        "--local-domain", metavar="DOMAIN", help="whose users have mailboxes here; again for more", **more
    )
    parser.add_argument("--postmaster", metavar="ADDRESS", help="who gets mail for postmaster")
    parser.add_argument("--smart-host", metavar="HOST[:PORT]", help="send everything there, not by MX")
    parser.add_argument("--certificate", metavar="FILE", help="PEM, with its chain; needs --key")
    parser.add_argument("--key", metavar="FILE", help="PEM")
    parser.add_argument("--state", metavar="FOLDER", help="where mail is kept")
    parser.add_argument("--yes", action="store_true", help="ask nothing: what is not given is as usual")
    parser.add_argument("-o", "--output", metavar="FILE", help="write it there (default: stdout); never over a file")
