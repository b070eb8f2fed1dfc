"""the house stands as drawn: floors, purity, file length, no shadowed standard library"""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLOORS = {"gateway": 2, "delivery": 1, "queue": 0}
FACES = ("ingress", "egress", "monitor")
IMPURE = frozenset({"trio", "os", "socket", "ssl", "time", "random", "trio_websocket", "subprocess", "threading"})
PURE = {
    "queue/tripost/queue": "event_fields message errors records retry rows lanes schedule index entries ledger "
    "replay settling actions pieces pausing values blocks notes finding tally framing dropping board",
    "delivery/tripost/delivery": "routing rules smtp_protocol verdicts dsn demands targets client_auth settings "
    "pace window classify saslprep",
    "delivery/tripost/delivery/wire": "lines dots replies addresses parameters",
    "delivery/tripost/delivery/mime": "fields addresses structure decoding subjects",
    "delivery/tripost/delivery/mailbox": "uids policy lineends flags frames",
    "gateway/tripost/gateway": "admission config_positions guard overload passwd_file proxy_protocol sasl units "
    "settings windows config_help config_schema config_values",
    "gateway/tripost/gateway/ingress": "smtp_protocol smtp_commands smtp_events smtp_states terms claims trace "
    "quotas memory claiming",
    "gateway/tripost/gateway/control": "frames",
    "gateway/tripost/gateway/processes": "backoff words",
    "gateway/tripost/gateway/monitor": "api_table auth event_feed feed figures frames metric_table readings",
    "gateway/tripost/gateway/observe": "counting history_rows history_sql journal schema",
    "gateway/tripost/gateway/cli": "sendmail_arguments sendmail_message completion starter",
    "gateway/tripost/gateway/top": "words keys model drawing plain",
    "gateway/tripost/gateway/egress": "login_delay pop3_protocol pop3_top",
    "gateway/tripost/gateway/egress/imap": "reader cursor sets utf7 search_keys fetch_items values arguments "
    "arguments_selected commands threads listing capabilities sections",
}
MOST_LINES = 400
MOST_FUNCTION_LINES = 50


def sources(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for floor in FLOORS for path in (root / floor).rglob("*.py"))


def imports(path: pathlib.Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{one.name}" for one in node.names} | {str(node.module)}
    return found


def faults(root: pathlib.Path) -> list[str]:
    """What is wrong with a checkout, one line each."""
    return [fault for path in sources(root) for fault in [*_floors(root, path), *_purity(root, path), *_length(path)]]


def _floors(root: pathlib.Path, path: pathlib.Path) -> list[str]:
    floor, *_ = path.relative_to(root).parts
    own = next((part for part in path.relative_to(root).parts if part in FACES), "")
    found: list[str] = []
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "tripost" or len(parts) < 2 or parts[1] not in FLOORS:
            continue
        if FLOORS[parts[1]] > FLOORS[floor]:
            found.append(f"{path}: imports upward: {name}")
        face = parts[2] if len(parts) > 2 and parts[1] == "gateway" else ""
        if floor == "gateway" and own and face in FACES and face != own:
            found.append(f"{path}: one face imports another: {name}")
    return found


def _purity(root: pathlib.Path, path: pathlib.Path) -> list[str]:
    where = str(path.relative_to(root).parent)
    if path.stem not in PURE.get(where, "").split():
        return []
    return [f"{path}: pure, but imports {name}" for name in imports(path) if name.split(".")[0] in IMPURE]


def _length(path: pathlib.Path) -> list[str]:
    text = path.read_text()
    lines = text.count("\n")
    found = [f"{path}: {lines} lines"] if lines > MOST_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            if length > MOST_FUNCTION_LINES:
                found.append(f"{path}:{node.lineno}: {node.name} has {length} lines")
    return found


def test_the_house_is_in_order() -> None:
    assert faults(ROOT) == []
    assert len(sources(ROOT)) > 40


def test_every_pure_module_exists() -> None:
    for folder, names in PURE.items():
        for name in names.split():
            assert (ROOT / folder / f"{name}.py").is_file(), f"{folder}/{name}.py"


def test_every_module_opens_with_its_manual_page() -> None:
    assert [path for path in sources(ROOT) if not ast.get_docstring(ast.parse(path.read_text()))] == []


@pytest.mark.parametrize(
    ("where", "line", "fault"),
    [
        ("queue/tripost/queue/clock.py", "from tripost.delivery import routing\n", "imports upward"),
        ("delivery/tripost/delivery/worker.py", "import tripost.gateway.app\n", "imports upward"),
        ("queue/tripost/queue/records.py", "import trio\n", "pure, but imports trio"),
        ("delivery/tripost/delivery/routing.py", "def f() -> None:\n    import time\n", "pure, but imports time"),
        ("gateway/tripost/gateway/ingress/x.py", "from tripost.gateway.egress import y\n", "one face imports another"),
        ("gateway/tripost/gateway/egress/imap/x.py", "import tripost.gateway.ingress.y\n", "one face imports another"),
        ("queue/tripost/queue/long.py", "pass\n" * 401, "401 lines"),
    ],
)
def test_a_planted_fault_is_found(tmp_path: pathlib.Path, where: str, line: str, fault: str) -> None:
    path = tmp_path / where
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert any(fault in one for one in faults(tmp_path))


def test_import_queue_is_the_standard_librarys() -> None:
    code = "import queue, sys; assert queue.Queue; print(queue.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert str(ROOT / "queue") not in done.stdout
    for folder in ("queue", "queue/tripost", "delivery/tripost", "gateway/tripost"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_no_uvloop_no_asyncio() -> None:
    for path in sources(ROOT):
        assert not {name for name in imports(path) if name.split(".")[0] in ("asyncio", "uvloop", "anyio")}, path
