"""the main program of the manager: the gateway, but for the SMTP listeners"""

from __future__ import annotations

from tripost.gateway.cli import serve
from tripost.gateway.inherited import Inherited
from tripost.gateway.notify import Notifier
from tripost.gateway.processes.hand import config_of, take
from tripost.gateway.processes.house import House


def main(text: str) -> int:
    """As `tripost serve`'s exit codes."""
    hand = take(text)
    return serve.run_here(config_of(hand), None, Inherited({}), Notifier({}), House(hand))
