"""a gateway with every face of ingress: TLS, submission, LMTP, a listener for proxies, and a route to a sink"""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from support.gateways import Running, free_port, running
from support.sinks import Sink
from tripost.gateway.tls import self_signed

EXTRA = """
[[listen]]
service = "submission"
address = "127.0.0.1:{submission}"
[[listen]]
service = "submission"
address = "127.0.0.1:{submissions}"
tls = "implicit"
[[listen]]
service = "smtp"
address = "127.0.0.1:{proxied}"
xclient = ["127.0.0.0/8"]
[[listen]]
service = "lmtp"
address = "unix:{lmtp}"
[tls]
certificate = "{certificate}"
key = "{key}"
[[route]]
domain = "far.example"
to = "smtp://127.0.0.1:{sink}"
"""
KEYWORDS = ("8BITMIME", "DSN", "SMTPUTF8", "SIZE", "ENHANCEDSTATUSCODES")
MARC, PASSWORD = "marc@machin.com", "secret"


class House:
    """`far`: what arrives at far.example, with the commands it came by."""

    def __init__(self, gateway: Running, far: Sink, ports: dict[str, int], lmtp: pathlib.Path, authority: str) -> None:
        self.gateway = gateway
        self.far = far
        self.submission, self.submissions, self.proxied = (
            ports[one] for one in ("submission", "submissions", "proxied")
        )
        self.smtp = gateway.smtp
        self.lmtp = lmtp
        self.authority = authority  # the certificate, which vouches for itself


@contextmanager
def house(folder: pathlib.Path, extra: str = "") -> Iterator[House]:
    pair = self_signed(str(folder / "tls"), "smtp.machin.com")
    ports = {one: free_port() for one in ("submission", "submissions", "proxied", "sink")}
    lmtp = folder / "lmtp.sock"
    far = Sink(ports["sink"], *KEYWORDS)
    text = EXTRA.format(**ports, lmtp=lmtp, certificate=pair.certificate, key=pair.key) + extra
    try:
        with running(folder, text) as gateway:
            yield House(gateway, far, ports, lmtp, pair.certificate)
    finally:
        far.close()


def run(*words: str, stdin: bytes = b"", fails: bool = False) -> str:
    """What a program says; `fails`: it must."""
    done = subprocess.run(words, input=stdin, capture_output=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert (done.returncode != 0) == fails, said
    return said
