"""Users of the cluster, made against a fake API server with a signer of its own."""

from __future__ import annotations

import base64
import datetime
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clusterproof import kinds
from clusterproof.client import Client
from clusterproof.credentials import SIGNER, Credentials
from clusterproof.errors import SurroundingsError
from clusterproof.objects import Object

from .fake_api import FakeApi

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
JSON = dict[str, Any]


class Signer(threading.Thread):
    """Decides about each approved request, as the controller manager does."""

    def __init__(self, api: FakeApi, decide: Callable[[JSON], JSON]) -> None:
        super().__init__(daemon=True)
        self.api = api
        self.decide = decide
        self.requests: list[JSON] = []
        self.stopped = False

    def run(self) -> None:
        decided: set[str] = set()
        while not self.stopped:
            with self.api.changed:
                approved = [path for path in self.api.objects if path.endswith("/approval") and path not in decided]
                for path in approved:
                    decided.add(path)
                    request = self.api.objects[path]
                    self.requests.append(request)
                    self.api.put(path.removesuffix("/approval"), {**request, "status": self.decide(request)})
                self.api.changed.wait(0.1)


@pytest.fixture
def signing(api: FakeApi) -> Iterator[Callable[[Callable[[JSON], JSON]], Signer]]:
    """Start a signer that answers so."""
    started: list[Signer] = []

    def start(decide: Callable[[JSON], JSON]) -> Signer:
        started.append(Signer(api, decide))
        started[-1].start()
        return started[-1]

    yield start
    for signer in started:
        signer.stopped = True
        signer.join()


def signed(request: JSON) -> JSON:
    """The status of a request whose certificate a throw-away authority has signed."""
    asked = x509.load_pem_x509_csr(base64.b64decode(request["spec"]["request"]))
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(asked.subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
        .public_key(asked.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return {**request["status"], "certificate": base64.b64encode(pem).decode()}


def credentials(client: Client, within: float = 5.0) -> Credentials:
    return Credentials(client, labels={"clusterproof.dev/run": "r1"}, within=within)


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The certificate and the key of each user who has these, as PEM text."""
    seen: list[tuple[str, str]] = []
    real = Client.as_user

    def as_user(self: Client, user: str, *, certificate: tuple[str, str]) -> Client:
        seen.append(certificate)
        return real(self, user, certificate=certificate)

    monkeypatch.setattr(Client, "as_user", as_user)
    return seen


def test_a_certificate_user_has_the_name_and_groups_it_was_given(
    client: Client, signing: Callable[..., Signer], handed: list[tuple[str, str]]
) -> None:
    signer = signing(signed)
    credentials(client).certificate("alice", ["devs", "qa"])
    request = signer.requests[0]
    assert request["metadata"]["labels"] == {"clusterproof.dev/run": "r1"}
    assert (request["spec"]["signerName"], request["spec"]["usages"]) == (SIGNER, ["client auth"])
    assert request["status"]["conditions"][0]["type"] == "Approved"
    certificate = x509.load_pem_x509_certificate(handed[0][0].encode())
    names = [(each.oid, each.value) for each in certificate.subject]
    organization = NameOID.ORGANIZATION_NAME
    assert names == [(organization, "devs"), (organization, "qa"), (NameOID.COMMON_NAME, "alice")]


def test_the_key_fits_the_certificate(
    client: Client, signing: Callable[..., Signer], handed: list[tuple[str, str]]
) -> None:
    signing(signed)
    credentials(client).certificate("alice")
    certificate, key = (text.encode() for text in handed[0])
    private = serialization.load_pem_private_key(key, password=None)
    assert x509.load_pem_x509_certificate(certificate).public_key() == private.public_key()


def test_a_certificate_user_brings_no_other_credentials(client: Client, signing: Callable[..., Signer]) -> None:
    signing(signed)
    alice = credentials(client).certificate("alice")
    assert not alice.configuration.api_key
    assert (alice.server, alice.user) == (client.server, "alice")


def test_the_signing_request_is_removed(api: FakeApi, client: Client, signing: Callable[..., Signer]) -> None:
    signing(signed)
    credentials(client).certificate("alice")
    assert not [path for path in api.objects if path.startswith(REQUESTS) and not path.endswith("/approval")]


def test_a_signer_that_never_answers_is_the_surroundings(api: FakeApi, client: Client) -> None:
    with pytest.raises(SurroundingsError, match=f"the signer {SIGNER} has not answered"):
        credentials(client, within=0.2).certificate("alice")
    assert not [path for path in api.objects if path.startswith(REQUESTS) and not path.endswith("/approval")]


def test_a_request_that_failed_ends_the_wait(client: Client, signing: Callable[..., Signer]) -> None:
    failed = {"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": "no such usage"}
    signing(lambda request: {"conditions": [failed]})
    with pytest.raises(SurroundingsError, match="Failed: SignerValidationFailure no such usage"):
        credentials(client, within=30).certificate("alice")


def test_a_missing_right_is_the_surroundings(api: FakeApi, client: Client) -> None:
    def forbid(handler: Any) -> bool:
        handler.fail(403, "Forbidden", "cannot create certificatesigningrequests")
        return True

    api.overrides[f"POST {REQUESTS}"] = forbid
    with pytest.raises(SurroundingsError, match="cannot create certificatesigningrequests; this takes the right"):
        credentials(client).certificate("alice")


def test_a_token_is_asked_for_its_account(api: FakeApi, client: Client) -> None:
    asked: list[JSON] = []

    def answer(handler: Any) -> bool:
        asked.append(handler.body)
        handler.answer(201, {"status": {"token": "t0k3n"}})
        return True

    api.overrides["POST /api/v1/namespaces/here/serviceaccounts/bob/token"] = answer
    bob = credentials(client).token(
        Object(client, kinds.SERVICE_ACCOUNT, "bob", "here"), audiences=["vault"], seconds=600
    )
    assert asked[0]["spec"] == {"audiences": ["vault"], "expirationSeconds": 600}
    assert bob.configuration.api_key == {"authorization": "Bearer t0k3n"}
    assert bob.user == "system:serviceaccount:here:bob"


def test_anonymous_sends_nothing(api: FakeApi, client: Client) -> None:
    seen: list[str | None] = []

    def answer(handler: Any) -> bool:
        seen.append(handler.headers["Authorization"])
        handler.answer(200, {})
        return True

    api.overrides["GET /version"] = answer
    client.get("/version")
    credentials(client).anonymous().get("/version")
    assert seen == ["Bearer secret", None]
