"""Aggregation: an API that another server serves behind the API server is as safe as one of its own."""

from __future__ import annotations

from functools import partial

import pytest

from clusterproof import Cluster, Namespace, Response, Timeouts, capabilities, conditions, eventually, kinds, manifests
from clusterproof.credentials import Credentials
from clusterproof.rights import grant

CONFIG = "extension-apiserver-authentication"
TRUST = (
    "requestheader-client-ca-file",
    "requestheader-username-headers",
    "requestheader-group-headers",
    "client-ca-file",
)


def test_trust(cluster: Cluster) -> None:
    """Servers behind the API server MUST be told by whose certificate, and in which headers, it names the caller.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/
    """
    told = cluster.get(kinds.CONFIG_MAP, CONFIG, "kube-system")

    missing = [key for key in TRUST if not told.raw.get("data", {}).get(key)]
    assert not missing, f"{told} MUST carry {', '.join(missing)}, but carries only {sorted(told.raw.get('data', {}))}"
    assert "BEGIN CERTIFICATE" in told["data"]["requestheader-client-ca-file"], f"{told} carries no certificate"


@pytest.mark.requires(capabilities.METRICS)
@pytest.mark.parametrize("who", ["User", "Group", "ServiceAccount"])
def test_identity(
    cluster: Cluster, namespace: Namespace, credentials: Credentials, timeouts: Timeouts, who: str
) -> None:
    """A server behind the API server MUST learn who calls, and in which groups, and so let in whom it should.

    Shown by the metrics API, which asks for itself what its caller may do.

    Source: https://kubernetes.io/docs/concepts/extend-kubernetes/api-extension/apiserver-aggregation/
    """
    group, path = f"{namespace}-group", kinds.NODE_METRICS.path()
    if who == "ServiceAccount":
        account = namespace.create(manifests.service_account("caller"))
        client, subject = credentials.token(account), manifests.subject(who, "caller", namespace.name)
    else:
        client = credentials.certificate(f"{namespace}-user", [group])
        subject = manifests.subject(who, group if who == "Group" else client.user)

    def answer(kind: kinds.Kind) -> Response:
        read = partial(client.request, "GET", kind.path())
        return eventually(read, conditions.its_own, within=timeouts.request, describe=f"{kind.path()} is answered")

    before = answer(kinds.NODE_METRICS).status
    assert before == 403, f"{client.user} was granted nothing, but {path} is answered with {before}"
    rule = manifests.rbac_rule(["get", "list"], ["nodes"], groups=["metrics.k8s.io"])
    grant(namespace, [rule], [subject], role="ClusterRole", binding="ClusterRoleBinding")

    eventually(
        lambda: client.request("GET", path).status,
        conditions.equals(200),
        within=2 * timeouts.propagation,  # that it was refused is remembered for ten seconds
        describe=f"{path} is answered to {client.user}",
    )
    listed = answer(kinds.NODE_METRICS).json()
    assert listed["kind"] == "NodeMetricsList", f"{path} is answered with {listed['kind']}"
    other = answer(kinds.POD_METRICS).status
    assert other == 403, f"{client.user} was granted the metrics of nodes, but those of pods are answered with {other}"
