"""IMAP commands about mailboxes: making, listing, selecting, counting them

Each takes the client and the command, and gives what follows the tag; `Impossible`
is a NO, an OSError is told by the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tripost.delivery.mailbox.flags import DELETED, SEEN
from tripost.delivery.mailbox.folder import Rows
from tripost.delivery.mailbox.folder_changes import move
from tripost.delivery.mailbox.opened import Shared
from tripost.delivery.mailbox.tree import Full
from tripost.gateway.egress.imap.capabilities import ENABLED
from tripost.gateway.egress.imap.client import NO_MAILBOX, Client, in_thread
from tripost.gateway.egress.imap.commands import Command
from tripost.gateway.egress.imap.listing import Row, list_rows, lsub_rows
from tripost.gateway.egress.imap.sets import NumberSet, compact, places, spans
from tripost.gateway.egress.imap.utf7 import encode
from tripost.gateway.egress.imap.values import Impossible, Listing, Mailbox, Rename, Select, Status, Words
from tripost.gateway.egress.imap.view import View

INBOX = "INBOX"
MOST_MISSING = 1_000_000  # UIDs that are told as gone where it is not known which went


async def enable(client: Client, command: Command) -> str:
    assert isinstance(command.args, Words)
    fresh = [word for word in command.args.words if word in ENABLED and ENABLED[word] not in client.enabled]
    client.enabled |= {ENABLED[word] for word in fresh}
    if "QRESYNC" in client.enabled:
        client.enabled.add("CONDSTORE")
    client.untagged(" ".join(["ENABLED", *(ENABLED[word] for word in fresh)]))
    return "OK enabled"


async def namespace(client: Client, command: Command) -> str:
    client.untagged('NAMESPACE (("" ".")) NIL NIL')
    return "OK your own mailboxes only"


# --- making and removing ---


async def create(client: Client, command: Command) -> str:
    assert isinstance(command.args, Mailbox)
    octets = command.args.octets
    name = client.name(octets[:-1] if octets.endswith(b".") and len(octets) > 1 else octets)
    if not name:
        raise Impossible("[ALREADYEXISTS] INBOX is always there")
    try:
        await in_thread(partial(client.tree.create, name, client.context.clock.now()))
    except FileExistsError:
        raise Impossible("[ALREADYEXISTS] there is one of that name") from None
    except Full:
        raise Impossible("[LIMIT] there are too many mailboxes") from None
    async with client.context.opened.use(client.tree.path(name)) as shared:
        return f"OK [MAILBOXID ({shared.folder.journal.id})] made"


async def delete(client: Client, command: Command) -> str:
    assert isinstance(command.args, Mailbox)
    name, path = await client.existing(command.args.octets)
    if not name:
        raise Impossible("[CANNOT] INBOX cannot be deleted")
    if client.view is not None and client.view.name == name:
        client.unselect()
    client.context.opened.removed(path)
    await in_thread(partial(client.tree.delete, name))
    client.context.opened.removed(path)  # somebody opened it in between
    return "OK deleted"


async def rename(client: Client, command: Command) -> str:
    assert isinstance(command.args, Rename)
    old, new = client.name(command.args.old), client.name(command.args.new)
    if not new or (old and new.startswith(f"{old}.")):
        raise Impossible("[CANNOT] that cannot be its new name")
    if not old:
        return await _rename_inbox(client, new)
    try:
        moved = await in_thread(partial(client.tree.rename, old, new))
    except FileNotFoundError:
        raise Impossible(NO_MAILBOX) from None
    except FileExistsError:
        raise Impossible("[ALREADYEXISTS] there is one of that name") from None
    for source, target in moved:
        client.context.opened.renamed(client.tree.path(source), client.tree.path(target))
    return "OK renamed"


async def _rename_inbox(client: Client, new: str) -> str:
    """RFC 9051 §6.3.6: its messages move, INBOX stays."""
    try:
        await in_thread(partial(client.tree.create, new, client.context.clock.now()))
    except FileExistsError:
        raise Impossible("[ALREADYEXISTS] there is one of that name") from None
    except Full:
        raise Impossible("[LIMIT] there are too many mailboxes") from None
    opened = client.context.opened
    async with opened.use(client.tree.path("")) as inbox, opened.use(client.tree.path(new)) as target:
        await inbox.refresh(claim=True)
        async with target.lock:
            await inbox.run(lambda: move(inbox.folder, list(inbox.folder.rows.uids), target.folder))
        target.tell()
    return "OK its messages are there now"


async def subscribe(client: Client, command: Command) -> str:
    assert isinstance(command.args, Mailbox)
    yes = command.name == "SUBSCRIBE"
    name = client.name(command.args.octets) or INBOX
    if yes and name != INBOX and not await in_thread(partial(client.tree.exists, name)):
        raise Impossible(NO_MAILBOX)
    try:
        await in_thread(partial(client.tree.subscribe, name, yes=yes))
    except Full:
        raise Impossible("[LIMIT] there are too many subscriptions") from None
    return "OK subscribed" if yes else "OK not subscribed any more"


# --- listing and counting ---


async def listing(client: Client, command: Command) -> str:
    asked = command.args
    assert isinstance(asked, Listing)
    old = command.name == "LSUB"
    if asked.patterns == (b"",) and not asked.extended:
        client.put(b'* %b (\\Noselect) "." ""\r\n' % command.name.encode())
        return "OK names are apart by dots"
    names = [] if old else await in_thread(client.tree.names)
    subscribed = await in_thread(client.tree.subscribed) if old or asked.extended else []
    try:
        rows = lsub_rows(asked, subscribed) if old else list_rows(_plain(client, asked), names, subscribed)
    except ValueError as wrong:
        raise Impossible(f"[LIMIT] {wrong}") from None
    for row in rows:
        client.put(_line(client, command.name, row, asked))
        if asked.status and row.exists:
            client.put(await _status(client, "" if row.name == INBOX else row.name, asked.status))
        await client.room()
    return "OK that is all"


def _plain(client: Client, asked: Listing) -> Listing:
    """Patterns of a client that writes UTF-8, as names are on disk."""
    if not client.utf8 and all(one.isascii() for one in asked.patterns):
        return asked
    patterns = tuple(encode(one.decode("utf-8", "replace")).encode() for one in asked.patterns)
    return Listing(asked.reference, patterns, asked.select, asked.returns, asked.status, asked.extended)


def _line(client: Client, verb: str, row: Row, asked: Listing) -> bytes:
    shown = client.shown("" if row.name == INBOX else row.name)
    more = b' ("CHILDINFO" ("SUBSCRIBED"))' if row.below and "SUBSCRIBED" in asked.select else b""
    return b'* %b (%b) "." %b%b\r\n' % (verb.encode(), " ".join(row.attributes).encode(), shown, more)


async def status(client: Client, command: Command) -> str:
    assert isinstance(command.args, Status)
    name, _ = await client.existing(command.args.octets)
    if "HIGHESTMODSEQ" in command.args.items:
        client.condstore()
    client.put(await _status(client, name, command.args.items))
    return "OK that is how it is"


async def _status(client: Client, name: str, items: Sequence[str]) -> bytes:
    async with client.context.opened.use(client.tree.path(name)) as shared:
        if shared.folder.changed:
            await shared.refresh()
        found = " ".join(f"{item} {_figure(client, shared, item)}" for item in items)
    return b"* STATUS %b (%b)\r\n" % (client.shown(name), found.encode())


def _figure(client: Client, shared: Shared, item: str) -> str:
    folder = shared.folder
    rows = folder.rows
    if item == "MAILBOXID":
        return f"({folder.journal.id})"
    figures = {
        "MESSAGES": lambda: len(rows),
        "RECENT": lambda: folder.unclaimed + len(folder.fresh),
        "UIDNEXT": lambda: folder.index.next,
        "UIDVALIDITY": lambda: folder.index.validity,
        "UNSEEN": lambda: sum(not mask & SEEN for mask in rows.masks),
        "DELETED": lambda: sum(bool(mask & DELETED) for mask in rows.masks),
        "SIZE": lambda: sum(rows.sizes),
        "HIGHESTMODSEQ": lambda: folder.journal.highest,
        "APPENDLIMIT": lambda: client.context.limit,
    }
    return str(figures[item]())


async def quota(client: Client, command: Command) -> str:
    """RFC 9208: one root, "", for the whole mailbox."""
    assert isinstance(command.args, Mailbox)
    if command.name == "GETQUOTAROOT":
        name, _ = await client.existing(command.args.octets)
        client.put(b'* QUOTAROOT %b ""\r\n' % client.shown(name))
    elif command.args.octets:
        raise Impossible("[NONEXISTENT] there is no such quota root")
    octets, messages = await in_thread(partial(client.context.measure, client.tree.box))
    policy = client.policy
    parts = [f"STORAGE {-(-octets // 1024)} {policy.quota // 1024}"] if policy.quota else []
    parts += [f"MESSAGE {messages} {policy.quota_messages}"] if policy.quota_messages else []
    client.untagged(f'QUOTA "" ({" ".join(parts)})')
    return "OK that is how full it is"


# --- selecting ---


async def select(client: Client, command: Command) -> str:
    asked = command.args
    assert isinstance(asked, Select)
    if client.view is not None:
        client.unselect()
        if client.enabled & {"QRESYNC", "IMAP4rev2"}:
            client.untagged("OK [CLOSED] the mailbox before is closed")
    if asked.known is not None and "QRESYNC" not in client.enabled:
        return "BAD ENABLE QRESYNC first"
    if asked.condstore or asked.known is not None:
        client.enabled.add("CONDSTORE")
    name, path = await client.existing(asked.octets)
    read_only = command.name == "EXAMINE"
    shared = await client.take(path)
    try:
        await shared.refresh(claim=not read_only)
        client.view = View(name, shared, read_only=read_only)
    except BaseException:
        client.context.opened.give_back(shared)
        raise
    client.view.claim()
    _describe(client, client.view)
    if asked.known is not None:
        _resync(client, client.view, asked)
    return f"OK [{'READ-ONLY' if read_only else 'READ-WRITE'}] {'looking' if read_only else 'selected'}"


def _describe(client: Client, view: View) -> None:
    folder, rows = view.folder, view.folder.rows
    client.lines(view.flag_lines())
    client.untagged(f"{len(view.uids)} EXISTS")
    client.untagged(f"{len(view.recent)} RECENT")
    first = next((at for at, mask in enumerate(rows.masks) if not mask & SEEN), -1)
    if first >= 0:
        client.untagged(f"OK [UNSEEN {first + 1}] the first that is not seen")
    client.untagged(f"OK [UIDVALIDITY {folder.index.validity}] UIDs are valid")
    client.untagged(f"OK [UIDNEXT {folder.index.next}] the next UID")
    client.untagged(f"OK [HIGHESTMODSEQ {folder.journal.highest}] the highest")
    client.untagged(f"OK [MAILBOXID ({folder.journal.id})] whatever it is called")
    if "IMAP4rev2" in client.enabled:
        client.put(b'* LIST () "." %b\r\n' % client.shown(view.name))


def _resync(client: Client, view: View, asked: Select) -> None:
    """RFC 7162 §3.2.5: what has changed since the client was here."""
    assert asked.known is not None
    validity, modseq, known, matched = asked.known
    folder, rows = view.folder, view.folder.rows
    if validity != folder.index.validity:
        return
    wanted = spans(known, folder.index.next - 1) if known is not None else [(1, max(1, folder.index.next - 1))]
    gone = folder.journal.gone_after(modseq)
    if gone is None:
        gone = _missing([(low, min(high, folder.index.next - 1)) for low, high in wanted], rows, _from(matched, rows))
    vanished = [uid for uid in gone if any(low <= uid <= high for low, high in wanted)]
    if vanished:
        client.put(b"* VANISHED (EARLIER) %b\r\n" % compact(vanished).encode())
    for at in places(rows.uids, wanted):
        if rows.modseqs[at] > modseq:
            flags = view.flags(rows.uids[at], rows.masks[at])
            client.put(
                b"* %d FETCH (UID %d FLAGS (%b) MODSEQ (%d))\r\n" % (at + 1, rows.uids[at], flags, rows.modseqs[at])
            )


def _from(matched: tuple[NumberSet, NumberSet] | None, rows: Rows) -> int:
    """The UID up to which the client's numbers are still right (§3.2.5.2): nothing went before it."""
    if matched is None:
        return 0
    numbers = [number for low, high in spans(matched[0], len(rows)) for number in range(low, min(high, low + 9999) + 1)]
    uids = [uid for low, high in spans(matched[1], 0xFFFFFFFF) for uid in range(low, min(high, low + 9999) + 1)]
    good = 0
    for number, uid in zip(numbers, uids, strict=False):
        if number <= len(rows) and rows.uids[number - 1] == uid:
            good = uid
    return good


def _missing(wanted: Sequence[tuple[int, int]], rows: Rows, good: int) -> list[int]:
    """Every UID of these that is not there; it is not known when each went."""
    there = set(rows.uids)
    found: list[int] = []
    for low, high in wanted:
        for uid in range(max(low, good + 1), high + 1):
            if uid not in there:
                found.append(uid)
                if len(found) >= MOST_MISSING:
                    return found
    return found


async def unselect(client: Client, command: Command) -> str:
    client.unselect()
    return "OK closed"
