"""mailbox names: modified UTF-7 (RFC 3501 §5.1.3) and what may be one at all

Promise  a name that comes out of `check_name` has one spelling, and as a folder's
         name on disk (`.A.B`) it can be nothing else: no "..", no slash, nothing
         hidden or empty.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata

MOST_DEPTH = 16
MOST_OCTETS = 200  # of the folder's name on disk, which has modified UTF-7
SEPARATOR = "."
_SHIFT = re.compile(r"&([^-]*)-?")
_OTHER = re.compile(r"[^\x20-\x7e]+")


class BadName(Exception):
    """It cannot name a mailbox; the text says why."""


def encode(name: str) -> str:
    """Modified UTF-7."""
    return _OTHER.sub(lambda found: f"&{_base64(found[0])}-", name.replace("&", "&-"))


def _base64(text: str) -> str:
    octets = text.encode("utf-16-be", "surrogatepass")
    return base64.b64encode(octets).decode("ascii").rstrip("=").replace("/", ",")


def decode(text: str) -> str:
    """Raises BadName: there is only one way to write a name."""
    try:
        name = _SHIFT.sub(_shifted, text)
        if text.isascii() and encode(name) == text:
            return name
    except (ValueError, binascii.Error):
        pass
    raise BadName("not modified UTF-7")


def _shifted(found: re.Match[str]) -> str:
    if not found[1]:
        return "&"
    octets = base64.b64decode(found[1].replace(",", "/") + "=" * (-len(found[1]) % 4), validate=True)
    return octets.decode("utf-16-be")


def read_name(octets: bytes, *, utf8: bool) -> str:
    """What a client wrote, as text. With `utf8` it is UTF-8, else modified UTF-7 where that is what it is; UTF-8 is
    understood in both. Raises BadName."""
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise BadName("neither modified UTF-7 nor UTF-8") from None
    if utf8 or not text.isascii():
        return unicodedata.normalize("NFC", text)
    return decode(text)


def check_name(name: str) -> str:
    """The name as it is kept: INBOX in capitals. Raises BadName."""
    parts = name.split(SEPARATOR)
    if parts[0].upper() == "INBOX":
        parts[0] = "INBOX"
    if "" in parts:
        raise BadName("a part of the name is empty")
    if len(parts) > MOST_DEPTH:
        raise BadName(f"more than {MOST_DEPTH} levels")
    if any(one in "/%*\\" or unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in name):
        raise BadName("a character that cannot be in a mailbox's name")
    checked = SEPARATOR.join(parts)
    if len(encode(checked)) > MOST_OCTETS:
        raise BadName(f"longer than {MOST_OCTETS} octets")
    return checked
