"""the control socket's frames, however they are cut; every example in the help can be typed"""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.gateway.cli.main import parser
from tripost.gateway.cli.queue_options import VERBS
from tripost.gateway.control.frames import End, FrameError, Reader, Request, Row, decode_answer, decode_request, frame

ANSWERS = [Row({"a": 1}), Row({"text": "é" * 300}), End({"messages": 2})]


@given(st.lists(st.integers(0, 900), max_size=6))
def test_cut_anywhere(cuts: list[int]) -> None:
    data = b"".join(frame(one) for one in ANSWERS)
    reader, found, at = Reader(1 << 20), [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += reader.feed(data[at:cut])
        at = max(at, cut)
    assert [decode_answer(one) for one in found] == ANSWERS


def test_too_large() -> None:
    with pytest.raises(FrameError, match="11 octets; 10 are allowed"):
        Reader(10).feed(b"\0\0\0\x0b")
    (payload,) = Reader(99).feed(frame(Request(version=1, verb="status")))
    assert decode_request(payload) == Request(version=1, verb="status", arguments={})


@pytest.mark.parametrize("verb", VERBS)
def test_examples(verb: str) -> None:
    _, example = VERBS[verb]
    program, *words = shlex.split(example)
    options = parser().parse_args(words)
    assert (program, options.command, options.verb) == ("tripost", "queue", verb)
