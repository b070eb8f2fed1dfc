"""Debian's HAProxy in front of two gateways, configured as docs/howto/behind-haproxy.md says"""

from __future__ import annotations

import contextlib
import pathlib
import re
import smtplib
import socket
import subprocess
from collections.abc import Iterator

import pytest

from conftest import needs
from support.gateways import Running, free_port, wait_for

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "howto" / "behind-haproxy.md").read_text()
CLIENT = "127.0.0.77"
MORE = """\
[[route]]
domain = "*"
to = "smtp://127.0.0.1:1"
[spool]
min_free = "1MiB"
[events]
file = "events.log"
format = "json"
[lifecycle]
drain = "3s"
"""


def gateways(folder: pathlib.Path) -> list[Running]:
    """The page's, here: its proxies and its relay network are addresses of loopback."""
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    text = text.replace('"10.0.0.2", "10.0.0.3"', '"127.0.0.1"').replace("192.0.2.0/24", f"{CLIENT}/32")
    text = text.replace("10.0.0.5:2525", "127.0.0.1:{smtp}").replace("10.0.0.5:8025", "127.0.0.1:{monitor}")
    text = f'state = "state"\n{text}\n{MORE}'
    made: list[Running] = []
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "monitor.token").write_text("0123456789abcdef0123456789abcdef\n")
        (folder / name / "monitor.token").chmod(0o600)
        made.append(Running(folder / name, user="", toml=text))
    return made


@contextlib.contextmanager
def haproxy(folder: pathlib.Path, port: int, behind: list[Running]) -> Iterator[None]:
    needs("/usr/sbin/haproxy", "haproxy")
    (text,) = re.findall(r"```\n(frontend .*?)```", PAGE, re.DOTALL)
    text = (
        text.replace("bind :25", f"bind 127.0.0.1:{port}").replace(" port 8025", "").replace("inter 2s", "inter 200ms")
    )
    for address, one in zip(("10.0.0.5:2525", "10.0.0.6:2525"), behind, strict=True):
        text = text.replace(address, f"127.0.0.1:{one.smtp} port {one.monitor} source 127.0.0.1")
    (folder / "haproxy.cfg").write_text(text)
    with subprocess.Popen(["/usr/sbin/haproxy", "-db", "-f", str(folder / "haproxy.cfg")]) as child:
        try:
            yield
        finally:
            child.terminate()
            child.wait(20)


class Client(smtplib.SMTP):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return socket.create_connection((host, port), timeout, (CLIENT, 0))


def greeted(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as one:
        return one.recv(4) == b"220 "
    return False


def test_haproxy(tmp_path: pathlib.Path) -> None:
    """The real client may relay; others may not; both gateways are used, and only one once the other drains."""
    first, second = gateways(tmp_path)
    port = free_port()
    first._answers = second._answers = lambda: True  # type: ignore[method-assign]  # who has no header gets no greeting
    first.start()
    second.start()
    try:
        assert wait_for(lambda: first.command("status").returncode == second.command("status").returncode == 0)
        with haproxy(tmp_path, port, [first, second]):
            assert wait_for(lambda: greeted(port) and greeted(port))
            for _ in range(4):
                with Client("127.0.0.1", port, timeout=20) as client:
                    client.sendmail("fred@truc.fr", ["u@far.example"], b"Subject: x\r\n\r\nx\r\n")
            with smtplib.SMTP("127.0.0.1", port, timeout=20) as client, pytest.raises(smtplib.SMTPRecipientsRefused):
                client.sendmail("fred@truc.fr", ["u@far.example"], b"Subject: x\r\n\r\nx\r\n")
            for one in (first, second):
                assert {row["client"] for row in one.events("accepted")} == {CLIENT}
            with socket.create_connection(("127.0.0.1", first.smtp), 20) as direct:
                direct.sendall(b"EHLO x\r\n")
                assert direct.recv(100) == b""
            assert first.command("drain").returncode == 0
            assert first.child is not None
            assert first.child.wait(20) == 0
            assert wait_for(lambda: all(greeted(port) for _ in range(6)))
    finally:
        assert second.stop() == 0
