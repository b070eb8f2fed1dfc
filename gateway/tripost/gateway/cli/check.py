"""tripost check: is the configuration right, and is there something to look at?"""

from __future__ import annotations

import sys

from tripost.gateway.config import Config
from tripost.gateway.tls import TlsError
from tripost.gateway.wiring_delivery import check as check_delivery
from tripost.gateway.wiring_listen import check


def run(config: Config) -> int:
    """0 when a gateway could start with it; warnings go to stderr."""
    try:
        warnings = check(config)
    except TlsError as wrong:
        print(f"tripost: [tls]: {wrong}", file=sys.stderr)
        return 2
    try:
        check_delivery(config)
    except ValueError as wrong:
        print(f"tripost: {wrong}", file=sys.stderr)
        return 2
    for warning in warnings:
        print(f"tripost: warning: {warning}", file=sys.stderr)
    print("ok")
    return 0
