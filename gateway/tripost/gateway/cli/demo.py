"""tripost demo: the story with two gateways, on this machine, in seconds"""

from __future__ import annotations

from functools import partial

import trio

from tripost.gateway.demo import play


def run(*, keep: bool, imap: bool) -> int:
    return trio.run(partial(play, partial(print, flush=True), keep=keep, imap=imap))
