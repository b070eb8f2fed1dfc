"""a gateway that cannot take all that come: who is told so, and that it goes by"""

from __future__ import annotations

import os
import pathlib
import signal
import smtplib
import socket
import time
from collections import Counter

import pytest

from support.gateways import wait_for
from support.processes import roles, running, toml

COUNT = 400


@pytest.mark.parametrize("processes", [2, pytest.param(1, marks=pytest.mark.long)])
def test_a_standing_queue_is_shed_and_told(tmp_path: pathlib.Path, processes: int) -> None:
    with running(tmp_path, '[limits]\nlag = "1ms"\n', toml=toml(processes)) as gateway:
        found = roles(gateway)
        takers = found.get("ingress", found["supervisor"])
        assert len(takers) == processes
        for pid in takers:
            os.kill(pid, signal.SIGSTOP)
        clients = [socket.create_connection(("127.0.0.1", gateway.smtp), 20) for _ in range(COUNT)]
        time.sleep(0.05)
        for pid in takers:
            os.kill(pid, signal.SIGCONT)
        answers = Counter(one.recv(100) for one in clients)
        for one in clients:
            one.close()
        shed = sum([count for answer, count in answers.items() if answer.startswith(b"421 4.3.2")])
        taken = sum([count for answer, count in answers.items() if answer.startswith(b"220")])
        assert shed + taken == COUNT
        assert shed > COUNT / 4
        assert taken > 0
        with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
            client.sendmail("fred@truc.fr", ["marc@machin.com"], "Subject: after\r\n\r\nit goes on\r\n")

        def told() -> list[dict[str, object]]:
            return gateway.events("shed")

        assert wait_for(lambda: sum([row["connections"] for row in told()]) == shed)
        assert wait_for(lambda: told()[-1]["state"] == "ends")
        assert any("[limits] lag" in row["reason"] for row in gateway.events("trouble"))
        assert gateway.events("refused") == []
        assert f"told to come again by overload: {shed} connections" in gateway.command("status").stdout
        assert gateway.stop() == 0
