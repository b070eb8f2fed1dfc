"""Postfix and Exim on loopback, with configurations of their own in a temporary folder, sending all they take to us"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from support.gateways import free_port, wait_for

POSTFIX = """\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = relay.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
alias_database =
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtputf8_enable = yes
smtp_tls_security_level = encrypt
smtp_send_xforward_command = yes
lmtp_send_xforward_command = no
{route}
"""
MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
"""
EXIM = """\
primary_hostname = relay.test
spool_directory = {folder}/spool
log_file_path = {folder}/log-%s
pid_file_path = {folder}/pid
exim_path = {program}
exim_user = {user}
exim_group = {group}
deliver_drop_privilege = true
disable_ipv6 = true
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
host_lookup =
rfc1413_hosts =
helo_lookup_domains =
chunking_advertise_hosts =
tls_advertise_hosts =
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
acl_smtp_rcpt = take
acl_smtp_data = take
begin acl
take:
  accept
begin routers
us:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = to_us
  no_more
begin transports
to_us:
  driver = smtp
  port = {us}
  allow_localhost
  hosts_require_tls = *
  tls_verify_certificates =
  hosts_try_chunking = *
  hosts_try_dane =
begin retry
* * F,2h,1m
"""


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as one:
            return one.recv(3) == b"220"
    except OSError:
        return False


def needs_root() -> None:
    if os.geteuid():
        pytest.skip("mail servers switch users: only root can start one")


@contextmanager
def postfix(route: str) -> Iterator[int]:
    """`route`: lines for main.cf. The port at which it takes mail for anyone."""
    needs_root()
    folder, port = pathlib.Path(tempfile.mkdtemp(prefix="postfix-")), free_port()
    folder.chmod(0o755)
    conf = folder / "conf"
    for name in ("conf", "spool", "data"):
        (folder / name).mkdir()
    shutil.chown(folder / "data", "postfix")
    (conf / "main.cf").write_text(POSTFIX.format(folder=folder, route=route))
    (conf / "master.cf").write_text(MASTER.format(port=port))
    maps = pathlib.Path("/etc/postfix/dynamicmaps.cf")
    if maps.exists():
        shutil.copy(maps, conf)
    standard = pathlib.Path("/etc/postfix/main.cf")
    if not standard.exists():  # none was chosen at its installation; the program wants one all the same
        standard.write_text("compatibility_level = 3.6\n")  # and it stays: other tests may be at it
    try:
        subprocess.run(["postfix", "-c", str(conf), "start"], check=True, capture_output=True, timeout=60)
        assert wait_for(lambda: answers(port)), (folder / "log").read_text()
        yield port
    finally:
        print("".join(one.read_text() for one in folder.glob("log")))  # shown when the test fails
        subprocess.run(["postfix", "-c", str(conf), "stop"], check=False, capture_output=True, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def exim(us: int, *, takes: tuple[str, str] | None = None) -> Iterator[tuple[int, Callable[[], str]]]:
    """All goes to port `us`, under TLS, in chunks; or it offers both itself, with the certificate and the key that
    `takes` names, and sends on in plain text. The port at which it takes mail for anyone, and its log."""
    needs_root()
    folder, port = pathlib.Path(tempfile.mkdtemp(prefix="exim-")), free_port()
    folder.chmod(0o777)
    program = shutil.which("exim4")
    text = EXIM.format(folder=folder, port=port, us=us, program=program, user="nobody", group="nogroup")
    if takes is not None:
        text = text.replace("chunking_advertise_hosts =", "chunking_advertise_hosts = *")
        for name, path in zip(("certificate", "key"), takes, strict=True):
            shutil.copyfile(path, folder / name)  # to where its user may read them
        secrets = f"tls_certificate = {folder}/certificate\ntls_privatekey = {folder}/key\n"
        text = text.replace("tls_advertise_hosts =", f"{secrets}tls_advertise_hosts = *")
        text = text.replace("hosts_require_tls = *", "hosts_avoid_tls = *")
    (folder / "exim.conf").write_text(text)
    with (folder / "out").open("wb") as out:
        child = subprocess.Popen(["exim4", "-C", str(folder / "exim.conf"), "-bdf"], stdout=out, stderr=out)

    def log() -> str:
        return "".join(one.read_text() for one in folder.glob("log-*"))

    try:
        assert wait_for(lambda: answers(port)), (folder / "out").read_text()
        yield port, log
    finally:
        print(log())  # shown when the test fails
        child.send_signal(signal.SIGTERM)
        child.wait(20)
        shutil.rmtree(folder, ignore_errors=True)
