"""all or none of the messages that a session deletes

Before the first of several files goes, the list of all is durable in
mail/.removing; whoever opens the mailbox next, or the next start, removes the
rest. A crash before that has deleted nothing, a crash after it everything.

Fails    OSError before anything is removed (a full disk), or after: then the
         list stays, and so does the promise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import msgspec

from tripost.delivery.mailbox.places import REMOVING, make_folder, replace_file, sync_folder

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[bytes]).decode
Find = Callable[[], dict[str, str]]  # every message of the mailbox: name without flags → path


def remove(mail: str, box: str, paths: Sequence[tuple[str, str]], find: Find) -> None:
    """`paths`: name without flags, and where it was last seen."""
    if not paths:
        return
    intent = _intent(mail, box)
    if len(paths) > 1:
        make_folder(os.path.dirname(intent))
        replace_file(intent, _encode([os.fsencode(name) for name, _ in paths]))
    _unlink(paths, find)
    if len(paths) > 1:
        os.unlink(intent)


def replay(mail: str, box: str, find: Find) -> int:
    """Finish what a crash cut off; how many messages that concerned. The caller holds the mailbox."""
    intent = _intent(mail, box)
    try:
        with open(intent, "rb") as file:
            names = [os.fsdecode(name) for name in _decode(file.read())]
    except FileNotFoundError:
        return 0
    except msgspec.DecodeError:  # written whole or not at all: this is somebody else's doing
        os.rename(intent, f"{intent}.damaged")
        return 0
    there = find()
    found = [(name, there[name]) for name in names if name in there]
    _unlink(found, find)
    os.unlink(intent)
    return len(found)


def pending(mail: str) -> list[str]:
    """The mailbox folders with something to finish."""
    try:
        names = os.listdir(os.path.join(mail, REMOVING))
    except FileNotFoundError:
        return []
    return [os.path.join(mail, name) for name in names if not name.endswith((".new", ".damaged"))]


def _intent(mail: str, box: str) -> str:
    return os.path.join(mail, REMOVING, os.path.basename(box))


def _unlink(paths: Sequence[tuple[str, str]], find: Find) -> None:
    moved: list[str] = []
    folders: set[str] = set()
    for name, path in paths:
        folders.add(os.path.dirname(path))
        try:
            os.unlink(path)
        except FileNotFoundError:
            moved.append(name)  # renamed by another program, or gone
    if moved:
        there = find()
        for name in moved:
            if name in there:
                os.unlink(there[name])
                folders.add(os.path.dirname(there[name]))
    for folder in folders:
        sync_folder(folder)
