"""Debian's Chromium, driven over the DevTools protocol

    with chromium(folder) as address:
        async with browser(address) as one, one.page() as page:
            await page.go("http://127.0.0.1:8025/")
            assert await page.js("document.title") == "tripost"

A page keeps what went wrong in it (`errors`: exceptions, console errors, refused
by the page's own policy) and every address that it asked for (`requests`), so that
a test can say that there was nothing of the kind.

Fails    `Wrong` for what the page throws and what DevTools refuses; TooSlowError
         when something does not become true in its time.
"""

from __future__ import annotations

import base64
import json
import pathlib
import shutil
import subprocess
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from support.gateways import wait_for

OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--no-default-browser-check", "--hide-scrollbars", "--force-color-profile=srgb"),
    *("--font-render-hinting=none", "--remote-debugging-port=0", "--host-resolver-rules=MAP *.test 127.0.0.1"),
)
MOST = 1 << 27  # octets of one DevTools message: pictures


class Wrong(Exception):
    """What a page, or DevTools, says is wrong."""


class Wire:
    """The one websocket to a browser: calls by number, events by session."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        self._number = 0
        self._waiting: dict[int, tuple[trio.Event, list[Any]]] = {}
        self.listeners: dict[str, Callable[[str, dict[str, Any]], None]] = {}

    async def call(self, session: str, method: str, **parameters: Any) -> Any:
        self._number += 1
        number, done, answer = self._number, trio.Event(), list[Any]()
        self._waiting[number] = done, answer
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send_message(json.dumps(message | ({"sessionId": session} if session else {})))
        await done.wait()
        if "error" in answer[0]:
            raise Wrong(f"{method}: {answer[0]['error']}")
        return answer[0]["result"]

    async def run(self) -> None:
        while True:
            try:
                message = json.loads(await self._socket.get_message())
            except ConnectionClosed:
                return
            if "id" in message:
                done, answer = self._waiting.pop(message["id"])
                answer.append(message)
                done.set()
            elif listener := self.listeners.get(message.get("sessionId", "")):
                listener(message["method"], message["params"])


class Page:
    """One tab. `errors`, `requests` and `heard` grow while it lives; `heard`: (address, text) of what came by
    websocket, but for /live."""

    def __init__(self, wire: Wire, session: str) -> None:
        self._wire = wire
        self._session = session
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.refused: list[str] = []  # what the network or the page's own policy did not let through
        self.heard: list[tuple[str, str]] = []
        self._sockets: dict[str, str] = {}
        wire.listeners[session] = self._hear

    async def call(self, method: str, **parameters: Any) -> Any:
        return await self._wire.call(self._session, method, **parameters)

    def _hear(self, method: str, told: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.errors.append(str(details.get("exception", {}).get("description") or details["text"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(one.get("value", one.get("description"))) for one in told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self._logged(told["entry"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(told["url"])
            self._sockets[told["requestId"]] = told["url"]
        elif method == "Network.webSocketFrameReceived" and "/live" not in self._sockets[told["requestId"]]:
            self.heard.append((self._sockets[told["requestId"]], told["response"]["payloadData"]))
        elif method == "Network.loadingFailed" and told.get("blockedReason"):
            self.refused.append(f"{told['blockedReason']}: {told.get('type')}")

    def _logged(self, entry: dict[str, Any]) -> None:
        self.errors.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}".strip())

    async def begin(self) -> None:
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            await self.call(f"{domain}.enable")

    # --- looking ---

    async def js(self, expression: str) -> Any:
        """The value of an expression, awaited. Raises Wrong."""
        told = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in told:
            details = told["exceptionDetails"]
            raise Wrong(str(details.get("exception", {}).get("description") or details))
        return told["result"].get("value")

    async def until(self, expression: str, patience: float = 15.0) -> Any:
        """The expression's value once it is true. Raises TooSlowError, with what the page shows."""
        with trio.move_on_after(patience):
            while True:
                if value := await self.js(expression):
                    return value
                await trio.sleep(0.03)
        shown = await self.js("document.body.innerText.slice(0, 3000)")
        raise trio.TooSlowError(f"{expression} is not so after {patience:g} s; errors {self.errors}; shown:\n{shown}")

    async def shows(self, text: str, where: str = "body", patience: float = 15.0) -> None:
        """The text stands there, or will."""
        found = f"[...document.querySelectorAll({where!r})].some(one => one.innerText.includes({json.dumps(text)}))"
        await self.until(found, patience)

    async def picture(self, path: pathlib.Path, *, whole: bool = False) -> None:
        """As PNG; `whole`: as long as the page is."""
        told = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(told["data"]))

    # --- doing ---

    async def go(self, address: str) -> None:
        told = await self.call("Page.navigate", url=address)
        if "errorText" in told:
            raise Wrong(f"{address}: {told['errorText']}")
        await self.until("document.readyState == 'complete'")

    async def click(self, selector: str, patience: float = 15.0) -> None:
        """With the mouse, in its middle, once it is there and can be clicked."""
        where = (
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            "if (!one || one.disabled) return null; one.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const at = one.getBoundingClientRect();"
            "return at.width ? [at.x + at.width / 2, at.y + at.height / 2] : null })()"
        )
        x, y = await self.until(where, patience)
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def type(self, text: str) -> None:
        """Into what has the focus."""
        await self.call("Input.insertText", text=text)

    async def press(self, key: str, *, shift: bool = False) -> None:
        """A key by its DOM name: Tab, Enter, Escape, ArrowRight, …"""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32}
        codes |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        text = {"Enter": "\r", "Space": " "}.get(key, "")
        name = " " if key == "Space" else key
        more = {"key": name, "code": key, "windowsVirtualKeyCode": codes[key], "modifiers": 8 if shift else 0}
        await self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **more)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **more)

    async def size(self, width: int, height: int, *, phone: bool = False, scale: float = 1.0) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    async def prefers(self, **features: str) -> None:
        """`color_scheme="dark"`, `reduced_motion="reduce"`."""
        wanted = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        await self.call("Emulation.setEmulatedMedia", features=wanted)


class Chromium:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @asynccontextmanager
    async def page(self, width: int = 1440, height: int = 900) -> AsyncGenerator[Page]:
        """A new tab with cookies of its own."""
        context = (await self._wire.call("", "Target.createBrowserContext"))["browserContextId"]
        target = await self._wire.call("", "Target.createTarget", url="about:blank", browserContextId=context)
        told = await self._wire.call("", "Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self._wire, told["sessionId"])
        await page.begin()
        await page.size(width, height)
        yield page
        with trio.move_on_after(5, shield=True):
            await self._wire.call("", "Target.disposeBrowserContext", browserContextId=context)


@contextmanager
def chromium(folder: pathlib.Path) -> Generator[str]:
    """A headless browser, its profile in `folder`: where its DevTools are spoken to. Names under `.test` lead here."""
    profile = folder / "chromium"
    words = [shutil.which("chromium") or "chromium", *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            place = profile / "DevToolsActivePort"
            found = wait_for(lambda: place.exists() and place.read_text().count("\n") and place.read_text().split())
            assert found, "chromium did not start"
            yield f"ws://127.0.0.1:{found[0]}{found[1]}"
        finally:
            child.kill()


@asynccontextmanager
async def browser(address: str) -> AsyncGenerator[Chromium]:
    """A running one."""
    async with open_websocket_url(address, max_message_size=MOST) as socket, trio.open_nursery() as nursery:
        wire = Wire(socket)
        nursery.start_soon(wire.run)
        yield Chromium(wire)
        nursery.cancel_scope.cancel()
