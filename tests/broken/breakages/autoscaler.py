"""Nodes whose number does not follow what the pods need, or is changed at the pods' expense."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from clusterproof.embedded.addons.autoscaler import NAME, NODE_POOL, PROGRAM

from clusterproof import kinds
from clusterproof.objects import Object, Selection
from clusterproof.wait import eventually

from ..registry import Damage, breakage
from ..subject import Subject

QUICK = 0.1
"""Times the budgets, which are those of clouds."""
NO_NEW_NODE = r"run on 1 new node: .*0 were given a new node, not 1; 1 wait for a node: 0/\d+ nodes are available"


@contextlib.contextmanager
def _node_pool(subject: Subject, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Nodes are asked for under other rules; when that is over, those that are left go."""
    with subject.changed(NODE_POOL, NAME, "", lambda pool: change(pool["spec"])):
        yield
    _nodes_go(subject)


def _nodes_go(subject: Subject) -> None:
    def none_but_its_own(nodes: list[Object]) -> str | None:
        more = {node.name for node in nodes} - set(subject.nodes)
        return f"there are also {', '.join(sorted(more))}" if more else None

    eventually(Selection(subject.client, kinds.NODE), none_but_its_own, within=240)


@breakage(breaks={"scale/nodes/up": NO_NEW_NODE}, keeps=["api/labels/selectors"], scale=QUICK)
def autoscaler_stopped(subject: Subject) -> Damage:
    """The autoscaler of nodes does not run."""
    with subject.stopped(PROGRAM):
        yield []


@breakage(breaks={"scale/nodes/up": NO_NEW_NODE}, keeps=["api/labels/selectors"], scale=QUICK)
def autoscaler_may_add_no_nodes(subject: Subject) -> Damage:
    """The autoscaler may not add a single node."""
    with _node_pool(subject, lambda spec: spec["limits"].update(nodes="0")):
        yield []


@breakage(
    breaks={"scale/nodes/down": r"Node \S+ gone: .*it is still there"}, keeps=["api/labels/selectors"], scale=QUICK
)
def autoscaler_never_removes_nodes(subject: Subject) -> Damage:
    """The autoscaler leaves idle nodes where they are."""
    with _node_pool(subject, lambda spec: spec["disruption"].update(consolidateAfter="Never")):
        yield []


@breakage(
    breaks={"scale/nodes/fewest": r"no more than \d+: .*there are still \d+: "},
    keeps=["api/labels/selectors"],
    scale=QUICK,
)
def autoscaler_never_moves_pods(subject: Subject) -> Damage:
    """The autoscaler removes nodes only on which nothing runs."""
    with _node_pool(subject, lambda spec: spec["disruption"].update(consolidationPolicy="WhenEmpty")):
        yield []


@breakage(
    breaks={"scale/nodes/keeps[annotation]": r"stays on Node \S+, by its annotation: .*(ended|only one|gone|not kept)"},
    keeps=["api/labels/selectors"],
    scale=1,
)
def autoscaler_ignores_annotations(subject: Subject) -> Damage:
    """No pod is heard that asks not to be disrupted."""
    merge = 'Object{metadata: Object.metadata{annotations: {"karpenter.sh/do-not-disrupt": "false"}}}'
    with subject.mutating("v1/pods", merge):
        yield []
    _nodes_go(subject)


@breakage(
    breaks={"scale/nodes/keeps[budget]": r"stays on Node \S+, by its budget: .*(ended|only one|gone|not kept)"},
    keeps=["api/labels/selectors"],
    scale=1,
)
def autoscaler_ignores_budgets(subject: Subject) -> Damage:
    """Every PodDisruptionBudget allows all that an autoscaler wants to do."""
    nothing = '[JSONPatch{op: "replace", path: "/spec/minAvailable", value: 0}]'
    with subject.mutating("policy/v1/poddisruptionbudgets", nothing, patch="JSONPatch"):
        yield []
    _nodes_go(subject)
