"""a gateway with something to see: a token, a good host, a bad one, one that defers, one that is down"""

from __future__ import annotations

import os
import pathlib
import smtplib
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from support.gateways import Running, free_port, running
from support.sinks import Sink

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOKEN = "a-token-of-thirty-two-characters"
EXTRA = """\
[monitor]
token_file = "token"
[[route]]
domain = "good.example"
to = "smtp://127.0.0.1:{good}"
[[route]]
domain = "bad.example"
to = "smtp://127.0.0.1:{bad}"
[[route]]
domain = "later.example"
to = "smtp://127.0.0.1:{later}"
[[route]]
domain = "down.example"
to = "smtp://127.0.0.1:{down}"
"""
ELSE = """\
[[route]]
domain = "*"
to = "discard"
"""
BAD = '550 5.1.1 <img src=x onerror="document.title=666">"\'--></script><script>document.title=666</script>'
LATER = "450 4.7.1 Greylisted, please try again later"
AXE = "axe-playwright-python==0.1.8"  # a package that carries axe-core 4.12 as a file


class Monitored(Running):
    """`hops`: what its destinations are called there."""

    hops: dict[str, str]

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self.monitor}/"

    def send(self, *recipients: str, sender: str = "fred@truc.fr", count: int = 1, **more: Any) -> list[str]:
        """Ids."""
        ids: list[str] = []
        with smtplib.SMTP("127.0.0.1", self.smtp, timeout=20) as client:
            client.ehlo()
            for _ in range(count):
                client.docmd(f"MAIL FROM:<{sender}>")
                for one in recipients:
                    code, text = client.docmd(f"RCPT TO:<{one}>")
                    assert code == 250, text
                _, text = client.data(more.get("content", "Subject: x\r\n\r\nhi\r\n"))
                ids.append(text.decode().rpartition(" ")[2])
        return ids


@contextmanager
def monitored(folder: pathlib.Path, extra: str = "") -> Generator[Monitored]:
    """Running, with its hosts; `folder` is its own."""
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "token").chmod(0o600)
    ports = {"down": free_port()}
    with ExitStack() as stack:
        for name, refuse in (("good", ""), ("bad", BAD), ("later", LATER)):
            sink = Sink(0, refuse=refuse)
            stack.callback(sink.close)
            ports[name] = int(sink.server_address[1])
        gateway = stack.enter_context(running(folder, EXTRA.format(**ports) + extra + ELSE, kind=Monitored, user=""))
        gateway.hops = {name: f"smtp://127.0.0.1:{port}" for name, port in ports.items()}
        yield gateway


@contextmanager
def loaded(gateway: Monitored, rate: int, seconds: float, recipient: str) -> Generator[subprocess.Popen[bytes]]:
    """A source that sends so many messages a second, to `recipient`: bench/source.py, in a process of its own."""
    words = [sys.executable, str(ROOT / "bench" / "source.py"), "--port", str(gateway.smtp), "--rate", str(rate)]
    words += ["--seconds", str(seconds), "--connections", "30", "--size", "2000", "--recipient", recipient]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as source:
        try:
            yield source
        finally:
            source.kill()


def axe() -> str:
    """axe-core's source, from a cache, into which it is fetched with deploy/uv."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tripost" / "axe"
    if not (found := sorted(cache.glob("*/axe.min.js"))):
        words = [str(ROOT / "deploy" / "uv"), "pip", "install", "--quiet", "--no-deps", "--target", str(cache), AXE]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if not (found := sorted(cache.glob("*/axe.min.js"))):
            say = f"axe-core is not to be had: {' '.join(words)}: {done.stderr.strip()[-300:]}"
            if os.environ.get("TRIPOST_REQUIRE") == "all":
                pytest.fail(say)
            pytest.skip(say)
    return found[0].read_text()


@contextmanager
def sinking(port: int) -> Generator[None]:
    """A sink that takes thousands a second: bench/sink.py, in a process of its own."""
    words = [sys.executable, str(ROOT / "bench" / "sink.py"), "--port", str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as sink:
        try:
            yield
        finally:
            sink.kill()
