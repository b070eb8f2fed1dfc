"""the pictures of the monitor's page in docs/, taken of a gateway on a busy day

    deploy/uv run pytest -m long tests/interop/test_browser_pictures.py

takes five minutes, because the charts show five. TRIPOST_PICTURES names another folder, TRIPOST_MINUTES a shorter day.
"""

from __future__ import annotations

import os
import pathlib

import pytest
import trio

from support.busy_day import busy_day
from support.cdp import Page, browser
from support.monitored import ROOT, TOKEN
from support.pngs import compact

FOLDER = pathlib.Path(os.environ.get("TRIPOST_PICTURES", ROOT / "docs" / "images"))
SECONDS = 60 * float(os.environ.get("TRIPOST_MINUTES", "5.2"))
MOST = 200 << 10  # octets of a picture


@pytest.mark.long
async def test_pictures(tmp_path: pathlib.Path, devtools: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    async with busy_day(tmp_path / "gateway") as gateway, browser(devtools) as chromium, chromium.page() as page:
        await page.go(f"http://127.0.0.1:{gateway.monitor}/")
        await page.until("document.body.dataset.link == 'live'")
        await page.click("#tools .login button")
        await page.type(TOKEN)
        await page.press("Enter")
        await page.until("document.body.dataset.may == 'act'")
        await trio.sleep(SECONDS)
        await take(page, "monitor", 1440, 900, "light")
        await take(page, "monitor-dark", 1440, 900, "dark")
        await take(page, "monitor-phone", 390, 844, "light")
        await page.js("location.hash = '#/destination/' + encodeURIComponent('mx:yahoo.example')")
        await take(page, "monitor-destination", 1440, 900, "light")
        await page.click(".list tbody th a")
        await page.shows("What was tried")
        await take(page, "monitor-message", 1440, 700, "dark")
        await page.js("location.hash = '#/dialogue?destination=uni-koblenz.example'")
        await trio.sleep(2)
        await take(page, "monitor-dialogue", 1440, 700, "light")
        assert page.errors == []


async def take(page: Page, name: str, width: int, height: int, scheme: str) -> None:
    await page.size(width, height, phone=width < 500, scale=1.5 if width < 500 else 1)
    await page.prefers(color_scheme=scheme, reduced_motion="reduce")
    await page.js("scrollTo(0, 0); document.activeElement.blur()")
    await page.call("Input.dispatchMouseEvent", type="mouseMoved", x=0, y=height - 1)
    await trio.sleep(1.2)
    path = FOLDER / f"{name}.png"
    await page.picture(path)
    path.write_bytes(await trio.to_thread.run_sync(compact, path.read_bytes()))
    assert path.stat().st_size < MOST, path
