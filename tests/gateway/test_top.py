"""tripost top without a terminal: keys, the model, what is drawn, whom it speaks to"""

from __future__ import annotations

import pathlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.gateway.settings import Config, Listen
from tripost.gateway.top import plain
from tripost.gateway.top.drawing import draw, heat, spark
from tripost.gateway.top.keys import Keys
from tripost.gateway.top.link import apply, take, where_of_config, where_of_url
from tripost.gateway.top.model import SORTS, Ask, Model
from tripost.gateway.top.words import age, brief, clean, count, fit, octets, width

HOP: dict[str, Any] = {
    "site": "mx.example",
    "state": "ready",
    "deliveries": 1,
    "recipients": 1,
    "octets": 2048,
    "oldest": 5.0,
    "next_due": 0.0,
    "ages": [1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    "by": "",
    "wait": 0.0,
    "why": "",
    "until": 0.0,
    "failures": 0,
    "rate": 0.0,
    "reply": "",
    "reply_at": 0.0,
}
RATE = {"s1": 12.5, "s10": 12.0, "s60": 11.0}
LATE = {"count": 9, "p50": 0.002, "p90": 0.01, "p99": 1.5}


def state(**hops: dict[str, Any]) -> dict[str, Any]:
    return {
        "time": 1_800_000_000.0,
        "seq": 7,
        "hostname": "smtp.machin.com",
        "version": "0.1.0",
        "up": 3700.0,
        "state": "serving",
        "ready": True,
        "reason": "",
        "rates": dict.fromkeys(("accepted", "relayed", "delivered", "failed", "deferred", "messages", "octets"), RATE),
        "latency": {"accept": LATE, "deliver": {"count": 0, "p50": 0.0, "p90": 0.0, "p99": 0.0}},
        "queue": {"messages": 3, "queued": 4, "octets": 5000},
        "connections": {"in": {"smtp": 2}, "out": 1, "most_in": 2, "most_out": 1},
        "states": {"ready": 1, "down": 2},
        "hops": {name: HOP | one for name, one in hops.items()},
        "hops_total": len(hops),
        "failures": [
            {
                "class": "no-user",
                "outcome": "failed",
                "count": 3,
                "last": {"time": 1_799_999_990.0, "host": "mx.x", "recipient": "a@x", "reply": "550 5.1.1 no\x1b[2J"},
            }
        ],
        "actions": [{"action": "17", "verb": "hold", "who": "root", "messages": 5, "can_be_undone": True}],
        "dropped": {"log": 0},
        "series": {"time": [1.0, 2.0], "accepted": [1, 2], "relayed": [0, 4]},
    }


def model(**hops: dict[str, Any]) -> Model:
    one = Model()
    one.told(state(**hops))
    one.window()
    return one


def shown(one: Model, cells: int = 80, lines: int = 24) -> list[str]:
    return ["".join([span.text for span in line]) for line in draw(one, cells, lines, 1_800_000_000.0)]


# --- words and keys ---


@given(st.text(max_size=30), st.integers(0, 40))
def test_what_is_fitted_is_exactly_so_wide(text: str, cells: int) -> None:
    assert width(fit(clean(text), cells)) == cells
    assert all(one.isprintable() for one in clean(text))


def test_figures_are_short() -> None:
    assert [count(one) for one in (0, 9999, 12345, 123456, 7_654_321)] == ["0", "9,999", "12.3k", "123k", "7.7M"]
    assert [octets(one) for one in (0, 1500, 5 << 20, 3 << 40)] == ["0 B", "1.5 KiB", "5.0 MiB", "3.0 TiB"]
    assert [age(one) for one in (5, 65, 3700, 90000)] == ["5s", "1m05s", "1h01m", "1d01h"]
    assert [brief(one) for one in (0.0021, 0.051, 1.5, 99.0)] == ["2.1ms", "51ms", "1.50s", "1m39s"]
    assert fit("日本語", 4) == "日… "
    assert heat([0, 4, 8]) == "·▄█"
    assert spark([0, 1, 2], 2) == "▄█"


def test_keys_come_in_any_pieces() -> None:
    sent = "a\x1b[A\x1b[6~\x1bOB\x1b[1;5Zé\r\x7f\x03".encode()
    names = ["a", "up", "page-down", "down", "é", "enter", "backspace", "interrupt"]
    assert Keys().feed(sent) == names
    slow = Keys()
    assert [name for one in sent for name in slow.feed(bytes([one]))] == names, "one octet at a time"
    assert slow.feed(b"\x1b") == []
    assert slow.rest() == ["escape"], "an escape that begins nothing is one"
    assert slow.feed(b"\x1bx") == ["escape", "x"]


@given(st.binary(max_size=100))
def test_no_octets_break_the_keyboard(data: bytes) -> None:
    keys = Keys()
    assert all(isinstance(one, str) for one in [*keys.feed(data), *keys.rest()])


# --- the model ---


def test_sorting_and_filtering() -> None:
    hops = {
        "mx:a": {"deliveries": 5, "oldest": 9.0, "rate": 1.0},
        "mx:b": {"deliveries": 9, "state": "down", "reply": "421 busy"},
        "mx:c": {"deliveries": 7, "oldest": 1.0, "rate": 5.0},
    }
    one = model(**hops)
    orders = []
    for _ in SORTS:
        orders.append("".join([row.name[-1] for row in one.rows()]))
        one.key("s")
    assert orders == ["bca", "cab", "abc", "bca", "abc"]
    one.key("o")
    assert [row.name for row in one.rows()] == ["mx:a", "mx:c", "mx:b"]
    one.key("/")
    for key in "BUSY":
        one.key(key)
    ask = one.key("enter")
    assert [row.name for row in one.rows()] == ["mx:b"]
    assert ask == Ask("queue/summary", {"next_hop": "*BUSY*", "limit": 100}, "search", post=False)
    assert (
        one.answered(ask, [{"next_hop": "busy.example", "state": "ready", "deliveries": 1, "oldest": 4.0}], {}) is None
    )
    assert {row.name for row in one.rows()} == {"mx:b", "busy.example"}, "what /live does not show is found too"
    assert one.again() == ask
    one.key("escape")
    assert len(one.rows()) == 3
    assert one.again() is None


def test_the_selection_stays_with_its_row() -> None:
    one = model(**{f"mx:{number:02}": {"deliveries": 100 - number} for number in range(50)})
    one.page = 10
    for _ in range(12):
        one.key("down")
    assert one.window()[-1].name == one.selected == "mx:12"
    one.told(state(**{f"mx:{number:02}": {"deliveries": number} for number in range(50)}))
    assert "mx:12" in [row.name for row in one.window()], "wherever it went"
    assert one.selected == "mx:12"
    one.key("home")
    assert one.window()[0].name == one.selected == "mx:49"
    one.key("end")
    assert one.window()[-1].name == one.selected == "mx:00"
    one.told(state())
    assert (one.window(), one.selected) == ([], "")


def test_a_hold_is_counted_then_asked_then_done() -> None:
    one = model(**{"mx:a": {}})
    ask = one.key("h")
    assert ask == Ask("queue/hold", {"next_hop": "mx:a", "dry_run": True}, "count hold mx:a")
    assert one.key("h") is None, "one at a time"
    one.answered(ask, [], {"fit": 1234, "recipients": 1300})
    assert "Hold 1,234 messages (1,300 recipients) for mx:a?" in shown(one)[-1]
    assert one.key("x") is None
    assert "nothing was done" in shown(one)[-1]
    one.answered(one.key("h") or ask, [], {"fit": 1234, "recipients": 1300})
    act = one.key("y")
    assert act == Ask("queue/hold", {"next_hop": "mx:a"}, "act hold mx:a")
    one.answered(act, [], {"changed": 1234, "action": "18"})
    assert "hold mx:a: 1234 messages; u takes it back" in shown(one)[-1]
    one.key("u")
    assert "Take back hold of 1234 messages by you?" in shown(one)[-1], "/live does not tell of it yet"
    undo = one.key("y")
    assert undo == Ask("queue/undo", {"action": "18"}, "undo")
    one.answered(undo, [], {"changed": 1234})
    assert one.key("u") is None
    assert "Take back hold of 5 messages by root?" in shown(one)[-1]
    assert one.key("y") == Ask("queue/undo", {"action": "17"}, "undo")


def test_a_suspension_asks_for_how_long() -> None:
    one = model(**{"mx:a": {}})
    one.key("z")
    for key in ("2", "x", "backspace", "h"):
        one.key(key)
    assert "suspend mx:a for" in shown(one)[-1]
    ask = one.key("enter")
    assert ask == Ask("queue/suspend", {"what": "mx:a", "seconds": 7200.0}, "suspend mx:a")
    one.refused(ask, 401, "no token")
    assert "--token-file" in shown(one, 200)[-1]
    one.key("z")
    one.key("?")
    assert one.key("enter") is None
    assert one.bad, "no duration: nothing is asked of the gateway"
    assert one.key("w") == Ask("queue/resume", {"what": "mx:a"}, "resume mx:a")


def test_explaining_takes_the_first_message() -> None:
    one = model(**{"mx:a": {}})
    first = one.key("e")
    assert first == Ask("queue/list", {"next_hop": "mx:a", "limit": 1}, "first mx:a", post=False)
    ask = one.answered(first, [{"id": "ID"}], {})
    assert ask == Ask("queue/explain", {"about": "ID"}, "explain mx:a", post=False)
    why = {"id": "ID", "sender": "", "recipient": "b@a", "state": "down", "reason": "no\x1b[2J route " + "x" * 300}
    one.answered(ask, [why | {"reply": "421 busy", "command": "tripost queue retry --id ID"}], {})
    text = "\n".join(shown(one))
    assert "ID  <> → b@a" in text
    assert "to change that: tripost queue retry --id ID" in text
    assert "\x1b" not in text
    one.key("q")
    assert one.mode == "list"
    assert not one.ended, "the key went to the text"
    one.answered(one.key("e") or first, [], {})
    assert "nothing is queued for mx:a" in shown(one)[-1]


def test_without_a_gateway_nothing_is_asked() -> None:
    one = model(**{"mx:a": {}})
    one.lost("lost the gateway: refused; looking for it")
    assert "looking for it" in shown(one)[0]
    assert one.key("h") is None
    assert "not connected" in shown(one)[-1]
    one.told(state(**{"mx:a": {}}))
    assert "serving" in shown(one)[0]
    assert Model().key("h") is None


# --- what is drawn ---


@given(
    st.integers(1, 220),
    st.integers(1, 70),
    st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=60),
    st.sampled_from(["list", "help", "text", "filter", "duration", "confirm"]),
    st.text(max_size=50),
)
def test_every_line_is_exactly_as_wide_as_the_terminal(
    cells: int, lines: int, hops: dict[str, str], mode: str, text: str
) -> None:
    one = model(**{name: {"reply": reply, "state": "down"} for name, reply in hops.items()})
    one.mode, one.typed, one.lines = mode, text, [clean(text)] * 50
    drawn = shown(one, cells, lines)
    assert [width(line) for line in drawn] == [cells] * lines
    assert all(line.isprintable() for line in drawn), "nothing that a peer said steers the terminal"


def test_wider_terminals_show_more() -> None:
    one = model(**{"mx:far.example": {"reply": "421 4.7.0 busy", "by": "rate", "wait": 3.0, "failures": 2}})
    small, large = shown(one, 80, 24), shown(one, 200, 60)
    assert "mx:far.example" in small[6]
    assert "rate 3s" in small[6]
    assert "FAILED" not in small[5]
    assert "FAILED" in large[5]
    assert "█" in large[1], "what came in and went out, as bars"
    assert "no-user" in "\n".join(small)
    one.key("f")
    assert "no-user" not in "\n".join(shown(one, 80, 24))
    assert "h hold" in shown(one, 100, 24)[-1]


def test_lines_for_people_and_programs() -> None:
    told = state(**{"mx:a": {"deliveries": 3}, "mx:b": {"deliveries": 9, "state": "down"}})
    assert plain.line(told, 0.0).endswith(
        "serving accepted=12/s relayed=12/s delivered=12/s deferred=12/s failed=12/s accept-p99=1.50s deliver-p99=0.0ms"
        " queued=4 octets=4.9KiB in=2 out=1 next-hops=2 fullest=mx:b:9:down"
    )
    row = msgspec.json.decode(plain.row(told))
    assert row["hops"][0] == {"next_hop": "mx:b"} | HOP | {"deliveries": 9, "state": "down"}


# --- the link ---


def test_deltas_make_the_next_state() -> None:
    first = take({}, b'{"kind":"snapshot","tick":1,"hops":{"a":{"n":1},"b":{"n":2}},"series":{"queued":[1]}}')
    second = take(first, b'{"kind":"delta","tick":2,"hops":{"a":null,"b":{"n":3}},"sample":{"queued":5}}')
    assert second == {"tick": 2, "hops": {"b": {"n": 3}}, "series": {"queued": [1, 5]}}
    for number in range(400):
        take(second, msgspec.json.encode({"kind": "delta", "sample": {"queued": number}}))
    assert len(second["series"]["queued"]) == 300
    with pytest.raises(msgspec.DecodeError):
        take({}, b"[1]")


@given(
    st.recursive(st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner, max_size=4), max_leaves=9)
)
def test_a_patch_on_nothing_is_the_thing(value: Any) -> None:
    found: dict[str, Any] = {}
    apply(found, {"x": value})
    assert found == {"x": value}


def test_whom_it_speaks_to(tmp_path: pathlib.Path) -> None:
    one = where_of_url("https://monitor.example:9443", "secret")
    assert (one.host, one.port, one.context is not None, one.token) == ("monitor.example", 9443, True, "secret")
    assert where_of_url("10.0.0.1:8025", "").shown == "http://10.0.0.1:8025"
    assert where_of_url("ws://[::1]:8025/", "").authority == "[::1]:8025"
    for wrong in ("ftp://x", "https://", "https://x/live", "https://user@x"):
        with pytest.raises(ValueError, match="told as https"):
            where_of_url(wrong, "")
    config = Config(hostname="smtp.machin.com", listen=[Listen(service="monitor", address="0.0.0.0:8025")])
    assert where_of_config(config, "").shown == "http://127.0.0.1:8025"
    config = Config(listen=[Listen(service="monitor", address=f"unix:{tmp_path}/m.sock")])
    assert where_of_config(config, "").shown == f"{tmp_path}/m.sock"
    with pytest.raises(ValueError, match="no \\[\\[listen\\]\\]"):
        where_of_config(Config(), "")
