"""every command's help has an example that works, and every --json is what its schema says

Generic over the argument parser: a new command without example or schema fails here. What an example needs to be true
is arranged in PREPARED; what it changes is taken back.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
import trio

from support.gateways import Running, free_port, running, wait_for
from tripost.gateway.cli.main import main, parser
from tripost.gateway.cli.rows import ROWS, schema
from tripost.gateway.cli.tree import Command, commands
from tripost.gateway.control.client import ControlError, ask
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.message import Envelope, Recipient
from tripost.queue.opening import open_queue
from tripost.queue.values import QueueSettings

COMMANDS = {one.name: one for one in commands(parser()) if not one.below}
WITH_JSON = [name for name, one in COMMANDS.items() if one.option("--json")]
EXAMPLE = re.compile(r"^Example: (.+)$", re.MULTILINE)
A_MESSAGE, AN_ACTION = "06M3D2EH0WN2Q0R7C4", "17"  # as examples call them
EXTRA = (
    '[dns]\nnameservers = ["127.0.0.1:1"]\n'  # nobody answers there: what is queued stays
    '[relay]\nnetworks = ["127.0.0.0/8", "198.0.0.0/8"]\n'  # something for `check` to warn of
)
DAY = 86_400.0
SENDERS = ("list@lists.example", "billing@machin.com", "spammer@example.com")
RELAY = "smtp://relay.example:25"
CHANGES = ("hold", "release", "retry", "reroute", "priority", "bounce", "delete", "expire")


def examples(command: Command) -> list[str]:
    return EXAMPLE.findall(command.epilog)


def test_every_command_has_an_example_and_every_json_a_schema() -> None:
    assert [name for name, one in COMMANDS.items() if not examples(one)] == []
    assert sorted(WITH_JSON) == sorted(ROWS)
    for name, one in COMMANDS.items():
        assert all(f"tripost {name}" in text for text in examples(one)), name


# --- a gateway in which the examples are true ---


class House:
    def __init__(self, folder: pathlib.Path, gateway: Running, id: str) -> None:
        self.folder, self.gateway, self.id = folder, gateway, id
        self.state = str(folder / "state")

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = list(ask(self.state, verb, **arguments))[-1]["sum"]
        return found

    def action(self) -> str:
        """The id of one that can be undone."""
        self.ask("queue.release", id=self.id)
        return str(self.ask("queue.hold", id=self.id)["action"])

    def undo(self) -> None:
        try:
            self.ask("queue.undo")
        except ControlError:
            pass  # there was nothing, as after --dry-run


async def _fill(state: pathlib.Path) -> str:
    """Some days old mail, which its senders asked to keep until tomorrow; the id of one."""
    now, content = time.time(), b"Subject: x\r\n\r\nx\r\n"
    settings = QueueSettings(min_free=0)
    async with open_queue(str(state / "spool"), settings, clock=Clock(), bus=Bus(), reporter=lambda *_: None) as queue:
        for number in range(8):
            body, id = queue.new_body(), queue.new_id()
            await body.write(content)
            domain = "example.com" if number > 1 else "example.net"
            hop = RELAY if number == 1 else f"mx:{domain}"
            one = Recipient(0, f"{('ann', 'marc')[number % 2]}@{domain}", hop)
            envelope = Envelope(
                id,
                SENDERS[number % 3],
                (one,),
                now - 4 * DAY,
                now + DAY,
                len(content),
                release=(hop != RELAY) * (now + DAY),
            )
            await queue.accept(envelope, body)
    return id


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("examples")
    (folder / "state").mkdir()
    (folder / "password.txt").write_text("secret\n")
    id = trio.run(_fill, folder / "state")
    with running(folder, EXTRA) as gateway:
        gateway.command("user", "add", "ben@machin.com", "--password-stdin", input="secret\n")
        made = House(folder, gateway, id)
        made.ask("queue.suspend", what="mx:suspended.example")
        yield made


def _held(house: House) -> None:
    house.ask("queue.hold", id=house.id)


def _suspended(house: House) -> None:
    house.ask("queue.suspend", what="mx:example.com")


def _limited(house: House) -> None:
    house.ask("queue.limit", site=RELAY, connections=5)


def _acted(house: House) -> None:
    house.action()


def _no_exports(house: House) -> None:
    shutil.rmtree(house.folder / "exported", ignore_errors=True)


def _exported(house: House) -> None:
    _no_exports(house)
    assert house.gateway.command("queue", "export", "--id", house.id, str(house.folder / "exported")).returncode == 0


def _letter(house: House) -> None:
    with smtplib.SMTP("127.0.0.1", house.gateway.smtp, timeout=20) as client:
        client.sendmail("fred@truc.fr", ["marc@machin.com"], b"Subject: x\r\n\r\nx\r\n")
    assert wait_for(lambda: house.gateway.command("history", "marc@machin.com").returncode == 0)


def _talk(house: House) -> None:
    """A session in a moment, beside the example."""

    def later() -> None:
        with smtplib.SMTP("127.0.0.1", house.gateway.smtp, timeout=20) as client:
            client.ehlo()

    threading.Timer(0.5, later).start()


# what is to be true before the example, and what is done after it
PREPARED: dict[str, Callable[[House], None]] = {
    "queue release": _held,
    "queue resume": _suspended,
    "queue audit": _acted,
    "history": _letter,
    "trace": _talk,
    "queue export": _no_exports,
    "queue import": _exported,
    "queue limits": _limited,
}


# where nothing may come of the example itself
BUSIER = {"trace": "tripost trace --client 127.0.0.0/8 --for 2s"}


def _afterwards(house: House, name: str) -> None:
    if name.removeprefix("queue ") in CHANGES:
        house.undo()
    if name == "queue suspend":
        house.ask("queue.resume", what="mx:example.com")


def _words(house: House, name: str, text: str) -> str:
    text = text.replace(A_MESSAGE, house.id)
    return text.replace(AN_ACTION, house.action()) if name == "queue undo" else text


def _run(house: House, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Its output; what a shell is needed for goes through one."""
    monkeypatch.chdir(house.folder)
    if not re.search(r"[|<>]", text):
        capsys.readouterr()
        assert main(shlex.split(text)[1:]) == 0, capsys.readouterr().err
        return capsys.readouterr().out
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], text=True, capture_output=True, timeout=60, check=False,
        env=os.environ | {"PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("serve", "drain")])
def test_examples(house: House, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for text in examples(COMMANDS[name]):
        PREPARED.get(name, lambda house: None)(house)
        said = _run(house, _words(house, name, text), capsys, monkeypatch)
        _afterwards(house, name)
        assert said or ">" in text or name.split()[0] in ("user", "sendmail", "completion", "trace"), "nothing was said"


@pytest.mark.parametrize("name", WITH_JSON)
def test_json(house: House, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = BUSIER.get(name) or examples(COMMANDS[name])[0]
    PREPARED.get(name, lambda house: None)(house)
    said = _run(house, f"{_words(house, name, text)} --json", capsys, monkeypatch)
    _afterwards(house, name)
    lines = said.splitlines()
    assert lines, "no row to look at"
    validator = jsonschema.Draft202012Validator(_strict(schema(name)))
    for line in lines:
        validator.validate(json.loads(line))


def _strict(part: Any) -> Any:
    """A field that the schema does not know is a fault here, though readers are to allow it."""
    if isinstance(part, dict):
        made = {key: _strict(value) for key, value in part.items()}
        return made | {"additionalProperties": False} if "properties" in part else made
    return [_strict(one) for one in part] if isinstance(part, list) else part


def test_a_wrong_row_is_found() -> None:
    validator = jsonschema.Draft202012Validator(_strict(schema("queue count")))
    validator.validate({"messages": 1, "recipients": 2, "octets": 3})
    for wrong in ({"messages": 1, "recipients": 2}, {"messages": "1", "recipients": 2, "octets": 3}, {"x": 1}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(wrong)


def test_a_refused_address_is_in_the_schema(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(house.folder)
    assert main(["route", "gone@machin.com", "--json"]) == 1
    jsonschema.Draft202012Validator(_strict(schema("route"))).validate(json.loads(capsys.readouterr().out))


def test_schemas_are_schemas(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    for name in capsys.readouterr().out.splitlines():
        assert main(["schema", *name.split()]) == 0
        jsonschema.Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))
    assert main(["schema", "queue", "lsit"]) == 2
    assert 'did you mean "queue list"?' in capsys.readouterr().err


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as one:
            return one.recv(3) == b"220"
    except OSError:
        return False


def test_serve(tmp_path: pathlib.Path) -> None:
    (text,) = examples(COMMANDS["serve"])
    port = free_port()
    (tmp_path / "tripost.toml").write_text(
        f'state = "state"\n[[listen]]\nservice = "smtp"\naddress = "127.0.0.1:{port}"\n[spool]\nmin_free = "1MiB"\n'
    )
    words = [sys.executable, "-m", *shlex.split(text)]
    child = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        assert wait_for(lambda: _answers(port))
    finally:
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=30)
    assert child.returncode == 0
