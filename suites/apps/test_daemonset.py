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
    capabilities,
    case,
    consistently,
    eventually,
    hollow,
    kinds,
    manifests,
    watching,
)
from clusterproof.conditions import (
    Condition,
    ListCondition,
    count,
    has_ready_pods,
    observed,
    placed_on,
    ready,
    rolled_out,
    settled,
    told_to_end,
)

LINUX = {"kubernetes.io/os": "linux"}
TOLERATED = {
    f"node.kubernetes.io/{name}"
    for name in ("not-ready", "unreachable", "disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")
}
"""Taints that every pod of a DaemonSet tolerates."""

LONG = 500
"""Seconds, more than any promise lasts."""

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
    agent = namespace.create(
        manifests.daemon_set("agent", images.agnhost, args=["pause"], spec={"nodeSelector": LINUX})
    )
    before = eventually(agent.pods(), _one_on_every(cluster), within=timeouts.rollout)
    for pod in before:
        lasting = {each.get("key") for each in pod.spec["tolerations"] if "tolerationSeconds" not in each}
        assert lasting >= TOLERATED, f"{pod} does not tolerate {', '.join(sorted(TOLERATED - lasting))} for good"

    victim = next(pod for pod in before if ready(pod) is None)
    victim.delete()
    after = eventually(agent.pods(), _one_on_every(cluster, without=victim), within=timeouts.recovery)

    left = {node.name for node in _daemon_nodes(cluster)}
    lost = {pod.name for pod in before if pod.spec["nodeName"] in left} - {pod.name for pod in [*after, victim]}
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


@pytest.mark.requires(capabilities.OWN_NODE)
def test_taints(namespace: Namespace, hollow_node: Object, images: Images, timeouts: Timeouts) -> None:
    """A DaemonSet MUST have a pod on a tainted node only if that tolerates it, and as long as no NoExecute taint comes.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#taints-and-tolerations
    """
    spec = hollow.pods_on(hollow_node)
    only_there = {"nodeSelector": spec["nodeSelector"]}
    bold = namespace.create(manifests.daemon_set("bold", images.agnhost, **manifests.HELD, spec=spec))
    shy = namespace.create(manifests.daemon_set("shy", images.agnhost, **manifests.HELD, spec=only_there))
    (pod,) = eventually(bold.pods(), settled(1), within=timeouts.object)
    eventually(pod, placed_on(hollow_node), within=timeouts.object)

    _taint(hollow_node, {"key": _key(namespace), "effect": "NoExecute"})
    eventually(pod, told_to_end, within=timeouts.object)
    eventually(bold, _meant_for(0), within=timeouts.object)
    eventually(bold.pods(), count(0), within=timeouts.object)
    hollow.end_all(bold.pods(), hollow_node)

    _taint(hollow_node)
    eventually(bold, _meant_for(1), within=timeouts.object)
    (pod,) = eventually(bold.pods(), settled(1), within=timeouts.object)
    eventually(pod, placed_on(hollow_node), within=timeouts.object)
    eventually(shy, _meant_for(0), within=timeouts.object)
    assert not shy.pods().read(), f"{shy} has a pod on {hollow_node}, although it tolerates none of its taints"
    bold.delete()  # or it would make another pod when its node, and that one with it, is taken away


@pytest.mark.pod_security("privileged")
def test_log_agent(namespace: Namespace, cluster: Cluster, images: Images, timeouts: Timeouts) -> None:
    """A log collector on every node MUST find there what the containers of that node have printed.

    As log agents do, it reads the node's folder /var/log/pods. It is ready once it has found its neighbour's line.

    Source: https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-location-node
    """
    token = secrets.token_hex(8)
    namespace.create(_writer(images, token))
    agent = namespace.create(_collector(images, f"/var/log/pods/{namespace}_writer-*", token))

    collectors = eventually(
        agent.pods(),
        _one_on_every(cluster),
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

    With maxSurge a node has its new pod before the old one goes, and no more nodes than that have both at a time while
    the new one is not ready.

    Source: https://kubernetes.io/docs/tasks/manage-daemon/update-daemon-set/
    """
    some = nodes[:2]
    strategy = {
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    }
    spec = {"affinity": manifests.only_on(*(node.name for node in some))}
    agent = namespace.create(
        manifests.daemon_set("agent", images.agnhost_old, args=["pause"], more=strategy, spec=spec)
    )
    eventually(agent.pods(), _one_on_each(some), within=timeouts.rollout)
    eventually(agent, rolled_out, within=timeouts.object)  # its controller knows that they are ready, too

    with watching(agent.pods()) as pods:
        agent.set_image(images.agnhost)
        eventually(agent, rolled_out, within=timeouts.rollout)

    def enough_available(state: list[Object]) -> str | None:
        served = {pod.spec.get("nodeName", "") for pod in state if ready(pod) is None}
        return (
            None if len(served) >= len(some) - unavailable else f"only {sorted(served)} of {len(some)} nodes have one"
        )

    enough_available.__name__ = f"{agent}: all nodes but {unavailable} have an available pod"
    pods.every(enough_available)
    pods.every(_at_most_surging(agent, {pod.uid for pod in pods.states[0]}, surge))
    after = eventually(agent.pods(), _one_on_each(some), within=timeouts.pod_end)
    assert _images(after) == {images.agnhost}


def test_rollback(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A DaemonSet that is given an earlier template again MUST return to its pods, and to the revision it had then.

    It is what `kubectl rollout undo` does: the earlier ControllerRevision becomes the newest one. No pod ever starts.

    Source: https://kubernetes.io/docs/tasks/manage-daemon/rollback-daemon-set/#understanding-daemonset-revisions
    """
    some = nodes[:2]
    spec = {"affinity": manifests.only_on(*(node.name for node in some)), **manifests.PARKED}
    agent = namespace.create(manifests.daemon_set("agent", images.agnhost_old, spec=spec))
    revisions = namespace.select(kinds.CONTROLLER_REVISION, "app=agent")
    eventually(agent.pods(), _run(images.agnhost_old, len(some)), within=timeouts.object)
    (first,) = revisions.read()

    for image in (images.agnhost, images.agnhost_old):
        agent.set_image(image)
        eventually(agent.pods(), _run(image, len(some)), within=timeouts.object)
        eventually(agent, _updated(len(some)), within=timeouts.object)

    found = revisions.read()
    newest = _newest(found)
    assert newest.uid == first.uid, f"{agent}: its newest revision is {newest}, not {first} of its first template"
    numbers = sorted(each["revision"] for each in found)
    assert numbers == [2, 3], f"{agent}: its revisions are {numbers}, not 2 and 3"


def test_min_ready_seconds(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A ready pod of a DaemonSet MUST NOT count as available before it was ready for minReadySeconds.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/daemon-set-v1/#DaemonSetSpec
    """
    more, spec = {"minReadySeconds": LONG}, {"affinity": manifests.only_on(nodes[0].name)}
    agent = namespace.create(manifests.daemon_set("agent", images.agnhost, args=["pause"], more=more, spec=spec))

    eventually(agent, has_ready_pods, within=timeouts.rollout)
    said = f"{agent}: its pod is available as soon as it is ready: {agent.status}"
    assert not agent.status.get("numberAvailable"), said
    consistently(agent, _has_no_available_pods, during=timeouts.steady)

    agent.patch({"spec": {"minReadySeconds": 0}})
    eventually(agent, rolled_out, within=timeouts.rollout)


def _key(namespace: Namespace) -> str:
    """Of a label that nobody else uses."""
    return f"clusterproof.dev/{namespace}"


def _taint(node: Object, *taints: dict[str, str]) -> None:
    """Give a hollow node these taints beside the one that makes it hollow; what its conditions bring comes back."""
    node.patch({"spec": {"taints": [{"key": hollow.LABEL, "effect": "NoSchedule"}, *taints]}})


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


def _daemon_nodes(cluster: Cluster) -> list[Object]:
    return [node for node in cluster.list(kinds.NODE) if _takes_daemons(node)]


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


def _one_on_every(cluster: Cluster, *, without: Object | None = None) -> ListCondition:
    """`_one_on_each` of all nodes that take daemons, as they are now: nodes come and go, and pods with them."""

    def one_on_every(pods: list[Object]) -> str | None:
        return _one_on_each(_daemon_nodes(cluster), without=without)(pods)

    one_on_every.__name__ = _one_on_each(_daemon_nodes(cluster)).__name__
    return one_on_every


def _meant_for(number: int) -> Condition:
    """The controller has found so many nodes for the DaemonSet's pods."""

    def meant_for(agent: Object) -> str | None:
        if missing := observed(agent):
            return missing
        seen = agent.status.get("desiredNumberScheduled", 0)
        return None if seen == number else f"it is meant for {seen}"

    meant_for.__name__ = f"is meant for {number} nodes"
    return meant_for


def _has_no_available_pods(agent: Object) -> str | None:
    return "its pod is available" if agent.status.get("numberAvailable") else None


def _at_most_surging(agent: Object, old: set[str], surge: int) -> ListCondition:
    """On no more nodes than `surge` is a new pod, not ready yet, beside an old one that has been ready all the time.

    Whatever moment the controller acts on, one of those that were watched or an earlier one at which all old pods were
    ready, a pod that was ready then has been ready by now; so one that lost its readiness later is no surge.
    """
    been_ready: set[str] = set()
    shaken: set[str] = set()

    def at_most_surging(pods: list[Object]) -> str | None:
        fine = {pod.uid for pod in pods if pod.condition("Ready").get("status") == "True"}
        been_ready.update(fine)
        shaken.update(pod.uid for pod in pods if pod.uid in old and pod.uid not in fine)
        steady = {_place(pod) for pod in pods if pod.uid in old - shaken and not pod.deleting}
        starting = {_place(pod) for pod in pods if pod.uid not in old | been_ready and not pod.deleting}
        both = steady & starting
        return f"{', '.join(sorted(both))} have one" if len(both) > surge else None

    at_most_surging.__name__ = f"{agent}: at most {surge} nodes have a new pod that is not ready beside the old one"
    return at_most_surging


def _place(pod: Object) -> str:
    """The node that a pod of a DaemonSet was made for, whether it has it yet or not."""
    affinity = pod.spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return str(affinity["nodeSelectorTerms"][0]["matchFields"][0]["values"][0])


def _images(pods: list[Object]) -> set[str]:
    return {pod.spec["containers"][0]["image"] for pod in pods}


def _run(image: str, number: int) -> ListCondition:
    """So many pods are there, all of them made for this image."""
    wanted = settled(number)

    def run(pods: list[Object]) -> str | None:
        found = _images(pods)
        return wanted(pods) or (None if found == {image} else f"their images are {', '.join(sorted(found))}")

    run.__name__ = f"{wanted.__name__}, with image {image}"
    return run


def _updated(number: int) -> Condition:
    """So many nodes have a pod of the current template, and the controller knows it."""
    meant = _meant_for(number)

    def updated(agent: Object) -> str | None:
        seen = agent.status.get("updatedNumberScheduled", 0)
        return meant(agent) or (None if seen == number else f"{seen} nodes have a pod of its template")

    updated.__name__ = f"has a pod of its template on {number} nodes"
    return updated


def _newest(revisions: list[Object]) -> Object:
    return max(revisions, key=lambda each: int(each["revision"]))
