"""ids are unique and sort by time"""

from __future__ import annotations

from tripost.queue.ids import Ids


def test_unique_and_in_order() -> None:
    now = 1_800_000_000.0
    ids = Ids(lambda: now)
    found: list[str] = []
    for _ in range(3):
        found += [ids() for _ in range(4000)]  # within one microsecond
        now += 1e-5
    assert len(set(found)) == len(found)
    assert {len(one) for one in found} == {18}
    later = Ids(lambda: now + 1)
    assert later() > max(found)
    assert Ids(lambda: now)()[-4:] != Ids(lambda: now)()[-4:]  # two starts
