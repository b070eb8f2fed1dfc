"""what is in deploy/ fits the program: units, alerts, dashboard, examples

The programs that look at them are Debian's systemd, prometheus, bubblewrap.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import poplib
import re
import shutil
import signal
import smtplib
import ssl
import subprocess
import sys
import textwrap
from typing import Any

import pytest
import trustme
import yaml

from support.gateways import free_port, wait_for
from tripost.gateway.cli.main import main
from tripost.gateway.config import read
from tripost.gateway.monitor.metric_table import METRICS

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "tripost.rules.yml"
DASHBOARD = DEPLOY / "grafana" / "tripost.json"
REQUIRE = os.environ.get("TRIPOST_REQUIRE", "")
KNOWN = {one.name for one in METRICS} | {
    f"{one.name}{end}" for one in METRICS if one.kind == "histogram" for end in ("_bucket", "_sum", "_count")
}
LISTEN = '\n[[listen]]\nservice = "smtp"\naddress = "127.0.0.1:2525"\n'


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        if REQUIRE:
            pytest.fail(f"{name} is missing: apt-get install {package}")
        pytest.skip(f"{name} is missing: Debian's {package}")
    return found


def run(*words: str, cwd: pathlib.Path = DEPLOY) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# --- units ---


@pytest.fixture
def units(tmp_path: pathlib.Path) -> pathlib.Path:
    """As they are installed, but for the program, which is this Python's."""
    for one in (DEPLOY / "systemd").glob("tripost.*"):
        text = one.read_text().replace("/usr/bin/tripost", str(pathlib.Path(sys.executable).parent / "tripost"))
        (tmp_path / one.name).write_text(text.replace("file:///usr/share/doc/tripost/runbook.md", "man:systemd(1)"))
    return tmp_path


def test_units_verify(units: pathlib.Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    said = run(analyze, "verify", "--man=no", str(units / "tripost.socket"), str(units / "tripost.service"))
    assert "tripost" not in said, said


def test_exposure(units: pathlib.Path) -> None:
    """At most 1.5 of 10."""
    analyze = program("systemd-analyze", "systemd")
    said = run(analyze, "security", "--offline=yes", "--threshold=15", str(units / "tripost.service"))
    found = re.search(r"Overall exposure level for tripost.service: ([0-9.]+)", said)
    assert found is not None
    assert float(found[1]) <= 1.5


def test_the_socket_has_the_addresses_of_the_configuration() -> None:
    unit = (DEPLOY / "systemd" / "tripost.socket").read_text()
    found = read(str(DEPLOY / "tripost.toml"))
    assert re.findall(r"^ListenStream=(.*)$", unit, re.MULTILINE) == [one.address for one in found.config.listen]


# --- alerts and dashboard ---


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:tripost|process)_[a-z0-9_]+", text))


def test_rules() -> None:
    promtool = program("promtool", "prometheus")
    assert "SUCCESS" in run(promtool, "check", "rules", str(RULES))
    assert "SUCCESS" in run(promtool, "check", "config", "--syntax-only", str(RULES.with_name("prometheus.yml")))
    assert "SUCCESS" in run(promtool, "test", "rules", "tripost.rules.test.yml", cwd=RULES.parent)
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    tests = (RULES.parent / "tripost.rules.test.yml").read_text()
    for one in alerts:
        assert re.search(rf"alertname: {one}\n +exp_alerts:\n +- exp_labels", tests), f"{one} is never seen to fire"


def test_rules_and_dashboard_name_metrics_that_exist() -> None:
    assert metrics_in(RULES.read_text()) <= KNOWN
    assert metrics_in(DASHBOARD.read_text()) - {"tripost_read_token"} <= KNOWN


def test_every_alert_has_its_section() -> None:
    headings = re.findall(r"^## (.*)$", (DEPLOY / "runbook.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in headings}
    found = re.findall(r'runbook: "deploy/runbook.md#([^"]*)"', RULES.read_text())
    assert len(found) == RULES.read_text().count("- alert:")
    assert set(found) <= anchors


def test_dashboard() -> None:
    made: dict[str, Any] = json.loads(DASHBOARD.read_text())
    panels = [one for one in made["panels"] if one["type"] != "row"]
    assert len(panels) >= 20
    assert len({one["id"] for one in made["panels"]}) == len(made["panels"])
    for one in panels:
        place = one["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert all(target["expr"] for target in one["targets"])


# --- examples ---


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.toml")), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_examples_check(path: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tripost_read_token").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "tripost_read_token").chmod(0o600)
    text = path.read_text().replace("/run/secrets", str(tmp_path))
    (tmp_path / "tripost.toml").write_text(text)
    assert main(["check", str(tmp_path / "tripost.toml")]) == 0, capsys.readouterr().err


def manifest() -> dict[str, Any]:
    """What Kubernetes is told, by kind."""
    text = (DEPLOY / "kubernetes" / "tripost.yaml").read_text()
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def test_kubernetes(tmp_path: pathlib.Path) -> None:
    """Its configuration is right, listens where the pod's ports and probes are, and has time to drain."""
    (text,) = manifest()["ConfigMap"]["data"].values()
    (tmp_path / "read_token").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "read_token").chmod(0o440)
    (tmp_path / "tripost.toml").write_text(text.replace("/run/secrets/tripost", str(tmp_path)))
    assert main(["check", str(tmp_path / "tripost.toml")]) == 0
    config = read(str(tmp_path / "tripost.toml")).config
    pod = manifest()["StatefulSet"]["spec"]["template"]["spec"]
    (box,) = pod["containers"]
    ports = {one["name"]: one["containerPort"] for one in box["ports"]}
    assert {one.service: int(one.address.rpartition(":")[2]) for one in config.listen} == ports
    hook = int(box["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= config.lifecycle.drain + hook + 20
    assert {box[f"{one}Probe"]["httpGet"]["path"] for one in ("readiness", "liveness")} == {"/readyz", "/healthz"}


@pytest.mark.long
def test_kubernetes_takes_it() -> None:
    words = ["run", "-q", "--isolated", "--no-project", "--with", "kubernetes-validate>=1.37", "kubernetes-validate"]
    said = run(str(DEPLOY / "uv"), *words, "--strict", str(DEPLOY / "kubernetes" / "tripost.yaml"))
    assert said.count(" passed for resource ") == len(manifest())


def blocks() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(DEPLOY.rglob("*.md"))):
        for number, one in enumerate(
            re.findall(r"^ *```toml\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE)
        ):
            found.append((f"{path.relative_to(ROOT)}-{number + 1}", textwrap.dedent(one)))
    return found


@pytest.mark.parametrize(("name", "text"), blocks(), ids=[name for name, _ in blocks()])
def test_documents_check(name: str, text: str, tmp_path: pathlib.Path) -> None:
    """Blocks of TOML in the documents; a part of a file gets a listener."""
    (tmp_path / "tripost.toml").write_text(text if "[[listen]]" in text else text + LISTEN)
    assert [str(one) for one in read(str(tmp_path / "tripost.toml")).problems] == []


# --- under the sandbox ---

SANDBOX = """\
import ctypes, os, resource, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
libc.prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE, where the kernel has it: MemoryDenyWriteExecute
resource.setrlimit(resource.RLIMIT_NOFILE, (65536, 65536)) if os.geteuid() == 0 else None
os.umask(0o077)
os.execv(sys.executable, [sys.executable, "-m", "tripost", *sys.argv[1:]])
"""


def test_under_the_sandbox(tmp_path: pathlib.Path) -> None:
    """The restrictions of tripost.service by bubblewrap: read-only root, a user without capabilities, no devices, own
    processes and IPC, no new privileges, no memory that is written and run, the unit's system calls. Mail goes in with
    a password over TLS, and out by POP3. tests/deploying/test_machine.py has the unit itself, under systemd."""
    bwrap = program("bwrap", "bubblewrap")
    system_calls = filter_of_unit(tmp_path)
    state, keys = tmp_path / "state", tmp_path / "keys"
    for one in (state, keys):
        one.mkdir()
    authority = trustme.CA()
    made = authority.issue_cert("localhost")
    made.private_key_pem.write_to_path(keys / "key.pem")
    made.cert_chain_pems[0].write_to_path(keys / "cert.pem")
    submission, pop3 = free_port(), free_port()
    (tmp_path / "t.toml").write_text(
        f'hostname = "localhost"\nstate = "{state}"\n'
        f'[[listen]]\nservice = "submission"\naddress = "127.0.0.1:{submission}"\ntls = "implicit"\n'
        f'[[listen]]\nservice = "pop3"\naddress = "127.0.0.1:{pop3}"\n'
        '[tls]\ncertificate = "${CREDENTIALS_DIRECTORY}/cert.pem"\nkey = "${CREDENTIALS_DIRECTORY}/key.pem"\n'
        '[local]\ndomains = ["machin.com"]\n[spool]\nmin_free = "1MiB"\n'
    )
    config = ["--config", str(tmp_path / "t.toml")]
    words = [sys.executable, "-m", "tripost", "user", "add", "marc@machin.com", "--password-stdin", *config]
    subprocess.run(words, input="secret\n", text=True, check=True, timeout=60)
    sandbox = [
        *(bwrap, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run"),
        *("--bind", str(state), str(state), "--ro-bind", str(keys), "/run/credentials"),
        *("--unshare-user", "--uid", "4711", "--gid", "4711", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *("--unshare-cgroup-try", "--cap-drop", "ALL", "--die-with-parent", "--new-session"),
        *("--setenv", "CREDENTIALS_DIRECTORY", "/run/credentials", "--seccomp", "0"),
        *(sys.executable, "-c", SANDBOX, "serve", str(tmp_path / "t.toml")),
    ]
    with (
        open(tmp_path / "said", "w") as said,
        open(system_calls) as standard_input,
        subprocess.Popen(sandbox, stderr=said, stdin=standard_input) as child,
    ):
        try:
            context = ssl.create_default_context()
            authority.configure_trust(context)

            def sent() -> bool:
                with (
                    contextlib.suppress(OSError),
                    smtplib.SMTP_SSL("localhost", submission, timeout=20, context=context) as one,
                ):
                    one.login("marc@machin.com", "secret")
                    one.sendmail("marc@machin.com", ["marc@machin.com"], b"Subject: from the box\r\n\r\nx\r\n")
                    return True
                return False

            assert wait_for(sent), (tmp_path / "said").read_text()

            def read_it() -> bool:
                client = poplib.POP3("127.0.0.1", pop3, timeout=20)
                client.user("marc@machin.com")
                client.pass_("secret")
                found = client.stat()[0] == 1 and b"Subject: from the box" in client.retr(1)[1]
                client.quit()
                return found

            assert wait_for(read_it), (tmp_path / "said").read_text()
            assert sorted(one.name for one in tmp_path.iterdir()) == ["filter", "keys", "said", "state", "t.toml"]
            assert restricted(child.pid)
        finally:
            _end(child)


def filter_of_unit(folder: pathlib.Path) -> pathlib.Path:
    """The unit's SystemCallFilter and the like, as the kernel takes it."""
    program("systemd-analyze", "systemd")
    words = ["/usr/bin/python3", str(ROOT / "tests/support/unit_filter.py"), str(DEPLOY / "systemd/tripost.service")]
    done = subprocess.run(words, capture_output=True, timeout=60, check=False)
    if b"No module named 'seccomp'" in done.stderr:
        program("python3's module seccomp", "python3-seccomp")
    assert done.returncode == 0, done.stderr
    (folder / "filter").write_bytes(done.stdout)
    return folder / "filter"


def innermost(pid: int) -> int:
    """bubblewrap's child, or its child's."""
    inner = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return innermost(int(inner[0])) if inner else pid


def restricted(pid: int) -> bool:
    status = pathlib.Path(f"/proc/{innermost(pid)}/status").read_text()
    wanted = (r"NoNewPrivs:\t1$", r"Seccomp:\t2$", r"CapBnd:\t0+$", r"CapEff:\t0+$")
    return all(re.search(one, status, re.MULTILINE) for one in wanted)


def _end(child: subprocess.Popen[bytes]) -> None:
    """bubblewrap does not hand signals on: its child is asked."""
    os.kill(innermost(child.pid), signal.SIGTERM)
    assert child.wait(40) == 0
