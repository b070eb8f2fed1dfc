"""the page's modules that decide: patches, words, what is looked for, how a figure is written"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import trio

from support.cdp import Page, browser
from support.monitored import monitored

# RFC 7396, appendix A: target, patch, result
PATCHES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
WRITTEN = {
    "count(9999)": "9,999",
    "count(12345)": "12.3k",
    "count(4560000)": "4.56M",
    "short(999)": "999",
    "short(1999)": "1.9k",
    "short(123456)": "123k",
    "perSecond(0.25)": "0.3",
    "perSecond(1002)": "1,002",
    "octets(1834)": "1.79 KiB",
    "seconds(0.0004)": "0.40 ms",
    "seconds(0.012)": "12 ms",
    "seconds(1.25)": "1.3 s",
    "seconds(75)": "75 s",
    "seconds(12000)": "3 h 20 min",
    "seconds(360000)": "4 d 4 h",
    "roughly(100000)": "28 h",
    "duration('4h')": 14400,
    "duration('1.5m')": 90,
    "String(duration('4 fortnights'))": "NaN",
    "size('1MiB')": 1048576,
    "size('50k')": 51200,
    "String(size('x'))": "NaN",
}
QUICK = {
    "362C12QP0YM00WJ25V": {"id": "362C12QP0YM00WJ25V"},
    "marc@machin.com": {"address": "marc@machin.com"},
    "*@truc.fr": {"address": "*@truc.fr"},
    "@machin.com": {"domain": "machin.com"},
    "<>": {"sender": "<>"},
    "mx:machin.com": {"next_hop": "mx:machin.com"},
    "smtp://192.0.2.1:25": {"next_hop": "smtp://192.0.2.1:25"},
    "marc": {"address": "*marc*"},
    "  ": {},
}
HOP = {"deliveries": 5, "oldest": 60, "state": "ready", "by": "", "reply": ""}


def hop(**more: Any) -> dict[str, Any]:
    return HOP | more


# a state → how grave it is, and what is named first
VERDICTS: list[tuple[dict[str, Any], str, str, list[str]]] = [
    ({}, "good", "All quiet.", []),
    ({"rates": {"accepted": {"s10": 12}}}, "good", "Mail flows.", []),
    ({"accepting": False, "reason": "the disk is full"}, "bad", "New mail is refused.", ["New mail is refused"]),
    ({"state": "draining"}, "warn", "The gateway is stopping.", []),
    (
        {"hops": {"mx:a": hop(state="down"), "mx:b": hop(state="down", deliveries=9), "mx:c": hop()}},
        "bad",
        "2 destinations are down.",
        ["b", "a"],
    ),
    ({"hops": {"mx:a": hop(by="rest")}}, "warn", "Mail flows, with 1 thing to look at.", ["a"]),
    ({"hops": {"mx:a": hop(by="rate")}}, "good", "All quiet.", []),  # what is young is no concern
    ({"hops": {"mx:a": hop(by="rate", oldest=3600)}}, "warn", "Mail flows, with 1 thing to look at.", ["a"]),
    ({"hops": {"mx:a": hop(state="suspended")}}, "good", "All quiet.", ["a"]),
    ({"trouble": [{"time": 990, "where": "history", "reason": "x"}]}, "warn", "", ["Trouble in history"]),
    ({"trouble": [{"time": 9, "where": "history", "reason": "x"}]}, "good", "All quiet.", []),
]


async def test_modules(tmp_path: pathlib.Path, devtools: str) -> None:
    with monitored(tmp_path / "gateway") as gateway, trio.fail_after(40):
        async with browser(devtools) as chromium, chromium.page() as page:
            await page.go(gateway.page)
            await patches(page)
            texts = await module(page, "format", f"[{','.join(WRITTEN)}]")
            assert [one.replace("\u00a0", " ") if isinstance(one, str) else one for one in texts] == [*WRITTEN.values()]
            assert await module(page, "messages", f"{json.dumps([*QUICK])}.map(quick)") == [*QUICK.values()]
            states = json.dumps([state for state, *_ in VERDICTS])
            told = "(state, list) => [list.map((one) => one.what), verdict(state, list)]"
            call = f"{states}.map((state) => ({told})(state, concerns(state, 1000)))"
            said = await module(page, "verdict", call)
            for (state, level, headline, named), (what, found) in zip(VERDICTS, said, strict=True):
                assert what == named, state
                assert found["level"] == level, state
                assert headline in found["headline"], state


async def module(page: Page, name: str, expression: str) -> Any:
    """An expression with the names that a module exports; the page's policy allows no eval."""
    names = await page.js(f"import('/static/{name}.js').then(one => Object.keys(one).join())")
    return await page.js(f"import('/static/{name}.js').then(({{{names}}}) => {expression})")


async def patches(page: Page) -> None:
    pairs = json.dumps(json.dumps([(target, patch) for target, patch, _ in PATCHES]))
    results = await module(page, "live", f"JSON.parse({pairs}).map(([target, patch]) => merged(target, patch))")
    assert results == [result for *_, result in PATCHES]
    # a destination's name cannot reach the prototype of everything
    hostile = json.dumps('{"__proto__": {"polluted": 1}, "constructor": {"prototype": {"polluted": 1}}}')
    assert await module(page, "live", f"merged(null, JSON.parse({hostile})) && ({{}}).polluted") is None

