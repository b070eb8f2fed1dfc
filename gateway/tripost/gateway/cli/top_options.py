"""the options of tripost top"""

from __future__ import annotations

import argparse


def add_top(one: argparse.ArgumentParser) -> None:
    one.description = (
        "What a gateway does now, in a terminal: rates, latency, the queue by destination, failures; keys act (? tells"
        " which). Where stdout is no terminal: a line each second. It asks the gateway's monitor, this machine's or"
        " another's."
    )
    one.epilog = "Example: tripost top --lines 1"
    one.add_argument("--url", default="", help="the monitor, https://HOST[:PORT] (default: this gateway's)")
    token = "who may act or look (default: [monitor] token_file)"
    one.add_argument("--token-file", default="", metavar="FILE", help=token)
    one.add_argument("--ca", default="", metavar="FILE", help="who signs its certificate (default: the system's)")
    one.add_argument("--lines", type=int, metavar="N", help="so many lines in place of a screen; 0 for no end")
    one.add_argument("--interval", default="1s", metavar="DURATION", help="between two lines")
    one.add_argument("--json", action="store_true", help="each line as a JSON object")
