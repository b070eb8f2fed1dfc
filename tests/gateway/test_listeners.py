"""listeners on real sockets: who gets in, and what a session is told of it"""

from __future__ import annotations

import ipaddress
import pathlib
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from tripost.gateway import sockets
from tripost.gateway.admission import Admission
from tripost.gateway.listeners import Acceptor, ListenError, Service, Terms, bind, close
from tripost.gateway.peer import Peer
from tripost.gateway.tls import Certificates, self_signed
from tripost.gateway.windows import Rate
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.events import Event, Refused

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


class House:
    """A service whose sessions echo one line and are remembered."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.events: list[Event] = []
        self.service: Service
        self.goes_on = trio.Event()

    async def session(self, stream: trio.abc.Stream, peer: Peer) -> None:
        self.peers.append(peer)
        await stream.send_all(b"hello\r\n")
        data = await stream.receive_some()
        await stream.send_all(b"you said " + data)

    async def connect(self) -> trio.SocketStream:
        host, port = self.service.bound.rsplit(":", 1)
        return await trio.open_tcp_stream(host, int(port))

    @property
    def refusals(self) -> list[str]:
        return [one.reply for one in self.events if isinstance(one, Refused)]


@asynccontextmanager
async def house(
    terms: Terms | None = None,
    admission: Admission | None = None,
    address: str = "127.0.0.1:0",
    closed: Callable[[str], str] = lambda service: "",
) -> AsyncGenerator[House]:
    one, bus = House(), Bus()
    bus.add_sink(one.events.append)
    one.service = Service("smtp", address, one.session, lambda why: f"421 {why}\r\n".encode(), terms)
    bind([one.service])
    async with trio.open_nursery() as nursery:
        acceptor = Acceptor(nursery, bus, Clock(), admission or Admission(100), closed)
        nursery.start_soon(acceptor.accept, one.service)
        with trio.fail_after(10):
            yield one
        nursery.cancel_scope.cancel()
    close([one.service])


async def read_all(stream: trio.abc.Stream) -> bytes:
    found = b""
    try:
        while part := await stream.receive_some():
            found += part
    except trio.BrokenResourceError:
        pass
    return found


async def test_a_session_knows_both_ends() -> None:
    async with house() as one, await one.connect() as client:
        await client.send_all(b"x")
        assert await read_all(client) == b"hello\r\nyou said x"
        (peer,) = one.peers
        assert (peer.client, peer.client_port) == client.socket.getsockname()
        assert (peer.local, peer.local_port) == client.socket.getpeername()
        assert (peer.service, peer.tls, peer.context, peer.xclient) == ("smtp", None, None, False)


@pytest.mark.parametrize(
    ("admission", "reason"),
    [
        (Admission(1), "421 too many connections, try again later"),
        (Admission(9, per_client=1), "421 too many connections from 127.0.0.1, close one first"),
        (Admission(9, per_network=1), "421 too many connections from 127.0.0.0/24, try again later"),
        (Admission(9, rate=Rate(1, 3600.0)), "421 127.0.0.1 connects too often, try again in"),
    ],
)
async def test_one_too_many_is_told_why(admission: Admission, reason: str) -> None:
    async with house(admission=admission) as one, await one.connect() as first, await one.connect() as second:
        assert (await read_all(second)).decode().startswith(reason)
        assert (admission.open, admission.refused) == (1, 1)
        assert len(one.refusals) == 1
        await first.send_all(b"x")
        await read_all(first)
    assert admission.open == 0


def test_exempt_networks_are_held_to_the_total_only() -> None:
    one = Admission(3, per_client=1, rate=Rate(1, 60.0), exempt=LOOPBACK)
    assert [bool(one.enter("127.0.0.1", 0.0)) for _ in range(4)] == [False, False, False, True]
    for _ in range(3):
        one.leave("127.0.0.1")
    assert not one.enter("", 0.0)
    assert not one.enter("", 0.0)


async def test_implicit_tls(tmp_path: pathlib.Path) -> None:
    pair = self_signed(str(tmp_path), "smtp.machin.com")
    terms = Terms(tls="implicit", certificates=Certificates(pair))
    async with house(terms) as one:
        async with await one.connect() as silent, await one.connect() as plain:
            await plain.send_all(b"EHLO x\r\n")
            await read_all(plain)
            client = ssl.create_default_context(cafile=pair.certificate)
            secure = trio.SSLStream(await one.connect(), client, server_hostname="smtp.machin.com")
            async with secure:
                await secure.send_all(b"x")
                assert await secure.receive_some() == b"hello\r\n"
                assert await secure.receive_some() == b"you said x"
            assert await no_answer(silent)
        (peer,) = one.peers
        assert peer.tls is not None
        assert peer.tls.version == "TLSv1.3"
        assert [why[:4] for why in one.refusals] == ["TLS:"]


async def no_answer(stream: trio.abc.Stream) -> bool:
    with trio.move_on_after(0.05):
        await stream.receive_some()
        return False
    return True


async def test_starttls_gives_the_session_a_context(tmp_path: pathlib.Path) -> None:
    certificates = Certificates(self_signed(str(tmp_path), "x.example"))
    async with house(Terms(tls="starttls", certificates=certificates, xclient=LOOPBACK)) as one:
        async with await one.connect() as client:
            await client.send_all(b"x")
            await read_all(client)
        (peer,) = one.peers
        assert peer.context is certificates.context
        assert peer.tls is None
        assert peer.xclient


async def test_proxy_protocol() -> None:
    async with house(Terms(proxy_protocol=True, proxies=LOOPBACK)) as one:
        async with await one.connect() as client:
            await client.send_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\nquick")
            assert await read_all(client) == b"hello\r\nyou said quick"
        async with await one.connect() as client:
            await client.send_all(b"EHLO x\r\n")
            assert await read_all(client) == b""
        peer = one.peers[0]
        assert (peer.client, peer.client_port, peer.local, peer.local_port) == ("192.0.2.7", 4711, "198.51.100.1", 25)
        assert one.refusals == ["no PROXY header"]


async def test_only_proxies_may_send_the_header() -> None:
    terms = Terms(proxy_protocol=True, proxies=(ipaddress.ip_network("192.0.2.0/24"),))
    async with house(terms) as one, await one.connect() as client:
        assert await read_all(client) == b""
        assert (one.refusals, one.peers) == (["not one of [proxy] networks"], [])


@pytest.mark.parametrize("length", [0, 120])
async def test_a_unix_socket(tmp_path: pathlib.Path, length: int) -> None:
    folder = tmp_path / ("x" * length or "y")
    folder.mkdir()
    path = folder / "s.sock"
    async with house(address=f"unix:{path}") as one:
        assert path.stat().st_mode & 0o777 == 0o660
        with sockets._short(str(path)) as short:
            async with await trio.open_unix_socket(short) as client:
                await client.send_all(b"x")
                assert await read_all(client) == b"hello\r\nyou said x"
        assert one.peers[0].client == ""
        assert one.peers[0].loopback
        assert one.service.bound == f"unix:{path}"
        with pytest.raises(ListenError, match="in use"):
            sockets.listen(f"unix:{path}")
    assert not path.exists()


async def test_a_stale_unix_socket_is_replaced_a_file_is_not(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s.sock"
    sockets.listen(f"unix:{path}").close()
    assert path.exists()
    listener = sockets.listen(f"unix:{path}")
    sockets.close(listener, f"unix:{path}")
    path.write_text("precious")
    with pytest.raises(ListenError, match="exists"):
        sockets.listen(f"unix:{path}")
    assert path.read_text() == "precious"


async def test_binding_is_all_or_none() -> None:
    async with house() as one:
        services = [Service("smtp", at, one.session, str.encode) for at in ("127.0.0.1:0", one.service.bound)]
        with pytest.raises(ListenError, match="in use"):
            bind(services)
        assert services[0].listener is not None
        assert services[0].listener.fileno() == -1


async def test_a_service_that_takes_nobody_now() -> None:
    why = "no disk"
    async with house(closed=lambda service: why if service == "smtp" else "") as one:
        async with await one.connect() as client:
            assert await read_all(client) == b"421 no disk\r\n"
        why = ""
        async with await one.connect() as client:
            await client.send_all(b"x")
            assert await read_all(client) == b"hello\r\nyou said x"
    assert one.refusals == ["no disk"]


async def test_those_that_are_there_are_taken_in_their_order() -> None:
    listener = sockets.listen("127.0.0.1:0")
    clients = [await trio.open_tcp_stream(*listener.getsockname()) for _ in range(sockets.AT_ONCE + 3)]
    with trio.fail_after(10):
        found = [await sockets.accept(listener) for _ in range(2)]
    assert [len(some) for some in found] == [sockets.AT_ONCE, 3]
    taken = [one for some in found for one in some]
    assert [at for _, at in taken] == [one.socket.getsockname() for one in clients]
    for sock, _ in taken:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.close()
    for one in clients:
        await one.aclose()
    sockets.close(listener, "127.0.0.1:0")


async def test_a_connection_that_is_gone_already_harms_nobody() -> None:
    async with house() as one:
        with socket.create_connection(sockets.split_address(one.service.bound)) as early:
            early.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        async with await one.connect() as client:
            await client.send_all(b"x")
            assert await read_all(client) == b"hello\r\nyou said x"
