"""coverage-guided fuzzing of the SMTP server's protocol (atheris)

    deploy/uv run --with atheris==3.0.0 python tests/fuzz/fuzz_smtp.py CORPUS -max_total_time=600

The first two octets choose the kind of listener, where the input is cut and which questions are answered with no;
the rest is what a client sends. Whatever it is: no exception, every reply is SMTP and fits into its line, the same
events come however it is cut, content has no bare CR or LF unless it was told so, and memory stays bounded.
"""

from __future__ import annotations

import pathlib
import sys

import atheris

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), *(str(ROOT / one) for one in ("gateway", "delivery", "queue"))]

with atheris.instrument_imports(include=["tripost"]):
    import msgspec

    from support.smtp_play import OPEN, cuts, play
    from tripost.gateway.ingress.terms import Terms

PLAIN = Terms(hostname="h", message_size=1000, recipients=10)
KINDS = (
    OPEN,
    PLAIN,
    msgspec.structs.replace(OPEN, profile="lmtp"),
    msgspec.structs.replace(OPEN, need_tls=True),
    msgspec.structs.replace(OPEN, profile="submission", need_auth=True, trusted=False),
    msgspec.structs.replace(OPEN, secured=True),
)
BEGUN = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
HELD = 16_384  # octets that a protocol may hold of what it was fed


def one_input(data: bytes) -> None:
    """One client."""
    if len(data) < 2:
        return
    choice, step, data = data[0], data[1] % 41 + 1, data[2:]
    terms = KINDS[choice % 6]
    normalize = bool(choice & 0x80)
    refuse = {4 + (choice >> 4 & 3)} if choice & 0x40 else set()
    if choice & 8:
        data = BEGUN.replace(b"EHLO", b"LHLO" if terms.lmtp else b"EHLO") + data
    whole = play([data], terms, normalize=normalize, refuse=refuse)
    if b"STARTTLS" not in data.upper():
        cut = play(cuts(data, step), terms, normalize=normalize, refuse=refuse)
        assert (cut.log, cut.messages, cut.closed) == (whole.log, whole.messages, whole.closed)
    assert len(whole.protocol._lines) <= HELD
    if normalize and b"BINARYMIME" not in data.upper():
        for content in whole.messages:
            assert content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
