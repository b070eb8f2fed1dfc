"""delivery status notifications

RFC 3464 multipart/report (RFC 6522): what happened in words, what happened for
programs, and the header of the message it is about. From the null reverse-path
to the sender; never about a message that itself came from there, so no report
is ever sent for a report (RFC 5321 §6.1).

Promise  7-bit, CRLF, no line over 998 octets; peers' texts are made printable.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate

from tripost.queue.message import Envelope, Failed, Recipient

HEADER_LIMIT = 50 * 1024
LINE_LIMIT = 900


def make_report(
    *,
    hostname: str,
    envelope: Envelope,
    failures: list[tuple[Recipient, Failed]],
    header: bytes,
    now: float,
    id: str,
    next_hop_for: Callable[[str], str],
    expire: float,
) -> tuple[Envelope, bytes] | None:
    """The report's envelope and content; None when nobody is to be told. Times in wall-clock seconds."""
    if not envelope.sender:
        return None
    boundary = f"=_{id}"
    content = "\r\n".join(
        [
            *_header(hostname, envelope, now, id, boundary),
            *_words(hostname, envelope, failures, boundary),
            *_status(hostname, envelope, failures, boundary),
            f"--{boundary}",
            "Content-Type: text/rfc822-headers; charset=us-ascii",
            "",
            *_original(header),
            "",
            f"--{boundary}--",
            "",
        ]
    ).encode("ascii", "replace")
    to = Recipient(0, envelope.sender, next_hop_for(envelope.sender))
    return Envelope(id, "", (to,), now, now + expire, len(content)), content


def _header(hostname: str, envelope: Envelope, now: float, id: str, boundary: str) -> list[str]:
    return [
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: <{_clean(envelope.sender)}>",
        "Subject: Undelivered mail",
        f"Date: {_date(now)}",
        f"Message-ID: <{id}@{hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        "",
        "This is a report in MIME format.",
        "",
    ]


def _words(hostname: str, envelope: Envelope, failures: list[tuple[Recipient, Failed]], boundary: str) -> list[str]:
    lines = [
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"This is the mail system at {hostname}.",
        "",
        f"Your message of {_date(envelope.accepted)} could not be delivered to:",
        "",
    ]
    for recipient, failure in failures:
        lines.append(f"  <{_clean(recipient.address)}>")
        if failure.host:
            lines.append(f"    {_clean(failure.host)} said:")
        lines += [f"    {_clean(_said(failure))}", ""]
    return [*lines, "The header of your message follows. It will not be tried again.", ""]


def _status(hostname: str, envelope: Envelope, failures: list[tuple[Recipient, Failed]], boundary: str) -> list[str]:
    lines = [
        f"--{boundary}",
        "Content-Type: message/delivery-status",
        "",
        f"Reporting-MTA: dns; {hostname}",
        f"X-Queue-ID: {envelope.id}",
        f"Arrival-Date: {_date(envelope.accepted)}",
        "",
    ]
    for recipient, failure in failures:
        # a status that reports a failure has class 5, but for time that ran out (RFC 3464 §2.3.4, RFC 3463 §3.5)
        lines += [
            f"Final-Recipient: rfc822; {_clean(recipient.address)}",
            "Action: failed",
            f"Status: {failure.enhanced}",
        ]
        if failure.host:
            lines.append(f"Remote-MTA: dns; {_clean(failure.host)}")
        lines += [f"Diagnostic-Code: smtp; {_clean(_said(failure))}", ""]
    return lines


def _said(failure: Failed) -> str:
    return f"{failure.code} {failure.enhanced} {failure.text}"


def _original(header: bytes) -> list[str]:
    text = header[:HEADER_LIMIT].decode("ascii", "replace").replace("\ufffd", "?")
    return [line[:LINE_LIMIT] for line in text.split("\r\n") if line]


def _date(when: float) -> str:
    return formatdate(when).replace("-0000", "+0000")


def _clean(text: str) -> str:
    return "".join(one if " " <= one <= "~" else "?" for one in text)[:LINE_LIMIT]
