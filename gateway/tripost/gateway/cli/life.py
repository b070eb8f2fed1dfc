"""tripost reload | drain: what the running gateway is told about itself"""

from __future__ import annotations

import argparse
import sys
import time

from tripost.gateway.cli.printing import print_row
from tripost.gateway.config import Config
from tripost.gateway.control.client import ControlError, NotRunning, ask

LOOK_EVERY = 0.2  # seconds
LONGER = 15.0  # seconds more than the drain deadline, for closing the spool


def run(config: Config, options: argparse.Namespace) -> int:
    try:
        return _reload(config, options.json) if options.command == "reload" else _drain(config, options.no_wait)
    except ControlError as wrong:
        for line in str(wrong).splitlines():
            print(f"tripost: {line}", file=sys.stderr)
        if options.command == "reload" and not isinstance(wrong, NotRunning):
            print("tripost: nothing was changed", file=sys.stderr)
        return wrong.exit


def _reload(config: Config, as_json: bool) -> int:
    (row,) = [row["sum"] for row in ask(config.state, "reload")]
    if as_json:
        print_row(row)
        return 0
    print(f"changed: {', '.join(row['changed']) or 'nothing'}")
    if row["restart"]:
        print(f"after a restart: {', '.join(row['restart'])}")
    return 0


def _drain(config: Config, no_wait: bool) -> int:
    """0 when it has ended, 1 when it has not in time."""
    (row,) = [row["sum"] for row in ask(config.state, "drain")]
    if no_wait:
        print(f"ends within {row['within']:g} s")
        return 0
    end = time.monotonic() + float(row["within"]) + LONGER
    while time.monotonic() < end:
        try:
            list(ask(config.state, "status"))
        except NotRunning:
            print("ended")
            return 0
        time.sleep(LOOK_EVERY)
    print("tripost: it has not ended in time", file=sys.stderr)
    return 1
