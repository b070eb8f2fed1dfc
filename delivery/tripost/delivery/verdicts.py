"""(phase, reply | error) → Outcome

The one table of what a peer's answer means. Source: RFC 5321 §4.2.1, and
§4.5.3.1.10 for 552 to RCPT, which old servers say for "too many".
"""

from __future__ import annotations

from tripost.delivery.wire.replies import Reply
from tripost.queue.message import Deferred, Delivered, Failed, Outcome, Transfer


def verdict(phase: str, reply: Reply, host: str, *, dsn: bool = False, transfer: Transfer | None = None) -> Outcome:
    """For one recipient; `phase` is mail, rcpt, data or dot; `dsn`: the host knows what was asked for reports."""
    kind = reply.code // 100
    if kind == 2 and phase == "dot":
        return Delivered("relayed", str(reply), host, dsn, transfer)
    if reply.code == 421 and phase != "dot":
        return down(str(reply), host, transfer=transfer)
    if kind == 5 and not (reply.code == 552 and phase == "rcpt"):
        return Failed(reply.code, reply.enhanced or "5.0.0", reply.text, host, transfer)
    code = reply.code if kind == 4 else 451
    enhanced = reply.enhanced if reply.enhanced.startswith("4") else "4.0.0"
    return Deferred(code, enhanced, reply.text, host, transfer=transfer)


def down(why: str, host: str = "", *, enhanced: str = "4.4.1", transfer: Transfer | None = None) -> Deferred:
    """The destination could not be spoken to: its own back-off, not the message's."""
    return Deferred(451, enhanced, why, host, destination=True, transfer=transfer)


def lost(phase: str, why: str, host: str, transfer: Transfer | None = None) -> Deferred:
    """The connection broke. From the content on it may be this message that broke it."""
    if phase in ("content", "dot"):
        return Deferred(451, "4.4.2", f"connection lost while sending: {why}", host, transfer=transfer)
    return down(f"connection lost: {why}", host, enhanced="4.4.2", transfer=transfer)
