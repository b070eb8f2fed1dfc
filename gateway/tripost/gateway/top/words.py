"""figures and names as short text, in columns. Pure.

What comes from other hosts (names, replies) may hold anything: `clean` makes one
line of printable characters of it, so that nothing of it steers the terminal.
"""

from __future__ import annotations

import unicodedata

import msgspec

WIDE = 2
MINUTE, HOUR, DAY = 60, 3600, 86400


class Span(msgspec.Struct, frozen=True):
    """`style`: a word of `screen.STYLES`, "" for plain."""

    text: str
    style: str = ""


Line = list[Span]


def clean(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join([one if one.isprintable() else "?" for one in text])


def width(text: str) -> int:
    """In a terminal's cells."""
    if text.isascii():
        return len(text)
    return sum([_cells(one) for one in text])


def _cells(one: str) -> int:
    if unicodedata.combining(one) or unicodedata.category(one) in ("Mn", "Me", "Cf"):
        return 0
    return WIDE if unicodedata.east_asian_width(one) in "WF" else 1


def fit(text: str, cells: int, right: bool = False) -> str:
    """Exactly so wide: cut with an ellipsis, or filled."""
    wide = width(text)
    if wide > cells:
        text, wide = _cut(text, cells)
    blank = " " * (cells - wide)
    return blank + text if right else text + blank


def _cut(text: str, cells: int) -> tuple[str, int]:
    if cells < 1:
        return "", 0
    kept: list[str] = []
    wide = 0
    for one in text:
        more = _cells(one)
        if wide + more > cells - 1:
            break
        kept.append(one)
        wide += more
    return "".join(kept) + "…", wide + 1


def fit_line(line: Line, cells: int) -> Line:
    """Exactly so wide."""
    made: Line = []
    left = cells
    for span in line:
        wide = width(span.text)
        if wide > left:
            made.append(Span(fit(span.text, left), span.style))
            return made
        made.append(span)
        left -= wide
    if left:
        made.append(Span(" " * left, made[-1].style if made and made[-1].style in ("selected", "head") else ""))
    return made


def count(number: float) -> str:
    """At most six cells: 1,234 · 12.3k · 4.5M."""
    if number < 10_000:
        return f"{number:,.0f}"
    for limit, unit in ((1e6, "k"), (1e9, "M"), (1e12, "G")):
        if number < limit:
            scaled = number / (limit / 1000)
            return f"{scaled:.1f}{unit}" if scaled < 100 else f"{scaled:.0f}{unit}"
    return "∞"


def rate(number: float) -> str:
    return f"{number:.1f}" if 0 < number < 10 else count(number)


def octets(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def age(seconds: float) -> str:
    """At most six cells, two units at most."""
    whole = int(seconds)
    if whole < MINUTE:
        return f"{whole}s"
    if whole < HOUR:
        return f"{whole // MINUTE}m{whole % MINUTE:02}s"
    if whole < DAY:
        return f"{whole // HOUR}h{whole % HOUR // MINUTE:02}m"
    return f"{whole // DAY}d{whole % DAY // HOUR:02}h"


def brief(seconds: float) -> str:
    """A latency."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.1f}ms" if seconds < 0.00995 else f"{seconds * 1000:.0f}ms"
    return f"{seconds:.2f}s" if seconds < 10 else age(seconds)
