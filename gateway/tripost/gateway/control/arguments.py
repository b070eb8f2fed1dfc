"""a request's arguments, as what its verb takes"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from tripost.gateway.control.server import Refused
from tripost.queue.finding import Wanted

T = TypeVar("T")


def as_(kind: type[T], arguments: dict[str, object]) -> T:
    """Raises Refused."""
    try:
        made = msgspec.convert(arguments, kind)
        if isinstance(made, Wanted):
            made.check()
    except (msgspec.ValidationError, ValueError) as wrong:
        text = f"not understood: {wrong}" if isinstance(wrong, msgspec.ValidationError) else str(wrong)
        raise Refused(text, 2) from wrong
    return made


def plain(wanted: Wanted) -> Wanted:
    """Without what is not a condition."""
    return Wanted(**{name: getattr(wanted, name) for name in Wanted.__struct_fields__})
