"""the octets of a section of a message

Source   RFC 9051 §6.4.5.1, RFC 3516 §4.
"""

from __future__ import annotations

from tripost.delivery.mime.decoding import encoding_of, without_encoding
from tripost.delivery.mime.fields import chosen, header_end
from tripost.delivery.mime.structure import Part, find_part, structure
from tripost.gateway.egress.imap.fetch_items import Item


class UnknownEncoding(Exception):
    """A part cannot be told as BINARY."""


class Sections:
    """Of one message; its structure is found out when it is needed."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._root: Part | None = None

    @property
    def root(self) -> Part:
        if self._root is None:
            self._root = structure(self._message)
        return self._root

    def octets(self, item: Item) -> bytes | None:
        """None when there is no such section. Raises UnknownEncoding."""
        message = self._message
        if item.name.startswith("BINARY"):
            return self._binary(item)
        if not item.path:
            if not item.part:
                return message
            body = header_end(message)
            return of_header(message[:body], item) if item.part != "TEXT" else message[body:]
        part = find_part(self.root, item.path)
        if part is None:
            return None
        if item.part == "MIME":
            return message[part.start : part.body]
        if not item.part:
            return message[part.body : part.end]
        if not part.message:
            return None
        inner = part.parts[0]
        if item.part == "TEXT":
            return message[inner.body : inner.end]
        return of_header(message[inner.start : inner.body], item)

    def _binary(self, item: Item) -> bytes | None:
        if not item.path:
            return self._message
        part = find_part(self.root, item.path)
        if part is None:
            return None
        content = self._message[part.body : part.end]
        if part.multipart or part.message:
            return content
        plain = without_encoding(content, encoding_of(part))
        if plain is None:
            raise UnknownEncoding
        return plain


def of_header(header: bytes, item: Item) -> bytes:
    """All of it, or the fields that are asked for."""
    if item.part == "HEADER":
        return header
    names = frozenset(one.lower() for one in item.fields)
    return chosen(header, names, others=item.part == "HEADER.FIELDS.NOT")
