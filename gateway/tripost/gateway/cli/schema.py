"""tripost schema [COMMAND…]: what the lines of a command's --json look like, as JSON Schema"""

from __future__ import annotations

import difflib
import sys

import msgspec

from tripost.gateway.cli.rows import ROWS, schema


def run(words: list[str]) -> int:
    """Without words: which commands there are."""
    command = " ".join(words)
    if not command:
        print("\n".join(sorted(ROWS)))
        return 0
    if command not in ROWS:
        close = difflib.get_close_matches(command, ROWS, 1)
        also = f'; did you mean "{close[0]}"?' if close else "; see tripost schema"
        print(f"tripost: {command} has no --json{also}", file=sys.stderr)
        return 2
    print(msgspec.json.format(msgspec.json.encode(schema(command)), indent=2).decode())
    return 0
