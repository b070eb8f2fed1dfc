"""from the configuration to what the queue takes, and its lock"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager

from tripost.gateway.settings import Config
from tripost.queue.files import Handle, RealFiles, RealHandle
from tripost.queue.opening import lock_spool
from tripost.queue.retry import Schedule
from tripost.queue.values import QueueSettings


def queue_settings(config: Config) -> QueueSettings:
    retry = config.retry
    return QueueSettings(
        retry=Schedule(
            first=retry.first,
            factor=retry.factor,
            longest=retry.longest,
            jitter=retry.jitter,
            schedule=tuple(retry.schedule),
        ),
        expire=retry.expire,
        warn=retry.warn,
        ret="FULL" if config.dsn.original == "full" else "HDRS",
        most_original=config.dsn.max_original,
        inline=config.spool.inline,
        segment_size=config.spool.segment_size,
        min_free=config.spool.min_free,
        min_free_inodes=config.spool.min_free_inodes,
        most_messages=config.spool.messages,
        most_octets=config.spool.bytes,
        unannounced=config.spool.unannounced,
    )


@contextmanager
def spool_lock(config: Config, descriptor: int, kept: Callable[[], bool]) -> Generator[Handle]:
    """Hold the spool; `descriptor`: it is locked already; `kept`: it stays so. Raises SpoolLocked, SpoolError."""
    lock = RealHandle(descriptor) if descriptor >= 0 else lock_spool(RealFiles(), os.path.join(config.state, "spool"))
    try:
        yield lock
    finally:
        if not kept():
            lock.close()
