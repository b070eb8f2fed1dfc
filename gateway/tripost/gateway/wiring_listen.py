"""from `[[listen]]`, `[tls]`, `[proxy]` and `[limits]` to what listeners take

API      `make_services(config, handlers)`, `admission_of(config)`, `closed(queue, service)`,
         `keep_fresh(…)`.
Why      Here and not in `app`, which only says what is wired to what.
"""

from __future__ import annotations

import ipaddress
import os
import resource
from collections.abc import Callable, Mapping
from functools import partial

import trio

from tripost.gateway.admission import Admission
from tripost.gateway.listeners import Handler, Service, Terms
from tripost.gateway.peer import Network
from tripost.gateway.settings import Config, Listen
from tripost.gateway.tls import Certificates, Pair, TlsError, self_signed
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolUnsure
from tripost.queue.events import Trouble
from tripost.queue.inlet import Inlet
from tripost.queue.manager import Queue

MAIL_IN = frozenset({"smtp", "submission", "lmtp"})
LOOK_EVERY = 30.0  # seconds between two looks at the certificates' files


def tls_mode(config: Config, one: Listen) -> str:
    """none | starttls | implicit: as written, else starttls where it can be."""
    if one.tls:
        return one.tls
    return "starttls" if config.tls.certificate and one.service != "monitor" else "none"


def certificates_of(config: Config) -> Certificates | None:
    """The configured ones; our own where TLS is wanted without any (the built-in settings). Raises TlsError."""
    if config.tls.certificate:
        more = [Pair(one.certificate, one.key, tuple(one.names)) for one in config.tls.sni]
        return Certificates(Pair(config.tls.certificate, config.tls.key), more, config.tls.minimum)
    if all(tls_mode(config, one) == "none" for one in config.listen):
        return None
    return Certificates(self_signed(os.path.join(config.state, "tls"), config.hostname), minimum=config.tls.minimum)


def terms_of(config: Config, one: Listen, certificates: Certificates | None) -> Terms:
    return Terms(
        tls=tls_mode(config, one),
        certificates=certificates,
        require_tls=one.require_tls,
        proxy_protocol=one.proxy_protocol,
        proxies=networks(config.proxy.networks),
        xclient=networks(one.xclient),
    )


def make_services(config: Config, handlers: Mapping[str, Handler]) -> list[Service]:
    """One for each [[listen]] whose kind of service has a handler. Raises TlsError."""
    certificates = certificates_of(config)
    return [
        service_of(config, one, handlers[one.service], certificates)
        for one in config.listen
        if one.service in handlers
    ]


def service_of(config: Config, one: Listen, handler: Handler, certificates: Certificates | None) -> Service:
    return Service(
        one.service,
        one.address,
        handler,
        partial(busy, one.service, config.hostname),
        terms_of(config, one, certificates),
    )


def busy(service: str, hostname: str, why: str) -> bytes:
    """What a service says to whom it does not take, in its own language."""
    if service == "pop3":
        return f"-ERR [SYS/TEMP] {why}\r\n".encode()
    if service == "imap":
        return f"* BYE [UNAVAILABLE] {why}\r\n".encode()
    if service == "monitor":
        return b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n"
    return f"421 4.3.2 {hostname} {why}\r\n".encode()


def admission_of(config: Config) -> Admission:
    limits = config.limits
    return Admission(
        limits.connections,
        limits.client_connections,
        limits.network_connections,
        limits.client_rate,
        exempt=networks(config.relay.networks),
        lag=limits.lag,
    )


def closed(queue: Queue | Inlet, service: str) -> str:
    """Why a service takes nobody: mail is not taken while the spool can store nothing; what is there can be read."""
    return SpoolUnsure.text if service in MAIL_IN and not queue.accepting else ""


def networks(texts: list[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(one, strict=False) for one in texts)


def take_descriptors() -> None:
    """As many descriptors as the system lets us have: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def keep_fresh(current: Callable[[], Certificates | None], bus: Bus, clock: Clock) -> None:
    """Take renewed certificates into use, until cancelled. What does not fit is told once and not taken."""
    told = ""
    while True:
        await trio.sleep(LOOK_EVERY)
        certificates = current()
        try:
            if certificates is not None:
                certificates.refresh()
            told = ""
        except TlsError as wrong:
            if str(wrong) != told:
                told = str(wrong)
                bus.emit(Trouble(time=clock.now(), where="tls", reason=told))
