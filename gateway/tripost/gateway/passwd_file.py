"""Dovecot's passwd-file, as text

    address:{SCHEME}verifier:uid:gid:gecos:home:shell:further fields

Of the further fields (words behind the seventh colon) two mean something here:
`userdb_quota_rule=*:storage=1G` and `nologin`. All others, comments and lines
that are none of ours are kept as they are, in their places.

Promise  an edit changes the one line that it is about.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import msgspec

QUOTA_RULE = "userdb_quota_rule"
NO_LOGIN = "nologin"
_MOST_COLONS = 7


class Entry(msgspec.Struct, frozen=True):
    """One user. `middle` are uid, gid, gecos, home and shell, as far as there are any."""

    address: str
    verifier: str
    middle: tuple[str, ...] = ()
    further: tuple[str, ...] = ()

    @property
    def quota_rule(self) -> str:
        return next((one.partition("=")[2] for one in self.further if one.startswith(f"{QUOTA_RULE}=")), "")

    @property
    def disabled(self) -> bool:
        return any(one == NO_LOGIN or one.startswith(f"{NO_LOGIN}=") for one in self.further)

    def having(self, name: str, word: str) -> Entry:
        """With `word` ("" for none) as the further field of that name."""
        rest = [one for one in self.further if one.partition("=")[0] != name]
        return msgspec.structs.replace(self, further=(*rest, word) if word else tuple(rest))

    def line(self) -> str:
        parts = [self.address, self.verifier, *self.middle]
        if self.further:
            parts += [""] * (_MOST_COLONS - len(parts)) + [" ".join(self.further)]
        return ":".join(parts)


def read_line(line: str) -> Entry | None:
    """None for a comment, and for what is no entry."""
    parts = line.strip("\r\n").split(":", _MOST_COLONS)
    if line.startswith("#") or len(parts) < 2 or not parts[0]:
        return None
    further = tuple(parts[_MOST_COLONS].split()) if len(parts) > _MOST_COLONS else ()
    return Entry(parts[0], parts[1], tuple(parts[2:_MOST_COLONS]), further)


def read(text: str) -> dict[str, Entry]:
    """Address → entry; the first of several counts, as in Dovecot."""
    found: dict[str, Entry] = {}
    for line in text.split("\n"):
        entry = read_line(line)
        if entry is not None:
            found.setdefault(entry.address, entry)
    return found


def edit(text: str, address: str, change: Callable[[Entry], Entry | None]) -> str:
    """The text with every line of that user changed, None to take it away."""
    lines: list[str] = []
    for line in io.StringIO(text, newline="\n"):
        entry = read_line(line)
        if entry is None or entry.address != address:
            lines.append(line)
            continue
        changed = change(entry)
        if changed is not None:
            lines.append(f"{changed.line()}\n")
    return "".join(lines)


def append(text: str, entry: Entry) -> str:
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{entry.line()}\n"
