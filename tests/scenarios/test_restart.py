"""a gateway is replaced by another image of itself: nobody is refused, nothing is lost, and what is wrong changes
nothing"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import random
import signal
import smtplib
import socket
import subprocess
import sys
import time
from contextlib import closing
from typing import Any

import pytest

from support.gateways import Running, free_port, wait_for
from support.processes import Counting, Load, roles, running, toml

ROUTE = """\
[[route]]
domain = "far.example"
to = "smtp://127.0.0.1:{port}"
"""
ADDRESS = '[[listen]]\nservice = "smtp"\naddress = "127.0.0.1:{port}"\n'


def restart(gateway: Running, code: int = 0) -> dict[str, Any]:
    done = gateway.command("restart", "--json")
    assert done.returncode == code, done.stderr
    return dict(json.loads(done.stdout)) if not code else {"said": done.stderr}


def boot(gateway: Running) -> int:
    return int(json.loads(gateway.command("status", "--json").stdout)["boot"])


def in_data(port: int) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", port, timeout=30)
    client.ehlo()
    client.mail("fred@truc.fr")
    client.rcpt("u1000000@far.example")
    assert client.docmd("DATA")[0] == 354
    client.send(b"Subject: n1000000\r\n\r\n")
    return client


def idling(port: int) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", port, timeout=30)
    client.ehlo()
    return client


def everything_came(sink: Counting, taken: set[int]) -> None:
    assert wait_for(lambda: sink.has(taken), 30), f"lost: {sorted(taken - sink.came.keys())[:10]}"


# --- nobody notices ---


@pytest.mark.parametrize("processes", [1, 3])
def test_under_load(tmp_path: pathlib.Path, processes: int) -> None:
    port = free_port()
    sink = Counting(port)
    try:
        with running(tmp_path, ROUTE.format(port=port), toml=toml(processes)) as gateway:
            before = roles(gateway)
            load = Load(gateway.smtp, clients=3)
            try:
                assert restart(gateway)["version"] == importlib.metadata.version("tripost")
                taken = len(load.taken)
                assert wait_for(lambda: len(load.taken) > taken + 20)
            finally:
                load.stop()
            assert load.refused == []
            assert roles(gateway)["supervisor"] == before["supervisor"]
            old = {one for role in before if role != "supervisor" for one in before[role]}
            assert wait_for(lambda: not any(set(some) & old for some in roles(gateway).values()))
            everything_came(sink, load.taken)
            assert set(sink.came.values()) == {1}
            assert gateway.stop() == 0
            assert gateway.command("queue", "verify", "--offline").returncode == 0
            assert gateway.events("stopping")[0]["reason"].startswith("restart")
    finally:
        sink.close()


def test_an_old_process_finishes_what_it_began(tmp_path: pathlib.Path) -> None:
    """Within the drain, while new ones take connections, and over a second restart; its log is taken in when it
    ends."""
    port = free_port()
    sink = Counting(port)
    text = toml(2).replace('drain = "3s"', 'drain = "60s"')
    try:
        with running(tmp_path, ROUTE.format(port=port), toml=text) as gateway:
            with closing(in_data(gateway.smtp)) as late, closing(idling(gateway.smtp)) as idle:
                for _ in range(2):
                    restart(gateway)
                    assert wait_for(lambda: len(roles(gateway)["ingress"]) == 3)  # those of two images
                assert idle.getreply() == (421, b"4.3.2 smtp.machin.com is shutting down, try again later")
                with idling(gateway.smtp) as client:
                    client.sendmail("fred@truc.fr", ["u1@far.example"], "Subject: n1\r\n\r\nx\r\n")
                late.send(b"late\r\n.\r\n")
                assert late.getreply()[0] == 250
            assert wait_for(lambda: len(roles(gateway)["ingress"]) == 2)
            everything_came(sink, {1, 1000000})
            assert gateway.stop() == 0
            assert gateway.command("queue", "verify", "--offline").returncode == 0
    finally:
        sink.close()


def test_data_has_a_second_in_one_process(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, '[[route]]\ndomain = "*"\nto = "discard"\n', toml=toml(1)) as gateway:
        assert gateway.child is not None
        port = gateway.smtp
        with closing(in_data(port)) as quick, closing(in_data(port)) as slow, closing(idling(port)) as idle:
            gateway.child.send_signal(signal.SIGUSR2)
            assert idle.getreply()[0] == 421
            quick.send(b"quick\r\n.\r\n")
            assert quick.getreply()[0] == 250
            with pytest.raises(smtplib.SMTPServerDisconnected):
                slow.getreply()
        assert wait_for(lambda: len(gateway.events("started")) == 2)


@pytest.mark.long
def test_what_is_written_now_is_in_force_after(tmp_path: pathlib.Path) -> None:
    """Also what a reload cannot change; the sockets of listeners that stay are the same ones."""
    with running(tmp_path, toml=toml(1)) as gateway:
        text, more = gateway.file.read_text(), free_port()
        for processes, name, extra in ((2, "a.machin.com", True), (3, "b.machin.com", False), (1, "c.machin.com", 1)):
            changed = text.replace("processes = 1", f"processes = {processes}").replace("smtp.machin.com", name)
            gateway.file.write_text(changed + (ADDRESS.format(port=more) if extra else ""))
            restart(gateway)
            assert len(roles(gateway).get("ingress", [])) == (processes if processes > 1 else 0)
            for port in (gateway.smtp, *([more] if extra else [])):
                with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
                    assert client.ehlo()[1].split()[0] == name.encode()
            if not extra:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", more), 5)
        assert json.loads(gateway.command("config", "diff", "--json").stdout)["same"] is True
        gateway.file.write_text(text.replace("smtp.machin.com", "c.machin.com"))  # for the end of `running`


# --- what is wrong changes nothing ---


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_broken_configuration_is_refused(tmp_path: pathlib.Path, processes: int) -> None:
    with running(tmp_path, toml=toml(processes)) as gateway:
        assert gateway.child is not None
        text, was = gateway.file.read_text(), boot(gateway)

        def refused(changed: str, reason: str) -> None:
            count = len(gateway.events("trouble"))
            gateway.file.write_text(changed)
            gateway.child.send_signal(signal.SIGUSR2)  # type: ignore[union-attr]
            assert wait_for(lambda: len(gateway.events("trouble")) > count)
            assert reason in gateway.events("trouble")[-1]["reason"]
            gateway.file.write_text(text)

        refused(f"{text}[limits]\nerors = 3\n", "limits.erors: unknown key")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            refused(text + ADDRESS.format(port=port), f"cannot listen on 127.0.0.1:{port}: Address already in use")
        refused(text.replace('state = "state"', 'state = "elsewhere"'), "state: a restart cannot move it")
        (gateway.folder / "c.pem").write_text("x")
        gateway.file.write_text(f'{text}[tls]\ncertificate = "c.pem"\nkey = "c.pem"\n')
        said = restart(gateway, code=2)["said"]
        assert "tls.certificate: " in said
        assert said.endswith("tripost: nothing was changed\n")
        gateway.file.write_text(text)
        assert boot(gateway) == was
        assert {row["where"] for row in gateway.events("trouble")} == {"restart"}
        restart(gateway)  # none of it is in the way of a good one


def test_without_a_gateway(tmp_path: pathlib.Path) -> None:
    gateway = Running(tmp_path)
    done = gateway.command("restart")
    assert (done.returncode, "no gateway answers" in done.stderr) == (3, True)


# --- signals and deaths in the middle ---


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_in_the_middle_ends_it(tmp_path: pathlib.Path, processes: int) -> None:
    """Whenever it comes; and a second SIGUSR2 does no harm."""
    for pause in (0.0, 0.6, 1.2):
        with running(tmp_path, toml=toml(processes)) as gateway:
            assert gateway.child is not None
            pids = [pid for some in roles(gateway).values() for pid in some]
            gateway.child.send_signal(signal.SIGUSR2)
            gateway.child.send_signal(signal.SIGUSR2)
            time.sleep(pause)
            gateway.child.send_signal(signal.SIGUSR2)
            assert gateway.stop() == 0
            assert wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))  # noqa: B023
            assert not (gateway.folder / "state" / "control.sock").exists()


def killed_in_the_middle(folder: pathlib.Path, processes: int, rounds: int) -> None:
    port = free_port()
    sink = Counting(port)
    taken: set[int] = set()
    try:
        with running(folder, ROUTE.format(port=port), toml=toml(processes)) as gateway:
            for _ in range(rounds):
                load = Load(gateway.smtp, clients=2, first=len(taken) + 1_000_000 * random.randrange(1, 1 << 20))
                try:
                    assert gateway.child is not None
                    gateway.child.send_signal(signal.SIGUSR2)
                    time.sleep(random.uniform(0.2, 2.0))
                    gateway.kill()
                finally:
                    load.stop()
                taken |= load.taken
                gateway.start()
                assert wait_for(lambda: gateway.command("status").returncode == 0)
            everything_came(sink, taken)
            assert gateway.stop() == 0
            assert gateway.command("queue", "verify", "--offline").returncode == 0
    finally:
        sink.close()


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_kill_nine_in_the_middle(tmp_path: pathlib.Path, processes: int) -> None:
    """Wherever it hits: whatever was confirmed is delivered."""
    killed_in_the_middle(tmp_path, processes, 10)


# --- another version ---

# another number than before for what processes share, as of an upgrade
OTHER = """\
import pathlib, sys
from tripost.gateway import handover
handover.VERSION = int(pathlib.Path("version").read_text())
from tripost.gateway.cli import main
sys.exit(main(["serve", "tripost.toml"]))
"""


@pytest.mark.long
def test_processes_of_another_version_end_first(tmp_path: pathlib.Path) -> None:
    class Other(Running):
        def start(self) -> None:
            (self.folder / "version").write_text("7")
            self.child = subprocess.Popen([sys.executable, "-c", OTHER], cwd=self.folder)
            assert wait_for(self._answers)

    port = free_port()
    sink = Counting(port)
    try:
        with running(tmp_path, ROUTE.format(port=port), toml=toml(2), kind=Other) as gateway:
            before = roles(gateway)
            load = Load(gateway.smtp, clients=2)
            try:
                (tmp_path / "version").write_text("8")
                restart(gateway)
                assert not {pid for some in roles(gateway).values() for pid in some} & set(before["ingress"])
                taken = len(load.taken)
                assert wait_for(lambda: len(load.taken) > taken + 20)
            finally:
                load.stop()
            assert load.refused == []
            everything_came(sink, load.taken)
            assert gateway.stop() == 0
    finally:
        sink.close()


# --- many ---

BENCH = pathlib.Path(__file__).parents[2] / "bench" / "reload.py"


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_twenty_restarts_under_five_hundred_a_second(processes: int) -> None:
    words = ["--restart", "--processes", str(processes), "--rate", "500", "--seconds", "75", "--times", "20"]
    done = subprocess.run(
        [sys.executable, str(BENCH), *words], stdout=subprocess.PIPE, text=True, timeout=600, check=True
    )
    row = json.loads(done.stdout)
    source = row["source"]
    assert row["done"] == 20
    assert source["errors"] == {}, "somebody was refused, or told 5xx"
    assert source["messages"] + source["shed"] == 500 * 75
    assert row["sink"]["messages"] >= source["messages"], "lost"
    assert source["shed"] < 100  # 421 to who was between two commands
