"""the server's protocol: whatever comes, however it is cut"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.smtp_play import OPEN, Player, cuts, play
from tripost.gateway.ingress.smtp_states import PLACES, State
from tripost.gateway.ingress.terms import Terms, offers

PLAIN = Terms(hostname="h", message_size=1000, recipients=10)
LMTP = msgspec.structs.replace(OPEN, profile="lmtp")
START = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"


def replies(data: bytes, terms: Terms = OPEN, **more: object) -> list[str]:
    """Code and enhanced code of each reply behind the greeting."""
    log = play([data], terms, **more).log[1:]
    lines = [one.split("\r\n")[-2] for one in log if one.endswith("\r\n")]
    return [line[:9] if line[4:5] in "245" and line[5:6] == "." else line[:3] for line in lines]


# --- the order of commands ---


@pytest.mark.parametrize(
    ("text", "last"),
    [
        (b"MAIL FROM:<a@b.example>\r\n", "503 5.5.1"),
        (b"BDAT 3\r\nabc", "503 5.5.1"),
        (b"EHLO x\r\nBDAT 3\r\nabc", "503 5.5.1"),
        (b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nBDAT 3\r\nabc", "554 5.5.1"),
        (b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nDATA\r\n", "554 5.5.1"),
        (START + b"MAIL FROM:<a@b.example>\r\n", "503 5.5.1"),
        (START + b"STARTTLS\r\n", "503 5.5.1"),
        (START + b"AUTH PLAIN\r\n", "503 5.5.1"),
        (START + b"XCLIENT NAME=x\r\n", "503 5.5.1"),
        (START + b"BDAT 3\r\nabcDATA\r\n", "503 5.5.1"),
        (START + b"BDAT 3\r\nabcRCPT TO:<c@d.example>\r\n", "503 5.5.1"),
        (START + b"BDAT 3\r\nabcMAIL FROM:<c@d.example>\r\n", "503 5.5.1"),
        (b"HELO x\r\nSTARTTLS\r\n", "503 5.5.1"),
        (b"HELO x\r\nAUTH PLAIN\r\n", "503 5.5.1"),
        (b"HELO x\r\nMAIL FROM:<a@b.example> SIZE=1\r\n", "555 5.5.4"),
        (b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 1\r\nx", "503 5.5.1"),
        (b"LHLO x\r\n", "500 5.5.1"),
    ],
)
def test_commands_out_of_place(text: bytes, last: str) -> None:
    assert replies(text + b"NOOP\r\n")[-2:] == [last, "250 2.0.0"]


def test_every_command_has_its_place_and_a_reply_everywhere_else() -> None:
    reached = {
        State.START: b"",
        State.READY: b"EHLO x\r\n",
        State.SENDER: b"EHLO x\r\nMAIL FROM:<>\r\n",
        State.RECIPIENTS: START,
        State.CHUNKS: START + b"BDAT 1\r\nx",
        State.BROKEN: START + b"BDAT 1001\r\n" + b"x" * 1001,
    }
    for state, before in reached.items():
        for verb in PLACES:
            refuse = [4] if state is State.BROKEN else []
            player = play([before], refuse=refuse)
            assert player.protocol.state is state
            count = len(player.log)
            player.feed(verb.encode() + b" 1\r\nx")
            answers = [one for one in player.log[count:] if one.endswith("\r\n")]
            assert len(answers) == 1 or verb in ("NOOP", "HELP"), (state, verb, player.log)


# --- BDAT ---


def test_chunks_become_one_message() -> None:
    text = START + b"BDAT 6\r\nab\r\n.\rBDAT 5\r\n\n\r\n.\nBDAT 0 LAST\r\nNOOP\r\n"
    for step in (1, 2, 3, 5, len(text)):
        player = play(cuts(text, step))
        assert player.messages == [b"ab\r\n.\r\n\r\n.\n"]
        assert player.log[-1].startswith("250 2.0.0")
        assert "bare=True" in "".join(player.log)


def test_binary_chunks_are_what_they_are() -> None:
    text = START.replace(b"<a@b.example>", b"<a@b.example> BODY=BINARYMIME") + b"BDAT 4\r\n\n\0\r\rBDAT 1 last\r\n\n"
    player = play(cuts(text, 1))
    assert player.messages == [b"\n\0\r\r\n"]
    assert "bare=False" in "".join(player.log)


def test_data_is_not_for_binary() -> None:
    text = START.replace(b"<a@b.example>", b"<a@b.example> BODY=BINARYMIME") + b"DATA\r\n"
    assert replies(text)[-1] == "503 5.5.1"


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_refused_chunk_takes_its_octets_and_those_that_follow(step: int) -> None:
    text = START + b"BDAT 7\r\nQUIT\r\n.BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"
    player = play(cuts(text, step), refuse=[4])
    assert [one[:9] for one in player.log if one.endswith("\r\n")][-4:] == ["451 4.3.0"] * 3 + ["250 2.0.0"]
    assert not player.messages
    assert player.protocol.state is State.READY


def test_after_a_refused_chunk_a_new_message_can_begin() -> None:
    message = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 2 LAST\r\nok"
    for between in (b"", b"RSET\r\n", b"EHLO y\r\n"):
        player = play([START + b"BDAT 3\r\nabc" + between + message], refuse=[4])
        assert player.messages == [b"ok"], between


@pytest.mark.parametrize("text", [b"BDAT", b"BDAT x", b"BDAT 1 FIRST", b"BDAT -1", b"BDAT 1 LAST x"])
def test_a_chunk_of_unknown_size_ends_the_session(text: bytes) -> None:
    player = play([START + text + b"\r\nQUIT\r\n"])
    assert player.closed
    assert player.log[-1].startswith("501 5.5.4")


def test_a_chunk_too_large_to_be_skipped_ends_the_session() -> None:
    player = play([START + b"BDAT 9999999999999999999 LAST\r\n"])
    assert player.closed
    assert player.log[-1].startswith("552 5.3.4")


# --- what EHLO says ---


def offered(terms: Terms) -> set[str]:
    return set(offers(terms))


BASE = {"PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "CHUNKING", "BINARYMIME", "DSN"}
BASE |= {"DELIVERBY", "LIMITS"}


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({}, set()),
        ({"starttls": True}, {"STARTTLS"}),
        ({"starttls": True, "secured": True}, {"REQUIRETLS"}),
        ({"mechanisms": ("PLAIN",)}, {"AUTH"}),
        ({"mechanisms": ("PLAIN",), "authenticated": True, "trusted": True}, {"MT-PRIORITY"}),
        ({"trusted": True, "hold_most": 9, "hold_until": "x"}, {"MT-PRIORITY", "FUTURERELEASE"}),
        ({"xclient": True}, {"XCLIENT", "XFORWARD"}),
    ],
)
def test_a_keyword_is_announced_exactly_when_it_can_be_used(changes: dict[str, object], more: set[str]) -> None:
    terms = msgspec.structs.replace(PLAIN, **changes)
    assert offered(terms) == BASE | more
    lines = play([b"EHLO x\r\n"], terms).log[-1].split("\r\n")[:-1]
    assert {line[4:].split(" ")[0] for line in lines[1:]} == BASE | more


USES = {
    "STARTTLS": (b"STARTTLS\r\n", "502 5.5.1"),
    "AUTH": (b"AUTH PLAIN AGEAYg==\r\n", "502 5.5.1"),
    "REQUIRETLS": (b"MAIL FROM:<> REQUIRETLS\r\n", "555 5.5.4"),
    "MT-PRIORITY": (b"MAIL FROM:<> MT-PRIORITY=1\r\n", "555 5.5.4"),
    "FUTURERELEASE": (b"MAIL FROM:<> HOLDFOR=1\r\n", "555 5.5.4"),
    "XCLIENT": (b"XCLIENT NAME=x\r\n", "550 5.7.0"),
    "XFORWARD": (b"XFORWARD NAME=x\r\n", "550 5.7.0"),
}


@pytest.mark.parametrize("name", USES)
def test_what_is_not_announced_is_refused(name: str) -> None:
    text, code = USES[name]
    assert replies(b"EHLO x\r\n" + text, PLAIN)[-1] == code
    everything = msgspec.structs.replace(OPEN, secured=name == "REQUIRETLS")
    assert replies(b"EHLO x\r\n" + text, everything)[-1] in ("220 2.0.0", "334", "250 2.1.0", "220", "250 2.0.0")


# --- TLS and AUTH ---


def test_what_is_read_behind_starttls_is_dropped_and_everything_forgotten() -> None:
    text = b"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<evil@b.example>\r\n"
    for step in (1, len(text)):
        player = play([text[:18], *cuts(text[18:], step)] if step > 1 else [text])
        assert player.protocol.helo == ""
        player.feed(b"NOOP\r\nMAIL FROM:<a@b.example>\r\n")
        assert player.log[-1].startswith("503 5.5.1 say EHLO first")
        assert "evil" not in "".join(player.log)


def test_tls_first() -> None:
    terms = msgspec.structs.replace(OPEN, need_tls=True)
    for line in (b"HELO x", b"MAIL FROM:<>", b"RSET", b"AUTH PLAIN", b"VRFY x", b"HELP", b"XCLIENT NAME=x"):
        assert replies(b"EHLO x\r\n" + line + b"\r\nNOOP\r\n", terms)[-2:] == ["530 5.7.0", "250 2.0.0"], line
    assert replies(b"EHLO x\r\nBDAT 6\r\nQUIT\r\nNOOP\r\n", terms)[-2:] == ["530 5.7.0", "250 2.0.0"]
    assert replies(b"EHLO x\r\nQUIT\r\n", terms)[-1] == "221 2.0.0"
    assert replies(b"HELO x\r\n", msgspec.structs.replace(terms, secured=True))[-1] == "250"


def test_authentication_first() -> None:
    terms = msgspec.structs.replace(OPEN, profile="submission", need_auth=True, trusted=False)
    mail = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\n"
    assert replies(mail, terms)[-1] == "530 5.7.0"
    assert "authentication required" in play([mail], terms).log[-1]
    hidden = msgspec.structs.replace(terms, mechanisms=())
    assert "STARTTLS" in play([mail], hidden).log[-1]
    assert replies(b"EHLO x\r\nAUTH PLAIN\r\n", hidden)[-1] == "538 5.7.11"[:9]
    assert replies(mail, msgspec.structs.replace(terms, authenticated=True))[-1] == "250 2.1.0"


@pytest.mark.parametrize(
    ("text", "last"),
    [
        (b"AUTH\r\n", "501 5.5.4"),
        (b"AUTH PLAIN a b\r\n", "501 5.5.4"),
        (b"AUTH GSSAPI\r\n", "504 5.5.4"),
        (b"AUTH LOGIN\r\n" + b"x" * 12_288 + b"\r\n", "535 5.7.8"),
        (b"AUTH LOGIN\r\n" + b"x" * 12_289 + b"\r\n", "500 5.5.6"),
        (b"AUTH PLAIN " + b"x" * 12_270 + b"\r\n*\r\n", "535 5.7.8"),
        (b"AUTH PLAIN " + b"x" * 13_000 + b"\r\n", "500 5.5.2"),
        (b"AUTH LOGIN\r\nQUIT\r\n", "535 5.7.8"),
    ],
)
def test_authentication(text: bytes, last: str) -> None:
    assert replies(b"EHLO x\r\n" + text + b"NOOP\r\n")[-2:] == [last, "250 2.0.0"]


# --- LMTP ---


def test_lmtp_has_its_own_words() -> None:
    assert play([b""], LMTP).log == ["220 smtp.truc.fr LMTP tripost\r\n"]
    assert replies(b"EHLO x\r\nHELO x\r\nLHLO x\r\n", LMTP) == ["500 5.5.1", "500 5.5.1", "250"]
    mail = b"LHLO x\r\nMAIL FROM:<>\r\n"
    assert replies(mail + b"DATA\r\n", LMTP)[-1] == "503 5.5.1"  # RFC 2033 §4.2
    assert replies(mail + b"BDAT 2 LAST\r\nxx", LMTP)[-1] == "503 5.5.1"


# --- XCLIENT, XFORWARD ---


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        (
            b"XCLIENT NAME=spike.example ADDR=168.100.189.2",
            "{'NAME': 'spike.example', 'ADDR': '168.100.189.2'}",
        ),
        (b"XCLIENT ADDR=IPV6:2001:DB8::1 PORT=25", "{'ADDR': '2001:db8::1', 'PORT': '25'}"),
        (b"XCLIENT NAME=[UNAVAILABLE] LOGIN=a+2Bb", "{'NAME': None, 'LOGIN': 'a+b'}"),
        (b"XFORWARD NAME=[TEMPUNAVAIL] SOURCE=LOCAL ident=Q1", "{'NAME': None, 'SOURCE': 'LOCAL', 'IDENT': 'Q1'}"),
    ],
)
def test_claims(text: bytes, claim: str) -> None:
    log = play([b"EHLO x\r\n" + text + b"\r\n"]).log
    assert log[-2].endswith(f"attributes={claim})")
    assert log[-1][:3] == ("220" if text.startswith(b"XCLIENT") else "250")


@pytest.mark.parametrize(
    "text",
    [
        b"XCLIENT",
        b"XCLIENT NAME",
        b"XCLIENT NAME=a NAME=b",
        b"XCLIENT IDENT=x",
        b"XFORWARD LOGIN=x",
        b"XCLIENT ADDR=nowhere",
        b"XCLIENT ADDR=fe80::1%25",
        b"XCLIENT PORT=65536",
        b"XCLIENT PROTO=HTTP",
        b"XFORWARD SOURCE=MARS",
        b"XCLIENT NAME=",
        b"XCLIENT NAME=a+0D+0Ab",
        b"XCLIENT NAME=a+2",
        b"XCLIENT NAME=" + b"x" * 256,
    ],
)
def test_claims_that_are_none(text: bytes) -> None:
    assert replies(text + b"\r\n")[-1] == "501 5.5.4"


# --- any octets, cut anywhere ---

LINES = [
    b"EHLO x",
    b"HELO x",
    b"LHLO x",
    b"MAIL FROM:<a@b.example>",
    b"MAIL FROM:<> BODY=BINARYMIME SMTPUTF8",
    "MAIL FROM:<é@b.example> SMTPUTF8".encode(),
    b"RCPT TO:<c@d.example>",
    b"RCPT TO:<c@d.example> NOTIFY=NEVER",
    b"RCPT TO:<\xe9@d.example>",
    b"DATA",
    b"BDAT 0",
    b"BDAT 4",
    b"BDAT 5 LAST",
    b"BDAT 0 LAST",
    b"BDAT x",
    b"BDAT 1001",
    b".",
    b"..",
    b"",
    b"text",
    b"*",
    b"QUIT",
    b"RSET",
    b"NOOP",
    b"HELP",
    b"VRFY x",
    b"STARTTLS",
    b"AUTH PLAIN",
    b"AUTH LOGIN AA==",
    b"XCLIENT ADDR=192.0.2.1",
    b"XFORWARD NAME=x",
    b"a\nb",
    b"\r",
    b"\0",
    b"x" * 2049,
    b"x" * 12_400,
]
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"", b"\n", b"\r"])
TRANSCRIPTS = st.lists(st.tuples(st.sampled_from(LINES), ENDS), max_size=20).map(
    lambda rows: b"".join(word + end for word, end in rows)
)
MOSTLY = st.one_of(
    TRANSCRIPTS,
    TRANSCRIPTS.map(lambda data: START + data),
    TRANSCRIPTS.map(lambda data: START + b"DATA\r\n" + data),
    st.binary(max_size=200).map(lambda data: START + data),
    st.binary(max_size=200),
)
KINDS = st.sampled_from([OPEN, PLAIN, LMTP, msgspec.structs.replace(OPEN, need_tls=True)])


@given(MOSTLY, KINDS, st.booleans(), st.sets(st.integers(1, 12), max_size=3), st.integers(1, 40))
def test_the_same_events_however_it_is_cut(
    data: bytes, terms: Terms, normalize: bool, refuse: set[int], step: int
) -> None:
    if b"STARTTLS" in data.upper():
        step = len(data) + 1  # what is dropped there is what was read, by design
    whole = play([data], terms, normalize=normalize, refuse=refuse)
    cut = play(cuts(data, step), terms, normalize=normalize, refuse=refuse)
    assert (cut.log, cut.messages, cut.closed) == (whole.log, whole.messages, whole.closed)
    assert cut.protocol.state == whole.protocol.state


def _tape() -> list[bytes]:
    """Whole sessions that use everything."""
    body = b"Subject: x\r\n\r\n..dot\r\n.\r\n"
    again = b"MAIL FROM:<a@b.example> SIZE=9 BODY=8BITMIME RET=FULL ENVID=q\r\nRCPT TO:<c@d.example> NOTIFY=DELAY\r\n"
    return [
        START + b"DATA\r\n" + body + again + b"DATA\r\n" + body + b"QUIT\r\n",
        START + b"BDAT 5\r\nab\r\n\rBDAT 3 LAST\r\n\n.\r\nQUIT\r\n",
        START + b"BDAT 1001\r\n" + b"x" * 1001 + b"BDAT 2 LAST\r\nyyRSET\r\nQUIT\r\n",
        b"NOOP\r\nEHLO x\r\nAUTH LOGIN\r\nYQ==\r\nXCLIENT NAME=a ADDR=192.0.2.1\r\nHELO y\r\nVRFY z\r\nQUIT\r\n",
        START.replace(b"EHLO", b"LHLO") + b"DATA\r\n\r\n.\r\nQUIT\r\n",
        START + b"DATA\r\na\nb\r\n.\r\nNOOP\n",
    ]


@pytest.mark.parametrize("data", _tape())
def test_every_cut_of_a_whole_session_gives_the_same(data: bytes) -> None:
    terms = LMTP if data.startswith(b"LHLO") else OPEN
    whole = play([data], terms)
    assert len(whole.log) > 6
    for at in range(1, len(data)):
        parts = play([data[:at], data[at:]], terms)
        assert (parts.log, parts.messages) == (whole.log, whole.messages), at
    assert play(cuts(data, 1), terms).log == whole.log


def test_memory_for_a_line_without_an_end_is_bounded() -> None:
    player = Player()
    for _ in range(1000):
        player.feed(b"x" * 1000)
    assert len(player.protocol._lines) < 14_000
    player.feed(b"\r\nNOOP\r\n")
    assert [one[:9] for one in player.log[-2:]] == ["500 5.5.2", "250 2.0.0"]
