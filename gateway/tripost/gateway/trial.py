"""could a new image of a gateway take its place? asked of a process of its own, before anything ends

The same command as the gateway's, with the interpreter, the package and the file
as they are now, and `handover.VARIABLE` with `trial`: it reads the configuration,
imports what it would run, looks at what it would open, and ends.

API      `report(found, handed)` in that process: exit code 0, or 2 and the reasons.
         `try_out(handed)` in the gateway.
Promise  nothing is changed, and a trial that hangs is killed.
Fails    `RestartRefused` with a line for each reason.
"""

from __future__ import annotations

import grp
import importlib
import os
import sys
from collections.abc import Iterator
from functools import partial
from subprocess import DEVNULL

import msgspec
import trio

from tripost.gateway import sockets
from tripost.gateway.config import Loaded
from tripost.gateway.config_files import unusable
from tripost.gateway.handover import Handover, command, environment
from tripost.gateway.inherited import normal, unwanted
from tripost.gateway.settings import Config
from tripost.gateway.sockets import ListenError

PATIENCE = 60.0  # seconds
MOST = 20  # lines of reasons
PARTS = (
    "gateway.app",
    "gateway.processes.supervisor",
    "gateway.processes.manager_role",
    "gateway.processes.ingress_role",
    "delivery.processes.role",
)


class RestartRefused(Exception):
    """The gateway goes on as it was; the text has a line for each reason."""


# --- in the process that tries ---


def report(found: Loaded, handed: Handover) -> int:
    """The exit code."""
    wrong = [str(one) for one in found.problems]
    wrong = wrong or [str(found.sources.problem(key, reason)) for key, reason in unusable(found.config)]
    wrong = wrong or list(_obstacles(found.config, handed))
    for line in wrong:
        print(f"tripost: {line}", file=sys.stderr)
    return 2 if wrong else 0


def _obstacles(config: Config, handed: Handover) -> Iterator[str]:
    for one in PARTS:
        importlib.import_module(f"tripost.{one}")
    if os.path.realpath(config.state) != os.path.realpath(handed.state):
        yield f"state: a restart cannot move it from {handed.state}: stop, move the folder, start"
    if config.user and os.geteuid() == 0:
        yield "user: a restart cannot become another user: stop, and start"
    yield from _listeners(config, handed)
    if config.events.file:
        try:
            open(config.events.file, "ab").close()
        except OSError as wrong:
            yield f"[events] {config.events.file}: {wrong.strerror}"
    if config.admin.group:
        try:
            grp.getgrnam(config.admin.group)
        except KeyError:
            yield f'[admin] group: there is no group "{config.admin.group}"'


def _listeners(config: Config, handed: Handover) -> Iterator[str]:
    """What is new must be free, and allowed; what systemd gave must be wanted."""
    left = list(handed.sockets)
    for wanted in config.listen:
        held = next((one for one in left if normal(one.address) == normal(wanted.address)), None)
        if held is not None:
            left.remove(held)
            continue
        try:
            sockets.discard(sockets.listen(wanted.address), wanted.address)
        except ListenError as wrong:
            yield str(wrong)
    unmatched = sorted(one.address for one in left if one.given)
    if unmatched:
        yield unwanted(unmatched)


# --- in the gateway ---


async def try_out(handed: Handover) -> None:
    """Raises RestartRefused."""
    words = command()
    variables = environment(msgspec.structs.replace(handed, trial=True))
    trying = partial(
        trio.run_process, words, env=variables, stdin=DEVNULL, stdout=DEVNULL, capture_stderr=True, check=False
    )
    try:
        with trio.fail_after(PATIENCE):
            done = await trying()
    except trio.TooSlowError:
        raise RestartRefused(f"the new image has not said within {PATIENCE:g} s whether it can start") from None
    except OSError as wrong:
        raise RestartRefused(f"{words[0]}: {wrong.strerror}") from wrong
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()[-MOST:]
        said = "\n".join(one.removeprefix("tripost: ") for one in lines)
        raise RestartRefused(said or f"the new image ends with code {done.returncode}")
