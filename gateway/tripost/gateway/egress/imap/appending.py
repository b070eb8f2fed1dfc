"""APPEND and REPLACE: messages that come as literals, written down as they come

Promise  a message of any size takes `PIECE` octets of memory. What was announced is
         looked at before it is sent: size, mailbox, quota. The files of a command that
         becomes none are removed, also when the connection breaks.
Source   RFC 9051 §6.3.12, RFC 3502 (MULTIAPPEND), RFC 3516 and 6855 (literal8), RFC 7889
         (APPENDLIMIT), RFC 8508 (REPLACE).
"""

from __future__ import annotations

import os
from functools import partial

from tripost.delivery.mailbox import folder_changes as changes
from tripost.delivery.mailbox.folder_changes import NewFile, new_key
from tripost.delivery.mailbox.keywords import Crowded
from tripost.delivery.mailbox.lineends import WireEnds
from tripost.delivery.mailbox.opened import Shared
from tripost.delivery.mailbox.places import write_all
from tripost.gateway.egress.imap.client import Client, in_thread
from tripost.gateway.egress.imap.commands import Command, appending
from tripost.gateway.egress.imap.reader import Announced
from tripost.gateway.egress.imap.sets import compact
from tripost.gateway.egress.imap.values import Append, Impossible

PIECE = 262_144
NO_MAILBOX = "[TRYCREATE] no such mailbox"


class _Spooled:
    """One message on its way to the disk."""

    def __init__(self, folder: str, *, binary: bool) -> None:
        self.path = os.path.join(folder, f"imap.{new_key()}")
        self.size = self.wire = 0
        self.spoilt = False  # a NUL where there must be none
        self._binary = binary
        self._ends = WireEnds()
        self._waiting: list[bytes] = []
        self._pending = 0
        self._fd = -1

    @property
    def full(self) -> bool:
        return self._pending >= PIECE

    def add(self, octets: bytes) -> None:
        self._waiting.append(octets)
        self._pending += len(octets)
        self.size += len(octets)
        self.wire += len(octets if self._binary else self._ends.feed(octets))
        self.spoilt = self.spoilt or (not self._binary and b"\0" in octets)

    def write(self) -> None:
        """Blocking; raises OSError."""
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        data, self._waiting, self._pending = b"".join(self._waiting), [], 0
        write_all(self._fd, data)

    def finish(self, date: int | None) -> None:
        """Whole and durable, with the date that it is to have. Blocking; raises OSError."""
        self.write()
        self.wire += len(self._ends.finish())
        if date is not None:
            os.utime(self._fd, (date, max(0, date)))
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1

    def discard(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        try:
            os.unlink(self.path)
        except OSError:
            pass  # it was put into its folder, or never made


class Appender:
    """The messages of the command that is being read."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._spooled: list[_Spooled] = []
        self._octets = 0

    async def begin(self, announced: Announced) -> str:
        """ "" to have it; else what to answer."""
        client, context = self._client, self._client.context
        if announced.size > context.limit:
            return f"NO [TOOBIG] a message has at most {context.limit} octets"
        if not announced.size:
            return "NO a message of no octets"
        try:
            await client.existing(appending(announced.head) or b"", NO_MAILBOX)
            await self._weigh(announced.size)
        except Impossible as wrong:
            return f"NO {wrong}"
        except OSError:
            return "NO [UNAVAILABLE] the disk cannot be read now"
        self._octets += announced.size
        self._spooled.append(_Spooled(os.path.join(client.tree.box, "tmp"), binary=announced.binary))
        return ""

    async def _weigh(self, size: int) -> None:
        client = self._client
        policy = client.policy
        if policy.limited:
            octets, messages = await in_thread(partial(client.context.measure, client.tree.box))
            if policy.full(octets + self._octets + size, messages + len(self._spooled) + 1):
                raise Impossible("[OVERQUOTA] the mailbox is full")

    async def data(self, octets: bytes) -> None:
        """Raises OSError."""
        one = self._spooled[-1]
        one.add(octets)
        if one.full:
            await in_thread(one.write)

    def discard(self) -> None:
        """Forget what has come of a command that is none."""
        for one in self._spooled:
            one.discard()
        self._spooled, self._octets = [], 0

    async def append(self, client: Client, command: Command) -> str:
        asked = command.args
        assert isinstance(asked, Append)
        replaced = self._replaced(command, asked)
        if any(one.spoilt for one in self._spooled):
            return "BAD NUL in a literal; a literal8 may have it"
        _, path = await client.existing(asked.octets, NO_MAILBOX)
        try:
            async with client.context.opened.use(path) as target:
                uids = await target.run(partial(self._put, target, asked))
                validity = target.folder.index.validity
        except Crowded:
            raise Impossible("[LIMIT] there is no room for another keyword in this mailbox") from None
        told = f"APPENDUID {validity} {compact(uids)}"
        if not replaced:
            return f"OK [{told}] there"
        client.untagged(f"OK [{told}] there")
        view = client.selected
        await view.shared.run(partial(changes.expunge, view.folder, [replaced]))
        return "OK replaced"

    def _replaced(self, command: Command, asked: Append) -> int:
        """The UID of the message that REPLACE is about; 0 for APPEND."""
        if not asked.replaced:
            return 0
        view = self._client.selected
        if view.read_only:
            raise Impossible("the mailbox was opened to be looked at only")
        uid = asked.replaced
        if command.name == "REPLACE":
            uid = view.uids[uid - 1] if 0 < uid <= len(view.uids) else 0
        if not uid or view.folder.rows.at(uid) < 0:
            raise Impossible("[NONEXISTENT] there is no message of that number")
        return uid

    def _put(self, target: Shared, asked: Append) -> list[int]:
        target.folder.refresh()
        files: list[NewFile] = []
        for message in asked.messages:
            one = self._spooled[message.literal]
            one.finish(message.date)
            files.append(NewFile(one.path, one.size, one.wire, message.flags))
        return changes.put(target.folder, files, self._client.context.hostname)
