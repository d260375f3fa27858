"""What tells values of two releases apart."""

from __future__ import annotations

import hashlib


def fingerprint_of(*parts: str | None) -> int:
    """Condense what says how values look: 32 bits, 0 if no part is given."""
    if not any(parts):
        return 0
    text = "\0".join(part or "" for part in parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2s(text, digest_size=4).digest(), "big")
