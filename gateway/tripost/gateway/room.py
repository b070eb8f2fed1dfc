"""is there room on the disk for new mail?

The queue asks before it takes a message, and refuses with 452 below `[spool] min_free`. Here it is asked for those who
choose where mail goes: `tripost status`, `/readyz`, the page. Once there is room they see it at once, without a message
that has to come and try.
"""

from __future__ import annotations

import os

from tripost.gateway.settings import Config
from tripost.queue.files import RealFiles

SHORT = "less than [spool] min_free or min_free_inodes is free on its disk"


def shortage(config: Config) -> str:
    """Why new mail is put off; "" when it is not, or when the disk does not say."""
    try:
        octets, inodes = RealFiles().free(os.path.join(config.state, "spool"))
    except OSError:
        return ""  # the queue finds out what is wrong with the disk
    return SHORT if octets < config.spool.min_free or inodes < config.spool.min_free_inodes else ""
