"""what a mailbox may hold, and for how long

Pure. A limit of 0 is none; times are seconds, sizes octets.
"""

from __future__ import annotations

import msgspec

DAY = 86_400.0
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """`quota` and `quota_messages` refuse what is too much: for now, or for good where `reject`. `retention` and
    `max_messages` remove what is too old, or the oldest of too many. `one_shot`: fetched means removed."""

    quota: int = 0
    quota_messages: int = 0
    reject: bool = False
    retention: float = 0.0
    max_messages: int = 0
    one_shot: bool = False

    @property
    def limited(self) -> bool:
        return bool(self.quota or self.quota_messages)

    def full(self, octets: int, messages: int) -> bool:
        """Would a mailbox with so much in it be over its quota?"""
        return bool((self.quota and octets > self.quota) or (self.quota_messages and messages > self.quota_messages))

    def expire(self) -> str:
        """EXPIRE's argument (RFC 2449 §6.7): days for which mail is kept at least, 0 where fetched means removed."""
        if self.one_shot:
            return "0"
        if self.max_messages and not self.retention:
            return "0"  # the next message may push out the oldest
        return str(int(self.retention // DAY)) if self.retention else "NEVER"


def quota_rule(policy: Policy, rule: str) -> Policy:
    """`policy` with what Dovecot's `userdb_quota_rule` says: `*:storage=1G:messages=1000`. Raises ValueError."""
    scope, colon, limits = rule.partition(":")
    if scope != "*" or not colon:
        raise ValueError(f'"{rule}" is not of the form *:storage=1G:messages=1000')
    for limit in limits.split(":"):
        name, _, value = limit.partition("=")
        if name == "messages" and value.isascii() and value.isdigit():
            policy = msgspec.structs.replace(policy, quota_messages=int(value))
        elif name in ("storage", "bytes"):
            # Dovecot counts storage in KiB where no unit is given
            policy = msgspec.structs.replace(policy, quota=_size(value, "k" if name == "storage" else ""))
        else:
            raise ValueError(f'"{limit}" is not storage=SIZE, bytes=SIZE or messages=NUMBER')
    return policy


def _size(text: str, unit: str) -> int:
    digits = text.rstrip("bkmgtBKMGT")
    if not (digits.isascii() and digits.isdigit()) or len(text) - len(digits) > 1:
        raise ValueError(f'"{text}" is no size such as 500M')
    return int(digits) * _UNITS[text[len(digits) :].lower() or unit]
