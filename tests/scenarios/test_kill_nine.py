"""a 250 survives kill -9: the destination is down, the gateway is killed, all arrive"""

from __future__ import annotations

import pathlib
import re
import smtplib

import pytest

from support.gateways import free_port, running, wait_for
from support.sinks import Sink

EXTRA = """\
[[route]]
domain = "far.example"
to = "smtp://127.0.0.1:{port}"
[delivery.default]
probe_first = "200ms"
probe_longest = "400ms"
"""


@pytest.mark.parametrize("count", [1, 1000])
def test_accepted_mail_survives_kill_nine(tmp_path: pathlib.Path, count: int) -> None:
    port = free_port()
    extra = EXTRA.format(port=port)
    with running(tmp_path, extra) as gateway:
        with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
            for n in range(count):
                client.sendmail("fred@truc.fr", [f"u{n}@far.example"], f"Subject: n{n}\r\n\r\nbody {n}\r\n")
            gateway.kill()  # the last 250 has just been read
        sink = Sink(port)
        try:
            gateway.start()
            wait_for(lambda: len(sink.messages) >= count, 60)
            found = {int(n) for one in sink.messages for n in re.findall(rb"Subject: n(\d+)", one)}
        finally:
            sink.close()
    assert found == set(range(count))
    assert len(sink.messages) == count
