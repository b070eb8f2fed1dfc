"""what may follow the path of MAIL and RCPT

RFC 5321 §4.1.1.11: KEYWORD=VALUE, separated by spaces. Known: SIZE (RFC 1870)
and BODY (RFC 6152), for MAIL.

Fails    `ParameterError` with the reply code that fits: 501 for a value that
         is none, 555 for a parameter that is not known.
"""

from __future__ import annotations

import re

import msgspec

_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e]+))?")


class ParameterError(ValueError):
    """`code` and `enhanced` are the reply's."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.enhanced = enhanced


class MailParameters(msgspec.Struct, frozen=True):
    """`size` is 0 where the client did not say."""

    size: int = 0
    eight_bit: bool = False


def split_parameters(text: str) -> dict[str, str]:
    """Keywords in upper case → values; "" for none. Raises ParameterError."""
    if text and not text.startswith(" "):
        raise ParameterError(501, "5.5.4", "there must be a space between address and parameters")
    found: dict[str, str] = {}
    for word in text.split():
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise ParameterError(501, "5.5.4", "malformed parameter")
        name = match[1].upper()
        if name in found:
            raise ParameterError(501, "5.5.4", f"parameter {name} given twice")
        found[name] = match[2] or ""
    return found


def mail_parameters(text: str) -> MailParameters:
    """Of MAIL. Raises ParameterError."""
    size, eight_bit = 0, False
    for name, value in split_parameters(text).items():
        if name == "SIZE":
            if not (value.isascii() and value.isdigit() and len(value) <= 20):
                raise ParameterError(501, "5.5.4", "SIZE must be a number")
            size = int(value)
        elif name == "BODY":
            if value.upper() not in ("7BIT", "8BITMIME"):
                raise ParameterError(501, "5.5.4", "BODY must be 7BIT or 8BITMIME")
            eight_bit = value.upper() == "8BITMIME"
        else:
            raise ParameterError(555, "5.5.4", f"parameter {name} is not known here")
    return MailParameters(size, eight_bit)


def rcpt_parameters(text: str) -> None:
    """Of RCPT: none is known yet. Raises ParameterError."""
    for name in split_parameters(text):
        raise ParameterError(555, "5.5.4", f"parameter {name} is not known here")
