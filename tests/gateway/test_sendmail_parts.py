"""what sendmail's arguments mean, and what becomes of the text on its standard input"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.gateway.cli.sendmail_arguments import Call, UsageError, parse
from tripost.gateway.cli.sendmail_message import HEADER_LIMIT, Header, Lines, Message, MessageError

# words → what is not as usual
CALLS: list[tuple[str, dict[str, object]]] = [
    ("a@x b@y", {"recipients": ["a@x", "b@y"]}),
    ("-t", {"from_header": True}),
    ("-t -i", {"from_header": True, "dots": True}),
    ("-ti", {"from_header": True, "dots": True}),
    ("-oi a@x", {"dots": True, "recipients": ["a@x"]}),
    ("-o i a@x", {"recipients": ["i", "a@x"]}),
    ("-oem -odb -oee -om -oQ/var/q -i -- -a@x", {"dots": True, "recipients": ["-a@x"]}),
    ("-f me@x a@x", {"sender": "me@x", "recipients": ["a@x"]}),
    ("-fme@x -FMe a@x", {"sender": "me@x", "name": "Me", "recipients": ["a@x"]}),
    ("-f <> a@x", {"sender": "", "recipients": ["a@x"]}),
    ("-r <me@x> a@x", {"sender": "me@x", "recipients": ["a@x"]}),
    ("-bm a@x", {"recipients": ["a@x"]}),
    ("-bs", {"mode": "smtp"}),
    ("-bp", {"mode": "list"}),
    ("-bi", {"mode": "nothing"}),
    ("-q", {"mode": "flush"}),
    ("-qf", {"mode": "flush"}),
    ("-qRexample.com -qSfred", {"mode": "flush", "which": {"recipient": "example.com", "sender": "fred"}}),
    ("-qI06M3", {"mode": "flush", "which": {"id": "06M3"}}),
    ("-N failure,delay a@x", {"notify": "DELAY,FAILURE", "recipients": ["a@x"]}),
    ("-R hdrs -V id1 a@x", {"ret": "HDRS", "envid": "id1", "recipients": ["a@x"]}),
    ("-B 8BITMIME -v -m -n -U -G -Am -h 5 -L x -d0.1 -X /dev/null -O a=b a@x", {"recipients": ["a@x"]}),
    ("-C /etc/t.toml a@x", {"config": "/etc/t.toml", "recipients": ["a@x"]}),
    ("--config t.toml a@x", {"config": "t.toml", "recipients": ["a@x"]}),
    ("--config=t.toml a@x", {"config": "t.toml", "recipients": ["a@x"]}),
    ("- a@x", {"recipients": ["-", "a@x"]}),
]


@pytest.mark.parametrize(("words", "wanted"), CALLS)
def test_calls(words: str, wanted: dict[str, object]) -> None:
    got = parse("sendmail", words.split())
    usual = Call(which={}, recipients=[])
    for name in Call.__struct_fields__:
        assert getattr(got, name) == wanted.get(name, getattr(usual, name)), name


@pytest.mark.parametrize(
    "words",
    ["-bd", "-bv a@x", "-bt", "-q30m", "-f", "--config", "-N often a@x", "-N never,delay a@x", "-R all a@x", "-bp a@x",
     "-bs a@x", "-q a@x", "-k", "-tk", "-qX"],
)  # fmt: skip
def test_what_is_not_done(words: str) -> None:
    with pytest.raises(UsageError):
        parse("sendmail", words.split())


def test_other_names() -> None:
    assert parse("mailq", []).mode == "list"
    assert parse("newaliases", []).mode == "nothing"


# --- line ends and dots ---


def by_lines(text: bytes, *, dots: bool) -> bytes:
    """The same, slowly."""
    made = b""
    while text:
        line, found, text = text.partition(b"\n")
        line = line.removesuffix(b"\r") if found else line
        if line == b"." and not dots:
            break
        made += line + b"\r\n"
    return made


@given(
    st.lists(st.sampled_from([b".", b"\r", b"\n", b"\r\n", b"a", b"..", b"\n.\n", b"\r\n.\r\n", b"x" * 10])),
    st.lists(st.integers(1, 5), max_size=40),
    st.booleans(),
)
def test_lines_however_they_come(parts: list[bytes], cuts: list[int], dots: bool) -> None:
    text = b"".join(parts)
    lines, made, at = Lines(dots=dots), b"", 0
    for cut in cuts:
        if text[at : at + cut]:
            made += lines.feed(text[at : at + cut])
        at += cut
    if text[at:]:
        made += lines.feed(text[at:])
    made += lines.feed(b"")
    assert lines.over
    assert made == by_lines(text, dots=dots)


def test_a_bare_cr_is_left_for_the_gateway_to_refuse() -> None:
    lines = Lines(dots=True)
    assert lines.feed(b"a\rb\r\r\nc") + lines.feed(b"") == b"a\rb\r\r\nc\r\n"


# --- the header ---

LETTER = (
    b"From: Fred <fred@truc.fr>\r\nTo: Marc <marc@machin.com>,\r\n \"Last, First\" <b@x>, friends: c@x, d@x;\r\n"
    b"Cc: e@x (home)\r\nBcc: secret@x\r\nSubject: s\r\n\r\nTo: not@x\r\n"
)


@given(st.integers(1, 400))
def test_a_header_however_it_comes(size: int) -> None:
    message, rest = Message(), b""
    for at in range(0, len(LETTER), size):
        piece = LETTER[at : at + size]
        if message.header is None:
            rest += message.rest if message.feed(piece) else b""
        else:
            rest += piece
    header = message.header
    assert header is not None
    assert header.octets() + rest == LETTER
    assert header.recipients() == ["marc@machin.com", "b@x", "c@x", "d@x", "e@x", "secret@x"]
    header.without(b"bcc", b"resent-bcc")
    assert b"secret" not in header.octets()
    assert header.has(b"from")
    assert not header.has(b"date")


def _header(text: bytes) -> tuple[Header, bytes]:
    message = Message()
    assert message.feed(text, last=True)
    assert message.header is not None
    return message.header, message.rest


def test_resent_fields_come_first() -> None:
    header, _ = _header(b"To: a@x\r\nResent-To: b@x\r\nResent-Bcc: c@x\r\n\r\n")
    assert header.recipients() == ["b@x", "c@x"]


@pytest.mark.parametrize(
    ("text", "header", "rest"),
    [
        (b"", b"", b"\r\n"),
        (b"\r\nbody\r\n", b"", b"\r\nbody\r\n"),
        (b"no header\r\n", b"", b"\r\nno header\r\n"),
        (b" folded what?\r\n", b"", b"\r\n folded what?\r\n"),
        (b"To: a@x\r\nand text\r\n", b"To: a@x\r\n", b"\r\nand text\r\n"),
        (b"To: a@x\r\n", b"To: a@x\r\n", b"\r\n"),
        (b"From fred Thu Nov 26\r\nTo: a@x\r\n\r\nx\r\n", b"To: a@x\r\n", b"\r\nx\r\n"),
        (b"To : a@x\r\n\tb\r\n\r\n", b"To : a@x\r\n\tb\r\n", b"\r\n"),
    ],
)
def test_where_the_header_ends(text: bytes, header: bytes, rest: bytes) -> None:
    found, left = _header(text)
    assert (found.octets(), left) == (header, rest)


def test_a_header_without_end() -> None:
    message, line = Message(), b"X: " + b"y" * 1000 + b"\r\n"
    for _ in range(HEADER_LIMIT // len(line)):
        assert not message.feed(line)
    with pytest.raises(MessageError):
        message.feed(line)
