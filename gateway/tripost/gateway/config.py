"""one TOML file, and what it includes → `Config`

Promise  every unknown key, wrong type and impossible value is told at once, each with file, line, column, key and
         reason; nothing is guessed.
Order    the file given, else tripost.toml, else /etc/tripost/tripost.toml, else the built-in settings: loopback only.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

import msgspec

from tripost.gateway.config_positions import Path
from tripost.gateway.config_reader import Reader
from tripost.gateway.config_rules import check
from tripost.gateway.config_sources import Problem, Sources
from tripost.gateway.settings import Config

__all__ = ["Config", "ConfigError", "Loaded", "load", "read"]

PLACES = ("tripost.toml", "/etc/tripost/tripost.toml")
SERVICES = (("smtp", 2525), ("submission", 2587), ("pop3", 2110), ("imap", 2143), ("monitor", 8025))


class ConfigError(Exception):
    """`problems` in the order of their places; `errors`: one line each, for the operator."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.errors = [str(one) for one in problems]
        super().__init__("; ".join(self.errors))


class Loaded(msgspec.Struct, frozen=True):
    """A configuration, and where it comes from; `problems`: for these it cannot be used."""

    config: Config
    sources: Sources
    problems: list[Problem]


def load(path: str | None = None, environment: Mapping[str, str] = os.environ) -> Config:
    """Raises ConfigError."""
    found = read(path, environment)
    if found.problems:
        raise ConfigError(found.problems)
    return found.config


def read(path: str | None = None, environment: Mapping[str, str] = os.environ) -> Loaded:
    """As much as can be read, with everything that is wrong."""
    path = path or next((place for place in PLACES if os.path.exists(place)), None)
    sources = Sources(path)
    if path is None:
        sources.table = {"listen": _default_listen()}

    def folder(key: Path) -> str:
        return os.path.dirname(os.path.abspath(sources.place(key).file))

    reader = Reader(folder, environment)
    config = reader.config(sources.table)
    found = list(reader.errors)

    def complain(key: Path, reason: str) -> None:
        if not reader.is_broken(key):
            found.append((key, reason))

    if path is not None and not sources.problems:  # what could not be read would be told as if it were not there
        check(config, complain)
    problems = [*sources.problems, *(sources.problem(key, reason) for key, reason in found)]
    return Loaded(_complete(config, environment), sources, sorted(problems, key=lambda one: (one.place, one.key)))


def _default_listen() -> list[dict[str, str]]:
    return [
        {"service": service, "address": f"127.0.0.1:{port}", "tls": "none" if service == "monitor" else "starttls"}
        for service, port in SERVICES
    ]


def _default_state(environment: Mapping[str, str]) -> str:
    state = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    home = environment.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return state or os.path.join(home, "tripost")


def _complete(config: Config, environment: Mapping[str, str]) -> Config:
    """Fill in what the machine knows."""
    replace = msgspec.structs.replace
    hostname = (config.hostname or socket.gethostname()).lower()
    state = config.state or os.path.normpath(_default_state(environment))
    return replace(
        config,
        hostname=hostname,
        state=state,
        auth=replace(config.auth, file=config.auth.file or os.path.join(state, "accounts")),
        local=replace(config.local, domains=config.local.domains or [hostname]),
    )
