"""programs that read mail by IMAP, each told to do a whole round on a mailbox

A round is a function of a `Desk`: look at all messages, mark the first as flagged, move the second to Kept, delete the
third, and append a new one. What is there afterwards is asked for by `Desk.state`.
"""

from __future__ import annotations

import imaplib
import os
import pathlib
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from support.pop3_clients import PASSWORD, USER, contents, on_a_terminal, run

NEW = b"From: marc@machin.com\r\nSubject: written here\r\nMessage-ID: <new@machin.com>\r\n\r\nnew\r\n"
Subjects = dict[str, dict[str, list[str]]]  # mailbox → subject → flags


@dataclass
class Desk:
    """A port of 127.0.0.1, and a folder for the program."""

    port: int
    folder: pathlib.Path

    def client(self) -> imaplib.IMAP4:
        one = imaplib.IMAP4("127.0.0.1", self.port, timeout=100)
        one.login(USER, PASSWORD)
        return one

    def figures(self, *folders: pathlib.Path) -> tuple[list[object], list[str]]:
        """What changes when anything moves: here, and in the copies."""
        one = self.client()
        found: list[object] = [one.status(name, "(MESSAGES UIDNEXT HIGHESTMODSEQ)") for name in ("INBOX", "Kept")]
        one.logout()
        paths = [path for folder in folders for part in ("cur", "new") for path in folder.rglob(f"{part}/*")]
        assert paths
        return found, sorted(map(str, paths))

    def state(self, *mailboxes: str) -> Subjects:
        found: Subjects = {}
        one = self.client()
        for mailbox in mailboxes:
            there = found.setdefault(mailbox, {})
            if one.select(mailbox, readonly=True)[0] != "OK":
                continue
            rows: list[object] = []
            if one.search(None, "ALL")[1][0]:
                rows = list(one.fetch("1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1])
            for row in rows:
                if isinstance(row, tuple):
                    flags = re.search(rb"FLAGS \(([^)]*)\)", row[0])
                    assert flags is not None
                    there[row[1].decode().partition(":")[2].strip()] = flags[1].decode().replace("\\Recent", "").split()
        one.logout()
        return found


def by_imaplib(desk: Desk) -> None:
    one = desk.client()
    assert one.create("Kept")[0] == "OK"
    _, (count,) = one.select()
    _, rows = one.fetch("1:*", "(RFC822)")
    assert sum(isinstance(row, tuple) for row in rows) == int(count or 0)
    one.store("1", "+FLAGS", "\\Flagged")
    one.uid("MOVE", "2", "Kept")
    one.store("2", "+FLAGS", "\\Deleted")
    one.expunge()
    one.append("INBOX", "(\\Seen)", "", NEW)
    one.logout()


def by_curl(desk: Desk) -> None:
    base = f"imap://localhost:{desk.port}/"
    login = ("-sS", "-u", f"{USER}:{PASSWORD}")
    run("curl", *login, base, "-X", "CREATE Kept")
    uids = run("curl", *login, f"{base}INBOX", "-X", "UID SEARCH ALL").split()[2:]
    out = desk.folder / "curl"
    out.mkdir()
    run("curl", *login, f"{base}INBOX;UID=[1-{len(uids)}]", "-o", str(out / "#1"))
    assert len(contents(out)) == len(uids)
    for command in ("STORE 1 +FLAGS \\Flagged", "UID MOVE 2 Kept", "UID STORE 3 +FLAGS \\Deleted", "EXPUNGE"):
        run("curl", *login, f"{base}INBOX", "-X", command)
    new = desk.folder / "new"
    new.write_bytes(NEW)
    run("curl", *login, f"{base}INBOX", "-T", str(new))


def by_mutt(desk: Desk) -> None:
    """All in one session, by its keys."""
    home = desk.folder / "mutt"
    home.mkdir()
    draft = home / "draft"
    draft.write_bytes(b"From: marc@machin.com\nTo: fred@truc.fr\nSubject: written here\n\nnew\n")
    rc = home / "rc"
    base = f"imap://localhost:{desk.port}"
    common = (
        f"set folder='{base}/'\nset spoolfile='{base}/INBOX'\nset imap_user='{USER}'\nset imap_pass='{PASSWORD}'\n"
        "set ssl_starttls=no\nset ssl_force_tls=no\nset quit=yes\nset delete=yes\nset confirmappend=no\nset move=no\n"
        f"set wait_key=no\nset mark_old=no\nset sort=mailbox-order\nset header_cache='{home}/cache'\n"
        "set imap_check_subscribed=no\nset record=''\nset confirmcreate=no\nset resolve=no\n"
    )
    keys = "<first-entry><flag-message><next-entry><save-message>=Kept<enter><next-entry><delete-message><sync-mailbox>"
    rc.write_text(f"{common}push '{keys}<quit>'\n")
    one = desk.client()
    one.create("Kept")
    one.logout()
    on_a_terminal("mutt", "-n", "-F", str(rc), HOME=str(home))
    message = home / "message"
    message.mkdir()
    for part in ("new", "cur", "tmp"):
        (message / part).mkdir()
    (message / "new" / "1.x.h").write_bytes(NEW.replace(b"\r\n", b"\n"))
    rc.write_text(f"{common}push '<first-entry><copy-message>{base}/INBOX<enter><quit>'\n")
    on_a_terminal("mutt", "-n", "-F", str(rc), "-f", str(message), HOME=str(home))


def by_mbsync(desk: Desk) -> None:
    """Everything is done to the copy, and synchronised."""
    here = _mbsync(desk)
    _change(here / "inbox", here / "Kept")
    _mbsync(desk)
    before = desk.figures(here / "inbox", here / "Kept")
    _mbsync(desk)
    assert desk.figures(here / "inbox", here / "Kept") == before, "the second synchronisation moved something"


def _mbsync(desk: Desk) -> pathlib.Path:
    here = desk.folder / "mbsync"
    here.mkdir(exist_ok=True)
    (here / "rc").write_text(
        f"IMAPStore far\nHost localhost\nPort {desk.port}\nUser {USER}\nPass {PASSWORD}\n"
        "SSLType None\nAuthMechs LOGIN\n\n"
        f"MaildirStore near\nPath {here}/\nInbox {here}/inbox\nSubFolders Verbatim\n\n"
        "Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\nSyncState *\nCopyArrivalDate yes\n"
    )
    run("mbsync", "-c", str(here / "rc"), "all", HOME=str(here))
    return here


def by_offlineimap(desk: Desk) -> None:
    here = _offlineimap(desk)
    _change(here / "INBOX", here / "Kept", keep=False)
    _offlineimap(desk)
    before = desk.figures(here)
    _offlineimap(desk)
    assert desk.figures(here) == before, "the second synchronisation moved something"


def _offlineimap(desk: Desk) -> pathlib.Path:
    here = desk.folder / "offlineimap"
    here.mkdir(exist_ok=True)
    rc = here / "rc"
    rc.write_text(
        f"[general]\naccounts = a\nmetadata = {here}/meta\nui = basic\nmaxsyncaccounts = 1\n\n"
        "[Account a]\nlocalrepository = l\nremoterepository = r\n\n"
        f"[Repository l]\ntype = Maildir\nlocalfolders = {here}/mail\n\n"
        f"[Repository r]\ntype = IMAP\nremotehost = 127.0.0.1\nremoteport = {desk.port}\nremoteuser = {USER}\n"
        f"remotepass = {PASSWORD}\nssl = no\nstarttls = no\nauth_mechanisms = PLAIN\nmaxconnections = 1\n"
    )
    rc.chmod(0o600)
    done = subprocess.run(
        ["offlineimap", "-o", "-c", str(rc), "-u", "basic"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ | {"HOME": str(here)},
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    return here / "mail"


def _change(inbox: pathlib.Path, kept: pathlib.Path, *, keep: bool = True) -> None:
    """Flag, move, delete and add in a copy, as a program that reads Maildir would."""
    by_subject: dict[bytes, pathlib.Path] = {}
    for path in [*(inbox / "cur").iterdir(), *(inbox / "new").iterdir()]:
        found = re.search(rb"^Subject: (.*?)\r?$", path.read_bytes(), re.M)
        assert found is not None
        by_subject[found[1]] = path
    for part in ("new", "cur", "tmp"):
        (kept / part).mkdir(parents=True, exist_ok=True)
    first, second, third = (by_subject[b"number %d" % n] for n in range(3))
    base, _, info = first.name.partition(":2,")
    first.rename(inbox / "cur" / f"{base}:2,{''.join(sorted({*info, 'F'}))}")
    (kept / "cur" / f"1700000001.moved{'' if keep else '2'}.h:2,").write_bytes(second.read_bytes())
    second.unlink()
    third.unlink()
    (inbox / "cur" / "1700000002.new.h:2,S").write_bytes(NEW.replace(b"\r\n", b"\n"))


def by_fetchmail(desk: Desk, delete: bool) -> list[bytes]:
    home, out = desk.folder / "fetchmail", desk.folder / "fetchmail-out"
    home.mkdir()
    out.mkdir()
    rc = home / "rc"
    rc.write_text(
        f"poll localhost service {desk.port} protocol imap auth password user '{USER}' password '{PASSWORD}'"
        " sslproto ''"
        f" {'no keep' if delete else 'keep'} fetchall no rewrite mda 'cat > $(mktemp {out}/XXXXXXXX)'\n"
    )
    rc.chmod(0o600)
    words = ("-f", str(rc), "--nosyslog", "--pidfile", str(home / "pid"), "-i", str(home / "ids"))
    run("fetchmail", *words, HOME=str(home), FETCHMAILHOME=str(home))
    return contents(out)


def by_getmail(desk: Desk, delete: bool) -> list[bytes]:
    home, out = desk.folder / "getmail", desk.folder / "getmail-out"
    home.mkdir()
    out.mkdir()
    store = home / "store"  # as root it delivers by a program only
    store.write_text(f"#!/bin/sh\nexec cat > $(mktemp {out}/XXXXXXXX)\n")
    store.chmod(0o700)
    rc = home / "rc"
    rc.write_text(
        f"[retriever]\ntype = SimpleIMAPRetriever\nserver = localhost\nport = {desk.port}\nusername = {USER}\n"
        f"password = {PASSWORD}\nmailboxes = ('INBOX',)\n"
        f"[destination]\ntype = MDA_external\npath = {store}\nallow_root_commands = true\n"
        f"[options]\ndelete = {delete}\nread_all = true\nreceived = false\ndelivered_to = false\nverbose = 0\n"
    )
    run("getmail", "--getmaildir", str(home), "--rcfile", str(rc), HOME=str(home))
    return contents(out)


ROUNDS: dict[str, tuple[Callable[[Desk], None], str, str]] = {  # program, what it is called, its Debian package
    "imaplib": (by_imaplib, "", ""),
    "curl": (by_curl, "curl", "curl"),
    "mutt": (by_mutt, "mutt", "mutt"),
    "mbsync": (by_mbsync, "mbsync", "isync"),
    "offlineimap": (by_offlineimap, "offlineimap", "offlineimap3"),
}
FETCHERS: dict[str, tuple[Callable[[Desk, bool], list[bytes]], str, str]] = {
    "fetchmail": (by_fetchmail, "fetchmail", "fetchmail"),
    "getmail": (by_getmail, "getmail", "getmail6"),
}
