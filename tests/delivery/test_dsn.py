"""reports as a mail program and a list manager would read them"""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage, Message
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tripost.delivery.dsn import Words, make_report, read_words
from tripost.queue.message import Deferred, Delivered, Envelope, Failed, News, Recipient

NO = Failed(550, "5.1.1", "no such user", "mx.x.example")
LATER = Deferred(451, "4.2.2", "mailbox full", "mx.x.example")
ORIGINAL = b"Subject: hello\r\nFrom: a@b.c\r\n\r\nbody\r\n.dot\r\n"
HEADER = ORIGINAL.partition(b"\r\n\r\n")[0]


def _envelope(**more: Any) -> Envelope:
    one = Envelope("ID1", "fred@truc.fr", (Recipient(0, "u@x.example", "mx:x.example"),), 1.8e9, 1.8e9 + 432_000)
    return replace(one, **more)


def _made(
    *news: News, envelope: Envelope | None = None, original: bytes = HEADER, **more: Any
) -> tuple[Envelope, bytes]:
    made = make_report(
        hostname="smtp.truc.fr",
        envelope=envelope or _envelope(),
        news=news or (News(Recipient(0, "u@x.example", ""), "failed", NO),),
        original=original,
        now=1.8e9 + 60,
        id="RID",
        next_hop_for=lambda address: f"hop:{address}",
        expire=432_000.0,
        **more,
    )
    assert made is not None
    return made


def _read(content: bytes) -> tuple[Message, list[Message], list[Message]]:
    """The report, its parts, the fields of its status."""
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))
    assert b"\n" not in content.replace(b"\r\n", b"")
    whole = email.message_from_bytes(content, policy=email.policy.default)
    assert not whole.defects
    assert whole.get_content_type() == "multipart/report"
    parts: list[Any] = list(whole.iter_parts()) if isinstance(whole, EmailMessage) else []
    assert len(parts) == 3
    status: Any = parts[1].get_payload()
    return whole, parts, list(status)


def test_a_failure() -> None:
    envelope, content = _made()
    whole, parts, fields = _read(content)
    assert (envelope.sender, envelope.recipients[0].address) == ("", "fred@truc.fr")
    assert envelope.recipients[0].next_hop == "hop:fred@truc.fr"
    assert envelope.size == len(content)
    assert whole["Subject"] == "Undelivered mail"
    assert whole["Auto-Submitted"] == "auto-replied"
    text = parts[0].get_payload()
    assert "There is no such mailbox." in text
    assert "550 5.1.1 no such user" in text
    assert fields[0]["Reporting-MTA"] == "dns; smtp.truc.fr"
    one = fields[1]
    assert (one["Action"], one["Status"], one["Remote-MTA"]) == ("failed", "5.1.1", "dns; mx.x.example")
    assert one["Final-Recipient"] == "rfc822; u@x.example"
    assert one["Will-Retry-Until"] is None
    assert parts[2].get_content_type() == "text/rfc822-headers"
    assert "Subject: hello" in parts[2].as_string()
    assert "body" not in parts[2].as_string()


def test_all_kinds_in_one() -> None:
    people = [Recipient(n, f"u{n}@x.example", "") for n in range(4)]
    _, content = _made(
        News(people[0], "delivered", Delivered("delivered")),
        News(people[1], "relayed", Delivered("relayed", "250 2.0.0 ok", "mx.x.example")),
        News(people[2], "delayed", LATER),
        News(people[3], "failed", NO),
    )
    whole, parts, fields = _read(content)
    assert whole["Subject"] == "Undelivered mail"
    assert [one["Action"] for one in fields[1:]] == ["delivered", "relayed", "delayed", "failed"]
    assert [one["Status"] for one in fields[1:]] == ["2.0.0", "2.0.0", "4.2.2", "5.1.1"]
    assert fields[3]["Will-Retry-Until"]
    text = parts[0].get_payload()
    for words in ("could not be delivered to", "not been delivered yet", "was handed on", "was delivered to"):
        assert words in text


def test_what_the_sender_gave_comes_back() -> None:
    recipient = Recipient(0, "other@x.example", "", orcpt="rfc822;u+2Blist@x.example")
    _, content = _made(News(recipient, "failed", NO), envelope=_envelope(envid="QQ+2B314"))
    _, _, fields = _read(content)
    assert fields[0]["Original-Envelope-Id"] == "QQ+314"
    assert fields[1]["Original-Recipient"] == "rfc822; u+list@x.example"


def test_the_whole_original() -> None:
    envelope, content = _made(original=ORIGINAL)
    _, parts, _ = _read(content)
    assert parts[2].get_content_type() == "message/rfc822"
    assert ORIGINAL in content
    assert not envelope.eight_bit
    envelope, content = _made(original=b"Subject: x\r\n\r\n\xe9t\xe9\r\n")
    assert envelope.eight_bit
    assert b"Content-Transfer-Encoding: 8bit" in content
    _, content = _made(original=b"Subject: x\r\n\r\na\0b", envelope=_envelope(binary=True))
    assert b"a\0b" not in content


def test_addresses_that_are_not_ascii() -> None:
    recipient = Recipient(0, "jörg@exämple.de", "")
    envelope, content = _made(
        News(recipient, "failed", NO),
        envelope=_envelope(smtputf8=True),
        original="Subject: Grüße\r\n\r\nx\r\n".encode(),
    )
    _, parts, fields = _read(content)
    assert content.isascii()
    assert not envelope.smtputf8
    assert fields[1]["Final-Recipient"] == r"utf-8; j\x{F6}rg@ex\x{E4}mple.de"
    assert "jörg@exämple.de" in parts[0].get_content()
    assert parts[2].get_content_type() == "message/global"
    envelope, content = _made(envelope=_envelope(sender="jörg@exämple.de"))
    assert envelope.smtputf8
    assert "To: <jörg@exämple.de>".encode() in content


def test_nobody_to_tell() -> None:
    news = [News(Recipient(0, "u@x.example", ""), "failed", NO)]
    more: dict[str, Any] = {"hostname": "h", "news": news, "original": b"", "now": 0.0, "id": "R", "expire": 1.0}
    assert make_report(envelope=_envelope(sender=""), next_hop_for=lambda one: "", **more) is None
    made = make_report(envelope=_envelope(sender=""), next_hop_for=lambda one: "", to="post@truc.fr", **more)
    assert made is not None
    assert made[0].recipients[0].address == "post@truc.fr"


def test_templates() -> None:
    words = read_words("Subject: Désolé\n\nÀ {recipients}\njusqu'à {until}\n")
    assert words == Words("Désolé", "À {recipients}\njusqu'à {until}")
    _, content = _made(words={"failed": words})
    _, parts, _ = _read(content)
    assert "À   <u@x.example>" in parts[0].get_content()
    for wrong in ("", "Subject:\n\n{recipients}", "Subject: x\n{recipients}", "Subject: x\n\nnobody"):
        with pytest.raises(ValueError, match="must"):
            read_words(wrong)


@given(st.text(), st.text(), st.binary(max_size=2000), st.text(), st.booleans())
def test_whatever_peers_say(address: str, reply: str, original: bytes, host: str, smtputf8: bool) -> None:
    original = original.replace(b"\r", b"").replace(b"\n", b"\r\n")
    lines = original.split(b"\r\n")
    original = b"\r\n".join(line[:900] for line in lines)
    news = News(Recipient(0, address, "", orcpt=f"rfc822;{address}"), "failed", Failed(550, "5.0.0", reply, host))
    _, content = _made(news, original=original, envelope=_envelope(smtputf8=smtputf8, envid=address))
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert b"\r" not in content.replace(b"\r\n", b"")
