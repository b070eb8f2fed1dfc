"""what a running gateway is told about itself: its configuration, and to end

`reload`: the file's configuration, or the reasons why not (exit code 2). `drain`: accept nothing more and end when what
is under way is done, as at SIGTERM.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import msgspec

from tripost.gateway.control.config_verbs import ConfigVerbs
from tripost.gateway.control.frames import Answer, End
from tripost.gateway.control.server import Refused, Verb
from tripost.gateway.reloading import Live, Reloaded, ReloadError
from tripost.gateway.settings import Config


class LifeVerbs:
    """`stop(reason)` begins the end, of all processes; `phase()`: starting, serving or draining."""

    def __init__(
        self, live: Live, reload: Callable[[], Reloaded], stop: Callable[[str], None], phase: Callable[[], str]
    ) -> None:
        self._live = live
        self._reload = reload
        self._stop = stop
        self.phase = phase

    @property
    def config(self) -> Config:
        """In force now."""
        return self._live.config

    @property
    def verbs(self) -> dict[str, Verb]:
        return {"reload": self._reloading, "drain": self._drain, **ConfigVerbs(lambda: self.config).verbs}

    async def _reloading(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        try:
            done = self._reload()
        except ReloadError as wrong:
            raise Refused(str(wrong), 2) from wrong
        yield End(msgspec.to_builtins(done))

    async def _drain(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        begun = self.phase() == "draining"
        if not begun:
            self._stop(f"drain by {who}")
        yield End({"within": self.config.lifecycle.drain})
