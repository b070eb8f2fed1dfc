"""a message's flags: a number in memory, letters in its file's name

Bits 0 to 4 are the flags that Maildir has letters for; bit 5 and those above are
keywords, in the order of the folder's list of them. The first 26 keywords have
letters too (a to z), as Dovecot writes them; what has no letter is in the journal
only.

Promise  letters that mean nothing here stay in the name.
Source   Maildir (DRSTF), RFC 9051 §2.3.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SYSTEM = ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft")
LETTERS = "SRFTD"
SEEN, ANSWERED, FLAGGED, DELETED, DRAFT = 1, 2, 4, 8, 16
FIRST_KEYWORD = len(SYSTEM)
LETTERED = 26
MOST_KEYWORDS = 58  # the mask has to fit into 63 bits
IN_NAME = (1 << (FIRST_KEYWORD + LETTERED)) - 1  # the bits that a name can hold
_BITS = {letter: 1 << bit for bit, letter in enumerate(LETTERS)} | {
    chr(97 + n): 1 << (FIRST_KEYWORD + n) for n in range(LETTERED)
}
_NAMES = dict(sorted(_BITS.items()))


def mask_of(name: str) -> int:
    """What a file's name says; 0 where it says nothing."""
    info = name.partition(":2,")[2]
    mask = 0
    for letter in info:
        mask |= _BITS.get(letter, 0)
    return mask


def named(base: str, mask: int, old: str = "") -> str:
    """The name with these flags; `old` is the one it had."""
    letters = [letter for letter, bit in _NAMES.items() if mask & bit]
    others = [letter for letter in old.partition(":2,")[2] if letter not in _BITS and letter.isalnum()]
    return f"{base}:2,{''.join(sorted(letters + others))}"


def names_of(mask: int, keywords: Sequence[str]) -> list[str]:
    """As IMAP calls them."""
    found = [name for bit, name in enumerate(SYSTEM) if mask >> bit & 1]
    mask >>= FIRST_KEYWORD
    if mask:
        found += [keyword for n, keyword in enumerate(keywords) if mask >> n & 1]
    return found


def mask_for(names: Iterable[str], keywords: Sequence[str]) -> tuple[int, list[str]]:
    """The mask of these flags, and those that are keywords which the list does not have yet."""
    mask = 0
    fresh: list[str] = []
    lower = [keyword.lower() for keyword in keywords]
    for name in names:
        if name in SYSTEM:
            mask |= 1 << SYSTEM.index(name)
        elif name.lower() in lower:
            mask |= 1 << (FIRST_KEYWORD + lower.index(name.lower()))
        elif name.lower() not in (one.lower() for one in fresh):
            fresh.append(name)
    return mask, fresh
