"""styled lines on a real terminal, and keys from it

Only lines that changed are written, in one write. rich says which colours the terminal
can show and what they are called; without colours (NO_COLOR) the selection is still
seen, in reverse.

Promise  whatever ends the block (the end, an error, Ctrl-C, Ctrl-Z), the terminal is as
         it was before: its mode, its cursor, what stood on it.
"""

from __future__ import annotations

import os
import signal
import termios
import tty
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import trio
from rich.console import Console
from rich.style import Style
from rich.text import Text

from tripost.gateway.top.keys import Keys
from tripost.gateway.top.words import Line

STYLES = {
    "": "",
    "title": "bold reverse",
    "head": "bold reverse",
    "selected": "reverse",
    "figure": "bold",
    "good": "green",
    "warn": "yellow",
    "bad": "bold red",
    "chart": "cyan",
    "dim": "dim",
    "key": "bold cyan",
}
ENTER, LEAVE = b"\x1b[?1049h\x1b[?25l\x1b[2J", b"\x1b[0m\x1b[?25h\x1b[?1049l"
ESCAPE = 0.05  # seconds in which the rest of a sequence follows


class Screen:
    """`keyboard` and `out` are descriptors of a terminal."""

    def __init__(self, keyboard: int = 0, out: int = 1) -> None:
        self._keyboard = keyboard
        self._out = out
        self._styles = paints(Console(force_terminal=True))
        self._was: list[bytes] = []
        self._mode: Any = None
        self._keys = Keys()

    @contextmanager
    def entered(self) -> Generator[None]:
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def _enter(self) -> None:
        self._mode = termios.tcgetattr(self._keyboard)
        tty.setcbreak(self._keyboard)
        self._write(ENTER)
        self._was = []

    def _leave(self) -> None:
        self._write(LEAVE)
        termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._mode)

    def suspend(self) -> None:
        """As Ctrl-Z asks; returns when the shell lets us go on."""
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._enter()

    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        found = os.get_terminal_size(self._out)
        return found.columns, found.lines

    def redraw(self) -> None:
        """Whatever stands there is not known any more."""
        self._was = []

    def show(self, lines: Sequence[Line]) -> None:
        drawn = [self._painted(line) for line in lines]
        if len(drawn) != len(self._was):
            self._was = []
        out = [] if self._was else [b"\x1b[0m\x1b[2J"]
        for number, line in enumerate(drawn):
            if not self._was or self._was[number] != line:
                out.append(b"\x1b[%d;1H%s" % (number + 1, line))
        self._was = drawn
        if out:
            self._write(b"".join(out))

    def _painted(self, line: Line) -> bytes:
        return "".join([f"{start}{one.text}{end}" for one in line for start, end in (self._styles[one.style],)]).encode(
            "utf-8", "replace"
        )

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._out, view) :]
            except BlockingIOError:  # somebody else made the terminal's descriptor so
                continue

    async def keys(self) -> list[str]:
        """The next ones. Raises EOFError when the terminal is gone."""
        with trio.move_on_after(ESCAPE) if self._keys.open else trio.CancelScope():
            await trio.lowlevel.wait_readable(self._keyboard)
            try:
                data = os.read(self._keyboard, 4096)
            except OSError as wrong:
                raise EOFError from wrong
            if not data:
                raise EOFError
            return self._keys.feed(data)
        return self._keys.rest()


def paints(console: Console) -> dict[str, tuple[str, str]]:
    """Style → what goes before and behind a text."""
    made: dict[str, tuple[str, str]] = {}
    for name, definition in STYLES.items():
        style = Style.parse(definition) if definition else Style.null()
        if console.no_color:
            style = style.without_color
        text = style.render("\0", color_system=console._color_system)  # pyright: ignore[reportPrivateUsage]
        before, _, behind = text.partition("\0")
        made[name] = before, behind
    return made


def text_of(lines: Sequence[Line]) -> Text:
    """For a picture."""
    whole = Text()
    for line in lines:
        for span in line:
            whole.append(span.text, style=STYLES[span.style])
        whole.append("\n")
    return whole
