"""what sessions do to the messages of a folder

Blocking; the caller holds the folder (both, in the order of their paths).
Whatever it was told of a message may be out of date: what is not there any more
is left out.

Promise  `store`: the flags are durable on return. `expunge`: the files are gone, and
         durably so, before the UIDs are. `put` and `copy`: messages and UIDs are durable
         on return; when something fails, none is left. `move`: each message is in one of
         the two folders whenever the machine dies.
Fails    OSError; `Vanished` when `copy` misses a message that another program
         removed.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from tripost.delivery.mailbox import keywords
from tripost.delivery.mailbox.flags import FIRST_KEYWORD, mask_for, named, names_of
from tripost.delivery.mailbox.folder import Folder
from tripost.delivery.mailbox.index import held
from tripost.delivery.mailbox.places import sync_folder
from tripost.delivery.mailbox.uids import file_name

COPY = 1 << 20  # octets read at once, where a file cannot be linked


class Vanished(Exception):
    """A message that was to be copied is gone."""


class NewFile(msgspec.Struct, frozen=True):
    """A message that is written and synced, to be put into the folder: where it is, its size, and on the wire."""

    path: str
    size: int
    wire: int
    flags: tuple[str, ...] = ()


def new_key() -> str:
    return secrets.token_hex(8)


def mask_in(folder: Folder, names: Iterable[str]) -> int:
    """The mask of these flags; keywords that are new are made. Raises OSError, keywords.Crowded."""
    wanted = list(names)
    mask, fresh = mask_for(wanted, folder.keywords)
    if fresh:
        ours = folder.untouched()
        folder.keywords = keywords.add(folder.path, fresh)
        folder.version += 1
        folder.adopt(ours)
        mask, _ = mask_for(wanted, folder.keywords)
    return mask


def store(
    folder: Folder, uids: Sequence[int], change: Callable[[int], int], unchanged_since: int | None = None
) -> list[int]:
    """`change(mask)` of each. The UIDs that were left alone because they have changed since."""
    rows = folder.rows
    refused: list[int] = []
    changed: list[tuple[int, int, int]] = []
    for uid in uids:
        at = rows.at(uid)
        if at < 0:
            continue
        if unchanged_since is not None and rows.modseqs[at] > unchanged_since:
            refused.append(uid)
        elif (mask := change(rows.masks[at])) != rows.masks[at]:
            changed.append((uid, mask, at))
    if changed:
        modseq = folder.journal.next_modseq()
        folder.journal.mark([(uid, mask, modseq) for uid, mask, _ in changed], settled=False)
        for _, mask, at in changed:
            rows.masks[at] = mask
            rows.modseqs[at] = modseq
        folder.version += 1
        folder.rename((uid, mask) for uid, mask, _ in changed)
    return refused


def expunge(folder: Folder, uids: Iterable[int]) -> list[int]:
    """Remove these messages; those that went."""
    ours = folder.untouched()
    found = [(uid, folder.rows.names[at]) for uid in uids if (at := folder.rows.at(uid)) >= 0]
    if not found:
        return []
    parts: set[str] = set()
    for _, name in found:
        try:
            path = folder.path_of(name)
            os.unlink(path)
        except FileNotFoundError:
            folder.dirty = True  # renamed by another program, or gone
            continue
        parts.add(os.path.dirname(path))
    for part in parts:
        sync_folder(part)
    return _forget(folder, found, ours)


def _forget(folder: Folder, found: list[tuple[int, str]], ours: bool) -> list[int]:
    """Their files are gone; take them off the lists."""
    gone = [uid for uid, _ in found]
    if folder.dirty:
        folder.refresh()
        return [uid for uid in gone if folder.rows.at(uid) < 0]
    for _, name in found:
        folder.places.pop(name, None)
    with held(folder.path):
        folder.index.catch_up()
        folder.index.drop(set(gone))
        folder.index.save()
    folder.take()
    folder.adopt(ours)
    return gone


def put(folder: Folder, files: Sequence[NewFile], hostname: str) -> list[int]:
    """Take in what has been written; their UIDs."""
    ours = folder.untouched()
    placed: list[tuple[str, str, int]] = []  # name, place, size on the wire
    try:
        for one in files:
            mask = mask_in(folder, one.flags)
            name = file_name(new_key(), time.time(), hostname, one.size)
            name = name if one.wire == one.size else name.replace(f",W={one.size}", f",W={one.wire}")
            place = f"cur/{named(name, mask)}" if mask else f"new/{name}"
            os.rename(one.path, os.path.join(folder.path, place))
            placed.append((name, place, one.wire))
        return _add(folder, placed, ours)
    except BaseException:
        _undo(folder, placed)
        raise


def _undo(folder: Folder, placed: list[tuple[str, str, int]]) -> None:
    folder.dirty = True
    for _, place, _ in placed:
        try:
            os.unlink(os.path.join(folder.path, place))
        except OSError:
            pass  # it is a message then; better twice than never


def _add(folder: Folder, placed: list[tuple[str, str, int]], ours: bool) -> list[int]:
    """Their files are there; give them UIDs."""
    for part in {place[:3] for _, place, _ in placed}:
        sync_folder(os.path.join(folder.path, part))
    with held(folder.path):
        folder.index.catch_up()
        uids = folder.index.add([(name, wire) for name, _, wire in placed])
        folder.index.save()
    folder.places.update((name, place) for name, place, _ in placed)
    if ours:
        folder.take()
        folder.adopt(True)
    else:
        folder.dirty = True
        folder.refresh()
    folder.fresh.update(uid for uid, (_, place, _) in zip(uids, placed, strict=True) if place[0] == "c")
    return uids


def translated(source: Folder, target: Folder, mask: int) -> int:
    """The mask of the same flags in another folder, as far as it has room for the keywords."""
    if not mask >> FIRST_KEYWORD:
        return mask
    try:
        return mask_in(target, names_of(mask, source.keywords))
    except (keywords.Crowded, OSError):
        return mask & ((1 << FIRST_KEYWORD) - 1)


def copy(source: Folder, uids: Sequence[int], target: Folder, hostname: str) -> list[tuple[int, int]]:
    """(UID here, UID there) of each. Raises Vanished, OSError: then nothing was copied."""
    ours = target.untouched()
    placed: list[tuple[str, str, int]] = []
    taken: list[int] = []
    try:
        for uid in uids:
            at = source.rows.at(uid)
            if at < 0:
                raise Vanished
            mask = translated(source, target, source.rows.masks[at])
            name = copied_name(source.rows.names[at])
            place = f"cur/{named(name, mask)}"
            _link(source, source.rows.names[at], os.path.join(target.path, place))
            placed.append((name, place, source.rows.sizes[at]))
            taken.append(uid)
        return list(zip(taken, _add(target, placed, ours), strict=True)) if placed else []
    except BaseException:
        _undo(target, placed)
        raise


def copied_name(name: str) -> str:
    """A new name that still says what it is a copy of (`origin`): it has the same EMAILID."""
    stem, dot, rest = name.partition(".")
    key, dot2, more = rest.partition(".")
    return f"{stem}{dot}{key.partition('~')[0]}~{new_key()}{dot2}{more}" if dot else f"{name}~{new_key()}"


def origin(name: str) -> str:
    """What all copies of a message have in common."""
    stem, dot, rest = name.partition(".")
    key, dot2, more = rest.partition(".")
    return f"{stem}{dot}{key.partition('~')[0]}{dot2}{more}" if dot else name.partition("~")[0]


def _link(source: Folder, name: str, target: str) -> None:
    try:
        os.link(source.path_of(name), target, follow_symlinks=False)
        return
    except FileNotFoundError:
        pass  # renamed by another program, or gone
    except OSError:
        pass  # another file system, or one without links
    try:
        fd = source.open(name)
    except FileNotFoundError:
        raise Vanished from None
    try:
        with open(target, "xb") as out:
            while data := os.read(fd, COPY):
                out.write(data)
            out.flush()
            times = os.fstat(fd)
            os.utime(out.fileno(), ns=(times.st_atime_ns, times.st_mtime_ns))
            os.fsync(out.fileno())
    finally:
        os.close(fd)


def move(source: Folder, uids: Sequence[int], target: Folder) -> list[tuple[int, int]]:
    """(UID here, UID there) of each that was there."""
    ours = source.untouched(), target.untouched()
    placed: list[tuple[str, str, int]] = []
    moved: list[tuple[int, str]] = []
    for uid in uids:
        at = source.rows.at(uid)
        if at < 0:
            continue
        old = source.rows.names[at]
        name = copied_name(old) if source is target or old in target.places else old
        mask = translated(source, target, source.rows.masks[at])
        place = f"cur/{named(name, mask, source.places.get(old, ''))}"
        try:
            os.rename(source.path_of(old), os.path.join(target.path, place))
        except FileNotFoundError:
            source.dirty = True
            continue
        placed.append((name, place, source.rows.sizes[at]))
        moved.append((uid, old))
    if not moved:
        return []
    if source is target:
        for _, old in moved:
            source.places.pop(old, None)
        new = _add(target, placed, ours[1])
        _forget(source, moved, ours[0])
    else:
        new = _add(target, placed, ours[1])
        sync_folder(os.path.join(source.path, "cur"))
        _forget(source, moved, ours[0])
    return list(zip([uid for uid, _ in moved], new, strict=True))
