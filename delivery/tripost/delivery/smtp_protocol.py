"""the client's side of one SMTP transaction, without I/O

Says what to send, takes the replies in their order, and keeps for each
recipient the reply that decided and the phase it came in.

States   commands → content → over. With PIPELINING MAIL, all RCPT and DATA go
         out together, so that every recipient costs no round trip of its own;
         with CHUNKING there is no DATA, and the content waits for the replies,
         unless all of it goes out with the commands (RFC 3030 §4.2): whoever has
         no recipient for it then refuses it.
         LMTP has a reply to the content for each recipient.
Source   RFC 5321 §3.3; RFC 2920 §3.1; RFC 3030 §2; RFC 2033.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from tripost.delivery.wire.replies import Reply


class Verdict(msgspec.Struct, frozen=True):
    """The reply that decided; `phase` is mail, rcpt, data or dot."""

    phase: str
    reply: Reply


def read_extensions(reply: Reply) -> dict[str, str]:
    """EHLO's 250 → keywords in upper case with their parameters."""
    found: dict[str, str] = {}
    for line in reply.lines[1:]:
        name, _, rest = line.partition(" ")
        if name.upper().startswith("AUTH="):  # what some servers said before RFC 2554
            continue
        found[name.upper()] = rest
    return found


class Transaction:
    """One message to some recipients; `mail` and `rcpts` are command lines without CRLF."""

    def __init__(
        self,
        mail: bytes,
        rcpts: Sequence[tuple[int, bytes]],
        *,
        pipelining: bool,
        chunking: bool = False,
        each: bool = False,
        whole: bytes | None = None,
    ) -> None:
        """`whole`: a last chunk, command and octets, to go out with the commands.
        `each`: LMTP, one reply to the content for every recipient that was taken (RFC 2033 §4.2)."""
        self._each = each
        self._pipelining = pipelining
        self._chunking = chunking
        self._to_send: deque[tuple[str, int, bytes]] = deque([("mail", -1, mail)])
        self._to_send.extend([("rcpt", id, line) for id, line in rcpts])
        if whole is not None:
            self._to_send.append(("end", -1, whole))
        elif not chunking:
            self._to_send.append(("data", -1, b"DATA"))
        self._sent: deque[tuple[str, int]] = deque()
        self._open = [id for id, _ in rcpts]  # those without a verdict
        self._mailed = False
        self._ended = 0
        self.accepted: list[int] = []
        self.verdicts: dict[int, Verdict] = {}
        self.content = False  # the peer waits for the content
        self.over = False
        self.ended = False  # a reply to the content came
        self.heard = False  # a reply came

    @property
    def waiting(self) -> int:
        """Replies that are still to come."""
        return len(self._sent)

    def commands(self) -> bytes:
        """What to send now; b"" when replies, or the content, come first."""
        if self._sent or self.over or self.content:
            return b""
        parts: list[bytes] = []
        while self._to_send and (self._pipelining or not parts):
            phase, recipient, line = self._to_send.popleft()
            self._sent.append((phase, recipient))
            parts.append(line)
        if self._sent[-1][0] != "end":
            parts.append(b"")
        return b"\r\n".join(parts)

    @property
    def ending(self) -> bool:
        """All is sent, and only the reply to the content is to come."""
        return len(self._sent) == 1 and self._sent[0][0] == "end"

    def take(self, reply: Reply) -> None:
        """The next reply."""
        phase, recipient = self._sent.popleft()
        self.heard = True
        good = 200 <= reply.code < 300
        if phase == "mail":
            self._mailed = good
            if not good:
                self._decide(self._open, phase, reply)
                self._to_send.clear()
                self.over = not self._sent
        elif phase == "rcpt":
            self._take_rcpt(recipient, reply, good)
        elif phase == "end":
            self.take_end(reply)
        elif reply.code == 354:
            self.content = True  # even without recipients: then it is an empty one
        else:
            if reply.code // 100 not in (4, 5):
                reply = Reply(451, "", (f"unexpected reply to DATA: {reply}",))
            self._decide(self._open, phase, reply)
            self.over = True

    def _take_rcpt(self, recipient: int, reply: Reply, good: bool) -> None:
        if good and self._mailed:
            self.accepted.append(recipient)
        elif recipient in self._open:
            self._decide([recipient], "rcpt", reply)
        if self._sent:
            return
        if self._chunking and not self._to_send:
            self.content = bool(self.accepted)
            self.over = not self.accepted
        elif self._to_send and self._to_send[0][0] == "data" and not self.accepted:
            self._to_send.clear()
            self.over = True

    def take_end(self, reply: Reply) -> None:
        """The reply to the content, or the next one of them."""
        self.ended = True
        if self._each and self.accepted:
            self._decide([self.accepted[self._ended]], "dot", reply)
            self._ended += 1
            if self._ended < len(self.accepted) and reply.code != 421:
                return
        self._decide(self._open, "dot", reply)
        self.content = False
        self.over = True

    def _decide(self, recipients: list[int], phase: str, reply: Reply) -> None:
        for one in recipients:
            self.verdicts[one] = Verdict(phase, reply)
        self._open = [one for one in self._open if one not in self.verdicts]
