"""SMTP's grammar, cut at every octet"""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.delivery.wire.addresses import AddressError, ascii_form, parse_address, parse_path, split
from tripost.delivery.wire.dots import ChunkReader, DotReader, DotStuffer
from tripost.delivery.wire.lines import LineReader, Trouble
from tripost.delivery.wire.parameters import (
    MailParameters,
    ParameterError,
    RcptParameters,
    from_xtext,
    is_xtext,
    mail_parameters,
    rcpt_parameters,
)
from tripost.delivery.wire.replies import Reply, ReplyError, ReplyReader
from tripost.queue.message import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS

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


@given(NOISE, CUTS)
def test_normalizing_leaves_only_crlf_and_hides_no_end(data: bytes, cuts: list[int]) -> None:
    strict, kind = DotReader(), DotReader(normalize=True)
    wire = data + b"\r\n.\r\n"
    plain = strict.feed(wire)
    got = b"".join(kind.feed(piece) for piece in _pieces(wire, cuts) if not kind.done)
    assert kind.done
    assert got == re.sub(rb"\r\n|\r|\n", b"\r\n", plain)
    assert kind.bare == strict.bare


@given(NOISE, CUTS, st.booleans(), st.booleans())
def test_chunks_do_not_depend_on_the_cuts(data: bytes, cuts: list[int], binary: bool, normalize: bool) -> None:
    reader, got = ChunkReader(binary=binary, normalize=normalize), []
    for piece in _pieces(data, cuts):
        got.append(reader.feed(piece, last=False))
        assert not got[-1].endswith(b"\r") or data.count(b"\r") > data.count(b"\r\n")
    got.append(reader.feed(b"", last=True))
    whole = b"".join(got)
    rest = data.replace(b"\r\n", b"")
    bare = not binary and (b"\r" in rest or b"\n" in rest)
    assert reader.bare == bare
    assert whole == (re.sub(rb"\r\n|\r|\n", b"\r\n", data) if bare and normalize else data)


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
        ('<"a@b\\"c"@d.example>', '"a@b\\"c"@d.example', ""),
        ("<a@xn--bcher-kva.example>", "a@xn--bcher-kva.example", ""),
        ("<x@B_c.example> BODY=7BIT", "x@b_c.example", " BODY=7BIT"),
        (f"<{'a' * 64}@b.example>", f"{'a' * 64}@b.example", ""),
    ],
)
def test_paths(text: str, address: str, rest: str) -> None:
    assert parse_path(text) == (address, rest)
    assert parse_path(text, utf8=True) == (address, rest)


@pytest.mark.parametrize(
    ("text", "kept", "routed"),
    [
        ("<a@Bücher.example>", "a@bücher.example", "a@xn--bcher-kva.example"),
        ("<a@bu\u0308cher.example>", "a@bücher.example", "a@xn--bcher-kva.example"),
        ("<δοκιμή@straße.example>", "δοκιμή@straße.example", "δοκιμή@xn--strae-oqa.example"),
        ('<"é "@b.example>', '"é "@b.example', '"é "@b.example'),
        ("<é.ü@b.example>", "é.ü@b.example", "é.ü@b.example"),
    ],
)
def test_internationalised_paths(text: str, kept: str, routed: str) -> None:
    assert parse_path(text, utf8=True) == (kept, "")
    assert ascii_form(kept) == routed
    with pytest.raises(AddressError) as info:
        parse_path(text)
    assert info.value.enhanced == "5.6.7"


@pytest.mark.parametrize(
    "text",
    ["<é\x85@b.example>", "<é\u200e@b.example>", "<é..ü@b.example>", "<a@é..example>", f"<{'é' * 33}@b.example>"],
)
def test_what_is_no_internationalised_path(text: str) -> None:
    with pytest.raises(AddressError):
        parse_path(text, utf8=True)


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


def test_addresses_of_the_configuration_are_kept_in_ascii() -> None:
    assert parse_address("Marc@Bücher.example") == "Marc@xn--bcher-kva.example"
    with pytest.raises(AddressError):
        parse_address("é@b.example")


@given(st.text(max_size=80), st.booleans())
def test_paths_never_surprise(text: str, utf8: bool) -> None:
    try:
        address, _ = parse_path(f"<{text}>", utf8=utf8)
    except AddressError:
        return
    assert utf8 or address.isascii()
    assert parse_path(f"<{address}>", utf8=utf8) == (address, "")
    ascii_form(address)


ALL = frozenset(
    {"SIZE", "8BITMIME", "BINARYMIME", "SMTPUTF8", "DSN", "AUTH", "REQUIRETLS", "DELIVERBY", "FUTURERELEASE"}
    | {"MT-PRIORITY"}
)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", {}),
        (" SIZE=12 body=8bitmime", {"size": 12, "body": "8BITMIME"}),
        ("  BODY=7BIT ", {"body": "7BIT"}),
        (" BODY=BINARYMIME", {"body": "BINARYMIME"}),
        (" SMTPUTF8", {"smtputf8": True}),
        (" RET=hdrs ENVID=a+2Bb", {"ret": "HDRS", "envid": "a+2Bb"}),
        (" AUTH=<>", {"auth": "<>"}),
        (" AUTH=e+3Dmc2@example.com", {"auth": "e=mc2@example.com"}),
        (" REQUIRETLS", {"require_tls": True}),
        (" BY=120;R", {"by": 120, "by_mode": "R"}),
        (" BY=-5;nt", {"by": -5, "by_mode": "NT"}),
        (" BY=+999999999;RT", {"by": 999_999_999, "by_mode": "RT"}),
        (" HOLDFOR=60", {"hold_for": 60}),
        (" HOLDUNTIL=2030-01-31T08:00:00Z", {"hold_until": 1_896_076_800.0}),
        (" HOLDUNTIL=2030-01-31T08:00:00.5+01:00", {"hold_until": 1_896_073_200.5}),
        (" HOLDUNTIL=2016-12-31T23:59:60Z", {"hold_until": 1_483_228_799.0}),
        (" MT-PRIORITY=-9", {"priority": -9}),
        (" MT-PRIORITY=3", {"priority": 3}),
    ],
)
def test_parameters_of_mail(text: str, fields: dict[str, object]) -> None:
    assert mail_parameters(text, ALL) == MailParameters(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SIZE=1", 501),
        (" SIZE=x", 501),
        (" SIZE", 501),
        (" SIZE=1 SIZE=1", 501),
        (" SIZE=" + "9" * 21, 501),
        (" SIZE=١", 501),
        (" BODY=9", 501),
        (" SMTPUTF8=yes", 501),
        (" RET=ALL", 501),
        (" RET=FULL RET=FULL", 501),
        (" ENVID=" + "x" * 101, 501),
        (" ENVID=a+0Ab", 501),
        (" ENVID=a+2", 501),
        (" ENVID=", 501),
        (" AUTH=", 501),
        (" AUTH=nobody", 501),
        (" REQUIRETLS=1", 501),
        (" BY=0;R", 501),
        (" BY=-1;R", 501),
        (" BY=12", 501),
        (" BY=1234567890;N", 501),
        (" BY=12;X", 501),
        (" HOLDFOR=-1", 501),
        (" HOLDFOR=1234567890", 501),
        (" HOLDFOR=1 HOLDUNTIL=2030-01-31T08:00:00Z", 501),
        (" HOLDUNTIL=2030-02-31T08:00:00Z", 501),
        (" HOLDUNTIL=2030-01-31", 501),
        (" MT-PRIORITY=10", 501),
        (" MT-PRIORITY=+1", 501),
        (" FOO=1", 555),
        (" NOTIFY=NEVER", 555),
        (" =1", 501),
        (" A=b=c", 501),
        (" SIZE=1\tBODY=7BIT", 501),
    ],
)
def test_parameters_that_are_none(text: str, code: int) -> None:
    with pytest.raises(ParameterError) as info:
        mail_parameters(text, ALL)
    assert (info.value.code, info.value.enhanced) == (code, "5.5.4")


@pytest.mark.parametrize(
    "text",
    [
        " SIZE=1",
        " BODY=7BIT",
        " SMTPUTF8",
        " RET=FULL",
        " ENVID=x",
        " AUTH=<>",
        " REQUIRETLS",
        " BY=1;R",
        " HOLDFOR=1",
        " MT-PRIORITY=1",
    ],
)
def test_parameters_are_understood_where_their_extension_is_offered(text: str) -> None:
    mail_parameters(text, ALL)
    with pytest.raises(ParameterError) as info:
        mail_parameters(text, frozenset())
    assert info.value.code == 555


def test_binary_needs_its_own_keyword() -> None:
    with pytest.raises(ParameterError) as info:
        mail_parameters(" BODY=BINARYMIME", frozenset({"8BITMIME"}))
    assert info.value.code == 555


@pytest.mark.parametrize(
    ("text", "utf8", "fields"),
    [
        ("", False, {}),
        (" NOTIFY=NEVER", False, {"notify": NOTIFY_NEVER}),
        (" NOTIFY=success,DELAY", False, {"notify": NOTIFY_SUCCESS | NOTIFY_DELAY}),
        (" NOTIFY=FAILURE,FAILURE", False, {"notify": NOTIFY_FAILURE}),
        (" ORCPT=rfc822;a+2Bb@c.example", False, {"orcpt": "rfc822;a+2Bb@c.example"}),
        (" ORCPT=utf-8;é@c.example", True, {"orcpt": "utf-8;é@c.example"}),
    ],
)
def test_parameters_of_rcpt(text: str, utf8: bool, fields: dict[str, object]) -> None:
    assert rcpt_parameters(text, ALL, utf8=utf8) == RcptParameters(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        " NOTIFY=NEVER,DELAY",
        " NOTIFY=",
        " NOTIFY",
        " NOTIFY=SOON",
        " ORCPT=a@b",
        " ORCPT=;a",
        " ORCPT=rfc822;",
        " ORCPT=rfc822;" + "x" * 500,
        " ORCPT=rfc822;a+zz",
        " ORCPT=rfc822;é",
        " ORCPT=utf-8;é@c.example",
        " SIZE=1",
    ],
)
def test_parameters_of_rcpt_that_are_none(text: str) -> None:
    with pytest.raises(ParameterError):
        rcpt_parameters(text, ALL)


def test_xtext() -> None:
    assert from_xtext("a+2Bb+3D+C3+A9") == "a+b=é"
    assert from_xtext("+FF") == "\ufffd"
    assert is_xtext("a+2Bb")
    assert not any(is_xtext(text) for text in ("a+2b", "a b", "a=", "a+", "é"))
