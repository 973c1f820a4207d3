"""VerticalPodAutoscaler: what pods request follows what they use, as far as its mode and its bounds let it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from clusterproof import (
    Images,
    Namespace,
    NeverHappened,
    Object,
    Timeouts,
    capabilities,
    case,
    consistently,
    eventually,
    load,
    watching,
)
from clusterproof.conditions import all_ready
from clusterproof.manifests import container, deployment, vpa

pytestmark = [pytest.mark.requires(capabilities.METRICS, capabilities.VPA), pytest.mark.first]

ASKED, ALLOWED = "20m", "60m"
"""The CPU that pods request on their own, and the only one that may be recommended for them."""
USED = 120
"""Millicores that a pod burns."""
ENOUGH = {"requests": {"cpu": f"{2 * USED}m"}}
"""What it requests, so that it gets what it is to burn on a busy node, too."""
BOUND = 60
"""Millicores that are allowed at most, or at least."""
MOST = 1.5
"""Times its use that may be recommended: 15 % are the usual margin, and use is counted in steps of up to 15 %."""


def test_recommendation(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A VerticalPodAutoscaler MUST recommend what a pod uses and a margin, when its use has risen as well.

    Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/vertical-pod-autoscale/
    """
    worker = namespace.create(deployment("worker", images.agnhost, command=load.command(), resources=ENOUGH))
    scaler = namespace.create(vpa("worker", target="worker", mode="Off"))
    (pod,) = eventually(worker.pods(), all_ready(1), within=timeouts.pod)
    eventually(scaler, _recommends(0, USED / 2), within=timeouts.recommendation)

    load.burn(pod, USED)

    with load.needed(pod, USED):
        early = eventually(scaler, _fits(pod), within=timeouts.recommendation)
        with suppress(NeverHappened):  # if it was made of a measurement of both times, it fits by chance
            eventually(scaler, _differs_from(early), within=timeouts.metrics)
        eventually(scaler, _fits(pod), within=timeouts.recommendation)


def test_bounds(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A VerticalPodAutoscaler MUST recommend no less and no more than its policy allows, whatever a pod uses.

    One container uses more than the bound, which is its upper one; the other one less, and it is its lower one.

    Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/vertical-pod-autoscale/#resource-policies
    """
    policies = [
        {"containerName": "main", "controlledResources": ["cpu"], "maxAllowed": {"cpu": f"{BOUND}m"}},
        {"containerName": "idle", "controlledResources": ["cpu"], "minAllowed": {"cpu": f"{BOUND}m"}},
    ]
    idle = container("idle", images.agnhost, args=["pause"])
    options: dict[str, Any] = {"command": load.command(USED), "resources": ENOUGH, "beside": [idle]}
    worker = namespace.create(deployment("worker", images.agnhost, **options))
    scaler = namespace.create(vpa("worker", target="worker", mode="Off", policies=policies))
    (pod,) = eventually(worker.pods(), all_ready(1), within=timeouts.pod)

    with load.needed(pod, BOUND, "main"):
        eventually(scaler, _keeps_to_the_bound, within=timeouts.recommendation)


@pytest.mark.parametrize(("mode", "new"), [case("off", "Off", ASKED), case("initial", "Initial", ALLOWED)])
def test_new_pods(mode: str, new: str, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A VerticalPodAutoscaler of mode Initial MUST give its recommendation to new pods only, one of mode Off to none.

    That it leaves running pods alone shows while those of another one, of mode Recreate, are changed.

    Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/vertical-pod-autoscale/#update-modes
    """
    web, other = (_idle(namespace, images, name) for name in ("web", "other"))
    (running,), (changing,) = (eventually(each.pods(), all_ready(1), within=timeouts.pod) for each in (web, other))

    scaler, _ = (_scaler(namespace, "web", mode), _scaler(namespace, "other", "Recreate"))
    eventually(scaler, _recommends(60, 60), within=timeouts.recommendation)
    with suppress(NeverHappened):  # where no pod is ever changed, none is changed against its mode
        eventually(other.pods(), _without(changing), within=timeouts.vertical)
    consistently(web.pods(), _only(running), during=timeouts.steady)

    successor = running
    for _ in range(2):  # a pod is let through as it is while whoever is to change it does not answer in time
        successor.delete(grace=0)
        (successor,) = eventually(web.pods(), all_ready(1), within=timeouts.recovery)
        if _requested(successor) == new:
            break
    assert _requested(successor) == new, (
        f"{successor}, new under mode {mode}, requests {_requested(successor)}, not {new}"
    )


@pytest.mark.parametrize(
    "mode",
    [
        case("recreate", "Recreate"),
        case("in-place", "InPlaceOrRecreate", marks=pytest.mark.requires(capabilities.VPA_IN_PLACE)),
    ],
)
def test_running_pods(mode: str, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A VerticalPodAutoscaler MUST give its recommendation to running pods: by a successor, or in place.

    In mode InPlaceOrRecreate a pod has a successor only if its node has said that it cannot change the pod.

    Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/vertical-pod-autoscale/#update-modes
    """
    web = _idle(namespace, images, "web")
    (old,) = eventually(web.pods(), all_ready(1), within=timeouts.pod)

    with watching(web.pods()) as history:
        scaler = _scaler(namespace, "web", mode)
        eventually(scaler, _recommends(60, 60), within=timeouts.recommendation)
        (new,) = eventually(web.pods(), _have(ALLOWED), within=timeouts.vertical)

    refused = any(pod.condition("PodResizePending") for pods in history.states for pod in pods)
    in_place = mode == "InPlaceOrRecreate" and not refused
    assert (new.uid == old.uid) == in_place, f"{old} should be changed in place: {in_place}, but {new} has {ALLOWED}"
    assert new.status["containerStatuses"][0]["restartCount"] == 0, f"{new} was restarted: {new.status}"


def _idle(namespace: Namespace, images: Images, name: str) -> Object:
    """A Deployment of one pod that uses next to nothing."""
    resources = {"requests": {"cpu": ASKED}}
    return namespace.create(deployment(name, images.agnhost, args=["pause"], resources=resources))


def _scaler(namespace: Namespace, target: str, mode: str) -> Object:
    """An autoscaler that may recommend only one thing, and so needs no time to learn what is right."""
    allowed = {"minAllowed": {"cpu": ALLOWED}, "maxAllowed": {"cpu": ALLOWED}}
    policy = {"containerName": "*", "controlledResources": ["cpu"], **allowed}
    return namespace.create(vpa(target, target=target, mode=mode, policies=[policy]))


def _requested(pod: Object) -> str:
    """CPU that the pod's first container requests."""
    return str(pod.spec["containers"][0]["resources"]["requests"]["cpu"])


def _have(cpu: str) -> Callable[[list[Object]], str | None]:
    """The only pod is Ready, requests this much CPU, and was given it by its node, where nodes tell."""

    def have(pods: list[Object]) -> str | None:
        if missing := all_ready(1)(pods):
            return missing
        (pod,) = pods
        (status,) = pod.status["containerStatuses"]
        given = (status.get("resources") or {}).get("requests", {}).get("cpu", cpu)
        if (requested := _requested(pod)) != cpu:
            return f"{pod.name} requests {requested} of CPU, not {cpu}"
        return None if given == cpu else f"{pod.name} requests {cpu} of CPU, but was given {given}"

    have.__name__ = f"one pod has {cpu} of CPU"
    return have


def _only(running: Object) -> Callable[[list[Object]], str | None]:
    """This pod is the only one, and requests what it did."""

    def only(pods: list[Object]) -> str | None:
        seen = {pod.name: _requested(pod) for pod in pods if not pod.deleting}
        wanted = {running.name: ASKED}
        return None if seen == wanted else f"requests of pods are {seen}, not {wanted}"

    only.__name__ = f"are {running.name} as it was"
    return only


def _without(old: Object) -> Callable[[list[Object]], str | None]:
    """This pod has to go, or is gone."""

    def without(pods: list[Object]) -> str | None:
        return f"{old.name} stays" if old.uid in {pod.uid for pod in pods if not pod.deleting} else None

    without.__name__ = f"are without {old.name}"
    return without


def _recommendations(scaler: Object) -> Mapping[str, Mapping[str, float]]:
    """Millicores of each container: `lowerBound`, `target`, `upperBound` and `uncappedTarget`."""
    recommendation = scaler.status.get("recommendation") or {}
    recommended: list[dict[str, Any]] = recommendation.get("containerRecommendations") or []
    return {
        each["containerName"]: {
            key: 1000 * load.quantity(value["cpu"]) for key, value in each.items() if "cpu" in value
        }
        for each in recommended
    }


def _recommends(low: float, high: float = math.inf) -> Callable[[Object], str | None]:
    """The target of the only container is within these millicores, and within its own bounds."""
    wanted = f"{low:.0f}m or more" if high == math.inf else f"{low:.0f}m to {high:.0f}m"

    def recommends(scaler: Object) -> str | None:
        if not (found := _recommendations(scaler)):
            return "it recommends nothing yet"
        (told,) = found.values()
        if not told["lowerBound"] <= told["target"] <= told["upperBound"]:
            return f"its target is not within its bounds: {told}"
        if not low <= told["target"] <= high:
            return f"it recommends {told['target']:.0f}m of CPU, not {wanted}"
        return None

    recommends.__name__ = f"recommends {wanted} of CPU"
    return recommends


def _fits(pod: Object) -> Callable[[Object], str | None]:
    """It recommends what the pod should use, or more, but not much more than it did when it used most."""

    def fits(scaler: Object) -> str | None:
        if too_little := _recommends(USED)(scaler):
            return too_little
        known = load.account(pod)
        rates = [(end.spent - start.spent) / (end.at - start.at) for start, end in zip(known, known[3:], strict=False)]
        return _recommends(USED, MOST * 1000 * max(rates, default=0))(scaler)

    fits.__name__ = f"fits the use of {pod.name}"
    return fits


def _differs_from(early: Object) -> Callable[[Object], str | None]:
    """It recommends something else: bounds at least, which change with each measurement."""
    before = _recommendations(early)

    def differs(scaler: Object) -> str | None:
        return "it has not measured again" if _recommendations(scaler) == before else None

    return differs


def _keeps_to_the_bound(scaler: Object) -> str | None:
    """The container `main` would be given more, and `idle` less, but neither is."""
    found = _recommendations(scaler)
    if len(found) < 2:
        return f"it recommends something for {sorted(found) or 'no container'} only"
    main, idle = ({key: value / BOUND for key, value in found[name].items()} for name in ("main", "idle"))
    if not main.pop("uncappedTarget") > 1 > idle.pop("uncappedTarget"):
        return f"it does not see that main uses more than {BOUND}m, and idle less: {found}"
    if max(main.values()) > 1 or main["target"] < 1:
        return (
            f"it recommends {found['main']['target']:.0f}m of CPU for main, not the {BOUND}m allowed: {found['main']}"
        )
    if min(idle.values()) < 1 or idle["target"] > 1:
        return (
            f"it recommends {found['idle']['target']:.0f}m of CPU for idle, not the {BOUND}m demanded: {found['idle']}"
        )
    return None
