"""the folders of one mailbox: which there are, and making, removing, renaming them

    marc@machin.com            INBOX
    marc@machin.com/.A.B       A.B (modified UTF-7)
    marc@machin.com/subscriptions   names, one a line, as Dovecot has them

Promise  whatever a name says, nothing outside of the mailbox is touched: names are
         checked before they come here, and are one component on disk. A UIDVALIDITY
         is never given twice to the same name.
Fails    OSError, FileExistsError, FileNotFoundError; `Full` at `MOST_FOLDERS`.
"""

from __future__ import annotations

import os
import secrets
import shutil

from tripost.delivery.mailbox.index import NAME as INDEX
from tripost.delivery.mailbox.index import Index
from tripost.delivery.mailbox.places import PARTS, make_mailbox, replace_file, sync_folder

MOST_FOLDERS = 5000
MOST_SUBSCRIPTIONS = 10_000
SUBSCRIPTIONS = "subscriptions"
VALIDITY = "tripost-validity"  # the last UIDVALIDITY that was given to a folder
_REMOVED = "removed."  # in tmp: folders that are being removed


class Full(Exception):
    """There are too many folders."""


class Tree:
    """`box` is the mailbox's folder. Names are in modified UTF-7, "" for INBOX. Blocking."""

    def __init__(self, box: str) -> None:
        self.box = box

    def prepare(self) -> None:
        """There is an INBOX. Raises OSError."""
        make_mailbox(self.box)
        with os.scandir(os.path.join(self.box, "tmp")) as entries:
            for entry in entries:
                if entry.name.startswith(_REMOVED):
                    shutil.rmtree(entry.path, ignore_errors=True)

    def path(self, name: str) -> str:
        return os.path.join(self.box, f".{name}") if name else self.box

    def exists(self, name: str) -> bool:
        return os.path.isdir(os.path.join(self.path(name), "cur"))

    def names(self) -> list[str]:
        """All folders but INBOX, sorted."""
        found: list[str] = []
        with os.scandir(self.box) as entries:
            for entry in entries:
                named = entry.name[0] == "." and len(entry.name) > 1 and entry.name.isascii()
                if named and os.path.isdir(os.path.join(entry.path, "cur")):
                    found.append(entry.name[1:])
        return sorted(found)

    def create(self, name: str, now: float) -> None:
        """Raises FileExistsError, Full, OSError."""
        if self.exists(name):
            raise FileExistsError(name)
        if len(self.names()) >= MOST_FOLDERS:
            raise Full
        path = self.path(name)
        validity = self._validity(int(now))
        new = os.path.join(self.box, "tmp", f"made.{secrets.token_hex(8)}")
        os.mkdir(new, 0o700)
        for part in PARTS:
            os.mkdir(os.path.join(new, part), 0o700)
        open(os.path.join(new, "maildirfolder"), "xb").close()  # Maildir++
        Index(new, validity).save()
        sync_folder(new)
        if os.path.isdir(path):  # not a Maildir: cur is missing
            raise FileExistsError(name)
        os.rename(new, path)
        sync_folder(self.box)

    def _validity(self, at_least: int) -> int:
        path = os.path.join(self.box, VALIDITY)
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                last = int(file.read(20))
        except (FileNotFoundError, ValueError):
            last = 0
        found = max(last + 1, at_least)
        replace_file(path, f"{found}\n".encode())
        return found

    def delete(self, name: str) -> None:
        """With its messages. Raises FileNotFoundError, OSError."""
        path = self.path(name)
        self._validity(_validity_of(path))
        gone = os.path.join(self.box, "tmp", f"{_REMOVED}{secrets.token_hex(8)}")
        os.rename(path, gone)
        sync_folder(self.box)
        shutil.rmtree(gone, ignore_errors=True)  # what cannot be removed now goes at the next `prepare`

    def rename(self, old: str, new: str) -> list[tuple[str, str]]:
        """With those below it; what was renamed. Raises FileNotFoundError, FileExistsError, OSError."""
        names = self.names()
        moved = [(one, new + one[len(old) :]) for one in names if one == old or one.startswith(f"{old}.")]
        if not moved:
            raise FileNotFoundError(old)
        there = set(names)
        if any(target in there for _, target in moved):
            raise FileExistsError(new)
        for source, target in moved:
            os.rename(self.path(source), self.path(target))
        sync_folder(self.box)
        return moved

    # --- subscriptions ---

    def subscribed(self) -> list[str]:
        """Names as they were subscribed, INBOX as "INBOX". Raises OSError."""
        try:
            with open(os.path.join(self.box, SUBSCRIPTIONS), encoding="ascii", errors="replace") as file:
                lines = file.read(4 << 20).splitlines()
        except FileNotFoundError:
            return []
        if lines[:1] == ["V\t2"]:  # Dovecot's newer form: levels apart by tabs
            lines = [line.replace("\t", ".") for line in lines[2:]]
        return [line for line in lines if line]

    def subscribe(self, name: str, *, yes: bool) -> None:
        """Raises OSError, Full."""
        found = self.subscribed()
        if yes is (name in found):
            return
        if len(found) >= MOST_SUBSCRIPTIONS and yes:
            raise Full
        lines = [*found, name] if yes else [one for one in found if one != name]
        replace_file(os.path.join(self.box, SUBSCRIPTIONS), "".join(f"{line}\n" for line in lines).encode("ascii"))


def _validity_of(path: str) -> int:
    return Index(path, 1).validity if os.path.exists(os.path.join(path, INDEX)) else 0
