"""the arguments of `tripost session`"""

from __future__ import annotations

import argparse

SERVICES = ("smtp", "submission", "lmtp")


def add_session(where: argparse.ArgumentParser) -> None:
    where.add_argument("--client", default="192.0.2.1", metavar="IP[:PORT]", help="who connects (default: a stranger)")
    where.add_argument("--service", choices=SERVICES, default="smtp", help="which kind of listener it is")
    where.add_argument("--tls", action="store_true", help="as if TLS ran already")
    where.add_argument("--auth", default="", metavar="ADDRESS", help="as if this account had logged in")
