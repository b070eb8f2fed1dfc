"""OpenSMTPD on loopback, sending all it takes to us

Its spool, socket and user names are compiled in, and it asks the name service about each client: it runs in a mount
namespace of its own, with a small /etc, and leaves nothing behind.
"""

from __future__ import annotations

import pathlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from support.gateways import free_port, wait_for
from support.relays import answers, needs_root

CONF = """\
pki ours cert "{certificate}"
pki ours key "{key}"
listen on 127.0.0.1 port {port} tls pki ours hostname relay.test
action us relay host smtp://127.0.0.1:{us}
match from any for any action us
"""
USERS = {"opensmtpd": 65_001, "opensmtpq": 65_002}
ETC = {
    "hosts": "127.0.0.1 localhost relay.test\n",
    "resolv.conf": "lookup file\n",
    "mailname": "relay.test\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
PRIVATE = """
mount --bind "$1/etc" /etc
for place in /var/lib /var/spool /run; do mount -t tmpfs -o mode=755 tmpfs $place; done
mkdir -p -m 755 /var/lib/opensmtpd/empty
mkdir -m 711 /var/spool/smtpd
cd /var/spool/smtpd
mkdir -m 700 purge temporary incoming queue corrupt
mkdir -m 770 offline
chown opensmtpq purge temporary incoming queue corrupt
chgrp opensmtpq offline
exec smtpd -d -f "$1/smtpd.conf"
"""


def _etc(folder: pathlib.Path) -> None:
    folder.mkdir()
    for name, text in ETC.items():
        (folder / name).write_text(text)
    for name, form in (("passwd", "{0}:x:{1}:{1}::/nonexistent:/usr/sbin/nologin\n"), ("group", "{0}:x:{1}:\n")):
        others = [
            line
            for line in pathlib.Path("/etc", name).read_text().splitlines(keepends=True)
            if line.partition(":")[0] not in USERS
        ]
        (folder / name).write_text("".join([*others, *(form.format(*one) for one in USERS.items())]))


@contextmanager
def opensmtpd(us: int, certificate: str, key: str) -> Iterator[tuple[int, Callable[[], str]]]:
    """All goes to port `us`, in plain text. The port at which it takes mail for anyone, and its log."""
    needs_root()
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare --mount is not allowed here")
    folder, port = pathlib.Path(tempfile.mkdtemp(prefix="opensmtpd-")), free_port()
    folder.chmod(0o755)
    _etc(folder / "etc")
    (folder / "smtpd.conf").write_text(CONF.format(port=port, us=us, certificate=certificate, key=key))
    (folder / "smtpd.conf").chmod(0o600)
    with (folder / "log").open("wb") as log:
        command = ["unshare", "--mount", "sh", "-ec", PRIVATE, "-", str(folder)]
        child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        assert wait_for(lambda: answers(port)), (folder / "log").read_text()
        yield port, (folder / "log").read_text
    finally:
        print((folder / "log").read_text())  # shown when the test fails
        child.send_signal(signal.SIGTERM)
        child.wait(20)
        shutil.rmtree(folder, ignore_errors=True)
