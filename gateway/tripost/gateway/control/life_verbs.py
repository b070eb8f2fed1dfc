"""what a running gateway is told about itself: its configuration, to end, and to begin anew

`reload`: the file's configuration, or the reasons why not (exit code 2). `drain`: accept nothing more and end when what
is under way is done, as at SIGTERM. `restart`: as SIGUSR2; it is answered once the new image was tried out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec

from tripost.gateway.control.config_verbs import ConfigVerbs
from tripost.gateway.control.frames import Answer, End
from tripost.gateway.control.server import Refused, Verb
from tripost.gateway.processes.orders import Running
from tripost.gateway.reloading import Live, Reloaded, ReloadError
from tripost.gateway.restarting import RestartRefused
from tripost.gateway.settings import Config


class LifeVerbs:
    """`stop(reason)` begins the end, of all processes, `restart(reason)` a restart (raises RestartRefused); `phase()`:
    starting, serving or draining; `processes()`: all that there are; `trouble()`: what is wrong with them."""

    def __init__(
        self,
        live: Live,
        reload: Callable[[], Awaitable[Reloaded]],
        stop: Callable[[str], None],
        restart: Callable[[str], Awaitable[None]],
        phase: Callable[[], str],
        processes: Callable[[], list[Running]],
        trouble: Callable[[], str],
    ) -> None:
        self._live = live
        self._processes = processes
        self._reload = reload
        self._stop = stop
        self._restart = restart
        self.phase = phase
        self.trouble = trouble

    @property
    def config(self) -> Config:
        """In force now."""
        return self._live.config

    def configuration(self) -> dict[str, Any]:
        """Which one is in force, here and in each process."""
        rows = [{name: getattr(one, name) for name in one.__struct_fields__} for one in self._processes()]
        return {"generation": self._live.generation, "loaded": self._live.loaded, "processes": rows}

    @property
    def verbs(self) -> dict[str, Verb]:
        return {
            "reload": self._reloading,
            "drain": self._drain,
            "restart": self._restarting,
            **ConfigVerbs(lambda: self.config).verbs,
        }

    async def _reloading(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        try:
            done = await self._reload()
        except ReloadError as wrong:
            raise Refused(str(wrong), 2) from wrong
        yield End(msgspec.to_builtins(done))

    async def _drain(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        begun = self.phase() == "draining"
        if not begun:
            self._stop(f"drain by {who}")
        yield End({"within": self.config.lifecycle.drain})

    async def _restarting(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        try:
            await self._restart(f"restart by {who}")
        except RestartRefused as wrong:
            raise Refused(str(wrong), 2) from wrong
        yield End({})
