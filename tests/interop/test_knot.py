"""a zone on Knot DNS: MX, null MX, CNAMEs, dead hosts, SERVFAIL; each answered as RFC 5321 §5 says"""

from __future__ import annotations

import json
import pathlib
import smtplib
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
import trio

from conftest import needs
from support.gateways import TOML, free_port, running, wait_for
from support.lab import lab
from support.queues import put
from tripost.delivery.fast_stream import connect_tcp
from tripost.delivery.links import Unroutable
from tripost.delivery.resolver import Resolver
from tripost.delivery.settings import DeliverySettings, Destination
from tripost.queue import events

ZONE = """\
$ORIGIN zone.test.
$TTL 60
@ SOA ns.zone.test. host.zone.test. 1 3600 600 86400 60
@ NS ns.zone.test.
ns A 127.0.0.1
good MX 10 mx.zone.test.
mx A 127.0.0.1
mx AAAA ::1
plain A 127.0.0.1
null MX 0 .
alias CNAME good.zone.test.
alone MX 10 mx.zone.test.
viacname MX 10 mxalias.zone.test.
mxalias CNAME mx.zone.test.
loop1 CNAME loop2.zone.test.
loop2 CNAME loop1.zone.test.
failover MX 10 dead.zone.test.
failover MX 20 mx.zone.test.
dead A 127.0.0.77
nohost MX 10 gone.zone.test.
noaddress MX 10 textonly.zone.test.
textonly TXT "nothing"
lonely TXT "neither MX nor A"
ours MX 10 smtp.truc.fr.
behind MX 10 smtp.truc.fr.
behind MX 20 mx.zone.test.
here MX 10 other-name.zone.test.
here MX 20 dead.zone.test.
other-name A 127.0.0.1
"""
CONF = """\
server:
    listen: 127.0.0.1@{port}
    rundir: {folder}
    pidfile: {folder}/knot.pid
database:
    storage: {folder}
log:
  - target: stderr
    any: error
zone:
  - domain: zone.test
    storage: {folder}
    file: zone.test.zone
  - domain: broken.test
    storage: {folder}
    file: missing.zone
"""


@pytest.fixture(scope="module")
def nameserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    needs("knotd", "knot")
    folder, port = tmp_path_factory.mktemp("knot"), free_port()
    (folder / "zone.test.zone").write_text(ZONE)
    (folder / "knot.conf").write_text(CONF.format(folder=folder, port=port))
    child = subprocess.Popen(["knotd", "-c", str(folder / "knot.conf")], stderr=subprocess.PIPE)

    def answers() -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    try:
        assert wait_for(answers), child.stderr
        yield f"127.0.0.1:{port}"
    finally:
        child.terminate()
        child.communicate(timeout=20)


@pytest.mark.parametrize(
    ("domain", "answer"),
    [
        ("good.zone.test", ("mx.zone.test",)),
        ("plain.zone.test", ("plain.zone.test",)),
        ("alias.zone.test", ("mx.zone.test",)),
        ("failover.zone.test", ("dead.zone.test", "mx.zone.test")),
        ("null.zone.test", "5.1.10"),
        ("nobody.zone.test", "5.1.2"),
        ("ours.zone.test", "5.4.6"),
        ("behind.zone.test", "5.4.6"),
        ("broken.test", "4.4.3"),
        ("loop1.zone.test", "4.4.3"),
    ],
)
async def test_answers(nameserver: str, domain: str, answer: tuple[str, ...] | str) -> None:
    resolver = Resolver([nameserver], "smtp.truc.fr")
    if isinstance(answer, tuple):
        assert (await resolver.mx(domain)).names == answer
        return
    with pytest.raises(Unroutable) as info:
        await resolver.mx(domain)
    assert info.value.enhanced == answer
    if domain == "broken.test":
        assert "SERVFAIL" in info.value.text


@pytest.mark.parametrize(
    ("domain", "kind", "reason"),
    [
        ("good.zone.test", events.Relayed, ""),
        ("plain.zone.test", events.Relayed, ""),
        ("alias.zone.test", events.Relayed, ""),
        ("viacname.zone.test", events.Relayed, ""),
        ("failover.zone.test", events.Relayed, ""),
        ("null.zone.test", events.Bounced, "550 5.1.10"),
        ("nobody.zone.test", events.Bounced, "550 5.1.2"),
        ("nohost.zone.test", events.Bounced, "550 5.4.4"),
        ("noaddress.zone.test", events.Bounced, "550 5.4.4"),
        ("lonely.zone.test", events.Bounced, "550 5.4.4"),
        ("ours.zone.test", events.Bounced, "550 5.4.6"),
        ("broken.test", events.BackedOff, "451 4.4.3"),
    ],
)
async def test_what_becomes_of_a_message(
    nameserver: str, tmp_path: pathlib.Path, domain: str, kind: type[events.Event], reason: str
) -> None:
    resolver = Resolver([nameserver], "smtp.truc.fr")
    settings = DeliverySettings(hostname="smtp.truc.fr", port=1, default=Destination(connect_timeout=2.0))
    async with lab(tmp_path, delivery=settings, resolver=resolver) as one:

        async def connect(address: str, port: int, source: str = "") -> trio.abc.Stream:
            if address == "127.0.0.77":
                return await connect_tcp(address, 1)  # nobody listens there
            return await one.peer.connect(address, port)

        one.connect = connect
        await put(one.queue, "m", f"mx:{domain}", accepted=one.clock.now())
        with trio.fail_after(20):
            while not one.events(kind):  # noqa: ASYNC110 - asks from outside
                await trio.sleep(0.01)
        (row,) = one.events(kind)
        assert getattr(row, "reply", "").startswith(reason)
        if domain == "failover.zone.test":
            assert row.host == "mx.zone.test"
            assert one.events(events.Unreachable)[0].host == "dead.zone.test"


def test_our_own_address_by_another_name(nameserver: str, tmp_path: pathlib.Path) -> None:
    more = f'[delivery]\nport = {{smtp}}\n[dns]\nnameservers = ["{nameserver}"]\n'
    with running(tmp_path, toml=TOML + more) as gateway:
        with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
            client.sendmail("marc@machin.com", ["u@here.zone.test"], b"Subject: x\r\n\r\nx\r\n")
        (failed,) = wait_for(lambda: gateway.events("failed")) or [{}]
        assert failed["reply"] == "550 5.4.6 mail for here.zone.test would come back to this host"
        assert not gateway.events("opened")


def test_domains_of_one_host_are_shown_as_one_site(nameserver: str, tmp_path: pathlib.Path) -> None:
    more = (
        f'[dns]\nnameservers = ["{nameserver}"]\n[delivery]\nport = {free_port()}\n'
        '[delivery.destination."alone.zone.test"]\nrollup = false\n'
    )
    with running(tmp_path, more) as gateway:
        with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
            for domain in ("good", "alias", "alone"):
                client.sendmail("marc@machin.com", [f"u@{domain}.zone.test"], b"Subject: x\r\n\r\nx\r\n")

        def sites() -> dict[str, str]:
            rows = [json.loads(line) for line in gateway.command("queue", "summary", "--json").stdout.splitlines()]
            return {row["next_hop"]: row["site"] for row in rows if row.get("site")}

        assert wait_for(lambda: len(sites()) == 3)
        assert sites() == {
            "mx:good.zone.test": "mx.zone.test",
            "mx:alias.zone.test": "mx.zone.test",
            "mx:alone.zone.test": "mx:alone.zone.test",
        }
        assert "    site:    mx.zone.test" in gateway.command("explain", "@good.zone.test").stdout


def test_null_mx_is_told_at_once(nameserver: str, tmp_path: pathlib.Path) -> None:
    """RFC 7505 §4: at RCPT, and of a stranger's sender at MAIL."""
    more = f'[dns]\nnameservers = ["{nameserver}"]\n[delivery]\nport = {free_port()}\n'
    with running(tmp_path, more) as gateway, smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
        client.ehlo()
        assert client.mail("marc@machin.com")[0] == 250
        assert client.rcpt("u@null.zone.test") == (556, b"5.1.10 that domain takes no mail (null MX)")
        assert client.rcpt("u@good.zone.test")[0] == 250
        client.rset()
        assert client.mail("u@null.zone.test")[0] == 250  # whoever may relay has reasons
    with running(tmp_path, more + "[relay]\nnetworks = []\n") as gateway:
        with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
            client.ehlo()
            code, text = client.mail("u@null.zone.test")
            assert (code, text[:6]) == (550, b"5.7.27")
            assert client.mail("u@good.zone.test")[0] == 250


def test_a_client_does_not_wait_for_dns(tmp_path: pathlib.Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        more = f'[dns]\nnameservers = ["127.0.0.1:{silent.getsockname()[1]}"]\n'
        with running(tmp_path, more) as gateway, smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
            client.ehlo()
            client.mail("marc@machin.com")
            began = time.monotonic()
            assert {client.rcpt(f"u@d{number}.example")[0] for number in range(50)} == {250}
            assert 0.9 < time.monotonic() - began < 5
