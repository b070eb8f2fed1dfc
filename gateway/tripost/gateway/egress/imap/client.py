"""one IMAP connection, as its commands see it

Output is collected and goes out in pieces; a client that does not read waits, and
so does its session only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TypeVar

import trio

from tripost.delivery.mailbox.opened import Shared
from tripost.delivery.mailbox.policy import Policy
from tripost.delivery.mailbox.tree import Tree
from tripost.delivery.mailbox.uids import folder_name
from tripost.gateway.egress.imap import utf7
from tripost.gateway.egress.imap.context import ImapContext
from tripost.gateway.egress.imap.render import astring, quoted_utf8, string
from tripost.gateway.egress.imap.values import Impossible, name_of
from tripost.gateway.egress.imap.view import View
from tripost.gateway.peer import Peer

T = TypeVar("T")
WRITE = 300.0  # seconds for one piece that a slow client takes
OUT_LIMIT = 65_536
NO_MAILBOX = "[NONEXISTENT] no such mailbox"


class Client:
    """`state` is n, a or s; `enabled` what ENABLE has switched on."""

    def __init__(self, stream: trio.abc.Stream, peer: Peer, context: ImapContext) -> None:
        self.stream = stream
        self.peer = peer
        self.context = context
        self.account = ""
        self.policy = Policy()
        self.view: View | None = None
        self.enabled: set[str] = set()
        self.compressed = False
        self.fetched = self.deleted = 0  # messages whose text was sent; that were removed
        self._tree: Tree | None = None
        self._out: list[bytes] = []
        self._pending = 0

    @property
    def state(self) -> str:
        return "s" if self.view is not None else "a" if self.account else "n"

    @property
    def selected(self) -> View:
        assert self.view is not None
        return self.view

    # --- output ---

    def put(self, data: bytes) -> None:
        self._out.append(data)
        self._pending += len(data)

    def lines(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self.put(line)

    def untagged(self, text: str) -> None:
        self.put(f"* {text}\r\n".encode())

    async def room(self) -> None:
        """Send, when much is waiting."""
        if self._pending > OUT_LIMIT:
            await self.flush()

    async def flush(self) -> None:
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out, self._pending = [], 0
            with trio.move_on_after(WRITE) as scope:
                await self.stream.send_all(data)
            if scope.cancelled_caught:
                raise trio.BrokenResourceError("the client does not read")

    def news(self, *, expunge: bool = True, uid: bool = False) -> None:
        """What has happened to the selected mailbox."""
        if self.view is not None:
            qresync = "QRESYNC" in self.enabled
            self.lines(
                self.view.news(
                    expunge=expunge, uid=uid or qresync, modseqs="CONDSTORE" in self.enabled, vanished=qresync
                )
            )

    def condstore(self) -> None:
        """A command that needs mod-sequences has switched them on (RFC 7162 §3.1.2)."""
        if "CONDSTORE" not in self.enabled and self.view is not None:
            self.untagged(f"OK [HIGHESTMODSEQ {self.view.folder.journal.highest}] from here on")
        self.enabled.add("CONDSTORE")

    # --- mailboxes ---

    @property
    def utf8(self) -> bool:
        return bool(self.enabled & {"UTF8=ACCEPT", "IMAP4rev2"})

    @property
    def tree(self) -> Tree:
        assert self._tree is not None
        return self._tree

    def log_in(self, account: str) -> None:
        self.account = account
        self.policy = self.context.policy(account)
        self._tree = Tree(os.path.join(self.context.mailboxes, folder_name(account)))

    def name(self, octets: bytes) -> str:
        """As it is on disk, "" for INBOX. Raises Impossible."""
        name = name_of(octets, utf8=self.utf8)
        return "" if name == "INBOX" else utf7.encode(name)

    def shown(self, name: str) -> bytes:
        """A name on disk as this client wants to see it."""
        if not name:
            return b"INBOX"
        if self.utf8:
            try:
                return quoted_utf8(utf7.decode(name))
            except utf7.BadName:
                return string(name.encode("ascii", "replace"))
        return astring(name)

    async def existing(self, octets: bytes, otherwise: str = NO_MAILBOX) -> tuple[str, str]:
        """Name and path of a mailbox that there is. Raises Impossible."""
        name = self.name(octets)
        if not await in_thread(lambda: self.tree.exists(name)):
            raise Impossible(otherwise)
        return name, self.tree.path(name)

    async def take(self, path: str) -> Shared:
        return await self.context.opened.take(path)

    def unselect(self) -> None:
        if self.view is not None:
            self.context.opened.give_back(self.view.shared)
            self.view = None


async def in_thread(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work)
