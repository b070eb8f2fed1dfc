"""IMAP commands about the messages of a selected mailbox

Each takes the client and the command, and gives what follows the tag; `Impossible`
is a NO, an OSError is told by the session.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from tripost.delivery.mailbox import folder_changes as changes
from tripost.delivery.mailbox.flags import DELETED, SEEN
from tripost.delivery.mailbox.keywords import Crowded
from tripost.delivery.mailbox.opened import Shared
from tripost.gateway.egress.imap import fetching
from tripost.gateway.egress.imap.client import Client, in_thread
from tripost.gateway.egress.imap.commands import Command
from tripost.gateway.egress.imap.content import Reader
from tripost.gateway.egress.imap.fetch_items import Item, simple
from tripost.gateway.egress.imap.sets import NumberSet, compact, spans
from tripost.gateway.egress.imap.values import Copy, Fetch, Impossible, Set, Store
from tripost.gateway.egress.imap.view import View

READ_ONLY = "the mailbox was opened to be looked at only"
PIECE = 65_536  # octets of a large message that are sent together
Chosen = list[tuple[int, int]]


class Malformed(Exception):
    """BAD, found out after the grammar: a sequence number that there is not."""


def _chosen(client: Client, wanted: NumberSet, command: Command) -> Chosen:
    found = client.selected.chosen(wanted, uid=command.name.startswith("UID "))
    if found is None:
        raise Malformed("there is no message of that number")
    return found


# --- FETCH ---


async def fetch(client: Client, command: Command) -> str:
    asked = command.args
    assert isinstance(asked, Fetch)
    view, uid = client.selected, command.name == "UID FETCH"
    chosen = _chosen(client, asked.set, command)
    items = _items(client, asked, uid=uid)
    if asked.since is not None:
        rows = view.folder.rows
        chosen = [one for one in chosen if (at := rows.at(one[1])) >= 0 and rows.modseqs[at] > asked.since]
    if asked.vanished and "QRESYNC" in client.enabled:
        _tell_vanished(client, view, asked)
    if any(not one.peek for one in items) and not view.read_only:
        items = await _mark_seen(client, view, items, chosen)
    client.lines(view.keyword_news())
    fetcher = fetching.Fetcher(view, items, Reader(view.folder, await in_thread(view.shared.cache)))
    await _send(client, fetcher, items, chosen)
    client.fetched += len(chosen) if any(one.content for one in items) else 0
    if fetcher.missed:
        view.folder.dirty = True
    if fetcher.undecoded:
        return "NO [UNKNOWN-CTE] a part has an encoding that is not known here"
    return "OK that is all"


def _items(client: Client, asked: Fetch, *, uid: bool) -> tuple[Item, ...]:
    items = asked.items
    names = {one.name for one in items}
    if "MODSEQ" in names or asked.since is not None:
        client.condstore()
    if uid and "UID" not in names:
        items = (simple("UID"), *items)
    modseqs = asked.since is not None or ("CONDSTORE" in client.enabled and "FLAGS" in names)
    if modseqs and "MODSEQ" not in names:
        items = (*items, simple("MODSEQ"))
    return items


def _tell_vanished(client: Client, view: View, asked: Fetch) -> None:
    """RFC 7162 §3.2.6."""
    assert asked.since is not None
    folder = view.folder
    wanted = spans(asked.set, folder.index.next - 1)
    gone = folder.journal.gone_after(asked.since)
    if gone is None:
        there = set(folder.rows.uids)
        last = folder.index.next - 1
        gone = [one for low, high in wanted for one in range(low, min(high, last) + 1) if one not in there]
    found = [one for one in gone if any(low <= one <= high for low, high in wanted)]
    if found:
        client.put(b"* VANISHED (EARLIER) %b\r\n" % compact(found).encode())


async def _mark_seen(client: Client, view: View, items: tuple[Item, ...], chosen: Chosen) -> tuple[Item, ...]:
    """Reading marks a message as seen; the answers show it where it is news."""
    uids = fetching.unseen(view, chosen)
    if not uids:
        return items
    await view.shared.run(partial(changes.store, view.folder, uids, lambda mask: mask | SEEN))
    _silent(view, uids)
    return items if any(one.name == "FLAGS" for one in items) else (*items, simple("FLAGS"))


def _silent(view: View, uids: Sequence[int]) -> None:
    """The client knows already what was done to them."""
    rows = view.folder.rows
    for uid in uids:
        at = rows.at(uid)
        if at >= 0:
            view.knows(uid, rows.modseqs[at])


async def _send(client: Client, fetcher: fetching.Fetcher, items: Sequence[Item], chosen: Chosen) -> None:
    rows = client.selected.folder.rows
    whole = fetching.streamable(items)
    large = {
        at
        for at, (_, uid) in enumerate(chosen)
        if whole is not None and (place := rows.at(uid)) >= 0 and rows.sizes[place] >= fetching.LARGE
    }
    start = 0
    while start < len(chosen):
        if start in large and whole is not None:
            await _stream(client, fetcher, items, whole, chosen[start])
            start += 1
            continue
        end = min((at for at in large if at > start), default=len(chosen))
        data, start = await in_thread(partial(fetcher.batch, chosen[:end], start))
        client.put(data)
        await client.room()


async def _stream(
    client: Client, fetcher: fetching.Fetcher, items: Sequence[Item], whole: Item, one: tuple[int, int]
) -> None:
    """A large message, a piece at a time; as a whole where its file is not what goes over the wire."""
    folder = client.selected.folder
    at = folder.rows.at(one[1])
    if at < 0:
        return
    name, size = folder.rows.names[at], folder.rows.sizes[at]
    rest = fetching.Fetcher(client.selected, [item for item in items if item is not whole], fetcher.reader)
    first = await in_thread(partial(fetcher.reader.slice, name, size, 0, PIECE))
    if first is None or b"\0" in first:
        data, _ = await in_thread(partial(fetcher.batch, [one], 0))
        client.put(data)
        return
    head, _ = await in_thread(partial(rest.batch, [one], 0))
    head = head.removesuffix(b")\r\n")
    client.put(b"%b%b%b {%d}\r\n" % (head, b"" if head.endswith(b"(") else b" ", whole.label, size))
    sent = 0
    while sent < size:
        piece = first if not sent else await in_thread(partial(fetcher.reader.slice, name, size, sent, PIECE))
        if not piece:  # what was announced cannot be kept: the client must not take it for the whole
            raise trio.BrokenResourceError("a message became shorter while it was read")
        client.put(piece.replace(b"\0", b"\x80"))
        sent += len(piece)
        await client.flush()
    client.put(b")\r\n")


# --- STORE, EXPUNGE, COPY, MOVE ---


def _writable(client: Client) -> View:
    view = client.selected
    if view.read_only:
        raise Impossible(READ_ONLY)
    return view


async def store(client: Client, command: Command) -> str:
    asked = command.args
    assert isinstance(asked, Store)
    view, uid = _writable(client), command.name.startswith("UID ")
    chosen = _chosen(client, asked.set, command)
    uids = [one for _, one in chosen]
    if asked.unchanged_since is not None:
        client.condstore()
    refused = await view.shared.run(partial(_store, view.shared, asked, uids))
    _silent(view, uids)
    client.lines(view.keyword_news())
    modseqs = "CONDSTORE" in client.enabled
    if not asked.silent or modseqs:
        rows, lost = view.folder.rows, set(refused)
        for number, one in chosen:
            at = rows.at(one)
            if at < 0 or one in lost:
                continue
            parts = [] if asked.silent else [b"FLAGS (%b)" % view.flags(one, rows.masks[at])]
            parts += [b"UID %d" % one] if uid or "QRESYNC" in client.enabled else []
            parts += [b"MODSEQ (%d)" % rows.modseqs[at]] if modseqs else []
            client.put(b"* %d FETCH (%b)\r\n" % (number, b" ".join(parts)))
        await client.room()
    if refused:
        numbers = refused if uid else [view.number(one) for one in refused]
        return f"OK [MODIFIED {compact(sorted(numbers))}] the others are done"
    return "OK done"


def _store(shared: Shared, asked: Store, uids: Sequence[int]) -> list[int]:
    try:
        mask = changes.mask_in(shared.folder, asked.flags)
    except Crowded:
        raise Impossible("[LIMIT] there is no room for another keyword in this mailbox") from None
    change: dict[str, Callable[[int], int]] = {
        "": lambda before: mask,
        "+": lambda before: before | mask,
        "-": lambda before: before & ~mask,
    }
    return changes.store(shared.folder, uids, change[asked.how], asked.unchanged_since)


async def expunge(client: Client, command: Command) -> str:
    view = _writable(client)
    await _expunge(client, view, command.args.set if isinstance(command.args, Set) else None)
    client.news(uid=True)
    if "CONDSTORE" in client.enabled:
        return f"OK [HIGHESTMODSEQ {view.folder.journal.highest}] removed"
    return "OK removed"


async def _expunge(client: Client, view: View, only: NumberSet | None) -> None:
    rows = view.folder.rows
    among = set(view.uids) if only is None else {uid for _, uid in view.chosen(only, uid=True) or []}
    uids = [uid for at, uid in enumerate(rows.uids) if rows.masks[at] & DELETED and uid in among]
    if uids:
        client.deleted += len(await view.shared.run(partial(changes.expunge, view.folder, uids)))


async def close(client: Client, command: Command) -> str:
    """Removes what is marked \\Deleted, and tells nothing of it."""
    view = client.selected
    if not view.read_only:
        await _expunge(client, view, None)
    client.unselect()
    return "OK closed"


@asynccontextmanager
async def both(source: Shared, target: Shared) -> AsyncGenerator[None]:
    """Hold the target; in the order of their paths, so that nobody waits in a circle."""
    if source is target:
        yield
        return
    first, second = sorted((source, target), key=lambda one: one.folder.path)
    async with first.lock, second.lock:
        yield


async def copy(client: Client, command: Command) -> str:
    asked = command.args
    assert isinstance(asked, Copy)
    moving = command.name.endswith("MOVE")
    view = _writable(client) if moving else client.selected
    chosen = _chosen(client, asked.set, command)
    _, path = await client.existing(asked.octets, "[TRYCREATE] no such mailbox")
    if not chosen:
        return "OK nothing to do"
    uids = [uid for _, uid in chosen]
    source = view.shared
    async with client.context.opened.use(path) as target:
        if not moving:
            await _weigh(client, source, uids)
        pairs = await _transfer(client, source, target, uids, moving=moving)
        validity = target.folder.index.validity
    told = f"COPYUID {validity} {compact([one for one, _ in pairs])} {compact([two for _, two in pairs])}"
    if not moving:
        return f"OK [{told}] copied" if pairs else "OK nothing to do"
    if pairs:
        client.untagged(f"OK [{told}] moved")
    client.news(uid=True)
    return "OK moved"


async def _transfer(
    client: Client, source: Shared, target: Shared, uids: Sequence[int], *, moving: bool
) -> list[tuple[int, int]]:
    hostname = client.context.hostname

    def work() -> list[tuple[int, int]]:
        if target is not source:
            target.folder.refresh()
        if moving:
            return changes.move(source.folder, uids, target.folder)
        return changes.copy(source.folder, uids, target.folder, hostname)

    try:
        if source is target:
            return await source.run(work)
        async with both(source, target):
            return await in_thread(work)
    except changes.Vanished:
        source.folder.dirty = True
        raise Impossible("[EXPUNGEISSUED] some of these messages are gone") from None
    finally:
        source.tell()
        target.tell()


async def _weigh(client: Client, source: Shared, uids: Sequence[int]) -> None:
    """Would they fit into the mailbox once more?"""
    policy = client.policy
    if policy.limited:
        rows = source.folder.rows
        more = sum(rows.sizes[at] for uid in uids if (at := rows.at(uid)) >= 0)
        octets, messages = await in_thread(partial(client.context.measure, client.tree.box))
        if policy.full(octets + more, messages + len(uids)):
            raise Impossible("[OVERQUOTA] the mailbox is full")
