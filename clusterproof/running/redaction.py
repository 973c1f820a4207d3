"""Keeps credentials out of what a run writes down.

Imports nothing of the client: what is proven is written down by a process that may not have loaded it, and Ctrl-C in
the middle of loading it would leave half of it behind.
"""

from __future__ import annotations

import re

_SECRETS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), "<private key>"),
    # A JSON Web Token, which is what service account tokens are: three base64url parts of which two begin with `{"`.
    (re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"), "<token>"),
    # Of somebody who is named in a URL: ssh://user:password@host.
    (re.compile(r"(://[^/:@\s]*):[^/\s]*@"), r"\1:<password>@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), r"\1 <credentials>"),
)


def redacted(text: str) -> str:
    """The text without private keys, tokens, passwords in URLs and credentials of HTTP headers."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
