"""the history: what is kept, for how long, in how much room, and what happens when its database breaks"""

from __future__ import annotations

import json
import os
import pathlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import trio

from tripost.gateway.config import load
from tripost.gateway.observe.history import History
from tripost.gateway.observe.history_store import FILE, HistoryStore, read_only
from tripost.gateway.observe.observer import Observer
from tripost.gateway.observe.past import MOST_ATTEMPTS, About, Past, last_logins, past_of, words
from tripost.gateway.observe.reader import Batch
from tripost.gateway.settings import Config
from tripost.queue.bus import Bus
from tripost.queue.events import (
    Accepted,
    Bounced,
    DeferredUntil,
    DeliveredLocally,
    Event,
    LoggedIn,
    Relayed,
    Trouble,
    Unreachable,
)
from tripost.queue.message import Transfer

NOW = 1_800_000_000.0
DAY = 86_400.0
LISTEN = '[[listen]]\nservice = "smtp"\naddress = "127.0.0.1:0"\n'
TO = ("marc@machin.com", "Anne@Far.example")


class Told:
    """Events with numbers as a bus gives them."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def _put(self, event: Event) -> None:
        msgspec.structs.force_setattr(event, "seq", int(event.time * 1e6) + len(self.events))
        self.events.append(event)

    def accepted(self, id: str, at: float = NOW, sender: str = "fred@truc.fr", to: tuple[str, ...] = TO) -> None:
        self._put(Accepted(time=at, id=id, sender=sender, recipients=list(to), size=9, client="192.0.2.1"))

    def relayed(self, id: str, number: int, at: float = NOW + 1, to: tuple[str, ...] = TO) -> None:
        self._put(
            Relayed(
                time=at,
                id=id,
                recipient_id=number,
                recipient=to[number],
                next_hop="mx:far.example",
                host="mx.far.example",
                reply="250 2.0.0 ok",
                attempt=2,
                transfer=Transfer("192.0.2.7", "TLSv1.3", dot=0.25),
            )
        )

    def deferred(self, id: str, number: int, at: float = NOW + 0.5) -> None:
        self._put(
            DeferredUntil(
                time=at,
                id=id,
                recipient_id=number,
                recipient=TO[number],
                next_hop="mx:far.example",
                host="mx.far.example",
                reply="451 4.7.1 later",
                attempt=1,
                due=at + 300,
                delay=300.0,
            )
        )

    def other(self, event: Event) -> None:
        self._put(event)

    @property
    def batch(self) -> bytes:
        events, self.events = self.events, []
        return Batch.of(events).lines


def store_in(folder: pathlib.Path, size: int = 1 << 30) -> HistoryStore:
    return HistoryStore(str(folder / FILE), keep=7 * DAY, size=size, expire=5 * DAY)


def asked(folder: pathlib.Path, about: str, **more: Any) -> list[Past]:
    with read_only(str(folder / FILE)) as db:
        return list(past_of(db, About(about=about, **more)))


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_message_from_its_acceptance_to_its_end(tmp_path: pathlib.Path, told: Told) -> None:
    store = store_in(tmp_path)
    told.accepted("A")
    told.other(
        DeliveredLocally(time=NOW + 0.1, id="A", recipient_id=0, recipient=TO[0], attempt=1),
    )
    told.other(
        Unreachable(time=NOW + 0.2, id="A", site="x", host="mx2.far.example", phase="connect", reply="no", open=0)
    )
    told.deferred("A", 1)
    store.write(told.batch)
    (open_still,) = asked(tmp_path, "A")
    assert (open_still.open, open_still.ended, len(open_still.attempts)) == (1, 0.0, 3)
    told.relayed("A", 1)
    store.write(told.batch)
    for about in ("A", "fred@truc.fr", "FRED@truc.fr", TO[0], "anne@far.example", "@Far.example", "mx:far.example"):
        (one,) = asked(tmp_path, about)
        assert (one.id, one.sender, one.size, one.open, one.ended) == ("A", "fred@truc.fr", 9, 0, NOW + 1)
        assert [two.outcome for two in one.attempts] == ["delivered", "unreachable", "deferred", "relayed"]
        assert one.attempts[-1].transfer == Transfer("192.0.2.7", "TLSv1.3", dot=0.25)
        assert one.attempts[2].due == NOW + 300.5
    for about in ("B", "nobody@truc.fr", "@truc.fr", "mx:truc.fr", "<>"):
        assert asked(tmp_path, about) == []
    assert [words(two) for two in one.attempts[::3]] == [
        "put into the mailbox",
        "relayed to mx.far.example [192.0.2.7] with TLSv1.3 in 0.25 s: 250 2.0.0 ok",
    ]
    assert words(one.attempts[1]) == "could not speak to mx2.far.example: no"
    assert words(one.attempts[2]).startswith("deferred by mx.far.example: 451 4.7.1 later; again at ")
    store.close()


def test_the_same_batch_again_changes_nothing(tmp_path: pathlib.Path, told: Told) -> None:
    store = store_in(tmp_path)
    told.accepted("A")
    told.deferred("A", 1)
    batch = told.batch
    store.write(batch)
    store.write(batch)
    assert len(asked(tmp_path, "A")[0].attempts) == 1
    store.close()


def test_the_newest_first_since_and_at_most(tmp_path: pathlib.Path, told: Told) -> None:
    store = store_in(tmp_path)
    for n in range(10):
        told.accepted(f"M{n}", NOW + n)
        told.relayed(f"M{n}", 1, NOW + n + 0.5)
    store.write(told.batch)
    assert [one.id for one in asked(tmp_path, "fred@truc.fr", limit=3)] == ["M9", "M8", "M7"]
    assert [one.id for one in asked(tmp_path, TO[1], since=NOW + 7.9, limit=0)] == ["M9", "M8"]
    assert [one.id for one in asked(tmp_path, "@far.example", limit=1)] == ["M9"]
    assert asked(tmp_path, "M1", since=NOW + 5) == []
    store.close()


def test_a_report_and_a_failure(tmp_path: pathlib.Path, told: Told) -> None:
    store = store_in(tmp_path)
    told.accepted("A", to=TO[:1])
    told.other(
        Bounced(
            time=NOW + 1,
            id="A",
            recipient_id=0,
            recipient=TO[0],
            next_hop="local",
            host="",
            reply="550 5.1.1 nobody",
            attempt=1,
            report="R",
        )
    )
    told.accepted("R", NOW + 1, sender="", to=("fred@truc.fr",))
    store.write(told.batch)
    assert [one.id for one in asked(tmp_path, "<>")] == ["R"]
    (one,) = asked(tmp_path, "A")
    assert words(one.attempts[0]) == "given up, by the queue: 550 5.1.1 nobody; told the sender in R"
    assert one.ended == NOW + 1
    store.close()


def test_many_attempts_come_in_pieces(tmp_path: pathlib.Path, told: Told) -> None:
    store = store_in(tmp_path)
    told.accepted("A")
    for n in range(MOST_ATTEMPTS * 2 + 1):
        told.deferred("A", 1, NOW + n)
    store.write(told.batch)
    found = asked(tmp_path, "A")
    assert [(len(one.attempts), one.more) for one in found] == [(200, True), (200, True), (1, False)]
    assert [two.time for one in found for two in one.attempts] == [NOW + n for n in range(401)]
    store.close()


def test_what_ended_long_ago_goes(tmp_path: pathlib.Path, told: Told) -> None:
    store = store_in(tmp_path)
    for n in range(1200):
        told.accepted(f"E{n}", NOW + n / 1000, to=TO[1:])
        told.relayed(f"E{n}", 0, NOW + 2, to=TO[1:])
    told.accepted("OPEN", NOW + 3)
    told.accepted("YOUNG", NOW + 3, to=TO[1:])
    told.relayed("YOUNG", 0, NOW + DAY, to=TO[1:])
    told.deferred("ORPHAN", 0, NOW + 3)  # its acceptance was dropped
    store.write(told.batch)
    store.forget_old(NOW + 7 * DAY)
    assert len(asked(tmp_path, "fred@truc.fr", limit=0)) == 1202
    store.forget_old(NOW + 7.5 * DAY)
    assert [one.id for one in asked(tmp_path, "fred@truc.fr", limit=0)] == ["YOUNG", "OPEN"]
    assert len(asked(tmp_path, "ORPHAN")) == 1
    store.forget_old(NOW + 8.5 * DAY)
    assert [one.id for one in asked(tmp_path, "fred@truc.fr", limit=0)] == ["OPEN"]
    store.forget_old(NOW + 14 * DAY)  # it must have expired by then
    assert asked(tmp_path, "fred@truc.fr", limit=0) == []
    assert asked(tmp_path, "ORPHAN") == []
    store.close()


def test_it_stays_in_its_size_and_the_first_ended_go_first(tmp_path: pathlib.Path, told: Told) -> None:
    size = 1 << 20
    store = store_in(tmp_path, size)
    told.accepted("FIRST", NOW - 1)  # not ended
    number = 0
    for _ in range(60):
        for _ in range(100):
            told.accepted(f"M{number}", NOW + number, to=TO[1:])
            told.relayed(f"M{number}", 0, NOW + number + 0.5, to=TO[1:])
            number += 1
        store.write(told.batch)
        store.shrink()
        assert store.used <= size
    store.close()
    assert os.path.getsize(tmp_path / FILE) <= size
    found = [one.id for one in asked(tmp_path, "fred@truc.fr", limit=0)]
    kept = found[:-1]
    assert 500 < len(kept) < 5000
    assert found[-1] == "FIRST"
    assert kept == [f"M{n}" for n in range(number - 1, number - 1 - len(kept), -1)]


def test_even_without_an_end_it_stays_in_its_size(tmp_path: pathlib.Path, told: Told) -> None:
    store = store_in(tmp_path, 1 << 20)
    for turn in range(40):
        for n in range(100):
            told.accepted(f"M{turn}.{n}", NOW + turn)
            told.deferred(f"O{turn}.{n}", 0, NOW + turn)
        store.write(told.batch)
        store.shrink()
    assert store.used <= 1 << 20
    store.close()


# --- the reader ---


def config_in(folder: pathlib.Path, more: str = "") -> Config:
    path = folder / "t.toml"
    path.write_text(f'hostname = "smtp.machin.com"\nstate = "state"\n{LISTEN}{more}')
    return load(str(path))


class House:
    """A bus, its observer, and a history."""

    def __init__(self, folder: pathlib.Path, more: str = "") -> None:
        self.history = History(config_in(folder, more))
        self.history.gather = 0.001
        self.bus = Bus()
        self.seen: list[Event] = []
        self.bus.add_sink(self.seen.append)
        self.observer = Observer(self.bus, [self.history], time.time)

    def __enter__(self) -> House:
        return self

    def __exit__(self, *exc: object) -> None:
        self.observer.close()

    def tell(self, id: str) -> None:
        now = time.time()
        self.bus.emit(Accepted(time=now, id=id, sender="fred@truc.fr", recipients=[TO[0]], size=1, client=""))
        self.bus.emit(DeliveredLocally(time=now, id=id, recipient_id=0, recipient=TO[0], attempt=1))

    async def ask(self, about: str) -> list[str]:
        return [one.id async for one in self.history.ask(About(about=about))]

    async def told(self, *ids: str) -> None:
        """Tell, and wait until it is written or lost."""
        for id in ids:
            self.tell(id)
        self.observer.flush()
        with trio.fail_after(20):
            while self.history.waiting:  # noqa: ASYNC110 - another thread's
                await trio.sleep(0.01)

    def troubles(self) -> list[str]:
        self.observer._look(self.history, self.observer._told["history"])
        return [one.reason for one in self.seen if isinstance(one, Trouble)]


async def test_a_bus_feeds_it(tmp_path: pathlib.Path) -> None:
    with House(tmp_path) as house:
        await house.told("A", "B")
        assert await house.ask("fred@truc.fr") == ["B", "A"]
        assert (house.history.dropped, house.history.wrong) == (0, "")
        house.bus.emit(LoggedIn(time=NOW, service="pop3", account=TO[0], client="192.0.2.1"))
        house.bus.emit(LoggedIn(time=NOW + 1, service="submission", account=TO[0], client="192.0.2.2"))
        await house.told()
    found = last_logins(house.history.path)
    assert {name: (one.time, one.service, one.client) for name, one in found.items()} == {
        TO[0]: (NOW + 1, "submission", "192.0.2.2")
    }
    assert os.stat(house.history.path).st_mode & 0o777 == 0o600
    assert last_logins(str(tmp_path / "none")) == {}


async def test_a_file_that_is_no_database_is_put_aside(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state" / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is no database, and it is longer than a header of one would be" * 100)
    with House(tmp_path) as house:
        await house.told("A")
        assert await house.ask("A") == ["A"]
        (reason,) = house.troubles()
        assert "is damaged (file is not a database): kept as" in reason
    assert path.with_name("history.db.damaged").read_bytes().startswith(b"this is no database")


async def test_pages_that_go_bad_while_it_runs(tmp_path: pathlib.Path) -> None:
    with House(tmp_path) as house:
        for n in range(20):
            await house.told(*[f"A{n}.{m}" for m in range(100)])
    path = tmp_path / "state" / FILE
    data = bytearray(path.read_bytes())
    with House(tmp_path) as house:
        await house.told("B")
        data[4096 * 2 :] = os.urandom(len(data) - 4096 * 2)
        path.write_bytes(bytes(data))
        with pytest.raises(sqlite3.DatabaseError):
            await house.ask("fred@truc.fr")
        house.history.tick = 0.01  # the next look comes soon
        for n in range(200):
            await house.told(f"C{n}")
            if house.troubles():
                break
        await house.told("D")
        assert await house.ask("D") == ["D"]
        assert house.history.wrong == ""
    assert "history.db.damaged" in {one.name for one in path.parent.iterdir()}


async def test_a_place_that_is_none_is_told_and_tried_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tripost.gateway.observe.history.AGAIN", 0.0)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "history").write_text("a file where the folder should be")
    with House(tmp_path) as house:
        await house.told("A")
        assert house.history.dropped == 2
        assert house.history.wrong == "File exists"
        (tmp_path / "state" / "history").unlink()
        await house.told("B")
        assert await house.ask(TO[0]) == ["B"]
        assert house.history.wrong == ""


async def test_tables_of_another_version_are_left_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state" / FILE
    path.parent.mkdir(parents=True)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    with House(tmp_path) as house:
        await house.told("A")
        assert house.history.wrong.endswith("has tables of version 99")
        assert house.history.dropped == 2
    assert path.read_bytes() == before


async def test_a_disk_that_hangs_keeps_nobody(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hung = threading.Event()

    def never(db: sqlite3.Connection, about: About) -> Iterator[Past]:
        hung.wait(20)
        return iter(())

    with House(tmp_path) as house:
        await house.told("A")
        monkeypatch.setattr("tripost.gateway.observe.history.past_of", never)
        began = trio.current_time()
        with trio.move_on_after(0.1) as scope:
            await house.ask("A")
        assert scope.cancelled_caught
        assert trio.current_time() - began < 5
        hung.set()
        monkeypatch.undo()
        assert await house.ask("A") == ["A"]
        found = house.history.ask(About(about="A"))
        assert (await anext(found)).id == "A"
        await found.aclose()  # who has seen enough


def test_keep_nothing(tmp_path: pathlib.Path) -> None:
    assert History(config_in(tmp_path, '[history]\nkeep = "0s"\n')).off
    assert not History(config_in(tmp_path)).off


def test_the_json_of_an_answer(tmp_path: pathlib.Path, told: Told) -> None:
    store = store_in(tmp_path)
    told.accepted("A")
    told.relayed("A", 1)
    store.write(told.batch)
    store.close()
    (one,) = asked(tmp_path, "A")
    again = msgspec.convert(json.loads(msgspec.json.encode(one)), Past)
    assert again == one
