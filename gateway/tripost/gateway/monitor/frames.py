"""websocket frames of a server, made once for many clients (RFC 6455 §5.2)

Pure. What a server sends is not masked, so that a frame is the same for everyone.
"""

from __future__ import annotations

import struct

TEXT = 0x1
_WHOLE = 0x80


def frame(payload: bytes) -> bytes:
    """One whole text message."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", _WHOLE | TEXT, size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", _WHOLE | TEXT, 126, size)
    else:
        head = struct.pack("!BBQ", _WHOLE | TEXT, 127, size)
    return head + payload
