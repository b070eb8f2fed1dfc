"""a reload of several processes, as the supervisor leads it; the processes are played"""

from __future__ import annotations

import os
import pathlib
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from support.gateways import free_port
from tripost.gateway.config import Loaded, load, read
from tripost.gateway.inherited import Inherited
from tripost.gateway.processes import changing
from tripost.gateway.processes.changing import Changing, Partner
from tripost.gateway.processes.hand import decode_config
from tripost.gateway.processes.link import Link, LinkGone, close_all, pair
from tripost.gateway.processes.orders import Commit, Discard, Done, FromChild, Prepare, Ready, ToChild
from tripost.gateway.processes.sockets_held import Sockets

TOML = """\
hostname = "mx.example"
state = "{state}"
[[listen]]
service = "smtp"
address = "127.0.0.1:{port}"
[limits]
errors = {errors}
"""
MORE = '[[listen]]\nservice = "{service}"\naddress = "127.0.0.1:{port}"\n'


class Player:
    """A process. `says`: what it does when it is told to prepare: "", a reason, "die" or "nothing"; `done`: when it is
    told to put it in place. `heard`: what it was told; `errors`: of the configuration that it was given last."""

    def __init__(self, name: str, says: str = "", done: str = "") -> None:
        self.says, self.done = says, done
        ours, self._end = pair()
        self.partner = Partner(name, 1, Link[FromChild, ToChild](ours, FromChild), ingress=name != "manager")
        self._link = Link[ToChild, FromChild](self._end, ToChild)
        self.heard: list[ToChild] = []
        self.given: list[int] = []  # numbers of sockets that came
        self.errors = 0

    async def run(self) -> None:
        try:
            while True:
                order, descriptors = await self._link.receive()
                self.heard.append(order)
                if isinstance(order, Prepare):
                    self.errors = decode_config(descriptors[0]).limits.errors
                    self.given.append(len(descriptors) - 1)
                    close_all(descriptors)
                does = self.says if isinstance(order, Prepare) else self.done
                if does == "die" and isinstance(order, Prepare | Commit):
                    self._link.close()
                    return
                if does == "nothing":
                    continue
                if isinstance(order, Prepare):
                    await self._link.send(Ready(order.number, [self.says] if self.says else []))
                elif isinstance(order, Commit):
                    await self._link.send(Done(order.number))
        except (LinkGone, trio.ClosedResourceError):
            return

    async def answer(self, number: int) -> None:
        await self._link.send(Ready(number, []))

    def close(self) -> None:
        self.partner.link.close()
        self._link.close()

    def was_told(self, kind: type[Commit | Discard]) -> bool:
        return any(isinstance(one, kind) for one in self.heard)


class Stage:
    """A supervisor's part in a reload, its file, and who plays."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.file = folder / "t.toml"
        self.state = folder / "state"
        self.state.mkdir()
        self.port = free_port()
        self.write(5)
        config = load(str(self.file))
        self.held = Sockets(config, Inherited({}))
        self.ending = ""
        self.changing = Changing(config, self._read, self.held, lambda: True, lambda: self.ending)
        self.players: list[Player] = []

    def _read(self) -> Loaded:
        return read(str(self.file))

    def write(self, errors: int, more: str = "") -> None:
        self.file.write_text(TOML.format(state=self.state, port=self.port, errors=errors) + more)

    def errors(self) -> int:
        """As it is in force."""
        assert decode_config(self.changing.settings) == self.changing.config
        return self.changing.config.limits.errors


@asynccontextmanager
async def stage(folder: pathlib.Path, *players: Player) -> AsyncGenerator[Stage]:
    made = Stage(folder)
    made.players = list(players)
    try:
        async with trio.open_nursery() as nursery:
            for one in players:
                made.changing.join(one.partner)
                nursery.start_soon(one.run)
                nursery.start_soon(one.partner.run, lambda by, asked: None)
            yield made
            nursery.cancel_scope.cancel()
    finally:
        made.held.close()
        for one in players:
            one.close()


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_all_have_it(tmp_path: pathlib.Path) -> None:
    manager, one, other = Player("manager"), Player("ingress 1"), Player("ingress 2")
    port, box = free_port(), free_port()
    async with stage(tmp_path, manager, one, other) as here:
        here.write(7, MORE.format(service="lmtp", port=port) + MORE.format(service="pop3", port=box))
        outcome = await here.changing.reload()
        assert (outcome.problems, outcome.generation, outcome.behind) == ([], 2, [])
        assert "limits.errors" in outcome.changed
        assert here.errors() == 7
        assert [each.errors for each in here.players] == [7] * 3
        assert [each.partner.generation for each in here.players] == [2] * 3
        assert [each.given for each in here.players] == [[1]] * 3  # each the one that is for it
        assert listens(port)
        assert listens(box)
        before = descriptors()
        # what was mail in is a mailbox's now: the socket stays, and is another's
        here.write(8, MORE.format(service="pop3", port=port))
        assert (await here.changing.reload()).problems == []
        assert [each.given[-1] for each in here.players] == [1, 0, 0]
        assert listens(port)
        assert not listens(box)
        assert descriptors() == before - 1


@pytest.mark.parametrize("who", [0, 1, 2])
@pytest.mark.parametrize("says", ["no", "die", "nothing", "ending"])
async def test_none_has_it(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, who: int, says: str) -> None:
    """Whoever it is that cannot."""
    monkeypatch.setattr(changing, "PREPARE", 0.5 if says == "nothing" else 60)
    players = [Player("manager"), Player("ingress 1"), Player("ingress 2")]
    port = free_port()
    async with stage(tmp_path, *players) as here:
        players[who].says = "nothing" if says == "ending" else says
        here.write(7, MORE.format(service="lmtp", port=port))
        before = descriptors()
        if says == "ending":
            here.ending = "the gateway is ending"
        with trio.fail_after(10):
            outcome = await here.changing.reload()
        why = {"no": "no", "die": "it died", "nothing": "it has not answered within 0.5 s"}
        if says == "ending":
            assert outcome.problems == ["the gateway is ending"]
        else:
            assert outcome.problems == [f"{players[who].partner.name}: {why[says]}"]
        assert here.errors() == 5
        assert here.changing.generation == 1
        assert not listens(port)
        await trio.testing.wait_all_tasks_blocked()
        assert descriptors() == before - (says == "die")
        assert not any(each.was_told(Commit) for each in players)
        if says not in ("ending", "die"):
            assert all(each.was_told(Discard) for each in players)
        with trio.fail_after(1):
            await here.changing.may_start()


@pytest.mark.parametrize(("done", "behind"), [("die", []), ("nothing", ["ingress 1"])])
async def test_after_the_step_nothing_goes_back(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, done: str, behind: list[str]
) -> None:
    monkeypatch.setattr(changing, "COMMIT", 0.5)
    manager, one = Player("manager"), Player("ingress 1", done=done)
    async with stage(tmp_path, manager, one) as here:
        here.write(7)
        outcome = await here.changing.reload()
        assert (outcome.problems, outcome.behind, outcome.generation) == ([], behind, 2)
        assert here.errors() == 7
        assert (manager.partner.generation, one.partner.generation) == (2, 1)


async def test_one_after_the_other_and_nobody_starts_between(tmp_path: pathlib.Path) -> None:
    manager, one = Player("manager"), Player("ingress 1", says="nothing")
    async with stage(tmp_path, manager, one) as here:
        here.write(7)
        outcomes: list[int] = []

        async def ask() -> None:
            outcomes.append((await here.changing.reload()).generation)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            with trio.fail_after(10):
                while not one.heard:  # noqa: ASYNC110  (another end of a socket)
                    await trio.sleep(0.01)
            with trio.move_on_after(0.2) as waited:
                await here.changing.may_start()
            assert waited.cancelled_caught
            one.says = ""
            assert isinstance(one.heard[0], Prepare)
            await one.answer(one.heard[0].number)
            with trio.fail_after(10):
                await here.changing.may_start()
            assert here.errors() == 7  # who starts now has it
        assert outcomes == [2, 3]


async def test_one_that_was_ready_and_died_is_enough(tmp_path: pathlib.Path) -> None:
    """And is known at once, while another still prepares."""
    manager, one = Player("manager"), Player("ingress 1", says="nothing")
    async with stage(tmp_path, manager, one) as here:
        here.write(7)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def dies() -> None:
                while not one.heard:  # noqa: ASYNC110  (another end of a socket)
                    await trio.sleep(0.01)
                here.changing.leave(manager.partner)

            with trio.fail_after(5):
                outcome = await here.changing.reload()
        assert outcome.problems == ["manager: it died"]
        assert here.errors() == 5


async def test_what_is_no_order_ends_a_link() -> None:
    here, there = pair()
    link = Link[ToChild, FromChild](here, ToChild)
    there.send(b"nonsense")
    with pytest.raises(LinkGone):
        await link.receive()
    there.close()
    with pytest.raises(LinkGone):
        await link.receive()
    with pytest.raises(LinkGone):
        await link.send(Done(1))
    link.close()
