"""a small authoritative DNS server, for the demo and for tests

Real UDP on loopback, dnspython's wire format; zones are given as rows. It
answers what it is authoritative for and refuses the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio

Zones = Mapping[str, Sequence[tuple[str, str, str]]]
TTL = 300
DATAGRAM = 4096


class Authority:
    """Answers questions; pure but for its name."""

    def __init__(self, zones: Zones) -> None:
        self._zones = [dns.name.from_text(zone) for zone in zones]
        self._records: dict[dns.name.Name, dict[str, list[str]]] = {}
        for rows in zones.values():
            for name, kind, data in rows:
                self._records.setdefault(dns.name.from_text(name), {}).setdefault(kind, []).append(data)

    def answer(self, octets: bytes) -> bytes | None:
        """The reply's octets, None for what is no question."""
        try:
            query = dns.message.from_wire(octets)
        except dns.exception.DNSException:
            return None
        if not query.question or query.flags & dns.flags.QR:
            return None
        response = dns.message.make_response(query)
        name, kind = query.question[0].name, dns.rdatatype.to_text(query.question[0].rdtype)
        if not any(name.is_subdomain(zone) for zone in self._zones):
            response.set_rcode(dns.rcode.REFUSED)
            return response.to_wire()
        response.flags |= dns.flags.AA
        found = self._records.get(name)
        if found is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif kind in found:
            response.answer.append(dns.rrset.from_text(name, TTL, "IN", kind, *found[kind]))
        return response.to_wire()


async def serve_dns(zones: Zones, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
    """Until cancelled; starts with its "address:port"."""
    authority = Authority(zones)
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        task_status.started(f"127.0.0.1:{sock.getsockname()[1]}")
        while True:
            octets, sender = await sock.recvfrom(DATAGRAM)
            reply = authority.answer(octets)
            if reply is not None:
                await sock.sendto(reply, sender)
