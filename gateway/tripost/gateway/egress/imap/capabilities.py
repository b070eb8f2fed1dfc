"""what CAPABILITY tells, when

Everything here works; what is not here does not. `LOGINDISABLED` and the
mechanisms follow from the listener, from TLS, and from the accounts.
"""

from __future__ import annotations

from collections.abc import Sequence

ALWAYS = ("IMAP4rev1", "IMAP4rev2", "LITERAL+", "SASL-IR", "ID", "ENABLE", "IDLE")
AFTER = (
    "NAMESPACE",
    "UNSELECT",
    "UIDPLUS",
    "MOVE",
    "CHILDREN",
    "LIST-EXTENDED",
    "LIST-STATUS",
    "SPECIAL-USE",
    "ESEARCH",
    "SEARCHRES",
    "WITHIN",
    "SORT",
    "THREAD=ORDEREDSUBJECT",
    "THREAD=REFERENCES",
    "CONDSTORE",
    "QRESYNC",
    "STATUS=SIZE",
    "OBJECTID",
    "MULTIAPPEND",
    "BINARY",
    "UTF8=ACCEPT",
    "QUOTA",
    "QUOTA=RES-STORAGE",
    "QUOTA=RES-MESSAGE",
    "PREVIEW",
    "REPLACE",
)
ENABLED = {"CONDSTORE": "CONDSTORE", "QRESYNC": "QRESYNC", "UTF8=ACCEPT": "UTF8=ACCEPT", "IMAP4REV2": "IMAP4rev2"}


def capabilities(
    *, logged_in: bool, passwords: bool, tls: bool, mechanisms: Sequence[str], limit: int, compressed: bool
) -> str:
    """`passwords`: LOGIN may be used now; `tls`: STARTTLS may be; `limit`: octets of a message that is appended."""
    rows = list(ALWAYS)
    if not logged_in:
        rows += ["STARTTLS"] if tls else []
        rows += [f"AUTH={one}" for one in mechanisms]
        rows += [] if passwords else ["LOGINDISABLED"]
        return " ".join(rows)
    rows += [*AFTER, f"APPENDLIMIT={limit}"]
    rows += [] if compressed else ["COMPRESS=DEFLATE"]
    return " ".join(rows)
