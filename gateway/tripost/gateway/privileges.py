"""started as root: open the ports, then be somebody else

For machines without systemd. As root the `[[listen]]` addresses are bound, and the folder `state` is made for the user;
then groups, group and user are given up for good, before anything is read from the network or written to the spool.

Fails    `PrivilegeError` for a user or group that does not exist; `ListenError`.
"""

from __future__ import annotations

import grp
import os
import pwd

from tripost.gateway import sockets
from tripost.gateway.inherited import Inherited
from tripost.gateway.settings import Config


class PrivilegeError(Exception):
    """One line."""


def give_up(config: Config, inherited: Inherited) -> None:
    """Nothing without `user`, or when we are not root."""
    if not config.user or os.geteuid() != 0:
        return
    uid, gid = identity(config)
    for one in config.listen:
        if not inherited.has(one.address):
            inherited.add(one.address, sockets.listen(one.address))
            if one.address.startswith(sockets.UNIX):
                os.chown(one.address.removeprefix(sockets.UNIX), uid, gid)
    if not os.path.isdir(config.state):
        os.makedirs(config.state, mode=0o711)
        os.chown(config.state, uid, gid)
    os.initgroups(config.user, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def identity(config: Config) -> tuple[int, int]:
    """User and group. Raises PrivilegeError."""
    try:
        user = pwd.getpwnam(config.user)
    except KeyError:
        raise PrivilegeError(f'there is no user "{config.user}"') from None
    try:
        return user.pw_uid, grp.getgrnam(config.group).gr_gid if config.group else user.pw_gid
    except KeyError:
        raise PrivilegeError(f'there is no group "{config.group}"') from None
