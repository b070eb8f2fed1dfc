"""the event log: one line per event

JSON lines for machines, one readable line for people on a terminal. The
format follows the output (`auto`) unless the configuration says which. A log
that cannot be written (closed pipe, full disk) is counted, never waited for.
"""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

import msgspec

from tripost.queue.events import Bus, Event, encode_event


class EventLog:
    """Writes every event of a bus to `output`; `lost` counts the lines that could not be written."""

    def __init__(self, output: TextIO | None = None, form: str = "auto") -> None:
        self._output = output if output is not None else sys.stderr
        self._text = form == "text" or (form == "auto" and self._output.isatty())
        self.lost = 0

    def attach(self, bus: Bus) -> None:
        bus.add_sink(self.write)

    def write(self, event: Event) -> None:
        line = readable(event) if self._text else encode_event(event).decode()
        try:
            self._output.write(line + "\n")
            self._output.flush()
        except (OSError, ValueError):
            self.lost += 1


def readable(event: Event) -> str:
    """`12:04:31 accepted id=… sender=…`; control characters are escaped."""
    fields: dict[str, Any] = msgspec.to_builtins(event)
    name = fields.pop("event")
    at = time.strftime("%H:%M:%S", time.localtime(fields.pop("time")))
    words = " ".join(f"{key}={_show(value)}" for key, value in fields.items())
    return f"{at} {name} {words}".rstrip()


def _show(value: Any) -> str:
    if isinstance(value, list | dict):
        return msgspec.json.encode(value).decode()
    if isinstance(value, float):
        return f"{value:.1f}"
    text = str(value)
    return msgspec.json.encode(text).decode() if not text.isprintable() or " " in text or not text else text
