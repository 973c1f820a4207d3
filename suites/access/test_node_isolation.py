"""Node isolation: the identity of a node is good for what its own pods need, and for nothing beyond."""

from __future__ import annotations

from clusterproof import Cluster, Images, Namespace, Timeouts, conditions, eventually, hollow, kinds, manifests
from clusterproof.credentials import KUBELETS, Credentials
from clusterproof.refusals import refused

DRY = {"dryRun": "All"}
RESTRICTED = "node-restriction.kubernetes.io/clusterproof"
"""A label by which workloads are kept apart, which no node may give itself."""


def test_reads(namespace: Namespace, credentials: Credentials, images: Images, timeouts: Timeouts) -> None:
    """A node MUST read the pods that are bound to it, their Secrets and ConfigMaps while they are, and no others.

    Shown by a node that does not exist, so that nothing runs.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/node/
    """
    name = f"{namespace}-node"
    node = credentials.certificate(f"system:node:{name}", [KUBELETS])
    mine, other = (namespace.create(manifests.secret(each, {"key": each})) for each in ("mine", "other"))
    config = namespace.create(manifests.config_map("mine"))
    others = [mine.path, other.path, config.path, kinds.SECRET.path(namespace.name)]
    others += [kinds.SECRET.path(), kinds.CONFIG_MAP.path("kube-system")]
    others += [kinds.PERSISTENT_VOLUME.path(), kinds.PERSISTENT_VOLUME_CLAIM.path(namespace.name)]
    others += [kinds.POD.path(), kinds.POD.path("kube-system"), _pods_on(f"{name}-next")]
    answers = {path: node.request("GET", path).status for path in others}
    open_to_it = {path: status for path, status in answers.items() if status != 403}
    assert not open_to_it, f"{node.user}, to which no pod is bound, MUST be refused with 403, but: {open_to_it}"

    volumes = [{"name": "secret", "secret": {"secretName": "mine"}}, {"name": "config", "configMap": {"name": "mine"}}]
    pod = namespace.create(manifests.pod("pod", images.agnhost, volumes=volumes, spec={"nodeName": name}))
    try:
        paths = (mine.path, config.path, pod.path, _pods_on(name))
        eventually(
            lambda: [node.request("GET", path).status for path in paths],
            conditions.equals([200] * len(paths)),
            within=timeouts.propagation,
            describe=f"what {node.user} is answered for {pod} and what it uses",
        )
        left = {path: node.request("GET", path).status for path in (other.path, kinds.SECRET.path(namespace.name))}
        assert set(left.values()) == {403}, f"{node.user}, whose pod uses only {mine}, is answered {left}"
    finally:
        # No kubelet is there to end it.
        pod.delete(grace=0)
    eventually(
        lambda: node.request("GET", mine.path).status,
        conditions.equals(403),
        within=timeouts.propagation,
        describe=f"{mine}, which no pod on it uses any more, is kept from {node.user}",
    )


def test_writes(cluster: Cluster, namespace: Namespace, credentials: Credentials, images: Images) -> None:
    """A node MUST NOT change other nodes, its own restricted labels or taints, or pods that are not its own.

    Only tried, as a dry run.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction
    """
    name = f"{namespace}-node"
    node = credentials.certificate(f"system:node:{name}", [KUBELETS])
    (real, *_) = cluster.list(kinds.NODE, labels=hollow.MACHINES)
    itself = credentials.certificate(f"system:node:{real.name}", [KUBELETS])

    with refused(f"{node.user} labelling {real}"):
        node.patch(real.path, {"metadata": {"labels": {"clusterproof.dev/by": "other"}}}, DRY)
    with refused(f"{node.user} reporting the status of {real}"):
        node.patch(real.path + "/status", {"status": {"phase": "Running"}}, DRY)
    with refused(f"{itself.user} giving itself the label {RESTRICTED}"):
        itself.patch(real.path, {"metadata": {"labels": {RESTRICTED: "yes"}}}, DRY)
    with refused(f"{itself.user} changing its own taints"):
        itself.patch(real.path, {"spec": {"taints": [{"key": "clusterproof.dev/no", "effect": "NoSchedule"}]}}, DRY)
    with refused(f"{itself.user} deleting itself"):
        itself.delete(real.path, query=DRY)
    with refused(f"{node.user} renewing the Lease of {real}"):
        node.patch(kinds.LEASE.path("kube-node-lease", real.name), {"spec": {"holderIdentity": "other"}}, DRY)
    with refused(f"{itself.user} making a pod of its own"):
        manifest = manifests.pod("pod", images.agnhost, spec={"nodeName": real.name})
        itself.post(kinds.POD.path(namespace.name), manifest, DRY)
    with refused(f"{node.user} asking for a token of a service account that none of its pods has"):
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        node.post(kinds.SERVICE_ACCOUNT.path(namespace.name, "default", "token"), body)
    known = itself.patch(real.path, {"metadata": {"labels": {"node.kubernetes.io/clusterproof": "yes"}}}, DRY)
    assert known["metadata"]["name"] == real.name, f"{itself.user} MUST be able to label itself, but: {known}"


def test_pods(namespace: Namespace, credentials: Credentials, images: Images) -> None:
    """A node MUST NOT report the status of pods that are not its own, delete them or evict them.

    Only tried, as a dry run, on a pod that is held back from every node.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction
    """
    node = credentials.certificate(f"system:node:{namespace}-node", [KUBELETS])
    gate = {"schedulingGates": [{"name": "clusterproof.dev/never"}]}
    pod = namespace.create(manifests.pod("pod", images.agnhost, spec=gate))
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.name}}

    with refused(f"{node.user} reporting the status of {pod}, which is not its own,"):
        node.patch(pod.path + "/status", {"status": {"message": "it is well"}}, DRY)
    # A server that has not yet heard of the pod does not know whose it is, either.
    with refused(f"{node.user} deleting {pod}, which is not its own,", 403, 404):
        node.delete(pod.path, query=DRY)
    with refused(f"{node.user} evicting {pod}, which is not its own,", 403, 404):
        node.post(pod.path + "/eviction", eviction, DRY)


def _pods_on(node: str) -> str:
    """Where the pods of a node are listed, as its kubelet does: nodes may list no others since Kubernetes 1.34."""
    return f"{kinds.POD.path()}?fieldSelector=spec.nodeName={node}"
