"""the mail store on a real disk: delivery, the list of deliveries, the index, removal"""

from __future__ import annotations

import errno
import os
import pathlib
import re
from typing import Any

import pytest
import trio
import trio.lowlevel
from hypothesis import given
from hypothesis import strategies as st

from support.fake_files import run_here
from tripost.delivery.mailbox import batch, delivered, places, removal, syncing
from tripost.delivery.mailbox.delivered import KEEP, DeliveredList
from tripost.delivery.mailbox.index import DAMAGE, NAME, Index
from tripost.delivery.mailbox.lineends import WireEnds
from tripost.delivery.mailbox.maildir import MaildirDelivery, Place
from tripost.delivery.mailbox.policy import Policy, quota_rule
from tripost.delivery.mailbox.session import MailboxInUse, open_mailbox
from tripost.delivery.mailbox.uids import file_name, folder_name, folder_names, uidl, wire_size
from tripost.delivery.mailbox.usage import Usage
from tripost.queue.body import BodyReader
from tripost.queue.message import Deferred, Delivered, Envelope, Failed, Outcome, Recipient

NOW = 1_800_000_000.0
MARC = "marc@machin.com"
HOSTILE = ["../../etc@x", "a/b@x", ".hidden@x", "..", ".", "", "x" * 300 + "@y", "a b@c", "a\0b@c", "ü@x", "Marc@X"]


def message(id: str, *recipients: str, accepted: float = NOW, binary: bool = False) -> Envelope:
    people = tuple(Recipient(n, one, "local") for n, one in enumerate(recipients))
    return Envelope(id, "fred@truc.fr", people, accepted, accepted + 1000, binary=binary)


def opener(content: bytes) -> Any:
    async def open_reader() -> BodyReader:
        return BodyReader(content, None, len(content), run_here)

    return open_reader


class House:
    """A store, and what its mailboxes hold."""

    def __init__(self, folder: pathlib.Path, policy: Policy | None = None, now: float = NOW) -> None:
        self.folder = folder
        self.now = now
        self.policy = policy or Policy()
        self.begin()

    def begin(self) -> None:
        """As a new process, which knows only the disk."""
        self.local = MaildirDelivery(str(self.folder), "h.example", self.locate, run_here, lambda: self.now)

    def locate(self, address: str) -> Place | None:
        name, _, tag = address.partition("+")
        return Place(name, f".{tag}" if tag else "", self.policy) if name != "nobody@x" else None

    async def deliver(self, envelope: Envelope, content: bytes = b"Subject: x\r\n\r\nbody\r\n") -> dict[int, Outcome]:
        return await self.local.deliver(envelope, envelope.recipients, opener(content))

    def files(self, account: str = MARC) -> list[pathlib.Path]:
        return sorted(self.folder.glob(f"{folder_name(account)}/new/*"))


@pytest.fixture
async def house(tmp_path: pathlib.Path) -> House:
    return House(tmp_path / "mail")


async def test_what_is_delivered_stands_there_with_its_two_lines(house: House) -> None:
    outcomes = await house.deliver(message("ID1", MARC, "nobody@x"))
    assert outcomes[0] == Delivered("delivered")
    assert isinstance(outcomes[1], Failed)
    [file] = house.files()
    content = b"Return-Path: <fred@truc.fr>\r\nDelivered-To: marc@machin.com\r\nSubject: x\r\n\r\nbody\r\n"
    assert file.read_bytes() == content
    assert file.name == f"1800000000.ID1_0.h.example,S={len(content)},W={len(content)}"
    assert list((house.folder / ".staging").iterdir()) == []


async def test_large_messages_and_binary_ones(house: House) -> None:
    await house.deliver(message("ID1", MARC), b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 50_000)
    await house.deliver(message("ID2", MARC, binary=True), b"Subject: x\r\n\r\na\nb\rc")
    large, binary = house.files()
    assert large.stat().st_size > 600_000
    assert ",W=" not in binary.name
    box = open_mailbox(str(house.folder), MARC, NOW)
    assert box.sizes == [large.stat().st_size, binary.stat().st_size + 2]
    box.close()


async def test_not_again_though_a_reader_removed_it(house: House) -> None:
    envelope = message("ID1", MARC, "b@x")
    await house.deliver(envelope)
    house.files()[0].unlink()
    for _ in range(3):
        house.begin()
        house.now += KEEP  # whatever time passes while it is queued
        assert set((await house.deliver(envelope)).values()) == {Delivered("delivered")}
        assert house.files() == []
        assert len(house.files("b@x")) == 1


STEPS = ["write", "fsync", "staging", "note", "move", "new"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("restart", [False, True])
async def test_a_failing_disk_loses_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, step: str, restart: bool
) -> None:
    """Each step fails once for one of three; then the queue tries again."""

    def fail(*_: Any) -> Any:
        raise OSError(errno.EIO, "broken")

    def only(real: Any, when: Any) -> Any:
        return lambda *words, **more: fail() if when(*words) else real(*words, **more)

    envelopes = [message(f"ID{n}", f"u{n}@x") for n in range(3)]
    await house.deliver(message("ID9", "u1@x"))
    with monkeypatch.context() as patched:
        if step == "fsync":
            patched.setattr(os, "fsync", fail)
        elif step == "write":
            patched.setattr(os, "write", only(os.write, lambda _, data: b"To: u1@x" in bytes(data)))
        elif step == "staging":
            patched.setattr(batch, "sync_folder", only(places.sync_folder, lambda path: path.endswith(".staging")))
        elif step == "note":
            patched.setattr(os, "fdatasync", fail)
        elif step == "move":
            patched.setattr(os, "rename", only(os.rename, lambda _, new: "u1@x/new" in new))
        else:
            patched.setattr(batch, "sync_folder", only(places.sync_folder, lambda path: "u1@x" in path))
        outcomes = [(await house.deliver(one))[0] for one in envelopes]
    if step in ("write", "move", "new"):
        assert [type(one) for one in outcomes] == [Delivered, Deferred, Delivered]
    else:
        assert all(isinstance(one, Deferred) for one in outcomes)
    if restart:
        house.begin()
    for one in envelopes:
        assert (await house.deliver(one))[0] == Delivered("delivered")
        assert (await house.deliver(one))[0] == Delivered("delivered")
    for n in range(3):
        assert len(house.files(f"u{n}@x")) == (2 if n == 1 else 1)
    assert list((house.folder / ".staging").iterdir()) == []


async def test_a_batch_whose_sync_fails(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole batch is deferred, whichever of its syncs failed; and then delivered once."""
    for step in range(2):
        house.local = MaildirDelivery(str(house.folder), "h", house.locate)
        house.local.store._sync._usable = True  # pyright: ignore[reportPrivateUsage]
        calls = 0

        def failing(fd: int, step: int = step) -> None:
            nonlocal calls
            calls += 1
            if calls == step + 1:
                raise OSError(errno.EIO, "broken")
            os.sync()

        got: list[Outcome] = []

        async def one(n: int, step: int = step) -> None:
            got.extend((await house.deliver(message(f"S{step}ID{n}", f"u{n}@x"))).values())  # noqa: B023

        async def together() -> None:
            got.clear()  # noqa: B023
            async with house.local._disk:  # pyright: ignore[reportPrivateUsage]
                async with trio.open_nursery() as nursery:
                    for n in range(8):
                        nursery.start_soon(one, n)
                    await trio.testing.wait_all_tasks_blocked()
                    house.local._disk.release()  # pyright: ignore[reportPrivateUsage]
                await house.local._disk.acquire()  # pyright: ignore[reportPrivateUsage]

        monkeypatch.setattr(syncing, "syncfs", failing)
        await together()
        assert calls == step + 1
        assert len(got) == 8
        assert all(isinstance(outcome, Deferred) for outcome in got)
        await together()
        assert all(isinstance(outcome, Delivered) for outcome in got)
        assert all(len(house.files(f"u{n}@x")) == step + 1 for n in range(8))
        house.local.store.close()


def test_syncing_all_is_left_out_while_slow(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as each for itself is quicker: for 1 s, 2 s, 4 s… at most a minute; a good one begins anew."""
    now, took = 100.0, 0.0

    def syncfs(fd: int) -> None:
        nonlocal now
        now += took

    monkeypatch.setattr(syncing, "syncfs", syncfs)
    monkeypatch.setattr(syncing, "GOOD", frozenset({syncing.file_system(str(tmp_path))}))
    monkeypatch.setattr(syncing.time, "monotonic", lambda: now)
    one = syncing.Syncer(str(tmp_path))
    assert not one.pays(3)

    def pause() -> float:
        nonlocal now
        assert one.pays(64)
        one.all(64)
        start = now
        while not one.pays(64):
            now += 0.5
        return now - start

    took = 0.75
    assert pause() == 0  # nobody knows yet what a single one takes
    one.single(0.001)
    for wanted in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        assert pause() == wanted
    took = 0.01
    assert pause() == 0
    took = 0.75
    assert pause() == 1.0
    for _ in range(40):
        one.single(0.02)  # a slow disk: 64 of them would take longer
    assert pause() == 0
    one.close()


async def test_a_note_that_may_be_on_disk_hides_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note's sync failed, the next try dies while it writes: the whole message is still what is shown."""

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        assert isinstance((await house.deliver(message("ID1", MARC)))[0], Deferred)
    real = os.write

    def dying(fd: int, data: bytes) -> int:
        real(fd, bytes(data)[:10])
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", dying)
        with pytest.raises(Stop):
            await house.deliver(message("ID1", MARC))
    house.begin()
    assert (await house.deliver(message("ID1", MARC)))[0] == Delivered("delivered")
    [file] = house.files()
    assert file.read_bytes().endswith(b"body\r\n")


async def test_no_room_leaves_no_litter(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 10:
            return real(fd, bytes(data)[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        outcome = (await house.deliver(message("ID1", MARC)))[0]
    assert isinstance(outcome, Deferred)
    assert "No space" in outcome.text
    assert list((house.folder / ".staging").iterdir()) == []


class Stop(BaseException):
    """The machine stops."""


@pytest.mark.parametrize("at", range(14))
async def test_a_process_that_dies_anywhere(house: House, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Whatever system call is its last, afterwards the message is there exactly once."""
    await house.deliver(message("ID0", MARC))
    calls = 0

    def dying(real: Any) -> Any:
        def call(*words: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > at:
                raise Stop
            return real(*words, **more)

        return call

    with monkeypatch.context() as patched:
        for name in ("fsync", "fdatasync", "rename", "write"):
            patched.setattr(os, name, dying(getattr(os, name)))
        died = False
        try:
            await house.deliver(message("ID1", MARC))
        except Stop:
            died = True
    assert died == (at < calls)
    house.begin()
    await house.deliver(message("ID1", MARC))
    assert len([one for one in house.files() if "ID1_0" in one.name]) == 1


@pytest.mark.parametrize("alone", [False, True])
async def test_many_share_their_syncs(house: House, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    syncs: list[int] = []
    real = os.fsync

    def count(fd: int) -> None:
        syncs.append(fd)
        real(fd)

    house.local = MaildirDelivery(str(house.folder), "h", house.locate)  # real threads: others wait meanwhile
    for n in range(5):
        await house.deliver(message(f"W{n}", f"u{n}@x"))
    monkeypatch.setattr(os, "fsync", count)
    monkeypatch.setattr(syncing, "GOOD", frozenset() if alone else syncing.GOOD)
    async with trio.open_nursery() as nursery:
        for n in range(100):
            nursery.start_soon(house.deliver, message(f"ID{n}", f"u{n % 5}@x"))
    assert sum(len(house.files(f"u{n}@x")) for n in range(5)) == 105
    assert len(syncs) < (140 if alone else 40)


async def test_what_waits_may_be_cancelled(house: House) -> None:
    house.local = MaildirDelivery(str(house.folder), "h", house.locate)
    async with trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(house.deliver, message(f"ID{n}", MARC))
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    for n in range(20):
        await house.deliver(message(f"ID{n}", MARC))
    assert len(house.files()) == 20


async def test_a_mailbox_that_is_removed_comes_back(house: House) -> None:
    await house.deliver(message("ID1", MARC))
    for path in sorted((house.folder / MARC).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (house.folder / MARC).rmdir()
    assert (await house.deliver(message("ID2", MARC)))[0] == Delivered("delivered")
    assert len(house.files()) == 1


async def test_circles_end(house: House) -> None:
    content = b"Received: x\r\nDELIVERED-TO:   marc@machin.com \r\n\r\nDelivered-To: b@x\r\n"
    outcomes = await house.deliver(message("ID1", MARC, "b@x"), content)
    assert isinstance(outcomes[0], Failed)
    assert (outcomes[0].code, outcomes[0].enhanced) == (554, "5.4.6")
    assert outcomes[1] == Delivered("delivered")  # what stands in the text says nothing


async def test_folders_of_an_address(house: House) -> None:
    places.make_mailbox(str(house.folder / MARC / ".lists"))
    await house.deliver(message("ID1", f"{MARC}+lists", f"{MARC}+other"))
    assert len(list((house.folder / MARC / ".lists" / "new").iterdir())) == 1
    assert len(house.files()) == 1  # a folder that is not there is the mailbox itself


@pytest.mark.parametrize("account", HOSTILE)
async def test_hostile_names_stay_inside(house: House, account: str) -> None:
    before = sorted(house.folder.parent.iterdir())
    outcomes = await house.deliver(message("ID1", account))
    assert outcomes[0] == Delivered("delivered")
    assert sorted(house.folder.parent.iterdir()) in (before, [*before, house.folder])
    [file] = house.folder.glob("*/new/*")
    assert file.parent.parent.parent == house.folder
    name = folder_name(account)
    assert name == file.parent.parent.name
    assert "/" not in name
    assert not name.startswith(".")
    assert 0 < len(name) <= 255
    box = open_mailbox(str(house.folder), account, NOW)
    assert len(box) == 1
    box.close()


def test_hostile_names_are_all_different() -> None:
    assert len({folder_name(one) for one in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("detail", ["", ".", "..", "a/b", "../../x", "a\0", "x" * 61, "a.b", "a b"])
def test_hostile_extensions_are_no_folders(detail: str) -> None:
    assert folder_names(detail) == []


# --- quotas ---


async def test_quotas(tmp_path: pathlib.Path) -> None:
    house = House(tmp_path, Policy(quota_messages=2))
    for n in range(2):
        assert (await house.deliver(message(f"ID{n}", MARC)))[0] == Delivered("delivered")
    outcome = (await house.deliver(message("ID2", MARC)))[0]
    assert isinstance(outcome, Deferred)
    assert (outcome.code, outcome.enhanced) == (452, "4.2.2")
    assert not outcome.destination
    assert list((tmp_path / ".staging").iterdir()) == []
    house.policy = Policy(quota_messages=2, reject=True)
    outcome = (await house.deliver(message("ID2", MARC)))[0]
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.enhanced) == (552, "5.2.2")
    assert (await house.deliver(message("ID1", MARC)))[0] == Delivered("delivered")  # it is in there already
    house.files()[0].unlink()  # another program made room
    assert (await house.deliver(message("ID2", MARC)))[0] == Delivered("delivered")


async def test_a_batch_does_not_overrun_the_quota(tmp_path: pathlib.Path) -> None:
    house = House(tmp_path, Policy(quota=1000))
    house.local = MaildirDelivery(str(tmp_path), "h", house.locate)
    got: list[Outcome] = []

    async def one(n: int) -> None:
        got.extend((await house.deliver(message(f"ID{n}", MARC), b"\r\n" + b"x" * 198)).values())

    async with trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(one, n)
    assert sum(isinstance(outcome, Delivered) for outcome in got) == 3
    assert len(house.files()) == 3


async def test_usage_is_known_until_somebody_changes_something(house: House) -> None:
    usage, box = Usage(), house.folder / MARC
    await house.deliver(message("ID1", MARC))
    assert usage.known(str(box)) is None
    size = house.files()[0].stat().st_size
    assert usage.measure(str(box)) == (size, 1)
    assert usage.known(str(box)) == (size, 1)
    (box / "cur" / "1.foreign:2,S").write_bytes(b"12345")
    assert usage.known(str(box)) is None
    assert usage.measure(str(box)) == (size + 5, 2)
    places.make_mailbox(str(box / ".Lists"))
    (box / ".Lists" / "new" / "2.foreign,S=7").write_bytes(b"1234567")
    assert house.local.store.usage.measure(str(box)) == (size + 12, 3)
    assert house.local.store.usage.known(str(box)) == (size + 12, 3)
    await house.deliver(message("ID2", MARC))  # our own deliveries are added
    assert house.local.store.usage.known(str(box)) == (2 * size + 12, 4)


def test_quota_rules() -> None:
    assert quota_rule(Policy(), "*:storage=1G:messages=1000") == Policy(quota=1 << 30, quota_messages=1000)
    assert quota_rule(Policy(quota=1), "*:bytes=500") == Policy(quota=500)
    assert quota_rule(Policy(), "*:storage=10") == Policy(quota=10_240)
    for wrong in ("", "1G", "*:", "*:storage=", "*:storage=-1", "*:storage=1X", "*:messages=x", "Trash:storage=1G"):
        with pytest.raises(ValueError, match=re.escape('"')):
            quota_rule(Policy(), wrong)


@pytest.mark.parametrize(
    ("policy", "expire"),
    [
        (Policy(), "NEVER"),
        (Policy(retention=86_400.0 * 7.9), "7"),
        (Policy(retention=3600.0), "0"),
        (Policy(one_shot=True, retention=86_400.0), "0"),
        (Policy(max_messages=5), "0"),
    ],
)
def test_expire_is_true(policy: Policy, expire: str) -> None:
    assert policy.expire() == expire


# --- the list of deliveries ---


def test_the_list_over_many_logs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivered, "LOG_LIMIT", 10)
    one = DeliveredList(str(tmp_path / "list"))
    for n in range(105):
        one.add([(f"ID{n}_0", 1000.0 + n)])
    for again in range(2):
        assert all(one.has(f"ID{n}_0", 1000.0 + n) for n in range(105))
        assert not any(one.has(f"ID{n}_0", 0.0) for n in (105, -1))
        assert len(one.runs) == 10
        assert len(list((tmp_path / "list").glob("*.log"))) == 1
        one.close()
        if not again:
            one = DeliveredList(str(tmp_path / "list"))
    one = DeliveredList(str(tmp_path / "list"))
    assert [run.newest for run in one.old(1000.0 + 45 + KEEP)] == [1009.0, 1019.0, 1029.0, 1039.0]
    assert one.runs[0].messages() == {f"ID{n}" for n in range(10)}
    one.forget(one.old(1000.0 + 45 + KEEP))
    assert not one.has("ID39_0", 1000.0)
    assert one.has("ID40_0", 1000.0)
    one.close()


def test_a_torn_or_damaged_list(tmp_path: pathlib.Path) -> None:
    one = DeliveredList(str(tmp_path))
    one.add([(f"ID{n}_0", 1.0) for n in range(3)])
    one.close()
    [log] = tmp_path.glob("*.log")
    data = bytearray(log.read_bytes())
    data[delivered.SIZE + 3] ^= 1
    log.write_bytes(bytes(data[:-5]))
    one = DeliveredList(str(tmp_path))
    assert [one.has(f"ID{n}_0", 0.0) for n in range(3)] == [True, False, False]
    one.add([("ID2_0", 1.0)])
    one.close()
    one = DeliveredList(str(tmp_path))
    assert [one.has(f"ID{n}_0", 0.0) for n in range(3)] == [True, False, True]
    one.close()


@given(st.lists(st.text("AB0123456789", min_size=1, max_size=30), min_size=1, max_size=30), st.text("AB01", max_size=3))
def test_a_run_finds_what_it_has(tmp_path_factory: pytest.TempPathFactory, ids: list[str], other: str) -> None:
    folder = tmp_path_factory.mktemp("run")
    one = DeliveredList(str(folder))
    one.add([(f"{id}_0", 5.0) for id in ids])
    one._seal()  # pyright: ignore[reportPrivateUsage]
    assert all(one.has(f"{id}_0", 5.0) for id in ids)
    assert one.has(f"{other}_0", 5.0) == (other in ids)
    one.close()


# --- the index and sessions ---


def fill(
    folder: pathlib.Path, count: int, account: str = MARC, text: bytes = b"Subject: x\r\n\r\nx\r\n"
) -> pathlib.Path:
    box = folder / folder_name(account)
    places.make_mailbox(str(box))
    for n in range(count):
        (box / "new" / file_name(f"ID{n}_0", NOW + n, "h", len(text))).write_bytes(text)
    return box


def test_one_session_at_a_time(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, 2)
    box = open_mailbox(str(tmp_path), MARC)
    with pytest.raises(MailboxInUse):
        open_mailbox(str(tmp_path), MARC)
    box.close()
    open_mailbox(str(tmp_path), MARC).close()


def test_uids_live_through_what_other_programs_do(tmp_path: pathlib.Path) -> None:
    folder = fill(tmp_path, 4)

    def look() -> tuple[int, dict[str, int], list[str]]:
        box = open_mailbox(str(tmp_path), MARC, NOW)
        index = Index(str(folder), NOW)
        uidls = [box.uidl(n) for n in range(len(box))]
        box.close()
        assert index.names == box.names
        return index.validity, dict(zip(index.names, index.uids, strict=True)), uidls

    validity, first, uidls = look()
    assert list(first.values()) == [1, 2, 3, 4]
    names = list(first)
    (folder / "new" / names[0]).rename(folder / "cur" / f"{names[0]}:2,S")  # read
    (folder / "new" / names[1]).unlink()
    (folder / "cur" / "1700000000.M1P2.other:2,").write_bytes(b"a\nb\n")
    (folder / "cur" / ".hidden").write_bytes(b"x")
    (folder / "cur" / "3.directory").mkdir()
    (folder / "cur" / "4.link").symlink_to("/etc/passwd")
    again, second, more = look()
    assert again == validity
    assert second == {names[0]: 1, names[2]: 3, names[3]: 4, "1700000000.M1P2.other": 5}
    assert more == [uidls[0], uidls[2], uidls[3], "1700000000.M1P2.other"]
    assert look() == (validity, second, more)
    (folder / NAME).unlink()
    later, third, _ = look()
    assert later >= validity
    assert list(third) == ["1700000000.M1P2.other", names[0], names[2], names[3]]


@pytest.mark.parametrize("cut", [1, 5, 9, 30])
def test_a_torn_index_is_built_again(tmp_path: pathlib.Path, cut: int) -> None:
    folder = fill(tmp_path, 3)
    open_mailbox(str(tmp_path), MARC, NOW).close()
    (folder / "new" / "1900000000.X_0.h").write_bytes(b"x")
    open_mailbox(str(tmp_path), MARC, NOW).close()
    path = folder / NAME
    path.write_bytes(path.read_bytes()[:-cut])
    for _ in range(2):
        box = open_mailbox(str(tmp_path), MARC, NOW)
        assert len(box) == 4
        box.close()
        # which UIDs the lost end had given is not known: none of them is given again
        assert Index(str(folder), NOW).uids == [1, 2, 3, 4 + DAMAGE]


@given(st.data())
def test_the_index_is_what_happened(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("index")
    there: dict[str, int] = {}
    used = 0
    for step in range(data.draw(st.integers(1, 8))):
        for name in data.draw(st.lists(st.sampled_from(sorted(there) or ["-"]), unique=True, max_size=4)):
            there.pop(name, None)
        for n in range(data.draw(st.integers(0, 3))):
            there[f"{step}.{n}.ü\udcff"] = used = used + 1
        index = Index(str(folder), NOW)
        index.update(dict.fromkeys(there, ""), lambda names: [(name, len(name)) for name in sorted(names)])
        if data.draw(st.booleans()) or step == 0:
            index.save()
        else:  # it was never saved: the next one says the same
            index = Index(str(folder), NOW)
            index.update(dict.fromkeys(there, ""), lambda names: [(name, len(name)) for name in sorted(names)])
            index.save()
        assert dict(zip(index.names, index.uids, strict=True)) == there
        assert index.sizes == [len(name) for name in index.names]
        read = Index(str(folder), NOW)
        assert (read.names, read.uids, read.sizes, read.next) == (index.names, index.uids, index.sizes, used + 1)


def test_a_mailbox_changed_underneath(tmp_path: pathlib.Path) -> None:
    folder = fill(tmp_path, 3)
    box = open_mailbox(str(tmp_path), MARC, NOW)
    name = box.names[0]
    (folder / "new" / name).rename(folder / "cur" / f"{name}:2,FS")
    (folder / "new" / box.names[1]).unlink()
    opened = box.open(0)
    assert opened.read() == b"Subject: x\r\n\r\nx\r\n"
    assert opened.read() == b""
    opened.close()
    with pytest.raises(FileNotFoundError):
        box.open(1)
    (folder / "cur" / f"{name}:2,FS").rename(folder / "cur" / f"{name}:2,FST")
    box.remove([0, 1])
    assert len(list(folder.glob("*/1*"))) == 1
    box.close()


def test_sizes_count_each_line_end_as_crlf(tmp_path: pathlib.Path) -> None:
    box = tmp_path / MARC
    places.make_mailbox(str(box))
    letters = {
        "1.a": b"a\nb\nc\n",
        "2.b": b"a\r\nb\r\n",
        "3.c": b"a\rb\r",
        "4.d": b"x" * 70_000 + b"\n",
        "5.e,S=3,W=99": b"a\nb\n",  # a lie: the file is not of that size
        "6.f,S=4,W=6": b"a\nb\n",
    }
    for name, text in letters.items():
        (box / "cur" / f"{name}:2,S").write_bytes(text)
    session = open_mailbox(str(tmp_path), MARC, NOW)
    for n, text in enumerate(letters.values()):
        wanted = re.sub(rb"\r\n|\r|\n", b"\r\n", text)
        opened, got = session.open(n), b""
        while piece := opened.read():
            got += piece
        opened.close()
        assert got == wanted
        assert session.sizes[n] == len(wanted)
    session.close()


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b""])), st.integers(1, 4))
def test_line_ends_do_not_depend_on_the_cuts(words: list[bytes], step: int) -> None:
    content = b"".join(words)
    ends = WireEnds()
    got = b"".join(ends.feed(content[n : n + step]) for n in range(0, len(content), step)) + ends.finish()
    assert got == re.sub(rb"\r\n|\r|\n", b"\r\n", content)


@given(st.text())
def test_every_name_has_a_uid(name: str) -> None:
    found = uidl(name or "x")
    assert 1 <= len(found) <= 70
    assert all("!" <= one <= "~" for one in found)


def test_sizes_in_names() -> None:
    assert wire_size("1.x.h,S=5,W=7", 5) == 7
    assert wire_size("1.x.h,S=5,W=7", 6) is None
    assert wire_size("1.x.h,W=7", 6) == 7
    assert wire_size("1.x.h,S=5", 5) is None
    assert wire_size("1.x.h", 5) is None


# --- removal ---


def test_a_removal_that_was_cut_off_is_finished(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path, 10)
    box = open_mailbox(str(tmp_path), MARC, NOW)
    real, count = os.unlink, 0

    def dying(path: str) -> None:
        nonlocal count
        count += 1
        if count > 3:
            raise Stop
        real(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", dying)
        with pytest.raises(Stop):
            box.remove(range(8))
    box.close()
    assert len(list((folder / "new").iterdir())) == 7
    assert removal.pending(str(tmp_path)) == [str(folder)]
    box = open_mailbox(str(tmp_path), MARC, NOW)
    assert len(box) == 2
    assert removal.pending(str(tmp_path)) == []
    box.close()


def test_no_room_to_delete_deletes_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path, 10)
    box = open_mailbox(str(tmp_path), MARC, NOW)

    def full(fd: int, data: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            box.remove(range(8))
    assert len(list((folder / "new").iterdir())) == 10
    box.close()
    assert removal.pending(str(tmp_path)) == []
