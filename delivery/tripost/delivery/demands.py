"""what a message asks of a host, and what happens where the host cannot

The parameters of MAIL and RCPT for one transaction, or the failure that says
which extension is missing. Nothing that leaves is changed to fit: a message
goes as it is, without a parameter that it does not really need, or not at all.

Source   SIZE RFC 1870; 8BITMIME RFC 6152; BINARYMIME, CHUNKING RFC 3030;
         SMTPUTF8 RFC 6531; DSN RFC 3461; REQUIRETLS RFC 8689; DELIVERBY
         RFC 2852; MT-PRIORITY RFC 6710; LIMITS RFC 9422. Enhanced codes 5.6.3,
         5.6.7, 5.7.30, 5.4.7, 5.3.3, 5.3.4: RFC 3463 and the IANA registry.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tripost.queue.message import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    Deferred,
    Envelope,
    Failed,
    Recipient,
)

_NOTIFY = ((NOTIFY_SUCCESS, "SUCCESS"), (NOTIFY_FAILURE, "FAILURE"), (NOTIFY_DELAY, "DELAY"))


class Content(msgspec.Struct, frozen=True):
    """What is known of the octets; `ascii_header` and `ascii` are asked for only where a host lacks something."""

    size: int
    ascii_header: bool = True
    ascii: bool = True


class Host(msgspec.Struct, frozen=True):
    """What a connection offers; `verified`: by TLS, with a certificate that names the host."""

    extensions: Mapping[str, str]
    name: str = ""
    verified: bool = False


class Plan(msgspec.Struct, frozen=True):
    """`mail` and `rcpts` are whole command lines; `dsn`: the host takes over what was asked for reports."""

    mail: bytes
    rcpts: tuple[tuple[int, bytes], ...]
    chunking: bool
    dsn: bool


def needs_look(envelope: Envelope, extensions: Mapping[str, str]) -> bool:
    """Does it depend on the content's octets whether the host can have the message?"""
    return (envelope.eight_bit and "8BITMIME" not in extensions) or (envelope.smtputf8 and "SMTPUTF8" not in extensions)


def plan(
    envelope: Envelope, recipients: tuple[Recipient, ...], host: Host, content: Content, now: float
) -> Plan | Failed | Deferred:
    """The transaction's lines, or why this host cannot have the message."""
    offered = host.extensions
    parameters: list[str] = []
    for part in (_size, _body, _utf8, _tls, _by):
        answer = part(envelope, recipients, host, content, now)
        if isinstance(answer, (Failed, Deferred)):
            return answer
        parameters += answer
    dsn = "DSN" in offered
    if dsn:
        parameters += [f"RET={envelope.ret}"] if envelope.ret else []
        parameters += [f"ENVID={envelope.envid}"] if envelope.envid else []
    if envelope.priority and "MT-PRIORITY" in offered:
        parameters.append(f"MT-PRIORITY={envelope.priority}")
    mail = " ".join([f"MAIL FROM:<{envelope.sender}>", *parameters])
    rcpts = tuple((one.id, f"RCPT TO:<{one.address}>{_rcpt(one) if dsn else ''}".encode()) for one in recipients)
    return Plan(mail.encode(), rcpts, "CHUNKING" in offered, dsn)


def _rcpt(one: Recipient) -> str:
    text = ""
    if one.notify & NOTIFY_NEVER:
        text = " NOTIFY=NEVER"
    elif one.notify:
        text = " NOTIFY=" + ",".join(word for bit, word in _NOTIFY if one.notify & bit)
    return text + (f" ORCPT={one.orcpt}" if one.orcpt else "")


Parts = list[str] | Failed | Deferred


def _size(envelope: Envelope, recipients: tuple[Recipient, ...], host: Host, content: Content, now: float) -> Parts:
    limit = host.extensions.get("SIZE")
    if limit is None:
        return []
    if limit.isascii() and limit.isdigit() and 0 < int(limit) < content.size:
        return Failed(552, "5.3.4", f"message of {content.size} octets; the host takes {limit}", host.name)
    return [f"SIZE={content.size}"]


def _body(envelope: Envelope, recipients: tuple[Recipient, ...], host: Host, content: Content, now: float) -> Parts:
    if envelope.binary:
        if not {"BINARYMIME", "CHUNKING"} <= host.extensions.keys():
            return Failed(554, "5.6.3", "the message is binary, and the host does not offer BINARYMIME", host.name)
        return ["BODY=BINARYMIME"]
    if not envelope.eight_bit:
        return []
    if "8BITMIME" in host.extensions:
        return ["BODY=8BITMIME"]
    if content.ascii:
        return []  # it was declared, but is not so
    return Failed(554, "5.6.3", "the message has 8-bit text, and the host does not offer 8BITMIME", host.name)


def _utf8(envelope: Envelope, recipients: tuple[Recipient, ...], host: Host, content: Content, now: float) -> Parts:
    addresses = envelope.sender.isascii() and all(one.address.isascii() for one in recipients)
    if not envelope.smtputf8 and addresses:
        return []
    if "SMTPUTF8" in host.extensions:
        return ["SMTPUTF8"]
    if addresses and content.ascii_header:
        return []  # it was asked for, but nothing here needs it (RFC 6531 §3.6)
    what = "the header" if addresses else "an address"
    return Failed(553, "5.6.7", f"{what} is not ASCII, and the host does not offer SMTPUTF8", host.name)


def _tls(envelope: Envelope, recipients: tuple[Recipient, ...], host: Host, content: Content, now: float) -> Parts:
    if not envelope.require_tls:
        return []
    if "REQUIRETLS" not in host.extensions:
        return Failed(550, "5.7.30", "the sender requires TLS (REQUIRETLS), and the host does not offer it", host.name)
    if not host.verified:
        return Deferred(454, "4.7.5", "the sender requires TLS, and the host's certificate is not good", host.name)
    return ["REQUIRETLS"]


def _by(envelope: Envelope, recipients: tuple[Recipient, ...], host: Host, content: Content, now: float) -> Parts:
    if not envelope.deliver_by:
        return []
    left = int(envelope.deliver_by - now)
    returns = envelope.by_mode.startswith("R")
    if returns and left <= 0:
        return Failed(550, "5.4.7", "the time in which it was to be delivered (DELIVERBY) is over", host.name)
    least = host.extensions.get("DELIVERBY")
    if least is None:
        if returns:  # RFC 2852 §4.1.4.1: not to be handed to a host that would not return it in time
            return Failed(550, "5.3.3", "it must come in time (DELIVERBY), and the host promises none", host.name)
        return []
    if returns and least.isascii() and least.isdigit() and left < int(least):
        return Failed(550, "5.4.7", f"{left} s are left (DELIVERBY); the host takes {least} s or more", host.name)
    return [f"BY={left};{envelope.by_mode}"]


def limits(extensions: Mapping[str, str]) -> dict[str, int]:
    """LIMITS → RCPTMAX, MAILMAX, RCPTDOMAINMAX; what is no number is not there (RFC 9422 §4.2)."""
    found: dict[str, int] = {}
    for word in extensions.get("LIMITS", "").split():
        name, _, value = word.partition("=")
        if value.isascii() and value.isdigit() and 0 < int(value) < 1_000_000:
            found[name.upper()] = int(value)
    return found
