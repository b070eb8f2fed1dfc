"""an operator bounces, deletes, sends another way, and takes it back; whole gateways, real sockets"""

from __future__ import annotations

import json
import pathlib
import random
import smtplib
import threading
import time
from collections.abc import Iterator

import pytest

from support.gateways import Running, free_port, running, wait_for
from support.sinks import Sink
from tripost.gateway.control.client import ControlError, ask

EXTRA = """\
[[route]]
domain = "*.example"
to = "smtp://127.0.0.1:{port}"
[delivery.default]
probe_first = "1h"
probe_longest = "1h"
[admin]
grace = "{grace}"
"""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def gateway(tmp_path: pathlib.Path, port: int) -> Iterator[Running]:
    with running(tmp_path, EXTRA.format(port=port, grace="1h")) as one:
        one.command("queue", "suspend", f"smtp://127.0.0.1:{port}")
        yield one


@pytest.fixture
def hasty(tmp_path: pathlib.Path, port: int) -> Iterator[Running]:
    """No grace time to speak of."""
    with running(tmp_path, EXTRA.format(port=port, grace="1s")) as one:
        one.command("queue", "suspend", f"smtp://127.0.0.1:{port}")
        yield one


def send(gateway: Running, *to: str, sender: str = "marc@machin.com", text: str = "hi") -> str:
    """The id."""
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
        client.ehlo()
        client.mail(sender)
        for one in to:
            client.rcpt(one)
        _, reply = client.data(f"Subject: a letter\r\nFrom: {sender}\r\n\r\n{text}\r\n")
        return reply.decode().rpartition(" ")[2]


def told(gateway: Running, *words: str) -> dict[str, object]:
    done = gateway.command("queue", *words, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def queued(gateway: Running) -> dict[str, list[str]]:
    """Id → recipients and states."""
    rows = [json.loads(line) for line in gateway.command("queue", "list", "--json").stdout.splitlines()]
    return {row["id"]: [f"{one['recipient']} {one['state']}" for one in row["deliveries"]] for row in rows}


def audit(gateway: Running) -> list[dict[str, object]]:
    return [json.loads(line) for line in gateway.command("queue", "audit", "--json").stdout.splitlines()]


def test_a_bounce_by_domain_spares_the_other_recipients(hasty: Running, port: int) -> None:
    one = send(hasty, "u@a.example", "v@b.example")
    send(hasty, "w@a.example")
    done = told(hasty, "bounce", "--domain", "a.example", "--reason", "a.example is closed")
    assert (done["fit"], done["changed"], done["recipients"]) == (2, 2, 2)
    assert wait_for(lambda: queued(hasty) == {one: ["v@b.example suspended"]}), queued(hasty)
    reports = wait_for(lambda: [*(hasty.folder / "state" / "mail").rglob("new/*")])
    texts = [path.read_text() for path in reports]
    assert len(texts) == 2
    assert all("a.example is closed" in text and "5.3.0" in text for text in texts)
    failed = {row["recipient"]: row["report"] for row in hasty.events("failed")}
    assert set(failed) == {"u@a.example", "w@a.example"}
    assert wait_for(lambda: [row["state"] for row in audit(hasty)] == ["done"])
    (row,) = audit(hasty)
    assert (row["verb"], row["messages"]) == ("bounce", 2)
    assert row["filter"] == {"domain": "a.example"}
    assert row["who"]


def test_undo_before_the_time_is_over(gateway: Running, port: int) -> None:
    ids = [send(gateway, "u@a.example"), send(gateway, "v@a.example")]
    told(gateway, "delete", "--id", ids[0])
    told(gateway, "expire", "--id", ids[1])
    assert queued(gateway) == {ids[0]: ["u@a.example ending"], ids[1]: ["v@a.example ending"]}
    text = gateway.command("explain", ids[0]).stdout
    assert "wants to delete it" in text
    assert "tripost queue undo 1" in text
    gateway.kill()
    gateway.start()
    assert gateway.command("queue", "undo", "1").returncode == 0
    assert gateway.command("queue", "undo").returncode == 0
    again = gateway.command("queue", "undo")
    assert (again.returncode, "nothing that can be undone" in again.stderr) == (1, True)
    sink = Sink(port)
    try:
        gateway.command("queue", "resume", f"smtp://127.0.0.1:{port}")
        assert wait_for(lambda: len(sink.messages) == 2)
    finally:
        sink.close()


def test_reroute_and_back_to_the_configuration(gateway: Running, port: int) -> None:
    other = free_port()
    id = send(gateway, "u@a.example", "v@b.example")
    assert told(gateway, "reroute", "--domain", "b.example", "--to", f"smtp://127.0.0.1:{other}")["recipients"] == 1
    sink = Sink(other)
    try:
        gateway.command("queue", "retry", "--id", id)
        assert wait_for(lambda: len(sink.messages) == 1)
        assert queued(gateway) == {id: ["u@a.example suspended"]}
    finally:
        sink.close()
    told(gateway, "reroute", "--id", id, "--to", f"smtp://127.0.0.1:{other}")
    assert told(gateway, "reroute", "--id", id, "--to", "config")["changed"] == 1
    assert queued(gateway) == {id: ["u@a.example suspended"]}
    wrong = gateway.command("queue", "reroute", "--id", id, "--to", "pigeon://x")
    assert (wrong.returncode, "--to: must be mx" in wrong.stderr) == (2, True)


def test_delete_now_and_priority_and_show(gateway: Running, port: int) -> None:
    ids = [send(gateway, "u@a.example", text="the first"), send(gateway, "v@a.example", text="the second")]
    told(gateway, "delete", "--id", ids[0], "--now")
    assert wait_for(lambda: list(queued(gateway)) == [ids[1]])
    assert gateway.events("deleted")[0]["recipient"] == "u@a.example"
    assert told(gateway, "priority", "7", "--id", ids[1])["changed"] == 1
    shown = gateway.command("queue", "show", ids[1])
    assert "priority: 7\n" in shown.stdout
    assert "Subject: a letter" in shown.stdout
    assert "the second" not in shown.stdout
    assert gateway.command("queue", "show", ids[1], "--content").stdout.endswith("the second\n")
    assert gateway.command("queue", "show", "NOTHING").returncode == 1
    row = told(gateway, "show", ids[1])
    assert (row["id"], row["priority"]) == (ids[1], 7)
    status = json.loads(gateway.command("status", "--json").stdout)["queue"]
    assert (status["deleted"], status["accepted"], status["queued"]) == (1, 2, 1)


@pytest.mark.parametrize(("option", "what"), [("--sender", "marc@*"), ("--client", "127.0.0.0/8")])
def test_mail_is_suspended_by_where_it_comes_from(gateway: Running, port: int, option: str, what: str) -> None:
    sink = Sink(port)
    try:
        done = gateway.command("queue", "suspend", option, what, "--for", "2h", "--reason", "a stolen password")
        assert "is suspended; ends in" in done.stdout
        gateway.command("queue", "resume", f"smtp://127.0.0.1:{port}")
        id = send(gateway, "u@a.example")
        assert wait_for(lambda: "a stolen password" in gateway.command("explain", id).stdout)
        assert f"tripost queue resume {option} {what}" in gateway.command("explain", id).stdout.replace("'", "")
        assert queued(gateway) == {id: ["u@a.example suspended"]}
        gateway.kill()
        gateway.start()
        assert what in gateway.command("queue", "suspensions").stdout
        assert sink.messages == []
        gateway.command("queue", "resume", option, what)
        assert wait_for(lambda: len(sink.messages) == 1)
    finally:
        sink.close()


def test_export_and_import(gateway: Running, port: int, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "out"
    small = send(gateway, "u@a.example", "v@b.example")
    large = send(gateway, "w@a.example", text="x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 3000)
    told(gateway, "priority", "4", "--id", small)
    done = gateway.command("queue", "export", "--domain", "a.example", str(folder))
    assert done.stdout.startswith("2 messages are in"), done.stderr
    again = gateway.command("queue", "export", "--domain", "a.example", str(folder))
    assert (again.returncode, "File exists" in again.stderr) == (1, True)
    contents = {id: gateway.command("queue", "show", id, "--content").stdout for id in (small, large)}
    assert (folder / f"{large}.eml").read_text() == contents[large]
    told(gateway, "delete", "--id", "*", "--now")
    assert wait_for(lambda: not queued(gateway))
    done = gateway.command("queue", "import", str(folder), "--json")
    rows = {row["file"]: row["id"] for row in map(json.loads, done.stdout.splitlines())}
    new = {id: rows[str(folder / f"{id}.json")] for id in (small, large)}
    assert queued(gateway) == {new[small]: ["u@a.example suspended"], new[large]: ["w@a.example suspended"]}
    assert [gateway.command("queue", "show", new[id], "--content").stdout for id in contents] == [*contents.values()]
    (folder / f"{small}.json").write_text('{"sender": "x"}')
    (folder / f"{large}.eml").unlink()
    wrong = gateway.command("queue", "import", str(folder))
    assert (wrong.returncode, wrong.stderr.count("\n"), "not understood" in wrong.stderr) == (1, 2, True)
    assert gateway.command("status").returncode == 0


def test_what_cannot_be_meant(gateway: Running) -> None:
    send(gateway, "u@a.example")
    for words, code, text in (
        (("priority", "12", "--id", "*"), 2, "from -9 to 9"),
        (("suspend",), 2, "say one"),
        (("suspend", "--client", "10.0.0.0/77"), 2, "neither an address nor a network"),
        (("resume", "--sender", "x@y"), 1, "sender x@y is not suspended"),
        (("undo", "99"), 1, "no action 99"),
        (("bounce", "--id", "*", "--reason", "x" * 2000), 2, "shorter than"),
        (("reroute", "--id", "*"), 2, "--to"),
    ):
        done = gateway.command("queue", *words)
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr
    assert len(queued(gateway)) == 1


def kill_in_the_middle(gateway: Running, verb: str, moment: float) -> tuple[int, list[str]]:
    """(messages that are as the action leaves them, states of the actions in the audit trail) after the restart."""

    def order() -> None:
        try:
            list(ask(str(gateway.folder / "state"), f"queue.{verb}", id="*"))
        except ControlError:
            pass  # it went away

    thread = threading.Thread(target=order)
    thread.start()
    time.sleep(moment)
    gateway.kill()
    thread.join()
    gateway.start()
    state = {"hold": "held", "delete": "ending"}[verb]
    count = json.loads(gateway.command("queue", "count", "--state", state, "--json").stdout)["messages"]
    return count, [str(row["state"]) for row in audit(gateway) if row["verb"] == verb]


def rounds(gateway: Running, messages: int, count: int) -> tuple[int, int]:
    """How often the action was there, and how often not."""
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
        for _ in range(messages):
            client.sendmail("marc@machin.com", ["u@a.example"], "Subject: x\r\n\r\nhi\r\n")
    there = absent = 0
    for n in range(count):
        verb = ("delete", "hold")[n % 2]
        changed, states = kill_in_the_middle(gateway, verb, random.random() * 0.1)
        left = [state for state in states if state != "undone"]
        assert (changed, len(left)) in ((0, 0), (messages, 1)), (n, verb, changed, states)
        there, absent = there + bool(left), absent + (not left)
        if left:
            assert gateway.command("queue", "undo").returncode == 0
    assert gateway.command("queue", "count", "--state", "suspended").stdout.startswith(f"{messages} messages")
    return there, absent


def test_kill_nine_in_the_middle_of_an_action(gateway: Running) -> None:
    """All of it, or nothing; and the audit trail says which."""
    rounds(gateway, 300, 4)


@pytest.mark.long
def test_kill_nine_in_the_middle_of_many_actions(gateway: Running) -> None:
    there, absent = rounds(gateway, 2000, 50)
    print(f"50 kills: {there} actions were there, {absent} were not")
    assert there
    assert absent
