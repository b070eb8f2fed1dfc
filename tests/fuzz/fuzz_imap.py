"""coverage-guided fuzzing of IMAP's reader, grammar and names, and of what is found out about messages (atheris)

    deploy/uv run --with atheris==3.0.0 python tests/fuzz/fuzz_imap.py CORPUS -max_total_time=600

The first octet chooses: commands as a client sends them, cut as the second says; or a message. Whatever it is: no
exception but those that are answers, the same events however it is cut, memory bounded, and answers of one line.
"""

from __future__ import annotations

import pathlib
import sys

import atheris

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), *(str(ROOT / one) for one in ("gateway", "delivery", "queue"))]

with atheris.instrument_imports(include=["tripost"]):
    from tripost.delivery.mime.structure import structure
    from tripost.gateway.egress.imap.commands import Command, parse, streams
    from tripost.gateway.egress.imap.facts import facts, sort_keys
    from tripost.gateway.egress.imap.listing import list_rows
    from tripost.gateway.egress.imap.reader import Announced, CommandReader, Data, Event, Mistake, Whole
    from tripost.gateway.egress.imap.sections import Sections, UnknownEncoding
    from tripost.gateway.egress.imap.values import Fetch, Impossible, Listing, name_of

NAMES = ("A", "A.B", "INBOX.x", "Entw&APw-rfe", "Sent")


def events(pieces: list[bytes], *, logged_in: bool) -> list[Event]:
    reader, found = CommandReader(), []
    if logged_in:
        reader.log_in()
    for piece in pieces:
        reader.feed(piece)
        while (event := reader.next()) is not None:
            if isinstance(event, Data) and found and isinstance(found[-1], Data):
                found[-1] = Data(found[-1].octets + event.octets)
            else:
                found.append(event)
            if isinstance(event, Announced):
                if streams(event):
                    reader.stream()
                elif len(reader) + event.size > reader.limit:
                    mistake = reader.refuse("BAD too large")
                    found += [mistake] if mistake is not None else []
                else:
                    reader.keep()
        assert len(reader) <= reader.limit + len(piece) + 200
    return found


def commands(choice: int, step: int, data: bytes) -> None:
    whole = events([data], logged_in=bool(choice & 2))
    assert events([data[at : at + step] for at in range(0, len(data), step)], logged_in=bool(choice & 2)) == whole
    for one in whole:
        if not isinstance(one, Whole):
            continue
        found = parse(one.text, "nass"[choice >> 2 & 3])
        if isinstance(found, Mistake):
            assert found.text.startswith(("BAD ", "NO "))
            assert "\r" not in found.text
            assert "\n" not in found.text
        else:
            command(found)


def command(found: Command) -> None:
    args = found.args
    octets = getattr(args, "octets", None)
    if octets is not None:
        try:
            name = name_of(octets)
            assert "/" not in name
            assert ".." not in name
        except Impossible:
            pass
    if isinstance(args, Listing):
        try:
            list_rows(args, NAMES, NAMES[:2])
        except ValueError:
            pass
    if isinstance(args, Fetch):
        sections = Sections(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n")
        for item in args.items:
            if item.content:
                try:
                    sections.octets(item)
                except UnknownEncoding:
                    pass


def message(data: bytes) -> None:
    entry = facts(data, 1)
    sort_keys(entry)
    assert entry.blobs[0].startswith(b"(")
    root = structure(data)
    assert root.end == len(data)


def one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    if data[0] & 1:
        commands(data[0], data[1] % 41 + 1, data[2:])
    else:
        message(data[2:].replace(b"|", b"\r\n"))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
