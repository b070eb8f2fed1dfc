"""what a terminal sends, as names of keys. Pure.

API      `Keys().feed(octets)` gives the names: a character as itself, else up, down,
         left, right, page-up, page-down, home, end, enter, escape, backspace,
         interrupt. `Keys().rest()`, when nothing followed for a moment: an escape that
         began no sequence.
Unknown sequences are dropped as a whole, so that their letters do not act.
"""

from __future__ import annotations

import codecs

_NAMES = {
    "[A": "up",
    "[B": "down",
    "[C": "right",
    "[D": "left",
    "OA": "up",
    "OB": "down",
    "[H": "home",
    "[F": "end",
    "OH": "home",
    "OF": "end",
    "[1~": "home",
    "[4~": "end",
    "[5~": "page-up",
    "[6~": "page-down",
}
_CONTROLS = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x03": "interrupt"}
LONGEST = 32


class Keys:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._sequence = ""  # begins with ESC

    @property
    def open(self) -> bool:
        """An escape came, and what it begins is not known yet."""
        return bool(self._sequence)

    def feed(self, data: bytes) -> list[str]:
        found: list[str] = []
        for one in self._decoder.decode(data):
            if self._sequence:
                self._go_on(one, found)
            elif one == "\x1b":
                self._sequence = one
            elif one in _CONTROLS:
                found.append(_CONTROLS[one])
            elif one.isprintable():
                found.append(one)
        return found

    def _go_on(self, one: str, found: list[str]) -> None:
        self._sequence += one
        body = self._sequence[1:]
        if len(body) == 1 and one not in "[O":  # ESC and a key: Alt; the escape counts
            self._sequence = ""
            found.append("escape")
            if one.isprintable():
                found.append(one)
        elif len(body) > 1 and (body[0] == "O" or "@" <= one <= "~"):
            self._sequence = ""
            if body in _NAMES:
                found.append(_NAMES[body])
        elif len(body) > LONGEST:
            self._sequence = ""

    def rest(self) -> list[str]:
        was, self._sequence = self._sequence, ""
        return ["escape"] if was == "\x1b" else []
