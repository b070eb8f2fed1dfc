"""what the operating system says, for /metrics

Everything here may block for a moment: it is called in a worker thread, by one
scrape at a time.

Promise  what cannot be read is left out or 0; nothing raises. The processor time
         of a role goes on from where it was when one of its processes ends.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from tripost.gateway.monitor.readings import Machine

ROLES = ("manager", "ingress", "delivery", "egress")
CMDLINE = 4096  # octets
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def family() -> dict[int, str]:
    """pid → role, of the gateway's processes: with `processes = n`, the supervisor that started us and all that it
    started; else us alone."""
    me = os.getpid()
    if not _role(me):
        return {me: "gateway"}
    supervisor = os.getppid()
    found = {me: _role(me), supervisor: "supervisor"}
    try:
        with open(f"/proc/{supervisor}/task/{supervisor}/children", encoding="ascii") as file:
            pids = [int(one) for one in file.read().split()]
    except (OSError, ValueError):
        pids = []
    return found | {pid: role for pid in pids if (role := _role(pid))}


def _role(pid: int) -> str:
    """What its command line says behind --role; "" for nothing that is known."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            words = file.read(CMDLINE).split("\0")
    except OSError:
        return ""
    role = next((after for word, after in pairwise(words) if word == "--role"), "")
    return role if role in ROLES else ""


class Watcher:
    """`folder`: the spool's; `certificates`: their files; `roles()`: pid → role, of every process of the gateway."""

    def __init__(
        self, folder: str, certificates: Sequence[str], roles: Callable[[], Mapping[int, str]] = family
    ) -> None:
        self._folder = folder
        self._family = roles
        self._certificates = certificates
        self._ends: dict[str, tuple[int, float]] = {}  # file → its time, the certificate's end
        self._seen: dict[int, tuple[str, float]] = {}  # pid → role, CPU seconds
        self._ended: dict[str, float] = {}  # role → CPU seconds of its processes that are no more
        self._began = 0.0

    def look(self) -> Machine:
        files, octets = _log_size(os.path.join(self._folder, "log"))
        free_octets, free_inodes = _free(self._folder)
        return Machine(
            log_files=files,
            log_octets=octets,
            free_octets=free_octets,
            free_inodes=free_inodes,
            certificates=self._certificate_ends(),
            process=self._process(),
            roles=self._roles(self._family()),
        )

    def _certificate_ends(self) -> dict[str, float]:
        for path in self._certificates:
            try:
                changed = os.stat(path).st_mtime_ns
                if path not in self._ends or self._ends[path][0] != changed:
                    self._ends[path] = changed, certificate_end(path)
            except (OSError, ValueError):
                self._ends.pop(path, None)
        return {path: end for path, (_, end) in self._ends.items()}

    def _process(self) -> dict[str, float]:
        found = _stat(os.getpid())
        if found is None:
            return {}
        self._began = self._began or _boot_time() + found["start"]
        limit = 0.0
        with contextlib.suppress(OSError, ValueError, StopIteration):
            with open("/proc/self/limits", encoding="ascii") as file:
                limit = float(next(line for line in file if line.startswith("Max open files")).split()[3])
        return {
            "process_cpu_seconds_total": found["cpu"],
            "process_resident_memory_bytes": found["rss"],
            "process_virtual_memory_bytes": found["virtual"],
            "process_open_fds": _descriptors(os.getpid()),
            "process_max_fds": limit,
            "process_start_time_seconds": self._began,
        }

    def _roles(self, roles: Mapping[int, str]) -> list[tuple[str, int, float, int, int]]:
        sums: dict[str, list[float]] = {}
        for pid, role in roles.items():
            found = _stat(pid)
            if found is None:
                continue
            self._seen[pid] = role, found["cpu"]
            one = sums.setdefault(role, [0, 0.0, 0.0, 0])
            one[0] += 1
            one[1] += found["cpu"]
            one[2] += found["rss"]
            one[3] += _descriptors(pid)
        for pid in [pid for pid in self._seen if pid not in roles]:
            role, cpu = self._seen.pop(pid)
            self._ended[role] = self._ended.get(role, 0.0) + cpu
        for role in self._ended:
            sums.setdefault(role, [0, 0.0, 0.0, 0])[1] += self._ended[role]
        return [(role, int(one[0]), one[1], int(one[2]), int(one[3])) for role, one in sorted(sums.items())]


def _stat(pid: int) -> dict[str, float] | None:
    """`cpu` and `start` (since the machine's) in seconds, `rss` and `virtual` in octets; None where it is no more."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # behind a name that may hold anything
        return {
            "cpu": (int(fields[11]) + int(fields[12])) / _TICKS,
            "start": int(fields[19]) / _TICKS,
            "virtual": float(fields[20]),
            "rss": float(int(fields[21]) * _PAGE),
        }
    except (OSError, ValueError, IndexError):
        return None


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def _boot_time() -> float:
    try:
        with open("/proc/uptime", encoding="ascii") as file:
            return round(time.time() - float(file.read().split()[0]), 2)
    except (OSError, ValueError):
        return 0.0


def _log_size(folder: str) -> tuple[int, int]:
    files = octets = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # one that was removed meanwhile
                    octets += entry.stat().st_blocks * 512
                    files += 1
    except OSError:
        pass
    return files, octets


def _free(folder: str) -> tuple[int, int]:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0, 0
    return found.f_bavail * found.f_frsize, found.f_favail


def certificate_end(path: str) -> float:
    """Seconds since 1970. Raises OSError, ValueError."""
    from cryptography import x509

    with open(path, "rb") as file:
        return x509.load_pem_x509_certificate(file.read()).not_valid_after_utc.timestamp()
