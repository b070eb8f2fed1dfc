"""POP3's protocol under a coverage-guided fuzzer

    deploy/uv run --with atheris python bench/fuzz_pop3.py [-runs=200000]

The first two octets choose the state and the size of the pieces in which the rest comes; however it is cut, the
protocol must say the same, and nothing may be raised. Options are libFuzzer's.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-not-found]  # not one of our dependencies: only here

with atheris.instrument_imports():
    from tripost.gateway.egress.pop3_protocol import Command, Line, Pop3Protocol
    from tripost.gateway.egress.pop3_top import Top
    from tripost.gateway.sasl import Challenge, Exchange, NeedKeys, ScramKeys

KEYS = ScramKeys(4096, b"salt", b"k" * 32, b"k" * 32)


def _run(state: int, pieces: list[bytes]) -> list[object]:
    protocol = Pop3Protocol(secured=bool(state & 1), stls=bool(state & 2), need_tls=bool(state & 4))
    if state & 8:
        protocol.log_in()
    found: list[object] = []
    exchange: Exchange | None = None
    for piece in pieces:
        protocol.feed(piece)
        while (event := protocol.next()) is not None:
            found.append(event)
            step: object = None
            if isinstance(event, Command) and event.verb == "AUTH":
                exchange = Exchange(event.text, "nonce")
                step = exchange.begin(event.initial)
            elif isinstance(event, Line) and exchange is not None:
                step = exchange.reply(event.text)
            if isinstance(step, NeedKeys) and exchange is not None:
                step = exchange.keys_found(KEYS)
            found.append(step)
            if isinstance(step, Challenge):
                protocol.begin_exchange()
            elif step is not None:
                protocol.end_exchange()
    return found


def one(data: bytes) -> None:
    if len(data) < 2:
        return
    state, step, text = data[0], data[1] % 32 + 1, data[2:]
    whole = _run(state, [text])
    if _run(state, [text[at : at + step] for at in range(0, len(text), step)]) != whole:
        raise AssertionError("the cuts matter")
    if len(whole) < 2 * text.count(b"\r\n"):
        raise AssertionError("a line without an answer")
    top = Top(step % 5)
    for at in range(0, len(text), step):
        top.feed(text[at : at + step])
        if top.over:
            break


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
