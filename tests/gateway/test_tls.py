"""certificates, handshakes, and clients that want none"""

from __future__ import annotations

import os
import pathlib
import ssl

import pytest
import trio
import trustme
from trio.testing import memory_stream_pair

from tripost.gateway.tls import Certificates, HandshakeFailed, Pair, TlsError, self_signed, start_tls


def write(ca: trustme.CA, folder: pathlib.Path, name: str) -> Pair:
    made = ca.issue_cert(name)
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    made.private_key_pem.write_to_path(key)
    certificate.write_bytes(b"".join(one.bytes() for one in made.cert_chain_pems))
    return Pair(str(certificate), str(key), (name,))


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


class Talk:
    """One handshake; what either side saw of it."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.facts: list[object] = []

    async def run(
        self, server: ssl.SSLContext, client: ssl.SSLContext, name: str, session: object = None
    ) -> ssl.SSLSession:
        ours, theirs = memory_stream_pair()
        secure = trio.SSLStream(ours, client, server_hostname=name, https_compatible=True)
        if session is not None:
            secure.session = session

        async def serve() -> None:
            stream, facts = await start_tls(theirs, server)
            self.facts.append(facts)
            await stream.send_all(b"hello")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            assert await secure.receive_some() == b"hello"
            self.names.append(dict(secure.getpeercert()["subjectAltName"])["DNS"])
        return secure.session  # type: ignore[no-any-return]


async def test_names_and_resumption(tmp_path: pathlib.Path) -> None:
    ca = trustme.CA()
    pairs = [write(ca, tmp_path, name) for name in ("smtp.machin.com", "mail.truc.fr")]
    certificates = Certificates(pairs[0], pairs[1:])
    talk, client = Talk(), trusting(ca)
    session = await talk.run(certificates.context, client, "smtp.machin.com")
    await talk.run(certificates.context, client, "mail.truc.fr")
    await talk.run(certificates.context, client, "smtp.machin.com", session)
    assert talk.names == ["smtp.machin.com", "mail.truc.fr", "smtp.machin.com"]
    assert [(one.version, one.bits, one.resumed) for one in talk.facts] == [  # type: ignore[attr-defined]
        ("TLSv1.3", 256, False),
        ("TLSv1.3", 256, False),
        ("TLSv1.3", 256, True),
    ]


async def test_the_minimum_is_kept(tmp_path: pathlib.Path) -> None:
    ca = trustme.CA()
    pair = write(ca, tmp_path, "smtp.machin.com")
    client = trusting(ca)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    talk = Talk()
    await talk.run(Certificates(pair).context, client, "smtp.machin.com")
    ours, theirs = memory_stream_pair()
    secure = trio.SSLStream(ours, client, server_hostname="smtp.machin.com", https_compatible=True)
    async with trio.open_nursery() as nursery:

        async def refused() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await secure.do_handshake()

        nursery.start_soon(refused)
        with pytest.raises(HandshakeFailed, match="PROTOCOL"):
            await start_tls(theirs, Certificates(pair, minimum="1.3").context)


async def test_reload_when_a_file_changes_and_only_when_it_is_good(tmp_path: pathlib.Path) -> None:
    ca = trustme.CA()
    pair = write(ca, tmp_path, "smtp.machin.com")
    certificates = Certificates(pair)
    before = certificates.context
    assert not certificates.refresh()
    assert certificates.context is before
    write(ca, tmp_path, "smtp.machin.com")
    assert certificates.refresh()
    assert certificates.context is not before
    good = certificates.context
    pathlib.Path(pair.key).write_text("nonsense")
    with pytest.raises(TlsError, match=r"smtp\.machin\.com\.key"):
        certificates.refresh()
    assert certificates.context is good
    pathlib.Path(pair.key).unlink()
    with pytest.raises(TlsError, match="No such file"):
        certificates.reload()
    with pytest.raises(TlsError, match="No such file"):
        Certificates(pair)


async def test_self_signed_is_made_once_and_anew_for_another_name(tmp_path: pathlib.Path) -> None:
    pair = self_signed(str(tmp_path / "tls"), "smtp.machin.com")
    text = pathlib.Path(pair.certificate).read_text()
    assert os.stat(pair.key).st_mode & 0o777 == 0o600
    assert self_signed(str(tmp_path / "tls"), "smtp.machin.com") == pair
    assert pathlib.Path(pair.certificate).read_text() == text
    client = ssl.create_default_context(cafile=pair.certificate)
    await Talk().run(Certificates(pair).context, client, "smtp.machin.com")
    self_signed(str(tmp_path / "tls"), "other.example")
    assert pathlib.Path(pair.certificate).read_text() != text
    (tmp_path / "file").write_text("")
    with pytest.raises(TlsError):
        self_signed(str(tmp_path / "file" / "tls"), "x.example")


async def test_a_silent_client_and_a_plain_one(tmp_path: pathlib.Path, autojump_clock: object) -> None:
    context = Certificates(self_signed(str(tmp_path), "x.example")).context
    ours, theirs = memory_stream_pair()
    with pytest.raises(HandshakeFailed, match="no handshake within 30 s"):
        await start_tls(theirs, context)
    assert await ours.receive_some() == b""
    ours, theirs = memory_stream_pair()
    await ours.send_all(b"EHLO x\r\n")
    with pytest.raises(HandshakeFailed):
        await start_tls(theirs, context)
    ours, theirs = memory_stream_pair()
    await ours.aclose()
    with pytest.raises(HandshakeFailed):
        await start_tls(theirs, context)
