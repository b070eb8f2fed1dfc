"""folders of the mail store, and how they reach the disk

    mail/marc@machin.com/{tmp,new,cur}     a mailbox; Maildir++
    mail/marc@machin.com/.Lists/{…}        a folder in it
    mail/.staging                          messages that are written, not yet visible
    mail/.delivered                        see `delivered`
    mail/.removing                         see `removal`

A mailbox's name never begins with a dot, so nothing of an account's name can
reach the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable

STAGING = ".staging"
DELIVERED = ".delivered"
REMOVING = ".removing"
PARTS = ("tmp", "new", "cur")


def make_mailbox(box: str) -> None:
    """Folder and its three parts, entries synced."""
    for part in PARTS:
        path = os.path.join(box, part)
        if not os.path.isdir(path):
            os.makedirs(path, mode=0o700, exist_ok=True)
            sync_folder(box)
            sync_folder(os.path.dirname(box))


def make_folder(path: str) -> None:
    if not os.path.isdir(path):
        os.makedirs(path, mode=0o700, exist_ok=True)
        sync_folder(os.path.dirname(path))


def sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def replace_file(path: str, data: bytes, made: Callable[[int], None] = lambda fd: None) -> None:
    """The file holds `data`, or what it held before, whatever happens; durable on return. `made` is called with the new
    file's descriptor."""
    new = f"{path}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        made(fd)
        write_all(fd, data)
        os.fsync(fd)
        os.rename(new, path)
    except BaseException:
        os.unlink(new)
        raise
    finally:
        os.close(fd)
    sync_folder(os.path.dirname(path))
