"""IMAP's commands as octets: cut anywhere, too long, too deep, and what they mean"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.gateway.egress.imap import utf7
from tripost.gateway.egress.imap.commands import COMMANDS, Command, parse, streams
from tripost.gateway.egress.imap.reader import (
    COMMAND_LIMIT,
    EARLY_LIMIT,
    LINE_LIMIT,
    Announced,
    CommandReader,
    Data,
    Ended,
    Event,
    Line,
    Mistake,
    Whole,
)
from tripost.gateway.egress.imap.sets import compact, parse_set, places, spans
from tripost.gateway.egress.imap.values import Append, Fetch, Search, Select, Store


def events(pieces: list[bytes], *, logged_in: bool = True, refuse: str = "") -> list[Event]:
    """As a session takes them: messages are streamed, other literals kept."""
    reader, found = CommandReader(), []
    if logged_in:
        reader.log_in()
    for piece in pieces:
        reader.feed(piece)
        while (event := reader.next()) is not None:
            found.append(event)
            if not isinstance(event, Announced):
                continue
            if refuse:
                mistake = reader.refuse(refuse)
                found += [mistake] if mistake is not None else []
            elif streams(event):
                reader.stream()
            elif len(reader) + event.size > reader.limit:
                mistake = reader.refuse("BAD too large")
                found += [mistake] if mistake is not None else []
            else:
                reader.keep()
        assert len(reader) <= reader.limit + len(piece) + 100
    return found


def joined(found: list[Event]) -> list[Event]:
    """With the pieces of a streamed literal in one."""
    whole: list[Event] = []
    for one in found:
        if isinstance(one, Data) and whole and isinstance(whole[-1], Data):
            whole[-1] = Data(whole[-1].octets + one.octets)
        else:
            whole.append(one)
    return whole


def read(text: bytes, state: str = "s") -> Command | Mistake:
    return parse(text, state)


TEXT = (
    b"a1 LOGIN {4}\r\nmarc {6+}\r\nsec\r\nt\r\na2 NOOP\r\na3 APPEND INBOX (\\Seen) {5}\r\nhello\r\n"
    b"a4 APPEND {5}\r\nINBOX {0+}\r\n (\\Draft) ~{3+}\r\n\0\r\n\r\na5 SEARCH TEXT {3}\r\nabc BODY {2}\r\n\r\n\r\n"
)


def test_literals() -> None:
    found = joined(events([TEXT]))
    whole = [one.text for one in found if isinstance(one, Whole)]
    assert whole == [
        b"a1 LOGIN {4}\r\nmarc {6}\r\nsec\r\nt",
        b"a2 NOOP",
        b"a3 APPEND INBOX (\\Seen) \x000\x00",
        b"a4 APPEND {5}\r\nINBOX \x000\x00 (\\Draft) \x001\x00",
        b"a5 SEARCH TEXT {3}\r\nabc BODY {2}\r\n\r\n",
    ]
    assert [one.octets for one in found if isinstance(one, Data)] == [b"hello", b"\0\r\n"]
    assert found.count(Ended()) == 3
    assert isinstance(parse(whole[3], "a"), Command)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 20])
def test_cuts_do_not_matter_for_literals(step: int) -> None:
    pieces = [TEXT[at : at + step] for at in range(0, len(TEXT), step)]
    assert joined(events(pieces)) == joined(events([TEXT]))


def test_what_is_refused_is_read_to_its_end() -> None:
    found = events([b"a LOGIN {9+}\r\nx NOOP\r\ny {2+}\r\nzz\r\nb NOOP\r\nc LOGIN {9}\r\nd NOOP\r\n"], refuse="BAD no")
    assert [one for one in found if not isinstance(one, Announced)] == [
        Mistake("a", "BAD no"),
        Whole(b"b NOOP"),
        Mistake("c", "BAD no"),
        Whole(b"d NOOP"),
    ]


def test_lines_have_a_limit_and_the_next_command_is_one() -> None:
    for logged_in, limit in ((True, LINE_LIMIT), (False, EARLY_LIMIT)):
        good = b"a NOOP " + b"x" * (limit - 7)
        assert events([good + b"\r\n"], logged_in=logged_in) == [Whole(good)]
        for step in (1000, 3 * limit):
            data = good + b"x\r\nb NOOP\r\n"
            found = events([data[at : at + step] for at in range(0, len(data), step)], logged_in=logged_in)
            assert found == [Mistake("a", f"BAD line longer than {limit} octets"), Whole(b"b NOOP")]
    long = b"a NOOP " + b"x" * 200_000 + b" {9+}\r\nz NOOP\r\n \r\nb NOOP\r\n"
    for step in (7, 70_000, len(long)):
        found = events([long[at : at + step] for at in range(0, len(long), step)])
        assert found == [Mistake("a", f"BAD line longer than {LINE_LIMIT} octets"), Whole(b"b NOOP")]


def test_literals_are_counted() -> None:
    found = events([b"a SEARCH " + b"{1+}\r\nx " * 1001 + b"\r\nb NOOP\r\n"])
    assert [one for one in found if not isinstance(one, Announced)] == [
        Mistake("a", "BAD more than 1000 literals"),
        Whole(b"b NOOP"),
    ]
    big = COMMAND_LIMIT // 2
    found = events([b"a SEARCH {%d+}\r\n" % big + b"x" * big + b" {%d+}\r\n" % big + b"y" * big + b"\r\nb NOOP\r\n"])
    assert found[-2:] == [Mistake("a", "BAD too large"), Whole(b"b NOOP")]


def test_raw_lines() -> None:
    reader = CommandReader()
    reader.raw = True
    reader.feed(b"DONE\r\n{3}\r\nx\ny\r\n" + b"A" * 13_000 + b"\r\n")
    assert [reader.next() for _ in range(5)] == [
        Line(b"DONE"),
        Line(b"{3}"),
        Mistake("x", "BAD bare LF; lines end in CRLF"),
        Line(b"y"),
        Mistake("*", "BAD line longer than 12288 octets"),
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "a command is"),
        (b"a", "a command is"),
        (b"a+b NOOP", "a command is"),
        (b"a XYZZY", "unknown command"),
        (b"a UID NOOP", "unknown command"),
        (b"a NOOP x", "nothing may follow"),
        (b"a FETCH 1 (FLAGS", "space"),
        (b"a FETCH 0 FLAGS", "set"),
        (b"a FETCH 1:2:3 FLAGS", "set"),
        (b"a FETCH 1 BODY[1.]", "dot"),
        (b"a FETCH 1 BODY[MIME]", "section"),
        (b"a FETCH 1 BODY[]<0.0>", "partial"),
        (b"a FETCH 1 (FLAGS) (VANISHED)", "modifier"),
        (b"a STORE 1 FLAGS (\\Recent)", "cannot be set"),
        (b"a SEARCH " + b"(" * 10_000 + b"ALL" + b")" * 10_000, "deeper"),
        (b"a SEARCH " + b"NOT " * 10_000 + b"ALL", "deeper"),
        (b"a SEARCH " + b"OR ALL " * 10_000 + b"ALL", "deeper"),
        (b"a SEARCH " + b"ALL " * 600 + b"ALL", "more than 500"),
        (b"a SEARCH ON 31-Feb-2026", "no such date"),
        (b"a FETCH 1 (" + b"FLAGS " * 200 + b"FLAGS)", "more than 100"),
        (b"a FETCH 1 " + b"(" * 10_000, "item"),
        (b'a LIST (RECURSIVEMATCH) "" *', "RECURSIVEMATCH"),
        (b'a LOGIN "x', "has no end"),
        (b"a SELECT INBOX (QRESYNC (1 1 (1:3 4:6) 1)", "expected"),
        (b'a APPEND INBOX (\\Seen) "31-Feb-2026 00:00:00 +0000" \x000\x00', "no such date"),
    ],
)
def test_mistakes_say_what_is_wrong(line: bytes, why: str) -> None:
    state = "n" if b"LOGIN" in line else "s"
    found = read(line, state)
    assert isinstance(found, Mistake)
    assert found.text.startswith("BAD ")
    assert why in found.text


def test_states() -> None:
    assert read(b"a SELECT INBOX", "n") == Mistake("a", "BAD SELECT only after the login")
    assert read(b"a LOGIN a b", "a") == Mistake("a", "BAD LOGIN only before the login")
    assert read(b"a FETCH 1 FLAGS", "a") == Mistake("a", "BAD FETCH only in a selected mailbox")


def test_arguments() -> None:
    fetch = read(b'a UID FETCH 1:*,7 (FLAGS BODY.PEEK[1.2.HEADER.FIELDS (To "a b")]<5.9>) (CHANGEDSINCE 7 VANISHED)')
    assert isinstance(fetch, Command)
    assert isinstance(fetch.args, Fetch)
    assert (fetch.args.since, fetch.args.vanished, fetch.args.set.ranges) == (7, True, ((1, 0), (7, 7)))
    item = fetch.args.items[1]
    assert item.label == b'BODY[1.2.HEADER.FIELDS (To "a b")]<5>'
    assert (item.path, item.part, item.first, item.count, item.peek) == ((1, 2), "HEADER.FIELDS", 5, 9, True)
    store = read(b"a STORE 2,4 (UNCHANGEDSINCE 3) -flags.silent (\\seen $Junk)")
    assert isinstance(store, Command)
    assert isinstance(store.args, Store)
    assert (store.args.how, store.args.silent, store.args.flags) == ("-", True, ("\\Seen", "$Junk"))
    search = read(b"a SEARCH RETURN () CHARSET UTF-8 OR (FROM x NOT SEEN) 1:3")
    assert isinstance(search, Command)
    assert isinstance(search.args, Search)
    assert search.args.returns == frozenset({"ALL"})
    select = read(b"a SELECT INBOX (CONDSTORE QRESYNC (67 20 1:9 (1:3 4:6)))")
    assert isinstance(select, Command)
    assert isinstance(select.args, Select)
    assert select.args.known is not None
    assert select.args.known[:2] == (67, 20)
    append = read(b'a APPEND x (\\Draft $A) "17-Jul-1996 02:44:25 -0700" UTF8 (\x000\x00) \x001\x00')
    assert isinstance(append, Command)
    assert isinstance(append.args, Append)
    assert [(one.literal, one.flags, one.date, one.utf8) for one in append.args.messages] == [
        (0, ("\\Draft", "$A"), 837_596_665, True),
        (1, (), None, False),
    ]
    assert read(b"a SEARCH CHARSET KOI7 ALL").text.startswith("NO [BADCHARSET (")  # type: ignore[union-attr]


def test_sets() -> None:
    wanted = parse_set(b"4:2,7,*,100:*")
    assert wanted is not None
    assert spans(wanted, 9) == [(2, 4), (7, 7), (9, 100)]
    assert places([1, 3, 4, 8, 9], spans(wanted, 9)) == [1, 2, 4]
    assert compact([1, 2, 3, 5, 8, 9]) == "1:3,5,8:9"
    assert compact([]) == ""
    for bad in (b"", b"0", b"1:", b"1,,2", b"4294967296", b"1:x", b"1," * 20_001 + b"1"):
        assert parse_set(bad) is None


@pytest.mark.parametrize(
    ("octets", "name"),
    [
        (b"inbox", "INBOX"),
        (b"inbox.a", "INBOX.a"),
        (b"Entw&APw-rfe", "Entwürfe"),
        (b"A&-B", "A&B"),
        ("Entwürfe".encode(), "Entwürfe"),
        (b"&2D3eAA-", "😀"),
    ],
)
def test_names(octets: bytes, name: str) -> None:
    assert utf7.check_name(utf7.read_name(octets, utf8=False)) == name


@pytest.mark.parametrize(
    "octets",
    [
        b"&AG-",
        b"&",
        b"&!-",
        b"&AAA-",
        b"&2D0-",
        b"a.&AC8-",
        b"../x",
        b"a/b",
        b"..",
        ".",
        b"a..b",
        b"",
        b"a.",
        b"\xff",
        b"a" * 201,
        b".".join([b"x"] * 17),
        b"a%",
        b"&AAo-",
    ],
)
def test_names_that_are_none(octets: bytes) -> None:
    with pytest.raises(utf7.BadName):
        utf7.check_name(utf7.read_name(octets if isinstance(octets, bytes) else octets.encode(), utf8=False))


@given(st.text(max_size=40))
def test_every_name_has_one_spelling(name: str) -> None:
    try:
        checked = utf7.check_name(name)
    except utf7.BadName:
        return
    assert utf7.decode(utf7.encode(checked)) == checked
    assert "/" not in utf7.encode(checked)


WORDS = st.sampled_from(
    [
        *(name.encode() for name in COMMANDS),
        b"(",
        b")",
        b"{3}\r\nabc",
        b"{3+}\r\nabc",
        b"~{2+}\r\n\x00\x00",
        b"{99999+}\r\n",
        b'"x y"',
        b"1:*",
        b"$",
        b"\\Seen",
        b"BODY[",
        b"]",
        b"<0.5>",
        b"INBOX",
        b"(QRESYNC (1 2",
        b"RETURN (",
        b"\r\n",
        b"\n",
        b"\r",
        b"\x00",
        b" ",
        b"*",
        b"%",
        b"\xff",
        b"x" * 300,
        b"HEADER.FIELDS (",
        b"{9}\r\n",
        b"UTF8 (",
        b"NIL",
    ]
)
COMMAND = st.lists(WORDS | st.binary(max_size=8), max_size=8).map(lambda words: b"t " + b" ".join(words) + b"\r\n")


@given(st.lists(COMMAND, max_size=5).map(b"".join), st.integers(1, 30), st.booleans(), st.sampled_from("nas"))
def test_whatever_comes_is_a_command_or_a_mistake(data: bytes, step: int, logged_in: bool, state: str) -> None:
    whole = joined(events([data], logged_in=logged_in))
    assert joined(events([data[at : at + step] for at in range(0, len(data), step)], logged_in=logged_in)) == whole
    assert joined(events([data[at : at + 1] for at in range(len(data))], logged_in=logged_in)) == whole
    for one in whole:
        if isinstance(one, Whole):
            found = parse(one.text, state)
            assert isinstance(found, Command | Mistake)
            if isinstance(found, Mistake):
                assert found.text.startswith(("BAD ", "NO "))
                assert "\r" not in found.text
                assert "\n" not in found.text
