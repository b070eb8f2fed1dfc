"""the system calls that a systemd unit may make, as a program for the kernel

Run by the system's Python, which has libseccomp's module (Debian's python3-seccomp): `unit_filter.py UNIT` writes the
BPF program to standard output, for `bwrap --seccomp`. It is what systemd makes of SystemCallFilter,
RestrictAddressFamilies and RestrictNamespaces; groups are what `systemd-analyze syscall-filter` says they are.
"""

import re
import socket
import subprocess
import sys

import seccomp  # type: ignore[import-not-found]

NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00000080)
EPERM, ENOSYS = 1, 38


def calls(name: str) -> set[str]:
    """Of a group, and of the groups in it."""
    if not name.startswith("@"):
        return {name}
    said = subprocess.check_output(["systemd-analyze", "syscall-filter", "--no-pager", name], text=True)
    found = re.findall(r"^ +(@?[a-z0-9_-]+)$", said, re.MULTILINE)
    return {call for one in found for call in calls(one)}


def main() -> None:
    with open(sys.argv[1]) as file:
        unit = file.read()
    allowed: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE):
        named = {call for word in line.lstrip("~").split() for call in calls(word)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    program = seccomp.SyscallFilter(seccomp.ERRNO(EPERM))
    special = {"socket", "clone", "clone3", "unshare", "setns"}
    for one in sorted(allowed - special):
        try:
            program.add_rule(seccomp.ALLOW, one)
        except RuntimeError:
            continue  # this architecture, or this libseccomp, has no such call
    families = re.findall(r"^RestrictAddressFamilies=(.*)$", unit, re.MULTILINE)[0].split()
    for family in families:
        program.add_rule(seccomp.ALLOW, "socket", seccomp.Arg(0, seccomp.EQ, int(getattr(socket, family))))
    if "RestrictNamespaces=true" in unit:
        program.add_rule(seccomp.ALLOW, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, sum(NAMESPACES), 0))
        program.add_rule(seccomp.ERRNO(ENOSYS), "clone3")  # its flags are in memory: libc falls back to clone
    program.export_bpf(sys.stdout)


if __name__ == "__main__":
    main()
