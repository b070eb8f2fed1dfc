"""what a reload changes in parts that run: see `tripost.gateway.reloading`

API      `queue_settings(config)`, `Faces` (the handlers of connections), and for a reload `renew_queue`,
         `renew_delivery`, `renew_connections`: each gives back what puts it in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from tripost.delivery.dispatcher import Dispatcher
from tripost.gateway.admission import Admission
from tripost.gateway.ingress.context import IngressContext
from tripost.gateway.ingress.smtp_session import serve_smtp
from tripost.gateway.listeners import Handler
from tripost.gateway.listening import Listening
from tripost.gateway.peer import Peer
from tripost.gateway.settings import Config
from tripost.gateway.submit import Submit
from tripost.gateway.wiring_delivery import delivery_settings
from tripost.gateway.wiring_ingress import SMTP, renewed
from tripost.gateway.wiring_listen import admission_of, make_services
from tripost.queue.retry import Schedule
from tripost.queue.values import QueueSettings


class Faces:
    """Kind of service → what serves a connection. `smtp` is what new sessions get."""

    def __init__(self, smtp: IngressContext, others: Mapping[str, Handler]) -> None:
        self.smtp = smtp
        self.handlers: dict[str, Handler] = {**dict.fromkeys(SMTP, self._on_smtp), **others}

    async def _on_smtp(self, stream: trio.abc.Stream, peer: Peer) -> None:
        await serve_smtp(stream, peer=peer, context=self.smtp)


def renew_connections(
    admission: Admission, submit: Submit, faces: Faces, listening: Listening, config: Config
) -> Callable[[], None]:
    """Raises ListenError, TlsError. Comes last: what it binds would have to be given back."""
    admitting = admission_of(config)
    listen = listening.prepare(make_services(config, faces.handlers))

    def commit() -> None:
        admission.become(admitting)
        faces.smtp = submit.context = renewed(faces.smtp, config)
        submit.config = config
        listen()

    return commit


def renew_delivery(dispatcher: Dispatcher, config: Config) -> Callable[[], None]:
    wanted = delivery_settings(config)
    return lambda: dispatcher.configure(wanted)


def renew_queue(settings: QueueSettings, config: Config) -> Callable[[], None]:
    wanted = queue_settings(config)

    def commit() -> None:
        for name in ("retry", "expire", "warn", "ret", "most_original"):
            setattr(settings, name, getattr(wanted, name))

    return commit


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
    )
