"""the server's side of POP3, without I/O

Lines in, commands out. What the grammar and the state decide is an error text
here; the rest is the session's. docs/pop3.md has one row per command, state and
kind of argument; the tests are made from it.

States   AUTHORIZATION → TRANSACTION → UPDATE (RFC 1939 §3); inside of
         AUTHORIZATION, an exchange that AUTH began (`exchange`): its lines are
         not commands.
Promise  every line has one answer; a line too long, or one that is no text, is a
         mistake and nothing else.
Source   RFC 1939 but APOP, 2449 (CAPA), 2595 (STLS), 5034 (AUTH), 6856 (UTF8, LANG).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tripost.delivery.wire.lines import LineReader, Trouble
from tripost.queue.dialogue import HIDDEN

LINE_LIMIT = 512  # RFC 2449 §4 says 255; passwords may be long
EXCHANGE_LIMIT = 12_288  # RFC 5034 §4
NUMBER_DIGITS = 9
LANGUAGES = ("en",)

Kind = Literal["none", "text", "number", "number?", "top", "auth", "language"]


class Rule(msgspec.Struct, frozen=True):
    """In which states a command is allowed ("a", "t" or both), and what it takes."""

    states: str
    takes: Kind


COMMANDS: dict[str, Rule] = {
    "CAPA": Rule("at", "none"),
    "STLS": Rule("a", "none"),
    "UTF8": Rule("a", "none"),
    "LANG": Rule("at", "language"),
    "AUTH": Rule("a", "auth"),
    "USER": Rule("a", "text"),
    "PASS": Rule("a", "text"),
    "QUIT": Rule("at", "none"),
    "STAT": Rule("t", "none"),
    "LIST": Rule("t", "number?"),
    "UIDL": Rule("t", "number?"),
    "RETR": Rule("t", "number"),
    "TOP": Rule("t", "top"),
    "DELE": Rule("t", "number"),
    "NOOP": Rule("t", "none"),
    "RSET": Rule("t", "none"),
}


class Command(msgspec.Struct, frozen=True):
    """`text` is the argument of USER, PASS and LANG, and AUTH's mechanism; `initial` AUTH's initial response,
    None where there was none; `numbers` those of the others."""

    verb: str
    text: str = ""
    numbers: tuple[int, ...] = ()
    initial: str | None = None


class Line(msgspec.Struct, frozen=True):
    """A line of the exchange that AUTH began."""

    text: str


class Mistake(msgspec.Struct, frozen=True):
    """To be answered with -ERR and this."""

    text: str


class Pop3Protocol:
    """One connection. `secured`: TLS runs; `stls`: it could; `need_tls`: it must, before anything else."""

    def __init__(self, *, secured: bool = False, stls: bool = False, need_tls: bool = False) -> None:
        self._lines = LineReader(LINE_LIMIT)
        self.secured = secured
        self.stls = stls
        self.need_tls = need_tls
        self.logged_in = False
        self.exchange = False
        self.utf8 = False
        self.user = ""  # from USER, until the next command

    def feed(self, data: bytes) -> None:
        self._lines.feed(data)

    def next(self) -> Command | Line | Mistake | None:
        """None for more octets."""
        line = self._lines.next()
        if line is None:
            return None
        if line is Trouble.TOO_LONG:
            return self._mistake(f"line longer than {self._limit} octets")
        if isinstance(line, Trouble):
            return self._mistake("bare CR or LF; lines end in CRLF")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            return self._mistake("not UTF-8")
        if not text.isprintable() and any(one < " " or one == "\x7f" for one in text):
            return self._mistake("control characters")
        return Line(text) if self.exchange else self._parse(text)

    @property
    def _limit(self) -> int:
        return EXCHANGE_LIMIT if self.exchange else LINE_LIMIT

    def begin_exchange(self) -> None:
        """What comes now answers a challenge."""
        self.exchange = True
        self._lines.limit = EXCHANGE_LIMIT

    def end_exchange(self) -> None:
        self.exchange = False
        self._lines.limit = LINE_LIMIT

    def start_tls(self) -> None:
        """TLS runs: what was read or said before counts no more (RFC 2595 §4)."""
        self._lines = LineReader(LINE_LIMIT)
        self.secured, self.user, self.exchange = True, "", False

    def log_in(self) -> None:
        self.end_exchange()
        self.logged_in, self.user = True, ""

    def _mistake(self, text: str) -> Mistake:
        if self.exchange:  # RFC 5034 §4: an invalid line ends the exchange
            self.end_exchange()
        self.user = ""
        return Mistake(text)

    def _parse(self, line: str) -> Command | Mistake:
        user, self.user = self.user, ""
        verb, space, rest = line.partition(" ")
        verb = verb.upper()
        rule = COMMANDS.get(verb)
        if rule is None:
            return Mistake(_UNKNOWN.get(verb, "unknown command"))
        if ("t" if self.logged_in else "a") not in rule.states:
            return Mistake(f"{verb} only {'before' if self.logged_in else 'after'} the login")
        why = self._not_now(verb, user)
        if why:
            return Mistake(why)
        if rule.takes == "text":  # a password may hold spaces
            if not rest:
                return Mistake(f"{verb} needs an argument")
            self.user = rest if verb == "USER" else user
            return Command(verb, rest)
        if not rest.isascii():
            return Mistake("the argument is not ASCII")
        return _arguments(verb, rule.takes, rest.split(" ") if space else [])

    def _not_now(self, verb: str, user: str) -> str:
        if self.need_tls and not self.secured and verb not in _IN_PLAIN_TEXT:
            return f"[SYS/PERM] {'STLS first' if self.stls else 'TLS is needed'}"
        if verb == "PASS" and not user:
            return "USER first"
        if verb == "STLS":
            if self.secured:
                return "TLS runs already"
            if not self.stls:
                return "TLS is not offered here"
            if self.utf8:  # RFC 6856 §2.1
                return "STLS before UTF8"
        return ""


_IN_PLAIN_TEXT = ("CAPA", "STLS", "LANG", "QUIT")
_UNKNOWN = {"APOP": "APOP would need passwords in clear text on our disk; use AUTH SCRAM-SHA-256"}
_MOST = {"none": 0, "number": 1, "number?": 1, "top": 2, "auth": 2, "language": 1}
_FEWEST = {"number": 1, "top": 2}


def _arguments(verb: str, kind: Kind, words: list[str]) -> Command | Mistake:
    if not _FEWEST.get(kind, 0) <= len(words) <= _MOST[kind] or "" in words:
        return Mistake(f"wrong arguments for {verb}")
    if kind == "language":
        return Command(verb, words[0] if words else "")
    if kind == "auth":
        return Command(verb, words[0].upper() if words else "", (), words[1] if len(words) > 1 else None)
    if not all(_is_number(word) for word in words):
        return Mistake("not a message's number" if kind != "top" else "not a message's number and lines")
    return Command(verb, "", tuple(int(word) for word in words))


def _is_number(word: str) -> bool:
    return word.isdigit() and len(word) <= NUMBER_DIGITS


def shown(said: Command | Line | Mistake) -> str:
    """For tracers: without what only the client and we may know, and without what was not understood."""
    if isinstance(said, Line):
        return HIDDEN
    if isinstance(said, Mistake):
        return f"<not taken: {said.text}>"
    if said.verb in ("USER", "PASS"):
        return f"{said.verb} {HIDDEN}"
    words = [said.verb, said.text, *[str(number) for number in said.numbers], HIDDEN if said.initial else ""]
    return " ".join(word for word in words if word)


def capabilities(
    *,
    logged_in: bool,
    passwords: bool,
    stls: bool,
    mechanisms: tuple[str, ...],
    expire: str,
    login_delay: int,
    implementation: str,
) -> list[str]:
    """CAPA's lines (RFC 2449 §6). `expire` is EXPIRE's argument, `login_delay` in seconds."""
    rows = ["TOP", "UIDL", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE"]
    if passwords:
        rows.append("USER")
    if mechanisms:
        rows.append(f"SASL {' '.join(mechanisms)}")
    if stls and not logged_in:
        rows.append("STLS")
    rows += ["UTF8 USER", "LANG", f"EXPIRE {expire}"]
    if login_delay:
        rows.append(f"LOGIN-DELAY {login_delay}")
    if implementation:
        rows.append(f"IMPLEMENTATION {implementation}")
    return rows
