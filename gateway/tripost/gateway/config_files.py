"""what a configuration names outside of itself: can it be used, and is it kept as it should be?

API      `unusable(config)`: for these a gateway does not start. `suspicious(config)`: for an operator to look at. Both
         tell keys and reasons.
Why      Apart from the rules: an operator's commands read a configuration whose secrets only the service may read.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import stat
from collections.abc import Iterator

from tripost.delivery.client_auth import parse_credentials
from tripost.gateway.config_positions import Path
from tripost.gateway.config_reader import unset
from tripost.gateway.monitor.tokens import TokenError, read_token
from tripost.gateway.peer import Network
from tripost.gateway.privileges import PrivilegeError, identity
from tripost.gateway.reports import templates
from tripost.gateway.settings import Config, Listen
from tripost.gateway.tls import Certificates, Pair, TlsError
from tripost.gateway.wiring_listen import networks, tls_mode

Found = Iterator[tuple[Path, str]]

SOON = 14  # days before a certificate's end
# A relay network wider than this is a part of the Internet, not a site.
WIDEST = {4: 16, 6: 32}
PASSWORDS = ("submission", "pop3", "imap")


def pairs(config: Config) -> list[tuple[Path, Pair]]:
    """Every certificate with its key, and where it is written."""
    tls = config.tls
    found = [(("tls", "certificate"), Pair(tls.certificate, tls.key))] if tls.certificate else []
    more: list[tuple[Path, Pair]] = [
        (("tls", "sni", number, "certificate"), Pair(one.certificate, one.key)) for number, one in enumerate(tls.sni)
    ]
    return [*found, *more]


def secrets(config: Config) -> Iterator[tuple[Path, str]]:
    """Every file that only the gateway is to read."""
    if config.tls.key:
        yield ("tls", "key"), config.tls.key
    for number, one in enumerate(config.tls.sni):
        yield ("tls", "sni", number, "key"), one.key
    yield ("auth", "file"), config.accounts_file
    for number, route in enumerate(config.route):
        if route.auth_file:
            yield ("route", number, "auth_file"), route.auth_file


def unusable(config: Config) -> Found:
    if config.user:
        try:
            identity(config)
        except PrivilegeError as wrong:
            yield ("group" if "group" in str(wrong) else "user",), str(wrong)
    monitor = config.monitor
    for key, pair in pairs(config):
        if unset(pair.certificate) or unset(pair.key):
            continue
        try:
            Certificates(pair)
        except TlsError as wrong:
            yield key, str(wrong)
    for number, one in enumerate(config.route):
        if one.auth_file and not unset(one.auth_file):
            why = _credentials(one.auth_file)
            if why:
                yield ("route", number, "auth_file"), why
    if not unset(config.dsn.templates):
        try:
            templates(config.dsn.templates)
        except ValueError as wrong:
            yield ("dsn", "templates"), str(wrong)
    for name, path in (("token_file", monitor.token_file), ("read_token_file", monitor.read_token_file)):
        if path and not unset(path):
            try:
                read_token(path)
            except TokenError as wrong:
                yield ("monitor", name), str(wrong)
    if not unset(config.accounts_file):
        why = _accounts(config.accounts_file)
        if why:
            yield ("auth", "file"), why


def _credentials(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            parse_credentials(file.read())
    except OSError as wrong:
        return f"{path}: {wrong.strerror}"
    except ValueError as wrong:
        return f"{path}: {wrong}"
    return ""


def _accounts(path: str) -> str:
    """A file that is missing has no users."""
    try:
        with open(path, encoding="utf-8") as file:
            file.read()
    except FileNotFoundError:
        return ""
    except OSError as wrong:
        return f"{path}: {wrong.strerror}"
    except UnicodeDecodeError as wrong:
        return f"{path}: not UTF-8 at octet {wrong.start}"
    return ""


def suspicious(config: Config) -> Found:
    yield from _open_to_relay(config)
    yield from _in_plain_text(config)
    yield from _readable(config)
    for key, pair in pairs(config):
        if not unset(pair.certificate):
            yield from ((key, why) for why in _certificate(pair.certificate, config.hostname, len(key) == 2))


def _open_to_relay(config: Config) -> Found:
    relay = networks(config.relay.networks)
    for number, network in enumerate(relay):
        if _too_wide(network):
            yield ("relay", "networks", number), f"OPEN RELAY: everybody in {network} may send to anywhere without AUTH"
    for number, one in enumerate(config.listen):
        for place, network in enumerate(networks(one.xclient)):
            if _too_wide(network):
                why = f"everybody in {network} may claim to come from a relay network"
                yield ("listen", number, "xclient", place), f"OPEN RELAY: {why}"
    proxies = networks(config.proxy.networks)
    for number, network in enumerate(proxies):
        if _too_wide(network) and any(one.proxy_protocol for one in config.listen):
            why = f"everybody in {network} may claim to come from a relay network"
            yield ("proxy", "networks", number), f"OPEN RELAY: {why}"
    if not any(_meet(one, other) for one in proxies for other in relay):
        return
    for number, one in enumerate(config.listen):
        if not one.proxy_protocol and one.service == "smtp" and any(each.proxy_protocol for each in config.listen):
            why = "takes no PROXY header: who comes through a proxy that is a relay network may send to anywhere"
            yield ("listen", number, "address"), why


def _too_wide(network: Network) -> bool:
    return not network.is_private and network.prefixlen < WIDEST[network.version]


def _meet(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _in_plain_text(config: Config) -> Found:
    for number, one in enumerate(config.listen):
        if _only_here(one) or tls_mode(config, one) != "none":
            continue
        if one.service in PASSWORDS:
            yield ("listen", number, "service"), f"{one.service} without TLS: {_no_login(config, one)}"
        elif one.service == "smtp":
            yield ("listen", number, "service"), "smtp without TLS: mail comes in over the network in plain text"
        elif one.service == "monitor":
            yield ("listen", number, "service"), "monitor without TLS: what it shows can be read on the way"
            if not (config.monitor.token_file or config.monitor.read_token_file):
                yield ("listen", number, "address"), "nobody may look there: [monitor] has no token_file"
            if not config.monitor.origins:
                yield ("listen", number, "address"), "[monitor] origins does not say by which name it is asked there"
    for key in ("cleartext", "pop3_imap_cleartext"):
        if getattr(config.auth, key) == "always":
            yield ("auth", key), "passwords are taken over the network in plain text"
    yield from _local_submission(config)


def _local_submission(config: Config) -> Found:
    for number, one in enumerate(config.listen):
        plain = one.service == "submission" and tls_mode(config, one) == "none" and _only_here(one)
        if plain and config.auth.cleartext == "never":
            yield ("listen", number, "service"), f"submission without TLS: {_no_login(config, one)}"


def _no_login(config: Config, one: Listen) -> str:
    rule = config.auth.cleartext if one.service == "submission" else config.auth.pop3_imap_cleartext
    return (
        "passwords go over the network in plain text"
        if rule == "always"
        else "only accounts with a SCRAM-SHA-256 verifier can log in there"
    )


def _only_here(one: Listen) -> bool:
    if one.address.startswith("unix:"):
        return True
    return ipaddress.ip_address(one.address.rpartition(":")[0].strip("[]")).is_loopback


def _readable(config: Config) -> Found:
    for key, path in secrets(config):
        if unset(path):
            yield key, f"{path} was not looked at: {unset(path)} is set for the service only"
            continue
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue  # what cannot be read is told as unusable
        if mode & stat.S_IROTH:
            yield key, f"{path} can be read by every user of this machine; chmod o-r it"


def _certificate(path: str, hostname: str, default: bool) -> Iterator[str]:
    """Its end; and for the default one whether it names the host."""
    from cryptography import x509

    try:
        with open(path, "rb") as file:
            found = x509.load_pem_x509_certificate(file.read())
    except (OSError, ValueError):
        return  # told as unusable
    left = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    if left.total_seconds() < 0:
        yield f"{path} has expired on {found.not_valid_after_utc:%Y-%m-%d}"
    elif left.days < SOON:
        yield f"{path} expires on {found.not_valid_after_utc:%Y-%m-%d}"
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    known = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    if default and hostname not in known and f"*.{hostname.partition('.')[2]}" not in known:
        yield f"{path} is for {', '.join(known[:3]) or 'nobody'}, not for {hostname}"
