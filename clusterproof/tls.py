"""What a server shows of itself in a TLS handshake: its certificate, and which versions it takes."""

from __future__ import annotations

import datetime
import os
import re
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

from clusterproof.certificates import names_of
from clusterproof.client import CONNECT_SECONDS, Client
from clusterproof.errors import SurroundingsError

TLS_1_0, TLS_1_1, TLS_1_2 = 0x0301, 0x0302, 0x0303

_SUITES = (0xC02F, 0xC02B, 0xC030, 0xC02C, 0xCCA8, 0xCCA9, 0xC013, 0xC009, 0xC014, 0xC00A, 0x002F, 0x0035)
"""Cipher suites with forward secrecy of TLS 1.2 and of before, and the plainest of all."""
_GROUPS = (29, 23, 24, 25)
_SIGNATURES = (0x0403, 0x0503, 0x0603, 0x0807, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0201, 0x0203)
_HANDSHAKE = 0x16


@dataclass(frozen=True, slots=True)
class Certificate:
    """What matters of a server's certificate."""

    names: tuple[str, ...]
    """DNS names and addresses that it is for."""
    not_before: datetime.datetime
    not_after: datetime.datetime
    issuer: str = ""
    """Common name of who has signed it."""

    @property
    def of_a_lone_kubelet(self) -> bool:
        """Whether a kubelet without an authority has made it for itself, as it does once, for a year."""
        return bool(re.fullmatch(r".+-ca@\d+", self.issuer))

    @property
    def lifetime(self) -> datetime.timedelta:
        return self.not_after - self.not_before


def certificates(pem: str) -> list[Certificate]:
    """The certificates in a text, in its order; whatever else stands there is left out."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    blocks = [f"{begin}{part.partition(end)[0]}{end}\n" for part in pem.split(begin)[1:]]
    return [_read(x509.load_pem_x509_certificate(block.encode())) for block in blocks]


def certificate_of(client: Client) -> Certificate:
    """The certificate that a client's API server shows; whether it is trusted was decided by every request before."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with _connected(client) as (plain, name), context.wrap_socket(plain, server_hostname=name) as secure:
        shown = secure.getpeercert(binary_form=True)
    if not shown:
        raise SurroundingsError(f"{client.server}: it showed no certificate")
    return _read(x509.load_der_x509_certificate(shown))


def accepts(client: Client, version: int) -> bool:
    """Whether a client's API server goes on with a handshake that offers this version at most.

    The first message is made by hand: today's TLS libraries refuse to offer old versions themselves.
    """
    with _connected(client) as (plain, name):
        plain.sendall(_hello(version, name))
        try:
            return plain.recv(1) == bytes([_HANDSHAKE])
        except OSError:
            return False


@contextmanager
def _connected(client: Client) -> Iterator[tuple[socket.socket, str]]:
    """A connection to a client's API server, and the name it is asked for."""
    where = urlsplit(client.server)
    if client.configuration.proxy:
        raise SurroundingsError(f"{client.server}: it is reached through a proxy, which hides its TLS")
    host = where.hostname or ""
    try:
        plain = socket.create_connection((host, where.port or 443), CONNECT_SECONDS)
    except OSError as error:
        raise SurroundingsError(f"{client.server}: cannot connect: {error}") from error
    with plain:
        yield plain, client.configuration.tls_server_name or host


def _read(certificate: x509.Certificate) -> Certificate:
    signers = [str(each.value) for each in certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)]
    valid = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Certificate(names_of(certificate), *valid, issuer="".join(signers))


def _hello(version: int, name: str) -> bytes:
    """A ClientHello (RFC 5246, 7.4.1.2) without the extension that would offer TLS 1.3."""
    extensions = (
        _extension(10, _counted(_shorts(_GROUPS)))
        + _extension(11, b"\x01\x00")
        + _extension(13, _counted(_shorts(_SIGNATURES)))
    )
    if any(character.isalpha() for character in name) and ":" not in name:
        extensions += _extension(0, _counted(b"\x00" + _counted(name.encode())))
    body = struct.pack(">H", version) + os.urandom(32) + b"\x00"
    body += _counted(_shorts(_SUITES)) + b"\x01\x00" + _counted(extensions)
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return bytes([_HANDSHAKE]) + struct.pack(">H", TLS_1_0) + _counted(message)


def _extension(number: int, content: bytes) -> bytes:
    return struct.pack(">H", number) + _counted(content)


def _shorts(numbers: tuple[int, ...]) -> bytes:
    return struct.pack(f">{len(numbers)}H", *numbers)


def _counted(content: bytes) -> bytes:
    return struct.pack(">H", len(content)) + content
