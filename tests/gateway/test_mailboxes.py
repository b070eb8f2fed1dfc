"""aliases, catch-all, extensions, quotas at RCPT: what the configuration says of local mail"""

from __future__ import annotations

import pathlib
from typing import Any

import msgspec
import pytest

from tripost.delivery.mailbox.maildir import Place
from tripost.delivery.mailbox.places import make_mailbox
from tripost.delivery.mailbox.policy import Policy
from tripost.delivery.mailbox.usage import Usage
from tripost.delivery.routing import Refusal, Route
from tripost.gateway.mailboxes import Mailboxes
from tripost.gateway.settings import Config

ACCOUNTS = {"marc@machin.com", "ann@machin.com", "box@machin.com", "with+plus@machin.com"}
LOCAL: dict[str, Any] = {
    "domains": ["machin.com", "machin.net"],
    "postmaster": "marc@machin.com",
    "catch_all": {"machin.net": "ann@machin.com"},
    "aliases": {
        "Sales@machin.com": ["marc@machin.com", "ann+sales@machin.com"],
        "out@machin.com": ["someone@elsewhere.test", "marc@machin.com"],
        "ann@machin.com": ["ann@machin.com", "out@machin.com"],
        "loop1@machin.com": ["loop2@machin.com"],
        "loop2@machin.com": ["loop1@machin.com", "marc@machin.com"],
        "empty@machin.com": ["gone@machin.com"],
    },
    "quota_messages": 5,
    "mailbox": {"box@machin.com": {"one_shot": True, "quota_messages": 1, "retention": 90_000.0}},
}


def mailboxes(folder: pathlib.Path, rule: str = "", **more: Any) -> Mailboxes:
    config = msgspec.convert({"state": str(folder), "local": LOCAL | more}, Config)
    return Mailboxes(config, ACCOUNTS.__contains__, lambda account: rule)


REMOTE = Route("mx:elsewhere.test", "someone@elsewhere.test", via="out@machin.com")


def route(*addresses: str, remote: Route | None = None) -> set[tuple[str, str, str]]:
    rows = {("local", one, "") for one in addresses}
    return rows | ({(remote.next_hop, remote.address, remote.via)} if remote is not None else set())


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("marc@machin.com", route("marc@machin.com")),
        ("marc+x@machin.com", route("marc@machin.com")),
        ("marc+lists@machin.com", route("marc+lists@machin.com")),
        ("MARC+lists@machin.com", route("marc+lists@machin.com")),
        ("marc+../../x@machin.com", route("marc@machin.com")),
        ("with+plus@machin.com", route("with+plus@machin.com")),
        ("sales@machin.com", route("marc@machin.com", "ann@machin.com", remote=REMOTE)),
        ("SALES+x@Machin.com", route("marc@machin.com", "ann@machin.com", remote=REMOTE)),
        ("out@machin.com", route("marc@machin.com", remote=REMOTE)),
        ("ann@machin.com", route("ann@machin.com", "marc@machin.com", remote=REMOTE)),
        ("loop1@machin.com", route("marc@machin.com")),
        ("loop2@machin.com", route("marc@machin.com")),
        ("whoever@machin.net", route("ann@machin.com", "marc@machin.com", remote=REMOTE)),
        ("postmaster@machin.net", route("marc@machin.com")),
        ("postmaster", route("marc@machin.com")),
    ],
)
def test_local_addresses(tmp_path: pathlib.Path, address: str, wanted: set[tuple[str, str, str]]) -> None:
    make_mailbox(str(tmp_path / "mail" / "marc@machin.com" / ".Lists"))
    router = mailboxes(tmp_path).router
    found = router.decide(address, False)
    assert isinstance(found, Route)
    assert {(one.next_hop, one.address, one.via) for one in found.all} == wanted
    assert router.route(address) == found


@pytest.mark.parametrize("address", ["nobody@machin.com", "empty@machin.com", "+x@machin.com", "gone+x@machin.com"])
def test_nobody(tmp_path: pathlib.Path, address: str) -> None:
    found = mailboxes(tmp_path).router.decide(address, True)
    assert isinstance(found, Refusal)
    assert (found.code, found.enhanced) == (550, "5.1.1")


def test_places(tmp_path: pathlib.Path) -> None:
    make_mailbox(str(tmp_path / "mail" / "marc@machin.com" / ".Lists"))
    boxes = mailboxes(tmp_path)
    five = Policy(quota_messages=5)
    assert boxes.locate("marc+lists@machin.com") == Place("marc@machin.com", ".Lists", five)
    assert boxes.locate("marc+gone@machin.com") == Place("marc@machin.com", "", five)
    assert boxes.locate("with+plus@machin.com") == Place("with+plus@machin.com", "", five)
    assert boxes.locate("nobody@machin.com") is None


def test_policies(tmp_path: pathlib.Path) -> None:
    boxes = mailboxes(tmp_path)
    assert boxes.policy("marc@machin.com") == Policy(quota_messages=5)
    assert boxes.policy("Box@machin.com") == Policy(one_shot=True, quota_messages=1, retention=90_000.0)
    assert boxes.expire == "0 USER"
    assert mailboxes(tmp_path, mailbox={}).expire == "NEVER"
    assert mailboxes(tmp_path, mailbox={}, retention=700_000.0).expire == "8"
    own = mailboxes(tmp_path, rule="*:storage=1M")
    assert own.policy("box@machin.com").quota == 1 << 20
    assert mailboxes(tmp_path, rule="nonsense").policy("marc@machin.com") == Policy(quota_messages=5)


@pytest.mark.parametrize(("over", "code"), [("defer", (452, "4.2.2")), ("reject", (552, "5.2.2"))])
def test_a_full_mailbox_is_told_at_rcpt(tmp_path: pathlib.Path, over: str, code: tuple[int, str]) -> None:
    box = tmp_path / "mail" / "marc@machin.com"
    make_mailbox(str(box))
    boxes = mailboxes(tmp_path, quota_over=over)
    boxes.usage = Usage()
    for n in range(5):
        assert isinstance(boxes.router.decide("marc@machin.com", False), Route)
        (box / "new" / f"{n}.x").write_bytes(b"x")
        boxes.usage.measure(str(box))
    found = boxes.router.decide("marc+detail@machin.com", False)
    assert isinstance(found, Refusal)
    assert (found.code, found.enhanced) == code
    (box / "new" / "1.x").unlink()  # another program made room: nobody knows how much
    assert isinstance(boxes.router.decide("marc@machin.com", False), Route)
