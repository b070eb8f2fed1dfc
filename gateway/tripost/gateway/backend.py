"""passwords that somebody else checks

`[auth] backend` names a program ("command:/path") or a service on a Unix socket
("unix:/path"). Both get one line of JSON,

    {"account": "marc@machin.com", "password": "…", "service": "pop3", "client": "192.0.2.1"}

the program on its standard input, never in its arguments. It answers by its exit
code: 0 yes, 1 no. The service answers with a line, {"ok": true} or {"ok": false},
and closes. docs/mailboxes.md shows one of each.

Promise  At most `MOST` questions at once, each answered within `PATIENCE`.
Fails    `AccountsError` for any other answer, or none: nobody can tell now.
"""

from __future__ import annotations

import os
import subprocess

import msgspec
import trio

MOST = 20
PATIENCE = 10.0  # seconds
LONGEST = 4096  # octets of an answer
FILE, COMMAND, UNIX = "file", "command:", "unix:"


class AccountsError(Exception):
    """Nobody can tell now; the text is for the operator."""


class _Answer(msgspec.Struct):
    ok: bool


class Backend:
    """`target` as in the configuration, but not "file"."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._limiter: trio.CapacityLimiter | None = None

    async def verify(self, account: str, password: str, service: str, client: str) -> bool:
        """Raises AccountsError."""
        question = {"account": account, "password": password, "service": service, "client": client}
        data = msgspec.json.encode(question) + b"\n"
        if self._limiter is None:
            self._limiter = trio.CapacityLimiter(MOST)
        try:
            with trio.fail_after(PATIENCE):
                async with self._limiter:
                    if self.target.startswith(COMMAND):
                        return await self._command(self.target.removeprefix(COMMAND), data)
                    return await self._service(self.target.removeprefix(UNIX), data)
        except trio.TooSlowError as wrong:
            raise AccountsError(f"{self.target}: no answer within {PATIENCE:g} s") from wrong
        except (OSError, trio.BrokenResourceError, msgspec.MsgspecError) as wrong:
            raise AccountsError(f"{self.target}: {wrong}") from wrong

    async def _command(self, path: str, data: bytes) -> bool:
        done = await trio.run_process(
            [path], stdin=data, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
        if done.returncode not in (0, 1):
            raise AccountsError(f"{self.target}: exit code {done.returncode}")
        return done.returncode == 0

    async def _service(self, path: str, data: bytes) -> bool:
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(data)
            answer = b""
            while b"\n" not in answer and len(answer) <= LONGEST:
                more = await stream.receive_some(LONGEST)
                if not more:
                    break
                answer += more
        return msgspec.json.decode(answer, type=_Answer).ok


def backend_of(target: str) -> Backend | None:
    """None for "file"."""
    return None if target == FILE else Backend(target)


def check_backend(target: str) -> None:
    """Raises ValueError."""
    path = target.removeprefix(COMMAND).removeprefix(UNIX)
    if target != FILE and (path == target or not os.path.isabs(path)):
        raise ValueError('must be "file", "command:/path" or "unix:/path"')
