"""the main program of a delivery process

Started by exec, never forked from a running loop: `python -m tripost --role delivery --connect PATH`, the manager's
socket, or `--fd N`, an inherited one that is connected.

Promise  SIGTERM and SIGINT are for the manager, which lets the process go when all is
         done; when the manager is gone, however, it ends at once.
"""

from __future__ import annotations

import argparse
import signal
import socket
from collections.abc import Sequence

import trio

from tripost.delivery.processes.courier import Courier
from tripost.queue.channel import inherited


def main(arguments: Sequence[str]) -> int:
    """0 when the manager sent us home, 1 when there was none."""
    parser = argparse.ArgumentParser(prog="tripost --role delivery")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--connect", metavar="PATH", help="the manager's Unix socket")
    way.add_argument("--fd", type=int, metavar="N", help="an inherited socket that is connected to the manager")
    options = parser.parse_args(arguments)
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(one, signal.SIG_IGN)
    try:
        end = inherited(options.fd) if options.connect is None else _connected(options.connect)
    except OSError:
        return 1
    trio.run(_run, end)
    return 0


def _connected(path: str) -> socket.socket:
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        end.connect(path)
    except BaseException:
        end.close()
        raise
    return end


async def _run(end: socket.socket) -> None:
    await Courier(end).run()
