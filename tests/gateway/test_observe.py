"""the event log: bounded, never waited for, reopened; the journal's protocol; the published schema

Real pipes, files and sockets, and so the real clock.
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from tripost.gateway.observe.journal import datagram
from tripost.gateway.observe.log import EventLog, leads_to_journal, readable
from tripost.gateway.observe.observer import Observer
from tripost.gateway.observe.reader import Batch, Reader
from tripost.gateway.observe.schema import KINDS, kinds, name_of, schema
from tripost.queue.bus import Bus
from tripost.queue.events import Accepted, Event, Relayed, Stopped, Trouble
from tripost.queue.message import Transfer

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


class Kept(Reader):
    """A reader that keeps them, or fails with `wrong_now`."""

    def __init__(self) -> None:
        super().__init__("kept")
        self.events: list[Event] = []
        self.wrong_now: Exception | None = None

    def consume(self, batches: Sequence[Batch]) -> None:
        if self.wrong_now is not None:
            raise self.wrong_now
        self.events += [event for batch in batches for event in batch.events]

    def named(self, name: str) -> list[dict[str, Any]]:
        rows = [msgspec.to_builtins(one) for one in self.events]
        return [row for row in rows if row["event"] == name]


@asynccontextmanager
async def observed(*readers: Reader) -> AsyncGenerator[tuple[Bus, Observer]]:
    bus = Bus()
    observer = Observer(bus, readers, time.time)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(observer.run)
            yield bus, observer
            nursery.cancel_scope.cancel()
    finally:
        observer.close()


async def until(what: Any) -> None:
    with trio.fail_after(20):
        while not what():  # noqa: ASYNC110 - looks at threads
            await trio.sleep(0.01)


def trouble(n: int, size: int = 100) -> Trouble:
    return Trouble(time=float(n), where="test", reason="x" * size)


def lines_of(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


async def test_a_pipe_that_nobody_reads_delays_nobody_and_is_told() -> None:
    ours, theirs = os.pipe()
    log, kept = EventLog(f"/dev/fd/{theirs}", "json", most=50_000), Kept()
    log.open()
    os.close(theirs)
    async with observed(log, kept) as (bus, observer):
        began = time.monotonic()
        for n in range(5000):
            bus.emit(trouble(n))
        await until(lambda: kept.named("dropped"))
        assert time.monotonic() - began < 5.0
        (told,) = kept.named("dropped")
        assert (told["reader"], told["reason"]) == ("log", "too slow")
        stuck = observer.statistics().readers[0]
        assert stuck.waiting <= 100_000  # one batch
        assert stuck.dropped >= told["events"] > 3000
        got = bytearray()
        os.set_blocking(ours, False)

        def drained() -> bool:
            try:
                got.extend(os.read(ours, 1 << 16))
            except BlockingIOError:
                pass
            return log.waiting == 0

        await until(drained)
        bus.emit(trouble(5000))
        await until(lambda: drained() and b'"time":5000.0' in got)
    rows = lines_of(bytes(got))
    seen = {row["seq"] for row in rows}
    missing = max(seen) - min(seen) + 1 - len(seen)
    final = log.statistics().dropped
    assert missing == final
    assert kept.named("dropped")[-1]["total"] == final
    os.close(ours)


async def test_a_full_disk_is_told_once_a_minute_and_the_end_waits_for_nothing() -> None:
    log, kept = EventLog("/dev/full", "json"), Kept()
    log.open()
    async with observed(log, kept) as (bus, _):
        for n in range(100):
            bus.emit(trouble(n))
        await until(lambda: kept.named("dropped"))
        await trio.sleep(0.3)
    assert [row["reason"] for row in kept.named("dropped")] == ["No space left on device"]
    assert log.statistics().wrong == "No space left on device"
    assert log.dropped == 101


async def test_a_reader_that_fails_goes_on_with_the_next_batch() -> None:
    kept = Kept()
    async with observed(kept) as (bus, observer):
        kept.wrong_now = ValueError("no")
        bus.emit(trouble(1))
        await until(lambda: kept.dropped)
        assert observer.statistics().readers[0].wrong == "no"
        kept.wrong_now = None
        bus.emit(trouble(2))
        await until(lambda: kept.named("dropped"))
    assert [row["time"] for row in kept.named("trouble")] == [2.0]
    assert kept.named("dropped")[0]["total"] == 1


async def test_a_line_that_was_cut_is_ended_before_the_next() -> None:
    ours, theirs = os.pipe()
    log = EventLog(f"/dev/fd/{theirs}", "json")
    log.open()
    os.close(theirs)
    os.set_blocking(log._fd, False)  # a write that does not fit whole fails behind its first part, as on a full disk
    async with observed(log) as (bus, _):
        bus.emit(trouble(1, 100_000))
        await until(lambda: log.dropped == 1)
        got = os.read(ours, 1 << 20)
        bus.emit(trouble(2))
        await until(lambda: log.statistics().taken)
        got += os.read(ours, 1 << 20)
    cut, whole, *_ = got.split(b"\n")
    assert cut.startswith(b'{"event":"trouble","time":1.0')
    assert json.loads(whole)["time"] == 2.0
    os.close(ours)


async def test_hup_begins_a_new_file_and_loses_no_line(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "events.log"
    log = EventLog(str(path))
    log.open()
    async with observed(log) as (bus, observer):
        for turn in range(20):
            for n in range(50):
                bus.emit(trouble(turn * 50 + n))
            path.rename(tmp_path / f"old.{turn}")
            observer.flush()
            assert log.reopen()
            await until(path.exists)
    rows = [row for one in sorted(tmp_path.iterdir()) for row in lines_of(one.read_bytes())]
    assert sorted(row["time"] for row in rows) == [float(n) for n in range(1000)]
    assert path.stat().st_mode & 0o777 == 0o640


async def test_a_file_that_cannot_be_opened_again_is_written_on(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log, kept = EventLog(str(folder / "events.log")), Kept()
    log.open()
    async with observed(log, kept) as (bus, _):
        folder.rename(tmp_path / "gone")
        log.reopen()
        bus.emit(trouble(1))
        await until(lambda: len(kept.named("trouble")) == 2)
    reasons = [str(row["reason"]) for row in kept.named("trouble")]
    assert any(one.endswith("cannot be opened again: No such file or directory") for one in reasons)
    assert b'"time":1.0' in (tmp_path / "gone" / "events.log").read_bytes()


def test_off_and_standard_error() -> None:
    assert EventLog(form="off").off
    assert not EventLog().reopen()


# --- the journal ---


def fields_of(data: bytes) -> dict[str, str]:
    """The journal's reading of a datagram."""
    found: dict[str, str] = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, mark, value = line.partition(b"=")
        if not mark:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size + 1 :]
        found[name.decode()] = value.decode()
        data = rest
    return found


async def test_the_journal_gets_fields(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "journal")
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.bind(path)
    journal.settimeout(20)
    log = EventLog(journal=path)
    monkeypatch.setattr("tripost.gateway.observe.log.leads_to_journal", lambda fd, told: True)
    log.open()
    async with observed(log) as (bus, _):
        bus.emit(
            Relayed(
                time=1.5,
                id="ID1",
                recipient_id=0,
                recipient="marc@machin.com",
                next_hop="mx:machin.com",
                host="mx",
                reply="250 two\nlines",
                attempt=1,
                transfer=Transfer("192.0.2.7", "TLSv1.3", dot=0.5),
            )
        )
        bus.emit(trouble(2, 3 << 20))  # too large for a datagram
        first = await trio.to_thread.run_sync(journal.recv, 1 << 20)
        data, descriptors, _, _ = await trio.to_thread.run_sync(socket.recv_fds, journal, 100, 4)
    fields = fields_of(first)
    assert fields["MESSAGE"].startswith("relayed id=ID1 recipient_id=0 recipient=marc@machin.com")
    assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"], fields["TRIPOST_EVENT"]) == ("6", "tripost", "relayed")
    assert (fields["TRIPOST_REPLY"], fields["TRIPOST_TIME"]) == ("250 two\nlines", "1.5")
    assert json.loads(fields["TRIPOST_TRANSFER"]) == {"address": "192.0.2.7", "tls": "TLSv1.3", "dot": 0.5}
    assert data == b""
    large = fields_of(os.pread(descriptors[0], 16 << 20, 0))
    os.close(descriptors[0])
    assert (large["PRIORITY"], len(large["TRIPOST_REASON"])) == ("4", 3 << 20)
    assert log.dropped == 0
    journal.close()


def test_standard_error_leads_to_the_journal_only_where_systemd_says_so(tmp_path: pathlib.Path) -> None:
    one, two = socket.socketpair()
    with one, two, open(tmp_path / "x", "w") as file:
        found = os.fstat(one.fileno())
        assert leads_to_journal(one.fileno(), f"{found.st_dev}:{found.st_ino}")
        assert not leads_to_journal(one.fileno(), "")
        assert not leads_to_journal(two.fileno(), f"{found.st_dev}:{found.st_ino}")
        plain = os.fstat(file.fileno())
        assert not leads_to_journal(file.fileno(), f"{plain.st_dev}:{plain.st_ino}")
    assert not leads_to_journal(987_654, "1:2")


def test_a_value_cannot_forge_a_field() -> None:
    fields = fields_of(datagram({"event": "trouble", "re=ason\nX": "a\nPRIORITY=0\n"}, "m"))
    assert (fields["PRIORITY"], fields["TRIPOST_RE_ASON_X"]) == ("4", "a\nPRIORITY=0\n")


# --- text, and the schema ---


def test_text_for_people() -> None:
    event = Accepted(time=0.0, id="ID", sender="", recipients=["a@x", "b\u2028@x"], size=1, client="\x1b[2J")
    text = readable(event, clock=False)
    assert text == 'accepted id=ID sender="" recipients=["a@x","b\u2028@x"] size=1 client="\\u001b[2J"'
    assert readable(Stopped(time=0.0, clean=True)).endswith(" stopped clean=True")


def test_every_kind_is_published_and_has_a_name_of_its_own() -> None:
    def below(kind: type[Event]) -> Sequence[type[Event]]:
        return [one for sub in kind.__subclasses__() for one in (sub, *below(sub))]

    assert {one for one in below(Event) if one.__module__ == Event.__module__} == set(KINDS)
    assert len({name_of(one) for one in KINDS}) == len(KINDS)
    assert [one for one in KINDS if not one.__doc__] == []


def test_the_documents_are_as_the_code_has_it() -> None:
    again = "deploy/uv run tripost events schema > docs/events.schema.json"
    assert json.loads((DOCS / "events.schema.json").read_text()) == schema(), again
    assert (DOCS / "events.md").read_text().endswith(kinds()), "end docs/events.md with `tripost events kinds`"
