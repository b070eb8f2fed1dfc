"""tripost top: what a gateway does now, in a terminal or as lines"""

from __future__ import annotations

import argparse
import os
import sys

import trio

from tripost.gateway import units
from tripost.gateway.config import Config
from tripost.gateway.top.link import Link, Rejected, Unanswered, Where, leaf, where_of_config, where_of_url
from tripost.gateway.top.program import Watching, failure, write_lines

TOKEN_LIMIT = 4096
NO_RICH = "tripost: the screen needs rich: pip install 'tripost[tui]'; or take lines: tripost top --lines 0"


def run(config: Config | None, options: argparse.Namespace) -> int:
    """`config`: this machine's gateway, None where `--url` names another."""
    try:
        where = _where(config, options)
        interval = max(0.1, units.duration(options.interval))
    except (ValueError, OSError) as wrong:
        name = f"{wrong.filename}: " if isinstance(wrong, OSError) and wrong.filename else ""
        print(f"tripost: {name}{getattr(wrong, 'strerror', None) or wrong}", file=sys.stderr)
        return 2
    as_lines = options.json or options.lines is not None or not (sys.stdout.isatty() and sys.stdin.isatty())
    try:
        if as_lines or os.environ.get("TERM", "dumb") == "dumb":
            trio.run(_lines, Link(where), options.json, interval, options.lines or 0)
            return 0
        return _screen(where)
    except* (Unanswered, Rejected) as group:
        code, text = failure(where, leaf(group))
        print(f"tripost: {text}", file=sys.stderr)
    except* KeyboardInterrupt:  # how it ends
        code = 0
    return code


async def _lines(link: Link, as_json: bool, interval: float, most: int) -> None:
    await write_lines(link, as_json=as_json, interval=interval, most=most)


def _screen(where: Where) -> int:
    try:
        from tripost.gateway.top.screen import Screen
    except ImportError:
        print(NO_RICH, file=sys.stderr)
        return 2
    screen = Screen()
    with screen.entered():
        trio.run(Watching(Link(where), screen).run)
    return 0


def _where(config: Config | None, options: argparse.Namespace) -> Where:
    """Raises ValueError, OSError."""
    if config is None:
        return where_of_url(options.url, _token(options.token_file), options.ca)
    monitor = config.monitor
    if options.token_file:
        return where_of_config(config, _token(options.token_file))
    token = ""
    for path in (monitor.token_file, monitor.read_token_file):
        try:
            token = token or _token(path)
        except PermissionError:  # not for this user: he may look, from here
            continue
    return where_of_config(config, token)


def _token(path: str) -> str:
    """Raises OSError, ValueError."""
    if not path:
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        token = file.readline(TOKEN_LIMIT).strip()
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        raise ValueError(f"{path}: holds no token")
    return token
