"""records prove themselves; torn tails and damage are told apart"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tripost.queue import records
from tripost.queue.records import Damaged, Good

KEY = b"k" * records.KEY_SIZE


def _segment(payloads: list[bytes]) -> tuple[bytes, list[int]]:
    data, at = records.segment_header(KEY), []
    for payload in payloads:
        at.append(len(data))
        data += records.encode(KEY, len(data), 2, payload)
    return data, at


@given(st.lists(st.binary(max_size=100), max_size=8))
def test_what_was_written_is_read(payloads: list[bytes]) -> None:
    data, at = _segment(payloads)
    assert list(records.scan(KEY, data)) == [Good(2, payload, one) for payload, one in zip(payloads, at, strict=True)]


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5), st.data())
def test_every_cut_is_a_torn_tail(payloads: list[bytes], data: st.DataObject) -> None:
    whole, at = _segment(payloads)
    cut = data.draw(st.integers(records.SEGMENT_HEADER, len(whole)))
    found = list(records.scan(KEY, whole[:cut]))
    good = [one for one in found if isinstance(one, Good)]
    assert [one.payload for one in good] == payloads[: len(good)]
    assert all(one.torn for one in found if isinstance(one, Damaged))
    complete = sum(1 for n, start in enumerate(at) if start + records.HEAD_SIZE + len(payloads[n]) <= cut)
    assert len(good) == complete


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=3, max_size=6), st.data())
def test_damage_in_the_middle_hides_nothing_behind_it(payloads: list[bytes], data: st.DataObject) -> None:
    whole, at = _segment(payloads)
    broken = bytearray(whole)
    position = data.draw(st.integers(at[1], at[1] + records.HEAD_SIZE + len(payloads[1]) - 1))
    broken[position] ^= 1 << data.draw(st.integers(0, 7))
    found = list(records.scan(KEY, bytes(broken)))
    assert [one.payload for one in found if isinstance(one, Good)] == payloads[:1] + payloads[2:]
    assert [one.torn for one in found if isinstance(one, Damaged)] == [False]


def test_a_body_cannot_forge_a_record() -> None:
    forged = records.encode(KEY, 4096, 3, b"settled")  # right key, wrong place
    alien = records.encode(b"x" * 16, records.SEGMENT_HEADER, 3, b"settled")
    data, _ = _segment([b"\0" * 4 + forged + alien])
    assert [one.kind for one in records.scan(KEY, data) if isinstance(one, Good)] == [2]
    damaged = bytearray(data)
    damaged[records.SEGMENT_HEADER] ^= 1  # with the outer record gone, the inner ones still prove nothing
    assert not [one for one in records.scan(KEY, bytes(damaged)) if isinstance(one, Good)]
