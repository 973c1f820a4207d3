from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clusterproof import tls
from clusterproof.certificates import Chain, self_signed


def made(*names: x509.GeneralName) -> str:
    """A certificate (PEM) of a holder `kubelet`, for these names."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    holder = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubelet")])
    builder = x509.CertificateBuilder(holder, holder, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_names_are_those_that_visitors_look_at() -> None:
    assert Chain.of(self_signed("red.test").certificate).names == {"red.test"}


def test_addresses_are_among_the_names_and_the_holder_is_not() -> None:
    both = made(x509.DNSName("red.test"), x509.IPAddress(ip_address("fd00::1")))
    assert tls.certificates(both)[0].names == ("red.test", "fd00::1")
    assert Chain.of(both).names == {"red.test", "fd00::1"}

    assert tls.certificates(made())[0].names == ()
    assert Chain.of(made()).names == set()


def test_a_key_fits_its_own_certificate_only() -> None:
    ours, other = self_signed("red.test"), self_signed("red.test")

    assert Chain.of(ours.certificate).fits(ours.key)
    assert not Chain.of(ours.certificate).fits(other.key)


def test_certificates_are_told_apart() -> None:
    ours, other = Chain.of(self_signed("red.test").certificate), Chain.of(self_signed("red.test").certificate)

    assert ours.serial != other.serial
    assert ours.key != other.key
