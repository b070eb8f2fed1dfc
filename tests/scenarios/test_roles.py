"""the same gateway in one process and in many: what it does, and that any of them may be killed"""

from __future__ import annotations

import os
import pathlib
import poplib
import signal
import smtplib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from support.gateways import Running, free_port, wait_for
from support.processes import Counting, Load, kill_one, roles, running, toml
from support.sinks import Sink
from tripost.gateway.processes.backoff import STEADY

ROUTE = """\
[[route]]
domain = "far.example"
to = "smtp://127.0.0.1:{port}"
[delivery.default]
probe_first = "200ms"
probe_longest = "400ms"
"""
EVERY = (1, 3)


def send(gateway: Running, to: str, text: str = "hello", count: int = 1) -> None:
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
        for _ in range(count):
            client.sendmail("fred@truc.fr", [to], f"Subject: {text}\r\n\r\n{text}\r\n")


# --- what a gateway does, in one process or in many ---


@pytest.mark.parametrize("processes", [*EVERY, "auto"])
def test_mail_comes_in_and_goes_out(tmp_path: pathlib.Path, processes: int | str) -> None:
    port = free_port()
    sink = Sink(port)
    try:
        with running(tmp_path, ROUTE.format(port=port), toml=toml(processes)) as gateway:
            if processes == "auto":  # on few cores the manager delivers
                few = len(os.sched_getaffinity(0)) < 4
                assert wait_for(lambda: set(roles(gateway)) >= {"supervisor", "manager", "ingress"})
                assert few != ("delivery" in roles(gateway))
            for _ in range(6):
                send(gateway, "u@far.example", count=3)
            send(gateway, "marc@machin.com", "local")
            send(gateway, "marc@machin.com", "large" * 100_000)
            assert wait_for(lambda: len(sink.messages) == 18)
            assert wait_for(lambda: _count(gateway) == 2)
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                send(gateway, "nobody@machin.com")
            told = gateway.command("queue", "summary", "--json")
            assert told.returncode in (0, 1), told.stderr
            status = gateway.command("status")
            assert f"127.0.0.1:{gateway.smtp}" in status.stdout
            assert gateway.stop() == 0
            accepted = gateway.events("accepted")
            assert len(accepted) == 20
            assert len({row["id"] for row in accepted}) == 20
            assert len(gateway.events("relayed")) == 18
            assert len(gateway.events("started")) == 1
            assert gateway.events("stopped")[0]["clean"] is True
            assert {row["client"] for row in gateway.events("connected")} == {"127.0.0.1"}
            assert gateway.command("queue", "verify", "--offline").returncode == 0
    finally:
        sink.close()


def _count(gateway: Running) -> int:
    box = poplib.POP3("127.0.0.1", gateway.pop3, timeout=20)
    try:
        box.user("marc@machin.com")
        box.pass_("secret")
        return box.stat()[0]
    finally:
        box.quit()


LIMITS = """\
[relay]
networks = []
domains = ["far.example"]
[[route]]
domain = "far.example"
to = "discard"
[limits]
client_connections = 4
client_messages = "10/h"
auth_failures = "3/10min"
"""


@pytest.mark.parametrize("processes", EVERY)
def test_limits_are_exact_over_all_processes(tmp_path: pathlib.Path, processes: int) -> None:
    with running(tmp_path, LIMITS, toml=toml(processes)) as gateway:
        time.sleep(0.5)  # the client that looked whether it answers has left
        clients = [socket.create_connection(("127.0.0.1", gateway.smtp), 20) for _ in range(12)]
        words = [one.recv(3) for one in clients]
        assert words.count(b"220") == 4, words
        assert words.count(b"421") == 8, words
        for one in clients:
            one.close()
        taken, refused = 0, 0

        def free() -> bool:
            with socket.create_connection(("127.0.0.1", gateway.smtp), 20) as one:
                return one.recv(3) == b"220"

        assert wait_for(free)
        for _ in range(15):
            try:
                send(gateway, "u@far.example")
                taken += 1
            except smtplib.SMTPSenderRefused as wrong:
                refused += wrong.smtp_code == 450
            except smtplib.SMTPConnectError:
                time.sleep(0.1)
        assert taken == 10
        assert refused > 0


@pytest.mark.parametrize("processes", EVERY)
def test_guessing_passwords_is_counted_in_all_processes(tmp_path: pathlib.Path, processes: int) -> None:
    text = toml(processes).replace("[auth]\n", '[auth]\ncleartext = "always"\n', 1)
    limits = '[limits]\nauth_failures = "3/10min"\nauth_ban = "1h"\n'
    with running(tmp_path, limits, toml=text.replace('service = "smtp"', 'service = "submission"', 1)) as gateway:
        for n in range(3):
            with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client, pytest.raises(smtplib.SMTPException):
                client.login("marc@machin.com", f"wrong{n}")
        time.sleep(1)  # until all of them know
        for _ in range(8):  # in whatever process: also the right one is not taken now
            with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
                with pytest.raises(smtplib.SMTPAuthenticationError, match="too many failed logins"):
                    client.login("marc@machin.com", "secret")
        box = poplib.POP3("127.0.0.1", gateway.pop3, timeout=20)
        box.user("marc@machin.com")
        with pytest.raises(poplib.error_proto, match="too many"):
            box.pass_("secret")
        box.close()


@pytest.mark.parametrize("processes", EVERY)
def test_the_spools_limits_hold(tmp_path: pathlib.Path, processes: int) -> None:
    extra = ROUTE.format(port=free_port()) + "[spool]\nmessages = 20\n"
    text = toml(processes).replace('[spool]\nmin_free = "1MiB"\n', "")
    with running(tmp_path, extra, toml=text) as gateway:
        taken = code = 0
        for _ in range(200):
            try:
                send(gateway, "u@far.example")
                taken += 1
            except smtplib.SMTPResponseException as wrong:
                code = wrong.smtp_code
                break
            time.sleep(0.02)
        assert code == 452
        assert 20 <= taken <= 19 + 2 * processes


def heeds_interrupts() -> None:
    """In the child: a shell starts what is in its background with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("processes", EVERY)
def test_live_sessions_can_be_traced(tmp_path: pathlib.Path, processes: int) -> None:
    with running(tmp_path, toml=toml(processes)) as gateway:
        command = [sys.executable, "-m", "tripost", "trace", "--service", "smtp", "--config", str(gateway.file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heeds_interrupts) as tracer:
            time.sleep(2)
            for _ in range(3):
                send(gateway, "marc@machin.com", "traced")
            time.sleep(1)
            tracer.send_signal(signal.SIGINT)
            told = tracer.communicate(timeout=20)[0]
        assert told.count("rcpt TO:<marc@machin.com>") == 3
        assert told.count("queued as") == 3


@pytest.mark.parametrize("processes", EVERY)
def test_a_drain_ends_all_of_them(tmp_path: pathlib.Path, processes: int) -> None:
    """At once where nothing is under way: nobody waits for somebody who was not told."""
    with running(tmp_path, toml=toml(processes)) as gateway:
        command = [sys.executable, "-m", "tripost", "drain", "--config", str(gateway.file)]
        assert subprocess.run(command, timeout=15, check=False).returncode == 0
        assert gateway.events("stopped")[-1]["clean"]


# --- what is killed ---


def duplicates(sink: Counting) -> int:
    return sum(sink.came.values()) - len(sink.came)


def everything_came(sink: Counting, load: Load, allowed: int) -> None:
    before = -1
    while not sink.has(load.taken) and before != len(sink.came):  # as long as something comes
        before = len(sink.came)
        wait_for(lambda: sink.has(load.taken), 60)
    assert sink.has(load.taken), f"lost: {sorted(load.taken - sink.came.keys())[:10]}"
    assert load.refused == []
    assert duplicates(sink) <= allowed


def one_round(gateway: Running, load: Load, role: str) -> None:
    before = len(load.taken)
    killed = kill_one(gateway, role)
    assert wait_for(lambda: len(load.taken) > before + 20, 60), "no mail is taken any more"
    assert wait_for(lambda: roles(gateway).get(role), 60)
    assert wait_for(lambda: all(killed not in some for some in roles(gateway).values()), 60)


def rounds(gateway: Running, sink: Counting, count: int, which: tuple[str, ...], *, lives: float = 0.0) -> None:
    """`lives`: seconds that one of a role is left alone after its start."""
    load = Load(gateway.smtp)
    born = dict.fromkeys(which, time.monotonic())
    try:
        for n in range(count):
            role = which[n % len(which)]
            time.sleep(max(0.0, born[role] + lives - time.monotonic()))
            one_round(gateway, load, role)
            born[role] = time.monotonic()
    finally:
        load.stop()
    assert len(load.taken) > 20 * count
    # what the next host had confirmed, and we not yet written, when a process was killed (RFC 5321 §6.1)
    everything_came(sink, load, 20 * count)
    print(f"{count} kills, {len(load.taken)} accepted, {len(load.refused)} refused, {duplicates(sink)} duplicates")


ROLES = ("ingress", "manager", "delivery")
LIVES = STEADY + 0.5  # who is killed sooner is started again more and more slowly, as is meant


@pytest.mark.parametrize("processes", [2])
def test_each_is_killed_under_load(tmp_path: pathlib.Path, processes: int) -> None:
    port = free_port()
    sink = Counting(port)
    try:
        with running(tmp_path, ROUTE.format(port=port), toml=toml(processes)) as gateway:
            there = [one for one in ROLES if one in roles(gateway)]
            assert len(there) >= 2
            rounds(gateway, sink, 2 * len(there), tuple(there))
            kill_one(gateway, "ingress")  # with no manager after it, with which the event of it could go

            def told() -> list[str]:
                return [row["reason"] for row in gateway.events("trouble") if row["where"] == "processes"]

            assert wait_for(lambda: any("ingress" in one and "signal 9" in one for one in told()))
            assert gateway.stop() == 0
            reasons = told()
            # those that go with a manager have done nothing wrong: they are not told, nor started later for it
            assert sum("delivery" in one for one in reasons) <= 2
            assert gateway.command("queue", "verify", "--offline").returncode == 0
    finally:
        sink.close()


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 3])
def test_each_is_killed_fifty_times(tmp_path: pathlib.Path, processes: int) -> None:
    port = free_port()
    sink = Counting(port)
    text = toml("auto" if processes == 1 else processes)
    try:
        with running(tmp_path, ROUTE.format(port=port), toml=text) as gateway:
            there = tuple(one for one in ROLES if one in roles(gateway))
            rounds(gateway, sink, 50, there, lives=LIVES)
            assert gateway.stop() == 0
            assert gateway.command("queue", "verify", "--offline").returncode == 0
    finally:
        sink.close()


def test_mail_is_taken_while_there_is_no_manager(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, ROUTE.format(port=free_port()), toml=toml(2)) as gateway:
        (manager,) = roles(gateway)["manager"]
        os.kill(manager, signal.SIGSTOP)
        try:
            send(gateway, "u@far.example", count=20)
            assert gateway.events("accepted") == []
        finally:
            os.kill(manager, signal.SIGCONT)
        assert wait_for(lambda: len(gateway.events("accepted")) == 20)


def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, ROUTE.format(port=free_port()), toml=toml(2)) as gateway:
        send(gateway, "u@far.example", count=5)
        pids = [pid for some in roles(gateway).values() for pid in some]
        gateway.kill()
        assert wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
        gateway.start()
        send(gateway, "u@far.example", count=5)
        assert wait_for(lambda: len(gateway.command("queue", "list", "--json").stdout.splitlines()) >= 10)


def test_who_dies_again_and_again_is_told_and_not_ready(tmp_path: pathlib.Path) -> None:
    def ready() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{gateway.monitor}/readyz", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as wrong:
            return wrong.code

    with running(tmp_path, toml=toml(2)) as gateway:
        assert wait_for(lambda: ready() == 200)
        for _ in range(20):
            for pid in roles(gateway, number=1).get("ingress", []):
                os.kill(pid, signal.SIGKILL)
            if ready() == 503:
                break
            time.sleep(0.3)
        assert ready() == 503
        send(gateway, "marc@machin.com")
        told = [row["reason"] for row in gateway.events("trouble")]
        assert any("dies again and again" in one for one in told)
        assert "NOT READY: ingress 1 dies again and again" in gateway.command("status").stdout


def test_what_cannot_start_is_told_once(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, toml=toml(2)) as gateway:
        second = gateway.command("serve")
        assert second.returncode == 2
        assert "tripost: " in second.stderr
        assert len(second.stderr.splitlines()) == 1
        send(gateway, "marc@machin.com")
