"""tripost init: write a configuration to start from

Asks what is not given, on a terminal; with --yes nothing. What it writes is checked before it is written: `tripost
check` accepts it. A file that is there is never written over.

Fails    exit 2 for what cannot be meant, or with nobody to ask; exit 1 when the file cannot be written.
"""

from __future__ import annotations

import argparse
import os
import pwd
import socket
import sys
import tempfile
from typing import Any

from tripost.gateway.cli.starter import Starter, starter
from tripost.gateway.config import read

QUESTIONS = (
    ("hostname", "The name of this machine in DNS"),
    ("listen", "Where mail comes in (IP:PORT, several with commas)"),
    ("relay_network", "Networks that may send anywhere (with commas)"),
    ("local_domain", "Domains whose users have mailboxes here (with commas, empty for none)"),
    ("postmaster", "Who gets mail for postmaster (an address, empty for nobody)"),
    ("smart_host", "Host that takes all outgoing mail (empty: by MX)"),
    ("certificate", "Certificate, PEM (empty: no TLS)"),
    ("key", "Its key, PEM"),
)
USER = "tripost"  # whom the Debian package makes
LISTS = ("listen", "relay_network", "local_domain")


def run(options: argparse.Namespace) -> int:
    if not options.yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        print("tripost: there is no terminal to ask at; give --yes, and what is not as usual", file=sys.stderr)
        return 2
    if bool(options.certificate) != bool(options.key):
        print("tripost: --certificate and --key come together", file=sys.stderr)
        return 2
    given = _usual(options)
    if not options.yes:
        _ask(given, options)
    text = starter(Starter(**given))
    wrong = _wrong(text, os.path.dirname(os.path.abspath(options.output or "x")))
    if wrong:
        for line in wrong:
            print(f"tripost: {line}", file=sys.stderr)
        return 2
    return _write(options.output, text)


def _usual(options: argparse.Namespace) -> dict[str, Any]:
    root = os.geteuid() == 0
    return {
        "hostname": options.hostname or socket.getfqdn(),
        "listen": options.listen or (["0.0.0.0:25", "[::]:25"] if root else ["127.0.0.1:2525"]),
        "relay_network": options.relay_network or ["127.0.0.0/8", "::1/128"],
        "local_domain": options.local_domain,
        "postmaster": options.postmaster or "",
        "smart_host": options.smart_host or "",
        "certificate": options.certificate or "",
        "key": options.key or "",
        "user": USER if root and _exists(USER) else "",
        "state": options.state or ("/var/lib/tripost" if root else "state"),
    }


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _ask(given: dict[str, Any], options: argparse.Namespace) -> None:
    """An empty answer takes what stands in brackets."""
    for name, question in QUESTIONS:
        if getattr(options, name) or (name == "key" and not given["certificate"]):
            continue
        usual = given[name]
        shown = ", ".join(usual) if name in LISTS else usual
        print(f"{question} [{shown}]: ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline().strip()
        if answer:
            given[name] = [one.strip() for one in answer.split(",") if one.strip()] if name in LISTS else answer


def _wrong(text: str, folder: str) -> list[str]:
    """What `tripost check` would refuse. The file is looked at where it will be, so that its paths count alike."""
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".toml", prefix=".tripost-", dir=folder, encoding="utf-8") as file:
            file.write(text)
            file.flush()
            found = read(file.name)
            return [f"{one.key}: {one.reason}" for one in found.problems]
    except OSError as wrong:
        return [f"{folder}: {wrong.strerror}"]


def _write(path: str | None, text: str) -> int:
    if path is None:
        print(text, end="")
        return 0
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as wrong:
        print(f"tripost: {path}: {wrong.strerror}", file=sys.stderr)
        return 1
    print(f"tripost: wrote {path}; look at it, then: tripost check {path}", file=sys.stderr)
    return 0
