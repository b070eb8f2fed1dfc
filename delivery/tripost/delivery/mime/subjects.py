"""subjects and dates as SORT and THREAD compare them

Source   RFC 5256 §2.1 (base subject), RFC 5322 §3.3 (dates).
"""

from __future__ import annotations

import datetime
import re
from email.utils import parsedate_tz

MOST_SUBJECT = 2000  # characters that are looked at
_BLOB = r"\[[^\[\]]*\]\s*"
_LEADER = re.compile(rf"(?:{_BLOB})*(?:re|fwd?)\s*(?:{_BLOB})?:", re.I)
_ONE_BLOB = re.compile(_BLOB)
_TRAILER = re.compile(r"(?:\(fwd\)|\s)+\Z", re.I)
_MESSAGE_ID = re.compile(rb"<[^<>\s]{1,998}>")


def base_subject(subject: str) -> tuple[str, bool]:
    """The subject without Re:, Fwd: and the like, in capitals; and whether there was one of them."""
    text = " ".join(subject[:MOST_SUBJECT].split())
    answer = False
    while True:
        before = text
        trailed = _TRAILER.sub("", text)
        if trailed != text:
            answer = answer or text.rstrip().lower().endswith("(fwd)")
            text = trailed
        while True:
            leader = _LEADER.match(text.lstrip())
            if leader is not None:
                text, answer = text.lstrip()[leader.end() :], True
                continue
            blob = _ONE_BLOB.match(text.lstrip())
            if blob is not None and text.lstrip()[blob.end() :].strip():
                text = text.lstrip()[blob.end() :]
                continue
            break
        text = text.strip()
        if text[:5].lower() == "[fwd:" and text.endswith("]"):
            text, answer = text[5:-1], True
        if text == before:
            return text.upper(), answer


def sent_time(value: bytes) -> tuple[int, int] | None:
    """A Date field as seconds since 1970 and the number of its day in its own zone; None for what is no date."""
    try:
        found = parsedate_tz(value.decode("ascii", "replace")[:200])
        if found is None:
            return None
        year, month, day, hour, minute, second = found[:6]
        day_number = datetime.date(year, month, day).toordinal()
        there = datetime.datetime(year, month, day, hour, minute, min(second, 59), tzinfo=datetime.UTC)
        return int(there.timestamp()) - (found[9] or 0), day_number
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def message_ids(value: bytes) -> list[bytes]:
    """The message ids of a field, in their order."""
    return _MESSAGE_ID.findall(value)[:1000]
