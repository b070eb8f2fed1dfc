"""tripost sendmail: hands a program's mail to the gateway, as /usr/sbin/sendmail does

Over `state/submit.sock`, where the gateway knows which user asks; where there is none, by SMTP on loopback. Exit codes
are those of sysexits.h, by which programs know what to do with their mail.

Promise  0 is said after the gateway's 250 for all recipients. When one of them is refused, nothing was sent.
Fails    75 when no gateway answers or it cannot take mail now: the caller keeps the message.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import select
import sys
import tempfile
import time
from collections.abc import Callable
from email.utils import formataddr, formatdate
from typing import IO

from tripost.delivery.wire.addresses import AddressError, parse_address
from tripost.delivery.wire.dots import DotStuffer
from tripost.delivery.wire.replies import Reply, ReplyError
from tripost.gateway.cli.sendmail_arguments import Call, UsageError, parse
from tripost.gateway.cli.sendmail_message import Header, Lines, Message, MessageError
from tripost.gateway.config import ConfigError, load
from tripost.gateway.control.client import ControlError, ask
from tripost.gateway.submit_client import Caller, Line, connect, queue_rows

# sysexits.h
USAGE, DATA, NO_USER, UNAVAILABLE, OS, TRY_AGAIN, NO_PERMISSION, CONFIGURATION = 64, 65, 67, 69, 71, 75, 77, 78
IN_MEMORY = 1 << 20  # octets of a message; a larger one waits in a temporary file
MOST = 1 << 30
READ = 1 << 16


class Failed(Exception):
    """One line, and `exit`."""

    def __init__(self, text: str, exit: int) -> None:
        super().__init__(text)
        self.exit = exit


def run(program: str, arguments: list[str]) -> int:
    """`program` is the name it was called by."""
    try:
        call = parse(program, arguments)
        return MODES[call.mode](call)
    except UsageError as wrong:
        return _say(str(wrong), USAGE)
    except MessageError as wrong:
        return _say(str(wrong), DATA)
    except Failed as wrong:
        return _say(str(wrong), wrong.exit)
    except ControlError as wrong:
        return _say(str(wrong), NO_PERMISSION if wrong.exit == 1 else TRY_AGAIN)
    except ReplyError as wrong:
        return _say(str(wrong), TRY_AGAIN)
    except ConfigError as wrong:
        for line in wrong.errors:
            _say(line, CONFIGURATION)
        return CONFIGURATION
    except OSError as wrong:
        return _say(f"{wrong.filename or 'input'}: {wrong.strerror}", OS)


def _say(text: str, exit: int) -> int:
    print(f"sendmail: {text}", file=sys.stderr)
    return exit


# --- a message ---


class _Letter:
    """What comes on standard input, whole: the header, and `text`, a file with what is behind it."""

    def __init__(self, call: Call, data: IO[bytes]) -> None:
        self.text: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - as long as the process
        self.eight_bit = False
        self.size = 0
        lines, message = Lines(dots=call.dots), Message()
        while not lines.over:
            piece = lines.feed(data.read1(READ))  # type: ignore[attr-defined]
            if message.header is None:
                piece = message.rest if message.feed(piece, last=lines.over) else b""
            self._store(piece)
        assert message.header is not None
        self.header: Header = message.header

    def _store(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > MOST:
            raise Failed(f"the message is larger than {MOST} octets", DATA)
        self.eight_bit = self.eight_bit or not piece.isascii()
        self.text.write(piece)


def _send(call: Call) -> int:
    config = load(call.config)
    letter = _Letter(call, sys.stdin.buffer)
    addresses = call.recipients + (letter.header.recipients() if call.from_header else [])
    if not addresses:
        raise Failed(
            "no recipients: neither in the header nor as arguments" if call.from_header else "no recipients",
            DATA if call.from_header else USAGE,
        )
    sock, caller = connect(config)
    with sock:
        recipients = list(dict.fromkeys(_address(one, caller) for one in addresses))
        sender = caller.account if call.sender is None else _address(call.sender, caller) if call.sender else ""
        _complete(letter.header, call, sender or caller.account, caller)
        _Delivery(Line(sock), call, letter).run(sender, recipients)
    return 0


def _address(text: str, caller: Caller) -> str:
    text = text.strip().removeprefix("<").removesuffix(">")
    try:
        return parse_address(text if "@" in text else f"{text}@{caller.origin}", utf8=True)
    except AddressError as wrong:
        raise Failed(f"{text}: {wrong}", DATA) from wrong


def _complete(header: Header, call: Call, author: str, caller: Caller) -> None:
    """Bcc goes, where recipients were read from it; From, Date and Message-ID come, where they are missing."""
    if call.from_header:
        header.without(b"bcc", b"resent-bcc")
    if not header.has(b"from"):
        header.add(f"From: {_named(call.name or _full_name(), author)}\r\n".encode())
    if not header.has(b"date"):
        header.add(f"Date: {formatdate(localtime=True)}\r\n".encode())
    if not header.has(b"message-id"):
        header.add(f"Message-ID: <{int(time.time())}.{secrets.token_hex(8)}@{caller.origin}>\r\n".encode())


def _named(name: str, address: str) -> str:
    name = " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", name).split())
    try:
        return formataddr((name, address)) if name else address
    except UnicodeEncodeError:  # the address is not ASCII: RFC 6532 has it as it is
        return f"<{address}>"


def _full_name() -> str:
    try:
        user = pwd.getpwuid(os.getuid())
    except KeyError:
        return ""
    return user.pw_gecos.partition(",")[0].replace("&", user.pw_name.capitalize())


class _Delivery:
    """One SMTP transaction, all or nothing."""

    def __init__(self, line: Line, call: Call, letter: _Letter) -> None:
        self._line, self._call, self._letter = line, call, letter
        self._offers: frozenset[str] = frozenset()

    def run(self, sender: str, recipients: list[str]) -> None:
        """Raises Failed, NotRunning."""
        header = self._letter.header.octets()
        self._need(self._line.reply(), "")
        hello = self._need(self._line.command(f"EHLO {_host()}"), "")
        self._offers = frozenset(line.partition(" ")[0].upper() for line in hello.lines[1:])
        self._need(self._line.command(self._mail(sender, recipients, header)), sender or "<>")
        asked = f" NOTIFY={self._call.notify}" if self._call.notify and "DSN" in self._offers else ""
        refused = [
            (one, answer) for one in recipients if (answer := self._line.command(f"RCPT TO:<{one}>{asked}")).code >= 300
        ]
        for one, answer in refused:
            _say(f"{one}: {answer}", 0)
        if refused:
            self._line.command("RSET")
            raise Failed("nothing was sent", max((_exit(answer) for _, answer in refused), key=_weight))
        self._need(self._line.command("DATA"), "")
        self._need(self._data(header), "")
        self._line.command("QUIT")

    def _mail(self, sender: str, recipients: list[str], header: bytes) -> str:
        call, letter = self._call, self._letter
        text = f"MAIL FROM:<{sender}>"
        if "SIZE" in self._offers:
            text += f" SIZE={len(header) + letter.size}"
        if letter.eight_bit and "8BITMIME" in self._offers:
            text += " BODY=8BITMIME"
        if "SMTPUTF8" in self._offers and not ("".join([sender, *recipients]).isascii() and header.isascii()):
            text += " SMTPUTF8"
        if "DSN" in self._offers:
            text += f" RET={call.ret}" if call.ret else ""
            text += f" ENVID={_xtext(call.envid)}" if call.envid else ""
        return text

    def _data(self, header: bytes) -> Reply:
        stuffer, text = DotStuffer(), self._letter.text
        text.seek(0)
        piece = header
        while piece:
            self._line.send(stuffer.feed(piece))
            piece = text.read(READ)
        self._line.send(stuffer.finish())
        return self._line.reply()

    def _need(self, answer: Reply, what: str) -> Reply:
        if answer.code >= 400:
            raise Failed(f"{what}: {answer}" if what else str(answer), _exit(answer))
        return answer


def _exit(answer: Reply) -> int:
    if answer.code < 500:
        return TRY_AGAIN
    for prefix, code in (("5.1.", NO_USER), ("5.7.", NO_PERMISSION), ("5.6.", DATA)):
        if answer.enhanced.startswith(prefix):
            return code
    return UNAVAILABLE


def _weight(code: int) -> tuple[bool, int]:
    """What will not change by waiting is told first."""
    return code != TRY_AGAIN, code


def _host() -> str:
    name = os.uname().nodename
    return name if re.fullmatch(r"[A-Za-z0-9._-]{1,255}", name) else "localhost"


def _xtext(text: str) -> str:
    """RFC 3461 §4."""
    return "".join(chr(one) if 33 <= one <= 126 and chr(one) not in "+=" else f"+{one:02X}" for one in text.encode())


# --- the rest ---


def _smtp(call: Call) -> int:
    """-bs: the caller speaks SMTP on standard input and output."""
    sock, _ = connect(load(call.config))
    with sock:
        sock.settimeout(None)
        sources = [0, sock.fileno()]
        while True:
            ready = select.select(sources, [], [])[0]
            if sock.fileno() in ready:
                data = sock.recv(READ)
                if not data:
                    return 0
                os.write(1, data)
            elif data := os.read(0, READ):
                sock.sendall(data)
            else:
                sources.remove(0)
                sock.shutdown(1)


def _list(call: Call) -> int:
    """-bp, mailq."""
    from tripost.gateway.cli.queue import SHOW

    rows = list(queue_rows(load(call.config)))
    if len(rows) == 1:
        print("the queue is empty")
    else:
        SHOW["list"](rows[:-1], rows[-1]["sum"])
    return 0


def _flush(call: Call) -> int:
    """-q: try what is queued now; of all, or of what fits."""
    part = {name: text if name == "id" else f"*{text}*" for name, text in call.which.items()}
    which, state = part or {"id": "*"}, load(call.config).state
    *_, counted = ask(state, "queue.count", **which)
    if counted["sum"]["messages"]:
        for _ in ask(state, "queue.retry", **which):
            pass
    return 0


def _nothing(call: Call) -> int:
    """newaliases: the gateway reads its own."""
    return 0


MODES: dict[str, Callable[[Call], int]] = {
    "send": _send,
    "smtp": _smtp,
    "list": _list,
    "flush": _flush,
    "nothing": _nothing,
}
