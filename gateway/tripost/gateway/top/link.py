"""a gateway's monitor from afar: its /live, and its /api/v1

API      `where_of(url | config)` says whom to speak to; `Link(where)` follows /live and
         puts questions. Both make connections of their own, so that it works from
         another machine as well as here.
Promise  `follow` goes on for as long as it may: a gateway that is gone is looked for
         again, each PAUSES longer. Nothing that a gateway sends is trusted to be
         small: MESSAGE octets at most.
Fails    `Unanswered`: nobody there, or something else; `Rejected`: it says no.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import h11
import msgspec
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError, wrap_client_stream

from tripost.gateway.settings import Config
from tripost.gateway.sockets import UNIX, split_address

CONNECT = 5.0  # seconds
SILENCE = 15.0  # seconds without a message of /live, which comes four times a second
ANSWER = 60.0
MESSAGE = 8 << 20
PAUSES = (0.5, 1.0, 2.0, 5.0)
DEFAULT_PORTS = {"http": 80, "https": 443}


class Unanswered(Exception):
    """No gateway answers there; the text says why."""


class Rejected(Exception):
    """It answers, and says no."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Where(msgspec.Struct, frozen=True):
    """`host`: as the gateway is to be called; `path`: a Unix socket in its place, "" for none; `context`: TLS."""

    host: str
    port: int
    context: ssl.SSLContext | None = None
    server_name: str = ""
    path: str = ""
    token: str = ""

    @property
    def shown(self) -> str:
        return self.path or f"{'https' if self.context else 'http'}://{self.authority}"

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def where_of_url(url: str, token: str, authorities: str = "") -> Where:
    """`authorities`: a PEM file of those who sign, "" for the system's. Raises ValueError, OSError."""
    found = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"ws": "http", "wss": "https"}.get(found.scheme, found.scheme)
    more = found.path.strip("/") or found.query or found.username
    if scheme not in DEFAULT_PORTS or not found.hostname or more:
        raise ValueError(f"{url}: a monitor is told as https://HOST[:PORT]")
    context = ssl.create_default_context(cafile=authorities or None) if scheme == "https" else None
    return Where(found.hostname, found.port or DEFAULT_PORTS[scheme], context, found.hostname, "", token)


def where_of_config(config: Config, token: str) -> Where:
    """The first monitor that it listens for. Raises ValueError, OSError."""
    one = next((one for one in config.listen if one.service == "monitor"), None)
    if one is None:
        raise ValueError("the configuration has no [[listen]] with service = \"monitor\"; name one by --url")
    context = None
    if one.tls == "implicit":  # its certificate is known: whoever shows it is the gateway
        context = ssl.create_default_context(cafile=config.tls.certificate or None)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if one.address.startswith(UNIX):
        return Where("localhost", 80, context, config.hostname, one.address.removeprefix(UNIX), token)
    host, port = split_address(one.address)
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return Where(host, port, context, config.hostname, "", token)


def apply(state: dict[str, Any], delta: dict[str, Any]) -> None:
    """Make a delta (RFC 7396) true."""
    for name, new in delta.items():
        old = state.get(name)
        if new is None:
            state.pop(name, None)
        elif isinstance(new, dict) and isinstance(old, dict):
            apply(cast("dict[str, Any]", old), cast("dict[str, Any]", new))
        else:
            state[name] = new


def take(state: dict[str, Any], message: bytes | str) -> dict[str, Any]:
    """The state after a message of /live. Raises msgspec.DecodeError."""
    found: Any = msgspec.json.decode(message)
    if not isinstance(found, dict):
        raise msgspec.DecodeError("no object")
    told = cast("dict[str, Any]", found)
    if told.pop("kind", "") == "snapshot":
        return told
    sample = told.pop("sample", None)
    apply(state, told)
    if sample is not None:
        for name, column in state.get("series", {}).items():
            column.append(sample.get(name, 0))
            del column[:-300]
    return state


class Link:
    """To one gateway."""

    def __init__(self, where: Where) -> None:
        self.where = where

    async def _connected(self) -> trio.abc.Stream:
        where = self.where
        try:
            with trio.fail_after(CONNECT):
                stream: trio.abc.Stream
                if where.path:
                    stream = await trio.open_unix_socket(where.path)
                else:
                    stream = await trio.open_tcp_stream(where.host, where.port)
                if where.context is not None:
                    secured = trio.SSLStream(stream, where.context, server_hostname=where.server_name)
                    await secured.do_handshake()
                    stream = secured
                return stream
        except trio.TooSlowError:
            raise Unanswered(f"no answer within {CONNECT:g} s") from None
        except (OSError, trio.BrokenResourceError) as wrong:
            raise Unanswered(_reason(wrong)) from wrong

    def _headers(self) -> list[tuple[str, str]]:
        return [("Authorization", f"Bearer {self.where.token}")] if self.where.token else []

    # --- /live ---

    async def live(self, told: Callable[[dict[str, Any]], None]) -> None:
        """`told(state)` after each message. Raises Unanswered, Rejected."""
        stream = await self._connected()
        try:
            async with trio.open_nursery() as nursery:
                await self._live(nursery, stream, told)
        except* ConnectionRejected as group:
            rejected = cast("ConnectionRejected", leaf(group))
            raise Rejected(rejected.status_code, _error(rejected.body or b"", rejected.status_code)) from None
        except* trio.TooSlowError:
            raise Unanswered("it fell silent") from None
        except* msgspec.DecodeError as group:
            raise Unanswered(f"what it says is not understood: {leaf(group)}") from None
        except* (HandshakeError, ConnectionClosed, trio.BrokenResourceError, OSError) as group:
            raise Unanswered(_reason(leaf(group))) from None
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def _live(self, nursery: trio.Nursery, stream: Any, told: Callable[[dict[str, Any]], None]) -> None:
        with trio.fail_after(CONNECT):
            socket = await wrap_client_stream(
                nursery,
                stream,
                self.where.authority,
                "/live",
                extra_headers=[(name.encode(), value.encode()) for name, value in self._headers()],
                max_message_size=MESSAGE,
            )
        state: dict[str, Any] = {}
        while True:
            with trio.fail_after(SILENCE):
                message = await socket.get_message()
            state = take(state, message)
            told(state)

    async def follow(self, told: Callable[[dict[str, Any]], None], lost: Callable[[str], None]) -> None:
        """Until it may go on no more. Raises Unanswered where nobody ever answered, Rejected."""
        failed, ever = 0, False

        def heard(state: dict[str, Any]) -> None:
            nonlocal failed, ever
            failed, ever = 0, True
            told(state)

        while True:
            try:
                await self.live(heard)
            except* Rejected as group:
                raise cast("Rejected", leaf(group)) from None
            except* Unanswered as group:
                why = str(leaf(group))
                if not ever:
                    raise Unanswered(why) from None
                lost(f"lost the gateway: {why}; looking for it")
            await trio.sleep(PAUSES[min(failed, len(PAUSES) - 1)])
            failed += 1

    # --- /api/v1 ---

    async def ask(
        self, path: str, arguments: dict[str, Any], *, post: bool
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """(rows, sum). Raises Unanswered, Rejected."""
        body = msgspec.json.encode(arguments) if post else b""
        query = f"?{urlencode(arguments, doseq=True)}" if arguments and not post else ""
        stream = await self._connected()
        try:
            with trio.fail_after(ANSWER):
                status, answer = await self._exchange(stream, "POST" if post else "GET", f"/api/v1/{path}{query}", body)
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as wrong:
            raise Unanswered(_reason(wrong)) from wrong
        except trio.TooSlowError:
            raise Unanswered(f"no answer within {ANSWER:g} s") from None
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
        if status != 200:
            raise Rejected(status, _error(answer, status))
        try:
            found = msgspec.json.decode(answer, type=_Answer)
        except msgspec.DecodeError as wrong:
            raise Unanswered(f"what it says is not understood: {wrong}") from wrong
        return found.rows, found.sum

    async def _exchange(self, stream: trio.abc.Stream, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        connection = h11.Connection(h11.CLIENT)
        headers = [("Host", self.where.authority), ("Connection", "close"), *self._headers()]
        if method == "POST":
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        request = connection.send(h11.Request(method=method, target=target, headers=headers)) or b""
        request += connection.send(h11.Data(data=body)) or b"" if body else b""
        await stream.send_all(request + (connection.send(h11.EndOfMessage()) or b""))
        status, parts, size = 0, list[bytes](), 0
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(1 << 16)))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
                size += len(event.data)
                if size > MESSAGE:
                    raise Unanswered(f"more than {MESSAGE} octets in an answer")
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return status, b"".join(parts)


class _Answer(msgspec.Struct):
    rows: list[dict[str, Any]] = []
    sum: dict[str, Any] = {}


def _error(body: bytes, status: int) -> str:
    """What an answer that is no 200 says."""
    try:
        found: Any = msgspec.json.decode(body)
        return str(cast("dict[str, Any]", found)["error"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return body.decode("utf-8", "replace").strip()[:200] or f"status {status}"


def _reason(wrong: BaseException) -> str:
    cause = wrong.__cause__ if isinstance(wrong, trio.BrokenResourceError) and wrong.__cause__ else wrong
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate: {cause.verify_message}"
    if isinstance(cause, ConnectionClosed):
        return "it closed the connection"
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return str(text)


def leaf(group: BaseExceptionGroup[Any]) -> BaseException:
    one: BaseException = group
    while isinstance(one, BaseExceptionGroup):
        one = cast("BaseExceptionGroup[BaseException]", one).exceptions[0]
    return one
