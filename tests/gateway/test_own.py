"""which addresses are our own"""

from __future__ import annotations

import pytest

from tripost.gateway.own import Own


@pytest.mark.parametrize(
    ("bound", "address", "ours"),
    [
        ("127.0.0.1:25", "127.0.0.1", True),
        ("127.0.0.1:25", "127.0.0.2", False),
        ("127.0.0.1:2525", "127.0.0.1", False),
        ("0.0.0.0:25", "127.0.0.2", True),
        ("0.0.0.0:25", "192.0.2.1", False),
        ("0.0.0.0:25", "::1", False),
        ("[::1]:25", "::1", True),
        ("[::]:25", "2001:db8::1", False),
        ("unix:/run/x.sock", "127.0.0.1", False),
    ],
)
def test_own_addresses(bound: str, address: str, ours: bool) -> None:
    own = Own(25, {"smtp": [bound], "submission": ["192.0.2.1:25"]})
    assert own(address) is ours
    assert bool(own) is bound.endswith(":25")
