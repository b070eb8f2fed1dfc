"""every octet is looked at: a flipped bit is found, what a crash leaves is not called damage"""

from __future__ import annotations

import pytest

from support.fake_files import FakeFiles
from support.queues import put, queue_on
from tripost.queue import records
from tripost.queue.errors import SpoolLocked
from tripost.queue.message import Deferred, Delivered, Failed
from tripost.queue.verify import verify

LOG, BODIES = "spool/log", "spool/bodies"


async def lived_in() -> FakeFiles:
    """A spool with records of each kind, small and large bodies."""
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "small", "mx:a", "mx:b")
        await put(queue, "large", "mx:a", content=b"Subject: y\r\n\r\n" + b"x" * 3000)
        await put(queue, "gone", "mx:a", content=b"Subject: z\r\n\r\n" + b"z" * 700)
        await queue.suspend("mx:b", reason="moving house")
        await queue.write_notes()
        for lease in await queue.claim("mx:a", 3):
            outcome = {"small": Failed(550, "5.1.1", "no"), "large": Deferred(451, "4.3.0", "later")}
            await queue.settle(lease, {0: outcome.get(lease.envelope.id, Delivered("relayed", "250", "h"))})
    return files


async def test_a_sound_spool() -> None:
    files = await lived_in()
    report = verify(files, "spool", offline=True)
    assert report.damage == []
    assert (report.messages, report.bodies, report.left_over) == (4, 1, 0)  # three and a report
    files.create(f"{BODIES}/stray").close()
    assert verify(files, "spool", offline=True).left_over == 1
    assert verify(files, "spool").left_over == 0  # it may be on its way in


def _proven(content: bytes) -> set[int]:
    """The octets that a checksum or a magic stands for: all but the header's reserve and the padding."""
    key = records.segment_key(content)
    assert key is not None
    found = set(range(len(records.MAGIC) + records.KEY_SIZE))
    for one in records.scan(key, content):
        if isinstance(one, records.Good):
            found |= set(range(one.offset, one.offset + records.HEAD_SIZE + len(one.payload)))
    return found | set(range(len(content) - 16, len(content)))


async def test_every_flipped_octet_of_a_sealed_segment_is_found() -> None:
    files = await lived_in()
    missed: list[tuple[str, int]] = []
    for name in files.names(LOG):
        content = files.content(f"{LOG}/{name}")
        for at in sorted(_proven(bytes(content))):
            content[at] ^= 0x10
            if not verify(files, "spool").damage:
                missed.append((name, at))
            content[at] ^= 0x10
    assert missed == []
    assert verify(files, "spool").damage == []


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tripost.queue.verify.PAUSE", 0)


async def test_bodies() -> None:
    files = await lived_in()
    (name,) = files.names(BODIES)
    content = files.content(f"{BODIES}/{name}")
    content[1500] ^= 1
    assert [line.partition(":")[2] for line in verify(files, "spool").damage] == [
        " the content of message large is damaged"
    ]
    content[1500] ^= 1
    content.append(0)
    assert "is damaged" in verify(files, "spool").damage[0]
    files.unlink(f"{BODIES}/{name}")
    for offline in (True, False):
        assert "is missing" in verify(files, "spool", offline=offline).damage[0]


async def test_beside_a_running_gateway_and_after_a_crash() -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        for n in range(40):
            await put(queue, f"m{n}", "mx:a", content=b"Subject: x\r\n\r\n" + b"b" * (n * 40))
        with pytest.raises(SpoolLocked):
            verify(files, "spool", offline=True)
        assert verify(files, "spool").damage == []
        files.fail["sync"] = 5
        with pytest.raises(Exception, match="EIO"):
            await put(queue, "refused", "mx:a")
        await put(queue, "after", "mx:a")
        assert verify(files, "spool").damage == []  # the voided range counts for nothing
        for name in files.names(LOG):
            content = files.content(f"{LOG}/{name}")
            if bytes(content[-16:]).startswith(b"TPINDEX"):
                continue
            content += b"\x7e\xd1torn tail of a record that was never promised"
        files.crash(lambda durable, now: now, entries=True)
    assert verify(files, "spool", offline=True).damage == []


async def test_an_unknown_version_is_told() -> None:
    files = await lived_in()
    content = files.content(f"{LOG}/{files.names(LOG)[0]}")
    content[:8] = b"TPOST\x00\x009"
    assert "no segment of a version known here" in verify(files, "spool").damage[0]
