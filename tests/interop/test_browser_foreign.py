"""a page of somebody else in the operator's browser: it gets nothing from the monitor, and does nothing to it

The browser is logged in (it holds the cookie). The foreign page comes from another port of the same host, to which a
SameSite cookie is sent all the same; from another name, to which it is not; and from a name that was pointed at the
monitor itself (DNS rebinding). What our own page may do is tried first, so that the tries are known to work.
"""

from __future__ import annotations

import functools
import http.server
import json
import pathlib
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest
import trio

from support.cdp import Page, browser
from support.gateways import TOML, free_port, running
from support.monitored import TOKEN, Monitored, monitored

# what a page tries: each gives what it got, or why it got nothing
TRIES = """
const to = TARGET;
const socket = (path) => new Promise((done) => {
  const one = new WebSocket(to.replace("http:", "ws:") + path);
  one.onmessage = (event) => { done("got " + event.data.slice(0, 40)); one.close(); };
  one.onerror = () => done("refused");
  setTimeout(() => done("silence"), 4000);
});
const get = (path, options) => fetch(to + path, {credentials: "include", ...options}).then(
  async (one) => one.type === "opaque" ? "opaque" : `${one.status} ${(await one.text()).slice(0, 40)}`,
  () => "refused");
const post = (type, mode) => get("api/v1/queue/hold", {
  method: "POST", mode, headers: {"Content-Type": type}, body: JSON.stringify({id: "*", reason: "hijacked"})});
const element = (name, attributes) => new Promise((done) => {
  const one = Object.assign(document.createElement(name), attributes);
  one.onload = () => done("loaded"); one.onerror = () => done("refused");
  document.body.append(one);
  setTimeout(() => done("silence"), 4000);
});
(async () => ({
  live: await socket("live"), events: await socket("events"), trace: await socket("trace"),
  api: await get("api/v1/queue/list"), metrics: await get("metrics"),
  script: await element("script", {src: to + "static/format.js", type: "module"}),
  simple: await post("text/plain", "no-cors"), json: await post("application/json", "cors"),
}))()
"""
LOGIN = """fetch("login", {method: "POST", body: '{"token": "TOKEN"}', headers: {"Content-Type": "application/json"}})
.then((one) => one.status)"""
READING = ("live", "events", "trace", "api", "metrics", "json", "script")
NOTHING = {"refused"}


class Page200(http.server.BaseHTTPRequestHandler):
    """A foreign site: one empty page, whatever is asked."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>foreign</title><body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def foreign_site() -> Generator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Page200) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=functools.partial(server.serve_forever, 0.05))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


async def tries(page: Page, target: str) -> dict[str, str]:
    got: dict[str, str] = await page.js(TRIES.replace("TARGET", json.dumps(target)))
    return got


async def test_a_foreign_page_gets_and_does_nothing(tmp_path: pathlib.Path, devtools: str) -> None:
    with foreign_site() as port, monitored(tmp_path / "gateway") as gateway, trio.fail_after(60):
        [id] = gateway.send("marc@later.example")
        async with browser(devtools) as chromium, chromium.page() as page:
            await page.go(gateway.page)
            assert await page.js(LOGIN.replace("TOKEN", TOKEN)) == 204
            own = await tries(page, gateway.page)
            assert own["live"].startswith("got")
            assert own["events"].startswith("got")
            assert own["api"].startswith("200")
            assert own["json"].startswith("200")
            assert len(actions(gateway)) == 1  # the cookie is good: our own page did something
            for site in (f"http://127.0.0.1:{port}/", f"http://foreign.test:{port}/"):
                await page.go(site)
                assert await page.js("document.title") == "foreign"
                got = await tries(page, gateway.page)
                assert {got[one] for one in READING} == NOTHING, (site, got)
                assert got["simple"] in ("refused", "opaque"), (site, got)
                assert len(actions(gateway)) == 1, site
            await no_frame_and_no_form(page, gateway)
            await rebound(page, gateway)
        assert id in gateway.command("queue", "list").stdout


def actions(gateway: Monitored) -> list[str]:
    return gateway.command("queue", "audit", "--json").stdout.splitlines()


async def test_a_login_from_another_machine(tmp_path: pathlib.Path, devtools: str) -> None:
    """Who comes from elsewhere gets a form and nothing else; with the token the page; logged out, the form again."""
    address = other_address()
    at = f"http://{address}:{{monitor}}"
    toml = TOML.replace("127.0.0.1:{monitor}", f"{address}:{{monitor}}")
    toml += f'[monitor]\ntoken_file = "token"\norigins = ["{at}"]\n'
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    with running(tmp_path, toml=toml, user="") as gateway, trio.fail_after(40):
        async with browser(devtools) as chromium, chromium.page() as page:
            await page.go(at.format(monitor=gateway.monitor) + "/")
            assert await page.js("document.scripts.length") == 0
            await page.js("document.querySelector('input').focus()")
            await page.type(TOKEN)
            await page.press("Enter")
            await page.until("document.body?.dataset.link == 'live' && document.body.dataset.may == 'act'")
            await page.click("#tools .login button")
            await page.until("!document.scripts.length && document.forms.length == 1")


def other_address() -> str:
    """Of this machine, and not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(one.getsockname()[0])


async def no_frame_and_no_form(page: Page, gateway: Monitored) -> None:
    """It cannot be put into a frame and clicked through, nor be sent a form."""
    framed = f"""new Promise(done => {{ const one = document.createElement("iframe"); one.src = "{gateway.page}";
        one.onload = () => done(1); document.body.append(one); setTimeout(() => done(0), 2000) }})"""
    await page.js(framed)
    tree = await page.call("Page.getFrameTree")
    shown = [one["frame"].get("url", "") for one in tree["frameTree"].get("childFrames", [])]
    assert gateway.page not in shown
    before = len(actions(gateway))
    form = f"""(() => {{ const one = document.createElement("form"); one.method = "post"; one.enctype = "text/plain";
        one.action = "{gateway.page}api/v1/queue/hold"; const field = document.createElement("input");
        field.name = '{{"id": "*", "reason": "'; field.value = '"}}'; one.append(field);
        document.body.append(one); one.submit() }})()"""
    await page.js(form)
    await page.until("location.pathname == '/api/v1/queue/hold'")
    assert "foreign" in await page.js("document.body.innerText")
    assert len(actions(gateway)) == before


async def rebound(page: Page, gateway: Monitored) -> None:
    """A foreign name that leads to the monitor is no name of the monitor."""
    await page.go(f"http://rebound.test:{gateway.monitor}/")
    assert "Host" in await page.js("document.body.innerText")
    got = await tries(page, f"http://rebound.test:{gateway.monitor}/")
    assert {got["live"], got["events"], got["trace"]} == NOTHING
    assert got["api"].startswith("403")
    assert got["json"].startswith(("401", "403"))
