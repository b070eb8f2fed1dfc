"""TLS for those who connect to us

API      `Certificates(default, names, minimum)` builds the server's contexts once;
         `.context` is the one to use now, `.refresh()` builds anew when a file has
         changed, `.reload()` in any case. `start_tls(stream, context, seconds=…)`
         makes the handshake and gives `(SSLStream, TlsFacts)`. `self_signed(folder,
         hostname)` makes a certificate where none is configured.
Promise  One context for all connections, so that sessions are resumed by ticket.
         A failed reload leaves the old certificates in force. The handshake ends
         within its deadline; a client that only waits costs its own task.
Owner    Whoever upgrades drops, before calling `start_tls`, everything that was
         read in plain text (RFC 3207 §4.2, RFC 2595 §4): what a stranger put
         behind STARTTLS must not count as said under TLS. State learnt before the
         handshake is forgotten too.
Fails    `TlsError` for files that do not fit; `HandshakeFailed` with a reason, the
         stream is closed then.
"""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Sequence

import msgspec
import trio

from tripost.gateway.peer import TlsFacts

HANDSHAKE = 30.0  # seconds
SELF_SIGNED_DAYS = 397
RENEW_BEFORE_DAYS = 30


class TlsError(Exception):
    """Certificate or key cannot be used; the text names the file."""


class HandshakeFailed(Exception):
    """No TLS with this client; the text says why."""


class Pair(msgspec.Struct, frozen=True):
    """A certificate chain and its key, PEM files; `names` that it is for, `*.x` for every name one below x."""

    certificate: str
    key: str
    names: tuple[str, ...] = ()


class Certificates:
    """The contexts of one gateway. Raises TlsError."""

    def __init__(self, default: Pair, more: Sequence[Pair] = (), minimum: str = "1.2") -> None:
        self._pairs = (default, *more)
        self._minimum = ssl.TLSVersion.TLSv1_3 if minimum == "1.3" else ssl.TLSVersion.TLSv1_2
        self._stamps = self._look()
        self.context = self._build()

    def reload(self) -> None:
        """Read the files again. Raises TlsError, the old ones stay in force then."""
        stamps = self._look()
        self.context = self._build()
        self._stamps = stamps

    def refresh(self) -> bool:
        """`reload` when a file has changed; True when it did. Raises TlsError."""
        if self._look() == self._stamps:
            return False
        self.reload()
        return True

    def _look(self) -> list[tuple[int, int, int]]:
        found: list[tuple[int, int, int]] = []
        for path in (path for pair in self._pairs for path in (pair.certificate, pair.key)):
            try:
                one = os.stat(path)
            except OSError as wrong:
                raise TlsError(f"{path}: {wrong.strerror}") from wrong
            found.append((one.st_mtime_ns, one.st_size, one.st_ino))
        return found

    def _build(self) -> ssl.SSLContext:
        default = self._one(self._pairs[0])
        by_name = {name.lower(): self._one(pair) for pair in self._pairs[1:] for name in pair.names}
        if by_name:

            def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
                wanted = (name or "").lower()
                found = by_name.get(wanted) or by_name.get(f"*.{wanted.partition('.')[2]}")
                if found is not None:
                    connection.context = found

            default.sni_callback = choose
        return default

    def _one(self, pair: Pair) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        try:
            context.load_cert_chain(pair.certificate, pair.key, password=_no_password)
        except (OSError, ValueError) as wrong:  # SSLError is an OSError
            why = getattr(wrong, "reason", "") or getattr(wrong, "strerror", "") or str(wrong)
            raise TlsError(f"{pair.certificate} with {pair.key}: {why}") from wrong
        return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; a server has nobody to ask for its password")


async def start_tls(
    stream: trio.abc.Stream, context: ssl.SSLContext, *, seconds: float = HANDSHAKE
) -> tuple[trio.SSLStream[trio.abc.Stream], TlsFacts]:
    """The server's handshake on a stream from which nothing more may be pending. Raises HandshakeFailed."""
    secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
    why = f"no handshake within {seconds:g} s"
    with trio.move_on_after(seconds):
        try:
            await secured.do_handshake()
        except trio.BrokenResourceError as wrong:
            cause = wrong.__cause__
            why = getattr(cause, "reason", None) or str(cause or wrong) or "the client went away"
        except trio.ClosedResourceError:
            why = "the connection was closed"
        else:
            return secured, _facts(secured)
    await trio.aclose_forcefully(stream)
    raise HandshakeFailed(why)


def _facts(secured: trio.SSLStream[trio.abc.Stream]) -> TlsFacts:
    name, _, bits = secured.cipher() or ("", "", 0)
    return TlsFacts(secured.version() or "", name, bits or 0, bool(secured.session_reused))


# --- files ---


def self_signed(folder: str, hostname: str) -> Pair:
    """A certificate of our own for `hostname` in `folder`, made when missing, soon over, or for another name.

    It gives encryption, not identity: peers that verify will refuse it. Raises TlsError."""
    pair = Pair(os.path.join(folder, "self-signed.pem"), os.path.join(folder, "self-signed.key"))
    try:
        if not _good_for(pair.certificate, hostname) or not os.path.exists(pair.key):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            certificate, key = _make(hostname)
            _write(pair.key, key)
            _write(pair.certificate, certificate)
    except OSError as wrong:
        raise TlsError(f"{folder}: {wrong.strerror}") from wrong
    return pair


def _good_for(path: str, hostname: str) -> bool:
    from cryptography import x509

    try:
        with open(path, "rb") as file:
            found = x509.load_pem_x509_certificate(file.read())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return False
    left = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return hostname in names.get_values_for_type(x509.DNSName) and left.days >= RENEW_BEFORE_DAYS


def _make(hostname: str) -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hostname[:64])])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    return made.public_bytes(pem), key.private_bytes(pem, *form)


def _write(path: str, data: bytes) -> None:
    new = f"{path}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    os.replace(new, path)
