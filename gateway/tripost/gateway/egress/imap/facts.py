"""what is kept of a message once it was read: everything that lists, searches and sorts need

Written into the folder's cache (`tripost.delivery.mailbox.cache`), in the form in
which it is sent or compared.
"""

from __future__ import annotations

import msgspec

from tripost.delivery.mailbox.cache import Entry, Layout
from tripost.delivery.mime.addresses import addresses
from tripost.delivery.mime.decoding import preview
from tripost.delivery.mime.fields import Fields, as_text, decoded, first
from tripost.delivery.mime.structure import structure
from tripost.delivery.mime.subjects import base_subject, message_ids, sent_time
from tripost.gateway.egress.imap.render import body_structure, envelope

LAYOUT = Layout(version=2, numbers=3, blobs=7)
DATE, SENT, SENT_DAY = range(3)  # seconds since 1970; the number of a day; 0 where the message does not say
ENVELOPE, STRUCTURE, BODY, PREVIEW, TEXTS, SORT, HEADER = range(7)
MOST_HEADER = 16_384  # octets of a header that is kept to be sent; a longer one is read from the message
ADDRESS_FIELDS = frozenset({b"from", b"to", b"cc", b"bcc", b"sender", b"reply-to"})


class SortKeys(msgspec.Struct, frozen=True, array_like=True):
    """What SORT and THREAD compare."""

    subject: str
    reply: bool
    sender: str
    to: str
    cc: str
    id: bytes
    references: list[bytes]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SortKeys).decode


def facts(message: bytes, date: int) -> Entry:
    """Of a whole message in CRLF lines; `date` is when it came."""
    root = structure(message)
    fields = root.fields
    sent = sent_time(first(fields, b"date") or b"") or (0, 0)
    header = message[: root.body]
    blobs = (
        envelope(fields),
        body_structure(message, root, extended=True),
        body_structure(message, root, extended=False),
        preview(root, message).encode("utf-8", "replace"),
        searched(fields).encode("utf-8", "replace"),
        _encode(_sort_keys(fields)),
        header if len(header) <= MOST_HEADER else b"",
    )
    return Entry((date, *sent), blobs)


def searched(fields: Fields) -> str:
    """The header as SEARCH looks at it: a line feed, name, colon and value of each field, and so on to the end."""
    found: list[str] = []
    for name, value in fields:
        value = value.replace(b"\r\n", b"").replace(b"\n", b" ")
        text = decoded(value.strip())
        if name in ADDRESS_FIELDS:  # and without comments, as one address each
            plain = [_plain(one.mailbox, one.host) for one in addresses(value) if one.mailbox and one.host]
            text = "\0".join([text, *plain])
        found.append(f"\n{as_text(name)}:{text}".replace("\r", " "))
    return folded("".join(found))


def _plain(mailbox: bytes, host: bytes) -> str:
    return f"{as_text(mailbox)}@{as_text(host)}"


def folded(text: str) -> str:
    """For comparisons without regard to case."""
    return text.lower() if text.isascii() else text.casefold()


def _sort_keys(fields: Fields) -> SortKeys:
    subject, reply = base_subject(decoded(first(fields, b"subject") or b""))
    ids = message_ids(first(fields, b"message-id") or b"")
    references = message_ids(first(fields, b"references") or b"")
    if not references:
        references = message_ids(first(fields, b"in-reply-to") or b"")[:1]
    sender, to, cc = (_first_mailbox(fields, name) for name in (b"from", b"to", b"cc"))
    subject = subject.encode("utf-8", "replace").decode()  # some charsets decode to half characters
    return SortKeys(subject, reply, sender, to, cc, ids[0] if ids else b"", references)


def _first_mailbox(fields: Fields, name: bytes) -> str:
    for one in addresses(first(fields, name) or b""):
        if one.mailbox is not None:
            return one.mailbox.decode("latin-1").upper()
    return ""


def sort_keys(entry: Entry) -> SortKeys:
    return _decode(entry.blobs[SORT])


def field_mark(name: str) -> bytes:
    """How a field of that name begins in what `searched` gives."""
    return b"\n%b:" % folded(name).encode("utf-8", "replace")


def has_field(texts: bytes, mark: bytes, wanted: bytes) -> bool:
    """Is `wanted` in a field that begins with `mark`? All as `searched` has it."""
    at = texts.find(mark)
    while at >= 0:
        end = texts.find(b"\n", at + 1)
        if texts.find(wanted, at + len(mark), len(texts) if end < 0 else end) >= 0:
            return True
        at = texts.find(mark, end) if end >= 0 else -1
    return False
