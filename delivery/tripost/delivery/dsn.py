"""delivery status notifications

RFC 3464 multipart/report (RFC 6522): what happened in words, what happened for
programs, and the header of the message it is about, or all of it where the
sender asked for that (RET=FULL, RFC 3461 §4.3). From the null reverse-path to
the sender; a report about a message that itself came from there goes to the
postmaster or to nobody, and none about that, so that reports never beget
reports without end (RFC 5321 §6.1).

Promise  CRLF, no line over 998 octets, peers' texts made printable. 7-bit, but for
         a whole 8-bit original, and for a sender whose address is not ASCII.
         Addresses and headers that are not ASCII are told in 7-bit forms (RFC 6533).
"""

from __future__ import annotations

import base64
import quopri
import re
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate

import msgspec

from tripost.delivery.classify import classify
from tripost.queue.message import Deferred, Delivered, Envelope, Failed, News, Recipient

LINE_LIMIT = 900
_XTEXT = re.compile(r"\+([0-9A-F]{2})")


class Words(msgspec.Struct, frozen=True):
    """The text for people about one action; `{hostname} {date} {recipients} {until}` are filled in."""

    subject: str
    text: str


WORDS: dict[str, Words] = {
    "failed": Words(
        "Undelivered mail",
        "Your message of {date} could not be delivered to:\n\n{recipients}\n\nIt will not be tried again.",
    ),
    "delayed": Words(
        "Mail is delayed",
        "Your message of {date} has not been delivered yet to:\n\n{recipients}\n\n"
        "There is nothing that you need to do. It will be tried until {until}.",
    ),
    "relayed": Words(
        "Mail was handed on",
        "Your message of {date} was handed on to a server that does not report deliveries, for:\n\n{recipients}",
    ),
    "delivered": Words("Mail was delivered", "Your message of {date} was delivered to:\n\n{recipients}"),
}


def read_words(text: str) -> Words:
    """A template: a line "Subject: …", an empty line, the text. Raises ValueError."""
    first, _, rest = text.replace("\r\n", "\n").partition("\n")
    subject = first.removeprefix("Subject:").strip()
    if not first.startswith("Subject:") or not subject or not rest.startswith("\n"):
        raise ValueError('must begin with a line "Subject: …" and an empty line')
    if "{recipients}" not in rest:
        raise ValueError("must have {recipients} in its text")
    return Words(subject, rest.strip("\n"))


def make_report(
    *,
    hostname: str,
    envelope: Envelope,
    news: Sequence[News],
    original: bytes,
    now: float,
    id: str,
    next_hop_for: Callable[[str], str],
    expire: float,
    to: str = "",
    words: Mapping[str, Words] = WORDS,
) -> tuple[Envelope, bytes] | None:
    """The report's envelope and content; None when nobody is to be told. Times in wall-clock seconds. `original`: the
    message's header, or all of it; `to`: who is told instead of the sender."""
    to = to or envelope.sender
    if not to or not news:
        return None
    boundary = f"=_{id}"
    groups = {action: [one for one in news if one.action == action] for action in WORDS}
    groups = {action: some for action, some in groups.items() if some}
    subject = words.get(next(iter(groups)), WORDS[next(iter(groups))]).subject
    parts = [
        _header(hostname, to, subject, now, id, boundary),
        _words(hostname, envelope, groups, words, boundary),
        _status(hostname, envelope, news, now, boundary),
        _quoted(original, envelope, boundary),
        f"--{boundary}--\r\n".encode(),
    ]
    content = b"".join(parts)
    recipient = Recipient(0, to, next_hop_for(to))
    return Envelope(
        id,
        "",
        (recipient,),
        now,
        now + expire,
        len(content),
        eight_bit=not content.isascii(),
        smtputf8=not to.isascii(),
    ), content


def _header(hostname: str, to: str, subject: str, now: float, id: str, boundary: str) -> bytes:
    lines = [
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: <{_printable(to)}>",
        f"Subject: {_clean(subject)}",
        f"Date: {_date(now)}",
        f"Message-ID: <{id}@{hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        "",
        "This is a report in MIME format.",
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


# --- for people ---


def _words(
    hostname: str,
    envelope: Envelope,
    groups: Mapping[str, Sequence[News]],
    words: Mapping[str, Words],
    boundary: str,
) -> bytes:
    paragraphs = [f"This is the mail system at {hostname}."]
    for action, some in groups.items():
        filled = words.get(action, WORDS[action]).text
        for name, value in (
            ("{hostname}", hostname),
            ("{date}", _date(envelope.accepted)),
            ("{until}", _date(envelope.expires)),
            ("{recipients}", "\n\n".join(_told(one) for one in some)),
        ):
            filled = filled.replace(name, value)
        paragraphs.append(filled)
    text = "\n\n".join(paragraphs) + "\n"
    head = f"--{boundary}\r\nContent-Type: text/plain; charset="
    if text.isascii():
        return f"{head}us-ascii\r\n\r\n{text}\r\n".replace("\r\n", "\n").replace("\n", "\r\n").encode()
    coded = quopri.encodestring(text.encode()).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return f"{head}utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n".encode() + coded + b"\r\n"


def _told(one: News) -> str:
    """One recipient: the address, what it means, what was said."""
    lines = [f"  <{_printable(one.recipient.address)}>"]
    outcome = one.outcome
    if isinstance(outcome, Delivered):
        if outcome.host:
            lines.append(f"    by {_clean(outcome.host)}: {_clean(outcome.reply)}")
        return "\n".join(lines)
    lines.append(f"    {classify(_said(outcome)).text}")
    lines.append(f"    {_clean(outcome.host)} said:" if outcome.host else "    The reason:")
    return "\n".join([*lines, f"    {_clean(_said(outcome))}"])


# --- for programs ---


def _status(hostname: str, envelope: Envelope, news: Sequence[News], now: float, boundary: str) -> bytes:
    lines = [
        f"--{boundary}",
        "Content-Type: message/delivery-status",
        "",
    ]
    if envelope.envid:
        lines.append(f"Original-Envelope-Id: {_clean(_from_xtext(envelope.envid))}")
    lines += [
        f"Reporting-MTA: dns; {hostname}",
        f"X-Queue-ID: {envelope.id}",
        f"Arrival-Date: {_date(envelope.accepted)}",
        "",
    ]
    for one in news:
        lines += [*_fields(one, envelope, now), ""]
    return "\r\n".join([*[line[:998] for line in lines], ""]).encode("ascii", "replace")


def _fields(one: News, envelope: Envelope, now: float) -> list[str]:
    outcome, lines = one.outcome, list[str]()
    if one.recipient.orcpt:
        kind, _, address = one.recipient.orcpt.partition(";")
        told = address if kind.lower() == "utf-8" else _from_xtext(address)
        lines.append(f"Original-Recipient: {_clean(kind)}; {_clean(told)}")
    lines += [f"Final-Recipient: {_typed(one.recipient.address)}", f"Action: {one.action}"]
    if isinstance(outcome, Delivered):
        lines.append("Status: 2.0.0")
        if outcome.reply:
            lines.append(f"Diagnostic-Code: smtp; {_clean(outcome.reply)}")
    else:
        # a status that reports a failure has class 5, but for time that ran out (RFC 3464 §2.3.4, RFC 3463 §3.5)
        lines += [f"Status: {outcome.enhanced}", f"Diagnostic-Code: smtp; {_clean(_said(outcome))}"]
    if outcome.host:
        lines.append(f"Remote-MTA: dns; {_clean(outcome.host)}")
    lines.append(f"Last-Attempt-Date: {_date(now)}")
    if one.action == "delayed":
        lines.append(f"Will-Retry-Until: {_date(envelope.expires)}")
    return lines


def _typed(address: str) -> str:
    """An address in 7-bit form (RFC 6533 §3); what goes over a line's length is cut off between two characters."""
    if address.isascii():
        return f"rfc822; {_clean(address)}"
    coded = ""
    for one in address:
        piece = one if "!" <= one <= "~" and one not in "+=\\" else f"\\x{{{ord(one):X}}}"
        if len(coded) + len(piece) > LINE_LIMIT:
            break
        coded += piece
    return f"utf-8; {coded}"


# --- the original ---


def _quoted(original: bytes, envelope: Envelope, boundary: str) -> bytes:
    header, whole, _ = original.partition(b"\r\n\r\n")
    full = bool(whole) and not envelope.binary
    head = f"--{boundary}\r\nContent-Type: ".encode()
    if not header.isascii():  # base64 is allowed for these types (RFC 6533 §6)
        kind = b"message/global" if full else b"message/global-headers"
        coded = base64.encodebytes(original if full else header + b"\r\n").replace(b"\n", b"\r\n")
        return head + kind + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + coded + b"\r\n"
    if full:
        kind = b"message/rfc822\r\n\r\n" if original.isascii() else EIGHT_BIT
        return head + kind + original + b"\r\n"
    return head + _header_only(original)


EIGHT_BIT = b"message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"


def seven_bit(report: bytes, id: str) -> bytes | None:
    """One of our reports for a host that takes 7 bits only: of the 8-bit original that it quotes, the header is left:
    better than no report. None for what is no such report."""
    start = f"\r\n--=_{id}\r\nContent-Type: ".encode()
    before, found, original = report.partition(start + EIGHT_BIT)
    return before + start + _header_only(original) + f"--=_{id}--\r\n".encode() if found else None


def _header_only(original: bytes) -> bytes:
    lines = [line[:LINE_LIMIT] for line in original.partition(b"\r\n\r\n")[0].split(b"\r\n") if line]
    return b"text/rfc822-headers; charset=us-ascii\r\n\r\n" + b"\r\n".join([*lines, b"", b""])


def _said(outcome: Failed | Deferred) -> str:
    return f"{outcome.code} {outcome.enhanced} {outcome.text}"


def _date(when: float) -> str:
    return formatdate(when).replace("-0000", "+0000")


def _from_xtext(text: str) -> str:
    """RFC 3461 §4."""
    return _XTEXT.sub(lambda found: chr(int(found[1], 16)), text)


def _printable(text: str) -> str:
    shown = "".join(one if one.isprintable() else "?" for one in text)
    return shown.encode()[:LINE_LIMIT].decode("utf-8", "ignore")  # a line is counted in octets


def _clean(text: str) -> str:
    return "".join(one if " " <= one <= "~" else "?" for one in text)[:LINE_LIMIT]
