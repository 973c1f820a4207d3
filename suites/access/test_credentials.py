"""Credentials: who shows a valid one is who it says, for as long and for whom it was made."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from clusterproof import (
    Client,
    Cluster,
    Images,
    Namespace,
    Object,
    Response,
    Timeouts,
    capabilities,
    case,
    conditions,
    eventually,
    kinds,
    manifests,
    tls,
)
from clusterproof.certificates import Chain, issue, self_signed
from clusterproof.credentials import KUBELETS, LIFETIME, SIGNER, Credentials, approval, claims_of, is_signed, unpadded
from clusterproof.errors import Hopeless, SurroundingsError
from clusterproof.inside import said
from clusterproof.refusals import refused
from clusterproof.rights import grant

FRONT_PROXY = {"X-Remote-User": "system:admin", "X-Remote-Group": "system:masters"}
"""What a front proxy, whom the API server believes, would say of an administrator."""
WHOAMI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
SERVER = (
    "--resolve kubernetes.default.svc:$KUBERNETES_SERVICE_PORT:$KUBERNETES_SERVICE_HOST"
    " https://kubernetes.default.svc:$KUBERNETES_SERVICE_PORT"
)
"""How curl reaches the API server from a pod, by its name and without DNS."""
FAILED = {"type": "Failed", "status": "True", "reason": "Clusterproof", "message": "It cannot be signed."}
HOUR, DAY = 3600, 24 * 3600
LONGEST = timedelta(seconds=LIFETIME, minutes=10)
"""What a certificate may last: what was asked for, and what it may begin earlier so that no clock is behind it."""


@pytest.mark.smoke
def test_default_account(cluster: Cluster, timeouts: Timeouts) -> None:
    """A new namespace MUST be given the service account `default`, and given it anew when it was deleted.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#serviceaccount-controller
    """
    account = Object(cluster.client, kinds.SERVICE_ACCOUNT, "default", _raw_namespace(cluster))

    first = eventually(account, conditions.exists, within=timeouts.object).uid
    account.delete()

    again = eventually(account, _is_another_than(first), within=timeouts.object)
    assert not again.raw.get("secrets"), f"{again} was given a token that nobody asked for: {again['secrets']}"


@pytest.mark.smoke
def test_root_authority(cluster: Cluster, timeouts: Timeouts) -> None:
    """Every namespace MUST have the certificates by which the API server is known, and get them back when changed.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-token-volume
    """
    published = Object(cluster.client, kinds.CONFIG_MAP, "kube-root-ca.crt", _raw_namespace(cluster))

    first = eventually(published, conditions.exists, within=timeouts.object)["data"]["ca.crt"]
    assert "BEGIN CERTIFICATE" in first, f"{published} holds no certificate: {first[:80]!r}"
    published.patch({"data": {"ca.crt": "changed by somebody"}})

    eventually(published, _holds_certificates(first), within=timeouts.object)


@pytest.mark.requires(capabilities.CERTIFICATES)
def test_certificates(cluster: Cluster, namespace: Namespace, credentials: Credentials) -> None:
    """A signing request that is approved MUST give a certificate by which its user is known, and no other may.

    Not for longer than was asked for. Not one that was only asked for or was denied, and not one for system:masters,
    the group that may do everything.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
    """
    user, groups = f"{namespace}-user", [f"{namespace}-one", f"{namespace}-two"]
    waiting, denied = (cluster.create(credentials.signing_request(user)) for _ in range(2))
    condition = {"type": "Denied", "status": "True", "reason": "Clusterproof", "message": "It must not be signed."}
    denied.replace({**denied.raw, "status": {"conditions": [condition]}}, subresource="approval")

    signed = credentials.approved(cluster.create(credentials.signing_request(user)))
    made = tls.certificates(base64.b64decode(signed.status["certificate"]).decode())[0]
    assert made.lifetime <= LONGEST, f"{signed} asks for {timedelta(seconds=LIFETIME)}, but was given {made.lifetime}"
    known = _who(credentials.certificate(user, groups))

    assert known["username"] == user, f"the certificate of {user} makes known {known}"
    assert {*groups, "system:authenticated"} <= set(known["groups"]), f"{user} of {groups} is known as {known}"
    # Asked for before the one that was signed, they would have been signed by now.
    for request in (waiting, denied):
        assert not request.read().status.get("certificate"), f"{request} was not approved, but has a certificate"
    with refused("a signing request for the group system:masters"):
        cluster.create(credentials.signing_request(user, ["system:masters"]))


@pytest.mark.requires(capabilities.CERTIFICATES)
def test_impostors(namespace: Namespace, credentials: Credentials) -> None:
    """Nobody MUST be taken for another by what anybody can write: a front proxy's headers, or a name in a certificate.

    Headers count only with the certificate of a front proxy, and a certificate only with the cluster's signature.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#authenticating-proxy
    """
    user = f"{namespace}-user"
    known, nobody = credentials.certificate(user), credentials.anonymous()
    forged = namespace.client.as_user(user, certificate=self_signed(user))

    before = _taken_for(known, {})
    assert before == user, f"the certificate of {user} makes known {before!r}"
    for who, client, sound in (user, known, user), ("somebody without credentials", nobody, "system:anonymous"):
        told = _taken_for(client, FRONT_PROXY)
        assert told in ("", sound), f"{who} writes the headers {FRONT_PROXY} and is taken for {told}"
    told = _taken_for(forged, {})
    assert told != user, f"somebody who wrote the name {user} into a certificate, and signed it, is taken for {told}"


@pytest.mark.requires(capabilities.CERTIFICATES, capabilities.KUBELET_RENEWAL)
def test_kubelet_renewal(namespace: Namespace, credentials: Credentials, timeouts: Timeouts) -> None:
    """A kubelet that asks for a new certificate of its own MUST be given it without anybody's help.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/#certificate-rotation
    """
    kubelet = credentials.certificate(f"system:node:{namespace}-node", [KUBELETS])

    request = eventually(credentials.kubelet_request(kubelet), is_signed, within=timeouts.object)

    request.delete()


@pytest.mark.parametrize("verb", [case("approve", "approve"), case("sign", "sign")])
def test_signers(
    cluster: Cluster, namespace: Namespace, credentials: Credentials, timeouts: Timeouts, verb: str
) -> None:
    """Who answers signing requests MUST NOT approve or sign for a signer for which they have not been given the right.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#authorization
    """
    clerk = credentials.token(namespace.create(manifests.service_account("clerk")))
    request = cluster.create(credentials.signing_request(f"{namespace}-user"))
    kind, part = request.kind, {"approve": "approval", "sign": "status"}[verb]
    # A signer that cannot sign says so in the same place where it would leave the certificate.
    body = approval(request) if verb == "approve" else {**request.raw, "status": {"conditions": [FAILED]}}

    def may(name: str, rule: manifests.Manifest) -> None:
        subject = manifests.subject("ServiceAccount", "clerk", namespace.name)
        grant(namespace, [rule], [subject], role="ClusterRole", binding="ClusterRoleBinding", name=name)

    def answer() -> Response:
        return clerk.request("PUT", kind.path(name=request.name, subresource=part), body=body)

    what = f"the {part} of {request}, written by {clerk.user} who may not {verb}"
    may("update", manifests.rbac_rule(["update"], [f"{kind.plural}/{part}"], groups=[kind.group]))
    eventually(answer, _is_refused_for_its_signer, within=timeouts.propagation, describe=what)

    what = f"the {part} of {request}, written by {clerk.user} who may {verb}"
    may(verb, manifests.rbac_rule([verb], ["signers"], groups=[kind.group], names=[SIGNER]))
    eventually(lambda: answer().status, conditions.equals(200), within=timeouts.propagation, describe=what)


@pytest.mark.smoke
def test_tokens(namespace: Namespace) -> None:
    """A service account's token MUST be good for its account, audience and time alone, and be refused when altered.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens
    """
    account = namespace.create(manifests.service_account("account"))
    good, foreign = _token(account, seconds=HOUR), _token(account, audiences=["elsewhere"])
    client = namespace.client

    name = f"system:serviceaccount:{namespace}:account"
    known = _who(client.as_user(name, token=good["token"]))
    assert (known["username"], known["uid"]) == (name, account.uid), f"the token of {account} makes known {known}"
    assert {"system:serviceaccounts", f"system:serviceaccounts:{namespace}"} <= set(known["groups"])
    claims = claims_of(good["token"])
    # A server may lengthen the life of a token, and says so; it may not shorten it, or give it for ever.
    lifetime = claims["exp"] - claims["iat"]
    assert HOUR <= lifetime <= DAY, f"a token for {HOUR} s was given for {lifetime} s"
    told = datetime.fromisoformat(good["expirationTimestamp"]).timestamp()
    assert abs(told - claims["exp"]) <= 1, f"a token that ends at {claims['exp']} is said to end at {told}"
    assert claims["kubernetes.io"]["serviceaccount"] == {"name": "account", "uid": account.uid}, f"its claims: {claims}"

    for what, token in _altered(good["token"]).items() | {"for another audience": foreign["token"]}.items():
        status = client.as_user("nobody", token=token).request("GET", "/version").status
        assert status == 401, f"a token {what} MUST be refused with 401, but is answered with {status}"
    reviews = {audience: _review(client, foreign["token"], audience) for audience in ("elsewhere", "")}
    assert reviews["elsewhere"].get("authenticated") is True, (
        f"its audience is told of the token {reviews['elsewhere']}"
    )
    assert reviews["elsewhere"]["user"]["username"] == name
    assert not reviews[""].get("authenticated"), f"the API server is told of a token for another: {reviews['']}"


def test_bound_tokens(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A token that is bound to a pod MUST die with it, and every token with its service account, while others live.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens
    """
    account, doomed = (namespace.create(manifests.service_account(name)) for name in ("account", "doomed"))
    # Held back from every node, so that nothing has to run and it is gone at once.
    gate = {"schedulingGates": [{"name": "clusterproof.dev/never"}]}
    pod = namespace.create(manifests.pod("pod", images.agnhost, service_account="account", spec=gate))

    def client(of: Object, to: Object | None = None) -> Client:
        return namespace.client.as_user(str(of), token=_token(of, to=to)["token"])

    known = _who(client(account, pod))
    told = known.get("extra", {}).get("authentication.kubernetes.io/pod-name")
    assert told == ["pod"], f"a token bound to {pod} tells {known}"
    # A server remembers for some seconds what it has taken before, so it is shown others of the same kind.
    with_pod, with_account, free = client(account, pod), client(doomed), client(account)
    pod.delete(grace=0)
    doomed.delete()

    _until_refused(with_pod, f"a token bound to {pod}, which is gone", timeouts)
    _until_refused(with_account, f"a token of {doomed}, which is gone", timeouts)
    assert _status(free) == 200, f"{pod} is gone, and so is a token of {account} that is bound to nothing"


@pytest.mark.requires(capabilities.OWN_NODE)
def test_tokens_of_nodes(namespace: Namespace, hollow_node: Object, timeouts: Timeouts) -> None:
    """A token that is bound to a node MUST tell which one, and die with it, while others live.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens
    """
    account = namespace.create(manifests.service_account("account"))
    # A server remembers for some seconds what it has taken before, so it is shown two of the same kind.
    first, second = (
        namespace.client.as_user(str(account), token=_token(account, to=hollow_node)["token"]) for _ in range(2)
    )
    known = _who(first).get("extra", {})
    told = {part: known.get(f"authentication.kubernetes.io/node-{part}") for part in ("name", "uid")}
    wanted = {"name": [hollow_node.name], "uid": [hollow_node.uid]}
    assert told == wanted, f"a token bound to {hollow_node} tells {told}, not {wanted}"

    hollow_node.delete()

    _until_refused(second, f"a token bound to {hollow_node}, which is gone", timeouts)
    free = namespace.client.as_user(str(account), token=_token(account)["token"])
    assert _status(free) == 200, f"{hollow_node} is gone, and so is a token of {account} that is bound to nothing"


def test_automount(namespace: Namespace, images: Images) -> None:
    """A pod MUST be given the token of its service account unless it or the account declines, and need one that exists.

    No account gets a token that is stored in a Secret unless one is asked for.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/
    """
    account = namespace.create(manifests.service_account("account"))
    silent = namespace.create({**manifests.service_account("silent"), "automountServiceAccountToken": False})

    default = _admitted(namespace, images, {})
    named = _admitted(namespace, images, {"serviceAccountName": account.name})
    given = (default.get("serviceAccountName"), named.get("serviceAccountName"))
    assert given == ("default", "account"), f"a pod that names no service account, and one that does, have {given}"
    for spec in (default, named):
        mounts = [each["mountPath"] for each in spec["containers"][0].get("volumeMounts", [])]
        sources = [
            source for volume in spec.get("volumes", []) for source in volume.get("projected", {}).get("sources", [])
        ]
        assert mounts == [MOUNT], f"a pod of {spec['serviceAccountName']} MUST be given its token at {MOUNT}: {mounts}"
        parts = {part for source in sources for part in source}
        assert parts == {"serviceAccountToken", "configMap", "downwardAPI"}, f"the token comes with {sources}"
    for declined in ({"serviceAccountName": silent.name}, {"automountServiceAccountToken": False}):
        spec = _admitted(namespace, images, declined)
        assert not spec.get("volumes"), f"a pod with {declined} declined the token, but gets {spec['volumes']}"
    with refused("a pod of a service account that does not exist") as refusal:
        _admitted(namespace, images, {"serviceAccountName": "nobody"})
    assert "nobody" in refusal.message, f"the refusal does not name the account: {refusal.message}"
    stored = namespace.list(kinds.SECRET, fields="type=kubernetes.io/service-account-token")
    assert not stored, f"nobody asked for a stored token, but there is {', '.join(map(str, stored))}"


def test_in_pod(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """What a pod is given MUST let it verify the API server, and be known there as its service account.

    Source: https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
    """
    namespace.create(manifests.service_account("account"))
    script = (
        f'curl -sS --cacert {MOUNT}/ca.crt -H "Authorization: Bearer $(cat {MOUNT}/token)"'
        " -H 'Content-Type: application/json'"
        f" {SERVER}{WHOAMI}"
        """ -d '{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}'"""
    )
    pod = namespace.create(manifests.pod("pod", images.agnhost, args=["pause"], service_account="account"))
    eventually(pod, conditions.running, within=timeouts.pod)

    answer = pod.exec(["sh", "-c", script], within=timeouts.request)
    where = pod.exec(["cat", f"{MOUNT}/namespace"]).stdout

    assert answer.code == 0, f"{pod} MUST reach the API server with what it was given, but: {answer.stderr}"
    known = json.loads(answer.stdout).get("status", {}).get("userInfo", {})
    assert known.get("username") == f"system:serviceaccount:{namespace}:account", f"{pod} is told {answer.stdout}"
    told = known.get("extra", {}).get("authentication.kubernetes.io/pod-uid")
    assert told == [pod.uid], f"{pod} is known as {known}"
    assert where == namespace.name, f"{pod} is told that it is in {where!r}"


@pytest.mark.requires(capabilities.TRUST_BUNDLES)
def test_trust_bundle(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod MUST be able to mount what a signer's ClusterTrustBundles hold, and know the API server by its signer's.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#cluster-trust-bundles
    """
    bundle = {"signerName": "kubernetes.io/kube-apiserver-serving", "labelSelector": {}, "path": "ca.crt"}
    volume = {"name": "trusted", "projected": {"sources": [{"clusterTrustBundle": bundle}]}}
    pod = namespace.create(
        manifests.pod("pod", images.agnhost, args=["pause"], volumes=[volume], mounts={"trusted": "/trusted"})
    )
    eventually(pod, conditions.running, within=timeouts.pod)

    # Whether it may ask is another question: an answer shows that it has verified who gives it.
    answer = pod.exec(["sh", "-c", f"curl -sS --cacert /trusted/ca.crt {SERVER}/livez"], within=timeouts.request)

    assert answer.code == 0, f"{pod} MUST know the API server by its ClusterTrustBundle, but: {answer.stderr}"


@pytest.mark.requires(capabilities.POD_CERTIFICATES)
def test_pod_certificate(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod that asks for a certificate MUST be given the one that its signer issues, with the key that it is for.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#pod-certificate-requests
    """
    asked = {
        "signerName": f"clusterproof.dev/{namespace}",
        "keyType": "ECDSAP256",
        "credentialBundlePath": "bundle.pem",
    }
    volume = {"name": "own", "projected": {"sources": [{"podCertificate": asked}]}}
    pod = namespace.create(
        manifests.pod("pod", images.agnhost, args=["pause"], volumes=[volume], mounts={"own": "/own"})
    )
    requests = namespace.select(kinds.POD_CERTIFICATE_REQUEST)
    (request,) = eventually(requests, conditions.count(1), within=timeouts.pod)
    of = {field: request.spec[field] for field in ("podUID", "nodeName", "serviceAccountName")}
    own = {"podUID": pod.uid, "nodeName": pod.read().spec["nodeName"], "serviceAccountName": "default"}
    assert of == own, f"{request} is of {of}, not of {pod} with {own}"

    # It is to begin now, by the clock of the API server.
    now = datetime.fromisoformat(request.metadata["creationTimestamp"])
    certificate = issue(base64.b64decode(request.spec["stubPKCS10Request"]), "pod.example", begins=now)
    request.patch({"status": _issued(certificate)}, subresource="status")
    eventually(pod, conditions.ready, within=timeouts.pod)

    bundle = said(pod, "cat /own/bundle.pem")
    assert Chain.of(bundle) == Chain.of(certificate), f"{pod} finds other certificates than its signer issued: {bundle}"
    assert Chain.of(certificate).fits(bundle), f"{pod} finds a key that its certificate is not for"


def test_stored_tokens(namespace: Namespace, timeouts: Timeouts) -> None:
    """A Secret that asks for a service account's token MUST be given a working one, and go with the account.

    No token outlives its Secret, whether that was deleted itself or went with the account.

    Source: https://kubernetes.io/docs/concepts/configuration/secret/#serviceaccount-token-secrets
    """
    account = namespace.create(manifests.service_account("account"))
    stored, lost = (namespace.create(_stored_token(name, account)) for name in ("stored", "lost"))
    holder, loser = (_holder(secret, account, timeouts) for secret in (stored, lost))
    wanted = f"system:serviceaccount:{namespace}:account"
    # The server that checks a token may hear of its Secret a little later than the one that made it.
    eventually(lambda: _who(holder)["username"], conditions.equals(wanted), within=timeouts.propagation)

    lost.delete()
    _until_refused(loser, f"the token of {lost}, which was deleted", timeouts)
    account.delete()
    eventually(stored, conditions.gone, within=timeouts.object)
    _until_refused(holder, f"the token of {stored}, which went with {account}", timeouts)


def _issued(certificate: str) -> dict[str, Any]:
    """The status of a PodCertificateRequest that its signer has answered."""
    (leaf,) = Chain.of(certificate).certificates
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    times = {"notBefore": begins, "beginRefreshAt": begins + (ends - begins) / 2, "notAfter": ends}
    told = {name: time.strftime("%Y-%m-%dT%H:%M:%SZ") for name, time in times.items()}
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    issued = {"type": "Issued", "status": "True", "reason": "Issued", "message": "", "lastTransitionTime": since}
    return {"conditions": [issued], "certificateChain": certificate, **told}


def _is_refused_for_its_signer(answer: Response) -> str | None:
    """It is not allowed, and not for what was written."""
    if answer.status == 200:
        raise Hopeless("it was accepted without the right to do so for the signer")
    expected = answer.status == 403 and "signerName" in answer.text
    return None if expected else f"it is answered {answer.status}: {answer.text}"


def _raw_namespace(cluster: Cluster) -> str:
    """The name of a new namespace in which nothing has been waited for."""
    raw = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "cp-raw-"}}
    return cluster.create(raw).name


def _is_another_than(uid: str) -> conditions.Condition:
    def exists_anew(account: Object) -> str | None:
        """It is not the one that was deleted."""
        return "it is still the one that was deleted" if account.uid == uid else None

    return exists_anew


def _holds_certificates(wanted: str) -> conditions.Condition:
    def holds_the_certificates(published: Object) -> str | None:
        """They are the ones that were there at first."""
        seen = published["data"].get("ca.crt", "")
        return None if seen == wanted else f"it holds {seen[:40]!r}"

    return holds_the_certificates


def _who(client: Client) -> dict[str, Any]:
    """Who the API server takes a client for."""
    known: dict[str, Any] = client.post(WHOAMI, REVIEW)["status"]["userInfo"]
    return known


def _taken_for(client: Client, headers: dict[str, str]) -> str:
    """Who the API server takes a client for; empty where it is refused, be it in the handshake."""
    try:
        answer = client.request("POST", WHOAMI, body=REVIEW, headers=headers)
    except SurroundingsError:
        return ""
    return str(answer.json()["status"]["userInfo"]["username"]) if answer.status == 201 else ""


def _status(client: Client) -> int:
    return client.request("GET", "/version").status


def _stored_token(name: str, account: Object) -> dict[str, Any]:
    """A Secret that asks for a token of a service account."""
    manifest = manifests.secret(name, type="kubernetes.io/service-account-token")
    manifest["metadata"]["annotations"] = {"kubernetes.io/service-account.name": account.name}
    return manifest


def _holder(secret: Object, account: Object, timeouts: Timeouts) -> Client:
    """Whoever has the token of a service account that a Secret is given."""
    eventually(secret, _holds("token", "ca.crt", "namespace"), within=timeouts.object)
    return secret.client.as_user(str(account), token=base64.b64decode(secret["data"]["token"]).decode())


def _until_refused(client: Client, what: str, timeouts: Timeouts) -> None:
    """Wait until a token is good for nothing any more: a server may remember for some seconds what it has taken."""
    refusal = conditions.equals(401)
    eventually(partial(_status, client), refusal, within=timeouts.object, describe=f"{what}, is answered 401")


def _token(
    account: Object, *, audiences: list[str] | None = None, seconds: int = HOUR, to: Object | None = None
) -> dict[str, Any]:
    """A token of a service account, perhaps bound to a pod, with what is said of it."""
    spec: dict[str, Any] = {"audiences": audiences or [], "expirationSeconds": seconds}
    if to:
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": to.kind.kind, "name": to.name, "uid": to.uid}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    given: dict[str, Any] = account.client.post(account.path + "/token", body)["status"]
    return given


def _review(client: Client, token: str, audience: str) -> dict[str, Any]:
    """What the API server tells somebody who was shown a token."""
    spec = {"token": token, **({"audiences": [audience]} if audience else {})}
    body = {"apiVersion": kinds.TOKEN_REVIEW.api_version, "kind": kinds.TOKEN_REVIEW.kind, "spec": spec}
    told: dict[str, Any] = client.post(kinds.TOKEN_REVIEW.path(), body)["status"]
    return told


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _altered(token: str) -> dict[str, str]:
    """Tokens that somebody made out of a good one."""
    head, body, signature = token.split(".")
    claims = {**claims_of(token), "sub": "system:serviceaccount:kube-system:default"}
    signed = unpadded(signature)
    flipped = bytes([signed[0] ^ 1]) + signed[1:]
    return {
        "with a changed signature": f"{head}.{body}.{_encoded(flipped)}",
        "for another account under the same signature": f"{head}.{_encoded(json.dumps(claims).encode())}.{signature}",
        "without signature": f"{_encoded(json.dumps({'alg': 'none', 'typ': 'JWT'}).encode())}.{body}.",
    }


def _admitted(namespace: Namespace, images: Images, spec: dict[str, Any]) -> dict[str, Any]:
    """The spec that a pod would be stored with; nothing is."""
    manifest = manifests.pod("try", images.agnhost)
    del manifest["spec"]["automountServiceAccountToken"]
    manifest["spec"] |= spec
    answer: dict[str, Any] = namespace.would_store(manifest)["spec"]
    return answer


def _holds(*keys: str) -> conditions.Condition:
    def holds_what_was_asked_for(secret: Object) -> str | None:
        """Its data has these keys."""
        missing = [key for key in keys if not (secret.raw.get("data") or {}).get(key)]
        return f"it holds no {', '.join(missing)}" if missing else None

    return holds_what_was_asked_for
