"""cert-manager: certificates are objects of the cluster, issued and renewed by a controller."""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable
from typing import Any

import pytest

from clusterproof import Namespace, Object, Timeouts, capabilities, conditions, eventually, kinds, manifests
from clusterproof.certificates import Chain, self_signed
from clusterproof.conditions import Condition, has_condition
from clusterproof.entrypoint import EntryPoint

pytestmark = pytest.mark.requires(capabilities.CERT_MANAGER)

GROUP = "cert-manager.io"
ISSUER = kinds.custom(GROUP, "v1", "Issuer", "issuers")
CERTIFICATE = kinds.custom(GROUP, "v1", "Certificate", "certificates")
REQUEST = kinds.custom(GROUP, "v1", "CertificateRequest", "certificaterequests")

AUTHORITY = "authority"
"""The Issuer that signs with a key of the namespace's own, the Certificate of that key, and its Secret."""


def test_issue(namespace: Namespace, timeouts: Timeouts) -> None:
    """A Certificate MUST become a Secret with a key and a certificate that is trusted for its names, and no others.

    It is trusted by whoever trusts its issuer's authority, whose own certificate has been issued in the same way.

    Source: https://cert-manager.io/docs/usage/certificate/
    """
    authority = _found(namespace, timeouts)
    hosts = {f"{name}.{namespace}.test" for name in ("red", "blue")}
    namespace.create(_certificate("web", hosts))

    chain = _issued(namespace, "web", timeouts)

    secret = namespace.get(kinds.SECRET, "web")
    assert secret["type"] == "kubernetes.io/tls", f"{secret} is of type {secret['type']}, not kubernetes.io/tls"
    assert chain.names == hosts, f"{secret} has a certificate for {chain.names}, where {hosts} were asked for"
    refused = {host: why for host in hosts if (why := chain.refused(host, authority))}
    assert not refused, f"{secret}: who trusts Issuer {AUTHORITY} should trust its certificate, but: {refused}"
    assert chain.refused(nobody := f"green.{namespace}.test", authority), f"{secret} is trusted for {nobody}"
    assert chain.fits(_text(secret, "tls.key")), f"{secret} has a certificate of another key than its own"
    assert Chain.of(_text(secret, "ca.crt")).key == Chain.of(authority).key, (
        f"{secret} names another authority than Issuer {AUTHORITY}"
    )


def test_renewal(namespace: Namespace, timeouts: Timeouts) -> None:
    """A Certificate MUST be renewed when that is due, with a new key or with the one it has, as it asks for.

    It is due five seconds after it was issued, which is as soon as one of the shortest duration may want it.

    Source: https://cert-manager.io/docs/usage/certificate/#renewal
    """
    authority, host = _found(namespace, timeouts), f"web.{namespace}.test"
    due = {"duration": "1h0m0s", "renewBefore": "59m55s"}
    policies = {"same-key": "Never", "new-key": "Always"}
    for name, policy in policies.items():
        namespace.create(_certificate(name, [host], privateKey={**_KEY, "rotationPolicy": policy}, **due))
    old = {name: _issued(namespace, name, timeouts) for name in policies}

    new = {name: _renewed(namespace, name, old[name], timeouts) for name in policies}

    assert new["same-key"].key == old["same-key"].key, "rotationPolicy Never: it was renewed with another key"
    assert new["new-key"].key != old["new-key"].key, "rotationPolicy Always: it was renewed with the key it had"
    refused = {name: why for name, chain in new.items() if (why := chain.refused(host, authority))}
    assert not refused, f"who trusts Issuer {AUTHORITY} should trust the renewed certificates, but: {refused}"


@pytest.mark.requires(capabilities.INGRESS)
def test_ingress(namespace: Namespace, ingress: EntryPoint, timeouts: Timeouts) -> None:
    """An Ingress MUST show each host's visitors the certificate that was issued for it, and the new one once renewed.

    Nothing but the Certificate is touched: it is renewed as by `cmctl renew`. There are no pages behind the hosts.

    Source: https://cert-manager.io/docs/usage/ingress/
    """
    authority = _found(namespace, timeouts)
    hosts = {name: f"{name}.{namespace}.test" for name in ("red", "blue")}
    for name, host in hosts.items():
        namespace.create(manifests.service(name))
        namespace.create(_certificate(name, [host]))
        namespace.create(_site(name, host, ingress.class_name))
    issued = {name: _issued(namespace, name, timeouts) for name in hosts}
    _shown(ingress, namespace, hosts, authority, timeouts)

    _ask_for_renewal(namespace.object(CERTIFICATE, "red"), timeouts)

    _renewed(namespace, "red", issued["red"], timeouts)
    _shown(ingress, namespace, hosts, authority, timeouts)


def test_ingress_annotation(namespace: Namespace, timeouts: Timeouts) -> None:
    """An Ingress that names an issuer in an annotation MUST get a Certificate for its hosts, into the Secret it names.

    Source: https://cert-manager.io/docs/usage/ingress/
    """
    authority, host = _found(namespace, timeouts), f"web.{namespace}.test"
    namespace.create(_site("web", host, f"{namespace}-nobody", annotations={f"{GROUP}/issuer": AUTHORITY}))

    chain = _issued(namespace, "web", timeouts)

    why = chain.refused(host, authority)
    assert not why, f"who trusts Issuer {AUTHORITY} should trust the certificate of Ingress {namespace}/web, but: {why}"


def test_missing_issuer(namespace: Namespace, timeouts: Timeouts) -> None:
    """A Certificate whose issuer does not exist MUST say that it is not ready, and be issued once the issuer is there.

    Its request says which issuer is missing.

    Source: https://cert-manager.io/docs/troubleshooting/
    """
    made = namespace.create(_certificate("web", [f"web.{namespace}.test"], issuer="late"))
    eventually(made, _says_that_it_is_not_ready, within=timeouts.certificate)
    eventually(namespace.select(REQUEST), _name_the_issuer("late"), within=timeouts.certificate)
    assert not namespace.object(kinds.SECRET, "web").exists(), f"{made} has a Secret, though nobody has issued it"

    namespace.create(manifests.tls_secret("late", *self_signed("late.example")))
    namespace.create(_issuer("late", ca={"secretName": "late"}))

    _issued(namespace, "web", timeouts)


_KEY = {"algorithm": "ECDSA", "size": 256}


def _found(namespace: Namespace, timeouts: Timeouts) -> str:
    """Found an authority of the namespace's own, with an Issuer that signs for it; its certificate."""
    namespace.create(_issuer("root", selfSigned={}))
    # Of a busy API server's news a controller may learn late, and make two keys. Who signs for himself then finds the
    # wrong one, and is not asked again for an hour. So there is one key already.
    namespace.create(manifests.secret(AUTHORITY, {"tls.key": self_signed("key").key}))
    key = {**_KEY, "rotationPolicy": "Never"}
    name = f"Authority of {namespace}"[:64]
    namespace.create(_certificate(AUTHORITY, issuer="root", isCA=True, commonName=name, privateKey=key))
    _issued(namespace, AUTHORITY, timeouts)
    issuer = namespace.create(_issuer(AUTHORITY, ca={"secretName": AUTHORITY}))
    eventually(issuer, has_condition("Ready"), within=timeouts.certificate)
    return _text(namespace.get(kinds.SECRET, AUTHORITY), "tls.crt")


def _issuer(name: str, **how: dict[str, Any]) -> dict[str, Any]:
    return manifests.custom_object(ISSUER, name, spec=how)


def _certificate(name: str, hosts: Iterable[str] = (), *, issuer: str = AUTHORITY, **more: Any) -> dict[str, Any]:
    """A Certificate, with a Secret of the same name; `more` are further fields of it, by the names they have there."""
    by = {"name": issuer, "kind": ISSUER.kind, "group": GROUP}
    spec = {"secretName": name, "dnsNames": sorted(hosts), "issuerRef": by, "privateKey": _KEY, **more}
    return manifests.custom_object(CERTIFICATE, name, spec=spec)


def _site(name: str, host: str, class_name: str, **more: Any) -> dict[str, Any]:
    """An Ingress for a host, with a certificate from the Secret of the same name."""
    tls = {"tls": [{"hosts": [host], "secretName": name}]}
    return manifests.ingress(name, rules=[manifests.rule(host, {"/": name})], class_name=class_name, spec=tls, **more)


def _issued(namespace: Namespace, name: str, timeouts: Timeouts) -> Chain:
    """Wait until a Certificate is ready; what its Secret holds then."""
    eventually(namespace.object(CERTIFICATE, name), has_condition("Ready"), within=timeouts.certificate)
    return Chain.of(_text(namespace.get(kinds.SECRET, name), "tls.crt"))


def _ask_for_renewal(certificate: Object, timeouts: Timeouts) -> None:
    """Say that a Certificate is to be issued again, once it is no longer being issued: its Secret is there before."""
    eventually(certificate, _is_at_rest, within=timeouts.certificate)
    asked = {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "Asked for by a promise"}
    others = [each for each in certificate.status["conditions"] if each["type"] != asked["type"]]
    change = [{"op": "add", "path": "/status/conditions", "value": [*others, asked]}]
    certificate.patch(change, type="json", subresource="status")


def _is_at_rest(certificate: Object) -> str | None:
    issuing = certificate.condition("Issuing")
    return f"it is being issued: {issuing.get('message')}" if issuing.get("status") == "True" else None


def _renewed(namespace: Namespace, name: str, old: Chain, timeouts: Timeouts) -> Chain:
    """Wait until another certificate is in a Secret; it."""
    secret = eventually(namespace.object(kinds.SECRET, name), _holds_another_than(old), within=timeouts.certificate)
    return Chain.of(_text(secret, "tls.crt"))


def _shown(entry: EntryPoint, namespace: Namespace, hosts: dict[str, str], authority: str, timeouts: Timeouts) -> None:
    """Wait until each host's visitors, who trust the authority only, are shown just what its Secret holds."""
    eventually(
        functools.partial(_ask, entry, namespace, hosts, authority),
        _is_what_its_secret_holds,
        within=timeouts.ingress,
        describe=f"{entry.address} shows what was issued",
    )


def _ask(entry: EntryPoint, namespace: Namespace, hosts: dict[str, str], authority: str) -> dict[str, tuple[str, str]]:
    """By host, the serial numbers of what its visitors are shown, or why they see none that they trust, and issued."""
    answers = {}
    for name, host in hosts.items():
        said = entry.certificate(host, authority)
        shown = Chain.of(said).serial if said.startswith("-----") else said
        answers[host] = (shown, Chain.of(_text(namespace.get(kinds.SECRET, name), "tls.crt")).serial)
    return answers


def _is_what_its_secret_holds(answers: dict[str, tuple[str, str]]) -> str | None:
    wrong = [f"for {host} it is {shown}, not {held}" for host, (shown, held) in answers.items() if shown != held]
    return "; ".join(wrong) or None


def _text(secret: Object, key: str) -> str:
    return base64.b64decode(secret["data"][key]).decode()


def _holds_another_than(old: Chain) -> Condition:
    def holds_another_certificate_than_before(secret: Object) -> str | None:
        serial = Chain.of(_text(secret, "tls.crt")).serial
        return f"its certificate still is {serial}" if serial == old.serial else None

    return holds_another_certificate_than_before


def _says_that_it_is_not_ready(certificate: Object) -> str | None:
    told = certificate.condition("Ready")
    if told.get("status") == "False" and told.get("reason"):
        return None
    return f"its condition Ready is {told or 'not there'}"


def _name_the_issuer(name: str) -> conditions.ListCondition:
    def say_that_the_issuer_is_missing(requests: list[Object]) -> str | None:
        told = [request.condition("Ready").get("message", "") for request in requests]
        return None if any(name in each for each in told) else f"they say {told or 'nothing: there are none'}"

    return say_that_the_issuer_is_missing
