"""a new configuration while the gateway runs: all of it, or nothing

`reload` reads the file, builds from it everything that depends on it, and then puts it in place in one go, between two
awaits: no session ever sees half of it. Sessions that run keep the limits they began with; routing, accounts and
certificates hold at once for everybody.

Order    read → check → build every part (new listeners are bound here) → put every part in place.
Fails    `ReloadError` with one line for each reason; then everything is as it was.
Why      Parts are functions that build and give back what puts it in place, which may not fail. Where roles are
         processes of their own, the supervisor reads and checks (`look`), and each prepares its parts before any puts
         them in place (`tripost.gateway.processes.changing`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from tripost.gateway.backend import AccountsError
from tripost.gateway.config import Loaded
from tripost.gateway.config_files import unusable
from tripost.gateway.config_values import differences, named
from tripost.gateway.settings import Config
from tripost.gateway.sockets import ListenError
from tripost.gateway.tls import TlsError

MOST_NAMED = 200  # keys, or reasons
Commit = Callable[[], None]
Part = Callable[[Config], Commit]

# what changes while the gateway runs; everything else needs a restart
_TABLES = (
    *("include", "listen", "tls", "proxy", "relay", "local", "route", "smtp", "limits", "sources", "retry", "dsn"),
    *("lifecycle", "monitor"),
)
_AUTH = ("mechanisms", "cleartext", "pop3_imap_cleartext")


class ReloadError(Exception):
    """The configuration stays as it was; the text has a line for each reason."""


class Reloaded(msgspec.Struct, frozen=True):
    """Keys that changed, and those whose new values wait for a restart. `generation` of the configuration in force, 1
    at the start; `behind`: processes that have not confirmed it yet."""

    changed: list[str]
    restart: list[str]
    generation: int
    behind: list[str] = []


def effective(old: Config, new: Config) -> Config:
    """`new` as far as it can be had without a restart."""
    replace = msgspec.structs.replace
    return replace(
        old,
        **{name: getattr(new, name) for name in _TABLES},
        auth=replace(old.auth, **{name: getattr(new.auth, name) for name in _AUTH}),
        delivery=replace(new.delivery, port=old.delivery.port),
        admin=replace(old.admin, grace=new.admin.grace),
    )


class Wanted(msgspec.Struct, frozen=True):
    """What a file asks for, as far as it can be had; keys that change, and those that wait for a restart."""

    config: Config
    changed: list[str]
    restart: list[str]


def look(old: Config, read: Callable[[], Loaded] | None) -> Wanted:
    """Read the file and compare. Raises ReloadError."""
    if read is None:
        raise ReloadError("this gateway was not started from a file")
    found = read()
    problems = found.problems or [found.sources.problem(key, reason) for key, reason in unusable(found.config)]
    if problems:
        raise ReloadError("\n".join(_some([str(one) for one in problems])))
    wanted = effective(old, found.config)
    return Wanted(wanted, _keys(old, wanted), _keys(wanted, found.config))


def _keys(old: Config, new: Config) -> list[str]:
    """Those that differ."""
    return _some([key for key, _, _ in differences(named(old), named(new))])


def _some(those: list[str]) -> list[str]:
    """As many as somebody would read."""
    return those if len(those) <= MOST_NAMED else [*those[:MOST_NAMED], f"and {len(those) - MOST_NAMED} more"]


class Live:
    """The configuration in force, and since when. `read` reads the file; `parts` in the order in which they are put in
    place: whoever takes something of the system's (listeners) comes last, because what it took would have to be given
    back."""

    def __init__(self, config: Config, read: Callable[[], Loaded] | None) -> None:
        self.config = config
        self.generation = 1
        self.loaded = time.time()
        self.parts: list[Part] = []
        self._read = read

    @property
    def from_file(self) -> bool:
        """Can the file be read again?"""
        return self._read is not None

    def reload(self) -> Reloaded:
        """Raises ReloadError."""
        wanted = look(self.config, self._read)
        self.prepare(wanted.config)(self.generation + 1, time.time())
        return Reloaded(wanted.changed, wanted.restart, self.generation)

    def prepare(self, wanted: Config) -> Callable[[int, float], None]:
        """Build every part; what puts them in place, as which generation and when. Raises ReloadError."""
        try:
            commits = [part(wanted) for part in self.parts]
        except (ListenError, TlsError, AccountsError, ValueError, OSError) as wrong:
            raise ReloadError(str(wrong)) from wrong

        def commit(generation: int, loaded: float) -> None:
            for one in commits:
                one()
            self.config, self.generation, self.loaded = wanted, generation, loaded

        return commit
