"""line charts as SVG, for the figures of bench/relay.py

`chart` is all: series of points, axes that begin at zero (or are logarithmic), a legend. No library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 40, 48
COLOURS = ("#0b6e99", "#d9480f", "#5f3dc4", "#2b8a3e", "#a61e4d", "#868e96")
Points = Sequence[tuple[float, float]]


def chart(title: str, x_name: str, y_name: str, series: Mapping[str, Points], *, log_x: bool = False) -> str:
    """A whole SVG file; series without points are left out."""
    drawn = {name: sorted(points) for name, points in series.items() if points}
    xs = [x for points in drawn.values() for x, _ in points]
    ys = [y for points in drawn.values() for _, y in points]
    if not xs:
        return _svg(title, [])
    place_x, marks_x = _logarithmic(min(xs), max(xs)) if log_x else _linear(max(xs))
    place_y, marks_y = _linear(max(ys))
    right, low = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + place_x(x) * (right - LEFT), low - place_y(y) * (low - TOP)

    parts = [_text(WIDTH / 2 - RIGHT / 2, HEIGHT - 8, x_name, "middle"), _text(LEFT - 48, TOP - 12, y_name, "start")]
    for mark in marks_x:
        x, _ = at(mark, 0)
        parts += [_line(x, low, x, low + 4, "#444"), _text(x, low + 18, f"{mark:g}", "middle")]
    for mark in marks_y:
        _, y = at(xs[0], mark)
        parts += [_line(LEFT, y, right, y, "#ddd"), _text(LEFT - 6, y + 4, f"{mark:g}", "end")]
    parts += [_line(LEFT, low, right, low, "#444"), _line(LEFT, TOP, LEFT, low, "#444")]
    for number, (name, points) in enumerate(drawn.items()):
        colour = COLOURS[number % len(COLOURS)]
        where = [at(*one) for one in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        if len(where) <= 20:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in where]
        y = TOP + 10 + 20 * number
        parts += [_line(right + 12, y, right + 32, y, colour, 3), _text(right + 38, y + 4, name, "start")]
    return _svg(title, parts)


def _svg(title: str, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    back = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    return "\n".join([head, back, _text(WIDTH / 2, 20, title, "middle", 15), *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#222">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _linear(most: float) -> tuple[Callable[[float], float], list[float]]:
    """Where a value stands, 0 to 1, and the marks of the axis."""
    step = 10 ** math.floor(math.log10(most or 1))
    step *= next((part for part in (0.2, 0.5, 1) if most / (step * part) <= 6), 2)
    top = math.ceil((most or 1) / step) * step
    return (lambda value: value / top), [step * one for one in range(round(top / step) + 1)]


def _logarithmic(least: float, most: float) -> tuple[Callable[[float], float], list[float]]:
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    high = max(high, low + 1)
    return (lambda value: (math.log10(value) - low) / (high - low)), [10.0**one for one in range(low, high + 1)]
