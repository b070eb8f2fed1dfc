"""writes docs/configuration.md, commands.md, openapi.json and asyncapi.json from the program itself

    deploy/uv run python docs/generate.py           writes them
    deploy/uv run python docs/generate.py --check   exit 1 when they are not as they would be written

The configuration comes from the types (`settings`) and their words (`config_help`), the commands from the argument
parser. tests/test_documents.py runs the check.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from tripost.gateway.cli.main import parser
from tripost.gateway.cli.tree import Command, commands
from tripost.gateway.config_help import TABLES, Help, help_of
from tripost.gateway.config_schema import schema
from tripost.gateway.monitor.asyncapi import asyncapi
from tripost.gateway.monitor.openapi import openapi

FOLDER = pathlib.Path(__file__).parent

CONFIGURATION = """\
# Configuration

One TOML file: the argument of `serve`, or `--config FILE`, else `tripost.toml`, else `/etc/tripost/tripost.toml`,
else the built-in settings (loopback only: smtp 2525, submission 2587, pop3 2110, imap 2143, monitor 8025). `tripost
init` writes one to start from. [Tools](configuring.md) tells of `check`, `config show`, `config diff` and `config
schema`.

Durations are `"200ms"` `"90s"` `"5m"` `"4h"` `"5d"`, sizes `"100B"` `"32KiB"` `"50MiB"` `"1GiB"`, rates `"5/s"`
`"100/min"` `"10/10min"` `"1000/h"`; a number without a unit is refused, but for `"0"`. Relative paths count from the
file in which they are written. A path may begin with `${CREDENTIALS_DIRECTORY}` or another of systemd's variables.
Passwords and keys are in files of their own, never in this one.

This page is made from the program by `docs/generate.py`.
"""
COMMANDS = """\
# Commands

CONFIG is found as [configuration](configuration.md) says; every command that talks to a gateway takes `--config
FILE`. What a command tells goes to stdout, what it has to say about that to stderr. Exit codes: 0 done; 1 nothing
fits, or refused; 2 usage or configuration; 3 no gateway answers. The lines of `--json` have a schema: `tripost schema
COMMAND`.

This page is made from the program by `docs/generate.py`.
"""


def configuration() -> str:
    parts = [CONFIGURATION, *_table(schema(), "")]
    return "\n".join(parts)


def _table(part: dict[str, Any], at: str, many: bool = False) -> Iterator[str]:
    """A heading, what is to be said, the keys that are values; then the tables within."""
    rows: list[str] = []
    inner: list[tuple[dict[str, Any], str, bool]] = []
    for name, one in part["properties"].items():
        key = f"{at}.{name}".lstrip(".")
        below, repeated = _below(one)
        if below is not None:
            inner.append((below, key if repeated is not None else f"{key}.NAME", bool(repeated)))
            continue
        required = name in part.get("required", [])
        told = help_of(key) or Help("")
        rows.append(f"| `{name}` | {_kind(one)} | {_default(one, told, required)} | {told.text} |")
    same = at == "delivery.destination.NAME"
    if at or rows:
        yield f"## {_heading(at, many)}\n"
    if TABLES.get(at):
        yield f"{TABLES[at]}\n"
    if rows and not same:
        yield "\n".join(["| key | value | default | what it does |", "| --- | --- | --- | --- |", *rows]) + "\n"
    for below, key, repeated in inner:
        yield from _table(below, key, repeated)


def _below(one: dict[str, Any]) -> tuple[dict[str, Any] | None, bool | None]:
    """The table that a key is or has, and whether it is repeated: None where the tables have names."""
    if "properties" in one:
        return one, False
    if "properties" in one.get("items", {}):
        return one["items"], True
    more = one.get("additionalProperties")
    if isinstance(more, dict) and "properties" in more:
        return more, None
    return None, False


def _heading(at: str, many: bool) -> str:
    if not at:
        return "At the top"
    return f"`[[{at}]]`" if many else f"`[{at}]`".replace(".NAME", '."NAME"')


def _kind(one: dict[str, Any]) -> str:
    if "enum" in one:
        return " ".join(f"`{value}`" for value in one["enum"] if value)
    if "anyOf" in one:
        return " or ".join(f"`{each['const']}`" if "const" in each else _kind(each) for each in one["anyOf"])
    if one.get("format") == "path":
        return "path"
    if one["type"] == "array":
        return f"list of {_kind(one['items'])}"
    if one["type"] == "object":
        return "table"
    if "pattern" in one:
        return {"5m": "duration", "50MiB": "size", "100/min": "rate", "100B/s": "octets a second"}[one["examples"][0]]
    return {"string": "text", "boolean": "true, false", "integer": "number", "number": "number"}[one["type"]]


def _default(one: dict[str, Any], told: Help, required: bool) -> str:
    if required:
        return "required"
    if told.default:
        return told.default
    value = one.get("default")
    if value in (None, "", [], {}):
        return "none"
    if isinstance(value, list):
        return " ".join(f"`{item}`" for item in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def reference() -> str:
    parts = [COMMANDS]
    for one in commands(parser()):
        if one.name and not one.below:
            parts.append("\n".join(_command(one)))
    return "\n".join(parts)


def _command(one: Command) -> Iterator[str]:
    yield f"## `tripost {one.name}`\n"
    yield f"{one.help[:1].upper()}{one.help[1:]}.\n"
    for option in one.options:
        if "--help" not in option.flags:
            words = f" ({', '.join(option.words)})" if option.words and ", ".join(option.words) != option.help else ""
            yield f"- `{'`, `'.join(option.flags)}`: {option.help}{words}"
    if len(one.options) > 1:
        yield ""
    examples = [line.removeprefix("Example: ") for line in one.epilog.splitlines() if line.startswith("Example: ")]
    yield "\n".join(["```sh", *examples, "```", ""])


def document(made: dict[str, Any]) -> str:
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


MADE = {
    "configuration.md": configuration,
    "commands.md": reference,
    "openapi.json": lambda: document(openapi()),
    "asyncapi.json": lambda: document(asyncapi()),
}


def main() -> int:
    stale = [name for name, make in MADE.items() if _text(FOLDER / name) != make()]
    if sys.argv[1:] == ["--check"]:
        for name in stale:
            print(f"docs/{name} is not what the program says; run docs/generate.py", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (FOLDER / name).write_text(MADE[name]())
        print(f"docs/{name}")
    return 0


def _text(path: pathlib.Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
