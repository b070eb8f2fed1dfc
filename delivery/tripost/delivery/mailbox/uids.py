"""names of messages in a mailbox

A file's name says which message and which recipient it is; what stands before
":" never changes, so the UID that POP3 shows (RFC 1939 §7: 1 to 70 printable
octets) follows from it and needs no list.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

_OURS = re.compile(r"[0-9]+\.([0-9A-Z]{1,20}_[0-9]+)\.[^:]*")


def folder_name(account: str) -> str:
    """A folder's name for any account: one component, never hidden, never "..", at most 255 octets."""
    name = (
        quote(account, safe="@+-_=").replace(".", "%2E") if account.startswith(".") else quote(account, safe="@+-_=.")
    )
    return name if len(name) <= 200 else f"{name[:150]}~{hashlib.sha256(account.encode()).hexdigest()[:32]}"


def file_name(id: str, recipient: int, accepted: float, hostname: str) -> str:
    """The same for the same (message, recipient), however often it is tried."""
    host = re.sub(r"[/:,]", "_", hostname)
    return f"{int(accepted)}.{id}_{recipient}.{host}"


def uid_of(name: str) -> str:
    base = name.partition(":")[0]
    match = _OURS.fullmatch(base)
    return match[1] if match is not None else hashlib.sha256(base.encode()).hexdigest()[:40]
