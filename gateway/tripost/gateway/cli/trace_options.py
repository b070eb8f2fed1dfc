"""the options of tripost trace"""

from __future__ import annotations

import argparse


def add_trace(one: argparse.ArgumentParser) -> None:
    one.description = (
        "The dialogue of live sessions, as it happens: commands and replies with their times. Passwords and content are"
        " never shown. Ends with Ctrl-C."
    )
    one.epilog = "Example: tripost trace --destination example.com --for 1s"
    one.add_argument("--client", default="", metavar="IP[/NET]", help="sessions of these clients")
    one.add_argument(
        "--destination", default="", metavar="D", help="our connections to this next hop, domain, host or address"
    )
    one.add_argument(
        "--service", default="", metavar="S", help="smtp, submission, lmtp, pop3, or delivery: our own connections"
    )
    one.add_argument("--for", dest="duration", default="0", metavar="DURATION", help="end after 90s, 5m…")
