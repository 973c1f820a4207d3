"""Ed25519 keys in PEM files, as `openssl genpkey -algorithm ed25519` makes them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

PASSPHRASE = "CLUSTERPROOF_KEY_PASSPHRASE"
"""Environment variable with the passphrase of a private key."""


def read_private(path: Path) -> Ed25519PrivateKey:
    """The key of a file. ValueError with a sentence when it holds no such key, or cannot be read."""
    content = _content(path)
    try:
        key = load_pem_private_key(content, os.environ.get(PASSPHRASE, "").encode() or None)
    except TypeError:
        stands = "is set, but the key has none" if os.environ.get(PASSPHRASE) else "is not set, but the key has one"
        raise ValueError(f"{path}: the passphrase in {PASSPHRASE} {stands}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path}: an Ed25519 private key in PEM is expected{_hint(content, b'PUBLIC')}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path}: an Ed25519 private key is expected, but it is a {type(key).__name__}")
    return key


def read_public(path: Path) -> Ed25519PublicKey:
    """The same for a public key."""
    content = _content(path)
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path}: an Ed25519 public key in PEM is expected{_hint(content, b'PRIVATE')}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path}: an Ed25519 public key is expected, but it is a {type(key).__name__}")
    return key


def write_pair(private: Path, public: Path) -> None:
    """Make a pair of keys; the private one is for its owner only, and has the passphrase that is set. OSError as usual.

    FileExistsError for files that are there already: a key that is overwritten is lost.
    """
    key = Ed25519PrivateKey.generate()
    passphrase = os.environ.get(PASSPHRASE, "").encode()
    protection: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    if public.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(public))
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


def _hint(content: bytes, other: bytes) -> str:
    return f", but it holds a {other.decode().lower()} key" if other + b" KEY" in content else ""
