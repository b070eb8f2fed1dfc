"""the client's side of SCRAM-SHA-256 (RFC 5802 §3), written apart from the server's"""

from __future__ import annotations

import base64
import hashlib
import hmac


def client_final(password: str, first: str, second: str) -> tuple[str, str]:
    """client-final-message, and the server's signature in base64."""
    fields = dict(one.split("=", 1) for one in second.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    key = hmac.digest(salted, b"Client Key", "sha256")
    without = f"c=biws,r={fields['r']}"
    message = f"{first},{second},{without}".encode()
    signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    server = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
    return f"{without},p={base64.b64encode(proof).decode()}", base64.b64encode(server).decode()
