"""websocket frames of a server, made once for many clients (RFC 6455 §5.2)

Pure. What a server sends is not masked, so that a frame is the same for everyone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

TEXT = 0x1
_WHOLE = 0x80
_USUAL = 2048  # octets: shorter ones have a head that is made already


def frame(payload: bytes) -> bytes:
    """One whole text message."""
    size = len(payload)
    return (_HEADS[size] if size < _USUAL else _head(size)) + payload


def frames(payloads: Iterable[bytes]) -> bytes:
    """Each a message of its own."""
    heads = _HEADS
    return b"".join([(heads[len(one)] if len(one) < _USUAL else _head(len(one))) + one for one in payloads])


def _head(size: int) -> bytes:
    if size < 126:
        return struct.pack("!BB", _WHOLE | TEXT, size)
    if size < 1 << 16:
        return struct.pack("!BBH", _WHOLE | TEXT, 126, size)
    return struct.pack("!BBQ", _WHOLE | TEXT, 127, size)


_HEADS = tuple(_head(size) for size in range(_USUAL))
