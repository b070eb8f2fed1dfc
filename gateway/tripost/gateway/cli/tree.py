"""the commands as one table, read from the argument parser

For shell completion, and for the tests that hold every command to having an example.

Why      argparse keeps subcommands and options in attributes with an underscore; this is the one place that looks.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import msgspec

FILES = ("FILE", "CONFIG")  # placeholders that stand for a file's name


class Option(msgspec.Struct, frozen=True):
    """`flags`: all its names; `words`: what it may be given, as far as that is known; `value`: it takes one."""

    flags: tuple[str, ...]
    help: str
    value: bool
    file: bool
    words: tuple[str, ...]


class Command(msgspec.Struct, frozen=True):
    """`name`: "queue list"; `below`: subcommand → help; `words`: what may stand at its place."""

    name: str
    help: str
    epilog: str
    options: tuple[Option, ...]
    below: dict[str, str]
    file: bool
    words: tuple[str, ...]

    def option(self, flag: str) -> Option | None:
        return next((one for one in self.options if flag in one.flags), None)


def commands(parser: argparse.ArgumentParser, name: str = "", help: str = "") -> Iterator[Command]:
    """All of them, from the top down; `name` of the topmost is ""."""
    below: dict[str, str] = {}
    options: list[Option] = []
    words: list[str] = []
    file = False
    inner: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            found: argparse._SubParsersAction[argparse.ArgumentParser] = action  # pyright: ignore
            for one in found._choices_actions:  # pyright: ignore[reportPrivateUsage]
                below[one.dest] = one.help or ""
            inner = list(found.choices.items())
        elif action.option_strings:
            options.append(_option(action))
        else:
            file = file or action.metavar in FILES
            words += _words(action)
    yield Command(name, help, parser.epilog or "", tuple(options), below, file, tuple(words))
    for word, child in inner:
        yield from commands(child, f"{name} {word}".strip(), below.get(word, ""))


def _option(action: argparse.Action) -> Option:
    value = action.nargs != 0
    return Option(
        tuple(action.option_strings), action.help or "", value, action.metavar in FILES, tuple(_words(action))
    )


def _words(action: argparse.Action) -> Sequence[str]:
    """Its choices; or those of a list that its help is: "ready, deferred, held"."""
    if action.choices is not None:
        return [str(one) for one in action.choices]
    parts = (action.help or "").split(", ")
    return parts if len(parts) > 2 and all(one.isalpha() and one.islower() for one in parts) else []
