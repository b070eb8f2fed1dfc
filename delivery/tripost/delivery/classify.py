"""what a host means by its refusal

Enhanced codes are often missing or wrong, so that words count too. The table is
read from top to bottom, the first that fits wins; each line names where the
words are documented. Pure.

A class says what it is about, and so what is to be done:

  class       about              what we do
  busy        our connections    fewer of them (tripost.delivery.window)
  rate        our speed          the site rests, longer each time
  blocked     our address        the site rests for longer
  greylisted  this message       the message's own retry, nothing else
  others      message, mailbox,  likewise
              or sender
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec


class Kind(msgspec.Struct, frozen=True):
    """`text`: for people who did not write the message's SMTP."""

    name: str
    text: str
    pause: float = 0.0  # seconds for which the site rests at first


BUSY = Kind("busy", "The other server is busy.")
RATE = Kind("rate", "The other server takes mail from us at a lower rate only.", 60.0)
BLOCKED = Kind("blocked", "The other server does not take mail from our address.", 300.0)
GREYLISTED = Kind("greylisted", "The other server asks new senders to try again later.")
FLOODED = Kind("flooded", "The mailbox gets too much mail at the moment.")
UNREACHABLE = Kind("unreachable", "The other server could not be spoken to.")
PROTOCOL = Kind("protocol", "The two servers did not understand each other.")
NO_USER = Kind("no-user", "There is no such mailbox.")
FULL = Kind("full", "The mailbox is full.")
DISABLED = Kind("disabled", "The mailbox is disabled, or takes no mail.")
SIZE = Kind("size", "The message is too large for the other server.")
SPAM = Kind("content", "The other server takes the message for unwanted mail.")
AUTHENTICATION = Kind("authentication", "The other server could not verify who sent the message (SPF, DKIM, DMARC).")
RELAY = Kind("relay", "The other server does not take mail for this address.")
SENDER = Kind("sender", "The other server does not accept the sender's address.")
FORM = Kind("form", "The other server cannot take a message of this form.")
TLS = Kind("tls", "No secure connection could be made to the other server.")
ROUTE = Kind("route", "No way was found to a server for this address.")
EXPIRED = Kind("expired", "The message could not be delivered in time.")
LOOP = Kind("loop", "The message goes in circles between servers.")
OTHER = Kind("other", "The other server refused the message.")

GOOGLE = "support.google.com/a/answer/3726730"
YAHOO = "senders.yahooinc.com/smtp-error-codes"
MICROSOFT = "sendersupport.olc.protection.outlook.com/pm/troubleshooting.aspx, learn.microsoft.com NDR codes"
IANA = "RFC 3463 and the IANA registry of enhanced status codes"
POSTFIX = "postfix.org manual pages: what smtpd, anvil, postscreen and greylisting policy servers say"
COMCAST = "postmaster.comcast.net/mail-error-codes"
OURS = "what this gateway says itself where no server answers"
SPAMHAUS = "the usual words of servers that ask DNS block lists"

_TABLE: tuple[tuple[str, Kind, str], ...] = (
    (
        r"(user|account|mailbox|recipient).{0,60}receiving (e-?mail|mail) (too quickly|at a rate)",
        FLOODED,
        GOOGLE,
    ),
    (
        r"too many (concurrent |simultaneous )?(smtp )?(open )?(connections|sessions)|connection limit"
        r"|concurrent.*exceeded",
        BUSY,
        POSTFIX,
    ),
    (
        r"^421 .*(4\.7\.0 .*\bTSS|\[TSS)|\[TS[0-9]{2}\]|deferred due to (user complaints"
        r"|unexpected volume)",
        RATE,
        YAHOO,
    ),
    (
        r"4\.7\.28|4\.7\.26 .*rate|unusual rate|rate (that|of|limit)|rate[- ]?limit|too (many"
        r"|much) (messages|mail|recipients)|too fast|\bthrottl",
        RATE,
        GOOGLE,
    ),
    (
        r"\bRP-00[1-3]\b|\bS77[0-9]\b|temporarily rate limited|4\.7\.6[0-9][0-9]",
        RATE,
        MICROSOFT,
    ),
    (
        r"\bRL0{2,}[01]*[12]\b",
        RATE,
        COMCAST,
    ),
    (
        r"\b(BL|ES)[01]{6}\b|\bDNS[01]{6}\b",
        BLOCKED,
        COMCAST,
    ),
    (
        r"gr[ea]y[- ]?list|try again in [0-9]+ ?(s|sec|min)|4\.7\.1 .*(later|delayed)"
        r"|4\.2\.0 .*(greylist|policy)",
        GREYLISTED,
        POSTFIX,
    ),
    (
        r"\bS3150\b|\bS3140\b|\b(SC|OU)-00[1-4]\b|part of their network is on our block ?list",
        BLOCKED,
        MICROSOFT,
    ),
    (
        r"\[BL2[0-9]\]|\[IPTS04\]|not accepted for policy reasons.*ip",
        BLOCKED,
        YAHOO,
    ),
    (
        r"4\.7\.0 .*(\bip\b|low reputation of the sending ip)|5\.7\.1 .*low reputation of the sending ip",
        BLOCKED,
        GOOGLE,
    ),
    (
        r"\b[45]\.7\.25\b|reverse dns|\br?dns lookup failed|cannot find your (reverse )?hostname|\bno ptr\b"
        r"|\bptr record",
        BLOCKED,
        POSTFIX,
    ),
    (
        r"\b5\.7\.(511|60[6-9]|6[1-4][0-9]|70[0-9]|75[0-9])\b|access denied, (banned|traffic not accepted)",
        BLOCKED,
        MICROSOFT,
    ),
    (
        r"spamhaus|block ?list|black ?list|\brbl\b|\bdnsbl\b|poor reputation|bad reputation|banned"
        r"|blocked (using|by)",
        BLOCKED,
        SPAMHAUS,
    ),
    (
        r"\b[45]\.7\.(2[0-7]|29|509|515)\b|\b(spf|dkim|dmarc)\b|unauthenticated",
        AUTHENTICATION,
        GOOGLE,
    ),
    (
        r"\b[45]\.4\.7\b",
        EXPIRED,
        IANA,
    ),
    (
        r"\b[45]\.4\.6\b|\bloop|too many (hops|received)",
        LOOP,
        IANA,
    ),
    (
        r"\b[45]\.3\.1\b|insufficient system storage",  # the server's, not the mailbox's
        BUSY,
        IANA,
    ),
    (
        r"\b[45]\.2\.2\b|mailbox.{0,20}full|over ?quota|quota exceeded|out of storage"
        r"|insufficient .*storage",
        FULL,
        IANA,
    ),
    (
        r"\b[45]\.(2\.1|7\.(13|17))\b|(mailbox|account).{0,30}(disabled|inactive|suspended)",
        DISABLED,
        IANA,
    ),
    (
        r"\b[45]\.[23]\.[34]\b|message (size|too (large|big))|size limit",
        SIZE,
        IANA,
    ),
    (
        r"\b[45]\.1\.[78]\b|sender.{0,30}(rejected|denied|unknown|invalid)",
        SENDER,
        IANA,
    ),
    (
        r"\b[45]\.1\.([136]|10)\b|\b(no|unknown|invalid|nonexistent|non-existent) (such )?(user|mailbox"
        r"|recipient|account)|(user|recipient|mailbox|account|address).{0,30}(unknown|does not exist"
        r"|doesn't exist|not found|unavailable|rejected)",
        NO_USER,
        IANA,
    ),
    (
        r"relay(ing)? (access )?(denied|not permitted)|not (a )?local|does not relay",
        RELAY,
        POSTFIX,
    ),
    (
        r"\b[45]\.7\.(4|5|10|30)\b|\bstarttls\b|\btls\b",
        TLS,
        IANA,
    ),
    (
        r"\b[45]\.6\.\d",
        FORM,
        IANA,
    ),
    (
        r"\b5\.7\.1\b.*(spam|content|unsolicited|policy)|\bspam\b|unsolicited|suspicious|junk|virus|malware|phish",
        SPAM,
        GOOGLE,
    ),
    (
        r"\b[45]\.4\.[12]\b",
        UNREACHABLE,
        OURS,
    ),
    (
        r"\b[45]\.(1\.2|4\.[034])\b|domain .{0,40}(does not exist|not found)",
        ROUTE,
        IANA,
    ),
    (
        r"\b[45]\.7\.1\b|polic",
        SPAM,
        IANA,
    ),
    (
        r"\b[45]\.5\.\d\b|^50[0-5]\b|syntax|bad sequence|pipelining",
        PROTOCOL,
        IANA,
    ),
    (
        r"^421\b|\b4\.(3\.[02]|4\.5)\b|server busy|\bbusy\b|overload|system load",
        BUSY,
        IANA,
    ),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), kind, source) for pattern, kind, source in _TABLE)
TEXT_LIMIT = 1000


@lru_cache(1024)
def classify(reply: str) -> Kind:
    """Of a reply as text: code, enhanced code, words."""
    text = reply[:TEXT_LIMIT]
    return next((kind for pattern, kind, _ in _COMPILED if pattern.search(text)), OTHER)


def table() -> list[tuple[str, str, str]]:
    """(pattern, class, source), for the documentation."""
    return [(pattern, kind.name, source) for pattern, kind, source in _TABLE]
