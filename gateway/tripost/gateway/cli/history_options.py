"""the options of tripost history"""

from __future__ import annotations

import argparse


def add_history(one: argparse.ArgumentParser) -> None:
    one.description = "What became of messages: every attempt, and its outcome; the newest message first."
    one.epilog = "Example: tripost history marc@machin.com --since 2h"
    one.add_argument(
        "about", metavar="ID|ADDRESS|@DOMAIN|HOP", help="a message, a sender or recipient, a domain, or a next hop"
    )
    one.add_argument("--since", default="", metavar="AGE", help="only what happened within 90s, 5m, 4h, 3d…")
    one.add_argument("--limit", type=int, default=100, metavar="N", help="messages at most, 0 for all (default: 100)")
