"""an operator asks why mail is stuck, and the command that is named gets it going; whole gateways, real sockets"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import stat
from collections.abc import Iterator

import pytest

from support.gateways import Running, free_port, running, wait_for
from support.sinks import Sink
from support.steering import obey, send, why_is

ROUTE = """\
[[route]]
domain = "far.example"
to = "smtp://127.0.0.1:{port}"
[delivery.default]
probe_first = "1h"
probe_longest = "1h"
[retry]
first = "1h"
"""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def gateway(tmp_path: pathlib.Path, port: int) -> Iterator[Running]:
    with running(tmp_path, ROUTE.format(port=port)) as one:
        yield one


def test_a_host_that_is_down(gateway: Running, port: int) -> None:
    (id,) = send(gateway)
    found = why_is(gateway, id, "down")
    assert "could not be spoken to: 451 4.4.1" in str(found["reason"])
    sink = Sink(port)
    try:
        obey(gateway, found["command"])
        assert wait_for(lambda: len(sink.messages) == 1)
    finally:
        sink.close()
    assert wait_for(lambda: "why:     relayed to 127.0.0.1" in gateway.command("explain", id).stdout)


def test_a_message_that_is_held(gateway: Running, port: int) -> None:
    gateway.command("queue", "suspend", f"smtp://127.0.0.1:{port}", "--reason", "first")
    (id,) = send(gateway)
    assert (
        gateway.command("queue", "hold", "--id", id).stdout
        == "1 messages fit, 1 changed; tripost queue undo 1 takes it back\n"
    )
    sink = Sink(port)
    try:
        gateway.command("queue", "resume", f"smtp://127.0.0.1:{port}")
        found = why_is(gateway, id, "held")
        gateway.kill()
        gateway.start()  # the hold is on disk
        assert why_is(gateway, id, "held")["command"] == found["command"]
        assert sink.messages == []
        obey(gateway, found["command"])
        assert wait_for(lambda: len(sink.messages) == 1)
    finally:
        sink.close()


def test_a_next_hop_that_is_suspended(gateway: Running, port: int) -> None:
    hop = f"smtp://127.0.0.1:{port}"
    done = gateway.command("queue", "suspend", hop, "--for", "2h", "--reason", "they move")
    assert done.returncode == 0
    assert "ends in 2 h" in done.stdout or "ends in 120 min" in done.stdout
    sink = Sink(port)
    try:
        (id,) = send(gateway)
        found = why_is(gateway, id, "suspended")
        assert str(found["reason"]).endswith("is suspended: they move")
        assert hop in gateway.command("queue", "suspensions").stdout
        obey(gateway, found["command"])
        assert wait_for(lambda: len(sink.messages) == 1)
    finally:
        sink.close()
    assert gateway.command("queue", "resume", hop).returncode == 1


def test_a_message_that_was_told_to_come_later(gateway: Running, port: int) -> None:
    sink = Sink(port, refuse="451 4.7.1 greylisted, come back")
    try:
        (id,) = send(gateway)
        found = why_is(gateway, id, "deferred")
        assert "attempt 1 was told to try again later: 451 4.7.1" in str(found["reason"])
        sink.refuse = ""
        obey(gateway, found["command"])
        assert wait_for(lambda: len(sink.messages) == 1)
    finally:
        sink.close()


def test_list_count_and_summary(gateway: Running, port: int) -> None:
    hop = f"smtp://127.0.0.1:{port}"
    gateway.command("queue", "suspend", hop)
    ids = send(gateway, count=12) + send(gateway, "v@far.example", "eve@truc.fr")
    listed = gateway.command("queue", "list", "--json")
    assert sorted(json.loads(line)["id"] for line in listed.stdout.splitlines()) == sorted(ids)
    text = gateway.command("queue", "list", "--sender", "eve@*").stdout
    assert ids[-1] in text
    assert "v@far.example  suspended at" in text
    assert text.endswith("1 messages\n")
    count = json.loads(gateway.command("queue", "count", "--domain", "far.example", "--json").stdout)
    assert (count["messages"], count["recipients"]) == (13, 13)
    assert gateway.command("queue", "count", "--recipient", "nobody@*").returncode == 1
    summary = gateway.command("queue", "summary").stdout
    assert hop in summary
    assert "13 messages for 13 recipients to 1 next hops" in summary
    status = json.loads(gateway.command("status", "--json").stdout)
    assert (status["accepting"], status["queue"]["messages"]) == (True, 13)


def test_what_is_refused(gateway: Running) -> None:
    send(gateway, count=12)
    many = gateway.command("queue", "hold", "--domain", "far.example")
    assert (many.returncode, "say --yes" in many.stderr) == (1, True)
    dry = gateway.command("queue", "hold", "--domain", "far.example", "--dry-run")
    assert dry.stdout == "12 messages fit; nothing was changed\n"
    assert (
        gateway.command("queue", "hold", "--domain", "far.example", "--yes").stdout
        == "12 messages fit, 12 changed; tripost queue undo 1 takes it back\n"
    )
    for words, code, text in (
        (("hold",), 2, "say which messages"),
        (("hold", "--id", "NOTHING"), 1, "no queued message fits"),
        (("list", "--state", "lost"), 2, "no state 'lost'"),
        (("list", "--older-than", "soon"), 2, "is no duration"),
        (("resume", "far.example"), 1, "is not suspended"),
    ):
        done = gateway.command("queue", *words)
        assert (done.returncode, text in done.stderr, done.stderr.count("\n")) == (code, True, 1), done.stderr


def test_no_gateway(tmp_path: pathlib.Path) -> None:
    gateway = Running(tmp_path)
    for words in (("status",), ("queue", "list"), ("explain", "x")):
        done = gateway.command(*words)
        assert (done.returncode, "no gateway answers" in done.stderr) == (3, True)


def test_the_socket(gateway: Running) -> None:
    path = gateway.folder / "state" / "control.sock"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660

    def ask(data: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(20)
            one.connect(str(path))
            one.sendall(data)
            one.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: one.recv(9999), b""))

    def frame(text: bytes) -> bytes:
        return len(text).to_bytes(4, "big") + text

    assert b"not a request" in ask(frame(b"{}"))
    assert b"not a request" in ask(b"\xff\xff\xff\xff")
    assert b"speaks version 1" in ask(frame(b'{"version":9,"verb":"status"}'))
    assert b"does not know" in ask(frame(b'{"version":1,"verb":"explode"}'))
    assert b"not understood" in ask(frame(b'{"version":1,"verb":"queue.list","arguments":{"limit":"x"}}'))
    assert ask(b"\0\0") == b""
    assert gateway.command("status").returncode == 0
