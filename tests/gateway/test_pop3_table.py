"""docs/pop3.md is what POP3 does, and what POP3 does is what the RFCs say"""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.pop3_table import ARGUMENTS, STATES, House, kind_of, questions, table
from tripost.gateway import guard
from tripost.gateway.egress.pop3_protocol import COMMANDS, Command, Line, Mistake, Pop3Protocol

DOC = pathlib.Path(__file__).resolve().parents[2] / "docs" / "pop3.md"
# where each command may stand: RFC 1939 §§4-7, 2449 §5, 2595 §4, 5034 §4, 6856 §§2-3
BEFORE, AFTER = frozenset(STATES) - {"logged in"}, frozenset({"logged in"})
PLAIN_TEXT = BEFORE - {"TLS"}
PASSWORDS = BEFORE - {"elsewhere", "TLS needed"}
ALLOWED: dict[str, frozenset[str]] = {
    "CAPA": BEFORE | AFTER,
    "STLS": PLAIN_TEXT - {"after UTF8"},
    "UTF8": BEFORE - {"TLS needed"},
    "LANG": BEFORE | AFTER,
    "AUTH": BEFORE - {"TLS needed"},
    "USER": PASSWORDS,
    "PASS": frozenset({"after USER"}),
    "QUIT": BEFORE | AFTER,
    **dict.fromkeys(("STAT", "LIST", "UIDL", "RETR", "TOP", "DELE", "NOOP", "RSET"), AFTER),
}
WELL_FORMED = {
    "none": {""},
    "text": {"marc@machin.com", "secret word", "é"},
    "number": {"1"},
    "number?": {"", "1"},
    "top": {"1 0"},
    "auth": {"", "PLAIN", "plain", "LOGIN", "SCRAM-SHA-256"},
    "language": {"", "en", "EN", "*"},
}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SHORTEST", 0.0)


async def test_the_table_in_the_docs() -> None:
    found = [line for line in DOC.read_text().split("argument\n", 1)[1].splitlines() if line.startswith("|")]
    assert found == await table()


async def test_every_answer_is_one_the_rfcs_allow(tmp_path: pathlib.Path) -> None:
    house = House(tmp_path)
    assert set(ALLOWED) == set(COMMANDS)
    for verb, state, argument in questions():
        answer = await house.run(verb, state, argument)
        good = verb in ALLOWED and state in ALLOWED[verb] and argument in WELL_FORMED[kind_of(verb)]
        if (verb, state, argument) in (("AUTH", "elsewhere", one) for one in ("PLAIN", "plain", "LOGIN")):
            good = False  # no password in plain text
        if verb == "PASS" and good:
            assert answer.startswith("-ERR [AUTH] "), (verb, state, argument, answer)  # they are all wrong
        elif good:
            assert answer.startswith(("+OK", "+ ")), (verb, state, argument, answer)
        else:
            assert answer.startswith("-ERR "), (verb, state, argument, answer)


LINES = st.one_of(
    st.builds(
        lambda verb, argument: f"{verb} {argument}".rstrip(),
        st.sampled_from(list(COMMANDS)),
        st.sampled_from(sorted({one for words in ARGUMENTS.values() for one in words})),
    ),
    st.sampled_from(["*", "AGEAYg==", "bWFyYw==", "", "x" * 600, "A" * 13_000, "\x01", "a\nb", "a\rb"]),
    st.text(max_size=20),
)


@given(st.lists(LINES, max_size=12), st.integers(1, 40), st.sampled_from(["", "login", "exchange", "tls"]))
def test_cuts_do_not_matter(lines: list[str], step: int, when: str) -> None:
    data = "".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogatepass")

    def run(pieces: list[bytes]) -> list[object]:
        protocol, found = Pop3Protocol(stls=True, secured=when == "tls"), []
        if when == "login":
            protocol.log_in()
        elif when == "exchange":
            protocol.begin_exchange()
        for piece in pieces:
            protocol.feed(piece)
            while (event := protocol.next()) is not None:
                found.append(event)
                if isinstance(event, Command) and event.verb == "AUTH" and event.text:
                    protocol.begin_exchange()
                elif isinstance(event, Command) and event.verb == "PASS":
                    protocol.log_in()
                elif isinstance(event, Line):
                    protocol.end_exchange()
        return found

    whole = run([data])
    assert run([data[at : at + step] for at in range(0, len(data), step)]) == whole
    assert run([data[at : at + 1] for at in range(len(data))]) == whole
    # one answer to every line, whatever it is; lines end in CRLF or, told as a mistake, in a bare CR or LF
    assert len(whole) >= data.count(b"\r\n")
    assert all(isinstance(one, Command | Line | Mistake) for one in whole)


async def test_sessions_do_not_depend_on_the_cuts_either(tmp_path: pathlib.Path) -> None:
    house = House(tmp_path)
    text = (
        "CAPA\r\nUTF8\r\nAUTH PLAIN\r\nAG1hcmNAbWFjaGluLmNvbQBzZWNyZXQ=\r\nSTAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nRETR 2\r\n"
        "RETR 3\r\nTOP 2 1\r\nDELE 1\r\nRETR 1\r\nRETR 2\r\nRSET\r\nLANG fr\r\nNOOP\r\nQUIT\r\n"
    )
    whole = await house.talk("begin", text)
    assert whole.count("-ERR") == 3
    assert whole.endswith("+OK bye, 0 deleted\r\n")
    for step in (1, 2, 3, 7, 50):
        assert await house.talk("begin", text, step=step) == whole
