"""tripost session: play an SMTP dialogue as if from somewhere, and be told why

Commands are read from standard input, typed or piped; a line may end in LF
alone. Replies are printed as a client would get them, and behind ">>>" what was
decided and by what. Nothing is queued.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
import tempfile
from functools import partial

import trio

from tripost.delivery.null_mx import NullMx
from tripost.delivery.resolver import Resolver
from tripost.gateway.config import Config
from tripost.gateway.ingress.context import NOBODY, Who
from tripost.gateway.ingress.patience import Patience
from tripost.gateway.ingress.rehearsal import Explained, Nowhere
from tripost.gateway.ingress.smtp_session import serve_smtp
from tripost.gateway.lifecycle import Draining
from tripost.gateway.local_mail import LocalMail
from tripost.gateway.peer import Peer, TlsFacts
from tripost.gateway.wiring_egress import make_logins
from tripost.gateway.wiring_ingress import ingress_context
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.events import Event, LoginFailed, Noticed, Refused
from tripost.queue.files import RealFiles

READ = 65_536


def client_of(text: str) -> tuple[str, int]:
    """ "192.0.2.1", "192.0.2.1:25", "2001:db8::1" or "[2001:db8::1]:25". Raises ValueError."""
    host, _, port = text.rpartition(":") if text.count(":") == 1 or "]:" in text else (text, "", "0")
    return str(ipaddress.ip_address(host.strip("[]"))), int(port)


def run(config: Config, options: argparse.Namespace) -> int:
    """0, or 1 when anything was refused."""
    try:
        client = client_of(options.client)
    except ValueError as wrong:
        print(f"tripost: --client: {wrong}", file=sys.stderr)
        return 2
    return trio.run(_play, config, options, client)


async def _play(config: Config, options: argparse.Namespace, client: tuple[str, int]) -> int:
    bus, clock, mail = Bus(), Clock(), LocalMail(config)
    refused = 0

    def say(text: str) -> None:
        print(f">>> {text}", flush=True)

    def heard(event: Event) -> None:
        nonlocal refused
        if isinstance(event, Refused):
            refused += 1
        elif isinstance(event, Noticed):
            say(event.reason)
        elif isinstance(event, LoginFailed):
            say(f"login failed: {event.reason}")

    bus.add_sink(heard)
    if options.auth and not mail.accounts.find(options.auth):
        print(f"tripost: --auth: {options.auth} is no user here", file=sys.stderr)
        return 2
    logins = make_logins(config, mail.accounts, bus, clock)
    resolver = Resolver(config.dns.nameservers, hostname=config.hostname)
    policy = Explained(mail.mailboxes.router, NullMx(resolver.null_mx, clock.now))
    policy.say = say
    peer = Peer(
        client=client[0],
        client_port=client[1],
        service=options.service,
        tls=TlsFacts("TLS", "rehearsed", 256) if options.tls else None,
    )
    with tempfile.TemporaryDirectory(prefix="tripost-session-") as folder:
        queue = Nowhere(RealFiles(), folder, say)
        context = ingress_context(config, queue, policy, bus, clock, Draining(), Patience(), logins)
        who = Who(mail.accounts.find(options.auth) or "") if options.auth else NOBODY
        await serve_smtp(Terminal(), peer=peer, context=context, who=who)
    return 1 if refused else 0


class Terminal(trio.abc.Stream):
    """Standard input and output as a connection."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data: bytes = await trio.to_thread.run_sync(
            partial(os.read, sys.stdin.fileno(), max_bytes or READ), abandon_on_cancel=True
        )
        return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        sys.stdout.write(bytes(data).decode("utf-8", "replace").replace("\r\n", "\n"))
        sys.stdout.flush()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
