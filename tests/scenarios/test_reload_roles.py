"""a reload with several processes, of which one cannot, or dies, or does not answer: all of them or none"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.gateways import Running, free_port, wait_for
from support.processes import roles, running, toml

ALIAS = '[local.aliases]\n"{0}@machin.com" = ["marc@machin.com"]\n[lifecycle]'


def with_alias(text: str, name: str) -> str:
    return text.replace("[lifecycle]", ALIAS.format(name))


def begin(gateway: Running) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tripost", "reload", "--json", "--config", str(gateway.file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def known(gateway: Running, name: str, connections: int = 8) -> set[int]:
    """What RCPT says to it, in whatever process."""
    found: set[int] = set()
    for _ in range(connections):
        with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
            client.ehlo()
            client.mail("fred@truc.fr")
            found.add(client.rcpt(f"{name}@machin.com")[0])
    return found


def status(gateway: Running) -> dict[str, Any]:
    return dict(json.loads(gateway.command("status", "--json").stdout))


def in_force(gateway: Running) -> set[int]:
    """Generations that there are in processes."""
    return {one["generation"] for one in status(gateway)["processes"]} - {0}


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass


@pytest.fixture
def gateway(tmp_path: pathlib.Path) -> Iterator[Running]:
    with running(tmp_path, toml=toml(3)) as one:
        assert wait_for(lambda: len(roles(one).get("ingress", [])) == 3)
        yield one


def test_all_processes_or_none(gateway: Running) -> None:
    text = gateway.file.read_text()
    gateway.file.write_text(with_alias(text, "sales"))

    # one that cannot
    one, other, _ = roles(gateway)["ingress"]
    before = resource.prlimit(one, resource.RLIMIT_NOFILE)
    resource.prlimit(one, resource.RLIMIT_NOFILE, (1, before[1]))
    said = gateway.command("reload")
    resource.prlimit(one, resource.RLIMIT_NOFILE, before)
    assert said.returncode == 2
    assert "ingress " in said.stderr
    assert "nothing was changed" in said.stderr
    assert known(gateway, "sales") == {550}

    # one that dies before all of them are ready
    with stopped(other):
        asked = begin(gateway)
        time.sleep(1.5)
        os.kill(other, signal.SIGKILL)
        said_too = asked.communicate(timeout=200)
    assert asked.returncode == 2
    assert "it died" in said_too[1]
    assert wait_for(lambda: len(roles(gateway).get("ingress", [])) == 3)
    assert known(gateway, "sales") == {550}
    assert status(gateway)["generation"] == 1

    # the manager
    with stopped(one):
        asked = begin(gateway)
        time.sleep(1.5)
        os.kill(roles(gateway)["manager"][0], signal.SIGKILL)
        asked.communicate(timeout=200)
    assert asked.returncode == 3
    assert wait_for(lambda: gateway.command("status").returncode == 0)
    assert known(gateway, "sales") == {550}
    assert wait_for(lambda: in_force(gateway) == {1})

    done = gateway.command("reload", "--json")
    assert (done.returncode, json.loads(done.stdout)["behind"]) == (0, []), done.stderr
    assert known(gateway, "sales") == {250}
    assert in_force(gateway) == {2}


def test_who_is_started_later_has_what_is_in_force(gateway: Running) -> None:
    port, text = free_port(), gateway.file.read_text()
    more = f'[[listen]]\nservice = "smtp"\naddress = "127.0.0.1:{port}"\n'
    gateway.file.write_text(with_alias(text, "sales") + more)
    asked = [begin(gateway) for _ in range(4)]  # one after the other
    assert [one.wait(200) for one in asked] == [0] * 4
    assert sorted(json.loads(one.communicate()[0])["generation"] for one in asked) == [2, 3, 4, 5]
    gateway.file.write_text("nonsense")
    assert gateway.command("reload").returncode == 2
    gateway.file.write_text(text)  # which nobody has asked for
    for pid in [*roles(gateway)["ingress"], *roles(gateway)["manager"]]:
        os.kill(pid, signal.SIGKILL)
    gateway.smtp = port  # where it was not at the start
    assert wait_for(lambda: gateway.command("queue", "count").returncode != 3)
    assert known(gateway, "sales") == {250}
    assert wait_for(lambda: in_force(gateway) == {5})
    gateway.file.write_text(with_alias(text, "info"))
    assert gateway.child is not None
    gateway.child.send_signal(signal.SIGHUP)
    assert wait_for(lambda: in_force(gateway) == {6})
    assert [row["generation"] for row in gateway.events("reloaded")] == [2, 3, 4, 5, 6]


def test_not_while_it_ends(gateway: Running) -> None:
    client = smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20)
    client.ehlo()
    client.mail("fred@truc.fr")
    client.rcpt("marc@machin.com")
    assert client.docmd("DATA")[0] == 354
    gateway.command("drain", "--no-wait")
    said = gateway.command("reload")
    assert said.returncode == 2
    assert "the gateway is ending" in said.stderr
    client.close()
