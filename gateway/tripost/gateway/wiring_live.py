"""what a reload changes in parts that run: see `tripost.gateway.reloading`

API      `Faces` (the handlers of connections), and for a reload `renew_queue`,
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
from tripost.gateway.wiring_queue import queue_settings
from tripost.queue.values import QueueSettings


class Faces:
    """Kind of service → what serves a connection. `smtp` is what new sessions get."""

    def __init__(self, smtp: IngressContext, others: Mapping[str, Handler], *, mail_in: bool = True) -> None:
        """`mail_in`: mail comes in here, and not in other processes."""
        self.smtp = smtp
        self.handlers: dict[str, Handler] = {**others}
        if mail_in:
            self.handlers |= dict.fromkeys(SMTP, self._on_smtp)

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
