"""a gateway takes another configuration while it runs: all of it, or nothing"""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from support.gateways import Running, free_port, running, wait_for
from support.processes import running as several
from support.processes import toml


@pytest.fixture
def gateway(tmp_path: pathlib.Path) -> Iterator[Running]:
    with running(tmp_path) as one:
        yield one


@pytest.fixture(params=[1, 3])
def either(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Running]:
    """In one process or more: it is the same."""
    with several(tmp_path, toml=toml(request.param)) as one:
        yield one


def reload(gateway: Running, text: str = "", code: int = 0) -> dict[str, Any]:
    """With that text as its file."""
    if text:
        gateway.file.write_text(text)
    done = gateway.command("reload", "--json")
    assert done.returncode == code, done.stderr
    return dict(json.loads(done.stdout)) if not code else {"said": done.stderr}


def rcpt(port: int, address: str) -> int:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo()
        client.mail("fred@truc.fr")
        return client.rcpt(address)[0]


def takes(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as one:
        return one.recv(4) == b"220 "
    return False


def test_routes_limits_and_aliases(either: Running) -> None:
    gateway = either
    text = gateway.file.read_text()
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as before:
        before.ehlo()
        before.mail("fred@truc.fr")
        assert before.rcpt("sales@machin.com")[0] == 550
        done = reload(
            gateway,
            text.replace("[lifecycle]", '[local.aliases]\n"sales@machin.com" = ["marc@machin.com"]\n[lifecycle]')
            + '[limits]\nmessage_size = "1KiB"\n[[route]]\ndomain = "gone.example"\nto = "reject"\n',
        )
        route = [f"route[1].{key}" for key in ("domain", "sender", "to", "auth_file", "tls", "source")]
        assert sorted(done["changed"]) == sorted(["local.aliases.sales@machin.com", "limits.message_size", *route])
        assert done["restart"] == []
        assert before.rcpt("sales@machin.com")[0] == 250  # routing holds at once, for sessions that run as well
        assert before.data(b"x" * 2000)[0] == 250  # the limits are those with which it began
    assert rcpt(gateway.smtp, "u@gone.example") == 550
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as after:
        assert after.ehlo()[0] == 250
        assert after.esmtp_features["size"] == "1024"
    assert json.loads(gateway.command("config", "diff", "--json").stdout)["same"] is True
    assert wait_for(lambda: gateway.events("reloaded"))[0]["changed"] == done["changed"]


def test_all_or_nothing(either: Running) -> None:
    """Good parts of a bad file are not taken either; what cannot be bound is part of it."""
    gateway = either
    text = gateway.file.read_text()
    alias = '[local.aliases]\n"sales@machin.com" = ["marc@machin.com"]\n'
    said = reload(gateway, f"{text}{alias}[limits]\nerors = 3\n", code=2)["said"]
    assert f"{gateway.file}:{text.count(chr(10)) + 4}:1: limits.erors: unknown key" in said
    (gateway.folder / "c.pem").write_text("x")
    said = reload(gateway, f'{text}{alias}[tls]\ncertificate = "c.pem"\nkey = "c.pem"\n', code=2)["said"]
    assert "tls.certificate: " in said
    assert "nothing was changed" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, other = taken.getsockname()[1], free_port()
        more = "".join(f'[[listen]]\nservice = "smtp"\naddress = "127.0.0.1:{one}"\n' for one in (other, port))
        said = reload(gateway, f"{text}{alias}{more}", code=2)["said"]
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in said
        assert not takes(other)
    assert rcpt(gateway.smtp, "sales@machin.com") == 550
    assert [one["where"] for one in gateway.events("trouble")] == ["reload"] * 2
    gateway.file.unlink()
    gateway.child.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    assert wait_for(lambda: len(gateway.events("trouble")) == 3)
    assert takes(gateway.smtp)
    gateway.file.write_text(text)


def test_listeners_come_and_go(either: Running) -> None:
    gateway = either
    text, port = gateway.file.read_text(), free_port()
    more = f'[[listen]]\nservice = "lmtp"\naddress = "127.0.0.1:{port}"\n'
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as running_on:
        reload(gateway, text.replace(f'service = "smtp"\naddress = "127.0.0.1:{gateway.smtp}"', more.split("\n", 1)[1]))
        assert not takes(gateway.smtp)
        assert takes(port)
        assert running_on.noop()[0] == 250
    assert json.loads(gateway.command("status", "--json").stdout)["listeners"]["lmtp"] == [f"127.0.0.1:{port}"]
    reload(gateway, text + more)
    assert takes(gateway.smtp)
    assert takes(port)


def test_certificates(either: Running) -> None:
    """And a listener that has none becomes one with STARTTLS."""
    gateway = either
    authority = trustme.CA()
    text = gateway.file.read_text()

    def keep(name: str) -> None:
        made = authority.issue_cert(name)
        made.private_key_pem.write_to_path(gateway.folder / "k.pem")
        made.cert_chain_pems[0].write_to_path(gateway.folder / "c.pem")

    def name_of() -> str:
        context = ssl.create_default_context(cafile=str(gateway.folder / "ca.pem"))
        context.check_hostname = False
        with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
            client.starttls(context=context)
            assert isinstance(client.sock, ssl.SSLSocket)
            return str(client.sock.getpeercert()["subjectAltName"][0][1])  # type: ignore[index]

    authority.cert_pem.write_to_path(gateway.folder / "ca.pem")
    keep("a.example")
    reload(gateway, text + '[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n')
    assert name_of() == "a.example"
    keep("b.example")
    assert reload(gateway)["changed"] == []
    assert name_of() == "b.example"
    reload(gateway, text)
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
        client.ehlo()
        assert not client.has_extn("starttls")


def test_what_needs_a_restart_is_named(gateway: Running) -> None:
    text = gateway.file.read_text()
    wanted = text.replace("smtp.machin.com", "mx.machin.com").replace('drain = "3s"', 'drain = "4s"')
    done = reload(gateway, wanted.replace('min_free = "1MiB"', 'min_free = "2MiB"'))
    assert (done["changed"], done["restart"]) == (["lifecycle.drain"], ["hostname", "spool.min_free"])
    diff = json.loads(gateway.command("config", "diff", "--json").stdout)
    assert [one["key"] for one in diff["differences"]] == ["hostname", "spool.min_free"]
    assert gateway.command("config", "diff").returncode == 1


def test_retry_and_destinations(tmp_path: pathlib.Path) -> None:
    """A destination that refuses is tried sooner, and with other terms, without a restart."""
    port = free_port()
    extra = f'[[route]]\ndomain = "*"\nto = "smtp://127.0.0.1:{port}"\n[retry]\nexpire = "5d"\n'
    with running(tmp_path, extra + '[delivery.default]\nprobe_first = "1h"\nprobe_longest = "2h"\n') as gateway:
        with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
            client.sendmail("fred@truc.fr", ["u@far.example"], b"Subject: x\r\n\r\nx\r\n")
        assert wait_for(lambda: gateway.events("backoff"))
        text = gateway.file.read_text()
        done = reload(gateway, text.replace('"1h"', '"1s"').replace('"2h"', '"1s"').replace('"5d"', '"1s"'))
        assert done["restart"] == []
        gateway.command("queue", "retry", "--id", "*")
        assert wait_for(lambda: len(gateway.events("backoff")) > 2), gateway.events()


def test_status_and_drain(gateway: Running) -> None:
    found = json.loads(gateway.command("status", "--json").stdout)
    assert (found["state"], found["ready"], found["why"]) == ("serving", True, "")
    client = smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20)
    client.ehlo()
    client.mail("fred@truc.fr")
    client.rcpt("marc@machin.com")
    assert client.docmd("DATA")[0] == 354
    said = gateway.command("drain", "--no-wait")
    assert said.stdout == "ends within 3 s\n"
    assert wait_for(lambda: not takes(gateway.smtp))
    found = json.loads(gateway.command("status", "--json").stdout)
    assert (found["state"], found["ready"], found["why"]) == ("draining", False, "draining")
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
    assert client.getreply()[0] == 250
    client.close()  # it was told 421 and ended
    done = gateway.command("drain")
    assert (done.returncode, done.stdout) in ((0, "ended\n"), (3, ""))
    assert gateway.child is not None
    assert gateway.child.wait(20) == 0
    assert [one["reason"].split(" by ")[0] for one in gateway.events("stopping")] == ["drain"]
    assert gateway.command("status").returncode == 3
    assert gateway.command("reload").returncode == 3


def test_reloads_under_load(gateway: Running) -> None:
    reloads_under_load(gateway, 8)


@pytest.mark.long
@pytest.mark.parametrize("processes", [2, 3])
def test_reloads_of_several_processes_under_load(tmp_path: pathlib.Path, processes: int) -> None:
    with several(tmp_path, toml=toml(processes)) as gateway:
        reloads_under_load(gateway, 20)


def reloads_under_load(gateway: Running, reloads: int) -> None:
    """Nobody is refused a connection, no message is refused or lost."""
    text = gateway.file.read_text()
    wrong: list[str] = []
    sent = [0] * 4
    over = threading.Event()

    def send(number: int) -> None:
        while not over.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
                    for _ in range(5):
                        client.sendmail("fred@truc.fr", ["marc@machin.com"], b"Subject: x\r\n\r\nx\r\n")
                        sent[number] += 1
            except (OSError, smtplib.SMTPException) as problem:
                wrong.append(repr(problem))

    senders = [threading.Thread(target=send, args=(number,)) for number in range(len(sent))]
    for one in senders:
        one.start()
    try:
        for number in range(reloads):
            reload(gateway, text + f"[limits]\nerrors = {number + 5}\n")
            time.sleep(0.02)
    finally:
        over.set()
        for one in senders:
            one.join(30)
    assert wrong == []
    assert len(gateway.events("reloaded")) == reloads
    new = gateway.folder / "state" / "mail"
    assert wait_for(lambda: sum(1 for one in new.rglob("new/*") if one.is_file()) == sum(sent)), sent
