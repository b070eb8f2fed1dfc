"""the story, played on real parts

Fred (truc.fr) writes to Marc (machin.com): two gateways with state folders of
their own, a small authoritative DNS server, real sockets, and the standard
library's smtplib and poplib (or imaplib) as Fred's and Marc's programs. What is printed is
read from the gateways' events and the clients' replies.
"""

from __future__ import annotations

import imaplib
import os
import poplib
import secrets
import smtplib
import socket
import ssl
import tempfile
from collections.abc import Callable
from email.message import EmailMessage
from typing import TypeVar

import trio

from tripost.delivery.mailbox.uids import folder_name
from tripost.gateway.accounts import Accounts
from tripost.gateway.app import Gateway
from tripost.gateway.config import load
from tripost.gateway.demo_dns import serve_dns
from tripost.gateway.lifecycle import Stop, watch_signals
from tripost.gateway.observe.log import EventLog
from tripost.gateway.tls import self_signed
from tripost.queue import events
from tripost.queue.bus import Subscription
from tripost.queue.events import Event

E = TypeVar("E", bound=Event)

FRED, MARC = "fred@truc.fr", "marc@machin.com"
PATIENCE = 20.0  # seconds for any one step; each takes milliseconds

ZONES = {
    "truc.fr": [("truc.fr", "MX", "10 smtp.truc.fr."), ("smtp.truc.fr", "A", "127.0.0.1")],
    "machin.com": [("machin.com", "MX", "10 smtp.machin.com."), ("smtp.machin.com", "A", "127.0.0.1")],
}

TOML = """\
hostname = "smtp.{domain}"
state = "."
[[listen]]
service = "smtp"
address = "127.0.0.1:{smtp}"
[[listen]]
service = "pop3"
address = "127.0.0.1:0"
[[listen]]
service = "imap"
address = "127.0.0.1:0"
[[listen]]
service = "monitor"
address = "127.0.0.1:0"
[tls]
certificate = "{certificate}"
key = "{key}"
[auth]
file = "accounts"
[relay]
networks = [{relay}]
[local]
domains = ["{domain}"]
postmaster = "{user}"
[spool]
min_free = "1MiB"
[delivery]
port = {peer}
[dns]
nameservers = ["{dns}"]
[events]
file = "events.log"
format = "json"
[lifecycle]
drain = "5s"
"""


class Side:
    """One gateway of the story, with its folder, its events and its user's password."""

    def __init__(self, folder: str, domain: str, user: str, *, smtp: int, peer: int, dns: str, relays: bool) -> None:
        self.folder = os.path.join(folder, domain)
        os.makedirs(self.folder, mode=0o700)
        self.user, self.password = user, secrets.token_urlsafe(9)
        pair = self_signed(os.path.join(self.folder, "tls"), f"smtp.{domain}")
        self.certificate = pair.certificate
        text = TOML.format(
            domain=domain,
            user=user,
            smtp=smtp,
            peer=peer,
            dns=dns,
            relay='"127.0.0.0/8"' if relays else "",
            certificate=os.path.relpath(pair.certificate, self.folder),
            key=os.path.relpath(pair.key, self.folder),
        )
        self.file = os.path.join(self.folder, "tripost.toml")
        with open(self.file, "w", encoding="utf-8") as out:
            out.write(text)
        config = load(self.file)
        Accounts(config.accounts_file).add(user, self.password)
        log = EventLog(config.events.file, "json")
        log.open()
        self.gateway = Gateway(config, log)
        self.stop = Stop()

    def port(self, service: str) -> int:
        return int(self.gateway.addresses[service][0].rpartition(":")[2])


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def play(say: Callable[[str], None], *, keep: bool = False, imap: bool = False) -> int:
    """Tell the story to `say`, one line at a time; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="tripost-demo-") as folder:
        async with trio.open_nursery() as nursery:
            halt = Stop()

            def on_signal(name: str) -> None:
                say(f"{name}: stopping")

            await nursery.start(watch_signals, halt, on_signal)
            nursery.start_soon(_stop_on, halt, nursery.cancel_scope)
            dns = await nursery.start(serve_dns, ZONES)
            here, there = free_port(), free_port()
            fred = Side(folder, "truc.fr", FRED, smtp=here, peer=there, dns=dns, relays=True)
            marc = Side(folder, "machin.com", MARC, smtp=there, peer=here, dns=dns, relays=False)
            async with trio.open_nursery() as gateways:
                for side in (fred, marc):
                    await gateways.start(side.gateway.run, side.stop)
                with trio.fail_after(PATIENCE * 6):
                    await _story(say, fred, marc, dns, keep=keep, imap=imap)
                if keep:
                    _how_to_reach(say, fred, marc)
                    await halt.wait()
                for side in (fred, marc):
                    side.stop.request("the story is told")
            nursery.cancel_scope.cancel()
        return 130 if halt.reason and not keep else 0


async def _stop_on(halt: Stop, scope: trio.CancelScope) -> None:
    await halt.wait()
    scope.deadline = trio.current_time() + 5


class Watch:
    """Collects a side's events; `wait` gives the first of a kind, seen or to come."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._seen: list[Event] = []

    async def wait(self, kind: type[E]) -> E:
        for event in self._seen:
            if isinstance(event, kind):
                return event
        with trio.fail_after(PATIENCE):
            while True:
                event = await self._subscription.receive()
                self._seen.append(event)
                if isinstance(event, kind):
                    return event


def _letter() -> EmailMessage:
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = f"Fred <{FRED}>", f"Marc <{MARC}>", "Lunch on Thursday"
    letter["Message-ID"] = "<lunch-1@truc.fr>"
    letter.set_content("Hello Marc,\n\nThe usual place at noon?\n.\nFred\n")
    return letter


async def _story(say: Callable[[str], None], fred: Side, marc: Side, dns: str, *, keep: bool, imap: bool) -> None:
    say(
        f"Gateways: smtp.truc.fr on port {fred.port('smtp')}, smtp.machin.com on port {marc.port('smtp')}; DNS on {dns}"
    )
    with fred.gateway.bus.subscribe(4096) as truc_events, marc.gateway.bus.subscribe(4096) as machin_events:
        at_truc, at_machin = Watch(truc_events), Watch(machin_events)
        await trio.to_thread.run_sync(_submit, fred.port("smtp"))
        accepted = await at_truc.wait(events.Accepted)
        say(f"1. Fred's program submits the message to smtp.truc.fr by SMTP: queued as {accepted.id}")
        resolved = await at_truc.wait(events.Resolved)
        relayed = await at_truc.wait(events.Relayed)
        say(
            f"2. truc.fr is not Marc's domain: smtp.truc.fr looks up the MX of {resolved.domain}"
            f" ({', '.join(resolved.hosts)}) and relays it there: {relayed.reply}"
        )
        arrived = await at_machin.wait(events.DeliveredLocally)
        say(f"3. smtp.machin.com knows {arrived.recipient} and puts the message into the mailbox")
        count, octets, content = await trio.to_thread.run_sync(_read if imap else _fetch, marc, keep)
        asked, server = await at_machin.wait(events.LoggedIn), "IMAP" if imap else "POP"
        say(f"4. Marc's program asks the {server} server: {asked.account} logs in from {asked.client}, inside of TLS")
        say(f"5. The {server} server looks into the mailbox: {count} message, {octets} octets")
        fetched = await at_machin.wait(events.Fetched)
        end = "shows it; it lies in Lunch now, flagged" if imap else "has it now"
        say(f"6. It sends {fetched.messages} message to Marc's program, which {end}:")
    say("")
    for line in content:
        say("   " + line.decode("utf-8", "replace"))


def _submit(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="fred-laptop.truc.fr", timeout=PATIENCE) as client:
        client.send_message(_letter(), FRED, [MARC])


def _fetch(marc: Side, keep: bool) -> tuple[int, int, list[bytes]]:
    context = ssl.create_default_context(cafile=marc.certificate)
    context.check_hostname = False  # it is the certificate itself that is trusted, under whatever address
    client = poplib.POP3("127.0.0.1", marc.port("pop3"), timeout=PATIENCE)
    client.stls(context)
    client.user(MARC)
    client.pass_(marc.password)
    count, octets = client.stat()
    _, lines, _ = client.retr(1)
    if not keep:  # else for whoever wants to look
        client.dele(1)
    client.quit()
    return count, octets, lines


def _read(marc: Side, keep: bool) -> tuple[int, int, list[bytes]]:
    """By IMAP: found by searching, read, flagged, and moved to a mailbox of its own."""
    context = ssl.create_default_context(cafile=marc.certificate)
    context.check_hostname = False  # as above
    with imaplib.IMAP4("127.0.0.1", marc.port("imap"), timeout=PATIENCE) as client:
        client.starttls(context)
        client.login(MARC, marc.password)
        _, (count,) = client.select()
        _, (numbers,) = client.search(None, "UNSEEN", "SUBJECT", "lunch")
        _, rows = client.fetch(numbers.decode(), "(RFC822.SIZE BODY[])")
        client.create("Lunch")
        client.store(numbers.decode(), "+FLAGS", "\\Flagged")
        if not keep:  # else for whoever wants to look
            client.uid("MOVE", "1:*", "Lunch")
    head, content = next(row for row in rows if isinstance(row, tuple))
    return int(count or 0), int(head.split()[2]), content.removesuffix(b"\r\n").split(b"\r\n")


def _how_to_reach(say: Callable[[str], None], fred: Side, marc: Side) -> None:
    say("")
    for side in (fred, marc):
        say(
            f"{side.gateway.hostname}: smtp 127.0.0.1:{side.port('smtp')}  pop3 127.0.0.1:{side.port('pop3')}"
            f"  imap 127.0.0.1:{side.port('imap')}"
            f"  live ws://127.0.0.1:{side.port('monitor')}/live"
        )
        say(f"   user {side.user}  password {side.password}")
        say(f"   state and events.log in {side.folder}")
    say(f"Marc's mailbox: mutt -f {os.path.join(marc.folder, 'mail', folder_name(MARC))}")
    say("Ctrl-C ends both and removes their folders.")
