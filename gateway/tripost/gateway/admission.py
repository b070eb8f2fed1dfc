"""who may connect now

API      `Admission(…)`: `full` before anything is known of a client; `enter(client,
         now)` gives "" (and counts) or the reason for the refusal; `leave(client)`.
Promise  At most `connections` in all, `per_client` from an address (IPv6 by /64),
         `per_network` from an IPv4 /24 or IPv6 /64, and `rate` new ones per client;
         0 is no limit. `exempt` networks are held to the first only. Tables hold
         open connections and a bounded number of rates. `lag` and `sheds` are
         those of `tripost.gateway.overload`, which refuses before anything is counted.
Why      New connections are what overload sheds first: whoever is refused here has
         lost nothing, and whoever is in gets replies in time.
"""

from __future__ import annotations

from collections import Counter

from tripost.gateway.overload import Sheds
from tripost.gateway.peer import Network, account_key, is_in, network_of
from tripost.gateway.windows import NO_LIMIT, Rate, Windows

FULL = "too many connections, try again later"
BUSY = "too busy, try again later"


class Admission:
    """Connections of one gateway; a Unix socket's client is "" and held to the first limit only."""

    def __init__(
        self,
        connections: int,
        per_client: int = 0,
        per_network: int = 0,
        rate: Rate = NO_LIMIT,
        exempt: tuple[Network, ...] = (),
        lag: float = 0.0,
    ) -> None:
        self.most = connections
        self._per_client = per_client
        self._per_network = per_network
        self._rates = Windows(rate)
        self.exempt = exempt
        self.lag = lag
        self.sheds = Sheds()
        self._clients: Counter[str] = Counter()
        self._networks: Counter[str] = Counter()
        self.open: int = 0
        self.refused = 0

    def become(self, other: Admission) -> None:
        """Its limits, with our connections and rates."""
        self.most, self._per_client, self._per_network = other.most, other._per_client, other._per_network
        self.exempt, self.lag = other.exempt, other.lag
        self._rates.limit(other._rates.rate)

    @property
    def full(self) -> bool:
        return self.open >= self.most

    def enter(self, client: str, now: float) -> str:
        """Why not; "" when it is in and counted."""
        why = FULL if self.full else self._against(client, now)
        if why:
            self.refused += 1
            return why
        self.admit(client)
        return ""

    def admit(self, client: str) -> None:
        """Count one that is in, whatever the limits say."""
        self.open += 1
        if client:
            self._clients[account_key(client)] += 1
            if self._per_network:
                self._networks[network_of(client)] += 1

    async def ask(self, client: str, now: float) -> str:
        """As `enter`; where several processes count together, others may have to be asked."""
        return self.enter(client, now)

    def _against(self, client: str, now: float) -> str:
        if not client or is_in(client, self.exempt):
            return ""
        key = account_key(client)
        if self._per_client and self._clients[key] >= self._per_client:
            return f"too many connections from {client}, close one first"
        if self._per_network and self._networks[network_of(client)] >= self._per_network:
            return f"too many connections from {network_of(client)}, try again later"
        wait = self._rates.take(key, now)
        return f"{client} connects too often, try again in {wait:.0f} s" if wait else ""

    def leave(self, client: str) -> None:
        self.open -= 1
        if not client:
            return
        _less(self._clients, account_key(client))
        if self._per_network:
            _less(self._networks, network_of(client))


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
