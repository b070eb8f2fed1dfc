"""SEARCH, SORT and THREAD, as commands

Each takes the client and the command, and gives what follows the tag. A search goes
on in a thread, some messages at a time, so that no other session waits for it.
"""

from __future__ import annotations

from functools import partial

import trio

from tripost.gateway.egress.imap.client import Client, in_thread
from tripost.gateway.egress.imap.commands import Command
from tripost.gateway.egress.imap.searching import Searcher, esearch
from tripost.gateway.egress.imap.threads import ordered_subject, references
from tripost.gateway.egress.imap.values import Impossible, Search, Sort, Thread
from tripost.gateway.egress.imap.view import View

Chosen = list[tuple[int, int]]
MOST_TIME = 300.0  # seconds of one search
SEARCHES = trio.CapacityLimiter(4)  # of the gateway: they must not take the threads that delivery needs


async def _found(client: Client, key: Search | Sort | Thread) -> Searcher:
    view = client.selected
    searcher = Searcher(view, key.key, client.context.clock.now())
    start, began = 0, trio.current_time()
    while start < len(view.uids):
        start = await trio.to_thread.run_sync(partial(searcher.chunk, start), limiter=SEARCHES)
        if trio.current_time() - began > MOST_TIME:
            raise Impossible(f"[LIMIT] the search took longer than {MOST_TIME:.0f} s")
    return searcher


async def search(client: Client, command: Command) -> str:
    asked = command.args
    assert isinstance(asked, Search)
    view, uid = client.selected, command.name.startswith("UID ")
    modseq = _asks_modseq(asked)
    if modseq:
        client.condstore()
    found = (await _found(client, asked)).found
    highest = 0
    if modseq and found:
        highest = _highest(view, found, asked.returns)
    if asked.returns is None:
        if "IMAP4rev2" in client.enabled:
            client.put(esearch(command.tag, found, frozenset({"ALL"}), uid=uid, modseq=highest))
            return "OK that is all"
        numbers = b"".join(b" %d" % (one[1] if uid else one[0]) for one in found)
        client.put(b"* SEARCH%b%b\r\n" % (numbers, b" (MODSEQ %d)" % highest if highest else b""))
        return "OK that is all"
    if "SAVE" in asked.returns:
        view.saved = _saved([one for _, one in found], asked.returns)
    if asked.returns - {"SAVE"}:
        client.put(esearch(command.tag, found, asked.returns, uid=uid, modseq=highest))
    return "OK that is all"


def _highest(view: View, found: Chosen, returns: frozenset[str] | None) -> int:
    """The highest mod-sequence of what is told of them (RFC 7162 §3.1.5, RFC 4731 §3.2)."""
    rows = view.folder.rows
    told = [one for _, one in found]
    if returns is not None and not returns & {"ALL", "COUNT"}:
        told = _saved(told, returns)
    return max((rows.modseqs[at] for one in told if (at := rows.at(one)) >= 0), default=0)


def _saved(uids: list[int], returns: frozenset[str]) -> list[int]:
    """RFC 5182 §2.4: with MIN or MAX and neither ALL nor COUNT, only these."""
    if not uids or returns & {"ALL", "COUNT"} or not returns & {"MIN", "MAX"}:
        return uids
    chosen = ([uids[0]] if "MIN" in returns else []) + ([uids[-1]] if "MAX" in returns else [])
    return sorted(set(chosen))


def _asks_modseq(asked: Search) -> bool:
    todo = [asked.key]
    while todo:
        key = todo.pop()
        if key.kind == "modseq":
            return True
        todo += key.keys
    return False


async def sort(client: Client, command: Command) -> str:
    asked = command.args
    assert isinstance(asked, Sort)
    uid = command.name.startswith("UID ")
    searcher = await _found(client, asked)
    found = await in_thread(partial(searcher.ordered, asked.order))
    client.put(b"* SORT%b\r\n" % b"".join(b" %d" % (one[1] if uid else one[0]) for one in found))
    return "OK that is the order"


async def thread(client: Client, command: Command) -> str:
    asked = command.args
    assert isinstance(asked, Thread)
    searcher = await _found(client, asked)
    uid = command.name.startswith("UID ")
    how = references if asked.algorithm == "REFERENCES" else ordered_subject
    found = await in_thread(lambda: how(searcher.mails(uid=uid)))
    client.put(b"* THREAD%b\r\n" % (b" " + found if found else b""))
    return "OK that is all"
