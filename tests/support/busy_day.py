"""a gateway on a busy day: names with MX records, hosts that take, slow down, refuse or are gone, and mail for hours

DNS and senders run here, hosts are bench/sink.py in processes of their own, each on a loopback address.
"""

from __future__ import annotations

import json
import pathlib
import random
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import trio

from support.gateways import Running, free_port, running
from support.monitored import ROOT, TOKEN
from tripost.gateway.demo_dns import serve_dns

# domain, messages a second, hours since the oldest of it began to wait, and how its host answers
PLACES: tuple[tuple[str, float, float, str], ...] = (
    ("gmx.example", 60, 0, "--delay 0.01"),
    ("posteo.example", 40, 0, "--delay 0.02 --answer rcpt=550 5.1.1 <x>: no such user here@0.02"),
    ("uni-koblenz.example", 20, 0, "--delay 0.01 --answer rcpt=450 4.7.1 Greylisted, try again in 300 seconds@0.06"),
    ("laposte.example", 12, 3, "--answer rcpt=450 4.7.1 Greylisted, try again in 300 seconds@0.5"),
    ("yahoo.example", 8, 30, "--answer mail=421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred@0.97"),
    ("outlook.example", 10, 2, "--answer connect=421 4.3.2 The number of connections from your host is too high@0.6"),
    ("orange.example", 5, 9, "--delay 0.01"),
    ("slow.example", 2, 26, "down"),
    ("free.example", 6, 1, "--answer rcpt=452 4.2.2 The mailbox is full@0.3"),
    ("t-online.example", 9, 0, "--delay 0.03"),
    ("bank.example", 3, 0.4, "--answer data=451 4.7.1 Please come back later@0.7"),
    ("truc.fr", 8, 0, "--delay 0.01"),
)
EXTRA = """\
[monitor]
token_file = "token"
[dns]
nameservers = ["{dns}"]
[delivery]
port = {port}
[delivery.default]
connections = 20
[delivery.destination."t-online.example"]
rate = "5/s"
"""


@asynccontextmanager
async def busy_day(folder: pathlib.Path) -> AsyncGenerator[Running]:
    """`folder` is the gateway's own; what waits for long is there, and mail comes, until the end."""
    port = free_port()
    folder.mkdir()
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "token").chmod(0o600)
    with ExitStack() as stack:
        for number, (_, _, _, answers) in enumerate(PLACES):
            if answers != "down":
                stack.enter_context(_host(f"127.0.1.{number + 1}", port, answers))
        async with trio.open_nursery() as nursery:
            dns = await nursery.start(serve_dns, _zones())
            gateway = stack.enter_context(running(folder, EXTRA.format(dns=dns, port=port)))
            await trio.to_thread.run_sync(_begin, gateway)
            for domain, rate, _, _ in PLACES:
                nursery.start_soon(_send, gateway.smtp, domain, rate)
            nursery.start_soon(_send, gateway.smtp, "machin.com", 6)
            yield gateway
            nursery.cancel_scope.cancel()


@contextmanager
def _host(address: str, port: int, answers: str) -> Generator[None]:
    words = [sys.executable, str(ROOT / "bench" / "sink.py"), "--host", address, "--port", str(port)]
    for one in answers.removeprefix("--").split(" --"):
        name, _, value = one.partition(" ")
        words += [f"--{name}", value]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as sink:
        try:
            yield
        finally:
            sink.kill()


def _zones() -> dict[str, list[tuple[str, str, str]]]:
    zones: dict[str, list[tuple[str, str, str]]] = {}
    for number, (domain, _, _, _) in enumerate(PLACES):
        host = f"mx1.{domain}."
        zones[domain] = [(domain, "MX", f"10 {host}"), (host, "A", f"127.0.1.{number + 1}")]
    return zones


def _begin(gateway: Running) -> None:
    """What waits for hours already, and what operators did."""
    letters = gateway.folder / "letters"
    letters.mkdir()
    chance, now = random.Random(8), time.time()
    for domain, _, hours, _ in PLACES:
        for number in range(int(60 * hours**0.6) if hours else 0):
            accepted = now - 3600 * hours * chance.random() ** 1.6
            letter = {
                "sender": f"{chance.choice(['list', 'fred', 'news'])}@truc.fr",
                "recipients": [{"address": f"user{number}@{domain}"}],
                "accepted": accepted,
                "expires": accepted + 432_000,
            }
            (letters / f"{domain}-{number}.json").write_text(json.dumps(letter))
            (letters / f"{domain}-{number}.eml").write_bytes(b"Subject: waiting\r\n\r\nfor long\r\n")
    gateway.command("queue", "suspend", "mx:orange.example", "--for", "2h", "--reason", "they asked us to wait")
    done = gateway.command("queue", "import", str(letters))
    assert done.returncode == 0, done.stderr
    gateway.command("queue", "hold", "--sender", "news@truc.fr", "--domain", "laposte.example", "--yes")


async def _send(port: int, domain: str, rate: float) -> None:
    """Over one connection, at random moments, so many a second."""
    chance = random.Random(domain)
    names = ["marc"] if domain == "machin.com" else [f"user{number}" for number in range(40)]
    while True:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                await stream.receive_some(4096)
                await stream.send_all(b"EHLO sender.truc.fr\r\n")
                await stream.receive_some(4096)
                while True:
                    await trio.sleep(chance.expovariate(rate))
                    to = f"{chance.choice(names)}@{domain}"
                    await stream.send_all(f"MAIL FROM:<fred@truc.fr>\r\nRCPT TO:<{to}>\r\nDATA\r\n".encode())
                    said = b""
                    while said.count(b"\n") < 3:
                        said += await stream.receive_some(4096)
                    await stream.send_all(b"Subject: today\r\n\r\n" + b"x" * chance.randint(100, 9000) + b"\r\n.\r\n")
                    await stream.receive_some(4096)
        except (OSError, trio.BrokenResourceError):
            await trio.sleep(0.5)
