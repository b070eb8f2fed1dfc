"""what the client's side of a message costs without sockets: commands, replies, verdicts, classes, limits

    deploy/uv run python bench/protocol.py
"""

from __future__ import annotations

import pyperf

from tripost.delivery.classify import classify
from tripost.delivery.demands import Content, Host, Plan, plan
from tripost.delivery.pace import Pace
from tripost.delivery.settings import Rate
from tripost.delivery.smtp_protocol import Transaction
from tripost.delivery.verdicts import verdict
from tripost.delivery.wire.replies import Reply, ReplyReader
from tripost.queue.message import Envelope, Recipient

ONE = Recipient(0, "u@x.example", "mx:x.example")
ENVELOPE = Envelope("ID", "s@y.example", (ONE,), 1.8e9, 1.9e9, 2048)
HOST = Host({"PIPELINING": "", "CHUNKING": "", "SIZE": "50000000", "8BITMIME": ""}, "mx.x.example")
CONTENT = Content(2048)
WHOLE = b"BDAT 2048 LAST\r\n" + b"x" * 2048
REPLIES = b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n250 2.0.0 queued as 42\r\n"
LATER = Reply(451, "4.3.0", ("try again later",))


def transaction() -> None:
    """From the envelope to the verdict, of one recipient."""
    planned = plan(ENVELOPE, (ONE,), HOST, CONTENT, 1.8e9)
    assert isinstance(planned, Plan)
    one = Transaction(planned.mail, planned.rcpts, pipelining=True, chunking=True, whole=WHOLE)
    one.commands()
    reader = ReplyReader()
    reader.feed(REPLIES)
    while (reply := reader.next()) is not None:
        one.take(reply)
    found = one.verdicts[0]
    verdict(found.phase, found.reply, HOST.name)


def paced() -> None:
    pace, now = Pace(Rate(50, 1.0)), 0.0
    for _ in range(10):
        now += pace.wait(now)
        pace.take(now)


def classes() -> None:
    classify.cache_clear()
    classify("550 5.7.1 <x@y.example>: Relay access denied")


if __name__ == "__main__":
    runner = pyperf.Runner()
    runner.bench_func("delivery: a transaction", transaction)
    runner.bench_func("delivery: verdict", lambda: verdict("rcpt", LATER, "mx.x.example"))
    runner.bench_func("delivery: classify, not cached", classes)
    runner.bench_func("delivery: ten turns of a rate", paced)
