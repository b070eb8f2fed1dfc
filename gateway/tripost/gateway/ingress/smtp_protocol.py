"""the server's side of SMTP, without I/O

Octets in, events out. What the grammar and the order of commands decide is
answered here (`Answer`); what needs the world (may this recipient? is it
stored?) is an event that the driver answers and reports back by a method.

States   connected → greeted → mail → rcpt → data → greeted …
Promise  only CRLF.CRLF ends data; a bare CR or LF never ends anything; each
         command has exactly one reply, in order.
Source   RFC 5321 §4; RFC 1870, 2034, 2920, 6152.
"""

from __future__ import annotations

import msgspec

from tripost.delivery.wire.addresses import AddressError, parse_path
from tripost.delivery.wire.dots import DotReader
from tripost.delivery.wire.lines import LineReader, Trouble
from tripost.delivery.wire.parameters import MailParameters, ParameterError, mail_parameters, rcpt_parameters
from tripost.delivery.wire.replies import Reply, reply

COMMAND_LIMIT = 1024  # RFC 5321 §4.5.3.1.4 asks for 512 and more with extensions
HELO_LIMIT = 255


class Answer(msgspec.Struct, frozen=True):
    """Send this; `phase` names the command; `close` the connection afterwards."""

    reply: Reply
    phase: str = ""
    close: bool = False


class Hello(msgspec.Struct, frozen=True):
    """Answered already; told for the record."""

    reply: Reply


class Mail(msgspec.Struct, frozen=True):
    """Answer, and call `mail_accepted` if it was accepted."""

    sender: str
    parameters: MailParameters


class Rcpt(msgspec.Struct, frozen=True):
    """Answer, and call `recipient_accepted` if it was accepted."""

    address: str


class Data(msgspec.Struct, frozen=True):
    """Answer with 354 and call `data_begins`, or refuse."""


class Chunk(msgspec.Struct, frozen=True):
    """Some content, without dot-stuffing."""

    content: bytes


class EndOfData(msgspec.Struct, frozen=True):
    """Answer; `bare` when there were bare CR or LF in the content. The transaction is over."""

    bare: bool


Event = Answer | Hello | Mail | Rcpt | Data | Chunk | EndOfData

_SYNTAX = {
    "HELO": "HELO name",
    "EHLO": "EHLO name",
    "MAIL": "MAIL FROM:<address> [SIZE=n] [BODY=8BITMIME]",
    "RCPT": "RCPT TO:<address>",
}


class ServerProtocol:
    """One connection."""

    def __init__(self, hostname: str, message_size: int) -> None:
        self._hostname = hostname
        self._message_size = message_size
        self._lines = LineReader(COMMAND_LIMIT)
        self._dots: DotReader | None = None
        self._waiting = b""  # octets of the content that were not looked at yet
        self._closed = False
        self.helo = ""
        self.extended = False  # by EHLO
        self.in_mail = False
        self.recipients = 0
        self.verb = ""

    def feed(self, data: bytes) -> None:
        if self._dots is not None:
            self._waiting += data
        else:
            self._lines.feed(data)

    @property
    def in_data(self) -> bool:
        return self._dots is not None

    def next(self) -> Event | None:
        """What comes next; None for more octets. After an Answer that closes nothing more comes."""
        if self._closed:
            return None
        if self._dots is not None:
            return self._next_content(self._dots)
        line = self._lines.next()
        if line is None:
            return None
        if line is Trouble.TOO_LONG:
            return Answer(reply(500, "5.5.2", f"command line longer than {COMMAND_LIMIT} octets"), "command")
        if isinstance(line, Trouble):
            self.close()
            return Answer(reply(500, "5.5.2", "bare CR or LF in a command; lines end in CRLF"), "command", close=True)
        return self._command(line)

    def _next_content(self, dots: DotReader) -> Event | None:
        if dots.done:
            self._dots = None
            self._lines.feed(dots.rest)
            self.reset()
            return EndOfData(dots.bare)
        data, self._waiting = self._waiting, b""
        if not data:
            return None
        return Chunk(dots.feed(data))

    # --- what the driver tells ---

    def mail_accepted(self) -> None:
        self.in_mail = True

    def recipient_accepted(self) -> None:
        self.recipients += 1

    def data_begins(self) -> None:
        self._dots = DotReader()
        self._waiting = self._lines.take()

    def reset(self) -> None:
        """No transaction."""
        self.in_mail = False
        self.recipients = 0

    def close(self) -> None:
        """Whatever was pipelined is discarded."""
        self._closed = True

    # --- commands ---

    def _command(self, line: bytes) -> Event:
        text = line.decode("utf-8", "replace")
        verb, _, argument = text.partition(" ")
        self.verb = verb = verb.upper()
        handler = _COMMANDS.get(verb)
        if handler is None:
            self.verb = "unknown"
            return Answer(reply(500, "5.5.2", "command not recognised"), "command")
        if any(ord(one) < 32 or ord(one) == 127 for one in text):
            return Answer(reply(501, "5.5.4", "control characters in a command"), verb.lower())
        return handler(self, argument.strip(" "))

    def _refuse(self, code: int, enhanced: str, text: str) -> Answer:
        return Answer(reply(code, enhanced, text), self.verb.lower())

    def _syntax(self, why: str = "") -> Answer:
        return self._refuse(501, "5.5.4", (f"{why}; " if why else "") + f"syntax: {_SYNTAX[self.verb]}")

    def _hello(self, argument: str) -> Event:
        if not argument or " " in argument or len(argument) > HELO_LIMIT:
            return self._syntax()
        self.helo = argument.encode("ascii", "replace").decode()
        self.extended = self.verb == "EHLO"
        self.reset()
        if not self.extended:
            return Hello(Reply(250, "", (self._hostname,)))
        offers = ("PIPELINING", f"SIZE {self._message_size}", "8BITMIME", "ENHANCEDSTATUSCODES")
        return Hello(Reply(250, "", (self._hostname, *offers)))

    def _mail(self, argument: str) -> Event:
        if not self.helo:
            return self._refuse(503, "5.5.1", "say HELO or EHLO first")
        if self.in_mail:
            return self._refuse(503, "5.5.1", "a sender was given already; RSET begins anew")
        if argument[:5].upper() != "FROM:":
            return self._syntax()
        try:
            sender, rest = parse_path(argument[5:].lstrip(" "), null=True)
            parameters = mail_parameters(rest)
        except AddressError as wrong:
            return self._refuse(501, "5.1.7", f"{wrong}; syntax: {_SYNTAX['MAIL']}")
        except ParameterError as wrong:
            return self._refuse(wrong.code, wrong.enhanced, str(wrong))
        if parameters.size > self._message_size:
            return self._refuse(552, "5.3.4", f"larger than the {self._message_size} octets that are taken here")
        return Mail(sender, parameters)

    def _rcpt(self, argument: str) -> Event:
        if not self.in_mail:
            return self._refuse(503, "5.5.1", "MAIL first")
        if argument[:3].upper() != "TO:":
            return self._syntax()
        try:
            address, rest = parse_path(argument[3:].lstrip(" "))
            rcpt_parameters(rest)
        except AddressError as wrong:
            return self._refuse(501, "5.1.3", f"{wrong}; syntax: {_SYNTAX['RCPT']}")
        except ParameterError as wrong:
            return self._refuse(wrong.code, wrong.enhanced, str(wrong))
        return Rcpt(address)

    def _data(self, argument: str) -> Event:
        if argument:
            return self._refuse(501, "5.5.4", "DATA takes no argument")
        if not self.in_mail:
            return self._refuse(503, "5.5.1", "MAIL first")
        if not self.recipients:
            return self._refuse(554, "5.5.1", "no valid recipients")
        return Data()

    def _rset(self, argument: str) -> Event:
        if argument:
            return self._refuse(501, "5.5.4", "RSET takes no argument")
        self.reset()
        return self._refuse(250, "2.0.0", "forgotten")

    def _noop(self, _argument: str) -> Event:
        return self._refuse(250, "2.0.0", "nothing done")

    def _vrfy(self, argument: str) -> Event:
        if not argument:
            return self._refuse(501, "5.5.4", "VRFY takes an address")
        return self._refuse(252, "2.5.0", "not verified here; send, and see")

    def _help(self, _argument: str) -> Event:
        return self._refuse(214, "2.0.0", "HELO EHLO MAIL RCPT DATA RSET NOOP VRFY QUIT HELP")

    def _quit(self, argument: str) -> Event:
        if argument:
            return self._refuse(501, "5.5.4", "QUIT takes no argument")
        self.close()
        return Answer(reply(221, "2.0.0", f"{self._hostname} closing the connection"), "quit", close=True)

    def _not_here(self, _argument: str) -> Event:
        return self._refuse(502, "5.5.1", f"{self.verb} is not offered here")


_COMMANDS = {
    "HELO": ServerProtocol._hello,  # pyright: ignore[reportPrivateUsage] - the class's own table
    "EHLO": ServerProtocol._hello,  # pyright: ignore[reportPrivateUsage]
    "MAIL": ServerProtocol._mail,  # pyright: ignore[reportPrivateUsage]
    "RCPT": ServerProtocol._rcpt,  # pyright: ignore[reportPrivateUsage]
    "DATA": ServerProtocol._data,  # pyright: ignore[reportPrivateUsage]
    "RSET": ServerProtocol._rset,  # pyright: ignore[reportPrivateUsage]
    "NOOP": ServerProtocol._noop,  # pyright: ignore[reportPrivateUsage]
    "VRFY": ServerProtocol._vrfy,  # pyright: ignore[reportPrivateUsage]
    "HELP": ServerProtocol._help,  # pyright: ignore[reportPrivateUsage]
    "QUIT": ServerProtocol._quit,  # pyright: ignore[reportPrivateUsage]
    "EXPN": ServerProtocol._not_here,  # pyright: ignore[reportPrivateUsage]
    "TURN": ServerProtocol._not_here,  # pyright: ignore[reportPrivateUsage]
}
