"""what `tripost sendmail --help` says; `sendmail_arguments` reads the arguments themselves"""

from __future__ import annotations

import argparse

NAMES = ("sendmail", "mailq", "newaliases")  # by these the command may be called
EPILOG = """\
Example: printf 'To: marc@machin.com\\nSubject: hello\\n\\nhi\\n' | tripost sendmail -t

Linked as /usr/sbin/sendmail it is what programs call; as mailq it is sendmail -bp. Further options of other sendmails
are taken and ignored. Exit codes are those of sysexits.h: 75 means that the message was not taken, and may be later.
"""


def add_sendmail(one: argparse.ArgumentParser) -> None:
    one.description = "Take a message from standard input and hand it to the gateway."
    one.epilog = EPILOG
    one.formatter_class = argparse.RawDescriptionHelpFormatter
    one.add_argument("-h", "--help", action="help", help="show this help")
    for flag, metavar, text in (
        ("-t", None, "recipients from To, Cc and Bcc, beside those given; Bcc is taken out"),
        ("-i", None, "a line with a single dot does not end the message (also -oi)"),
        ("-f", "ADDRESS", "the sender; '' or '<>' for none (default: you)"),
        ("-F", "NAME", "your name, for a From that is missing"),
        ("-N", "WHEN", "report never, or on success,failure,delay"),
        ("-R", "WHAT", "return hdrs or full with a report"),
        ("-V", "ID", "the envelope's id, for reports"),
        ("-bs", None, "speak SMTP on standard input and output"),
        ("-bp", None, "list your mail in the queue; all mail, for who may steer the gateway"),
        ("-q", None, "try what is queued now; -qRPART, -qSPART, -qIID: what has that in its recipient, sender, id"),
    ):
        more = {"metavar": metavar} if metavar else {"action": "store_true"}
        one.add_argument(flag, help=text, **more)  # type: ignore[arg-type]  # one of the two
    one.add_argument("--config", metavar="FILE", help="the gateway's TOML file")
    one.add_argument("recipients", nargs="*", metavar="ADDRESS", help="one without a domain is a local user's")
