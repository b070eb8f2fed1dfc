"""what a running gateway tells of its configuration

`config`: every key with its value as TOML, then what its environment says of the variables that a configuration
may name.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable

from tripost.gateway.config_reader import VARIABLES
from tripost.gateway.config_values import named
from tripost.gateway.control.frames import Answer, End, Row
from tripost.gateway.control.server import Verb
from tripost.gateway.settings import Config


class ConfigVerbs:
    """`config()` is the one in force."""

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config

    @property
    def verbs(self) -> dict[str, Verb]:
        return {"config": self._show}

    async def _show(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        for key, value in named(self._config()).items():
            yield Row({"key": key, "value": value})
        known = (*VARIABLES, "XDG_STATE_HOME")
        yield End({"environment": {name: os.environ.get(name, "") for name in known}})
