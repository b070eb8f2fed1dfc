"""docs/imap.md is what IMAP does, and where a command may stand is what RFC 9051 says"""

from __future__ import annotations

import pathlib

import pytest

from support.imap_table import ARGUMENTS, STATES, answers, rows
from tripost.gateway import guard
from tripost.gateway.egress.imap.commands import COMMANDS

DOC = pathlib.Path(__file__).resolve().parents[2] / "docs" / "imap.md"
BEFORE = frozenset({"begin", "TLS", "elsewhere", "TLS needed"})
AFTER, SELECTED = frozenset({"logged in", "selected", "examined"}), frozenset({"selected", "examined"})
ANY = "CAPABILITY NOOP LOGOUT ID"
NOT_AUTHENTICATED = "STARTTLS AUTHENTICATE LOGIN"
AUTHENTICATED = (
    "ENABLE NAMESPACE SELECT EXAMINE CREATE DELETE RENAME SUBSCRIBE UNSUBSCRIBE LIST LSUB STATUS APPEND IDLE GETQUOTA "
    "GETQUOTAROOT COMPRESS"
)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SHORTEST", 0.0)


async def test_the_table_in_the_docs_and_the_states_of_the_rfc() -> None:
    found = await answers()
    lines = [line for line in DOC.read_text().split("**Every answer.**", 1)[1].splitlines() if line.startswith("|")]
    assert lines[2:] == list(rows(found))
    assert set(COMMANDS) <= set(ARGUMENTS)
    for (verb, state, argument), answer in found.items():
        if verb in ANY.split():
            allowed = BEFORE | AFTER
        elif verb in NOT_AUTHENTICATED.split():
            allowed = BEFORE
        elif verb in AUTHENTICATED.split():
            allowed = AFTER
        else:
            allowed = SELECTED
        if verb not in COMMANDS or state not in allowed:
            assert answer.startswith(("BAD ", "* BYE ", "NO [TRYCREATE]")), (verb, state, argument, answer)
        if state == "TLS needed" and verb not in ANY.split() and argument:
            assert not answer.startswith("OK"), (verb, state, argument, answer)
    assert set(STATES) == BEFORE | AFTER
