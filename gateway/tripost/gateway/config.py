"""one TOML file → `Config`

Promise  every unknown key, wrong type and impossible value is told at once,
         each with file, line, column, key and reason; nothing is guessed.
Order    the file given, else tripost.toml, else /etc/tripost/tripost.toml,
         else the built-in settings: loopback only.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import socket
import tomllib
from collections.abc import Callable
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from tripost.delivery.wire.addresses import AddressError, check_domain, parse_address
from tripost.gateway import units
from tripost.gateway.backend import check_backend
from tripost.gateway.config_positions import Path, nearest, positions
from tripost.gateway.settings import Config, Listen, TlsTable
from tripost.gateway.sockets import ListenError, check_address, split_address
from tripost.gateway.wiring_delivery import unfit

__all__ = ["Config", "ConfigError", "load"]

PLACES = ("tripost.toml", "/etc/tripost/tripost.toml")
SERVICES = (("smtp", 2525), ("submission", 2587), ("pop3", 2110), ("imap", 2143), ("monitor", 8025))
_NAMES: dict[Any, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


_UNITS: dict[str, tuple[Callable[[str], Any], str]] = {
    "duration": (units.duration, '"5m"'),
    "size": (units.size, '"50MiB"'),
    "rate": (units.rate, '"100/min"'),
    "octets a second": (units.byte_rate, '"100B/s"'),
}


class ConfigError(Exception):
    """`errors`: one line each, for the operator."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


def load(path: str | None = None) -> Config:
    """Raises ConfigError."""
    if path is None:
        path = next((place for place in PLACES if os.path.exists(place)), None)
    if path is None:
        return _complete(msgspec.convert({"listen": _default_listen()}, Config), os.getcwd())
    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8")
    except OSError as wrong:
        raise ConfigError([f"{path}: {wrong.strerror}"]) from wrong
    except UnicodeDecodeError as wrong:
        raise ConfigError([f"{path}: not UTF-8 at octet {wrong.start}"]) from wrong
    return _complete(_read(path, text), os.path.dirname(os.path.abspath(path)))


def _read(path: str, text: str) -> Config:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        where = re.search(r" \(at line (\d+), column (\d+)\)", str(wrong))
        reason = str(wrong).replace(where[0], "") if where else str(wrong)
        place = f"{path}:{where[1]}:{where[2]}" if where else path
        raise ConfigError([f"{place}: {reason}"]) from wrong
    reader = _Reader()
    config: Config = reader.struct(Config, table, ())
    if not reader.errors:
        _check(config, reader.error)
    if reader.errors:
        found = positions(text)
        rows = sorted((nearest(found, key), key, reason) for key, reason in reader.errors)
        raise ConfigError([f"{path}:{line}:{column}: {_dotted(key)}: {why}" for (line, column), key, why in rows])
    return config


def _dotted(key: Path) -> str:
    text = ""
    for part in key:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "file"


class _Reader:
    """Walks the types and the table side by side; collects errors instead of raising the first."""

    def __init__(self) -> None:
        self.errors: list[tuple[Path, str]] = []

    def error(self, path: Path, reason: str) -> None:
        self.errors.append((path, reason))

    def struct(self, kind: type[Any], table: object, path: Path) -> Any:
        if not isinstance(table, dict):
            self.error(path, f"must be a table, not {_shown(table)}")
            return None
        rows: dict[str, object] = {str(key): value for key, value in table.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        hints = get_type_hints(kind, include_extras=True)
        for key in rows:
            if key not in hints:
                close = difflib.get_close_matches(key, hints, 1)
                self.error((*path, key), "unknown key" + (f'; did you mean "{close[0]}"?' if close else ""))
        for field in msgspec.structs.fields(kind):
            if field.required and field.name not in rows:
                self.error(path, f'"{field.name}" is missing')
        before = len(self.errors)
        values = {name: self.value(hint, rows[name], (*path, name)) for name, hint in hints.items() if name in rows}
        return kind(**values) if len(self.errors) == before and not self._missing(kind, rows) else None

    @staticmethod
    def _missing(kind: type[Any], rows: dict[str, object]) -> bool:
        return any(field.required and field.name not in rows for field in msgspec.structs.fields(kind))

    def value(self, hint: Any, value: object, path: Path) -> Any:
        marks = getattr(hint, "__metadata__", ())
        if marks:
            return self._unit(marks[0], value, path)
        origin = get_origin(hint)
        if origin is UnionType or origin is Union:  # X | None: what is absent is None
            return self.value(get_args(hint)[0], value, path)
        if origin is dict:
            return self._table(get_args(hint)[1], value, path)
        if origin is list:
            return self._list(get_args(hint)[0], value, path)
        if origin is Literal:
            return self._choice(get_args(hint), value, path)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self.struct(hint, value, path)
        if hint is float and type(value) is int:
            return float(value)
        if type(value) is not hint:
            self.error(path, f"must be {_NAMES[hint]}, not {_shown(value)}")
        elif hint is int and isinstance(value, int) and value < 0:
            self.error(path, "must not be negative")
        return value

    def _list(self, item: Any, value: object, path: Path) -> Any:
        if not isinstance(value, list):
            self.error(path, f"must be a list, not {_shown(value)}")
            return None
        items: list[object] = list(value)  # pyright: ignore[reportUnknownArgumentType]
        return [self.value(item, one, (*path, number)) for number, one in enumerate(items)]

    def _table(self, item: Any, value: object, path: Path) -> Any:
        if not isinstance(value, dict):
            self.error(path, f"must be a table, not {_shown(value)}")
            return None
        rows: dict[str, object] = {str(key): one for key, one in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return {key: self.value(item, one, (*path, key)) for key, one in rows.items()}

    def _choice(self, choices: tuple[Any, ...], value: object, path: Path) -> Any:
        if value not in choices:
            self.error(path, f"must be one of {', '.join(choices)}, not {_shown(value)}")
        return value

    def _unit(self, unit: str, value: object, path: Path) -> Any:
        parse, example = _UNITS[unit]
        if not isinstance(value, str):
            self.error(path, f"must be {_article(unit)} such as {example}, not {_shown(value)}")
            return None
        try:
            return parse(value)
        except ValueError as wrong:
            self.error(path, str(wrong))
            return None


def _article(unit: str) -> str:
    return unit if " " in unit else f"a {unit}"


def _shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)


Complain = Callable[[Path, str], None]


def _check(config: Config, complain: Complain) -> None:
    """What types cannot say."""

    def each(values: list[str], path: Path, parse: Callable[[str], object]) -> None:
        for number, value in enumerate(values):
            _try(value, (*path, number), parse, complain)

    if config.hostname:
        _try(config.hostname, ("hostname",), check_domain, complain)
    if not config.listen:
        complain(("listen",), "at least one [[listen]] is needed")
    for number, one in enumerate(config.listen):
        _try(one.address, ("listen", number, "address"), check_address, complain)
        each(one.xclient, ("listen", number, "xclient"), _network)
        for key, reason in _unfit(config, one):
            complain(("listen", number, key), reason)
    _check_tls(config, complain)
    _try(config.auth.backend, ("auth", "backend"), check_backend, complain)
    each(config.proxy.networks, ("proxy", "networks"), _network)
    each(config.relay.networks, ("relay", "networks"), _network)
    each(config.relay.domains, ("relay", "domains"), check_domain)
    each(config.local.domains, ("local", "domains"), check_domain)
    each(config.dns.nameservers, ("dns", "nameservers"), _nameserver)
    if config.local.postmaster:
        _try(config.local.postmaster, ("local", "postmaster"), parse_address, complain)
    _check_local(config, complain)
    for number, route in enumerate(config.route):
        _try(route.domain, ("route", number, "domain"), _pattern, complain)
    for where, reason in unfit(config):
        complain(where, reason)
    _check_numbers(config, complain)


def _check_local(config: Config, complain: Complain) -> None:
    """Who is known here, under which names."""
    local = config.local
    domains = {domain.lower() for domain in local.domains or [config.hostname or socket.gethostname()]}

    def ours(address: str) -> None:
        domain = parse_address(address).rpartition("@")[2].lower()
        if domain not in domains:
            raise ValueError(f"{domain} is not one of [local] domains")

    for name, targets in local.aliases.items():
        _try(name, ("local", "aliases", name), ours, complain)
        if not targets:
            complain(("local", "aliases", name), "must name somebody")
        for number, target in enumerate(targets):
            _try(target, ("local", "aliases", name, number), parse_address, complain)
    for domain, target in local.catch_all.items():
        if domain.lower() not in domains:
            complain(("local", "catch_all", domain), "is not one of [local] domains")
        _try(target, ("local", "catch_all", domain), parse_address, complain)
    for name in local.mailbox:
        _try(name, ("local", "mailbox", name), ours, complain)


def _unfit(config: Config, one: Listen) -> list[tuple[str, str]]:
    """What a listener asks for and cannot get."""
    found: list[tuple[str, str]] = []
    if one.tls in ("starttls", "implicit") and not config.tls.certificate:
        found.append(("tls", "needs a [tls] certificate"))
    if one.tls == "starttls" and one.service == "monitor":
        found.append(("tls", "the monitor has no STARTTLS; write none or implicit"))
    if one.require_tls and (one.tls == "none" or not config.tls.certificate):
        found.append(("require_tls", "needs TLS on this listener"))
    if one.proxy_protocol and not config.proxy.networks:
        found.append(("proxy_protocol", "needs [proxy] networks, which may send the header"))
    if one.address.startswith("unix:") and (one.proxy_protocol or one.xclient):
        found.append(("address", "a Unix socket takes neither proxy_protocol nor xclient"))
    return found


def _check_tls(config: Config, complain: Complain) -> None:
    tls = config.tls
    if bool(tls.certificate) != bool(tls.key):
        complain(("tls", "key" if tls.key else "certificate"), "certificate and key come together")
    if tls.sni and not tls.certificate:
        complain(("tls", "sni", 0), "needs a certificate in [tls], for clients that name no host")
    for number, one in enumerate(tls.sni):
        for place, name in enumerate(one.names):
            _try(name, ("tls", "sni", number, "names", place), _pattern, complain)


def _network(text: str) -> None:
    ipaddress.ip_network(text, strict=False)


def _check_numbers(config: Config, complain: Complain) -> None:
    retry, delivery = config.retry, config.delivery
    rules: list[tuple[bool, Path, str]] = [
        (0 < delivery.port < 65_536, ("delivery", "port"), "must be between 1 and 65535"),
        (retry.factor >= 1, ("retry", "factor"), "must be 1 or more"),
        (0 <= retry.jitter < 1, ("retry", "jitter"), "must be at least 0 and less than 1"),
        (retry.first > 0, ("retry", "first"), "must be more than 0"),
        (retry.expire > 0, ("retry", "expire"), "must be more than 0"),
        (all(one > 0 for one in retry.schedule), ("retry", "schedule"), "every delay must be more than 0"),
        (config.spool.segment_size >= 1 << 16, ("spool", "segment_size"), "must be at least 64KiB"),
        (config.spool.inline <= 1 << 20, ("spool", "inline"), "must be at most 1MiB"),
        (config.history.size >= 1 << 24, ("history", "size"), "must be at least 16MiB"),
        (config.limits.memory >= 1 << 20, ("limits", "memory"), "must be at least 1MiB"),
        (config.smtp.greet_delay <= 60, ("smtp", "greet_delay"), "must be at most 60s"),
        (len(config.local.separator) <= 1, ("local", "separator"), "must be one character, or empty"),
    ]
    counts = {
        "limits": ("recipients", "connections", "client_connections", "errors", "junk_commands", "message_size"),
    }
    for table, names in counts.items():
        rules += [(getattr(getattr(config, table), name) > 0, (table, name), "must be more than 0") for name in names]
    for good, path, reason in rules:
        if not good:
            complain(path, reason)


def _try(value: str, path: Path, parse: Callable[[str], object], complain: Complain) -> None:
    try:
        parse(value)
    except (AddressError, ListenError, ValueError) as wrong:
        complain(path, f'"{value}": {wrong}' if value not in str(wrong) else str(wrong))


def _nameserver(text: str) -> None:
    host, port = split_address(text)
    ipaddress.ip_address(host)
    if not 0 < port < 65_536:
        raise ValueError("the port must be between 1 and 65535")


def _pattern(text: str) -> None:
    if text != "*":
        check_domain(text.removeprefix("*."))


def _default_listen() -> list[dict[str, str]]:
    return [
        {"service": service, "address": f"127.0.0.1:{port}", "tls": "none" if service == "monitor" else "starttls"}
        for service, port in SERVICES
    ]


def _default_state() -> str:
    state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return state or os.path.join(home, "tripost")


def _complete(config: Config, folder: str) -> Config:
    """Fill in what the machine knows; relative paths count from the file."""
    replace = msgspec.structs.replace
    hostname = (config.hostname or socket.gethostname()).lower()
    state = os.path.join(folder, config.state) if config.state else _default_state()
    auth = os.path.join(folder, config.auth.file) if config.auth.file else os.path.join(state, "accounts")
    events = os.path.join(folder, config.events.file) if config.events.file else ""
    return replace(
        config,
        tls=_absolute(config.tls, folder),
        hostname=hostname,
        state=os.path.normpath(state),
        auth=replace(config.auth, file=os.path.normpath(auth)),
        events=replace(config.events, file=events),
        dsn=replace(config.dsn, templates=_beside(folder, config.dsn.templates)),
        route=[replace(one, auth_file=_beside(folder, one.auth_file)) for one in config.route],
        local=replace(config.local, domains=config.local.domains or [hostname]),
    )


def _beside(folder: str, text: str) -> str:
    return os.path.join(folder, text) if text else ""


def _absolute(tls: TlsTable, folder: str) -> TlsTable:
    replace = msgspec.structs.replace
    more = [replace(one, certificate=_beside(folder, one.certificate), key=_beside(folder, one.key)) for one in tls.sni]
    return replace(tls, certificate=_beside(folder, tls.certificate), key=_beside(folder, tls.key), sni=more)
