"""the arguments of `tripost user`"""

from __future__ import annotations

import argparse
from collections.abc import Callable

SCHEMES = ("ARGON2ID", "SCRAM-SHA-256")
VERBS = {
    "add": ("add a user", "tripost user add ann@machin.com --password-stdin < password.txt"),
    "passwd": ("change a password", "tripost user passwd marc@machin.com --password-stdin < password.txt"),
    "remove": ("remove a user (its mail stays)", "tripost user remove ben@machin.com"),
    "quota": ("show or set what its mailbox may hold", "tripost user quota marc@machin.com 1GiB --messages 10000"),
    "disable": ("let it log in no more (its mail is still taken)", "tripost user disable marc@machin.com"),
    "enable": ("let it log in again", "tripost user enable marc@machin.com"),
    "list": ("list the users", "tripost user list"),
}


def add_user(user: argparse.ArgumentParser, config_option: Callable[[argparse.ArgumentParser], None]) -> None:
    verbs = user.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, (text, example) in VERBS.items():
        one = verbs.add_parser(
            verb,
            help=text,
            epilog=f"Example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if verb == "list":
            one.add_argument("--json", action="store_true", help="one JSON object per user")
        else:
            one.add_argument("address", metavar="ADDRESS")
        if verb in ("add", "passwd"):
            one.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
            one.add_argument(
                "--scheme",
                choices=SCHEMES,
                default="",
                help="how it is kept; SCRAM-SHA-256 lets clients log in without saying it (default: ARGON2ID)",
            )
        if verb == "quota":
            one.add_argument("size", nargs="?", metavar="SIZE", help="as 500MiB; 0: no limit; none: as configured")
            one.add_argument("--messages", type=int, metavar="N", help="messages; 0: no limit")
        config_option(one)
