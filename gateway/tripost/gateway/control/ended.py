"""explain's answer about mail that is not queued any more: what the history says became of it"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import aclosing

from tripost.gateway.control.explain import Why
from tripost.gateway.observe.history import History
from tripost.gateway.observe.past import About, Past, Try, words

MOST = 20  # messages


async def ended(history: History, about: str) -> AsyncGenerator[Why, None]:
    """One for each recipient, by its last attempt; nothing where the history says nothing, or cannot be read."""
    if history.off:
        return
    try:
        async with aclosing(history.ask(About(about=about, limit=MOST))) as found:
            async for message in found:
                last = {one.recipient: one for one in message.attempts if one.recipient}
                for attempt in last.values():
                    yield _why(message, attempt)
    except sqlite3.Error:
        return


def _why(message: Past, last: Try) -> Why:
    return Why(
        id=message.id,
        sender=message.sender,
        recipient=last.recipient,
        next_hop=last.next_hop,
        state=last.outcome,
        reason=words(last),
        attempts=last.attempt,
        reply=last.reply,
        next=0.0,
        expires=0.0,
        command="",
    )
