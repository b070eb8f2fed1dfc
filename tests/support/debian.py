"""Debian 12 in a folder: as a bare tree, and as a machine of its own with systemd as its first process

`Machine` needs root, namespaces and a cgroup2 somewhere: no container manager, no virtual machine. It has a network
of its own (loopback), so port 25 is free there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator

from support.gateways import wait_for

ROOT = pathlib.Path(__file__).parents[2]
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
CLONE_NEWNET = 0x40000000

# in namespaces of its own, what a container manager would do
BOOT = """\
set -e
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for one in null zero full random urandom tty; do touch dev/$one; mount --bind /dev/$one dev/$one; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
mkdir -p before
pivot_root . before
umount -l /before
mount --make-rshared /
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-level=notice --show-status=no
"""


class Tree:
    """A Debian of its own, entered by chroot."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root

    def command(self, *words: str) -> list[str]:
        return ["chroot", str(self.root), *words]

    def run(self, *words: str, code: int | None = 0, **environment: str) -> str:
        """Standard output and error; `code` None: whatever it ends with."""
        done = subprocess.run(
            self.command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
            env=ENVIRONMENT | environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert code is None or done.returncode == code, (words, done.returncode, done.stdout)
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """`path` without its first slash."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def install(self, *packages: str) -> None:
        self.run("apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages)

    @property
    def processes(self) -> list[str]:
        """Command lines of what runs in it."""
        found: list[str] = []
        for one in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(one / "root") == str(self.root):
                    found.append((one / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    def files(self) -> set[str]:
        words = ["find", ".", "-xdev", "-type", "f", "-printf", "%P\\n"]
        return set(subprocess.check_output(words, cwd=self.root, text=True).splitlines())


def bookworm(root: pathlib.Path) -> str:
    """Make a minimal Debian 12 with Python there; a reason why not. One that was made this week is taken again."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tripost"
    kept = cache / "bookworm.tar"
    if not kept.exists() or kept.stat().st_mtime < time.time() - 7 * 86400:
        if wrong := _debootstrap(root):
            return wrong
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-C", str(root), "-cf", f"{kept}.new", "."], check=True)
        os.replace(f"{kept}.new", kept)
    else:
        root.mkdir()
        subprocess.run(["tar", "-C", str(root), "-xf", str(kept)], check=True)
    # the package index, and whom this machine believes about it
    shutil.copy("/etc/resolv.conf", root / "etc")
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs")
    return ""


def _debootstrap(root: pathlib.Path) -> str:
    program = shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None or os.geteuid() != 0:
        return "needs root, and Debian's debootstrap"
    words = ["--variant=minbase", "--include=python3,ca-certificates", "bookworm", str(root)]
    made = subprocess.run(
        [program, *words, "http://deb.debian.org/debian"], capture_output=True, text=True, timeout=600, check=False
    )
    if made.returncode:
        return f"debootstrap: {made.stdout.splitlines()[-1:]}"
    return ""


def build_package(folder: pathlib.Path) -> pathlib.Path:
    """Our Debian package."""
    script = str(ROOT / "deploy" / "debian" / "build.sh")
    return pathlib.Path(subprocess.check_output([script, str(folder)], text=True, timeout=300).strip())


@contextlib.contextmanager
def copy(of: Tree, root: pathlib.Path) -> Iterator[Tree]:
    subprocess.run(["cp", "-a", str(of.root), str(root)], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", str(root / "proc")], check=True)
    try:
        yield Tree(root)
    finally:
        subprocess.run(["umount", str(root / "proc")], check=True)
        shutil.rmtree(root, ignore_errors=True)


class Machine(Tree):
    """`with Machine(root).running()`: systemd is its first process; `run` is as a root shell there."""

    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(root)
        self.init = 0

    def command(self, *words: str) -> list[str]:
        return ["nsenter", "-t", str(self.init), *["-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w"], *words]

    @contextlib.contextmanager
    def running(self) -> Iterator[Machine]:
        group = _cgroup2() / f"tripost-{os.getpid()}"
        group.mkdir()
        spaces = ["--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--propagation", "private"]
        words = [
            "bash",
            "-c",
            f'echo $$ > {group}/cgroup.procs; exec "$@"',
            "x",
            "unshare",
            "--fork",
            "--kill-child",
            *spaces,
        ]
        child = subprocess.Popen([*words, "bash", "-c", BOOT, "x", str(self.root)])
        try:
            children = pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children")
            self.init = int(wait_for(children.read_text).split()[0])
            states = ("running", "degraded")
            assert wait_for(lambda: self.run("systemctl", "is-system-running", code=None).strip() in states, 60)
            yield self
            self.run("systemctl", "poweroff", code=None)
            child.wait(60)
        finally:
            child.kill()  # and with it all that is in its namespaces
            child.wait()
            for one in sorted(group.rglob("*/"), reverse=True):
                one.rmdir()
            wait_for(lambda: not (group / "cgroup.procs").read_text())
            group.rmdir()

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Sockets that this thread makes within are the machine's."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/self/ns/net") as ours, open(f"/proc/{self.init}/ns/net") as theirs:
            assert libc.setns(theirs.fileno(), CLONE_NEWNET) == 0, ctypes.get_errno()
            try:
                yield
            finally:
                assert libc.setns(ours.fileno(), CLONE_NEWNET) == 0

    def show(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "-p", name, "--value", unit).strip()

    def journal(self, *words: str) -> str:
        return self.run("journalctl", "--no-pager", "-o", "cat", *words)


def _cgroup2() -> pathlib.Path:
    """Where this machine has it."""
    found = re.search(r"^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 ", pathlib.Path("/proc/self/mountinfo").read_text(), re.M)
    assert found is not None, "there is no cgroup2"
    return pathlib.Path(found[1])
