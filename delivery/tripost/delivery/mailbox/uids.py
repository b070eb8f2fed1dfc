"""names of messages in a mailbox

    1764064000.<id>_<recipient>.smtp.machin.com,S=2345,W=2345:2,S
    accepted   the key          by whom         octets        flags

What stands before ":" never changes and is the message's identity (Maildir). S
is the file's size, W what POP3 and IMAP count (each line end as CRLF); Dovecot
knows both. The UID that POP3 shows (RFC 1939 §7: 1 to 70 printable octets)
follows from the name alone, so that no lost file can change it.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

_OCTETS = re.compile(r",(?:S=([0-9]{1,18}),)?W=([0-9]{1,18})(?:,|$)")
_SIZE = re.compile(r",S=([0-9]{1,18})(?:,|$)")
MOST_UID = 70


def folder_name(account: str) -> str:
    """A folder's name for any account: one component, never hidden, never "..", at most 255 octets."""
    name = quote(account, safe="@+-_=.") or "%"
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    return name if len(name) <= 200 else f"{name[:150]}~{hashlib.sha256(account.encode()).hexdigest()[:32]}"


def file_name(key: str, accepted: float, hostname: str, size: int, *, binary: bool = False) -> str:
    """The same for the same (message, recipient), however often it is tried. `binary`: its line ends are not known."""
    host = re.sub(r"[/:,]", "_", hostname)
    return f"{int(accepted)}.{key}.{host},S={size}{'' if binary else f',W={size}'}"


def base_of(name: str) -> str:
    """The name without flags."""
    return name.partition(":")[0]


def uidl(base: str) -> str:
    """What POP3 calls it."""
    if len(base) <= MOST_UID and base.isascii() and base.isprintable() and " " not in base:
        return base
    return hashlib.sha256(base.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def wire_size(base: str, size: int) -> int | None:
    """What the name says of the size on the wire; None where it says nothing, or does not fit the file's `size`."""
    match = _OCTETS.search(base)
    if match is None or (match[1] is not None and int(match[1]) != size):
        return None
    return int(match[2])


def file_size(base: str) -> int | None:
    match = _SIZE.search(base)
    return int(match[1]) if match is not None else None


def folder_names(detail: str) -> list[str]:
    """The folders that an address extension may mean: `lists` is `.lists`, else `.Lists`; "..", "a/b" are none."""
    if not 0 < len(detail) <= 60 or not all(one.isalnum() or one in "-_" for one in detail):
        return []
    return [f".{detail}", f".{detail[0].upper()}{detail[1:]}"]
