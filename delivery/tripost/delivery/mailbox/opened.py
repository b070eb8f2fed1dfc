"""the folders that are open now, one object each, and who wants to hear of them

API      `Opened(now)`, one per gateway: `async with use(path) as shared` for as long as
         a session has it; `touched(path)` when somebody here has changed it (a delivery,
         POP3); `run` looks after other programs once a second.
         `Shared`: `folder` (`Folder`), `cache`, `lock`; `watch(tell)`; `run(work)` does
         blocking work in a thread while nobody else changes the folder.
Promise  what a session is told of a change in this process, it is told at once; of
         another program's within `LOOK_EVERY` and a look at the folder.
Memory   a folder without sessions is kept while there is room for `KEPT` messages.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import trio

from tripost.delivery.mailbox.cache import Cache, Layout
from tripost.delivery.mailbox.folder import Folder

T = TypeVar("T")
LOOK_EVERY = 1.0  # seconds
KEPT = 200_000  # messages of folders that nobody has open; about 300 octets each
KEPT_FOLDERS = 1000


class Shared:
    """One folder and its sessions."""

    def __init__(self, folder: Folder, layout: Layout) -> None:
        self.folder = folder
        self.users = 0
        self.dead = False
        self.lock = trio.Lock()
        self._layout = layout
        self._cache: Cache | None = None
        self._validity = 0
        self._told: set[Callable[[], None]] = set()

    @property
    def watched(self) -> bool:
        return bool(self._told)

    def cache(self) -> Cache:
        """Blocking at the first time."""
        validity = self.folder.index.validity
        if self._cache is None or self._validity != validity:
            if self._cache is not None:
                self._cache.close()
            self._cache, self._validity = Cache(self.folder.path, validity, self._layout), validity
            self._cache.keep(self.folder.rows.uids)
        return self._cache

    def watch(self, tell: Callable[[], None]) -> Callable[[], None]:
        """`tell` is called, in the event loop, after each change, until what this returns is called."""
        self._told.add(tell)
        return lambda: self._told.discard(tell)

    def tell(self) -> None:
        for tell in list(self._told):
            tell()

    async def run(self, work: Callable[[], T]) -> T:
        """Blocking work that may change the folder; then whoever watches is told. Not cut once begun."""
        version = self.folder.version
        async with self.lock:
            try:
                return await trio.to_thread.run_sync(work)
            finally:
                if self.folder.version != version:
                    self.tell()

    async def refresh(self, *, claim: bool = False) -> None:
        """Raises OSError."""
        await self.run(partial(self.folder.refresh, claim=claim))

    def close(self) -> None:
        if self._cache is not None:
            self._cache.close()
            self._cache = None


class Opened:
    """All of a gateway. `layout`: what the cache holds of each message."""

    def __init__(self, now: Callable[[], float], layout: Layout) -> None:
        self._now = now
        self._layout = layout
        self._folders: OrderedDict[str, Shared] = OrderedDict()
        self._opening = trio.Lock()

    @asynccontextmanager
    async def use(self, path: str) -> AsyncGenerator[Shared]:
        """Raises OSError."""
        shared = await self.take(path)
        try:
            yield shared
        finally:
            self.give_back(shared)

    async def take(self, path: str) -> Shared:
        """To be given back. Raises OSError."""
        shared = self._folders.get(path)
        if shared is None:
            async with self._opening:
                shared = self._folders.get(path)
                if shared is None:
                    folder = await trio.to_thread.run_sync(partial(Folder, path, self._now()))
                    shared = self._folders[path] = Shared(folder, self._layout)
        shared.users += 1
        self._folders.move_to_end(path)
        return shared

    def give_back(self, shared: Shared) -> None:
        shared.users -= 1
        if shared.dead and not shared.users:
            shared.close()
        self._tidy()

    def _tidy(self) -> None:
        idle = [path for path, one in self._folders.items() if not one.users]
        room = KEPT
        for count, path in enumerate(reversed(idle)):
            room -= len(self._folders[path].folder.rows)
            if room < 0 or count >= KEPT_FOLDERS:
                self._folders.pop(path).close()

    def touched(self, path: str) -> None:
        """Somebody in this process has changed it."""
        shared = self._folders.get(path)
        if shared is not None:
            shared.folder.dirty = True
            shared.tell()

    def removed(self, path: str) -> None:
        """It is not there any more."""
        shared = self._folders.pop(path, None)
        if shared is not None:
            shared.dead = True
            shared.tell()
            if not shared.users:
                shared.close()

    def renamed(self, old: str, new: str) -> None:
        shared = self._folders.pop(old, None)
        if shared is not None:
            shared.folder.moved(new)
            shared.close()
            self._folders[new] = shared

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await trio.sleep(LOOK_EVERY)
                watched = [one for one in self._folders.values() if one.watched]
                if watched:
                    for one in await trio.to_thread.run_sync(partial(_changed, watched)):
                        one.tell()
        finally:
            self.close()

    def close(self) -> None:
        for one in self._folders.values():
            one.close()
        self._folders.clear()


def _changed(some: Sequence[Shared]) -> list[Shared]:
    found: list[Shared] = []
    for one in some:
        try:
            if one.folder.changed:
                found.append(one)
        except OSError:
            found.append(one)  # its session finds out what that means
    return found
