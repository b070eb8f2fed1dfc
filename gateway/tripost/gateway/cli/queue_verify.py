"""tripost queue verify: is every octet still what was written?"""

from __future__ import annotations

import os
import sys

import msgspec

from tripost.gateway.config import Config
from tripost.queue.errors import SpoolLocked
from tripost.queue.files import RealFiles
from tripost.queue.verify import Report, verify


def run(config: Config, *, offline: bool, as_json: bool) -> int:
    """0: all is as it was written; 1: damage, told on standard output; 2: there is no spool, or it is in use."""
    folder = os.path.join(config.state, "spool")
    bar = sys.stderr.isatty()
    try:
        report = verify(RealFiles(), folder, offline=offline, progress=_show if bar else _hide)
    except FileNotFoundError:
        print(f"tripost: there is no spool in {config.state} yet", file=sys.stderr)
        return 2
    except SpoolLocked:
        print("tripost: a gateway runs with this spool; stop it, or leave out --offline", file=sys.stderr)
        return 2
    except OSError as wrong:
        print(f"tripost: {wrong.filename or folder}: {wrong.strerror}", file=sys.stderr)
        return 2
    if bar:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    print(msgspec.json.encode(report).decode() if as_json else _text(report))
    return 1 if report.damage else 0


def _text(report: Report) -> str:
    lines = [
        f"{report.segments} segments with {report.records} records of {report.messages} messages, "
        f"{report.bodies} body files, {report.octets} octets"
    ]
    if report.left_over:
        what = "may be of what is damaged: keep them" if report.damage else "the next start removes them"
        lines.append(f"{report.left_over} body files belong to no message; {what}")
    lines += report.damage
    lines.append("no damage" if not report.damage else f"{len(report.damage)} damaged places")
    return "\n".join(lines)


def _show(done: int, of: int) -> None:
    print(f"\rsegment {done + 1} of {of} ", end="", file=sys.stderr, flush=True)


def _hide(done: int, of: int) -> None:
    """No terminal, no progress."""
