"""where the running gateway would send mail: its own routing tables, asked"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec

from tripost.delivery.routing import Refusal, Router
from tripost.gateway.control.arguments import as_
from tripost.gateway.control.frames import Answer, End, Row
from tripost.gateway.control.server import Verb


class Address(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mail for `address`, from `sender` ("" for reports)."""

    address: str
    sender: str = ""


class RouteVerb:
    def __init__(self, router: Router) -> None:
        self._router = router

    @property
    def verbs(self) -> dict[str, Verb]:
        return {"route": self._route}

    async def _route(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        asked = as_(Address, arguments)
        answer = self._router.decide(asked.address, True, asked.sender)
        if isinstance(answer, Refusal):
            yield Row({"address": asked.address, "refused": f"{answer.code} {answer.enhanced} {answer.text}"})
        else:
            for one in answer.all:
                yield Row({"address": asked.address, "next_hop": one.next_hop, "recipient": one.address})
        yield End({})
