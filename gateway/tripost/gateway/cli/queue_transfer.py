"""tripost queue export and import: queued mail as files

Each message is two files: ID.json, its envelope, and ID.eml, its content.
"""

from __future__ import annotations

import argparse
import base64
import os
import sys
from typing import Any, BinaryIO

import msgspec

from tripost.gateway.cli.printing import print_row
from tripost.gateway.config import Config
from tripost.gateway.control.client import ControlError, ask, hand_in


def export(config: Config, options: argparse.Namespace, wanted: dict[str, Any]) -> int:
    """What is there already is not written over. Raises ControlError, ValueError."""
    count, content = 0, None
    try:
        os.makedirs(options.folder, exist_ok=True)
        for row in ask(config.state, "queue.export", **wanted):
            if "envelope" in row:
                if content is not None:
                    content.close()
                content = _begin(options.folder, row["envelope"])
                count += 1
                if options.json:
                    print_row({"id": row["envelope"]["id"]})
            elif "data" in row and content is not None:
                content.write(base64.b64decode(row["data"]))
    except OSError as wrong:
        raise ControlError(f"{wrong.filename or options.folder}: {wrong.strerror}", 1) from wrong
    finally:
        if content is not None:
            content.close()
    if not options.json:
        print(f"{count} messages are in {options.folder}; they are queued as before")
    return 0 if count else 1


def _begin(folder: str, envelope: dict[str, Any]) -> BinaryIO:
    """Raises OSError."""
    base = os.path.join(folder, envelope["id"])
    with open(base + ".json", "xb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(envelope)) + b"\n")
    return open(base + ".eml", "xb")


def bring(config: Config, options: argparse.Namespace) -> int:
    """Messages that cannot be taken are told, and the others are. Raises ControlError when no gateway answers."""
    failed = 0
    for path in _envelopes(options.paths):
        try:
            with open(path, "rb") as file:
                envelope = msgspec.json.decode(file.read(), type=dict[str, Any])
            with open(path.removesuffix(".json") + ".eml", "rb") as content:
                done = hand_in(config.state, "queue.import", content, **envelope)
        except (OSError, msgspec.DecodeError, ControlError) as wrong:
            if isinstance(wrong, ControlError) and wrong.exit == 3:
                raise
            failed += 1
            print(f"tripost: {path}: {wrong}", file=sys.stderr)
            continue
        if options.json:
            print_row({"file": path, "id": done["id"]})
        else:
            print(f"{path}: queued as {done['id']}")
    return 1 if failed else 0


def _envelopes(paths: list[str]) -> list[str]:
    """The .json files that are named, and those in folders that are."""
    found: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            found += sorted(os.path.join(path, name) for name in os.listdir(path) if name.endswith(".json"))
        else:
            found.append(path)
    return found
