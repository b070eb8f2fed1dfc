"""what `tripost history` asks of a running gateway

Fails    `Refused` for what cannot be meant, where nothing fits, or where the
         history cannot be read now.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from tripost.gateway.control.frames import Answer, End, Row
from tripost.gateway.control.server import Refused, Verb
from tripost.gateway.observe.history import History
from tripost.gateway.observe.past import About


class HistoryVerbs:
    def __init__(self, history: History) -> None:
        self._history = history

    @property
    def verbs(self) -> dict[str, Verb]:
        return {"history": self._ask}

    async def _ask(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        try:
            about = msgspec.convert(arguments, About)
        except msgspec.ValidationError as wrong:
            raise Refused(f"not understood: {wrong}", 2) from wrong
        if self._history.off:
            raise Refused("no history is kept: [history] keep is 0")
        count = 0
        try:
            async with aclosing(self._history.ask(about)) as found:
                async for message in found:
                    count += not message.more
                    yield Row(msgspec.to_builtins(message))
        except sqlite3.Error as wrong:
            raise Refused(f"the history cannot be read: {wrong}") from wrong
        yield End({"messages": count})
