"""what a next hop's name says

A next hop is what the schedule is keyed by, and what a reroute names: the way,
and behind a "?" whatever a route adds to it, so that a queued message keeps its
way when the configuration changes.

States   local · discard · reject · mx:DOMAIN · smtp://HOST:PORT[,HOST:PORT…] ·
         lmtp://HOST:PORT[,…] · lmtp:///PATH; options tls, source, auth.
Fails    `ValueError` with a text for the operator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import msgspec

SMTP_PORT = 25
LMTP_PORT = 24
OPTIONS = ("tls", "source", "auth")
LEVELS = ("none", "may", "encrypt", "verify")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


class Target(msgspec.Struct, frozen=True):
    """`hosts` in the order of their use; `path` is a Unix socket's. Options are "" where the route says nothing."""

    kind: str
    domain: str = ""
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    tls: str = ""
    source: str = ""
    auth: str = ""

    @property
    def literal(self) -> bool:
        """Somebody named the host: it is theirs to be used with more than a stranger's."""
        return self.kind in ("smtp", "lmtp")

    @property
    def name(self) -> str:
        """What limits of an operator may name."""
        return self.domain or (self.hosts[0][0] if self.hosts else self.path or self.kind)


def next_hop_for(to: str, domain: str, options: Mapping[str, str] | None = None) -> str:
    """The next hop of a route's `to` for one recipient domain. Raises ValueError."""
    if to == "mx":
        base = f"mx:{domain}"
    elif to.startswith(("smtp://", "lmtp://")):
        scheme, _, rest = to.partition("://")
        base = to if rest.startswith("/") else f"{scheme}://{_hosts(rest.rstrip('/'), scheme)}"
    elif to in ("local", "discard", "reject"):
        return to
    else:
        raise ValueError("must be mx, local, discard, reject, smtp://host:port or lmtp://host:port")
    extra = "&".join(f"{key}={_quoted(options[key])}" for key in OPTIONS if options and options.get(key))
    return f"{base}?{extra}" if extra else base


def _hosts(text: str, scheme: str) -> str:
    port = SMTP_PORT if scheme == "smtp" else LMTP_PORT
    return ",".join(f"{host}:{number}" for host, number in _pairs(text, port))


def _pairs(text: str, default: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for part in text.split(","):
        match = _HOST.fullmatch(part)
        if match is None or not 0 < int(match[2] or default) < 65_536:
            raise ValueError(f'"{part}" is no host:port')
        found.append((match[1], int(match[2] or default)))
    return found


@lru_cache(4096)
def parse(next_hop: str) -> Target:
    """Raises ValueError."""
    base, _, extra = next_hop.partition("?")
    options = {key: _plain(value) for key, _, value in (one.partition("=") for one in extra.split("&") if one)}
    unknown = options.keys() - set(OPTIONS)
    if unknown:
        raise ValueError(f"unknown option {min(unknown)}")
    if options.get("tls", "may") not in LEVELS:
        raise ValueError(f"tls must be one of {', '.join(LEVELS)}")
    if base.startswith("mx:"):
        return _with(Target("mx", domain=base[3:]), options)
    scheme, found, rest = base.partition("://")
    if found and scheme == "lmtp" and rest.startswith("/"):
        return _with(Target("lmtp", path=rest), options)
    if found and scheme in ("smtp", "lmtp"):
        port = SMTP_PORT if scheme == "smtp" else LMTP_PORT
        return _with(Target(scheme, hosts=tuple(_pairs(rest, port))), options)
    if base in ("local", "discard", "reject"):
        return Target(base)
    raise ValueError(f"no way to deliver to {next_hop}")


def _with(target: Target, options: Mapping[str, str]) -> Target:
    if not options:
        return target
    return msgspec.structs.replace(
        target, tls=options.get("tls", ""), source=options.get("source", ""), auth=options.get("auth", "")
    )


def _quoted(text: str) -> str:
    return text.replace("%", "%25").replace("&", "%26").replace("?", "%3F")


def _plain(text: str) -> str:
    return text.replace("%3F", "?").replace("%26", "&").replace("%25", "%")
