"""what the workers of one site share

Its limits and what is left of them: connections (the operator's bound and the
window found by trying), both rates, the rest after a refusal of our speed; and
which of its next hops have something to be claimed. Decides, in sync code, and
says why; the dispatcher and the workers act.

States   working · resting until a time (it refused our speed, or cannot be spoken
         to) · both with what was learned before, which notes carry over a restart.
Promise  workers + extras ≤ terms.connections at any time. A slot is taken before
         its socket is opened and given back after it is closed.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

from tripost.delivery.classify import Kind
from tripost.delivery.pace import Pace, after_crash
from tripost.delivery.settings import Rate
from tripost.delivery.ways import Way
from tripost.delivery.window import Window
from tripost.queue.retry import spread

NOTE = "site/"
SAID = "limit/"  # + the site's name: notes of what an operator said
REST_LONGEST = 1800.0
CALM = 20  # good messages after which a refused speed is forgotten
JITTER = 0.2


class Learned(msgspec.Struct, frozen=True, array_like=True):
    """What a note keeps; `clean`: nothing was sent after it was written."""

    limit: int = 0
    rate: float = 0.0
    connection_rate: float = 0.0
    clean: bool = False
    rest: float = 0.0


class Said(msgspec.Struct, frozen=True, array_like=True):
    """Limits in place of those that are configured; None: as configured."""

    connections: int | None = None
    rate: Rate | None = None
    connection_rate: Rate | None = None
    who: str = ""

    @property
    def empty(self) -> bool:
        return self.connections is None and self.rate is None and self.connection_rate is None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Learned).decode
encode_said = _encode
decode_said = msgspec.msgpack.Decoder(Said).decode


class Site:
    """`workers`: slots in use; `open`: greeted connections; `pending`: workers with a message that is not begun."""

    def __init__(self, way: Way, note: bytes, now: float, random: Callable[[], float]) -> None:
        self.name = way.site
        self.terms = way.terms
        self._way = way
        known = _decode(note) if note else Learned()
        self.window = Window(self.terms.connections, learned=known.limit, fixed=not way.network)
        self.pace = Pace(self.terms.rate, _begin(self.terms.rate, known.rate, known.clean, now))
        self.connecting = Pace(
            self.terms.connection_rate, _begin(self.terms.connection_rate, known.connection_rate, known.clean, now)
        )
        self.workers = self.extras = self.open = self.pending = 0
        self.hops: dict[str, None] = {}
        self.blocked: dict[str, None] = {}  # hops with a back-off of their own
        self.lot = trio.lowlevel.ParkingLot()
        self.turn = trio.Lock()
        self.door = trio.Lock()
        self.doubt = trio.Lock()
        self.leave = 0  # so many who idle are to go: others need their slots
        self.alarm = 0.0  # when it is looked at again
        self.told = ""  # what was last said to limit it
        self._random = random
        self._rest = known.rest
        self._rests = 0
        self._failures = 0
        self._good = 0

    def renew(self, way: Way, said: bytes, now: float) -> None:
        """It was looked at anew: terms and hosts may be others. `said` is the note of what an operator said."""
        self._way = way
        self.bind(decode_said(said) if said else Said(), now)

    def bind(self, said: Said, now: float) -> None:
        """From now on an operator's word holds, or with an empty one again what is configured."""
        terms, network = self._way.terms, self._way.network
        if said.connections is not None:
            terms = msgspec.structs.replace(terms, connections=said.connections)
        terms = msgspec.structs.replace(
            terms,
            rate=said.rate or terms.rate,
            connection_rate=said.connection_rate or terms.connection_rate,
        )
        if terms.connections != self.terms.connections:
            self.window = Window(terms.connections, fixed=not network)
        if terms.rate != self.terms.rate:
            self.pace = Pace(terms.rate, now)
        if terms.connection_rate != self.terms.connection_rate:
            self.connecting = Pace(terms.connection_rate, now)
        self.terms = terms

    @property
    def limit(self) -> int:
        return min(self.window.limit, self.terms.connections)

    @property
    def rest(self) -> float:
        """Until when it is left alone, in wall-clock seconds."""
        return self._rest

    @property
    def unused(self) -> bool:
        return not (self.workers or self.hops or self.blocked)

    def forgettable(self, now: float) -> bool:
        return self.unused and self._rest <= now and self.pace.idle(now) and self.connecting.idle(now)

    def is_of(self, way: Way) -> bool:
        return self._way is way

    # --- may something be done? ---

    def binding(self, now: float, connected: bool) -> tuple[str, float]:
        """What keeps one more message from being begun, and for how long; "" for nothing."""
        if self._rest > now:
            return "rest", self._rest - now
        wait = self.pace.wait(now) + self.pace.interval * self.pending
        if wait > self.terms.idle:
            return "rate", wait
        if not connected:
            wait = self.connecting.wait(now) + self.connecting.interval * self.pending
            if wait > self.terms.idle:
                return "connection_rate", wait
        return "", 0.0

    def room(self) -> str:
        """Why no worker more may begin; "" when one may."""
        used = self.workers + self.extras
        if used >= self.terms.connections:
            return "connections"
        return "feedback" if used >= self.limit else ""

    @property
    def surplus(self) -> bool:
        return self.workers + self.extras > self.limit

    def messages(self) -> int:
        """How many a new connection carries: up to a fifth less than the most, so that those that began together do not
        end together."""
        most = self.terms.messages_per_connection
        return most - int(self._random() * most / 5)

    def next_hop(self) -> str | None:
        """The one whose turn it is; it is taken off."""
        if not self.hops:
            return None
        hop = next(iter(self.hops))
        del self.hops[hop]
        return hop

    # --- what happened ---

    def opened(self, now: float) -> str:
        """A connection is greeted; the reason why more are allowed now, or ""."""
        self.open += 1
        return self.window.opened(now)

    def refused(self, now: float, begun: int | None) -> str:
        """One more was refused while others are good. `begun`: see Window."""
        return self.window.refused(now, self.workers + self.extras, begun)

    def failed(self, now: float) -> str:
        """Nothing works: rest, and then one at a time. The next hop has a back-off of its own, which is not shorter."""
        first, longest = self.terms.probes
        self._rest = max(self._rest, now + (1.0 - JITTER) * min(longest, first * 2.0 ** min(self._failures, 32)))
        self._failures += 1
        return self.window.failed()

    def hurry(self) -> None:
        """No more rest."""
        self._rest = 0.0

    def succeeded(self) -> list[str]:
        """It can be spoken to: the next hops that wait in vain."""
        self._failures = 0
        self._good += 1
        if self._good >= CALM:
            self._rests = 0
        if not self.blocked:
            return []
        blocked = list(self.blocked)
        self.blocked.clear()
        return blocked

    def slowed(self, kind: Kind, now: float) -> float:
        """It refused our speed or address: the seconds of rest; 0.0 when it rests already."""
        if self._rest > now:
            return 0.0
        plain = min(max(REST_LONGEST, kind.pause), kind.pause * 2.0 ** min(self._rests, 16))
        self._rests += 1
        self._good = 0
        rest = spread(plain, JITTER, self._random())
        self._rest = now + rest
        self.window.failed()
        return rest

    def learned(self, *, clean: bool) -> bytes:
        """For the note; b"" when there is nothing to remember."""
        limited = self.terms.rate.count or self.terms.connection_rate.count
        if not limited and not self.window.learned and not self._rest:
            return b""
        return _encode(Learned(self.window.learned, self.pace.state(), self.connecting.state(), clean, self._rest))


def _begin(rate: Rate, known: float, clean: bool, now: float) -> float:
    """When the first may go after a start. Of a slow rate every one is noted before it goes."""
    if Pace(rate).slow or (known and clean):
        return known
    return after_crash(rate, now)
