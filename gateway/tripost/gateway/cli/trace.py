"""tripost trace: what live sessions say, and what is said to them"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import msgspec

from tripost.gateway import units
from tripost.gateway.config import Config
from tripost.gateway.control.client import ControlError, ask


def run(config: Config, options: argparse.Namespace) -> int:
    """0 also after Ctrl-C, which is how a trace ends."""
    try:
        seconds = units.duration(options.duration)
        words = {"client": options.client, "destination": options.destination, "service": options.service}
        for row in ask(config.state, "trace", **words, seconds=seconds):
            _show(row, as_json=options.json)
    except KeyboardInterrupt:
        return 0
    except ControlError as wrong:
        print(f"tripost: {wrong}", file=sys.stderr)
        return wrong.exit
    except ValueError as wrong:
        print(f"tripost: {wrong}", file=sys.stderr)
        return 2
    return 0


def _show(row: dict[str, Any], *, as_json: bool) -> None:
    if "session" in row or "dropped" in row:
        print(msgspec.json.encode(row).decode() if as_json else _text(row), flush=True)
    elif "tracing" in row:
        print("tracing; Ctrl-C ends it", file=sys.stderr, flush=True)


def _text(row: dict[str, Any]) -> str:
    if "dropped" in row:
        return f"… {row['dropped']} lines came too fast"
    at = row["time"]
    clock = f"{time.strftime('%H:%M:%S', time.localtime(at))}.{int(at % 1 * 1000):03}"
    text = "".join(one if one.isprintable() else "?" for one in row["text"])
    return f"{clock} {row['session']} {row['service']} {row['peer']} {row['direction']} {text}"
