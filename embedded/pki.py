"""Certificates and kubeconfigs of one embedded cluster: EC keys, one year, nothing shared between clusters."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, as files in PEM."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority whose files lie in one folder: `<name>.crt`, `<name>.key`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
        if self.pair.key.exists():
            self._key = _load_key(self.pair.key)
            self._certificate = x509.load_pem_x509_certificate(self.pair.certificate.read_bytes())
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        public = self._key.public_key()
        self._certificate = (
            _builder(subject, subject, public)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        _write(self.pair, self._certificate, self._key)

    def issue(
        self,
        name: str,
        *,
        user: str,
        groups: Iterable[str] = (),
        server: Iterable[str] = (),
        folder: Path | None = None,
        lifetime: datetime.timedelta = LIFETIME,
    ) -> Pair:
        """Write `<name>.crt` and `<name>.key` for a client; with names or addresses in `server`, for a server too."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
            + [x509.NameAttribute(NameOID.COMMON_NAME, user)]
        )
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        names = [_general_name(text) for text in server]
        if names:
            purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(subject, self._certificate.subject, key.public_key(), lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(authority_key, critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        target = folder or self.folder
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        pair = Pair(target / f"{name}.crt", target / f"{name}.key")
        _write(pair, builder.sign(self._key, hashes.SHA256()), key)
        return pair


def signing_key(folder: Path, name: str) -> Pair:
    """A bare key pair, as service account tokens are signed with; `certificate` holds the public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    pair = Pair(folder / f"{name}.pub", folder / f"{name}.key")
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    pair.certificate.write_bytes(public)
    _write_private(pair.key, _pem(key))
    return pair


def encoded(file: Path) -> str:
    """A file as it stands inside of an object or a kubeconfig."""
    return base64.b64encode(file.read_bytes()).decode()


def write_kubeconfig(path: Path, *, cluster: str, server: str, authority: Path, user: str, identity: Pair) -> Path:
    """A kubeconfig with everything inline and mode 0600, so that it can be copied anywhere."""

    # JSON is YAML, and every reader of kubeconfigs takes it.
    reached = {
        "server": server,
        "certificate-authority-data": encoded(authority),
        "proxy-url": "",  # Python's client would take one from the environment, although nothing is between it and us
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": reached}],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": encoded(identity.certificate),
                    "client-key-data": encoded(identity.key),
                },
            }
        ],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
        "current-context": cluster,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_private(path, json.dumps(config, indent=1).encode())
    return path


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    lifetime: datetime.timedelta = LIFETIME,
) -> x509.CertificateBuilder:
    # An hour back: the clocks of a machine and of whoever checks its certificates are never quite the same.
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + lifetime)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _write(pair: Pair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_private(pair.key, _pem(key))


def _write_private(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
