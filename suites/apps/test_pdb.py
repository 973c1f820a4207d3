"""PodDisruptionBudget: how many pods may be taken away at a time."""

from __future__ import annotations

from clusterproof import Images, Namespace, Object, Timeouts, eventually, manifests
from clusterproof.conditions import Condition, all_ready, gone, observed, ready, running, settled, without

GATE = "clusterproof.dev/healthy"
"""Condition without which pods are not ready, until a test says so or for good."""


def test_eviction(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """An eviction that leaves fewer healthy pods than a PodDisruptionBudget allows MUST be refused with status 429.

    As soon as the budget has room, the same eviction is carried out; and the next one is refused again.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/#how-api-initiated-eviction-works
    """
    budget = namespace.create(manifests.pod_disruption_budget("web", least=1))
    first = namespace.create(manifests.pod("first", images.agnhost, labels={"app": "web"}, args=["pause"]))
    eventually(first, ready, within=timeouts.pod)
    eventually(budget, _allows(0, healthy=1), within=timeouts.object)
    _refuses(budget, first)

    second = namespace.create(manifests.pod("second", images.agnhost, labels={"app": "web"}, args=["pause"]))
    eventually(second, ready, within=timeouts.pod)
    eventually(budget, _allows(1, healthy=2), within=timeouts.object)
    _lets_in(budget, first)
    _refuses(budget, second)
    eventually(first, gone, within=timeouts.pod_end)
    eventually(budget, _allows(0, healthy=1), within=timeouts.object)
    assert not second.read().deleting, f"{second} ends although its eviction was refused"


def test_max_unavailable(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A PodDisruptionBudget by maxUnavailable MUST let in one eviction, and the next when the pod has been replaced.

    What counts is that the replacement is healthy, which it is when the test says so.

    Source: https://kubernetes.io/docs/tasks/run-application/configure-pdb/#specifying-a-poddisruptionbudget
    """
    budget = namespace.create(manifests.pod_disruption_budget("web", unavailable=1))
    gates = {"readinessGates": [{"conditionType": GATE}]}
    web = namespace.create(manifests.deployment("web", images.agnhost, replicas=2, args=["pause"], spec=gates))
    for pod in eventually(web.pods(), settled(2), within=timeouts.object):
        _make_healthy(pod)
    first, second = eventually(web.pods(), all_ready(2), within=timeouts.rollout)
    eventually(budget, _allows(1, healthy=2), within=timeouts.object)

    _lets_in(budget, first)
    pods = eventually(web.pods(), without(first, settled(2)), within=timeouts.pod_end)
    _refuses(budget, second)

    for pod in pods:
        _make_healthy(pod)
    eventually(budget, _allows(1, healthy=2), within=timeouts.rollout)
    _lets_in(budget, second)


def test_unhealthy_pods(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod that runs and is not ready MUST be evicted past a budget without room only where that has AlwaysAllow.

    With IfHealthyBudget it stays, as there are fewer healthy pods than there have to be.

    Source: https://kubernetes.io/docs/tasks/run-application/configure-pdb/#unhealthy-pod-eviction-policy
    """
    manifest = manifests.pod_disruption_budget("web", least=1)
    manifest["spec"]["unhealthyPodEvictionPolicy"] = "IfHealthyBudget"
    budget = namespace.create(manifest)
    gates = {"readinessGates": [{"conditionType": GATE}]}
    web = namespace.create(manifests.pod("web", images.agnhost, args=["pause"], spec=gates))
    eventually(web, running, within=timeouts.pod)
    eventually(budget, _allows(0, healthy=0), within=timeouts.object)
    _refuses(budget, web)

    budget.patch({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}})
    eventually(budget, _allows(0, healthy=0), within=timeouts.object)
    _lets_in(budget, web, because="protects no pod that is not ready")


def _make_healthy(pod: Object) -> None:
    healthy = [{"type": GATE, "status": "True"}]
    pod.patch({"status": {"conditions": healthy}}, type="strategic", subresource="status")


def _lets_in(budget: Object, pod: Object, *, because: str = "has room") -> None:
    answer = pod.evict()
    assert answer.status == 201, f"{budget} {because}, and the eviction of {pod} got {answer.status}: {answer.text}"


def _refuses(budget: Object, pod: Object) -> None:
    answer = pod.evict()
    assert answer.status == 429, f"{budget} has no room, and the eviction of {pod} got {answer.status}: {answer.text}"
    causes = [cause.get("message", "") for cause in answer.json()["details"].get("causes", [])]
    assert any(budget.name in cause for cause in causes), f"the refusal does not name {budget}: {answer.text}"


def _allows(disruptions: int, *, healthy: int) -> Condition:
    """The controller has seen the budget, counts so many healthy pods, and allows so many to be taken away."""

    def allows(budget: Object) -> str | None:
        if unseen := observed(budget):
            return unseen
        seen = {key: budget.status.get(key) for key in ("disruptionsAllowed", "currentHealthy")}
        return (
            None if seen == {"disruptionsAllowed": disruptions, "currentHealthy": healthy} else f"its status is {seen}"
        )

    allows.__name__ = f"allows {disruptions} disruptions of {healthy} healthy pods"
    return allows
