"""the configuration that `tripost init` writes: few keys, each with a word about it. Pure."""

from __future__ import annotations

import json

import msgspec


class Starter(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator said; "" and [] for what is as usual."""

    hostname: str
    listen: list[str]
    relay_network: list[str]
    local_domain: list[str]
    postmaster: str
    smart_host: str
    certificate: str
    key: str
    user: str
    state: str


def starter(said: Starter) -> str:
    parts = [_head(said), *(_listen(said, one) for one in said.listen), _tls(said), _who(said), _where(said), _TAIL]
    return "\n".join(part for part in parts if part)


def _text(value: str | list[str]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _head(said: Starter) -> str:
    return f"""\
# tripost: what is not here is as usual. Every key: docs/configuration.md, or `tripost config show`.
# After a change: `tripost check`, then `tripost reload`, or `tripost restart` for what that names.

# How this machine calls itself: in its greeting, EHLO and Received lines. Others look for this name in DNS.
hostname = {_text(said.hostname)}

# The spool, the mailboxes, the accounts, the control socket. Must survive a restart; back it up.
state = {_text(said.state)}
{_user(said)}
# More files, read after this one by name.
# include = ["conf.d/*.toml"]
"""


def _user(said: Starter) -> str:
    if not said.user:
        return ""
    return f"""
# Started as root, it is this user once its ports are open. Under systemd it never is root.
user = {_text(said.user)}
"""


def _listen(said: Starter, address: str) -> str:
    return f"""\
[[listen]]
service = "smtp"
address = {_text(address)}
"""


def _tls(said: Starter) -> str:
    if said.certificate:
        return f"""\
# Renewed files are taken into use within 30 s.
[tls]
certificate = {_text(said.certificate)}
key = {_text(said.key)}
"""
    return """\
# With a certificate, SMTP offers STARTTLS, and users can submit mail with a password:
# [tls]
# certificate = "cert.pem"
# key = "key.pem"
#
# [[listen]]
# service = "submission"
# address = "0.0.0.0:465"
# tls = "implicit"
"""


def _who(said: Starter) -> str:
    local = f"""\
# Mail for these domains goes to mailboxes on this machine: `tripost user add ADDRESS`.
[local]
domains = {_text(said.local_domain)}
"""
    if said.postmaster:
        local += f"postmaster = {_text(said.postmaster)}\n"
    return f"""\
# Clients that may send anywhere without a password. Never a network of strangers.
[relay]
networks = {_text(said.relay_network)}

{local}"""


def _where(said: Starter) -> str:
    if not said.smart_host:
        return """\
# Everything else goes where its MX says. To send all of it to one host instead:
# [[route]]
# domain = "*"
# to = "smtp://relay.example:25"
"""
    return f"""\
# All other mail goes to this host.
[[route]]
domain = "*"
to = {_text(f"smtp://{said.smart_host}")}
"""


_TAIL = """\
# Below this much room on the disk, mail is told to come later.
[spool]
min_free = "1GiB"

# How long a message is tried before its sender is told.
[retry]
expire = "5d"
"""
