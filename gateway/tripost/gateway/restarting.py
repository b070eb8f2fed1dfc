"""a restart: tried out first, one at a time

API      `Restarting(picture, begin)`: `ask(reason)` tries out what `picture()` tells, then
         calls `begin(reason)`, after which this image has little time left.
Fails    `RestartRefused`; then everything is as it was.
"""

from __future__ import annotations

from collections.abc import Callable

from tripost.gateway.handover import Handover
from tripost.gateway.trial import RestartRefused, try_out

__all__ = ["RestartRefused", "Restarting"]


class Restarting:
    """`picture` raises RestartRefused where there is no restart now."""

    def __init__(self, picture: Callable[[], Handover], begin: Callable[[str], None]) -> None:
        self._picture = picture
        self._begin = begin
        self._under_way = False

    async def ask(self, reason: str) -> None:
        """Raises RestartRefused."""
        if self._under_way:
            raise RestartRefused("a restart is under way already")
        self._under_way = True
        try:
            await try_out(self._picture())
            self._picture()  # it may have been told to end meanwhile
            self._begin(reason)
        except BaseException:
            self._under_way = False
            raise
