"""how commands print what others are to read"""

from __future__ import annotations

from typing import Any

import msgspec

_json = msgspec.json.Encoder().encode


def print_row(row: dict[str, Any]) -> None:
    """One JSON object, on a line of its own."""
    print(_json(row).decode())
