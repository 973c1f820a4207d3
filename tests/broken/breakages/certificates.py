"""cert-manager: certificates that are not issued, not renewed, or not those that were asked for."""

from __future__ import annotations

import base64

from clusterproof.certificates import self_signed

from ..registry import Damage, breakage
from ..subject import Subject

CERTIFICATES = "cert-manager.io/v1/certificates"
ISSUERS = "cert-manager.io/v1/issuers"
INGRESSES = "networking.k8s.io/v1/ingresses"
SIGNED = "cert-manager.io/certificate-name"
"""Annotation of Secrets that cert-manager has filled."""
_LATE = r"Secret \S+ holds another certificate than before: not within .*its certificate still is"
_UNLIKE = r"shows what was issued: not within"


@breakage(
    breaks={
        "extend/cert_manager/issue": r"Certificate \S+/authority has condition Ready=True: not within .*no condition",
        "extend/cert_manager/missing_issuer": r"Certificate \S+/web says that it is not ready: not within .*not there",
    },
    keeps=["extend/crd/lifecycle"],
)
def cert_manager_stopped(subject: Subject) -> Damage:
    """cert-manager does not run."""
    with subject.scaled("cert-manager", 0, namespace="cert-manager"):
        yield []


@breakage(
    breaks={"extend/cert_manager/issue": r"Secret \S+/web has a certificate for .*shop\.test.* were asked for"},
    keeps=["extend/cert_manager/renewal"],
)
def certificate_for_more_names(subject: Subject) -> Damage:
    """Certificates are for one name more than was asked for."""
    lacking = 'has(object.spec.dnsNames) && !("shop.test" in object.spec.dnsNames)'
    change = f'{lacking} ? [JSONPatch{{op: "add", path: "/spec/dnsNames/-", value: "shop.test"}}] : []'
    with subject.mutating(CERTIFICATES, change, patch="JSONPatch"):
        yield []


@breakage(
    breaks={
        "extend/cert_manager/issue": r"who trusts Issuer authority should trust its certificate, but: .*red",
        "extend/cert_manager/ingress": rf"{_UNLIKE} .*certificate verify failed",
        "extend/cert_manager/ingress_annotation": r"should trust the certificate of Ingress \S+/web, but",
    },
    keeps=["extend/cert_manager/missing_issuer"],
)
def certificates_sign_themselves(subject: Subject) -> Damage:
    """An issuer with an authority does not have it sign what is asked of it."""
    instead = 'JSONPatch{op: "add", path: "/spec/selfSigned", value: Object.spec.selfSigned{}}'
    change = f'has(object.spec.ca) ? [JSONPatch{{op: "remove", path: "/spec/ca"}}, {instead}] : []'
    with subject.mutating(ISSUERS, change, patch="JSONPatch"):
        yield []


@breakage(
    breaks={"extend/cert_manager/issue": r"Secret \S+/web names another authority than Issuer authority"},
    keeps=["extend/cert_manager/renewal"],
)
def secret_with_another_authority(subject: Subject) -> Damage:
    """Secrets name an authority that has not signed what is in them."""
    other = base64.b64encode(self_signed("other.test").certificate.encode()).decode()
    notes = "object.metadata.annotations"
    issued = f'has({notes}) && "{SIGNED}" in {notes} && {notes}["{SIGNED}"] == "web" && "ca.crt" in object.data'
    change = f'{issued} ? [JSONPatch{{op: "replace", path: "/data/ca.crt", value: "{other}"}}] : []'
    with subject.mutating("v1/secrets", change, patch="JSONPatch"):
        yield []


@breakage(breaks={"extend/cert_manager/renewal": _LATE}, keeps=["extend/cert_manager/issue"])
def renewal_too_late(subject: Subject) -> Damage:
    """Certificates are not renewed when they want it, but once two thirds of their time have passed."""
    change = 'has(object.spec.renewBefore) ? [JSONPatch{op: "remove", path: "/spec/renewBefore"}] : []'
    with subject.mutating(CERTIFICATES, change, patch="JSONPatch"):
        yield []


@breakage(
    breaks={"extend/cert_manager/renewal": _LATE, "extend/cert_manager/ingress": _LATE},
    keeps=["extend/cert_manager/issue"],
)
def renewal_not_stored(subject: Subject) -> Damage:
    """A Secret keeps the certificate that it had first."""
    issued = 'oldObject != null && object.type == "kubernetes.io/tls"'
    change = f'{issued} ? [JSONPatch{{op: "replace", path: "/data", value: oldObject.data}}] : []'
    with subject.mutating("v1/secrets", change, patch="JSONPatch"):
        yield []


@breakage(
    breaks={"extend/cert_manager/renewal": r"rotationPolicy Always: it was renewed with the key it had"},
    keeps=["extend/cert_manager/issue"],
)
def renewal_keeps_key(subject: Subject) -> Damage:
    """Certificates are renewed with the key they have, also those that want a new one."""
    with subject.mutating(CERTIFICATES, _rotation("Never")):
        yield []


@breakage(
    breaks={"extend/cert_manager/renewal": r"rotationPolicy Never: it was renewed with another key"},
    keeps=["extend/cert_manager/issue"],
)
def renewal_replaces_key(subject: Subject) -> Damage:
    """Certificates are renewed with another key, also those that want to keep theirs."""
    with subject.mutating(CERTIFICATES, _rotation("Always")):
        yield []


@breakage(
    breaks={
        "extend/cert_manager/ingress": rf"{_UNLIKE} .*certificate verify failed",
        "network/ingress/tls": r"serves each host by https: not within",
    },
    keeps=["extend/cert_manager/ingress_annotation"],
)
def ingress_with_certificate_of_another_host(subject: Subject) -> Damage:
    """An ingress controller shows all hosts' visitors the certificate of one."""
    path = "/spec/tls/0/secretName"
    ours = 'has(object.spec.tls) && object.spec.tls[0].secretName == "red"'
    change = f'{ours} ? [JSONPatch{{op: "replace", path: "{path}", value: "blue"}}] : []'
    with subject.mutating(INGRESSES, change, patch="JSONPatch"):
        yield []


@breakage(
    breaks={
        "extend/cert_manager/ingress_annotation": r"Certificate \S+/web has condition Ready=True: not within .*exist"
    },
    keeps=["extend/cert_manager/issue"],
)
def issuer_of_ingress_ignored(subject: Subject) -> Damage:
    """cert-manager does not look at the annotations of Ingresses."""
    change = 'has(object.metadata.annotations) ? [JSONPatch{op: "remove", path: "/metadata/annotations"}] : []'
    with subject.mutating(INGRESSES, change, patch="JSONPatch"):
        yield []


@breakage(
    breaks={
        "extend/cert_manager/missing_issuer": r"Certificate \S+/web has condition Ready=True: not within .*is False"
    },
    keeps=["extend/cert_manager/issue"],
)
def issuer_without_key(subject: Subject) -> Damage:
    """An issuer that comes late has no key to sign with."""
    late = 'object.metadata.name == "late" && has(object.spec.ca)'
    change = f'{late} ? [JSONPatch{{op: "replace", path: "/spec/ca/secretName", value: "nobody"}}] : []'
    with subject.mutating(ISSUERS, change, patch="JSONPatch"):
        yield []


def _rotation(policy: str) -> str:
    return f'Object{{spec: Object.spec{{privateKey: Object.spec.privateKey{{rotationPolicy: "{policy}"}}}}}}'
