"""a disk that is full or broken: the client is told, nothing is lost, nothing refused is delivered, and mail flows
again by itself"""

from __future__ import annotations

import collections
import errno
import pathlib
import re
import smtplib
import threading
import time
import urllib.error
import urllib.request

import pytest

from conftest import needs
from support.faults import Disk, below
from support.gateways import TOML, Running, running, wait_for

ENOSPC, EIO = errno.ENOSPC, errno.EIO
CLIENTS = 4
SMALL_INLINE = TOML.replace("[spool]", '[spool]\ninline = "4KiB"')
FAULTS = {
    "no room to write": ([f"pwrite {ENOSPC}"], {452}),
    "no room to write, for a new segment or anything": ([f"pwrite {ENOSPC}", f"create {ENOSPC}"], {452}),
    "no room that only the sync finds": ([f"sync {ENOSPC}"], {452, 421}),
    "writes fail": ([f"pwrite {EIO}"], {451, 421}),
    "syncs fail": ([f"sync {EIO}"], {451, 421}),
    "bodies cannot be made": ([f"create {ENOSPC} bodies"], {452}),
    "bodies cannot be synced": ([f"sync {EIO} bodies"], {451}),
}


class Load:
    """Clients that send small and large messages without a pause; `replies`: message number → code, 0 for none."""

    def __init__(self, port: int) -> None:
        self.replies: dict[int, int] = {}
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _send(self, which: int) -> None:
        number = which
        client: smtplib.SMTP | None = None
        while not self._stop.is_set():
            try:
                if client is None:
                    client = smtplib.SMTP("127.0.0.1", self._port, timeout=20)
                client.ehlo_or_helo_if_needed()
                client.mail("fred@truc.fr")
                client.rcpt("marc@machin.com")
                self.replies[number] = 0
                text = "x" * 70 + "\r\n"
                body = f"Subject: n{number}\r\n\r\n" + text * (1 if number // CLIENTS % 3 else 300)
                self.replies[number], _ = client.data(body)
                time.sleep(0.002)
            except smtplib.SMTPResponseException as wrong:  # the greeting or DATA's first reply
                self.replies[number] = wrong.smtp_code
                client = self._pause(client)
            except (OSError, smtplib.SMTPException):
                client = self._pause(client)
            number += CLIENTS
        self._pause(client)

    def _pause(self, client: smtplib.SMTP | None) -> None:
        if client is not None:
            client.close()
        time.sleep(0.05)

    def codes(self) -> collections.Counter[int]:
        return collections.Counter(self.replies.copy().values())

    def more(self, code: int, count: int) -> bool:
        """Wait until `count` more messages got that reply."""
        goal = self.codes()[code] + count
        return bool(wait_for(lambda: self.codes()[code] >= goal, 30))

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def delivered(gateway: Running) -> collections.Counter[int]:
    """Messages in Marc's mailbox by number."""
    box = gateway.folder / "state" / "mail" / "marc@machin.com"
    found: collections.Counter[int] = collections.Counter()
    for path in [*box.glob("new/*"), *box.glob("cur/*")]:
        match = re.search(rb"^Subject: n(\d+)", path.read_bytes(), re.MULTILINE)
        assert match is not None
        found[int(match[1])] += 1
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_fails(tmp_path: pathlib.Path, fault: str) -> None:
    needs("gcc")
    lines, wanted = FAULTS[fault]
    disk = Disk(tmp_path)
    with below(disk), running(tmp_path, toml=SMALL_INLINE) as gateway:
        load = Load(gateway.smtp)
        try:
            assert load.more(250, 30)
            disk.fail(*lines)
            assert wait_for(lambda: wanted & set(load.codes()), 20), load.codes()
            time.sleep(0.3)
            disk.heal()
            assert load.more(250, 30), "service did not resume by itself"
        finally:
            load.stop()
        accepted = {number for number, code in load.replies.items() if code == 250}
        silent = {number for number, code in load.replies.items() if code == 0}
        wait_for(lambda: accepted <= set(delivered(gateway)), 30)
        gateway.kill()
        assert gateway.command("queue", "verify", "--offline").returncode == 0
        gateway.start()  # what the fault left behind must stay dead
        time.sleep(0.5)
        found = delivered(gateway)
    print(fault, dict(load.codes()), "lost:", len(accepted - set(found)))
    assert accepted - set(found) == set()
    assert set(found) - accepted - silent == set(), "refused and delivered"
    assert set(found.values()) == {1}


def test_a_full_disk_is_not_ready(tmp_path: pathlib.Path) -> None:
    """Nobody should send mail to where it is put off; nothing is lost, and a reload or room brings it back."""
    with running(tmp_path, toml=TOML.replace('"1MiB"', '"900TiB"')) as gateway:
        with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client, pytest.raises(smtplib.SMTPDataError):
            client.sendmail("fred@truc.fr", ["marc@machin.com"], b"Subject: x\r\n\r\nx\r\n")
        said = gateway.command("status").stdout
        assert "serving, NOT READY: less than [spool] min_free" in said
        assert "takes mail" not in said
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"http://127.0.0.1:{gateway.monitor}/readyz", timeout=20)
