"""Real users of the cluster under proof: what an authorizer decides about them is decided about a real request.

Impersonation would be less work, but it skips authentication, and not every cluster grants it.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clusterproof import kinds, steps
from clusterproof.client import Client
from clusterproof.errors import ApiError, Hopeless, NeverHappened, SurroundingsError
from clusterproof.objects import Object
from clusterproof.wait import eventually

SIGNER = "kubernetes.io/kube-apiserver-client"
"""The signer whose certificates the API server takes for users
(https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers)."""

KUBELET_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
"""The signer of the certificates that kubelets show."""
KUBELETS = "system:nodes"
"""The group of all kubelets."""

LIFETIME = 24 * 3600
"""Seconds for which certificates and tokens are asked; the cluster may give less. Longer than any run."""


class Credentials:
    """Makes users, each with a client of its own. `client` must be allowed to sign certificates and ask for tokens."""

    def __init__(self, client: Client, *, labels: Mapping[str, str], within: float) -> None:
        self.client = client
        self.labels = dict(labels)
        """Of the certificate signing requests, so that they are found should this process die."""
        self.within = within
        """Seconds a sound cluster may take to sign."""

    def certificate(self, user: str, groups: Sequence[str] = ()) -> Client:
        """A user by client certificate, signed by the cluster.

        SurroundingsError when the cluster does not sign: many managed clusters keep that to themselves.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        request = self._request(self.client, user, self._manifest(_signing_request(key, user, groups)))
        try:
            certificate = self._signed(request)
        finally:
            _delete(request)
        return self.client.as_user(user, certificate=(certificate, _pem(key)))

    def token(self, account: Object, *, audiences: Sequence[str] = (), seconds: int = LIFETIME) -> Client:
        """A service account by a token for these audiences; by default for the API server itself."""
        spec = {"audiences": list(audiences), "expirationSeconds": seconds}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = self.client.post(account.kind.path(account.namespace, account.name, "token"), body)
        user = f"system:serviceaccount:{account.namespace}:{account.name}"
        return self.client.as_user(user, token=answer["status"]["token"])

    def anonymous(self) -> Client:
        """Somebody without any credentials."""
        return self.client.as_user("system:anonymous")

    def signing_request(self, user: str, groups: Sequence[str] = ()) -> dict[str, Any]:
        """The manifest of a request for a certificate, whose key is thrown away: for what must not be signed."""
        return self._manifest(_signing_request(ec.generate_private_key(ec.SECP256R1()), user, groups))

    def kubelet_request(self, kubelet: Client) -> Object:
        """What a kubelet does when its certificate is about to end: it asks for a new one, and nobody approves by hand.

        SurroundingsError when it is not let.
        """
        manifest = self.signing_request(kubelet.user, [KUBELETS])
        manifest["spec"] |= {"signerName": KUBELET_SIGNER, "usages": ["digital signature", "client auth"]}
        return self._request(kubelet, kubelet.user, manifest)

    def _manifest(self, pem: bytes) -> dict[str, Any]:
        kind = kinds.CERTIFICATE_SIGNING_REQUEST
        spec = {
            "request": base64.b64encode(pem).decode(),
            "signerName": SIGNER,
            "usages": ["client auth"],
            "expirationSeconds": LIFETIME,
        }
        metadata = {"name": f"clusterproof-{uuid.uuid4().hex[:12]}", "labels": self.labels}
        return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}

    def _request(self, client: Client, user: str, manifest: dict[str, Any]) -> Object:
        kind = kinds.CERTIFICATE_SIGNING_REQUEST
        steps.current.outside.add(kind)
        try:
            return Object.of(self.client, client.post(kind.path(), manifest), kind)
        except ApiError as refused:
            raise _not_signed(user, str(refused)) from refused

    def approved(self, request: Object) -> Object:
        """Approve a signing request and wait for its certificate; NeverHappened or Hopeless when none comes."""
        request.replace(approval(request), subresource="approval")
        return eventually(request, is_signed, within=self.within)

    def _signed(self, request: Object) -> str:
        """Its certificate, as PEM text."""
        try:
            return base64.b64decode(self.approved(request).status["certificate"]).decode()
        except (ApiError, NeverHappened, Hopeless) as problem:
            raise _not_signed(str(request), str(problem)) from problem


def claims_of(token: str) -> dict[str, Any]:
    """What a service account's token says of itself, whoever has signed it."""
    claims: dict[str, Any] = json.loads(unpadded(token.split(".")[1]))
    return claims


def unpadded(part: str) -> bytes:
    """What a part of a token stands for: base64 for URLs, without the `=` at its end."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def approval(request: Object) -> dict[str, Any]:
    """What to write to the subresource `approval` of a signing request."""
    message = "A user for the proof of a promise."
    condition = {"type": "Approved", "status": "True", "reason": "Clusterproof", "message": message}
    return {**request.raw, "status": {"conditions": [condition]}}


def is_signed(request: Object) -> str | None:
    """It has a certificate; Hopeless when it was denied, or could not be signed."""
    for condition in request.status.get("conditions", []):
        if condition["type"] in ("Denied", "Failed"):
            raise Hopeless(f"{condition['type']}: {condition.get('reason', '')} {condition.get('message', '')}")
    signer = request.spec["signerName"]
    return None if request.status.get("certificate") else f"the signer {signer} has not answered"


def _not_signed(what: str, why: str) -> SurroundingsError:
    return SurroundingsError(
        f"{what}: the cluster should sign a client certificate for it, but {why}; this takes the right to approve for "
        f"the signer {SIGNER}, and a cluster whose provider does not keep that signer to itself"
    )


def _delete(request: Object) -> None:
    try:
        request.delete()
    except ApiError as error:
        if error.status != 404:  # the cluster itself removes requests after a while
            raise


def _signing_request(key: ec.EllipticCurvePrivateKey, user: str, groups: Sequence[str]) -> bytes:
    """A PKCS #10 request in PEM: the user is the common name, each group an organization."""
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    names.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
