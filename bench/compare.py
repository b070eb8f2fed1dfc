"""did it become slower? the pyperf benchmarks against the committed baseline

    deploy/uv run python bench/compare.py                  # all, some minutes; exit code 1 where one is slower
    deploy/uv run python bench/compare.py --only routing   # routing, spool or protocol
    deploy/uv run python bench/compare.py --renew          # this machine's figures become the baseline

Runs bench/routing.py, bench/spool.py and bench/protocol.py, and compares what they say with bench/baseline/*.json by
`pyperf compare_to`. A figure counts as slower when it is so by more than `--limit` (a factor) and pyperf holds the
difference for significant. A baseline is worth something on the machine that made it: elsewhere, or after a change of
the machine, go back to the commit to compare with, say --renew there, and come back. One JSON line at the end.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
from typing import Any

import pyperf

HERE = pathlib.Path(__file__).parent
BASELINE = HERE / "baseline"
ALL = ("routing", "spool", "protocol")


def measure(name: str, to: pathlib.Path, *, fast: bool) -> None:
    """Run one of the benchmarks."""
    to.unlink(missing_ok=True)
    words = ["--fast"] if fast else []
    subprocess.run([sys.executable, str(HERE / f"{name}.py"), "--quiet", "-o", str(to), *words], check=True)


def lean(path: pathlib.Path) -> None:
    """What is committed says nothing of whose machine it was, and how it was built."""
    found = json.loads(path.read_text())
    keep = ("cpu_count", "cpu_model_name", "platform", "python_implementation", "python_version", "timer", "unit")
    found["metadata"] = {key: value for key, value in found.get("metadata", {}).items() if key in keep}
    for one in found["benchmarks"]:
        one["runs"] = [{key: value for key, value in run.items() if key == "values"} for run in one["runs"]]
        one["runs"] = [run for run in one["runs"] if run]
    path.write_text(json.dumps(found, separators=(",", ":")) + "\n")


def slower(old: pathlib.Path, new: pathlib.Path, limit: float) -> dict[str, float]:
    """Name → factor, of those that are slower by more than `limit`."""
    before, after = pyperf.BenchmarkSuite.load(str(old)), pyperf.BenchmarkSuite.load(str(new))
    known = {one.get_name(): one for one in before.get_benchmarks()}
    found: dict[str, float] = {}
    for one in after.get_benchmarks():
        was = known.get(one.get_name())
        if was is not None and one.mean() > was.mean() * limit and _significant(was, one):
            found[one.get_name()] = round(one.mean() / was.mean(), 2)
    return found


def _significant(was: Any, now: Any) -> bool:
    """The two are further from each other than they vary."""
    spread = sum(one.stdev() if len(one.get_values()) > 1 else 0.0 for one in (was, now))
    return bool(abs(now.mean() - was.mean()) > spread)


def main(options: argparse.Namespace) -> int:
    names = [options.only] if options.only else list(ALL)
    found: dict[str, float] = {}
    missing: list[str] = []
    BASELINE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            kept, made = BASELINE / f"{name}.json", pathlib.Path(folder) / f"{name}.json"
            if options.renew:
                measure(name, kept, fast=options.fast)
                lean(kept)
                continue
            if not kept.exists():
                print(f"{kept} is missing: say --renew", file=sys.stderr)
                missing.append(name)
                continue
            measure(name, made, fast=options.fast)
            table = ["-m", "pyperf", "compare_to", "--table", str(kept), str(made)]
            subprocess.run([sys.executable, *table], check=True, stdout=sys.stderr)
            found |= slower(kept, made, options.limit)
    row = {"bench": "compare", "what": names, "renewed": options.renew, "slower": found, "missing": missing}
    print(json.dumps(row | {"machine": platform.platform()}))
    return 1 if found or missing else 0


if __name__ == "__main__":
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--only", choices=ALL, default="", help="one of them")
    top.add_argument("--limit", type=float, default=1.25, help="the factor from which on it counts")
    top.add_argument("--fast", action="store_true", help="fewer values: for a first look")
    top.add_argument("--renew", action="store_true", help="make the baseline instead")
    sys.exit(main(top.parse_args()))
