"""programs that fetch mail, each told to fetch all of a mailbox

A client is a function of a `Shop`, `delete` and a way ("plain", "stls", "tls"); it gives the messages as the program
has stored them, in any order.
"""

from __future__ import annotations

import os
import pathlib
import poplib
import pty
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass

USER, PASSWORD = "marc@machin.com", "secret"
PATIENCE = 200.0


@dataclass
class Shop:
    """Where the mail is: two ports of 127.0.0.1 ("localhost" in the certificate), and a folder for the program."""

    port: int
    tls_port: int
    authority: pathlib.Path
    folder: pathlib.Path

    def at(self, way: str) -> int:
        return self.tls_port if way == "tls" else self.port

    def fresh(self, name: str) -> pathlib.Path:
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path


Client = Callable[[Shop, bool, str], list[bytes]]


def run(*words: str, stdin: str = "", **environment: str) -> bytes:
    done = subprocess.run(
        words, input=stdin.encode(), capture_output=True, timeout=PATIENCE, check=False, env=os.environ | environment
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def contents(folder: pathlib.Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


def by_curl(shop: Shop, delete: bool, way: str) -> list[bytes]:
    out = shop.fresh("curl")
    how = ["-sS", "--ssl-reqd"] if way == "stls" else ["-sS"]
    how += ["--cacert", str(shop.authority), "-u", f"{USER}:{PASSWORD}"]
    url = f"{'pop3s' if way == 'tls' else 'pop3'}://localhost:{shop.at(way)}/"
    count = len(run("curl", *how, url).splitlines())
    run("curl", *how, f"{url}[1-{count}]", "-o", str(out / "#1"))
    if delete:
        run("curl", *how, "-l", "-X", "DELE", f"{url}[1-{count}]")
    return contents(out)


def by_poplib(shop: Shop, delete: bool, way: str) -> list[bytes]:
    context = ssl.create_default_context(cafile=str(shop.authority))
    if way == "tls":
        client: poplib.POP3 = poplib.POP3_SSL("localhost", shop.tls_port, timeout=60, context=context)
    else:
        client = poplib.POP3("localhost", shop.port, timeout=60)
    if way == "stls":
        client.stls(context)
    client.user(USER)
    client.pass_(PASSWORD)
    found: list[bytes] = []
    for n in range(1, client.stat()[0] + 1):
        found.append(b"".join(line + b"\r\n" for line in client.retr(n)[1]))
        assert len(found[-1]) == int(client.list(n).split()[2])
        if delete:
            client.dele(n)
    client.quit()
    return found


def by_pipelining(shop: Shop, delete: bool, way: str) -> list[bytes]:
    """As Thunderbird has it: UIDL and LIST at once, then many RETR in flight, each followed by its DELE."""
    one = socket.create_connection(("localhost", shop.at(way)), 60)
    context = ssl.create_default_context(cafile=str(shop.authority))
    if way == "tls":
        one = context.wrap_socket(one, server_hostname="localhost")
    lines = one.makefile("rb")

    def ok() -> bytes:
        line = lines.readline()
        assert line.startswith(b"+OK"), line
        return line

    def rows() -> list[bytes]:
        ok()
        return list(iter(lines.readline, b".\r\n"))

    ok()
    if way == "stls":
        one.sendall(b"STLS\r\n")
        ok()
        one = context.wrap_socket(one, server_hostname="localhost")
        lines = one.makefile("rb")
    one.sendall(f"CAPA\r\nUSER {USER}\r\nPASS {PASSWORD}\r\nSTAT\r\nLIST\r\nUIDL\r\n".encode())
    assert b"PIPELINING\r\n" in rows()
    for _ in range(2):
        ok()
    count = int(ok().split()[1])
    assert (len(rows()), len(rows())) == (count, count)
    found: list[bytes] = []
    for start in range(1, count + 1, 40):
        window = range(start, min(start + 40, count + 1))
        more = "DELE {0}\r\n" if delete else ""
        one.sendall("".join(f"RETR {{0}}\r\n{more}".format(n) for n in window).encode())
        for _ in window:
            found.append(b"".join(row[1:] if row.startswith(b".") else row for row in rows()))
            if delete:
                ok()
    one.sendall(b"QUIT\r\n")
    ok()
    lines.close()
    one.close()
    return found


def by_fetchmail(shop: Shop, delete: bool, way: str) -> list[bytes]:
    home, out = shop.fresh("fetchmail"), shop.fresh("fetchmail-out")
    tls = {"plain": "sslproto ''", "stls": "sslproto 'TLS1.2+'", "tls": "ssl"}[way]
    check = "" if way == "plain" else f"sslcertck sslcertfile {shop.authority}"
    rc = home / "rc"
    rc.write_text(
        f"poll localhost service {shop.at(way)} protocol pop3 auth password user '{USER}' password '{PASSWORD}'"
        f" {tls} {check} {'no keep' if delete else 'keep'} fetchall no rewrite mda 'cat > $(mktemp {out}/XXXXXXXX)'\n"
    )
    rc.chmod(0o600)
    words = ("-f", str(rc), "--nosyslog", "--pidfile", str(home / "pid"), "-i", str(home / "ids"))
    run("fetchmail", *words, HOME=str(home), FETCHMAILHOME=str(home))
    return contents(out)


def by_mpop(shop: Shop, delete: bool, way: str) -> list[bytes]:
    home, out = shop.fresh("mpop"), shop.fresh("mpop-out")
    for part in ("tmp", "new", "cur"):
        (out / part).mkdir()
    rc = home / "rc"
    rc.write_text(
        f"account default\nhost localhost\nport {shop.at(way)}\nuser {USER}\npassword {PASSWORD}\n"
        f"tls {'off' if way == 'plain' else 'on'}\ntls_starttls {'on' if way == 'stls' else 'off'}\n"
        f"{'' if way == 'plain' else f'tls_trust_file {shop.authority}'}\n"
        f"auth {'user' if way == 'plain' else 'scram-sha-256'}\n"
        f"keep {'off' if delete else 'on'}\nonly_new off\nuidls_file {home}/uidls\ndelivery maildir {out}\n"
        "received_header off\n"
    )
    rc.chmod(0o600)
    run("mpop", "-q", "-C", str(rc), HOME=str(home))
    return contents(out)


def by_getmail(shop: Shop, delete: bool, way: str) -> list[bytes]:
    """It knows no STLS."""
    home, out = shop.fresh("getmail"), shop.fresh("getmail-out")
    store = home / "store"  # as root it delivers by a program only
    store.write_text(f"#!/bin/sh\nexec cat > $(mktemp {out}/XXXXXXXX)\n")
    store.chmod(0o700)
    kind = "SimplePOP3SSLRetriever" if way == "tls" else "SimplePOP3Retriever"
    rc = home / "rc"
    rc.write_text(
        f"[retriever]\ntype = {kind}\nserver = localhost\nport = {shop.at(way)}\nusername = {USER}\n"
        f"password = {PASSWORD}\n{f'ca_certs = {shop.authority}' if way == 'tls' else ''}\n"
        f"[destination]\ntype = MDA_external\npath = {store}\nallow_root_commands = true\n"
        f"[options]\ndelete = {delete}\nread_all = true\nreceived = false\ndelivered_to = false\nverbose = 0\n"
    )
    run("getmail", "--getmaildir", str(home), "--rcfile", str(rc), HOME=str(home))
    return contents(out)


def by_mutt(shop: Shop, delete: bool, way: str) -> list[bytes]:
    home, out = shop.fresh("mutt"), shop.fresh("mutt-out")
    for part in ("tmp", "new", "cur"):
        (out / part).mkdir()
    rc = home / "rc"
    rc.write_text(
        f"set pop_host='{'pops' if way == 'tls' else 'pop'}://localhost:{shop.at(way)}'\n"
        f"set pop_user='{USER}'\nset pop_pass='{PASSWORD}'\nset pop_delete={'yes' if delete else 'no'}\n"
        f"set pop_last=no\nset mbox_type=Maildir\nset folder='{home}'\nset spoolfile='{out}'\n"
        f"set ssl_starttls={'yes' if way == 'stls' else 'no'}\nset ssl_force_tls={'no' if way == 'plain' else 'yes'}\n"
        f"set ssl_ca_certificates_file='{shop.authority}'\nset certificate_file='{home}/c'\n"
        "set pop_authenticators='plain:user'\nset quit=yes\nset move=no\nset wait_key=no\nset sleep_time=0\n"
        "set header_cache=''\nset maildir_trash=no\nset mark_old=no\n"
        "push '<fetch-mail><quit>'\n"
    )
    on_a_terminal("mutt", "-n", "-F", str(rc), HOME=str(home))
    return contents(out)


def on_a_terminal(*words: str, **environment: str) -> None:
    """Run a program that wants one."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def drain() -> None:
        try:
            while data := os.read(ours, 65_536):
                shown.append(data)
        except OSError:
            pass  # the program has left

    child = subprocess.Popen(
        words,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=os.environ | {"TERM": "vt100"} | environment,
    )
    os.close(theirs)
    reader = threading.Thread(target=drain)
    reader.start()
    try:
        code = child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        code = -1
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        reader.join()
        os.close(ours)
    assert code == 0, b"".join(shown)[-3000:]


# a client; its Debian package; the ways it knows; whether it leaves octets alone
CLIENTS: dict[str, tuple[Client, str, tuple[str, ...], bool]] = {
    "curl": (by_curl, "curl", ("plain", "stls", "tls"), True),
    "poplib": (by_poplib, "", ("plain", "stls", "tls"), True),
    "pipelining": (by_pipelining, "", ("plain", "stls", "tls"), True),
    "fetchmail": (by_fetchmail, "fetchmail", ("plain", "stls", "tls"), False),
    "mpop": (by_mpop, "mpop", ("plain", "stls", "tls"), False),
    "getmail": (by_getmail, "getmail6", ("plain", "tls"), False),
    "mutt": (by_mutt, "mutt", ("plain", "stls", "tls"), False),
}
# header lines of their own: fetchmail's trace, what mutt notes in a mailbox
_OWN = re.compile(
    rb"\AReceived: from [^\n]*\n\tby [^\n]* with POP3 [^\n]*\n(?:\t[^\n]*\n)*"
    rb"|^(?:Status|Content-Length|Lines): [^\n]*\n",
    re.M,
)


def normal(message: bytes) -> bytes:
    """Without their own header lines, and with line ends as on Unix."""
    text = message.replace(b"\r\n", b"\n")
    head, found, body = text.partition(b"\n\n")
    return _OWN.sub(b"", head + b"\n")[:-1] + found + body
