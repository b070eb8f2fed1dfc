"""pictures of `tripost top` for the documentation, from a real gateway under mail

    deploy/uv run python bench/pictures.py docs/images

A gateway relays mail for many domains to a sink, which refuses some recipients and is slow; the hosts of other domains
cannot be spoken to, one next hop is suspended, and some mail is held. What /live tells then is drawn for two sizes of
terminal, as the program itself draws it.
"""

from __future__ import annotations

import io
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import observe
import trio
from rich.console import Console
from watchers import ALL

from tripost.gateway.demo_dns import serve_dns
from tripost.gateway.top.drawing import draw
from tripost.gateway.top.link import Link, where_of_url
from tripost.gateway.top.model import Model
from tripost.gateway.top.screen import text_of

FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
SIZES = ((80, 24), (200, 60))
SECONDS = 60
DOMAINS = 60
ANSWERS = (
    *("rcpt=550 5.1.1 no such user here@0.03", "dot=450 4.7.1 greylisted, try again in 300 s@0.02"),
    "mail=451 4.7.28 rate limit, slow down@0.002",
)


def zone() -> list[tuple[str, str, str]]:
    """Every third domain's host is where nobody listens."""
    rows: list[tuple[str, str, str]] = []
    for number in range(DOMAINS):
        rows.append((f"d{number}.example.", "MX", f"10 mx{number}.example."))
        rows.append((f"mx{number}.example.", "A", "127.0.0.9" if number % 3 == 2 else "127.0.0.1"))
    return rows


def names() -> str:
    """A DNS server in a thread; its address."""
    started, address = threading.Event(), ""

    async def serve() -> None:
        nonlocal address
        async with trio.open_nursery() as nursery:
            address = await nursery.start(serve_dns, {"example.": zone()})
            started.set()

    threading.Thread(target=trio.run, args=(serve,), daemon=True).start()
    started.wait()
    return address


def program(name: str, *words: str) -> subprocess.Popen[bytes]:
    path = str(pathlib.Path(__file__).with_name(name))
    return subprocess.Popen([sys.executable, path, *words], stdout=subprocess.DEVNULL)


def gateway(folder: pathlib.Path, sink: int) -> observe.Gateway:
    """As observe.py has it, with MX routes."""
    route = re.compile(r"\[\[route\]\].*?(?=\n\[limits\])", re.DOTALL)
    more = f'[dns]\nnameservers = ["{names()}"]\n[delivery]\nport = {{sink}}\n[delivery.default]\nconnections = 4'
    observe.TOML = route.sub(more, observe.TOML)
    return observe.Gateway(folder, sink, ALL)


async def last_state(url: str) -> dict[str, Any]:
    """What /live tells after SECONDS."""
    found: dict[str, Any] = {}
    with trio.move_on_after(SECONDS):
        await Link(where_of_url(url, "")).follow(found.update, print)
    return found


def picture(state: dict[str, Any], columns: int, lines: int) -> str:
    model = Model()
    model.told(state)
    console = Console(record=True, width=columns, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    console.print(text_of(draw(model, columns, lines, time.time())), end="", soft_wrap=True)
    drawn = console.export_svg(title=f"tripost top, {columns}×{lines}")
    return FONT.sub("", drawn).replace("Fira Code", "DejaVu Sans Mono")  # nothing is to be loaded from elsewhere


def main(folder: pathlib.Path) -> None:
    folder.mkdir(exist_ok=True)
    sink = observe.free_port()
    with tempfile.TemporaryDirectory() as state:
        one = gateway(pathlib.Path(state) / "pictures", sink)
        words = ["--port", str(one.port), "--rate", "200", "--seconds", "600", "--connections", "6"]
        answers = [word for answer in ANSWERS for word in ("--answer", answer)]
        children = [
            program("sink.py", "--port", str(sink), "--delay", "0.004", *answers),
            program("source.py", *words, "--domains", str(DOMAINS), "--recipient", "u@d%d.example"),
        ]
        try:
            time.sleep(3)
            for verb in (
                ["suspend", "mx:d7.example", "--for", "1h", "--reason", "they move"],
                ["hold", "--domain", "d11.example", "--yes"],
            ):
                done = [sys.executable, "-m", "tripost", "queue", *verb, "--config", str(one.config)]
                subprocess.run(done, check=False, stdout=subprocess.DEVNULL)
            found = trio.run(last_state, f"http://127.0.0.1:{one.monitor}")
        finally:
            for child in children:
                child.kill()
                child.wait()
            one.stop()
    for columns, lines in SIZES:
        (folder / f"top-{columns}x{lines}.svg").write_text(picture(found, columns, lines))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
