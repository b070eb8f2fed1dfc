"""events in systemd's journal, with their fields

Pure: an event's fields to one datagram of the journal's native protocol
(systemd.io, "Native Journal Protocol"): lines of `NAME=value`; a value that
holds a newline has its length, 64 bits little-endian, instead of the `=`.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

WARNINGS = frozenset({"trouble", "dropped", "failed", "unreachable", "backoff", "loginfailed"})
WARNING, INFO = "4", "6"  # syslog's priorities
_NAME = re.compile("[^A-Z0-9_]")


def datagram(fields: dict[str, Any], message: str) -> bytes:
    """`fields` as JSON has them, with `event` among them; `message` for people."""
    out = bytearray()
    name = str(fields["event"])
    _put(out, "MESSAGE", message)
    _put(out, "PRIORITY", WARNING if name in WARNINGS else INFO)
    _put(out, "SYSLOG_IDENTIFIER", "tripost")
    for key, value in fields.items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        _put(out, f"TRIPOST_{_NAME.sub('_', key.upper())}", text)
    return bytes(out)


def _put(out: bytearray, name: str, value: str) -> None:
    data = value.encode("utf-8", "replace")
    if b"\n" in data:
        out += name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    else:
        out += name.encode() + b"=" + data + b"\n"
