"""DaemonSet: one pod on every node that it is meant for."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clusterproof import (
    ApiError,
    Cluster,
    Images,
    Namespace,
    Object,
    Timeouts,
    case,
    eventually,
    kinds,
    manifests,
    watching,
)
from clusterproof.conditions import ListCondition, ready, rolled_out

LINUX = {"kubernetes.io/os": "linux"}
TOLERATED = {
    f"node.kubernetes.io/{name}"
    for name in ("not-ready", "unreachable", "disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")
}
"""Taints that every pod of a DaemonSet tolerates."""

Label = Callable[[Object, bool], None]


@pytest.fixture
def label(namespace: Namespace) -> Iterator[Label]:
    """Gives a node the label of this test's own (True), or takes it away."""
    labelled: dict[str, Object] = {}

    def set_label(node: Object, on: bool) -> None:
        labelled[node.name] = node
        node.patch({"metadata": {"labels": {_key(namespace): "yes" if on else None}}})

    yield set_label
    for node in labelled.values():
        try:
            set_label(node, False)
        except ApiError as error:
            if error.status != 404:  # the node may be gone
                raise


@pytest.mark.smoke
def test_every_node(namespace: Namespace, cluster: Cluster, images: Images, timeouts: Timeouts) -> None:
    """A DaemonSet MUST run exactly one pod on every node that its pods may go to, and none elsewhere.

    A pod that was deleted comes back to its node. Trouble of a node drives none away.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#how-daemon-pods-are-scheduled
    """
    nodes = [node for node in cluster.list(kinds.NODE) if _takes_daemons(node)]
    agent = namespace.create(
        manifests.daemon_set("agent", images.agnhost, args=["pause"], spec={"nodeSelector": LINUX})
    )
    before = eventually(agent.pods(), _one_on_each(nodes), within=timeouts.rollout)
    for pod in before:
        lasting = {each.get("key") for each in pod.spec["tolerations"] if "tolerationSeconds" not in each}
        assert lasting >= TOLERATED, f"{pod} does not tolerate {', '.join(sorted(TOLERATED - lasting))} for good"

    victim = next(pod for pod in before if ready(pod) is None)
    victim.delete()
    after = eventually(agent.pods(), _one_on_each(nodes, without=victim), within=timeouts.recovery)

    lost = {pod.name for pod in before} - {pod.name for pod in after} - {victim.name}
    assert not lost, f"{agent}: {', '.join(lost)} went away when {victim.name} was deleted"


def test_node_labels(
    namespace: Namespace, nodes: list[Object], label: Label, images: Images, timeouts: Timeouts
) -> None:
    """A DaemonSet with a node selector MUST follow the labels of nodes: its pod comes with a label and goes with it.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#running-pods-on-select-nodes
    """
    first, last = nodes[0], nodes[-1]
    selector = {"nodeSelector": {_key(namespace): "yes"}}
    agent = namespace.create(manifests.daemon_set("agent", images.agnhost, args=["pause"], spec=selector))
    eventually(agent, rolled_out, within=timeouts.object)
    assert not agent.pods().read(), f"{agent} has pods although no node has its label"

    label(first, True)
    eventually(agent.pods(), _one_on_each([first]), within=timeouts.rollout)
    others = [last] if last.name != first.name else []  # there may be just one node
    for node in others:
        label(node, True)
    both = eventually(agent.pods(), _one_on_each([first, *others]), within=timeouts.rollout)
    label(first, False)
    after = eventually(agent.pods(), _one_on_each(others), within=timeouts.pod_end)

    assert {pod.uid for pod in after} <= {pod.uid for pod in both}, f"{agent} replaced a pod whose node kept its label"


@pytest.mark.pod_security("privileged")
def test_log_agent(namespace: Namespace, cluster: Cluster, images: Images, timeouts: Timeouts) -> None:
    """A log collector on every node MUST find there what the containers of that node have printed.

    As log agents do, it reads the node's folder /var/log/pods. It is ready once it has found its neighbour's line.

    Source: https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-location-node
    """
    nodes = [node for node in cluster.list(kinds.NODE) if _takes_daemons(node)]
    token = secrets.token_hex(8)
    namespace.create(_writer(images, token))
    agent = namespace.create(_collector(images, f"/var/log/pods/{namespace}_writer-*", token))

    collectors = eventually(
        agent.pods(),
        _one_on_each(nodes),
        within=timeouts.rollout,
        describe="have found the line of the writer on their node, one on each node",
    )

    for collector in (pod for pod in collectors if ready(pod) is None):
        log = eventually(collector.logs, _mentions(token), within=timeouts.request)
        found = [line for line in log.splitlines() if token in line]
        expected = f"{token} from {collector.spec['nodeName']}"
        assert all(line.endswith(expected) for line in found), f"{collector} found {found}, not only {expected!r}"


@pytest.mark.parametrize(("surge", "unavailable"), [case("0/1", 0, 1), case("1/0", 1, 0)])
def test_update(
    namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts, surge: int, unavailable: int
) -> None:
    """A DaemonSet with a changed template MUST replace every pod, with no more than maxUnavailable nodes without one.

    With maxSurge a node has its new pod before the old one goes.

    Source: https://kubernetes.io/docs/tasks/manage-daemon/update-daemon-set/
    """
    some = nodes[:2]
    names = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node.name]}]} for node in some]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": names}}}
    strategy = {
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    }
    agent = namespace.create(
        manifests.daemon_set("agent", images.agnhost_old, args=["pause"], more=strategy, spec={"affinity": affinity})
    )
    eventually(agent.pods(), _one_on_each(some), within=timeouts.rollout)

    with watching(agent.pods()) as pods:
        template = {"spec": {"containers": [{"name": "main", "image": images.agnhost}]}}
        agent.patch({"spec": {"template": template}}, type="strategic")
        eventually(agent, rolled_out, within=timeouts.rollout)

    def enough_available(state: list[Object]) -> str | None:
        served = {pod.spec.get("nodeName", "") for pod in state if ready(pod) is None}
        return (
            None if len(served) >= len(some) - unavailable else f"only {sorted(served)} of {len(some)} nodes have one"
        )

    enough_available.__name__ = f"{agent}: all nodes but {unavailable} have an available pod"
    pods.every(enough_available)
    after = eventually(agent.pods(), _one_on_each(some), within=timeouts.pod_end)
    assert {pod.spec["containers"][0]["image"] for pod in after} == {images.agnhost}


def _key(namespace: Namespace) -> str:
    """Of a label that nobody else uses."""
    return f"clusterproof.dev/{namespace}"


def _writer(images: Images, token: str) -> dict[str, Any]:
    """A DaemonSet whose pods print a token and the node they are on."""
    return manifests.daemon_set(
        "writer",
        images.agnhost,
        command=["sh", "-c", f"echo {token} from $NODE; exec /agnhost pause"],
        container={"env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]},
        spec={"nodeSelector": LINUX},
    )


def _collector(images: Images, logs: str, token: str) -> dict[str, Any]:
    """A DaemonSet whose pods print the lines with a token in their node's logs, and then are ready."""
    seek = f"until grep -rhs {token} {logs}; do sleep 1; done; exec /agnhost netexec"
    return manifests.daemon_set(
        "agent",
        images.agnhost,
        command=["sh", "-c", seek],
        readiness=manifests.http_probe(),
        privileged=True,
        volumes=[{"name": "logs", "hostPath": {"path": "/var/log/pods"}}],
        container={"volumeMounts": [{"name": "logs", "mountPath": "/var/log/pods", "readOnly": True}]},
        spec={"nodeSelector": LINUX},
    )


def _mentions(token: str) -> Callable[[str], str | None]:
    def mentions(log: str) -> str | None:
        return None if token in log else f"it says {log[-100:]!r}"

    mentions.__name__ = f"mentions {token}"
    return mentions


def _takes_daemons(node: Object) -> bool:
    taints = node.spec.get("taints") or []
    kept_out = any(taint["effect"] != "PreferNoSchedule" and taint["key"] not in TOLERATED for taint in taints)
    return node.labels.get("kubernetes.io/os") == "linux" and not kept_out


def _one_on_each(nodes: list[Object], *, without: Object | None = None) -> ListCondition:
    """Each of the nodes has exactly one pod, and no other node has any; `without` is gone.

    The pods are ready, unless their node was not.
    """
    wanted = sorted(node.name for node in nodes)
    working = {node.name for node in nodes if ready(node) is None}

    def one_on_each(pods: list[Object]) -> str | None:
        if without is not None and without.uid in {pod.uid for pod in pods}:
            return f"{without.name} is still there"
        where = sorted(pod.spec.get("nodeName", "no node yet") for pod in pods)
        if where != wanted:
            return f"they are on {', '.join(where) or 'no node'}, not on {', '.join(wanted) or 'none'}"
        judged = {pod: ready(pod) for pod in pods if pod.spec["nodeName"] in working}
        return "; ".join(f"{pod.name}: {missing}" for pod, missing in judged.items() if missing) or None

    one_on_each.__name__ = f"are one on each of {len(wanted)} nodes, ready"
    return one_on_each
