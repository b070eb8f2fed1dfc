"""PROXY headers: split anywhere, and those that are none"""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.gateway.proxy_protocol import LIMIT, SIGNATURE, Header, HeaderError, HeaderReader


def version_2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + bytes([0x20 | command, family]) + len(body).to_bytes(2, "big") + body


V4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + (4711).to_bytes(2, "big") + b"\0\x19"
V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "::1")
    + (5).to_bytes(2, "big")
    + b"\0\x19"
)
GOOD = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n", Header("192.0.2.7", 4711, "198.51.100.1", 25)),
    (b"PROXY TCP6 2001:db8::7 ::1 5 25\r\n", Header("2001:db8::7", 5, "::1", 25)),
    (b"PROXY UNKNOWN\r\n", Header()),
    (b"PROXY UNKNOWN ffff:f... whatever\r\n", Header()),
    (version_2(1, 0x11, V4), Header("192.0.2.7", 4711, "198.51.100.1", 25)),
    (version_2(1, 0x21, V6 + b"\x03\0\4abcd"), Header("2001:db8::7", 5, "::1", 25)),
    (version_2(0, 0, b""), Header()),
    (version_2(1, 0x31, b"\0" * 216), Header()),
]


@pytest.mark.parametrize(("data", "header"), GOOD)
def test_headers_whole_and_octet_by_octet(data: bytes, header: Header) -> None:
    reader = HeaderReader()
    assert reader.feed(data + b"EHLO x\r\n") == header
    assert reader.rest == b"EHLO x\r\n"
    reader = HeaderReader()
    found = [reader.feed(data[n : n + 1]) for n in range(len(data))]
    assert found == [None] * (len(data) - 1) + [header]
    assert reader.rest == b""


@pytest.mark.parametrize(("data", "header"), GOOD)
def test_reading_what_is_wanted_never_takes_more(data: bytes, header: Header) -> None:
    reader, stream, found = HeaderReader(), data + b"EHLO x\r\n", None
    while found is None:
        part, stream = stream[: reader.wanted], stream[reader.wanted :]
        found = reader.feed(part)
    assert (found, reader.rest, stream) == (header, b"", b"EHLO x\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"EHLO x\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 70000 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 025 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 25\r\n",
        b"PROXY UNIX\r\n",
        b"PROXY " + b"x" * 110,
        version_2(2, 0x11, V4),
        version_2(1, 0x11, V4[:8]),
        SIGNATURE + b"\x11\x11\0\0",
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(HeaderError):
        HeaderReader().feed(data)


@given(st.binary(max_size=80), st.sampled_from([b"", b"PROXY ", SIGNATURE]), st.integers(1, 9))
def test_whatever_comes_it_ends(junk: bytes, start: bytes, step: int) -> None:
    reader, data = HeaderReader(), start + junk
    try:
        for at in range(0, len(data), step):
            assert 1 <= reader.wanted <= LIMIT + 65_536
            if reader.feed(data[at : at + step]) is not None:
                break
    except HeaderError:
        pass
