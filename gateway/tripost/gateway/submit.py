"""state/submit.sock: programs of this machine hand their mail in

Open to every user. One request in a frame, as on the control socket: `smtp`, which is answered with who the caller is,
and from there on the connection is a submission session; or `queue`, the caller's mail in the queue.

Promise  the caller is who the kernel says (SO_PEERCRED), logged in as user@ the gateway's domain without a password. He
         sends as himself, at any of our domains, or as an address that leads to his mailbox; root, the gateway's own
         user and `[admin] group` send as anybody and see the whole queue.
Bounds   PER_USER connections of one user are served, WAITING more wait for TURN seconds, so that a burst of letters
         goes through; REQUEST_LIMIT octets and PATIENCE seconds of request.
"""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing

import trio

from tripost.delivery.fast_stream import FastStream
from tripost.delivery.wire.addresses import AddressError, parse_address
from tripost.gateway.control.frames import REQUEST_LIMIT, Answer, Error, Reader, Request, Row, frame
from tripost.gateway.control.server import PATIENCE, Refused, Upload, Verb, credentials, may_steer, read_request
from tripost.gateway.ingress.context import IngressContext, Who
from tripost.gateway.ingress.smtp_session import serve_smtp
from tripost.gateway.listeners import Service
from tripost.gateway.peer import Peer
from tripost.gateway.settings import Config
from tripost.gateway.submit_client import NAME, origin_of, submit_socket

PER_USER = 20
WAITING = 200
TURN = 60.0
LIST_LIMIT = 1000


class Submit:
    """`listing` is the control socket's queue.list."""

    def __init__(self, config: Config, context: IngressContext, listing: Verb | Upload) -> None:
        assert not isinstance(listing, Upload)
        self.config = config
        self.context = context
        self._listing = listing
        self._open: Counter[int] = Counter()
        self._turns: dict[int, trio.CapacityLimiter] = {}  # of those who are there

    def service(self) -> Service:
        return Service(NAME, submit_socket(self.config), self._serve, busy)

    async def _serve(self, stream: trio.abc.Stream, peer: Peer) -> None:
        assert isinstance(stream, FastStream)
        uid, gid, name = credentials(stream)
        if self._open[uid] >= PER_USER + WAITING:
            await _tell(stream, Error(f"{name} has {PER_USER + WAITING} connections already", 3))
            return
        self._open[uid] += 1
        turns = self._turns.setdefault(uid, trio.CapacityLimiter(PER_USER))
        try:
            with trio.move_on_after(TURN) as waiting:
                await turns.acquire()
            if waiting.cancelled_caught:
                await _tell(stream, Error(f"{name} has {PER_USER} connections that do not end", 3))
                return
            try:
                await self._request(stream, name, steers=may_steer(uid, gid, name, self.config.admin.group))
            finally:
                turns.release()
        except trio.TooSlowError:
            pass  # it asked nothing, or did not take the answer
        finally:
            self._open[uid] -= 1
            if not self._open[uid]:
                del self._open[uid], self._turns[uid]

    async def _request(self, stream: FastStream, name: str, *, steers: bool) -> None:
        with trio.fail_after(PATIENCE):
            request, _ = await read_request(stream, Reader(REQUEST_LIMIT))
        account = f"{name}@{origin_of(self.config)}"
        try:
            parse_address(account)
        except AddressError as wrong:
            request = Error(f"there is no address for {name}: {wrong}", 1)
        if isinstance(request, Request) and request.verb == "smtp":
            await _tell(stream, Row({"account": account, "origin": origin_of(self.config)}))
            peer = Peer(service="submission")
            names = None if steers else self._names(name)
            await serve_smtp(stream, peer=peer, context=self.context, who=Who(account, names))
        elif isinstance(request, Request) and request.verb == "queue":
            await self._list(stream, {} if steers else {"account": account}, name)
        else:
            await _tell(stream, request if isinstance(request, Error) else Error("not a request for this socket", 3))

    def _names(self, name: str) -> frozenset[str]:
        domains = {self.config.hostname, *self.config.local.domains}
        return frozenset(f"{name}@{one}".lower() for one in domains)

    async def _list(self, stream: FastStream, which: dict[str, object], name: str) -> None:
        try:
            async with aclosing(self._listing({**which, "limit": LIST_LIMIT}, name)) as answers:
                async for answer in answers:
                    await _tell(stream, answer)
        except Refused as wrong:
            await _tell(stream, Error(str(wrong), wrong.exit))


async def _tell(stream: FastStream, answer: Answer) -> None:
    with trio.fail_after(PATIENCE):
        await stream.send_all(frame(answer))


def busy(why: str) -> bytes:
    return frame(Error(why, 3))
