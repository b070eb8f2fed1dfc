"""tripost user add | passwd | remove | list | quota | disable | enable

Passwords come from the terminal (twice, unseen) or from standard input, never
from the arguments, which every user of the machine can read.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time

import msgspec

from tripost.delivery.mailbox.policy import Policy, quota_rule
from tripost.delivery.mailbox.uids import folder_name
from tripost.delivery.mailbox.usage import Usage
from tripost.gateway import units
from tripost.gateway.accounts import Accounts, AccountsError
from tripost.gateway.backend import FILE
from tripost.gateway.config import Config
from tripost.gateway.mailboxes import Mailboxes
from tripost.gateway.observe.history_store import FILE as HISTORY
from tripost.gateway.observe.past import last_logins
from tripost.gateway.schemes import ARGON2ID, scheme_of, usable


def run(config: Config, options: argparse.Namespace) -> int:
    accounts = Accounts(config.accounts_file)
    try:
        return _act(config, accounts, options)
    except OSError as wrong:
        print(f"tripost: {wrong.filename or config.accounts_file}: {wrong.strerror}", file=sys.stderr)
        return 2
    except AccountsError as wrong:
        print(f"tripost: {wrong}", file=sys.stderr)
        return 2
    except (KeyError, ValueError) as wrong:
        print(f"tripost: {wrong.args[0] if wrong.args else wrong}", file=sys.stderr)
        return 1


def _act(config: Config, accounts: Accounts, options: argparse.Namespace) -> int:
    verb = options.verb
    if verb == "list":
        _list(config, accounts, as_json=options.json)
    elif verb == "remove":
        accounts.remove(options.address)
        print(f"removed {options.address}; its mailbox was left in place", file=sys.stderr)
    elif verb in ("disable", "enable"):
        accounts.set_disabled(options.address, verb == "disable")
    elif verb == "quota":
        _quota(config, accounts, options)
    elif config.auth.backend != FILE:
        if verb == "passwd" or options.scheme or options.password_stdin:
            raise ValueError(f"{config.auth.backend} has the passwords")
        accounts.add(options.address, None)
    else:
        password = _password(options.password_stdin)
        if verb == "add":
            accounts.add(options.address, password, options.scheme or ARGON2ID)
        else:
            accounts.set_password(options.address, password, options.scheme)
    return 0


def _password(from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise ValueError("the two passwords differ")
    if not password:
        raise ValueError("an empty password is not accepted")
    return password


class Row(msgspec.Struct, omit_defaults=True):
    """What `list --json` prints; `login` is "" where no password fits."""

    address: str
    scheme: str
    usable: bool
    disabled: bool = False
    quota_rule: str = ""
    last_login: float = 0.0
    last_service: str = ""
    last_client: str = ""


def _list(config: Config, accounts: Accounts, *, as_json: bool) -> None:
    logins, backend = last_logins(os.path.join(config.state, HISTORY)), config.auth.backend
    for entry in accounts.list():
        last, own = logins.get(entry.address), backend == FILE
        row = Row(
            address=entry.address,
            scheme=scheme_of(entry.verifier) if own else backend,
            usable=usable(entry.verifier) if own else True,
            disabled=entry.disabled,
            quota_rule=entry.quota_rule,
            last_login=last.time if last is not None else 0.0,
            last_service=last.service if last is not None else "",
            last_client=last.client if last is not None else "",
        )
        print(msgspec.json.encode(row).decode() if as_json else _shown(row))


def _shown(row: Row) -> str:
    words = [row.address, row.scheme if row.usable else f"{row.scheme or 'no password'} (cannot log in)"]
    if row.disabled:
        words.append("disabled")
    if row.quota_rule:
        words.append(row.quota_rule)
    if row.last_login:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.last_login))
        words.append(f"{row.last_service} {at}{f' from {row.last_client}' if row.last_client else ''}")
    return "  ".join(words)


def _quota(config: Config, accounts: Accounts, options: argparse.Namespace) -> None:
    address, rule = options.address, ""
    if not accounts.exists(address):
        raise KeyError(f"{address} is no user here; `tripost user list` shows them")
    if options.size is None and options.messages is None:
        _show_quota(config, accounts, address)
        return
    if options.size != "none":
        limits = dict(_limits(accounts.quota_rule(address)))
        if options.size is not None:
            limits.pop("storage", None)
            limits["bytes"] = str(units.size(options.size))
        if options.messages is not None:
            limits["messages"] = str(options.messages)
        rule = ":".join(["*", *(f"{name}={value}" for name, value in limits.items())])
        quota_rule(Policy(), rule)  # is it one?
    elif options.messages is not None:
        raise ValueError("none takes away both limits; write 0 for no limit in octets")
    accounts.set_quota_rule(address, rule)


def _limits(rule: str) -> list[tuple[str, str]]:
    parts = (one.partition("=") for one in rule.split(":")[1:])
    return [(name, value) for name, _, value in parts]


def _show_quota(config: Config, accounts: Accounts, address: str) -> None:
    mailboxes = Mailboxes(config, accounts.exists, accounts.quota_rule)
    policy = mailboxes.policy(address)
    octets, messages = Usage().measure(os.path.join(mailboxes.folder, folder_name(address)))
    most, many = policy.quota or "unlimited", policy.quota_messages or "unlimited"
    print(f"{octets} of {most} octets, {messages} of {many} messages")
