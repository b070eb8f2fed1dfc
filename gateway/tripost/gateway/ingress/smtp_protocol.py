"""the server's side of SMTP and LMTP, without I/O

Octets in, events out (`smtp_events`). What the grammar and the order of
commands decide is answered here; what needs the world (may this recipient? is
it stored?) is an event that the driver answers and reports back by a method.

States   `smtp_states.State`; which command may come in which is its `PLACES`.
Promise  only CRLF.CRLF ends DATA, only its length ends a chunk; a bare CR or LF
         never ends anything; each command has exactly one reply, in order; the
         octets of a chunk are never taken for commands, whatever becomes of it.
Fails    after a BDAT whose length cannot be read nobody knows where commands
         begin again: the connection is closed.
Source   RFC 5321 §4; 2033, 2034, 2920, 3030, 3207, 4954, 6531.
"""

from __future__ import annotations

import re

from tripost.delivery.wire.dots import ChunkReader, DotReader
from tripost.delivery.wire.lines import LineReader, Trouble
from tripost.delivery.wire.parameters import NO_MAIL_PARAMETERS
from tripost.delivery.wire.replies import Reply, reply
from tripost.gateway.ingress.smtp_commands import HANDLERS, bdat
from tripost.gateway.ingress.smtp_events import Answer, AuthLine, ChunkEnd, EndOfContent, Event, Octets
from tripost.gateway.ingress.smtp_states import AUTH_LIMIT, COMMAND_LIMIT, PLACES, Place, State, out_of_place
from tripost.gateway.ingress.terms import Terms, hello_octets, keywords

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_NOTHING: frozenset[str] = frozenset()


class ServerProtocol:
    """One connection. `normalize`: bare CR and LF in content become CRLF."""

    def __init__(self, terms: Terms, *, normalize: bool = False) -> None:
        self._normalize = normalize
        self._lines = LineReader(AUTH_LIMIT)
        self._waiting = b""  # octets of content that were not looked at yet
        self._dots = DotReader()
        self._chunks = ChunkReader()
        self._left = self._size = 0  # octets of the chunk
        self._last = False
        self._dropping = False  # this chunk
        self._after = State.READY  # this chunk
        self.broken = reply(503, "5.5.1", "the content was refused")  # what chunks get in State.BROKEN
        self.parameters = self.pending = NO_MAIL_PARAMETERS  # of MAIL: accepted, and asked for
        self.terms = terms
        self.state = State.START
        self.helo = ""
        self.extended = False  # by EHLO or LHLO
        self.offered = _NOTHING  # what parameters may build on
        self.verb = ""
        self.line = b""  # of the command that was read last

    def feed(self, data: bytes) -> None:
        if self.in_content:
            self._waiting = self._waiting + data if self._waiting else data
        else:
            self._lines.feed(data)

    @property
    def in_content(self) -> bool:
        return self.state is State.DOTS or self.state is State.OCTETS

    def next(self) -> Event | None:
        """What comes next; None for more octets."""
        while True:
            state = self.state
            if state is State.DOTS:
                return self._next_dots()
            if state is State.OCTETS:
                if self._left and not self._waiting:
                    return None
                event = self._next_octets()
                if event is not None:
                    return event
                continue
            if state is State.CLOSED or state is State.HANDSHAKE:
                return None
            line = self._lines.next()
            if line is None:
                return None
            if line is Trouble.BARE_NEWLINE:
                self.close()
                answer = reply(500, "5.5.2", "bare CR or LF in a command; lines end in CRLF")
                return Answer(answer, "command", close=True)
            self.line = line if isinstance(line, bytes) else b""
            return self._sasl(line) if state is State.SASL else self._command(line)

    # --- content ---

    def _next_dots(self) -> Event | None:
        dots = self._dots
        if dots.done:
            self._lines.feed(dots.rest)
            self.reset()
            return EndOfContent(dots.bare, chunked=False)
        data, self._waiting = self._waiting, b""
        if not data:
            return None
        return Octets(dots.feed(data))

    def _next_octets(self) -> Event | None:
        """Some octets of the chunk, or its end; None where there is nothing to tell."""
        if self._left:
            piece = self._waiting[: self._left]
            self._waiting = self._waiting[self._left :]
            self._left -= len(piece)
            content = b"" if self._dropping else self._chunks.feed(piece, last=False)
            return Octets(content) if content else None
        if self._last and not self._dropping and (content := self._chunks.feed(b"", last=True)):
            return Octets(content)
        self._lines.feed(self._waiting)
        self._waiting, self.state = b"", self._after
        if self._last and self._after is not State.START:
            self.reset()
        if self._dropping:
            return None
        return EndOfContent(self._chunks.bare, chunked=True) if self._last else ChunkEnd(self._size)

    def _sasl(self, line: bytes | Trouble) -> Event:
        self.state = State.READY
        if isinstance(line, Trouble):
            return Answer(reply(500, "5.5.6", f"authentication line longer than {AUTH_LIMIT} octets"), "auth")
        return AuthLine(line.decode("latin-1"))

    # --- commands ---

    def _command(self, line: bytes | Trouble) -> Event:
        if isinstance(line, Trouble):
            return Answer(reply(500, "5.5.2", f"command line longer than {COMMAND_LIMIT} octets"), "command")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            text = line.decode("latin-1")  # whatever that means, it holds what is refused below
        verb, _, argument = text.partition(" ")
        self.verb = verb = verb.upper()
        place = PLACES.get(verb)
        if place is None:
            self.verb = "unknown"
            return Answer(reply(500, "5.5.2", "command not recognised"), "command")
        wrong = self._wrong(verb, place, line, text)
        if verb == "BDAT":
            return bdat(self, argument, wrong)
        return wrong or HANDLERS[verb](self, argument.strip(" "))

    def _wrong(self, verb: str, place: Place, line: bytes, text: str) -> Answer | None:
        """Why a command is refused before it is looked into."""
        terms = self.terms
        if len(line) + 2 > place.limit:
            return self.refuse(500, "5.5.2", f"command line longer than {place.limit} octets")
        control = not text.isprintable() and _CONTROL.search(text) is not None
        if control or (len(text) == len(line) and not line.isascii()):
            return self.refuse(501, "5.5.4", "control characters, or no UTF-8, in a command")
        if place.lmtp is not None and place.lmtp != terms.lmtp:
            return self.refuse(500, "5.5.1", "this is LMTP: say LHLO" if terms.lmtp else "this is SMTP: say EHLO")
        if terms.need_tls and not terms.secured and not place.before_tls:
            return self.refuse(530, "5.7.0", "must issue a STARTTLS command first")
        if self.state in place.states:
            return None
        code, why = out_of_place(verb, self.state, lmtp=terms.lmtp)
        return self.refuse(code, "5.5.1", why)

    def refuse(self, code: int, enhanced: str, text: str) -> Answer:
        """The command that is being read is answered with this."""
        return Answer(reply(code, enhanced, text), self.verb.lower())

    def chunk_begins(self, size: int, *, last: bool) -> None:
        """So many octets are content. They are dropped unless `content_accepted` is called."""
        if self.state is State.RECIPIENTS:
            self._chunks = ChunkReader(binary=self.parameters.body == "BINARYMIME", normalize=self._normalize)
        self._left = self._size = size
        self._last, self._dropping = last, True
        self._after = self.state if self.state in (State.START, State.READY) else State.BROKEN
        self.state, self._waiting = State.OCTETS, self._lines.take()

    # --- what the driver tells ---

    def hello_accepted(self, name: str) -> bytes:
        """The reply that is due."""
        self.helo, self.state = name, State.READY
        self.extended = self.verb != "HELO"
        self.offered = keywords(self.terms) if self.extended else _NOTHING
        return hello_octets(self.terms, extended=self.extended)

    def mail_accepted(self) -> None:
        self.state, self.parameters = State.SENDER, self.pending

    def recipient_accepted(self) -> None:
        self.state = State.RECIPIENTS

    def content_accepted(self) -> None:
        if self.state is State.OCTETS:
            self._dropping, self._after = False, State.CHUNKS
            return
        self.state, self._waiting = State.DOTS, self._lines.take()
        self._dots = DotReader(normalize=self._normalize)

    def content_refused(self, answer: Reply) -> None:
        """By BDAT: the transaction is over, and chunks that are under way get the same reply (RFC 3030 §2)."""
        self.broken = answer
        if self.state is State.CHUNKS:
            self.state = State.BROKEN

    def auth_continues(self) -> None:
        self.state = State.SASL

    def auth_over(self, terms: Terms) -> None:
        """The exchange has ended; `terms` are new where it ended well."""
        self.state, self.terms, self.offered = State.READY, terms, keywords(terms)

    def tls_begins(self) -> int:
        """Drop what was read behind STARTTLS (RFC 3207 §4.2 and CVE-2011-0411); says how many octets."""
        self.state = State.HANDSHAKE
        return len(self._lines.take())

    def begin_anew(self, terms: Terms) -> None:
        """As after the greeting: nothing that the client said counts any more."""
        self.helo, self.extended, self.offered = "", False, _NOTHING
        self.reset()
        self.terms = terms

    def reset(self) -> None:
        """No transaction."""
        self.state = State.READY if self.helo else State.START
        self.parameters = NO_MAIL_PARAMETERS

    def close(self) -> None:
        """Whatever was pipelined is discarded."""
        self.state = State.CLOSED
