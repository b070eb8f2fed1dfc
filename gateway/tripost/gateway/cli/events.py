"""tripost events: what the lines of the event log look like"""

from __future__ import annotations

import argparse

import msgspec

from tripost.gateway.observe.schema import kinds, schema


def run(options: argparse.Namespace) -> int:
    if options.verb == "schema":
        print(msgspec.json.format(msgspec.json.encode(schema()), indent=1).decode())
    else:
        print(kinds(), end="")
    return 0
