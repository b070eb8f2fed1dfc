"""a gateway's inside on a fake disk and memory streams, for a mock clock"""

from __future__ import annotations

import ipaddress
import pathlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair

from support.fake_files import FakeFiles, run_here
from support.peers import Names, Peer
from support.queues import SMALL, queue_on
from tripost.delivery.client_tls import ClientTls
from tripost.delivery.dispatcher import Dispatcher
from tripost.delivery.dsn import make_report
from tripost.delivery.fast_stream import Connect
from tripost.delivery.mailbox.maildir import MaildirDelivery, Place
from tripost.delivery.processes.courier import Courier
from tripost.delivery.processes.crew import Crew
from tripost.delivery.resolver import Names as ResolverNames
from tripost.delivery.routing import Router
from tripost.delivery.rules import RouteRule
from tripost.delivery.settings import DeliverySettings
from tripost.gateway.ingress.context import IngressContext
from tripost.gateway.ingress.memory import MemoryPool
from tripost.gateway.ingress.patience import Patience
from tripost.gateway.ingress.policy import Policy
from tripost.gateway.ingress.quotas import Quotas
from tripost.gateway.ingress.smtp_session import serve_smtp
from tripost.gateway.peer import Peer as Client
from tripost.queue.bus import Bus
from tripost.queue.channel import pair
from tripost.queue.clock import Clock
from tripost.queue.events import Event
from tripost.queue.manager import Queue
from tripost.queue.message import Envelope, News
from tripost.queue.values import QueueSettings

Stream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]
USERS = ("fred@truc.fr", "post@truc.fr")


def _locate(user: str) -> Place | None:
    return Place(user) if user in USERS else None


class Lab:
    """All that a scenario looks at; `seen` are the events."""

    def __init__(self, folder: pathlib.Path, queue: Queue, bus: Bus, clock: Clock, router: Router) -> None:
        self.folder = folder
        self.queue = queue
        self.bus = bus
        self.clock = clock
        self.router = router
        self.seen: list[Event] = []
        self.names = Names()
        self.patience = Patience()
        self.keeping = trio.CancelScope()
        self.peer: Peer
        self.connect: Connect | None = None  # instead of the peer's
        self.dispatcher: Dispatcher
        self.hands: Hands | None = None
        bus.add_sink(self.seen.append)

    async def deliver(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.dispatcher.run(task_status=task_status)
        if self.hands is not None:
            self.hands.crew.close()

    async def keep_time(self) -> None:
        with self.keeping:
            await self.patience.run()

    async def connected(self, address: str, port: int, source: str = "") -> trio.abc.Stream:
        return await (self.connect or self.peer.connect)(address, port, source)

    def events(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.seen if isinstance(one, kind)]

    def ingress(self, **more: Any) -> IngressContext:
        values: dict[str, Any] = {
            "hostname": "smtp.truc.fr",
            "queue": self.queue,
            "policy": Policy(self.router),
            "quotas": Quotas(),
            "memory": MemoryPool(1 << 20),
            "bus": self.bus,
            "clock": self.clock,
            "relay_networks": (ipaddress.ip_network("127.0.0.0/8"),),
            "message_size": 100_000,
            "recipients": 10,
            "errors": 20,
            "junk_commands": 100,
            "command_timeout": 300.0,
            "data_timeout": 180.0,
            "expire": 432_000.0,
            "hops": 100,
            "patience": self.patience,
        }
        return IngressContext(**(values | more))

    async def talk(
        self, data: bytes, *, client: str = "127.0.0.1", bytewise: bool = False, peer: Client | None = None, **more: Any
    ) -> list[str]:
        """All replies to a whole session's octets."""
        ours, theirs = memory_stream_pair()
        got = bytearray()

        async def read() -> None:
            while part := await ours.receive_some():
                got.extend(part)

        async def write() -> None:
            try:
                for piece in [data[n : n + 1] for n in range(len(data))] if bytewise else [data]:
                    await ours.send_all(piece)
                await ours.send_stream.aclose()
            except trio.BrokenResourceError:
                pass  # the server hung up: that is what some tests want

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(write)
            await serve_smtp(theirs, peer=peer or Client(client=client), context=self.ingress(**more))
            await theirs.aclose()
        return got.decode().split("\r\n")[:-1]

    async def send(self, recipient: str, sender: str = "fred@truc.fr", text: str = "hello") -> None:
        replies = await self.talk(
            f"EHLO x\r\nMAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\nSubject: {text}\r\n\r\n{text}\r\n.\r\n"
            "QUIT\r\n".encode()
        )
        assert any(one.startswith("250 2.0.0 queued as") for one in replies), replies

    def mailbox(self, user: str) -> list[str]:
        return [one.read_text() for one in sorted((self.folder / user / "new").glob("*"))]


class Hands:
    """Couriers in this very loop, each at its end of a real socket pair: delivery processes without the processes."""

    def __init__(self, one: Lab, files: FakeFiles, tls: ClientTls | None) -> None:
        self.lab = one
        self.files = files
        self.trusted = tls and tls.trusted
        self.crew = Crew("spool", one.bus, one.clock)
        self.couriers: dict[int, Courier] = {}
        self.scopes: dict[int, trio.CancelScope] = {}

    async def run(self, number: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """One courier, which dies with `scopes[number]`."""
        ours, theirs = pair()
        dead, tls = trio.Event(), ClientTls(trio.current_time, self.trusted)
        courier = Courier(theirs, connect=self.lab.connected, tls=tls, files=self.files, run_sync=run_here)
        self.couriers[number] = courier
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.crew.adopt, ours, number, dead.wait)
            with trio.CancelScope() as self.scopes[number]:
                task_status.started()
                await courier.run()
            dead.set()


PROCESSES = 1  # `[processes]` of every lab: 1 is none beside the manager's own


@asynccontextmanager
async def lab(
    folder: pathlib.Path,
    *,
    files: FakeFiles | None = None,
    settings: QueueSettings = SMALL,
    delivery: DeliverySettings | None = None,
    answers: dict[str, Any] | None = None,
    random: Callable[[], float] = lambda: 0.5,
    aliases: dict[str, list[str]] | None = None,
    rules: Sequence[RouteRule] = (),
    tls: ClientTls | None = None,
    begin: float = 1_800_000_000.0,
    connect: Connect | None = None,
    resolver: ResolverNames | None = None,
) -> AsyncGenerator[Lab, None]:
    bus, clock = Bus(), Clock(lambda: begin)
    router = Router(
        local_domains=frozenset({"truc.fr"}),
        users=lambda address: address if address in USERS else None,
        postmaster="post@truc.fr",
        aliases=aliases,
        rules=rules,
    )
    holder: list[Queue] = []

    def reporter(
        envelope: Envelope, news: list[News], original: bytes
    ) -> tuple[Envelope, bytes] | None:
        return make_report(
            hostname="smtp.truc.fr",
            envelope=envelope,
            news=news,
            original=original,
            now=clock.now(),
            id=holder[0].new_id(),
            next_hop_for=lambda address: router.route(address).next_hop,
            expire=settings.expire,
        )

    files = files or FakeFiles()
    async with queue_on(
        files, settings, bus=bus, clock=clock, reporter=reporter, random=random
    ) as queue:
        holder.append(queue)
        one = Lab(folder, queue, bus, clock, router)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.keep_time)
            one.peer, one.connect = Peer(nursery, answers), connect
            hands = one.hands = Hands(one, files, tls) if PROCESSES > 1 else None
            for number in range(PROCESSES if hands else 0):
                await nursery.start(hands.run, number)
            one.dispatcher = Dispatcher(
                queue,
                delivery or DeliverySettings(hostname="smtp.truc.fr"),
                resolver=resolver or one.names,
                local=MaildirDelivery(str(folder), "smtp.truc.fr", _locate, run_here, lambda: 1_800_000_000.0),
                bus=bus,
                clock=clock,
                connect=one.connected,
                tls=tls,
                opener=hands and hands.crew,
            )
            await nursery.start(one.deliver)
            yield one
            one.dispatcher.stop()
            nursery.cancel_scope.deadline = trio.current_time() + 30
            one.keeping.cancel()
