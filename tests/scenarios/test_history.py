"""what became of messages, asked of whole gateways: beside, after and without them, on a full disk too"""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import smtplib
import subprocess
import sys
from typing import Any

import pytest

from conftest import needs
from support.gateways import Running, free_port, running, wait_for
from support.sinks import Sink

ROUTE = """\
[[route]]
domain = "far.example"
to = "smtp://127.0.0.1:{port}"
[retry]
first = "1s"
jitter = 0.0
"""


def send(gateway: Running, *to: str, sender: str = "fred@truc.fr") -> str:
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
        client.ehlo()
        client.mail(sender)
        for one in to:
            client.rcpt(one)
        _, text = client.data("Subject: x\r\n\r\nhi\r\n")
        return text.decode().rpartition(" ")[2]


def asked(gateway: Running, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.command("history", *words, "--json").stdout.splitlines()]


def ended(gateway: Running, id: str) -> dict[str, Any]:
    found = wait_for(lambda: [one for one in asked(gateway, id) if one["ended"]])
    assert found, asked(gateway, id)
    return dict(found[0])


def test_every_attempt_and_its_outcome(tmp_path: pathlib.Path) -> None:
    port = free_port()
    with running(tmp_path, ROUTE.format(port=port)) as gateway:
        sink = Sink(port, refuse="451 4.7.1 greylisted")
        try:
            id = send(gateway, "marc@machin.com", "u@far.example")
            assert wait_for(lambda: gateway.events("deferred"))
            found = wait_for(lambda: [one for one in asked(gateway, id) if one["open"] == 1])  # it is a moment behind
            assert [one["ended"] for one in found] == [0.0]
            sink.refuse = ""
            one = ended(gateway, id)
        finally:
            sink.close()
        outcomes = [two["outcome"] for two in one["attempts"]]
        assert set(outcomes) == {"deferred", "delivered", "relayed"}
        last = one["attempts"][-1]
        tries = outcomes.count("deferred") + 1
        assert (last["outcome"], last["attempt"], last["reply"]) == ("relayed", tries, "250 taken")
        explained = gateway.command("explain", id).stdout
        assert f"{id} from fred@truc.fr to u@far.example\n    why:     relayed to 127.0.0.1" in explained
        assert "why:     put into the mailbox" in explained
        assert last["transfer"]["address"] == "127.0.0.1"
        text = gateway.command("history", "fred@truc.fr", "--since", "1h").stdout
        assert text.startswith(f"{id} accepted 20")
        assert "#1 u@far.example: deferred by 127.0.0.1" in text
        assert "marc@machin.com: put into the mailbox\n" in text
        assert ": 250 taken\n" in text
        nothing = gateway.command("history", "nobody@truc.fr")
        assert (nothing.returncode, nothing.stdout) == (1, "")
        assert "has nothing about nobody@truc.fr" in nothing.stderr
        assert gateway.command("history", id, "--since", "soon").returncode == 2
        assert gateway.command("history", id, "--limit", "-1").returncode == 2
        hop = f"smtp://127.0.0.1:{port}"
        assert [two["id"] for two in asked(gateway, hop)] == [id]
        gateway.kill()
        offline = gateway.command("history", id, "--json")
        assert offline.returncode == 0
        assert [two["outcome"] for two in json.loads(offline.stdout)["attempts"]][-1] == "relayed"
        assert "no gateway answers" in offline.stderr
        gateway.start()
        assert ended(gateway, id)["attempts"] == one["attempts"]


def test_no_history(tmp_path: pathlib.Path) -> None:
    gateway = Running(tmp_path)
    assert gateway.command("history", "x").returncode == 3
    with running(tmp_path, '[history]\nkeep = "0s"\n') as gateway:
        send(gateway, "marc@machin.com")
        done = gateway.command("history", "marc@machin.com")
        assert (done.returncode, "no history is kept" in done.stderr) == (1, True)
        assert not (tmp_path / "state" / "history").exists()


def test_a_damaged_history_is_put_aside_and_mail_goes_on(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state" / "history" / "history.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\0" * 10_000)
    path.write_bytes(os.urandom(10_000))
    with running(tmp_path) as gateway:
        id = send(gateway, "marc@machin.com")
        assert ended(gateway, id)["attempts"][0]["outcome"] == "delivered"
        assert wait_for(lambda: [row for row in gateway.events("trouble") if "is damaged" in row["reason"]])
        assert path.with_name("history.db.damaged").exists()


class OnSmallDisk(Running):
    """Its history lies on a file system of its own, of 1 MiB, most of which is taken."""

    def start(self) -> None:
        history = self.folder / "state" / "history"
        history.mkdir(parents=True, exist_ok=True)
        where = shlex.quote(str(history))
        fill = f"head -c 900k /dev/zero > {where}/filler"
        serve = shlex.join([sys.executable, "-m", "tripost", "serve", str(self.file)])
        script = f"mount -t tmpfs -o size=1m none {where} && {fill} && exec {serve}"
        self.child = subprocess.Popen(
            ["unshare", "-m" if os.geteuid() == 0 else "-Urm", "sh", "-c", script], cwd=self.folder
        )
        assert wait_for(self._answers), "the gateway did not start"

    @property
    def disk(self) -> pathlib.Path:
        """As the gateway sees it."""
        assert self.child is not None
        return pathlib.Path(f"/proc/{self.child.pid}/root{self.folder}/state/history")


def test_a_full_disk_below_the_history(tmp_path: pathlib.Path) -> None:
    needs("unshare", "util-linux")
    if subprocess.run(["unshare", "-m" if os.geteuid() == 0 else "-Urm", "true"], check=False).returncode:
        pytest.skip("the system gives no mount namespace")
    with running(tmp_path, kind=OnSmallDisk) as gateway:

        def reader() -> dict[str, Any]:
            status = json.loads(gateway.command("status", "--json").stdout)
            (found,) = [one for one in status["events"]["readers"] if one["name"] == "history"]
            return dict(found)

        sent = 0
        for _ in range(100):
            with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
                for _ in range(20):
                    client.sendmail("fred@truc.fr", ["marc@machin.com"], b"Subject: x\r\n\r\nhi\r\n")
                    sent += 1
            if reader()["dropped"]:
                break
        assert wait_for(lambda: gateway.events("dropped"))
        told = gateway.events("dropped")[0]
        assert told["reader"] == "history"
        assert told["reason"] in ("database or disk is full", "")  # a small batch may have fitted again
        assert wait_for(lambda: len(list((tmp_path / "state" / "mail").rglob("new/*"))) == sent)
        assert "the history has lost" in gateway.command("status").stdout
        (gateway.disk / "filler").unlink()
        id = send(gateway, "marc@machin.com")
        assert ended(gateway, id)["attempts"][0]["outcome"] == "delivered"
        assert wait_for(lambda: not reader()["wrong"])
        assert wait_for(lambda: gateway.events("dropped")[-1]["total"] == reader()["dropped"])
        assert gateway.stop() == 0
