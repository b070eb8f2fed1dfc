"""what `sendmail` was called with

Programs have called sendmail for forty years; this reads its arguments as they write them: values with and without a
space before them, single letters in a row, `--`. Pure.

States   mode: `send` (default, -bm), `smtp` (-bs), `list` (-bp, mailq), `flush` (-q), `nothing` (newaliases).
Fails    `UsageError` for what is not known, or not done here (-bd, -bv…).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

DSN = {"delay", "failure", "never", "success"}
MODES = {"m": "send", "s": "smtp", "p": "list", "i": "nothing"}
# what has a value here and is not ours to obey: type, debug, hops, label, log, macros, submission mode, …
IGNORED_VALUES = frozenset("BdhLXpOM")
IGNORED = frozenset("UGvmn")
PREFIXES = {"I": "id", "R": "recipient", "S": "sender"}


class UsageError(Exception):
    """One line."""


class Call(msgspec.Struct, kw_only=True):
    """`dots`: a line with a single dot is a line like others. `sender` is None where none was given."""

    mode: str = "send"
    from_header: bool = False
    dots: bool = False
    sender: str | None = None
    name: str = ""
    config: str | None = None
    notify: str = ""
    ret: str = ""
    envid: str = ""
    which: dict[str, str] = {}  # of the queue, for -qI, -qR, -qS: condition → a part of it
    recipients: list[str] = []


def parse(program: str, arguments: Sequence[str]) -> Call:
    """`program` is the name it was called by. Raises UsageError."""
    call = Call(which={}, recipients=[])
    call.mode = {"mailq": "list", "newaliases": "nothing"}.get(program, "send")
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word == "--":
            call.recipients += words
            break
        if word == "--config":
            call.config = _value("", words, "--config")
        elif word.startswith("--config="):
            call.config = word.partition("=")[2]
        elif len(word) > 1 and word.startswith("-"):
            _letters(call, word[1:], words)
        else:
            call.recipients.append(word)
    if call.mode in ("list", "flush", "smtp") and call.recipients:
        raise UsageError(f"takes no addresses: {call.recipients[0]}")
    return call


def _letters(call: Call, letters: str, words: list[str]) -> None:
    """One word of options."""
    while letters:
        letter, rest = letters[0], letters[1:]
        if letter in VALUES:
            VALUES[letter](call, _value(rest, words, f"-{letter}"))
            return
        if letter in IGNORED_VALUES:
            _value(rest, words, f"-{letter}") if letter != "d" else None
            return
        if letter in REST:
            REST[letter](call, rest)
            return
        if letter == "t":
            call.from_header = True
        elif letter == "i":
            call.dots = True
        elif letter not in IGNORED:
            raise UsageError(f"-{letter} is not known")
        letters = rest


def _value(rest: str, words: list[str], option: str) -> str:
    if rest:
        return rest
    if not words:
        raise UsageError(f"{option} needs a value")
    return words.pop(0)


def _sender(call: Call, value: str) -> None:
    call.sender = value.removeprefix("<").removesuffix(">")


def _notify(call: Call, value: str) -> None:
    parts = {one.strip().lower() for one in value.split(",")}
    if not parts <= DSN or ("never" in parts and len(parts) > 1):
        raise UsageError(f"-N {value}: never, or some of success,failure,delay")
    call.notify = ",".join(sorted(parts)).upper()


def _ret(call: Call, value: str) -> None:
    if value.lower() not in ("hdrs", "full"):
        raise UsageError(f"-R {value}: hdrs or full")
    call.ret = value.upper()


def _set(name: str) -> Callable[[Call, str], None]:
    def store(call: Call, value: str) -> None:
        setattr(call, name, value)

    return store


def _mode(call: Call, rest: str) -> None:
    if rest not in MODES:
        raise UsageError(f"-b{rest} is not done here; tripost serve is the daemon")
    call.mode = MODES[rest]


def _option(call: Call, rest: str) -> None:
    """-oi, -o i; all others (-oem, -odb, -oQ…) say how a queue is to be run that is not like ours."""
    call.dots = call.dots or rest in ("i", "itrue", "iTrue", "i1")


def _queue(call: Call, rest: str) -> None:
    """-q, -qf: all; -qIid, -qRpart, -qSpart: some; -q30m would be a daemon's."""
    if rest in ("", "f"):
        call.mode = "flush"
    elif rest[0] in PREFIXES and len(rest) > 1:
        call.mode = "flush"
        call.which[PREFIXES[rest[0]]] = rest[1:]
    else:
        raise UsageError(f"-q{rest} is not done here; the gateway works off its queue by itself")


VALUES: dict[str, Callable[[Call, str], None]] = {
    "f": _sender,
    "r": _sender,
    "F": _set("name"),
    "C": _set("config"),
    "N": _notify,
    "R": _ret,
    "V": _set("envid"),
}
REST: dict[str, Callable[[Call, str], None]] = {"b": _mode, "o": _option, "q": _queue, "A": lambda call, rest: None}
