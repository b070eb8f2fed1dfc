"""tripost route ADDRESS…: where mail for an address goes, and why not"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tripost.delivery.routing import Refusal
from tripost.gateway.app import make_router
from tripost.gateway.config import Config


def run(config: Config, addresses: Sequence[str], *, sender: str, as_json: bool) -> int:
    router = make_router(config)
    refused = False
    for address in addresses:
        answer = router.decide(address, True, sender)
        row: dict[str, object] = {"address": address}
        if isinstance(answer, Refusal):
            refused = True
            row |= {"refused": f"{answer.code} {answer.enhanced} {answer.text}"}
            line = f"{address}: refused with {row['refused']}"
        else:
            row |= {"next_hop": answer.next_hop, "recipient": answer.address}
            line = f"{address}: {answer.next_hop}" + (f" as {answer.address}" if answer.address != address else "")
        print(msgspec.json.encode(row).decode() if as_json else line)
    return 1 if refused else 0
