"""the local destination: Maildir, never twice and never not

One folder per mailbox, with tmp, new and cur. Content keeps its CRLF line
ends, so that POP3 sends exactly the octets that came, and sizes are the files'.

Promise  `deliver` says Delivered only when file and folder entry are on stable
         storage. The same (message, recipient) is visible at most once, even
         when a reader removed it before it was delivered again.
Why      A list of deliveries is synced after the file in tmp and before its
         move to new. Found in the list: what is still in tmp is moved now, and
         what is not was visible already.
Fails    any trouble with the disk is a deferral of the message.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from tripost.delivery.mailbox.uids import file_name, folder_name
from tripost.queue.body import BodyReader
from tripost.queue.log import RunSync
from tripost.queue.message import Deferred, Delivered, Envelope, Failed, Outcome, Recipient

LIST_LIMIT = 8192  # entries; only deliveries whose settlement a crash may have cut matter
READ = 65_536


class MaildirDelivery:
    """`folder` holds the mailboxes; `known` says whether an account exists (None: all do)."""

    def __init__(
        self, folder: str, hostname: str, known: Callable[[str], bool] | None = None, run_sync: RunSync | None = None
    ) -> None:
        self._folder = folder
        self._hostname = hostname
        self._known = known
        self._run_sync: RunSync = run_sync if run_sync is not None else trio.to_thread.run_sync
        self._list = _DeliveredList(os.path.join(folder, ".delivered"))
        self._lock = trio.Lock()  # the list has one writer

    async def deliver(
        self,
        envelope: Envelope,
        recipients: tuple[Recipient, ...],
        open_reader: Callable[[], Awaitable[BodyReader]],
    ) -> dict[int, Outcome]:
        """One outcome per recipient. Raises SpoolError when the content cannot be read."""
        outcomes: dict[int, Outcome] = {}
        for one in recipients:
            if self._known is not None and not self._known(one.address):
                outcomes[one.id] = Failed(550, "5.1.1", "no such user here")
                continue
            reader = await open_reader()
            try:
                await self._store(envelope, one, reader)
                outcomes[one.id] = Delivered("delivered")
            except OSError as wrong:
                outcomes[one.id] = Deferred(452, "4.2.0", f"mailbox: {wrong.strerror}")
            finally:
                reader.close()
        return outcomes

    async def _store(self, envelope: Envelope, recipient: Recipient, reader: BodyReader) -> None:
        key = f"{envelope.id}_{recipient.id}"
        box = os.path.join(self._folder, folder_name(recipient.address))
        name = file_name(envelope.id, recipient.id, envelope.accepted, self._hostname)
        async with self._lock:
            seen = await self._hop(partial(self._list.has, key))
        if not seen:
            head = f"Return-Path: <{envelope.sender}>\r\nDelivered-To: {recipient.address}\r\n".encode()
            await self._write(box, name, head, reader)
            async with self._lock:
                await self._hop(partial(self._list.add, key))
        await self._hop(partial(_show, box, name))

    async def _write(self, box: str, name: str, head: bytes, reader: BodyReader) -> None:
        fd: int = await self._hop(partial(_create, box, name))
        try:
            await self._hop(partial(_write_all, fd, head))
            while data := await reader.read(READ):
                await self._hop(partial(_write_all, fd, data))
            await self._hop(partial(os.fsync, fd))
        finally:
            os.close(fd)

    async def _hop(self, work: Callable[[], Any]) -> Any:
        return await self._run_sync(work)


def make_mailbox(box: str) -> None:
    """Folder and its three parts, entries synced."""
    for part in ("tmp", "new", "cur"):
        path = os.path.join(box, part)
        if not os.path.isdir(path):
            os.makedirs(path, mode=0o700, exist_ok=True)
            _sync_folder(box)
            _sync_folder(os.path.dirname(box))


def _create(box: str, name: str) -> int:
    make_mailbox(box)
    path = os.path.join(box, "tmp", name)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _show(box: str, name: str) -> None:
    """Make it visible, if it is not, or was not, already."""
    tmp, new = os.path.join(box, "tmp", name), os.path.join(box, "new", name)
    if os.path.exists(tmp):
        if os.path.exists(new) or _in_cur(box, name):
            os.unlink(tmp)
        else:
            os.rename(tmp, new)
    _sync_folder(os.path.join(box, "new"))
    _sync_folder(os.path.join(box, "tmp"))


def _in_cur(box: str, name: str) -> bool:
    return any(one.partition(":")[0] == name for one in os.listdir(os.path.join(box, "cur")))


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _DeliveredList:
    """The last deliveries, on disk and in memory; blocking, one caller at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._fd = -1
        self._lines = 0

    def has(self, key: str) -> bool:
        self._open()
        return key in self._keys

    def add(self, key: str) -> None:
        self._open()
        if self._lines >= 2 * LIST_LIMIT:
            self._rewrite()
        _write_all(self._fd, f"{key}\n".encode())
        os.fdatasync(self._fd)
        self._lines += 1
        self._note(key)

    def _note(self, key: str) -> None:
        self._keys[key] = None
        while len(self._keys) > LIST_LIMIT:
            self._keys.popitem(last=False)

    def _open(self) -> None:
        if self._fd >= 0:
            return
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            with open(self._path, encoding="ascii", errors="replace") as lines:
                for line in lines:
                    self._lines += 1
                    self._note(line.rstrip("\n"))
            _write_all(fd, b"\n")  # whatever a crash cut off stays a line of its own
            _sync_folder(os.path.dirname(self._path))
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _rewrite(self) -> None:
        new = f"{self._path}.new"
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, "".join(f"{key}\n" for key in self._keys).encode())
            os.fsync(fd)
            os.rename(new, self._path)
            _sync_folder(os.path.dirname(self._path))
        except BaseException:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._lines = fd, len(self._keys)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
