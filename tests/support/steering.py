"""an operator at a gateway's command line"""

from __future__ import annotations

import json
import shlex
import smtplib

from support.gateways import Running, wait_for


def send(gateway: Running, to: str = "u@far.example", sender: str = "fred@truc.fr", count: int = 1) -> list[str]:
    """Ids."""
    ids: list[str] = []
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
        client.ehlo()
        for _ in range(count):
            client.mail(sender)
            client.rcpt(to)
            _, text = client.data("Subject: x\r\n\r\nhi\r\n")
            ids.append(text.decode().rpartition(" ")[2])
    return ids


def why(gateway: Running, about: str) -> list[dict[str, object]]:
    found = gateway.command("explain", about, "--json")
    return [json.loads(line) for line in found.stdout.splitlines()]


def why_is(gateway: Running, about: str, state: str, reason: str = "") -> dict[str, object]:
    """Once it is in that state, for that reason."""

    def is_so() -> bool:
        found = why(gateway, about)
        return [one["state"] for one in found] == [state] and reason in str(found[0]["reason"])

    assert wait_for(is_so), why(gateway, about)
    return why(gateway, about)[0]


def obey(gateway: Running, command: object) -> None:
    """Run the commands that explain named."""
    for one in str(command).split(" && "):
        words = shlex.split(one)
        assert words[0] == "tripost"
        done = gateway.command(*words[1:])
        assert done.returncode == 0, done.stderr
