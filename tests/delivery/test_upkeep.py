"""retention, caps, and what is cleared away"""

from __future__ import annotations

import os
import pathlib

import pytest
import trio
from trio.testing import MockClock

from support.fake_files import FakeFiles, run_here
from support.queues import put, queue_on
from tripost.delivery.mailbox import delivered, places
from tripost.delivery.mailbox.maildir import MaildirDelivery, Place
from tripost.delivery.mailbox.policy import Policy
from tripost.delivery.mailbox.retention import tidy
from tripost.delivery.mailbox.session import open_mailbox
from tripost.delivery.mailbox.upkeep import forget, keep_up, mailbox_folders, stale
from tripost.queue.body import BodyReader
from tripost.queue.message import Deferred, Envelope, Recipient

NOW = 1_800_000_000.0
DAY = 86_400.0
MARC = "marc@machin.com"


def fill(mail: pathlib.Path, ages: list[float], folder: str = "") -> pathlib.Path:
    """Messages so many days old; every other one by another program, whose file's time counts."""
    box = mail / MARC / folder
    places.make_mailbox(str(box))
    for n, age in enumerate(ages):
        when = int(NOW - age * DAY)
        file = box / "cur" / (f"{when}.X{n}:2,S" if n % 2 else f"msg{n}:2,S")
        file.write_bytes(b"x")
        os.utime(file, (when, when))
    return mail / MARC


def left(box: pathlib.Path) -> int:
    return len(list((box / "cur").iterdir()))


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (Policy(), (6, 2)),
        (Policy(retention=3.5 * DAY), (4, 1)),
        (Policy(max_messages=2), (2, 2)),
        (Policy(max_messages=2, retention=1.5 * DAY), (2, 1)),
        (Policy(max_messages=100, retention=100 * DAY), (6, 2)),
    ],
)
def test_what_the_policy_takes_away(tmp_path: pathlib.Path, policy: Policy, wanted: tuple[int, int]) -> None:
    box = fill(tmp_path, [0, 1, 2, 3, 4, 5])
    fill(tmp_path, [1, 9], ".Old")
    tidy(str(box), policy, NOW)
    assert (left(box), left(box / ".Old")) == wanted


def test_a_session_sees_none_of_it_and_loses_none_of_it(tmp_path: pathlib.Path) -> None:
    box = fill(tmp_path, [0, 1, 2, 3, 4, 5])
    session = open_mailbox(str(tmp_path), MARC, NOW, Policy(max_messages=4))
    assert (len(session), session.expired) == (4, 2)
    assert tidy(str(box), Policy(max_messages=1), NOW) == 0
    assert left(box) == 4
    session.close()
    assert tidy(str(box), Policy(max_messages=1), NOW) == 3


def opener(content: bytes = b"x\r\n"):  # type: ignore[no-untyped-def]
    async def open_reader() -> BodyReader:
        return BodyReader(content, None, len(content), run_here)

    return open_reader


async def test_newer_mail_pushes_out_the_oldest(tmp_path: pathlib.Path) -> None:
    told: list[tuple[str, int]] = []
    local = MaildirDelivery(
        str(tmp_path),
        "h",
        lambda address: Place(address, "", Policy(max_messages=3)),
        run_here,
        lambda: NOW,
        lambda box, count: told.append((box, count)),
    )
    for n in range(5):
        who = (Recipient(0, MARC, "local"),)
        await local.deliver(Envelope(f"ID{n}", "", who, NOW + n, NOW + DAY), who, opener())
    names = sorted(one.name.split(".")[1] for one in (tmp_path / MARC / "new").iterdir())
    assert names == ["ID2_0", "ID3_0", "ID4_0"]
    assert told == [(str(tmp_path / MARC), 1)] * 2


async def test_entries_are_kept_while_their_message_is_queued(
    autojump_clock: MockClock, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivered, "LOG_LIMIT", 2)
    async with queue_on(FakeFiles()) as queue:
        local = MaildirDelivery(str(tmp_path), "h", run_sync=run_here, now=lambda: NOW)
        for n in range(6):
            envelope = await put(queue, f"ID{n}", "local", "elsewhere")
            some = envelope.recipients[:1]
            await local.deliver(envelope, some, opener())
            if n != 2:
                [lease] = await queue.claim("local", 1)
                await queue.settle(lease, {0: Deferred(451, "4.0.0", "later")} if n == 3 else {0: _done()})
            else:
                [held] = await queue.claim("local", 1)
        assert await queue.search.ids_at("local", 10) == {"ID2", "ID3"}
        assert await queue.search.ids_at("local", 1) is None
        assert await queue.search.ids_at("nowhere", 1) == set()
        litter = tmp_path / ".staging" / "ID3_0"
        for name in ("ID3_0", "ID9_0", "ID9_1.part", "ID8_0.part"):
            (tmp_path / ".staging" / name).write_bytes(b"x")
            os.utime(tmp_path / ".staging" / name, (NOW, NOW))
        (tmp_path / ".staging" / "ID8_0.part").touch()
        os.utime(tmp_path / ".staging" / "ID8_0.part", (NOW + 3 * DAY, NOW + 3 * DAY))

        async def queued() -> set[str] | None:
            return await queue.search.ids_at("local", 10)

        async def unknown() -> set[str] | None:
            return None

        def entries() -> list[bool]:
            return [local.store.delivered.has(f"ID{n}_0", NOW) for n in range(6)]

        await _forget(local, queued, NOW + DAY / 2)
        assert entries() == [True] * 6
        await _forget(local, unknown, NOW + 3 * DAY)
        assert entries() == [True] * 6
        await _forget(local, queued, NOW + 3 * DAY)
        assert entries() == [False, False, True, True, True, True]  # what is still in the log stays
        assert sorted(one.name for one in litter.parent.iterdir()) == ["ID3_0", "ID8_0.part"]
        assert stale(str(tmp_path), NOW) == []
        queue.release(held)


async def _forget(local: MaildirDelivery, queued, now: float) -> None:  # type: ignore[no-untyped-def]
    from tripost.delivery.mailbox import upkeep

    real = trio.to_thread.run_sync
    upkeep.trio.to_thread.run_sync = run_here  # threads and a mock clock must not meet
    try:
        await forget(local, queued, now)
    finally:
        upkeep.trio.to_thread.run_sync = real


def _done():  # type: ignore[no-untyped-def]
    from tripost.queue.message import Delivered

    return Delivered("delivered")


async def test_it_is_kept_up_from_the_start(tmp_path: pathlib.Path) -> None:
    box = fill(tmp_path, [0, 1, 2, 3])
    (tmp_path / ".removing").mkdir()
    session = open_mailbox(str(tmp_path), MARC, NOW)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "unlink", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.remove([0, 1])
    session.close()
    told: list[tuple[str, int]] = []
    local = MaildirDelivery(str(tmp_path), "h")

    async def nothing() -> set[str] | None:
        return set()

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await keep_up(
                local,
                lambda account: Policy(max_messages=1) if account == MARC else Policy(),
                nothing,
                now=lambda: NOW,
                told=lambda account, count: (told.append((account, count)), nursery.cancel_scope.cancel())[0],
                trouble=lambda text: pytest.fail(text),
            )

        nursery.start_soon(run)
    assert told == [(MARC, 1)]  # two went because a session had begun to remove them
    assert left(box) == 1
    assert mailbox_folders(str(tmp_path)) == [(str(box), MARC)]
    assert mailbox_folders(str(tmp_path / "none")) == []
    assert stale(str(tmp_path / "none"), NOW) == []
