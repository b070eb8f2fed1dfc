"""how a message gets into a log

The same for the manager's own log and for those of ingress processes.
"""

from __future__ import annotations

from collections.abc import Callable

from tripost.queue.body import Body
from tripost.queue.entries import ACCEPT, Acceptance, encode
from tripost.queue.errors import SpoolFull, SpoolUnsure
from tripost.queue.log import Log
from tripost.queue.message import Envelope


async def take(
    log: Log, envelope: Envelope, body: Body, entered: Callable[[Acceptance, int], None] | None = None
) -> None:
    """Make the message durable; returns only then, after `entered(message, place)`. Raises SpoolError/SpoolFull:
    nothing was accepted; SpoolUnsure: it may have been, so that the client is to get no reply."""
    content, file = await body.finish()
    message = Acceptance(envelope, content, file, body.check if file else 0)
    try:
        await log.append(ACCEPT, encode(message), (lambda at: entered(message, at)) if entered is not None else None)
    except SpoolUnsure:
        body.kept()  # the record that names the file may be there at the next start
        raise
    body.kept()


def check_room(most: tuple[int, int], queued: tuple[int, int], more: int) -> None:
    """Raises SpoolFull when the queue holds as much as the operator allows: messages, octets; 0 is no limit. For
    `more` octets."""
    if 0 < most[0] <= queued[0]:
        raise SpoolFull(f"{queued[0]} messages are queued, as many as [spool] messages allows")
    if 0 < most[1] < queued[1] + more:
        raise SpoolFull(f"{queued[1]} octets are queued: [spool] bytes does not allow {more} more")
