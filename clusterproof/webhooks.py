"""A real webhook server for the API server to call: agnhost in a pod, behind a Service and a certificate of its own."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from clusterproof import kinds, manifests
from clusterproof.certificates import self_signed
from clusterproof.conditions import endpoints, ready
from clusterproof.namespace import Namespace
from clusterproof.wait import eventually

PORT = 10250
"""That of kubelets, which is free in every pod: some clouds keep their API servers from all others but 443."""


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Where the API server reaches a webhook server, and whom it trusts there."""

    namespace: str
    name: str
    """Of its Service."""
    authority: str
    """Certificate of the authority that vouches for it, as PEM text."""

    def client_config(self, path: str) -> dict[str, Any]:
        """The `clientConfig` by which the API server calls the webhook at a path."""
        where = {"namespace": self.namespace, "name": self.name, "port": 443, "path": path}
        return {"service": where, "caBundle": base64.b64encode(self.authority.encode()).decode()}


def serve(namespace: Namespace, image: str, program: str, *, within: float) -> Webhooks:
    """Start one of agnhost's webhook servers (`webhook`, `crd-conversion-webhook`); it is ready when this returns."""
    pair = self_signed(f"{program}.{namespace}.svc")
    namespace.create(manifests.tls_secret(program, *pair))
    args = [program, f"--port={PORT}", "--tls-cert-file=/tls/tls.crt", "--tls-private-key-file=/tls/tls.key"]
    serving = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    volumes = [{"name": "tls", "secret": {"secretName": program}}]
    files: dict[str, Any] = {"volumes": volumes, "mounts": {"tls": "/tls"}}
    # The conversion webhook does not start where it finds no token.
    made = manifests.pod(program, image, args=args, readiness=serving, service_account="default", **files)
    server = namespace.create(made)
    namespace.create(manifests.service(program, port=443, target=PORT))
    eventually(server, ready, within=within)
    slices = namespace.select(kinds.ENDPOINT_SLICE, f"kubernetes.io/service-name={program}")
    eventually(slices, endpoints(1), within=within)
    return Webhooks(namespace.name, program, pair.certificate)
