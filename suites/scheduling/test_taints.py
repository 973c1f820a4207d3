"""Taints, cordon and drain: nodes that keep pods away or send them off."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from clusterproof import (
    Cluster,
    Images,
    Namespace,
    Object,
    Response,
    Timeouts,
    capabilities,
    eventually,
    hollow,
    manifests,
    measure,
    watching,
)
from clusterproof.conditions import (
    Condition,
    ListCondition,
    all_ready,
    gone,
    has_condition,
    placed_on,
    rolled_out,
    told_to_end,
    waits_for_node,
)
from clusterproof.inside import url_of
from clusterproof.probes import inside, unbroken

own_node = pytest.mark.requires(capabilities.OWN_NODE)

HOUR = 3600
MARK = {"clusterproof.dev/changed": "yes"}
"""Label that a node gets in the same moment as a taint or a cordon."""
TROUBLES = {
    "MemoryPressure": "memory-pressure",
    "DiskPressure": "disk-pressure",
    "PIDPressure": "pid-pressure",
    "NetworkUnavailable": "network-unavailable",
}
"""Conditions of nodes that tell of a trouble, and the taint that each brings."""


@own_node
def test_new_node(cluster: Cluster, namespace: Namespace) -> None:
    """A node MUST be tainted as not ready when it is made, so that it gets no pod before it can run one.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#taintnodesbycondition
    """
    node = hollow.create(cluster, f"{namespace}-new")

    taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    assert taint in node.spec["taints"], f"{node} MUST be made with the taint {taint}, but has {node.spec['taints']}"


@own_node
def test_no_schedule(namespace: Namespace, hollow_node: Object, images: Images, timeouts: Timeouts) -> None:
    """A pod MUST NOT get a node with a NoSchedule taint that it does not tolerate, by key, value and effect.

    A pod that has the node already stays.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
    """
    before = namespace.create(_held("before", images, hollow_node))
    eventually(before, placed_on(hollow_node), within=timeouts.object)
    _taint(hollow_node, "NoSchedule")
    key = "clusterproof.dev/tainted"
    _is_known(namespace, hollow_node, images, timeouts, key)

    tolerations = {
        "equal": {"key": key, "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
        "exists": {"key": key, "operator": "Exists"},
        "other-value": {"key": key, "operator": "Equal", "value": "no", "effect": "NoSchedule"},
        "other-effect": {"key": key, "operator": "Exists", "effect": "NoExecute"},
    }
    pods = {
        name: namespace.create(_held(name, images, hollow_node, toleration)) for name, toleration in tolerations.items()
    }

    for name in ("equal", "exists"):
        eventually(pods[name], placed_on(hollow_node), within=timeouts.object)
    for name in ("other-value", "other-effect"):
        eventually(pods[name], waits_for_node("untolerated taint"), within=timeouts.object)
    assert not before.read().deleting, f"{before} was told to end by a taint that is about scheduling only"


@own_node
def test_no_execute(namespace: Namespace, hollow_node: Object, images: Images, timeouts: Timeouts) -> None:
    """A NoExecute taint MUST end the pods of its node that do not tolerate it, after their tolerationSeconds.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#concepts
    """
    seconds = 6
    tolerated = {"key": "clusterproof.dev/tainted", "operator": "Exists", "effect": "NoExecute"}
    tolerations: dict[str, list[dict[str, Any]]] = {
        "leaves": [],
        "leaves-late": [tolerated | {"tolerationSeconds": seconds}],
        "stays": [tolerated],
    }
    pods = {name: namespace.create(_held(name, images, hollow_node, *each)) for name, each in tolerations.items()}
    for pod in pods.values():
        eventually(pod, placed_on(hollow_node), within=timeouts.object)

    with watching(namespace.pods()) as history:
        started = monotonic()
        _taint(hollow_node, "NoExecute")
        eventually(pods["leaves-late"], told_to_end, within=seconds + timeouts.object)
        stayed = monotonic() - started
        eventually(pods["leaves"], told_to_end, within=timeouts.object)

    def leaves_first(state: list[Object]) -> str | None:
        ending = {pod.name for pod in state if pod.deleting}
        return "leaves-late was told to end before leaves" if ending == {"leaves-late"} else None

    history.every(leaves_first)
    assert stayed >= seconds, (
        f"{pods['leaves-late']} tolerates the taint for {seconds} s, and had to end in {stayed:.1f}"
    )
    assert not pods["stays"].read().deleting, f"{pods['stays']} was told to end although it tolerates the taint"


@own_node
def test_cordon(namespace: Namespace, hollow_node: Object, images: Images, timeouts: Timeouts) -> None:
    """A cordoned node MUST keep the pods that it has and get no others, until it is uncordoned.

    Source: https://kubernetes.io/docs/concepts/architecture/nodes/#manual-node-administration
    """
    before = namespace.create(_held("before", images, hollow_node))
    eventually(before, placed_on(hollow_node), within=timeouts.object)

    hollow_node.patch({"metadata": {"labels": MARK}, "spec": {"unschedulable": True}})
    _is_known(namespace, hollow_node, images, timeouts, "node.kubernetes.io/unschedulable")
    after = namespace.create(_held("after", images, hollow_node))
    eventually(after, waits_for_node("unschedulable"), within=timeouts.object)
    assert not before.read().deleting, f"{before} was told to end when {hollow_node} was cordoned"

    hollow_node.patch({"spec": {"unschedulable": None}})
    eventually(after, placed_on(hollow_node), within=timeouts.object)


@own_node
def test_conditions(hollow_node: Object, timeouts: Timeouts) -> None:
    """A node MUST have the taint of each trouble that its conditions tell of, and of its cordon, as long as it lasts.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-nodes-by-condition
    """
    for lasts, taints in ((True, {*TROUBLES.values(), "unschedulable"}), (False, set[str]())):
        told = [{"type": trouble, "status": str(lasts), "reason": "Clusterproof"} for trouble in TROUBLES]
        hollow_node.patch({"status": {"conditions": told}}, type="strategic", subresource="status")
        hollow_node.patch({"spec": {"unschedulable": lasts}})

        eventually(hollow_node, _is_tainted_by(taints), within=timeouts.object)


@own_node
@pytest.mark.first
def test_silence(namespace: Namespace, hollow_node: Object, images: Images, timeouts: Timeouts) -> None:
    """A node of which nothing is heard MUST be known as lost, and pods that do not tolerate that be told to end.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions
    """
    stays = namespace.create(_held("stays", images, hollow_node))
    tolerations = [{"key": hollow.LABEL, "operator": "Exists"}, *manifests.LEAVE_AT_ONCE]
    spec = {**hollow.pods_on(hollow_node), "tolerations": tolerations}
    leaves = namespace.create(manifests.pod("leaves", images.agnhost, **manifests.HELD, spec=spec))
    for pod in (stays, leaves):
        eventually(pod, placed_on(hollow_node), within=timeouts.object)

    # From here on a cloud may find out that there is no such machine, and take the node away.
    eventually(hollow_node, has_condition("Ready", "Unknown"), within=timeouts.node_loss)
    eventually(leaves, told_to_end, within=timeouts.recovery)
    if hollow_node.exists():
        assert not stays.read().deleting, f"{stays} was told to end although it tolerates that {hollow_node} is lost"


def test_default_tolerations(namespace: Namespace, images: Images) -> None:
    """A pod MUST be given the time for which it tolerates that its node is lost, unless it says so itself.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions
    """
    said = {"tolerations": manifests.LEAVE_AT_ONCE}
    silent, outspoken = (
        namespace.create(manifests.pod(name, images.agnhost, spec={**manifests.PARKED, **spec}))
        for name, spec in (("silent", {}), ("outspoken", said))
    )

    given = {each["key"]: each.get("tolerationSeconds") for each in silent.spec.get("tolerations", [])}
    keys = {each["key"] for each in manifests.LEAVE_AT_ONCE}
    assert keys <= given.keys(), f"{silent} is lost with its node at once: it tolerates {given or 'nothing'}"
    assert all(0 < (given[key] or 0) <= HOUR for key in keys), f"{silent} stays on a lost node too long or not: {given}"
    assert outspoken.spec["tolerations"] == manifests.LEAVE_AT_ONCE, f"{outspoken}: its own tolerations were changed"


@pytest.fixture
def uncordoned(nodes: list[Object]) -> Iterator[Object]:
    """A node that may be cordoned."""
    yield nodes[0]
    nodes[0].patch({"spec": {"unschedulable": None}})


@pytest.mark.requires(capabilities.SEVERAL_NODES)
@pytest.mark.disruptive
def test_drain(
    namespace: Namespace, uncordoned: Object, nodes: list[Object], images: Images, timeouts: Timeouts
) -> None:
    """A node that is cordoned and whose pods are evicted MUST become free of them without breaking their budget.

    It is what `kubectl drain` does; only the pods of this test are evicted.

    Source: https://kubernetes.io/docs/tasks/administer-cluster/safely-drain-node/
    """
    spec = {"affinity": manifests.rather_on(uncordoned.name, nodes[-1].name)}
    slow = {"exec": {"command": ["true"]}, "initialDelaySeconds": 5}
    made = manifests.deployment("web", images.agnhost, replicas=2, args=["pause"], spec=spec, readiness=slow)
    web = namespace.create(made)
    namespace.create(manifests.pod_disruption_budget("web", least=1))
    eventually(web.pods(), _ready_on(uncordoned, 2), within=timeouts.rollout)

    uncordoned.patch({"spec": {"unschedulable": True}})
    with watching(web.pods()) as pods:
        first, second = web.pods().read()
        eventually(first.evict, _is_accepted, within=timeouts.rollout)
        answer = second.evict()
        told = f"{first} is not yet replaced, and the eviction of {second} is answered"
        assert answer.status == 429, f"{told} {answer.status}: {answer.text}"
        eventually(first, gone, within=timeouts.pod_end)
        eventually(second.evict, _is_accepted, within=timeouts.rollout)
        eventually(second, gone, within=timeouts.pod_end)
        eventually(web, rolled_out, within=timeouts.rollout)

    def one_stays(state: list[Object]) -> str | None:
        return None if any(pod.condition("Ready").get("status") == "True" for pod in state) else "no pod is ready"

    one_stays.__name__ = f"{web}: its budget of one pod is kept"
    pods.every(one_stays)
    left = [pod.name for pod in web.pods().read() if pod.spec.get("nodeName") == uncordoned.name]
    assert not left, f"{uncordoned} is drained, and {', '.join(left)} is there"


@pytest.mark.requires(capabilities.SEVERAL_NODES)
@pytest.mark.disruptive
def test_drain_under_load(
    namespace: Namespace, uncordoned: Object, nodes: list[Object], images: Images, timeouts: Timeouts
) -> None:
    """Clients of a Service MUST NOT lose a request while a node is drained of the pods behind it.

    The pods go on serving for a while after they were told to end, and a budget keeps one of them at all times.

    Source: https://kubernetes.io/docs/tasks/administer-cluster/safely-drain-node/
    """
    linger = round(timeouts.propagation)
    patient = {"args": ["netexec", f"--delay-shutdown={linger}"], "grace": 2 * linger}
    spec = {"affinity": manifests.rather_on(uncordoned.name, nodes[-1].name)}
    web = namespace.create(manifests.web("web", images.agnhost, replicas=2, spec=spec, **patient))
    url = url_of(namespace.create(manifests.service("web")))
    namespace.create(manifests.pod_disruption_budget("web", least=1))
    options: dict[str, Any] = {"image": images.agnhost, "rate": 40, "within": timeouts.request / 3}

    # Twice, if need be: one connection may get the port of an earlier one to a pod that has ended, and be lost for it.
    for turn in range(2):
        before = eventually(web.pods(), _ready_on(uncordoned, 2), within=timeouts.rollout)
        with inside(namespace, url, node=nodes[-1].name, **options) as client:
            uncordoned.patch({"spec": {"unschedulable": True}})
            for pod in before:
                if pod.spec["nodeName"] == uncordoned.name:
                    eventually(pod.evict, _is_accepted, within=timeouts.rollout)
                    eventually(pod, gone, within=timeouts.pod_end)
            eventually(web.pods(), all_ready(2), within=timeouts.rollout)
        seen = client.result()
        if seen.failures != 1 or turn:
            break
        uncordoned.patch({"spec": {"unschedulable": None}})
        for pod in web.pods().read():
            pod.delete()  # their successors prefer the node again

    measure("longest gap (s)", seen.longest_gap)
    trouble = unbroken(seen)
    assert trouble is None, f"{web} should serve while {uncordoned} is drained: {trouble}"


def _held(name: str, images: Images, node: Object, *tolerations: dict[str, Any]) -> dict[str, Any]:
    """A held pod that can go to this node only."""
    return manifests.pod(name, images.agnhost, **manifests.HELD, spec=hollow.pods_on(node, *tolerations))


def _taint(node: Object, effect: str) -> None:
    taint = {"key": "clusterproof.dev/tainted", "value": "yes", "effect": effect}
    marks = [{"op": "add", "path": f"/metadata/labels/{key.replace('/', '~1')}", "value": MARK[key]} for key in MARK]
    node.patch([*marks, {"op": "add", "path": "/spec/taints/-", "value": taint}], type="json")


def _is_known(namespace: Namespace, node: Object, images: Images, timeouts: Timeouts, key: str) -> None:
    """Wait until the scheduler knows of a change of a node, by the label that came with it.

    It hears of nodes and of pods apart from each other: a pod that is created after the change may be there before it.
    """
    scout = _held("scout", images, node, {"key": key, "operator": "Exists"})
    scout["spec"]["nodeSelector"] = {**(scout["spec"].get("nodeSelector") or {}), **MARK}
    eventually(namespace.create(scout), placed_on(node), within=timeouts.object)


def _is_tainted_by(troubles: set[str]) -> Condition:
    """Of the taints that troubles and a cordon bring it has exactly these."""
    prefix, known = "node.kubernetes.io/", {*TROUBLES.values(), "unschedulable"}

    def is_tainted(node: Object) -> str | None:
        keys = {taint["key"].removeprefix(prefix) for taint in node.spec.get("taints") or []}
        return None if keys & known == troubles else f"its taints are {', '.join(sorted(keys))}"

    is_tainted.__name__ = f"is tainted by {', '.join(sorted(troubles)) or 'no trouble'}"
    return is_tainted


def _ready_on(node: Object, number: int) -> ListCondition:
    ready = all_ready(number)

    def ready_on(pods: list[Object]) -> str | None:
        places = [pod.spec.get("nodeName", "no node") for pod in pods]
        return ready(pods) or (None if node.name in places else f"they are on {', '.join(places)}")

    ready_on.__name__ = f"{ready.__name__}, some of them on {node.name}"
    return ready_on


def _is_accepted(answer: Response) -> str | None:
    return None if answer.status == 201 else f"it is answered {answer.status}: {answer.text}"
