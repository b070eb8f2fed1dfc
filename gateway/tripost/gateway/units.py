"""durations, sizes and rates as people write them

`"90s"`, `"5m"`, `"4h"`, `"5d"`, `"200ms"` are seconds; `"32KiB"`, `"50MiB"`,
`"1GiB"`, `"100B"` are octets, `"100B/s"` octets a second. A bare number but 0 is refused: its unit is a guess.
"""

from __future__ import annotations

import re

from tripost.gateway.windows import NO_LIMIT, Rate

_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_RATE = re.compile(r"([0-9]+) ?/ ?([0-9]*) ?(s|m|min|h|d)")
_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")


def duration(text: str) -> float:
    """Seconds. Raises ValueError."""
    match = _FORM.fullmatch(text)
    if match is None or (match[2] not in _DURATIONS and text != "0"):
        raise ValueError(f'"{text}" is no duration; write one as "90s", "5m", "4h" or "5d"')
    return float(match[1]) * _DURATIONS.get(match[2], 0.0)


def size(text: str) -> int:
    """Octets. Raises ValueError."""
    match = _FORM.fullmatch(text)
    if match is None or match[2] not in _SIZES or (not match[2] and match[1] != "0"):
        raise ValueError(f'"{text}" is no size; write one as "32KiB", "50MiB" or "1GiB"')
    return int(float(match[1]) * _SIZES[match[2]])


def byte_rate(text: str) -> int:
    """Octets a second; 0 for none. Raises ValueError."""
    amount, slash, per = text.partition("/")
    if text == "0":
        return 0
    if not slash or per.strip() != "s":
        raise ValueError(f'"{text}" is no rate of octets; write one as "100B/s" or "1KiB/s"')
    return size(amount.strip())


def rate(text: str) -> Rate:
    """`"100/min"`, `"10/10min"`; empty: no limit. Raises ValueError."""
    if not text:
        return NO_LIMIT
    match = _RATE.fullmatch(text)
    if match is None or not int(match[1]) or match[2] == "0":
        raise ValueError(f'"{text}" is no rate; write one as "5/s", "100/min", "10/10min" or "1000/h"')
    return Rate(int(match[1]), int(match[2] or 1) * _DURATIONS[match[3]])


def processes(value: str | int) -> int:
    """0 for "auto". Raises ValueError."""
    if value == "auto":
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 64:
        raise ValueError('must be "auto" or a number from 1 to 64')
    return value


# --- as they are written ---


def duration_text(seconds: float) -> str:
    """The largest unit that leaves a whole number."""
    if seconds == 0:
        return "0"
    for unit in ("d", "h", "m", "s", "ms"):
        count = seconds / _DURATIONS[unit]
        if abs(count - round(count)) < 1e-9:
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"


def size_text(octets: int) -> str:
    """Likewise."""
    if octets == 0:
        return "0"
    unit = next(unit for unit in ("TiB", "GiB", "MiB", "KiB", "B") if octets % _SIZES[unit] == 0)
    return f"{octets // _SIZES[unit]}{unit}"


def byte_rate_text(octets: int) -> str:
    return f"{size_text(octets)}/s" if octets else "0"


def rate_text(found: Rate) -> str:
    """Empty where there is no limit."""
    if not found.count:
        return ""
    span = duration_text(found.seconds)
    span = f"{span}in" if span.endswith("m") else span
    return f"{found.count}/{span[1:] if span[:1] == '1' and span[1:].isalpha() else span}"
