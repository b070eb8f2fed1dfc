"""the monitor's page in Debian's Chromium: what an operator sees and does, on a gateway that works"""

from __future__ import annotations

import json
import pathlib
import re
import signal
import smtplib
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager

import pytest
import trio

from conftest import needs
from support.cdp import Page, browser
from support.gateways import free_port, wait_for
from support.monitored import TOKEN, Monitored, axe, loaded, monitored, sinking

SERIOUS = ("serious", "critical")
LIVE = "document.body.dataset.link == 'live'"


@asynccontextmanager
async def page_of(gateway: Monitored, devtools: str, *, act: bool = False) -> AsyncGenerator[Page]:
    """The page, live. At its end: no errors, and nothing was asked of anybody else."""
    async with browser(devtools) as chromium, chromium.page() as page:
        await page.go(gateway.page)
        await page.until(LIVE)
        if act:
            await log_in(page)
        yield page
        assert_clean(page, gateway)


def assert_clean(page: Page, gateway: Monitored) -> None:
    assert page.errors == []
    assert page.refused == []
    own = (gateway.page, gateway.page.replace("http:", "ws:"))
    assert [one for one in page.requests if not one.startswith(own)] == []


async def log_in(page: Page) -> None:
    await page.click("#tools .login button")
    await page.until("document.activeElement.name == 'token'")
    await page.type(TOKEN)
    await page.press("Enter")
    await page.until("document.body.dataset.may == 'act' && !document.querySelector('dialog')")


async def confirm(page: Page, count: str) -> None:
    """The dialog tells how much is meant, and is then agreed to."""
    await page.shows(count, "dialog .many")
    await page.click("dialog button[type=submit]")
    await page.until("!document.querySelector('dialog')")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Generator[Monitored]:
    """A gateway for those who only look: 20 messages are relayed, 3 wait to be tried again, 1 waits for a dead host."""
    needs("chromium")
    with monitored(tmp_path_factory.mktemp("scene") / "gateway") as gateway:
        gateway.send("marc@good.example", count=20)
        gateway.send("nobody@bad.example", "marc@later.example", "x@down.example")
        gateway.send("marc@later.example", count=2)
        yield gateway


async def test_what_flows_what_is_stuck_and_why(scene: Monitored, devtools: str) -> None:
    """Within a look: rates, the destination that is down with its words, ages, failures by class; read-only."""
    async with page_of(scene, devtools) as page, anyhow(40):
        await page.shows("1 destination is down", "h1")
        await page.shows("Connection refused", ".concerns")
        await page.shows("greylisted", ".failures")
        await page.shows("no-user", ".failures")
        name = scene.hops["down"]
        row = f"[...document.querySelectorAll('.heat tbody tr')].find(one => one.innerText.includes('{name}'))"
        await page.until(f"{row}?.querySelector('td.age a').textContent == '1'")
        assert await page.js(f"{row}.querySelector('td.all').innerText") == "1"
        assert "read-only" in await page.js("document.querySelector('.login').innerText")
        assert await page.js("[...document.querySelectorAll('.act')].every(one => !one.checkVisibility())")
        # what a screen reader is told of the charts
        assert await page.js("document.querySelector('.chart svg').getAttribute('aria-label')")


async def test_search_history_suspend_and_undo(tmp_path: pathlib.Path, devtools: str) -> None:
    """Find a message, see what became of it, stop its destination, take that back: each with the count first."""
    with monitored(tmp_path / "gateway") as gateway:
        ids = gateway.send("marc@later.example", count=3)
        [done] = gateway.send("marc@good.example")
        assert wait_for(lambda: len(gateway.events("deferred")) >= 3)
        async with page_of(gateway, devtools, act=True) as page, anyhow(60):
            await page.go(f"{gateway.page}#/messages")
            await page.click("input[name=q]")
            await page.type("*@later.example")
            await page.press("Enter")
            await page.shows("3 queued messages fit")
            await page.click(f"a[href='#/message/{ids[1]}']")
            await page.shows("Greylisted, please try again later", ".tries")
            await page.shows("was told to try again later", ".whys")
            await page.shows("Subject: x", "pre")  # who may act sees the header
            await page.click(".act [data-verb=hold]")
            await confirm(page, "1 message, 1 recipient")
            await page.shows("held", ".whys .chip")
            await page.shows("Held 1 message", "#done")
            await page.click("#done li:last-child button")
            await page.shows("deferred", ".whys .chip")
            # what is done is found as well
            await page.go(f"{gateway.page}#/message/{done}")
            await page.shows("relayed", ".tries")
            await page.shows("none: it is done", ".facts")
            await suspend_and_undo(page, gateway, "3 messages wait")
            [one] = [one for one in gateway.events("steered") if one["action"] == "hold"]
            assert one["changed"] == 1
            assert "monitor" in one["who"]


async def suspend_and_undo(page: Page, gateway: Monitored, count: str) -> None:
    hop = gateway.hops["later"]
    await page.go(f"{gateway.page}#/destinations")
    await page.click(f"a[title='{hop}']")
    await page.shows("Oldest messages")
    await page.click(".act button")
    await confirm(page, count)
    await page.shows("suspended", "h1")
    assert hop in gateway.command("queue", "suspensions").stdout
    await page.click("#done li:last-child button")  # Undo
    await page.until("!document.querySelector('h1 .chip').textContent.includes('suspended')")
    assert hop not in gateway.command("queue", "suspensions").stdout


@pytest.mark.long
async def test_a_thousand_a_second(tmp_path: pathlib.Path, devtools: str) -> None:
    """The page keeps up and stays usable; and comes back after kill -9 under that load."""
    port = free_port()
    route = f'[[route]]\ndomain = "load.example"\nto = "smtp://127.0.0.1:{port}"\n'
    with sinking(port), monitored(tmp_path / "gateway", route) as gateway:
        async with page_of(gateway, devtools, act=True) as page, anyhow(120):
            with loaded(gateway, 1000, 30, "sink@load.example"):
                shown: set[float] = set()
                with trio.move_on_after(5):
                    while True:  # it moves
                        shown.add(await page.js(RATE))
                        await trio.sleep(0.2)
                assert len(shown) >= 4, shown
                assert max(shown) > 900, shown
                print(f"the page showed {', '.join(f'{one:g}' for one in sorted(shown))} messages a second")
                [id] = gateway.send("marc@later.example")
                await page.js("location.hash = '#/messages'")
                await page.click("input[name=q]")
                await page.type(id)
                await page.press("Enter")
                await page.click(f"a[href='#/message/{id}']")
                await page.shows("Greylisted", ".tries")
                await suspend_and_undo(page, gateway, "1 message waits")
                gateway.kill()
                await page.until("document.body.dataset.link == 'lost'")
                gateway.start()
                await page.until(LIVE, 30)
            await restart_without_a_gap(page, gateway)


async def test_old_data_and_a_restart(tmp_path: pathlib.Path, devtools: str) -> None:
    """A gateway that hangs says nothing: the page does, within five seconds. After kill -9 it comes back by
    itself, says so, is logged in still, and /events has no gap."""
    with monitored(tmp_path / "gateway") as gateway:
        async with page_of(gateway, devtools, act=True) as page, anyhow(60):
            assert gateway.child is not None
            gateway.child.send_signal(signal.SIGSTOP)
            try:
                await page.until("document.body.dataset.link == 'stale'", 6)
                await page.shows("No data for", "#pulse")
                await page.shows("What is shown is old", "#voice")
            finally:
                gateway.child.send_signal(signal.SIGCONT)
            await page.until(LIVE)
            await restart_without_a_gap(page, gateway)


VOICE = """globalThis.said = []; const voice = document.getElementById("voice");
new MutationObserver(() => said.push(voice.textContent)).observe(voice, {childList: true})"""
GONE = "net::ERR_CONNECTION_(REFUSED|RESET)|closed before receiving a handshake"  # what Chromium says of a dead host
RATE = "Number(document.querySelector('.chart strong').textContent.replace(/,/g, '').replace(/k$/, 'e3'))"


async def restart_without_a_gap(page: Page, gateway: Monitored) -> None:
    await page.js("location.hash = '#/events?kind=everything'")
    await page.js(VOICE)
    gateway.send("marc@good.example")
    await page.shows("relayed", ".events")
    await trio.sleep(0.5)  # what kill -9 finds unwritten would be told as a gap
    gateway.kill()
    await page.until("document.body.dataset.link == 'lost'")
    await page.shows("Reconnecting", "#pulse")
    gateway.start()
    gateway.send("marc@good.example")
    await page.until(LIVE, 30)
    await page.until("said.some(one => one.includes('The gateway was restarted'))")
    await page.shows("started", ".events")
    await page.until("document.querySelector('.events').innerText.split('relayed').length > 2")
    assert not await page.js("document.querySelector('.events .gap')")
    told = [json.loads(text) for address, text in page.heard if "/events" in address]
    told = [one["seq"] for one in told if "event" in one]
    logged = [one["seq"] for one in gateway.events() if told[0] <= one["seq"] <= told[-1]]
    assert told == logged  # each once, in order, over the restart
    assert await page.js("document.body.dataset.may") == "act"  # the login outlives it
    page.errors[:] = [one for one in page.errors if not re.search(GONE, one)]


async def test_what_comes_from_mail_is_text(tmp_path: pathlib.Path, devtools: str) -> None:
    """Addresses, replies and names that would be markup are shown as they are, in every view."""
    hostile = '"<img/src=x onerror=document.title=666>"@bad.example'
    with monitored(tmp_path / "gateway") as gateway:
        [id] = gateway.send(hostile, sender='"<svg/onload=document.title=666>"@truc.fr')
        gateway.send(hostile.replace("bad", "later"), content="Subject: <b onclick=x>\r\n\r\n<script>1</script>\r\n")
        assert wait_for(lambda: gateway.events("failed"))
        async with page_of(gateway, devtools, act=True) as page, anyhow(60):
            await page.shows("<img src=x", ".failures")
            views = ["messages?q=*%40*", f"message/{id}", "events?kind=everything&after=1", "destinations", "actions"]
            for view in views:
                await page.js(f"location.hash = '#/{view}'")
                if view.startswith(("message", "events")):
                    await page.shows("<img", "main")
                await trio.sleep(0.3)
                found = "main :is(img, script, iframe, [onerror], [onload], [onclick])"
                assert await page.js(f"document.querySelectorAll('{found}').length") == 0, view
                assert "666" not in await page.js("document.title")


async def test_accessible(scene: Monitored, devtools: str) -> None:
    """axe finds nothing serious or critical in any view, nor in a dialog; nothing is wider than the screen."""
    checker = axe()
    async with page_of(scene, devtools, act=True) as page, anyhow(90):
        await page.shows("1 destination is down", "h1")
        await page.js(checker + "; 1")
        found = await page.js("fetch('api/v1/queue/list?recipient=x*').then(one => one.json())")
        id = found["rows"][0]["id"]
        down = scene.hops["down"].replace("/", "%2F")
        views = ["destinations", f"destination/{down}", "messages?q=*%40*", f"message/{id}"]
        views += ["events?kind=everything", "dialogue?service=smtp", "actions", "overview"]
        for view in views:
            await page.js(f"location.hash = '#/{view}'")
            await trio.sleep(0.3)
            await accessible(page, view)
        await page.click(".concerns .act button")
        await page.shows("1 message", "dialog .many")
        await accessible(page, "dialog")


async def accessible(page: Page, where: str) -> None:
    """In light and dark, at a desk and on a phone; what is most looked at in all four ways."""
    ways = [(1440, "dark"), (390, "light")]
    if where in ("overview", "dialog"):
        ways += [(390, "dark"), (1440, "light")]
    for width, scheme in ways:
        await page.size(width, 844, phone=width < 500)
        await page.prefers(color_scheme=scheme, reduced_motion="reduce")
        assert await faults(page) == [], (where, width, scheme)
        assert await page.js("document.documentElement.scrollWidth <= innerWidth"), (where, width)


async def faults(page: Page) -> list[str]:
    found = await page.js("axe.run(document, {resultTypes: ['violations']}).then(one => one.violations)")
    return [
        f"{one['impact']}: {one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in SERIOUS
    ]


async def test_by_keyboard_alone(scene: Monitored, devtools: str) -> None:
    """Skip link, views, the ages of a destination, an action and the way out of it, without a mouse."""
    async with page_of(scene, devtools, act=True) as page, anyhow(60):
        await page.go(scene.page)
        await page.until("document.querySelectorAll('.heat tbody a').length > 0")
        await page.press("Tab")
        assert await page.js("document.activeElement.className") == "skip"
        await page.press("Enter")
        assert await page.js("document.activeElement.id") == "main"
        await tab_to(page, "document.activeElement.closest('.heat th.name')")  # the fullest
        await page.press("ArrowRight")
        assert await page.js("document.activeElement.getAttribute('aria-label')") == "3 waiting under 5\u00a0min"
        await page.press("Enter")
        await page.shows("3 queued messages fit")
        assert await page.js("document.activeElement.id") == "main"  # the new view
        await tab_to(page, "document.activeElement.dataset.verb == 'hold'")
        await page.press("Enter")
        await page.shows("3 messages, 3 recipients", "dialog .many")
        await page.press("Escape")
        await page.until("!document.querySelector('dialog')")
        assert await page.js("document.activeElement.dataset.verb") == "hold"


async def tab_to(page: Page, what: str) -> None:
    for _ in range(60):
        await page.press("Tab")
        if await page.js(f"Boolean({what})"):
            return
    raise AssertionError(f"no Tab leads to {what}")


@asynccontextmanager
async def anyhow(seconds: float) -> AsyncGenerator[None]:
    """No test hangs."""
    with trio.fail_after(seconds):
        yield


@pytest.mark.long
async def test_a_hundred_thousand_destinations(tmp_path: pathlib.Path, devtools: str) -> None:
    """The page shows the fullest, tells how many there are, finds any of them by name, and stays small."""
    with monitored(tmp_path / "gateway", '[[route]]\ndomain = "*.many.example"\nto = "mx"\n') as gateway:
        await trio.to_thread.run_sync(fill, gateway, 100_000)
        async with page_of(gateway, devtools) as page, anyhow(120):
            await page.until("document.querySelectorAll('.heat tbody tr').length == 12", 30)
            await page.js("location.hash = '#/destinations'")
            await page.shows("100,000 next hops", ".sentence")
            await page.click("input[name=like]")
            began = trio.current_time()
            await page.type("d77777.")
            await page.shows("1 next hop fits")
            took = trio.current_time() - began
            await page.shows("d77777.many.example", ".heat")
            used = (await page.call("Runtime.getHeapUsage"))["usedSize"] / 2**20
            print(f"found one of 100,000 next hops in {took:.2f} s; the page uses {used:.1f} MiB")
            assert took < 5
            assert used < 40


def fill(gateway: Monitored, count: int) -> None:
    """So many next hops with a message each, to be tried in an hour (RFC 4865)."""
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=60) as client:
        client.ehlo()
        for start in range(0, count, 1000):
            client.docmd("MAIL FROM:<fred@truc.fr> HOLDFOR=3600")
            for number in range(start, start + 1000):
                client.docmd(f"RCPT TO:<x@d{number}.many.example>")
            code, text = client.data("Subject: x\r\n\r\nx\r\n")
            assert code == 250, text
