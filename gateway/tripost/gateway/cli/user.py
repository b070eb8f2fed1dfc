"""tripost user add | passwd | remove | list

Passwords come from the terminal (twice, unseen) or from standard input, never
from the arguments, which every user of the machine can read.
"""

from __future__ import annotations

import argparse
import getpass
import sys

from tripost.gateway.accounts import Accounts
from tripost.gateway.config import Config


def run(config: Config, options: argparse.Namespace) -> int:
    accounts = Accounts(config.accounts_file)
    try:
        return _act(accounts, options)
    except OSError as wrong:
        print(f"tripost: {config.accounts_file}: {wrong.strerror}", file=sys.stderr)
        return 2
    except (KeyError, ValueError) as wrong:
        print(f"tripost: {wrong.args[0] if wrong.args else wrong}", file=sys.stderr)
        return 1


def _act(accounts: Accounts, options: argparse.Namespace) -> int:
    if options.verb == "list":
        for address in accounts.list():
            print(address)
    elif options.verb == "remove":
        accounts.remove(options.address)
        print(f"removed {options.address}; its mailbox was left in place", file=sys.stderr)
    else:
        password = _password(options.password_stdin)
        if options.verb == "add":
            accounts.add(options.address, password)
        else:
            accounts.set_password(options.address, password)
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
