"""tripost config schema | show | diff"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping

import msgspec

from tripost.gateway.cli.printing import print_row
from tripost.gateway.config import Loaded, read
from tripost.gateway.config_schema import schema
from tripost.gateway.config_sources import dotted
from tripost.gateway.config_values import differences, named, origin, values
from tripost.gateway.control.client import ControlError, ask


def run(options: argparse.Namespace) -> int:
    if options.verb == "schema":
        print(msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode())
        return 0
    found = _read(options.config_file, os.environ)
    if found is None:
        return 2
    return _show(found, options) if options.verb == "show" else _diff(found, options)


def _read(path: str | None, environment: Mapping[str, str]) -> Loaded | None:
    found = read(path, environment)
    for one in found.problems:
        print(f"tripost: {one}", file=sys.stderr)
    return None if found.problems else found


def _show(found: Loaded, options: argparse.Namespace) -> int:
    rows: list[tuple[str, str, dict[str, object]]] = []
    for path, value in values(found.config).items():
        key, where = dotted(path), origin(path, found.sources, os.environ)
        if options.keys and not any(key == one or key.startswith((f"{one}.", f"{one}[")) for one in options.keys):
            continue
        if options.written and not where.file:
            continue
        rows.append((f"{key} = {value}", where.source, {"key": key, "value": value, **msgspec.to_builtins(where)}))
    width = min(60, max([len(text) for text, _, _ in rows], default=0))
    for text, source, row in rows:
        print_row(row) if options.json else print(f"{text:<{width}}  # {source}")
    if not rows:
        print(f"tripost: no such key: {' '.join(options.keys)}", file=sys.stderr)
    return 0 if rows else 1


def _diff(found: Loaded, options: argparse.Namespace) -> int:
    try:
        rows = list(ask(found.config.state, "config"))
    except ControlError as wrong:
        print(f"tripost: {wrong}", file=sys.stderr)
        return wrong.exit
    # the same eyes as the gateway's: what systemd told it and not us
    environment = dict(os.environ) | {str(name): str(value) for name, value in rows[-1]["sum"]["environment"].items()}
    again = _read(options.config_file, environment)
    if again is None:
        return 2
    running = {row["key"]: row["value"] for row in rows[:-1]}
    places = {dotted(path): origin(path, again.sources, environment).source for path in values(again.config)}
    changed = [
        {"key": key, "running": old, "file": new, "source": places.get(key, "")}
        for key, old, new in differences(running, named(again.config))
    ]
    if options.json:
        print_row({"same": not changed, "differences": changed})
        return 1 if changed else 0
    for row in changed:
        told = f"{row['running'] or 'nothing'} → {row['file'] or 'nothing'}"
        print(f"{row['key']}: {told}  # {row['source'] or 'not there any more'}")
    if not changed:
        print("the running gateway has what the file says")
    return 1 if changed else 0
