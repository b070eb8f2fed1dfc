"""Dovecot on loopback, with its own configuration, on a folder of mailboxes"""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from support.gateways import free_port, wait_for

CONFIGURATION = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = {protocols}
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
default_internal_user = {user}
default_login_user = {login}
default_internal_group = {group}
first_valid_uid = 1
first_valid_gid = 0
mail_location = maildir:{mail}/%u
mail_max_userip_connections = 100
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/home/%u
}}
service pop3-login {{
  chroot =
  service_count = 0
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
{more}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
"""

IMAP = """\
service imap-login {{
  chroot =
  service_count = 0
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
"""


class Dovecot:
    """`folder` holds all of it; mailboxes are in `mail`. As root it works as nobody, whose the mail must be (`own`)."""

    def __init__(self, folder: pathlib.Path, mail: pathlib.Path, users: dict[str, str]) -> None:
        root = os.getuid() == 0
        self.folder, self.mail = folder, mail
        self.uid, self.gid = (65534, 65534) if root else (os.getuid(), os.getgid())
        self.pop3, self.lmtp, self.imap = free_port(), free_port(), free_port()
        imap = os.path.exists("/usr/lib/dovecot/imap")  # Debian: dovecot-imapd
        me = "root" if root else str(os.getuid())
        for name in ("run", "state", "home"):
            (folder / name).mkdir(exist_ok=True)
        (folder / "users").write_text("".join(f"{user}:{{PLAIN}}{password}\n" for user, password in users.items()))
        (folder / "dovecot.conf").write_text(
            CONFIGURATION.format(
                folder=folder,
                mail=mail,
                user=me,
                group="root" if root else str(os.getgid()),
                login="nobody" if root else me,
                uid=self.uid,
                gid=self.gid,
                protocols="pop3 lmtp imap" if imap else "pop3 lmtp",
                more=IMAP.format(imap=self.imap) if imap else "",
                pop3=self.pop3,
                lmtp=self.lmtp,
            )
        )
        os.chmod(folder / "users", 0o644)
        self.own(folder / "home")

    def own(self, *paths: pathlib.Path) -> None:
        """Give Dovecot what we, as root, have made."""
        if os.getuid() == 0:
            for path in paths or (self.mail,):
                for one in (path, *path.rglob("*")):
                    os.chown(one, self.uid, self.gid, follow_symlinks=False)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.pop3), 1) as one:
                one.settimeout(2)
                return one.recv(3) == b"+OK"
        except OSError:
            return False

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""


@contextmanager
def dovecot(folder: pathlib.Path, mail: pathlib.Path, users: dict[str, str]) -> Iterator[Dovecot]:
    """Running."""
    one = Dovecot(folder, mail, users)
    child = subprocess.Popen(["dovecot", "-F", "-c", str(folder / "dovecot.conf")], start_new_session=True)
    try:
        assert wait_for(one.answers), one.log()
        yield one
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
