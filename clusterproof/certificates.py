"""Certificates: those that a promise brings along, trusted by nobody else, and those that the cluster has issued."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PublicKeyTypes
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError


class Pair(NamedTuple):
    """A certificate and its key, as PEM text."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Chain:
    """Certificates as a server sends them: its own, and then those of the authorities up to one that is trusted."""

    certificates: tuple[x509.Certificate, ...]

    @classmethod
    def of(cls, pem: str) -> Chain:
        """The certificates in a text, in its order; ValueError where there is none."""
        return cls(tuple(x509.load_pem_x509_certificates(pem.encode())))

    @property
    def serial(self) -> str:
        """Serial number of the server's own certificate, in hexadecimal."""
        return format(self.certificates[0].serial_number, "x")

    @property
    def names(self) -> set[str]:
        """Names and addresses that the server's own certificate is for."""
        return set(names_of(self.certificates[0]))

    @property
    def key(self) -> bytes:
        """Public key of the server's own certificate."""
        return _public(self.certificates[0].public_key())

    def fits(self, key: str) -> bool:
        """Whether a private key (PEM) is the one of the server's own certificate."""
        private = serialization.load_pem_private_key(key.encode(), password=None)
        return _public(private.public_key()) == self.key

    def refused(self, host: str, authority: str) -> str:
        """Why a visitor of a host who trusts this authority (PEM) only refuses it; empty where they do not."""
        trusted = Store(x509.load_pem_x509_certificates(authority.encode()))
        visitor = PolicyBuilder().store(trusted).build_server_verifier(x509.DNSName(host))
        try:
            visitor.verify(self.certificates[0], list(self.certificates[1:]))
        except VerificationError as error:
            return str(error)
        return ""


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """DNS names and addresses that a certificate is for, in its order; none where it names its holder only."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names)


def self_signed(host: str) -> Pair:
    """A certificate for a host that is its own authority, valid from an hour ago for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _certificate(host, key.public_key(), key, datetime.now(UTC) - timedelta(hours=1), timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_signs_and_certifies(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode())


def issue(request: bytes, host: str, *, begins: datetime) -> str:
    """A certificate (PEM) for a host and for the key of a PKCS #10 request (DER), by an authority that nobody knows.

    It is valid for half a day. ValueError where the request is none, or not signed with its key.
    """
    asked = x509.load_der_x509_csr(request)
    if not asked.is_signature_valid:
        raise ValueError("it is not signed with the key that it is for")
    authority = ec.generate_private_key(ec.SECP256R1())
    made = _certificate(host, asked.public_key(), authority, begins, timedelta(hours=12)).sign(
        authority, hashes.SHA256()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def _certificate(
    host: str,
    key: CertificatePublicKeyTypes,
    authority: ec.EllipticCurvePrivateKey,
    begins: datetime,
    lasts: timedelta,
) -> x509.CertificateBuilder:
    # A name longer than 64 characters fits into the list of alternative names only.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + lasts)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )


def _signs_and_certifies() -> x509.KeyUsage:
    """What strict verifiers want of an authority's key."""
    no = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign")
    never = {name: False for name in (*no, "encipher_only", "decipher_only")}
    return x509.KeyUsage(digital_signature=True, key_cert_sign=True, **never)


def _public(key: CertificatePublicKeyTypes | PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
