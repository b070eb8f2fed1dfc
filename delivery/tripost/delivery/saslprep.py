"""names and passwords in one form, however they were typed

SASLprep (RFC 4013), for both ends of SASL: what our users send us, and what we
send a smart host. Pure.
"""

from __future__ import annotations

import stringprep
import unicodedata

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """RFC 4013, by the tables of Unicode 3.2; unassigned code points pass, as for queries. Raises ValueError."""
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(" " if stringprep.in_table_c12(one) else one for one in text if not stringprep.in_table_b1(one))
    mapped = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if any(table(one) for one in mapped for table in _PROHIBITED):
        raise ValueError("a character that RFC 4013 prohibits")
    if any(stringprep.in_table_d1(one) for one in mapped) and (
        any(stringprep.in_table_d2(one) for one in mapped)
        or not (stringprep.in_table_d1(mapped[0]) and stringprep.in_table_d1(mapped[-1]))
    ):
        raise ValueError("characters of both directions")
    return mapped
