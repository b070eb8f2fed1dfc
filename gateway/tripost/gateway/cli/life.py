"""tripost reload | drain | restart: what the running gateway is told about itself"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from tripost.gateway.cli.printing import print_row
from tripost.gateway.config import Config
from tripost.gateway.control.client import ControlError, NotRunning, ask

LOOK_EVERY = 0.2  # seconds
LOOK_SOON = 0.05
ANEW = 60.0  # seconds for a restart
LONGER = 15.0  # seconds more than the drain deadline, for closing the spool


def run(config: Config, options: argparse.Namespace) -> int:
    try:
        if options.command == "restart":
            return _restart(config, options.json)
        return _reload(config, options.json) if options.command == "reload" else _drain(config, options.no_wait)
    except ControlError as wrong:
        for line in str(wrong).splitlines():
            print(f"tripost: {line}", file=sys.stderr)
        if options.command != "drain" and not isinstance(wrong, NotRunning):
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
    if row["behind"]:
        print(f"not confirmed yet: {', '.join(row['behind'])}")
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


def _restart(config: Config, as_json: bool) -> int:
    """0 when the next image serves, 1 when it does not in time."""
    (before,) = [row["sum"] for row in ask(config.state, "status")]
    began = time.monotonic()
    try:
        list(ask(config.state, "restart"))
    except NotRunning:
        pass  # it was quicker to leave than to answer
    now = _after(config, before["boot"], began + ANEW)
    if not now:
        print(f"tripost: it does not serve {ANEW:g} s after: see its log", file=sys.stderr)
        return 1
    row = {"seconds": round(time.monotonic() - began, 3), "version": now["version"], "was": before["version"]}
    if as_json:
        print_row(row)
    else:
        print(f"restarted in {row['seconds']:.1f} s: tripost {row['version']} (was {row['was']})")
    return 0


def _after(config: Config, boot: int, end: float) -> dict[str, Any]:
    """The status of an image with another number, once it serves; {} when there is none in time."""
    while time.monotonic() < end:
        try:
            (now,) = [row["sum"] for row in ask(config.state, "status")]
            if now["boot"] != boot and now["state"] != "starting":
                return dict(now)
        except NotRunning:
            pass
        time.sleep(LOOK_SOON)
    return {}
