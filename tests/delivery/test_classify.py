"""what the large providers' refusals are taken for"""

from __future__ import annotations

import re

import pytest

from tripost.delivery.classify import classify, table

REPLIES = [
    ("421 4.7.28 Our system has detected an unusual rate of unsolicited mail", "rate"),
    ("450 4.2.1 The user you are trying to contact is receiving mail too quickly. Please resend", "flooded"),
    ("450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional", "flooded"),
    ("452 4.1.1 192.0.2.1 RL000001 try later", "rate"),
    ("554 resimta x.comcast.net 192.0.2.1 BL000001 blocked", "blocked"),
    ("421 4.7.0 IP not in whitelist for RCPT domain, closing connection", "blocked"),
    ("421 4.7.0 TLS required for RCPT domain, closing connection", "tls"),
    ("421 4.7.0 [192.0.2.1] suspicious due to the very low reputation of the sending domain", "content"),
    ("450 4.7.0 recipient is not there now", "other"),
    ("450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.1]", "blocked"),
    ("550 5.7.606 Access denied, banned sending IP [192.0.2.1]", "blocked"),
    ("550 5.7.511 Access denied, banned sender", "blocked"),
    ("452 4.3.1 Insufficient system storage", "busy"),
    ("421 4.4.5 Server busy, try again later", "busy"),
    ("451 4.4.1 mx.example [192.0.2.1]:25: Connection refused", "unreachable"),
    ("451 4.4.2 connection lost", "unreachable"),
    ("550 5.1.3 Invalid address syntax", "no-user"),
    ("550 5.4.4 host has no address", "route"),
    ("501 5.5.4 Syntax: MAIL FROM:<address>", "protocol"),
    ("503 bad sequence of commands", "protocol"),
    ("550 5.7.29 ARC validation failure", "authentication"),
    ("421 4.7.0 [TSS04] Messages temporarily deferred due to unexpected volume", "rate"),
    ("451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation (S775)", "rate"),
    ("421 RP-001 Unfortunately, some messages from 192.0.2.1 weren't sent", "rate"),
    ("550 5.7.1 Unfortunately, part of their network is on our block list (S3150)", "blocked"),
    ("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", "blocked"),
    ("553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1", "blocked"),
    ("450 4.2.0 <a@b.example>: Recipient address rejected: Greylisted, see http://postgrey.example", "greylisted"),
    ("451 4.7.1 Greylisting in action, please come back later", "greylisted"),
    ("421 4.7.0 smtp.example Error: too many connections from 192.0.2.1", "busy"),
    ("421 4.3.2 too many concurrent SMTP connections; please try again later", "busy"),
    ("550 5.1.1 The email account that you tried to reach does not exist", "no-user"),
    ("550 No such user here", "no-user"),
    ("550 5.1.1 <x@y.example>: Recipient address rejected: User unknown in virtual mailbox table", "no-user"),
    ("552 5.2.2 The email account that you tried to reach is over quota", "full"),
    ("452 4.2.2 mailbox full", "full"),
    ("550 5.2.1 The email account that you tried to reach is disabled", "disabled"),
    ("552 5.3.4 Message size exceeds fixed limit", "size"),
    ("550 5.7.26 Unauthenticated email from x.example is not accepted due to domain's DMARC policy", "authentication"),
    ("550 5.7.23 SPF validation failed", "authentication"),
    ("550 5.7.1 This message was detected as spam", "content"),
    ("554 5.7.1 <x@y.example>: Relay access denied", "relay"),
    ("550 5.1.8 Sender address rejected: Domain not found", "sender"),
    ("554 5.4.6 too many hops", "loop"),
    ("550 5.6.7 no SMTPUTF8", "form"),
    ("451 4.7.5 certificate", "tls"),
    ("451 4.3.0 busy", "busy"),
    ("554 no", "other"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "kind"), REPLIES)
def test_replies(reply: str, kind: str) -> None:
    assert classify(reply).name == kind


def test_the_table_is_sound() -> None:
    rows = table()
    assert all(re.compile(pattern) and kind and source for pattern, kind, source in rows)
    assert {kind for _, kind, _ in rows} >= {"busy", "rate", "blocked", "greylisted", "no-user", "full", "content"}


def test_no_reply_costs_much() -> None:
    import time

    start = time.perf_counter()
    for filler in ("a", " ", "mailbox ", "account recipient user "):
        classify("550 " + filler * (4000 // len(filler)))
    assert time.perf_counter() - start < 1.0
