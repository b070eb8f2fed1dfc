"""the exception tree

Every error that a peer or an operator may come to see carries an SMTP reply
code, an enhanced code (RFC 3463), whether it is temporary, a public text, and
a private detail that only the log may show.
"""

from __future__ import annotations


class TripostError(Exception):
    """Base of all: `code`, `enhanced`, `text` are public, `detail` is for the log."""

    code = 451
    enhanced = "4.3.0"
    text = "internal trouble, try again later"

    def __init__(self, detail: str = "", *, text: str | None = None) -> None:
        super().__init__(detail or text or self.text)
        self.detail = detail
        if text is not None:
            self.text = text

    @property
    def temporary(self) -> bool:
        return self.code < 500


class SpoolError(TripostError):
    """The message could not be made durable; nothing was accepted."""

    text = "cannot store the message now, try again later"


class SpoolFull(SpoolError):
    """No room on the disk, or a watermark is reached."""

    code = 452
    enhanced = "4.3.1"
    text = "no room to store the message now, try again later"


class SpoolUnsure(SpoolError):
    """Nobody can tell yet whether the message is stored: there is to be no reply at all."""

    text = "the disk does not answer"


class SpoolLocked(TripostError):
    """Another process works on the same state folder."""

    text = "the state folder is in use by another gateway"


class SpoolDamaged(TripostError):
    """A spool file is of an unknown version or not a spool file at all."""

    text = "the spool cannot be read"


class MailboxError(TripostError):
    """The local mailbox did not take the message."""

    enhanced = "4.2.0"
    text = "the mailbox cannot take the message now"
