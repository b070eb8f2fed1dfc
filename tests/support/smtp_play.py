"""the SMTP protocol alone, with a driver that says yes, or no where it is told to

For tests that only want to know what octets become: fuzzing, cutting, smuggling.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from tripost.delivery.wire.replies import Reply, reply
from tripost.gateway.ingress.smtp_events import (
    Answer,
    Auth,
    AuthLine,
    ChunkEnd,
    Claim,
    Content,
    EndOfContent,
    Event,
    Hello,
    Mail,
    Octets,
    Rcpt,
    Reset,
    StartTls,
)
from tripost.gateway.ingress.smtp_protocol import ServerProtocol
from tripost.gateway.ingress.terms import Terms, greeting

REPLY = re.compile(rb"(?:[2-5][0-9][0-9]-[ -~]*\r\n)*[2-5][0-9][0-9] [ -~]*\r\n")
NO = reply(451, "4.3.0", "not now")
OPEN = Terms(
    hostname="smtp.truc.fr",
    message_size=1000,
    recipients=10,
    starttls=True,
    mechanisms=("PLAIN", "LOGIN"),
    trusted=True,
    xclient=True,
    hold_most=1000,
    hold_until="2030-01-01T00:00:00Z",
)


class Player:
    """`log`: events and replies as texts, content as one piece per message. `refuse`: says no to the n-th question."""

    def __init__(self, terms: Terms = OPEN, *, normalize: bool = False, refuse: Iterable[int] = ()) -> None:
        self.protocol = ServerProtocol(terms, normalize=normalize)
        self.terms = terms
        self.log: list[str] = []
        self.messages: list[bytes] = []
        self.closed = False
        self._refuse = frozenset(refuse)
        self._questions = 0
        self._content = b""
        self._say(greeting(terms))

    def feed(self, data: bytes) -> None:
        if self.closed:
            return
        self.protocol.feed(data)
        while not self.closed and (event := self.protocol.next()) is not None:
            self._handle(event)

    def _say(self, answer: Reply) -> None:
        self._said(answer.encode())

    def _said(self, data: bytes) -> None:
        assert REPLY.fullmatch(data), data
        assert all(len(line) <= 510 for line in data.split(b"\r\n")), data
        self.log.append(data.decode())

    def _ask(self, yes: Callable[[], object], answer: Reply | None) -> None:
        self._questions += 1
        if self._questions in self._refuse:
            self._say(NO)
            return
        yes()
        if answer is not None:
            self._say(answer)

    def _handle(self, event: Event) -> None:
        protocol = self.protocol
        if isinstance(event, Octets):
            self._content += event.content
            return
        if not isinstance(event, Answer):
            self.log.append(repr(event))
        if isinstance(event, Answer):
            self._say(event.reply)
            self.closed = event.close
            if event.phase == "bdat":
                self._content = b""
        elif isinstance(event, Hello):
            self._ask(lambda: self._said(protocol.hello_accepted(event.name)), None)
        elif isinstance(event, Mail):
            self._ask(protocol.mail_accepted, reply(250, "2.1.0", "ok"))
        elif isinstance(event, Rcpt):
            self._ask(protocol.recipient_accepted, reply(250, "2.1.5", "ok"))
        elif isinstance(event, Content):
            self._begin(event)
        elif isinstance(event, ChunkEnd):
            self._say(reply(250, "2.0.0", f"{event.size} octets"))
        elif isinstance(event, EndOfContent):
            self.messages.append(self._content)
            self._content = b""
            self._say(reply(250, "2.0.0", "queued"))
        elif isinstance(event, Reset):
            self._content = b""
            self._say(reply(250, "2.0.0", "forgotten"))
        else:
            self._begin_or_go_on(event)

    def _begin(self, event: Content) -> None:
        protocol = self.protocol
        self._questions += 1
        if self._questions not in self._refuse:
            protocol.content_accepted()
            if not event.chunked:
                self._say(reply(354, "", "go"))
        else:
            self._say(NO)
            if event.chunked:
                protocol.content_refused(NO)
                self._content = b""

    def _begin_or_go_on(self, event: StartTls | Auth | AuthLine | Claim) -> None:
        protocol = self.protocol
        if isinstance(event, StartTls):
            self._ask(lambda: protocol.tls_begins(), reply(220, "2.0.0", "go ahead"))
            if protocol.state.name == "HANDSHAKE":
                protocol.begin_anew(self.terms)
        elif isinstance(event, Auth):
            self._ask(protocol.auth_continues, Reply(334, "", ("",)))
        elif isinstance(event, AuthLine):
            protocol.auth_over(protocol.terms)
            self._say(reply(535, "5.7.8", "no"))
        elif event.verb == "XFORWARD":
            self._say(reply(250, "2.0.0", "ok"))
        else:
            protocol.begin_anew(self.terms)
            self._say(greeting(self.terms))


def play(pieces: Iterable[bytes], terms: Terms = OPEN, **more: object) -> Player:
    player = Player(terms, **more)  # type: ignore[arg-type]
    for piece in pieces:
        player.feed(piece)
    return player


def cuts(data: bytes, step: int) -> list[bytes]:
    return [data[n : n + step] for n in range(0, len(data), step)]
