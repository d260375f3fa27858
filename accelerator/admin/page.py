"""
The page: one file without anything from elsewhere.

Its style and its script stand in it, and the policy names them by their hashes: nothing else that
might get into the page, whatever way, is run.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Final


def _read(name: str) -> str:
    return resources.files("accelerator.admin").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


_STYLE: Final = _read("page.css")
_SCRIPT: Final = _read("page.js")

HTML: Final = (
    _read("page.html").replace("/* style */", _STYLE).replace("/* script */", _SCRIPT).encode()
)
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_hash(_SCRIPT)}",
        f"style-src {_hash(_STYLE)}",
        "img-src data:",  # the icon, so that none is asked for
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Of Content-Security-Policy."""
