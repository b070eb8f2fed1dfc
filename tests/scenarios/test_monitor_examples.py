"""the examples of docs/monitor.md, run as they stand there

Only the address of the monitor is another one, so that the tests may run beside a gateway.
"""

from __future__ import annotations

import pathlib
import re
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from conftest import needs
from support.gateways import Running, running, wait_for

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "monitor.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = "127.0.0.1:8025"
REFUSING = "".join(
    f'[[route]]\ndomain = "{domain}"\nto = "smtp://127.0.0.1:{port}"\n'
    for port, domain in enumerate(("a.example", "b.example"), 1)  # nobody listens at these ports
)
EXTRA = '[dns]\nnameservers = ["127.0.0.1:1"]\n[monitor]\ntoken_file = "monitor.token"\n'


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(DOCUMENT.read_text()) if kind == language]


def make_token(folder: pathlib.Path) -> None:
    """By the document's own words."""
    needs("openssl")
    subprocess.run(["bash", "-euc", blocks("sh")[0]], cwd=folder, check=True)


def send(gateway: Running, recipient: str) -> None:
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
        client.sendmail("fred@truc.fr", [recipient], b"Subject: x\r\n\r\nx\r\n")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("examples")
    make_token(folder)
    with running(folder, EXTRA) as made:
        send(made, "marc@machin.com")
        send(made, "ann@example.com")
        assert wait_for(lambda: made.command("history", "marc@machin.com").returncode == 0)
        yield made


def lines() -> list[str]:
    """Every command of the document, one by one, but for what was done already and what never ends."""
    first, *some, last = blocks("sh")
    assert "openssl" in first
    assert "watch.py" in last
    return [line for block in some for line in block.splitlines() if line.strip()]


def test_curl(gateway: Running) -> None:
    needs("curl")
    begin = lines()[:2]
    said: dict[str, str] = {}
    for line in lines()[2:]:
        script = "\n".join([*begin, line]).replace(ADDRESS, f"127.0.0.1:{gateway.monitor}")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=gateway.folder, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), line
        said[line] = done.stdout
    whole = "\n".join(said.values())
    assert "ready\n" in whole
    assert "tripost_queue_messages 1.0" in whole
    assert '"fit":1,"changed":0' in whole, "counted"
    assert '"fit":1,"changed":1' in whole, "held"
    assert '"undone":"' in whole
    assert "ann@example.com" in whole
    assert "relayed" in whole or "delivered" in whole
    assert len(said) == 13


def test_without_the_token_nothing_is_done(gateway: Running) -> None:
    needs("curl")
    for line in lines():
        if "-H @monitor.header" in line:
            bare = line.replace("-H @monitor.header ", "").replace("-sf", "-s -w '%{http_code}'")
            script = f"{lines()[0]}\n{bare}".replace(ADDRESS, f"127.0.0.1:{gateway.monitor}")
            done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
            assert done.stdout.endswith("401"), line


def test_the_client_of_events_goes_on_over_a_restart(tmp_path: pathlib.Path) -> None:
    make_token(tmp_path)
    (program,) = blocks("python")
    assert len([line for line in program.splitlines() if line.strip()]) <= 20
    (tmp_path / "watch.py").write_text(program)
    words = blocks("sh")[-1].split()
    assert words[:2] == ["python", "watch.py"]
    with running(tmp_path, REFUSING + EXTRA) as gateway:
        address = words[2].replace(ADDRESS, f"127.0.0.1:{gateway.monitor}")
        out = (tmp_path / "out").open("w")
        words = [sys.executable, "watch.py", address]
        child = subprocess.Popen(words, cwd=tmp_path, stdout=out, stderr=subprocess.STDOUT)
        try:
            time.sleep(1)

            def told() -> list[list[str]]:
                return [line.split(" ", 3) for line in (tmp_path / "out").read_text().splitlines()]

            send(gateway, "one@a.example")
            assert wait_for(lambda: [row[1:3] for row in told()] == [["deferred", "one@a.example"]], 40), told()
            gateway.stop()
            gateway.start()
            send(gateway, "two@b.example")
            assert wait_for(lambda: [row[2] for row in told()][-1] == "two@b.example", 40), told()
            logged = [str(row["seq"]) for row in gateway.events("deferred")]
            assert [row[0] for row in told()] == logged, "none twice, none left out"
        finally:
            child.kill()
            child.wait()
            out.close()
