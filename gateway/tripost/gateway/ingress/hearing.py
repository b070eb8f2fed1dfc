"""what a tracer is told of an SMTP client's words

Commands that we know, whole but for what AUTH holds; of anything else, and of
content, how long it was: a client that has lost its way says passwords and mail
where commands belong.
"""

from __future__ import annotations

from tripost.gateway.ingress.smtp_events import AuthLine, ChunkEnd, Content, EndOfContent, Event, Octets
from tripost.gateway.ingress.smtp_protocol import ServerProtocol
from tripost.queue.dialogue import HIDDEN, Dialogue, command, octets


def hear(dialogue: Dialogue, protocol: ServerProtocol, event: Event) -> None:
    """`event` is what the protocol made of the line that it has just read."""
    if isinstance(event, Octets):
        dialogue.content += len(event.content)
    elif isinstance(event, EndOfContent | ChunkEnd):
        dialogue.heard(octets(dialogue.content))
        dialogue.content = 0
    elif isinstance(event, AuthLine):
        dialogue.heard(HIDDEN)
    else:
        if isinstance(event, Content) and not event.chunked:
            dialogue.content = 0
        known = protocol.line and protocol.verb != "unknown"
        dialogue.heard(command(protocol.line) if known else f"<{len(protocol.line)} octets that are no command>")
