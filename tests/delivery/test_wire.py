"""SMTP's grammar, cut at every octet"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.delivery.wire.addresses import AddressError, parse_address, parse_path, split
from tripost.delivery.wire.dots import DotReader, DotStuffer
from tripost.delivery.wire.lines import LineReader, Trouble
from tripost.delivery.wire.parameters import MailParameters, ParameterError, mail_parameters, rcpt_parameters
from tripost.delivery.wire.replies import Reply, ReplyError, ReplyReader

CUTS = st.lists(st.integers(0, 200), max_size=12)
NOISE = st.lists(st.sampled_from([b"\r", b"\n", b".", b"x", b"\r\n", b"\r\n.", b"\0"]), max_size=30).map(b"".join)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


def _lines(pieces: list[bytes], limit: int = 20) -> list[bytes | Trouble]:
    reader, found = LineReader(limit), []
    for piece in pieces:
        reader.feed(piece)
        while (one := reader.next()) is not None:
            found.append(one)
    return found


@given(NOISE, CUTS)
def test_lines_do_not_depend_on_the_cuts(data: bytes, cuts: list[int]) -> None:
    whole = _lines([data])
    assert _lines(_pieces(data, cuts)) == whole
    assert _lines([data[n : n + 1] for n in range(len(data))]) == whole


def test_lines() -> None:
    assert _lines([b"a\r\n\r\nb\r\nc"]) == [b"a", b"", b"b"]
    assert _lines([b"a\nb\r\n"]) == [Trouble.BARE_NEWLINE, b"b"]
    assert _lines([b"a\rb\r\n"]) == [Trouble.BARE_NEWLINE, b"b"]
    assert _lines([b"x" * 18 + b"\r\n" + b"y" * 19 + b"\r\nz\r\n"]) == [b"x" * 18, Trouble.TOO_LONG, b"z"]
    assert _lines([b"x" * 100, b"x" * 100, b"\r\nz\r\n"]) == [Trouble.TOO_LONG, b"z"]


def _read(pieces: list[bytes]) -> tuple[bytes, bool, bytes, bool]:
    reader, content, rest = DotReader(), b"", b""
    for piece in pieces:
        if reader.done:
            rest += piece
        else:
            content += reader.feed(piece)
            rest = reader.rest
    return content, reader.done, rest, reader.bare


@given(NOISE, CUTS)
def test_data_does_not_depend_on_the_cuts(data: bytes, cuts: list[int]) -> None:
    data += b"\r\n.\r\nrest"
    whole = _read([data])
    assert whole[1]
    assert _read(_pieces(data, cuts)) == whole
    assert _read([data[n : n + 1] for n in range(len(data))]) == whole


@given(st.lists(st.sampled_from([b".", b"x", b"\r\n", b"..", b"\0"]), max_size=30).map(b"".join), CUTS, CUTS)
def test_stuffing_and_back(content: bytes, cuts: list[int], more: list[int]) -> None:
    stuffer = DotStuffer()
    wire = b"".join(stuffer.feed(piece) for piece in _pieces(content, cuts)) + stuffer.finish()
    got, done, rest, bare = _read(_pieces(wire, more))
    assert got == content if content.endswith(b"\r\n") or not content else got == content + b"\r\n"
    assert (done, rest, bare) == (True, b"", False)


@pytest.mark.parametrize(
    "end", [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n"]
)
def test_only_crlf_dot_crlf_ends_data(end: bytes) -> None:
    _, done, _, _ = _read([b"text" + end + b"more"])
    assert not done


def _replies(data: bytes) -> list[Reply]:
    reader, found = ReplyReader(), []
    for n in range(len(data)):
        reader.feed(data[n : n + 1])
        while (one := reader.next()) is not None:
            found.append(one)
    return found


def test_replies() -> None:
    made = Reply(250, "2.1.0", ("one", "two"))
    assert made.encode() == b"250-2.1.0 one\r\n250 2.1.0 two\r\n"
    assert _replies(made.encode() + b"354 go\r\n250\r\n") == [made, Reply(354, "", ("go",)), Reply(250, "", ("",))]
    assert str(made) == "250 2.1.0 one two"
    assert _replies(b"550 4.1.1 no\r\n")[0].enhanced == ""  # a class that is not the code's
    assert _replies(b"250 a\x1b[2Jb\r\n")[0].text == "a?[2Jb"


@pytest.mark.parametrize("data", [b"hello\r\n", b"250-a\r\n251 b\r\n", b"650 x\r\n", b"x" * 5000, b"250-a\r\n" * 200])
def test_what_is_no_reply(data: bytes) -> None:
    reader = ReplyReader()
    reader.feed(data)
    with pytest.raises(ReplyError):
        list(iter(reader.next, None))


@pytest.mark.parametrize(
    ("text", "address", "rest"),
    [
        ("<a@B.Example>", "a@b.example", ""),
        ("<a+b@b.example> SIZE=1", "a+b@b.example", " SIZE=1"),
        ('<"a >b"@b.example>', '"a >b"@b.example', ""),
        ("<@x.example,@y.example:a@b.example>", "a@b.example", ""),
        ("<a@[127.0.0.1]>", "a@[127.0.0.1]", ""),
        ("<a@[IPv6:::1]>", "a@[IPv6:::1]", ""),
        ("<Postmaster>", "postmaster", ""),
        ("<a@bücher.example>", "a@xn--bcher-kva.example", ""),
    ],
)
def test_paths(text: str, address: str, rest: str) -> None:
    assert parse_path(text) == (address, rest)


@pytest.mark.parametrize(
    "text",
    [
        "a@b",
        "<a@b",
        "<>",
        "<a>",
        "<a@>",
        "<@b>",
        "<a b@c>",
        "<a@b..c>",
        "<a@-b>",
        "<.a@b>",
        "<a@[1.2.3]>",
        "<a@[1.2.3.4>",
        "<é@b.example>",
        f"<{'a' * 65}@b>",
        f"<a@{'b' * 64}>",
        f"<a@{'b.' * 130}c>",
        "<a@b\x00>",
    ],
)
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(AddressError):
        parse_path(text)


def test_null_path_and_parts() -> None:
    assert parse_path("<> BODY=7BIT", null=True) == ("", " BODY=7BIT")
    assert split("a@b@c") == ("a@b", "c")
    assert split("postmaster") == ("postmaster", "")
    with pytest.raises(AddressError):
        parse_address("nobody")


@given(st.text(max_size=80))
def test_paths_never_surprise(text: str) -> None:
    try:
        parse_path(f"<{text}>")
    except AddressError:
        pass


def test_parameters() -> None:
    assert mail_parameters("") == MailParameters()
    assert mail_parameters(" SIZE=12 body=8bitmime") == MailParameters(12, True)
    for text, code in [(" SIZE=x", 501), (" SIZE", 501), (" BODY=9", 501), (" FOO=1", 555), ("SIZE=1", 501)]:
        with pytest.raises(ParameterError) as info:
            mail_parameters(text)
        assert info.value.code == code
    with pytest.raises(ParameterError):
        mail_parameters(" SIZE=1 SIZE=1")
    with pytest.raises(ParameterError):
        rcpt_parameters(" NOTIFY=NEVER")
