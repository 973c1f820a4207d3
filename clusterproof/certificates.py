"""Certificates that a promise brings along: for a web site of its own, trusted by nobody else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Pair(NamedTuple):
    """A certificate and its key, as PEM text."""

    certificate: str
    key: str


def self_signed(host: str) -> Pair:
    """A certificate for a host that is its own authority, valid from an hour ago to tomorrow."""
    key = ec.generate_private_key(ec.SECP256R1())
    # A name longer than 64 characters fits into the list of alternative names only.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_signs_and_certifies(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode())


def _signs_and_certifies() -> x509.KeyUsage:
    """What strict verifiers want of an authority's key."""
    no = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign")
    never = {name: False for name in (*no, "encipher_only", "decipher_only")}
    return x509.KeyUsage(digital_signature=True, key_cert_sign=True, **never)
