"""the monitor's token files

One token in each: its first line, without the space around it. They are read at the
start and by a reload; `check` says what is wrong with one.

Fails    `TokenError`, one line that names the file and never the token.
"""

from __future__ import annotations

import os
import stat

from tripost.gateway.monitor.auth import LEAST_TOKEN, Tokens
from tripost.gateway.settings import Config

MOST = 4096  # octets of a file


class TokenError(ValueError):
    """A token file cannot be used."""


def read_tokens(config: Config) -> Tokens:
    """Raises TokenError."""
    found = Tokens(read_token(config.monitor.token_file), read_token(config.monitor.read_token_file))
    if found.act and found.act == found.look:
        raise TokenError("[monitor] token_file and read_token_file hold the same token")
    return found


def read_token(path: str) -> str:
    """ "" where no file is named. Raises TokenError."""
    if not path:
        return ""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MOST + 1)
    except OSError as wrong:
        raise TokenError(f"{path}: {wrong.strerror}") from wrong
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise TokenError(f"{path} is open to every user of this machine; chmod o= it")
    token = data.split(b"\n")[0].strip()
    if not token:
        raise TokenError(f"{path} is empty; write a token into it: openssl rand -hex 24")
    if len(token) < LEAST_TOKEN or len(data) > MOST or not token.isascii() or not token.decode().isprintable():
        raise TokenError(f"{path}: a token is one line of at least {LEAST_TOKEN} printable ASCII characters")
    return token.decode()
