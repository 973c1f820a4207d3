"""Scheduling: a pod gets a node that it may have, or waits and says why.

Most of these pods are held (`manifests.HELD`): they get a node, which is all that is looked at, and never start.
"""

from __future__ import annotations

from typing import Any

import pytest

from clusterproof import (
    Cluster,
    Hopeless,
    Images,
    Namespace,
    Object,
    Timeouts,
    capabilities,
    case,
    eventually,
    hollow,
    kinds,
    manifests,
)
from clusterproof.conditions import ListCondition, placed_on, scheduled, tell_of, told_to_end, waits_for_node
from clusterproof.load import quantity

HOST = "kubernetes.io/hostname"
GATE = {"name": "clusterproof.dev/first"}

several_nodes = pytest.mark.requires(capabilities.SEVERAL_NODES)
own_node = pytest.mark.requires(capabilities.OWN_NODE)


def test_too_large(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A pod that asks for more than any node has MUST wait, and say what is lacking.

    Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#my-pods-are-pending-with-event-message-failedscheduling
    """
    most = max(quantity(node.status["allocatable"]["cpu"]) for node in nodes)
    pod = namespace.create(_held("large", images, cpu=str(int(most) + 1000)))

    eventually(pod, waits_for_node("Insufficient cpu"), within=timeouts.object)
    notes = namespace.select(kinds.EVENT, fields=f"involvedObject.uid={pod.uid},reason=FailedScheduling")
    eventually(notes, tell_of("Insufficient cpu"), within=timeouts.object)


@own_node
def test_fit(namespace: Namespace, hollow_node: Object, images: Images, timeouts: Timeouts) -> None:
    """A node MUST be given to pods only up to what it has, and what one of them leaves to the next.

    Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#how-pods-with-resource-requests-are-scheduled
    """
    spec = hollow.pods_on(hollow_node)
    first = namespace.create(_held("first", images, cpu="2500m", spec=spec))
    eventually(first, scheduled, within=timeouts.object)
    small = namespace.create(_held("small", images, cpu="1500m", spec=spec))
    eventually(small, scheduled, within=timeouts.object)

    next_ = namespace.create(_held("next", images, cpu="1", spec=spec))
    eventually(next_, waits_for_node("Insufficient cpu"), within=timeouts.object)
    hollow.end(first)
    eventually(next_, placed_on(hollow_node), within=timeouts.object)


@several_nodes
def test_spread(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """Pods of one Deployment MUST NOT all go to one node where there are others like it.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/#internal-default-constraints
    """
    web = namespace.create(manifests.deployment("web", images.agnhost, replicas=6, **manifests.HELD))

    pods = eventually(web.pods(), _all_scheduled(6), within=timeouts.rollout)

    used = {pod.spec["nodeName"] for pod in pods}
    assert len(used) > 1, f"{web}: all of its {len(pods)} pods are on {', '.join(used)}"


def test_node_selector(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A pod with a node selector MUST get a node with these labels, and wait while there is none.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodeselector
    """
    places = {"first": nodes[0], "last": nodes[-1]}
    selectors = {name: {HOST: node.labels[HOST]} for name, node in places.items()}
    pods = {
        name: namespace.create(_held(name, images, spec={"nodeSelector": selector}))
        for name, selector in {**selectors, "nowhere": {f"clusterproof.dev/{namespace}": "yes"}}.items()
    }

    for name, node in places.items():
        eventually(pods[name], placed_on(node), within=timeouts.object)
    eventually(pods["nowhere"], waits_for_node("node affinity/selector"), within=timeouts.object)


@several_nodes
def test_node_affinity(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A pod with required node affinity MUST get a node that one of its terms describes, and no other.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#node-affinity
    """
    one, *others = (node.labels[HOST] for node in nodes)
    terms = {
        "in": [_rule(HOST, "In", one)],
        "not-in": [_rule(HOST, "NotIn", *others)],
        "both": [_rule(HOST, "Exists"), _rule("kubernetes.io/os", "In", "linux"), _rule(HOST, "In", one)],
        "never": [_rule(HOST, "In", one), _rule(HOST, "NotIn", one)],
    }
    pods = {name: namespace.create(_held(name, images, affinity=_required(rules))) for name, rules in terms.items()}
    either = _required([_rule(HOST, "In", "nowhere")], [_rule(HOST, "In", one)])
    pods["either"] = namespace.create(_held("either", images, affinity=either))

    for name in ("in", "not-in", "both", "either"):
        eventually(pods[name], placed_on(nodes[0]), within=timeouts.object)
    eventually(pods["never"], waits_for_node("node affinity/selector"), within=timeouts.object)


@several_nodes
def test_node_preference(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A pod that prefers a node MUST get it when it is free, and another one when it is not.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#node-affinity-weight
    """
    ends = _ends(nodes)
    # Three for one node, then three for the other: who looks only at how full nodes are gives them out by turns.
    places = {f"{number}-{turn}": node for number, node in enumerate(ends) for turn in range(3)}
    pods = {
        name: namespace.create(_held(f"for-{name}", images, affinity=_preferred(node, *ends)))
        for name, node in places.items()
    }
    nowhere = {"preference": {"matchExpressions": [_rule(HOST, "In", "nowhere")]}, "weight": 100}
    lenient = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [nowhere]}}
    other = namespace.create(_held("other", images, affinity=lenient))

    for name, node in places.items():
        eventually(pods[name], placed_on(node), within=timeouts.object)
    eventually(other, scheduled, within=timeouts.object)


@several_nodes
def test_pod_affinity(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A pod with required pod affinity MUST get the node of such a pod, though it prefers others, or wait for one.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity
    """
    friends = {"host": nodes[0], "hostess": nodes[-1]}
    guests = {}
    for name, node in friends.items():
        namespace.create(_held(name, images, affinity=_required([_rule(HOST, "In", node.labels[HOST])])))
        elsewhere = nodes[-1] if node.name == nodes[0].name else nodes[0]
        wish = _preferred(elsewhere) | {"podAffinity": _near(name)}
        guests[name] = namespace.create(_held(f"guest-of-{name}", images, affinity=wish))
    lonely = namespace.create(_held("lonely", images, affinity={"podAffinity": _near("nobody")}))

    for name, node in friends.items():
        eventually(guests[name], placed_on(node), within=timeouts.object)
    eventually(lonely, waits_for_node("pod affinity rules"), within=timeouts.object)


@several_nodes
def test_pod_anti_affinity(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A pod with required pod anti-affinity MUST NOT get a node that has such a pod, and waits when all have one.

    All of them prefer the same node.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity
    """
    apart = _preferred(nodes[0], nodes[0], nodes[-1])
    apart |= {"podAntiAffinity": _near("loner")}
    for number in range(3):
        namespace.create(_held(f"loner-{number}", images, app="loner", affinity=apart))

    pods = eventually(namespace.pods("app=loner"), _but_one_scheduled, within=timeouts.object)
    places = [pod.spec["nodeName"] for pod in pods if "nodeName" in pod.spec]
    assert len(set(places)) == len(places), f"pods that keep apart are on {', '.join(places)}"
    (last,) = (pod for pod in pods if "nodeName" not in pod.spec)
    eventually(last, waits_for_node("anti-affinity rules"), within=timeouts.object)


def test_affinity_keys(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """Affinity to pods with the same value of a label, or with another one, MUST be to no others than these.

    One node has a host of the tenant `red`. Some pods want hosts of their own tenant, others none of another one.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#matchlabelkeys
    """
    hosts = {"topologyKey": HOST, "labelSelector": {"matchLabels": {"app": "host"}}}
    together = {"podAffinity": _always({**hosts, "matchLabelKeys": ["tenant"]})}
    apart = {"podAntiAffinity": _always({**hosts, "mismatchLabelKeys": ["tenant"]})}

    def create(name: str, tenant: str, affinity: dict[str, Any]) -> Object:
        made = _held(name, images, app=name, affinity=_on(nodes[0]) | affinity)
        made["metadata"]["labels"]["tenant"] = tenant
        return namespace.create(made)

    eventually(create("host", "red", {}), placed_on(nodes[0]), within=timeouts.object)
    for kind, affinity, told in (("together", together, "pod affinity rules"), ("apart", apart, "anti-affinity rules")):
        eventually(create(f"{kind}-blue", "blue", affinity), waits_for_node(told), within=timeouts.object)
        eventually(create(f"{kind}-red", "red", affinity), placed_on(nodes[0]), within=timeouts.object)


@several_nodes
@pytest.mark.parametrize(
    ("kind", "to_first", "to_last"),
    [case("near", "podAffinity", "host", "hostess"), case("apart", "podAntiAffinity", "hostess", "host")],
)
def test_pod_preference(
    namespace: Namespace,
    nodes: list[Object],
    images: Images,
    timeouts: Timeouts,
    kind: str,
    to_first: str,
    to_last: str,
) -> None:
    """A pod that prefers to be near another, or apart from it, MUST get a node where it is, and any if there is none.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity
    """
    first, last = _ends(nodes)
    for name, node in (("host", first), ("hostess", last)):
        host = namespace.create(_held(name, images, affinity=_on(node)))
        eventually(host, placed_on(node), within=timeouts.object)
    pods: dict[Object, Object] = {}  # three for one node, then three for the other: see test_node_preference
    for name, node in ((to_first, first), (to_last, last)):
        affinity = _on(first, last) | {kind: _near(name, weight=100)}
        made = [namespace.create(_held(f"for-{name}-{turn}", images, affinity=affinity)) for turn in range(3)]
        pods |= dict.fromkeys(made, node)
    unlucky = _on(first) | {kind: _near(to_last, weight=100)}
    other = namespace.create(_held("other", images, affinity=unlucky))

    for pod, node in {**pods, other: first}.items():
        eventually(pod, placed_on(node), within=timeouts.object)


@several_nodes
def test_topology_spread(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """Pods with a topology spread constraint MUST NOT differ in number between domains by more than maxSkew.

    All of them prefer the same node, and yet it gets half of them. On the way there the numbers may differ by more,
    because nodes are given out in order but written down side by side.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/
    """
    names = [nodes[0].name, nodes[-1].name]
    affinity = _preferred(nodes[0], nodes[0], nodes[-1])
    spec = {"topologySpreadConstraints": [_even("even")], "affinity": affinity}

    even = namespace.create(manifests.deployment("even", images.agnhost, replicas=4, spec=spec, **manifests.HELD))
    pods = eventually(even.pods(), _all_scheduled(4), within=timeouts.object)

    numbers = [sum(pod.spec["nodeName"] == name for pod in pods) for name in names]
    assert max(numbers) - min(numbers) <= 1, f"{even}: with a maxSkew of 1 {names} have {numbers} of its pods"


@several_nodes
def test_topology_domains(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """While there are fewer domains than minDomains, each MUST get maxSkew pods of a spread at most, and others wait.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/#spread-constraint-definition
    """
    spread = {"topologySpreadConstraints": [_even("scarce") | {"minDomains": 3}]}
    places = _on(nodes[0], nodes[-1])
    for turn in range(3):
        namespace.create(_held(f"scarce-{turn}", images, app="scarce", affinity=places, spec=spread))

    found = eventually(namespace.pods("app=scarce"), _but_one_scheduled, within=timeouts.object)
    (last,) = (pod for pod in found if "nodeName" not in pod.spec)
    eventually(last, waits_for_node("topology spread constraints"), within=timeouts.object)


@several_nodes
def test_topology_scope(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A topology spread MUST count pods with the same matchLabelKeys only, on nodes as its nodeAffinityPolicy tells.

    Two new pods go to two nodes, although one has two old ones already. Of pods for one node only, a second waits where
    the other nodes count as well.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/#spread-constraint-definition
    """
    first, places = _on(nodes[0]), _on(nodes[0], nodes[-1])
    for turn in range(2):
        namespace.create(_held(f"old-{turn}", images, app="web", affinity=first))
        for app, policy in (("honour", "Honor"), ("ignore", "Ignore")):
            spread = {"topologySpreadConstraints": [_even(app) | {"nodeAffinityPolicy": policy}]}
            namespace.create(_held(f"{app}-{turn}", images, app=app, affinity=first, spec=spread))
    eventually(namespace.pods("app=web"), _all_scheduled(2), within=timeouts.object)

    spread = {"topologySpreadConstraints": [_even("web") | {"matchLabelKeys": ["new"]}]}
    for turn in range(2):
        pod = _held(f"new-{turn}", images, app="web", affinity=places, spec=spread)
        pod["metadata"]["labels"]["new"] = "yes"
        namespace.create(pod)
    new = eventually(namespace.pods("new=yes"), _all_scheduled(2), within=timeouts.object)

    used = [pod.spec["nodeName"] for pod in new]
    assert len(set(used)) == 2, f"{new[0]} and {new[1]} are both on {used[0]}: older pods were counted with them"
    eventually(namespace.pods("app=honour"), _all_scheduled(2), within=timeouts.object)
    eventually(namespace.pods("app=ignore"), _but_one_scheduled, within=timeouts.object)


def test_scheduler_name(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A pod that names a scheduler of its own MUST be left to it, and get the node that this one binds it to.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/configure-multiple-schedulers/
    """
    own = namespace.create(_held("own", images, spec={"schedulerName": "clusterproof.dev/own"}))
    # One that comes later, and gets its node: by then the scheduler of the others has seen the first.
    eventually(namespace.create(_held("other", images)), scheduled, within=timeouts.object)
    place = own.read().spec.get("nodeName")
    assert not place, f"{own} is for a scheduler of its own, and was given {place} by another"

    target = {"apiVersion": "v1", "kind": "Node", "name": nodes[0].name}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": own.name}, "target": target}
    namespace.client.post(kinds.POD.path(namespace.name, own.name, "binding"), binding)

    eventually(own, placed_on(nodes[0]), within=timeouts.object)


def test_gates(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod with scheduling gates MUST NOT get a node before the last of them was removed.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/pod-scheduling-readiness/
    """
    second = {"name": "clusterproof.dev/second"}
    gated = namespace.create(_held("gated", images, spec={"schedulingGates": [GATE, second]}))
    # One that comes later, and gets its node: by then the scheduler has seen the other one.
    free = namespace.create(_held("free", images))
    eventually(gated, _is_gated, within=timeouts.object)
    eventually(free, scheduled, within=timeouts.object)

    gated.patch({"spec": {"schedulingGates": [second]}})
    later = namespace.create(_held("later", images))
    eventually(later, scheduled, within=timeouts.object)
    eventually(gated, _is_gated, within=timeouts.object)

    gated.patch({"spec": {"schedulingGates": []}})
    eventually(gated, scheduled, within=timeouts.object)


@own_node
@pytest.mark.parametrize(
    ("policy", "preempts"), [case("PreemptLowerPriority", "PreemptLowerPriority", True), case("Never", "Never", False)]
)
def test_priority(
    cluster: Cluster,
    namespace: Namespace,
    hollow_node: Object,
    images: Images,
    timeouts: Timeouts,
    policy: str,
    preempts: bool,
) -> None:
    """A pod that fits nowhere MUST take the place of one of lower priority, unless its class never preempts.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
    """
    urgent = cluster.create(manifests.priority_class(namespace.name, 1000, preemptionPolicy=policy))
    spec = hollow.pods_on(hollow_node)
    low = namespace.create(_held("low", images, cpu="3", spec=spec))
    eventually(low, placed_on(hollow_node), within=timeouts.object)
    equal = namespace.create(_held("equal", images, cpu="3", spec=spec))
    eventually(equal, waits_for_node("Insufficient cpu"), within=timeouts.object)
    assert not low.read().deleting, f"{low} was told to end for {equal}, which has the same priority"

    high = namespace.create(_held("high", images, cpu="3", spec=spec | {"priorityClassName": urgent.name}))
    eventually(high, waits_for_node("Insufficient cpu"), within=timeouts.object)
    if preempts:
        eventually(low, told_to_end, within=timeouts.object)
        assert low.condition("DisruptionTarget").get("reason") == "PreemptionByScheduler", f"{low}: {low.status}"
    else:
        assert not low.read().deleting, f"{low} was told to end for {high}, whose class never preempts"
    hollow.end(equal)
    hollow.end(low)
    eventually(high, placed_on(hollow_node), within=timeouts.object)


def _held(name: str, images: Images, *, app: str = "", cpu: str = "", **options: Any) -> dict[str, Any]:
    """A held pod, labelled `app`; `affinity` may be given beside `spec`."""
    resources = {"requests": {"cpu": cpu}} if cpu else None
    if affinity := options.pop("affinity", None):
        options["spec"] = {**options.get("spec", {}), "affinity": affinity}
    labels = {"app": app} if app else None
    return manifests.pod(name, images.agnhost, labels=labels, resources=resources, **manifests.HELD, **options)


def _rule(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


def _required(*terms: list[dict[str, Any]]) -> dict[str, Any]:
    """Affinity to nodes that all rules of one of these terms describe."""
    selector = {"nodeSelectorTerms": [{"matchExpressions": rules} for rules in terms]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": selector}}


def _on(*nodes: Object) -> dict[str, Any]:
    """Affinity to these nodes only."""
    return _required([_rule(HOST, "In", *sorted({node.labels[HOST] for node in nodes}))])


def _ends(nodes: list[Object]) -> tuple[Object, Object]:
    """The first and the last node of those to which pods go as they prefer.

    A taint by which a node would rather have no pods counts for more.
    """
    free = [node for node in nodes if not node.spec.get("taints")] or nodes
    return free[0], free[-1]


def _preferred(node: Object, *among: Object) -> dict[str, Any]:
    """Affinity to a node that outweighs how full nodes are; if among some, to these only.

    Of very many nodes a scheduler looks at a part, and takes the best of that.
    """
    wish = {"weight": 100, "preference": {"matchExpressions": [_rule(HOST, "In", node.labels[HOST])]}}
    affinity = _on(*among) if among else {"nodeAffinity": {}}
    affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = [wish]
    return affinity


def _even(app: str) -> dict[str, Any]:
    """The constraint that the nodes' numbers of such pods differ by one at most."""
    return {
        "maxSkew": 1,
        "topologyKey": HOST,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": app}},
    }


def _always(term: dict[str, Any]) -> dict[str, Any]:
    """A term of pod affinity or anti-affinity without which a pod gets no node."""
    return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}


def _near(app: str, *, weight: int = 0) -> dict[str, Any]:
    """A term of pod affinity or anti-affinity: on the node of such a pod; with a weight it is preferred only."""
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": HOST}
    if weight:
        return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "podAffinityTerm": term}]}
    return _always(term)


def _is_gated(pod: Object) -> str | None:
    if place := pod.spec.get("nodeName"):
        raise Hopeless(f"it got {place} although it is gated")
    told = pod.condition("PodScheduled").get("reason")
    return None if told == "SchedulingGated" else f"the reason of its condition PodScheduled is {told}"


def _all_scheduled(number: int) -> ListCondition:
    """So many pods exist and all have a node."""

    def all_scheduled(pods: list[Object]) -> str | None:
        waiting = [f"{pod.name}: {told}" for pod in pods if (told := scheduled(pod))]
        if len(pods) != number:
            return f"there are {len(pods)}, not {number}"
        return f"{len(waiting)} have none: {'; '.join(waiting[:2])}" if waiting else None

    all_scheduled.__name__ = f"are {number}, all with a node"
    return all_scheduled


def _but_one_scheduled(pods: list[Object]) -> str | None:
    """Every pod was looked at, and all but one have a node."""
    places = {pod.name: pod.spec.get("nodeName") for pod in pods}
    if None not in places.values() and len(places) > 1:
        raise Hopeless(f"they all have a node: {places}")
    return None if list(places.values()).count(None) == 1 else f"they are on {places}"
