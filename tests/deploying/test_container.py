"""the image that deploy/Containerfile makes, built and run: read-only, as uid 10001, without a capability; healthy

The images that it begins with are registries', which a machine may not reach: stand-ins of the same names are made
here, a Debian 12 with its Python and the uv that builds this checkout. Needs root, buildah, podman and crun (Debian);
minutes, so `long`.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import smtplib
import subprocess
from collections.abc import Iterator

import pytest

from support.debian import Tree
from support.gateways import free_port, wait_for

pytestmark = pytest.mark.long
ROOT = pathlib.Path(__file__).parents[2]
PYTHON, UV = "docker.io/library/python:3.11-slim-bookworm", "ghcr.io/astral-sh/uv:0.9"
# what a container engine expects of cgroups, which a machine may have otherwise
SPACE = """\
umount -R -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo made
exec sleep infinity
"""


class Engine:
    """podman and buildah with a store of their own."""

    def __init__(self, folder: pathlib.Path) -> None:
        words = ["unshare", "--mount", "--cgroup", "--propagation", "private", "bash", "-c", SPACE]
        self._holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "made\n"
        self._enter = ["nsenter", "-t", str(self._holder.pid), "-m", "-C"]
        self.store = ["--root", str(folder / "store"), "--runroot", str(folder / "run"), "--storage-driver", "overlay"]

    def run(self, program: str, *words: str, code: int | None = 0) -> str:
        engine = ["--cgroup-manager", "cgroupfs", "--runtime", "crun"] if program == "podman" else []
        done = subprocess.run(
            [*self._enter, program, *self.store, *engine, *words], text=True, timeout=600, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert code is None or done.returncode == code, (words, done.stdout)
        return done.stdout

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


@pytest.fixture(scope="module")
def engine(fresh: Tree, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """With the image `tripost`."""
    for program in ("buildah", "podman", "crun"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: Debian's {program}")
    folder = tmp_path_factory.mktemp("containers")
    engine = Engine(folder)
    try:
        for name in ("python", "python3", "python3.11"):
            (fresh.root / "usr/local/bin" / name).unlink(missing_ok=True)
            (fresh.root / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
        subprocess.run(["tar", "-C", str(fresh.root), "-cf", str(folder / "python.tar"), "."], check=True)
        setting = ["PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"]
        setting.append("SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt")
        changes = [word for one in setting for word in ("--change", f"ENV {one}")]
        engine.run("podman", "import", *changes, str(folder / "python.tar"), PYTHON)
        uv = pathlib.Path(shutil.which("uv") or ROOT / ".uv" / "bin" / "uv").resolve()
        subprocess.run(["tar", "-C", str(uv.parent), "-cf", str(folder / "uv.tar"), uv.name], check=True)
        engine.run("podman", "import", str(folder / "uv.tar"), UV)
        words = ["--format", "docker", "--isolation", "chroot", "-f", f"{ROOT}/deploy/Containerfile", "-t", "tripost"]
        engine.run("buildah", "bud", *words, str(ROOT))
        yield engine
    finally:
        engine.close()
        subprocess.run(["rm", "-rf", str(folder)], check=False)


@contextlib.contextmanager
def container(engine: Engine, folder: pathlib.Path, port: int) -> Iterator[str]:
    """As deploy/compose/compose.yml runs it, in this machine's network."""
    text = (ROOT / "deploy" / "compose" / "tripost.toml").read_text()
    text = text.replace(":2525", f":{port}").replace(":8025", f":{free_port()}")
    text += '[[route]]\ndomain = "*"\nto = "smtp://127.0.0.1:1"\n'  # nobody is there: mail waits
    (folder / "tripost.toml").write_text(text)
    (folder / "token").write_text("0123456789abcdef0123456789abcdef\n")
    (folder / "token").chmod(0o640)
    os.chown(folder / "token", 10001, 10001)
    words = [
        *("run", "-d", "--name", "t", "--cgroups", "disabled", "--network", "host", "--no-healthcheck"),
        *("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp"),
        *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "-v", "state:/var/lib/tripost"),
        *("-v", f"{folder}/tripost.toml:/etc/tripost/tripost.toml:ro"),
        *("-v", f"{folder}/token:/run/secrets/tripost_read_token:ro"),
    ]
    engine.run("podman", *words, "tripost")
    try:
        yield "t"
    finally:
        engine.run("podman", "rm", "-f", "t", code=None)


def test_the_image(engine: Engine, tmp_path: pathlib.Path) -> None:
    """Healthy, takes mail, writes nowhere but into its volume, has no build tools, ends at SIGTERM at once; the next
    container has the mail."""
    port = free_port()
    check = engine.run("podman", "inspect", "--format", "{{.Config.Healthcheck.Test}}", "--type", "image", "tripost")
    (words,) = (check.strip().removeprefix("[CMD ").removesuffix("]").split(),)
    with container(engine, tmp_path, port) as name:
        assert wait_for(lambda: "takes mail" in engine.run("podman", "exec", name, *words, code=None)), words
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.sendmail("fred@truc.fr", ["u@far.example"], b"Subject: x\r\n\r\nx\r\n")
        status = engine.run("podman", "exec", name, "cat", "/proc/1/status")
        assert "Uid:\t10001\t10001\t10001\t10001" in status
        for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
            assert line in status
        for path in ("/x", "/opt/tripost/x", "/etc/x"):
            assert "Read-only" in engine.run("podman", "exec", name, "touch", path, code=1)
        for tool in ("pip", "uv", "gcc", "make"):
            engine.run("podman", "exec", name, "sh", "-c", f"command -v {tool}", code=127)
        engine.run("podman", "exec", name, "tripost", "drain", "--no-wait")  # a preStop hook
        assert wait_for(lambda: "Exited (0)" in engine.run("podman", "ps", "-a"))
    with container(engine, tmp_path, port) as name:
        assert wait_for(lambda: "queued: 1 messages" in engine.run("podman", "exec", name, *words, code=None))
        engine.run("podman", "stop", "-t", "60", name)
        assert "Exited (0)" in engine.run("podman", "ps", "-a")
        assert '"event":"stopped"' in engine.run("podman", "logs", name)
