"""header fields, addresses and MIME parts: what mail has, and what it should not have"""

from __future__ import annotations

import email
import email.policy
import time
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.delivery.mime.addresses import Address, addresses
from tripost.delivery.mime.decoding import preview, texts, without_encoding
from tripost.delivery.mime.fields import chosen, content_type, decoded, disposition, fields_of, first, header_end
from tripost.delivery.mime.structure import MOST_DEPTH, MOST_PARTS, Part, find_part, structure
from tripost.delivery.mime.subjects import base_subject, message_ids, sent_time


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"fred@truc.fr", [Address(None, None, b"fred", b"truc.fr")]),
        (b'"Fred, B" <fred@truc.fr>', [Address(b"Fred, B", None, b"fred", b"truc.fr")]),
        (b"Fred  B. <fred@truc.fr>", [Address(b"Fred B.", None, b"fred", b"truc.fr")]),
        (b"joe@z (Joe (Doe\\)))", [Address(b"Joe (Doe\\))", None, b"joe", b"z")]),
        (b"<@a,@b:u@h>", [Address(None, b"@a,@b", b"u", b"h")]),
        (b'"a b"@c.d', [Address(None, None, b"a b", b"c.d")]),
        (b"u@[1.2.3.4]", [Address(None, None, b"u", b"[1.2.3.4]")]),
        (b"=?utf-8?q?F=C3=A9?= <f@x>", [Address(b"=?utf-8?q?F=C3=A9?=", None, b"f", b"x")]),
        (b"nobody", [Address(None, None, b"nobody", b"")]),
        (b"x <bad", [Address(b"x", None, b"bad", b"")]),
        (b",, ,", []),
        (
            b"Team: a@x, b@y;, c@z",
            [
                Address(None, None, b"Team", None),
                Address(None, None, b"a", b"x"),
                Address(None, None, b"b", b"y"),
                Address(None, None, None, None),
                Address(None, None, b"c", b"z"),
            ],
        ),
        (b"Undisclosed:;", [Address(None, None, b"Undisclosed", None), Address(None, None, None, None)]),
    ],
)
def test_addresses(value: bytes, found: list[Address]) -> None:
    assert addresses(value) == found


def test_fields() -> None:
    header = b"Subject: one\r\n two\r\nno field\r\nTO : x\r\nX:\r\n\r\n"
    assert fields_of(header) == [(b"subject", b" one\r\n two"), (b"to", b" x"), (b"x", b"")]
    assert first(fields_of(header), b"subject") == b"one two"
    assert chosen(header, frozenset({b"to"})) == b"TO : x\r\n\r\n"
    assert chosen(header, frozenset({b"to"}), others=True) == b"Subject: one\r\n two\r\nno field\r\nX:\r\n\r\n"
    assert chosen(b"A: b", frozenset({b"a"})) == b"A: b\r\n\r\n"
    assert header_end(b"\r\nbody") == 2
    assert header_end(b"A: b\r\n\r\nbody") == 8
    assert header_end(b"A: b\r\n") == 6


def test_types() -> None:
    assert content_type(b' Text / Plain; charset="utf-8"; name*0="a;b"; x=y (z)') == (
        b"text",
        b"plain",
        [(b"charset", b"utf-8"), (b"name*0", b"a;b"), (b"x", b"y")],
    )
    assert content_type(b"text") == (b"", b"", [])
    assert content_type(b"text/plain (hm; a=b); c=d")[2] == [(b"c", b"d")]
    assert disposition(b'attachment; filename="a \\"b"') == (b"attachment", [(b"filename", b'a "b')])


def test_encoded_words() -> None:
    assert decoded(b"=?utf-8?q?h=C3=A9llo_?= =?ISO-8859-1*en?Q?w=F6rld?= x") == "héllo wörld x"
    assert decoded(b"=?utf-8?B?d8O2cmxk?=") == "wörld"
    assert decoded(b"=?nonsense?q?a?= =?rot13?q?a?=") == "=?nonsense?q?a?==?rot13?q?a?="
    assert decoded("schön".encode("latin-1")) == "schön"


@pytest.mark.parametrize(
    ("subject", "base", "answer"),
    [
        ("Hello", "HELLO", False),
        ("Re: Fwd: re[3]: Hello (fwd)", "HELLO", True),
        ("[list] Re:  Hello", "HELLO", True),
        ("[Fwd: Re: Hello]", "HELLO", True),
        ("[blob]", "[BLOB]", False),
        ("", "", False),
        ("Re:", "", True),
    ],
)
def test_base_subjects(subject: str, base: str, answer: bool) -> None:
    assert base_subject(subject) == (base, answer)


def test_dates_and_ids() -> None:
    assert sent_time(b"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)") == (837_595_405, 728_857)
    assert sent_time(b"nonsense") is None
    assert sent_time(b"Wed, 17 Jul 199600000000000 02:23:25 -0700") is None
    assert message_ids(b"<a@b> junk <c@d> <>") == [b"<a@b>", b"<c@d>"]


def letter() -> EmailMessage:
    one = EmailMessage(policy=email.policy.SMTP)
    one["Subject"] = "all kinds"
    one.set_content("Grüße\n> quoted\nworld\n")
    one.add_alternative("<p>Grüße <b>world</b></p>", subtype="html")
    one.add_attachment(bytes(range(256)), maintype="application", subtype="octet-stream", filename="a.bin")
    inner = EmailMessage(policy=email.policy.SMTP)
    inner["Subject"] = "inside"
    inner.set_content("inner text\n")
    one.add_attachment(inner)
    return one


def test_a_letter_has_the_parts_that_the_standard_library_sees() -> None:
    octets = letter().as_bytes()
    root = structure(octets)

    def same(ours: Part, theirs: email.message.Message) -> None:
        assert (ours.kind + b"/" + ours.subtype).decode() == theirs.get_content_type()
        below = theirs.get_payload() if theirs.is_multipart() else []
        assert isinstance(below, list)
        assert len(ours.parts) == len(below)
        if not below:
            content = without_encoding(
                octets[ours.body : ours.end], (theirs["Content-Transfer-Encoding"] or "7bit").encode()
            )
            assert content == theirs.get_payload(decode=True)
        for one, other in zip(ours.parts, below, strict=True):
            assert isinstance(other, email.message.Message)
            same(one, other)

    same(root, email.message_from_bytes(octets))
    assert "Grüße" in texts(root, octets)
    assert "inner text" in texts(root, octets)
    assert preview(root, octets) == "Grüße world"


def test_sections() -> None:
    octets = letter().as_bytes()
    root = structure(octets)

    def content(*path: int) -> bytes | None:
        found = find_part(root, path)
        return octets[found.body : found.end] if found is not None else None

    assert (content(3, 1) or b"").strip() == b"inner text"
    assert (content(3) or b"").startswith(b"Subject: inside\r\n")
    assert content(1, 1) == b"R3LDvMOfZQo+IHF1b3RlZAp3b3JsZAo=\r\n" or b"Gr" in (content(1, 1) or b"")
    for nowhere in ((4,), (1, 3), (2, 1), (3, 2), (3, 1, 1)):
        assert content(*nowhere) is None
    plain = structure(b"Subject: x\r\n\r\nbody\r\n")
    assert find_part(plain, (1,)) is plain
    assert find_part(plain, (1, 1)) is None


def test_broken_structures() -> None:
    assert structure(b"Content-Type: multipart/mixed\r\n\r\nx").kind == b"text"
    assert structure(b"Content-Type: multipart/mixed; boundary=b\r\n\r\nx").kind == b"text"
    cut = structure(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nno end")
    assert len(cut.parts) == 1
    longer = structure(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n--bc\r\n--b--\r\n")
    assert len(longer.parts) == 1
    digest = structure(
        b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: in\r\n\r\nx\r\n--b--\r\n"
    )
    assert digest.parts[0].message


def test_what_would_explode_does_not() -> None:
    began = time.monotonic()
    many = structure(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 100_000)
    assert len(many.parts) < MOST_PARTS
    deep = b"".join(b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(10_000))
    one, depth = structure(deep), 0
    while one.parts:
        one, depth = one.parts[0], depth + 1
    assert depth <= MOST_DEPTH
    structure(b"Content-Type: message/rfc822\r\n\r\n" * 50_000)
    structure(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b" * 500_000)
    for bad in (b"(", b"<", b'"', b"a ", b"a,", b":;", b"@", b"\\"):
        addresses(bad * 100_000)
    for bad in (b"\r", b"\r\n", b"a", b"a:", b"a b\r\n", b": \r\n "):
        fields_of(bad * 50_000)
        chosen(bad * 50_000, frozenset({b"a"}))
    for bad in (b";", b';a="', b"; a", b"(", b"; a=b", b"a/"):
        content_type(b"text/plain" + bad * 50_000)
        disposition(b"x" + bad * 50_000)
    for text in (b"=?", b"=?utf-8?q?", b"=?a?b?c?= ", b"=?utf-8?q?=?="):
        decoded(text * 20_000)
    for subject in ("[a]", "re:", "[fwd:", "[ ", "(fwd)", " "):
        base_subject(subject * 100_000)
    assert time.monotonic() - began < 20


MIME = st.lists(
    st.sampled_from(
        [
            b"\r\n",
            b"\r\n\r\n",
            b"--b",
            b"--b--",
            b"Content-Type: ",
            b"multipart/mixed; boundary=b",
            b"message/rfc822",
            b"Subject: x\r\n",
            b"Content-Transfer-Encoding: base64\r\n",
            b"=?utf-8?b?",
            b'"',
            b"text/html",
            b";charset=x",
        ]
    )
    | st.binary(max_size=6),
    max_size=40,
).map(b"".join)


@given(MIME)
def test_any_octets_have_a_structure(octets: bytes) -> None:
    root = structure(octets)
    todo = [root]
    while todo:
        one = todo.pop()
        assert 0 <= one.start <= one.body <= one.end <= len(octets)
        assert all(one.body <= below.start and below.end <= one.end for below in one.parts)
        todo += one.parts
        content_type(first(one.fields, b"content-type") or b"")
    texts(root, octets)
    preview(root, octets)
    addresses(octets)
    decoded(octets)
    chosen(octets, frozenset({b"subject"}))
