"""which function answers which IMAP command, and what a refused login is told"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tripost.gateway.egress.imap import on_mailboxes, on_messages, on_searches
from tripost.gateway.egress.imap.client import Client
from tripost.gateway.egress.imap.commands import Command

CODES = {  # of what `login` denies; RFC 5530
    "credentials": "NO [AUTHENTICATIONFAILED]",
    "disabled": "NO [CONTACTADMIN]",
    "barred": "NO [UNAVAILABLE]",
    "cleartext": "NO [PRIVACYREQUIRED]",
    "temporary": "NO [UNAVAILABLE]",
    "unknown": "NO",
    "cancelled": "BAD",
    "malformed": "BAD",
}
Handler = Callable[[Client, Command], Awaitable[str]]
HANDLERS: dict[str, Handler] = {
    "ENABLE": on_mailboxes.enable,
    "NAMESPACE": on_mailboxes.namespace,
    "SELECT": on_mailboxes.select,
    "EXAMINE": on_mailboxes.select,
    "CREATE": on_mailboxes.create,
    "DELETE": on_mailboxes.delete,
    "RENAME": on_mailboxes.rename,
    "SUBSCRIBE": on_mailboxes.subscribe,
    "UNSUBSCRIBE": on_mailboxes.subscribe,
    "LIST": on_mailboxes.listing,
    "LSUB": on_mailboxes.listing,
    "STATUS": on_mailboxes.status,
    "GETQUOTA": on_mailboxes.quota,
    "GETQUOTAROOT": on_mailboxes.quota,
    "UNSELECT": on_mailboxes.unselect,
    "CLOSE": on_messages.close,
    "EXPUNGE": on_messages.expunge,
    "SEARCH": on_searches.search,
    "SORT": on_searches.sort,
    "THREAD": on_searches.thread,
    "FETCH": on_messages.fetch,
    "STORE": on_messages.store,
    "COPY": on_messages.copy,
    "MOVE": on_messages.copy,
}
NUMBERS_STAY = ("FETCH", "STORE", "SEARCH", "SORT", "THREAD")  # while these are answered, nothing is said to be gone
