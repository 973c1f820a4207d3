"""Deployment: declared pods are kept running, and changed without an outage."""

from __future__ import annotations

import functools
import time
from datetime import datetime
from typing import Any

import pytest

from clusterproof import (
    Images,
    Namespace,
    Object,
    Selection,
    Timeouts,
    case,
    consistently,
    eventually,
    kinds,
    manifests,
    measure,
    watching,
)
from clusterproof.conditions import (
    ListCondition,
    all_ready,
    count,
    equals,
    has_condition,
    has_ready_pods,
    observed,
    rolled_out,
    scaled,
    without,
)
from clusterproof.inside import fetch, url_of
from clusterproof.probes import inside, together, unbroken

REVISION = "deployment.kubernetes.io/revision"
LONG = 500
"""Seconds, more than any promise lasts and less than the 600 after which a rollout has failed."""


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("surge", "unavailable", "replicas", "least", "most"),
    [
        case("1/0", 1, 0, 2, 2, 3),
        case("0/1", 0, 1, 2, 1, 2),
        # Of 3 replicas, 25 % is one pod more (rounded up) and none less (rounded down).
        case("25%/25%", "25%", "25%", 3, 3, 4),
    ],
)
def test_rolling_update(
    namespace: Namespace,
    images: Images,
    timeouts: Timeouts,
    surge: int | str,
    unavailable: int | str,
    replicas: int,
    least: int,
    most: int,
) -> None:
    """A Deployment with a changed template MUST replace every pod within the bounds of maxSurge and maxUnavailable.

    At every watched moment at least `replicas - maxUnavailable` pods are available, and neither the ReplicaSets ask for
    more than `replicas + maxSurge` pods nor do more of them run. Judged by the pods and ReplicaSets themselves.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-update-deployment
    """
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    web = namespace.create(
        manifests.deployment("web", images.agnhost_old, replicas=replicas, strategy=strategy, args=["pause"])
    )
    eventually(web, rolled_out, within=timeouts.rollout)

    with watching(web.pods()) as pods, watching(_replica_sets(web)) as replica_sets:
        web.set_image(images.agnhost)
        eventually(web, rolled_out, within=timeouts.rollout)
    after = eventually(web.pods(), all_ready(replicas), within=timeouts.pod_end)

    assert {pod.spec["containers"][0]["image"] for pod in after} == {images.agnhost}
    old = {pod.uid for pod in pods.states[0]}
    assert not old & {pod.uid for pod in after}, "a pod with the old template is still there"
    pods.every(_at_least_available(web, least))
    pods.every(_at_most_running(web, most))
    replica_sets.every(_at_most_asked_for(web, most))


def test_zero_downtime(namespace: Namespace, images: Images, timeouts: Timeouts, nodes: list[Object]) -> None:
    """A client of a Service MUST NOT notice a rolling update of the pods behind it.

    The pods tell when they are ready and keep serving for a while after they were told to end (preStop). Clients on two
    nodes ask for 120 answers a second together, half of them over new and half over kept connections.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination-flow
    """
    web = namespace.create(_drained(images.agnhost_old, round(timeouts.propagation / 2)))
    url = url_of(namespace.create(manifests.service("web")))
    before = eventually(web.pods(), all_ready(2), within=timeouts.rollout)

    # A lost answer stays lost however long one waits; one that is only late is the fault of a busy machine.
    patience: dict[str, Any] = {"within": timeouts.request / 3, "patience": timeouts.pod}
    places = [nodes[0].name, nodes[-1].name]
    # Twice, if need be: of some 10,000 connections, one may get the port of an earlier one to a pod that has ended, and
    # be lost by a kernel that remembers where that one went.
    for image in (images.agnhost, images.agnhost_old):
        probes = [inside(namespace, url, image=images.agnhost, rate=60, node=name, **patience) for name in places]
        with together(*probes) as clients:
            web.set_image(image)
            eventually(web, rolled_out, within=timeouts.rollout)
            after = eventually(web.pods(), all_ready(2), within=timeouts.pod_end)
        seen = clients.result()
        if seen.failures != 1:
            break

    measure("longest gap (s)", seen.longest_gap)
    measure("requests per second", seen.rate)
    assert not {pod.uid for pod in before} & {pod.uid for pod in after}, "a pod with the old template is still there"
    assert (trouble := unbroken(seen)) is None, f"every request is answered during a rolling update of {web}: {trouble}"


@pytest.mark.smoke
def test_self_heal(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Deployment MUST replace a pod that was deleted, and leave the others alone.

    Source: https://kubernetes.io/docs/concepts/architecture/self-healing/
    """
    web = namespace.create(manifests.deployment("web", images.agnhost, replicas=2, args=["pause"]))
    victim, other = eventually(web.pods(), all_ready(2), within=timeouts.rollout)

    victim.delete()
    deleted = time.monotonic()
    pods = eventually(web.pods(), without(victim, all_ready(2)), within=timeouts.recovery)
    measure("time to recover (s)", time.monotonic() - deleted)

    assert other.uid in {pod.uid for pod in pods}, f"{other} was replaced although it was not deleted"
    eventually(web, rolled_out, within=timeouts.object)


def test_recreate(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Deployment with strategy Recreate MUST NOT start a new pod before every old one has ended.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#recreate-deployment
    """
    web = namespace.create(
        manifests.deployment("web", images.agnhost_old, replicas=2, strategy={"type": "Recreate"}, args=["pause"])
    )
    old = {pod.uid for pod in eventually(web.pods(), all_ready(2), within=timeouts.rollout)}

    with watching(web.pods()) as pods:
        web.set_image(images.agnhost)
        eventually(web, rolled_out, within=timeouts.rollout)

    def never_together(state: list[Object]) -> str | None:
        alive = [pod.name for pod in state if pod.uid in old and not _ended(pod)]
        new = [pod.name for pod in state if pod.uid not in old]
        return f"{', '.join(new)} beside {', '.join(alive)}" if alive and new else None

    never_together.__name__ = f"{web}: no new pod exists beside an old one that has not ended"
    pods.every(never_together)

    def none_old(state: list[Object]) -> str | None:
        return ", ".join(f"{pod.name} has the old template" for pod in state if pod.uid in old) or None

    # A pod that has ended may be there for a while: Recreate waits for its end, not for its removal.
    eventually(web.pods(), none_old, within=timeouts.pod_end)


def test_rollback(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Deployment that is given an earlier template again MUST return to the ReplicaSet of that template.

    It is what `kubectl rollout undo` does: the earlier ReplicaSet becomes the newest revision.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-back-a-deployment
    """
    web = namespace.create(manifests.deployment("web", images.agnhost_old, args=["pause"]))
    eventually(web, rolled_out, within=timeouts.rollout)
    (first,) = _replica_sets(web).read()
    web.set_image(images.agnhost)
    eventually(web, rolled_out, within=timeouts.rollout)

    template = first.spec["template"]
    labels = {key: value for key, value in template["metadata"]["labels"].items() if key != "pod-template-hash"}
    undo = {"metadata": {"labels": labels}, "spec": template["spec"]}
    web.patch([{"op": "replace", "path": "/spec/template", "value": undo}], type="json")
    eventually(web, rolled_out, within=timeouts.rollout)

    pods = eventually(web.pods(), all_ready(1), within=timeouts.pod_end)
    assert pods[0].spec["containers"][0]["image"] == images.agnhost_old
    found = {_revision(item): item for item in _replica_sets(web).read()}
    assert sorted(found) == ["2", "3"], f"{web}: revisions are {sorted(found)}, not 2 and 3"
    assert found["3"].uid == first.uid, f"revision 3 is {found['3']}, not the first one's {first}"
    assert found["2"].spec["replicas"] == 0, f"{found['2']} of the undone revision still asks for pods"


def test_revision_history(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Deployment MUST keep as many old ReplicaSets as revisionHistoryLimit says, the newest ones.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#clean-up-policy
    """
    web = namespace.create(
        manifests.deployment("web", images.agnhost, replicas=0, args=["pause"], more={"revisionHistoryLimit": 1})
    )
    for revision in ("2", "3", "4"):
        eventually(web, rolled_out, within=timeouts.object)
        _set_environment(web, "REVISION", revision)
    eventually(web, rolled_out, within=timeouts.object)

    def kept(items: list[Object]) -> str | None:
        revisions = sorted(map(_revision, items))
        return None if revisions == ["3", "4"] else f"revisions {', '.join(revisions)} exist, not 3 and 4"

    eventually(_replica_sets(web), kept, within=timeouts.object)
    # They may be on their way from too many to too few.
    consistently(_replica_sets(web), kept, during=timeouts.steady / 2)


def test_pause(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A paused Deployment MUST NOT roll out changes; resumed, it rolls them out as one.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#pausing-and-resuming-a-deployment
    """
    web = namespace.create(manifests.deployment("web", images.agnhost_old, replicas=0, args=["pause"]))
    eventually(web, rolled_out, within=timeouts.object)

    with watching(_replica_sets(web)) as replica_sets:
        web.patch({"spec": {"paused": True}})
        web.set_image(images.agnhost)
        eventually(web, observed, within=timeouts.object)
        _set_environment(web, "MODE", "new")
        eventually(web, observed, within=timeouts.object)
        assert len(_replica_sets(web).read()) == 1, f"{web} rolled out a change although it is paused"
        web.patch({"spec": {"paused": False}})
        eventually(_replica_sets(web), count(2), within=timeouts.object)
        eventually(web, rolled_out, within=timeouts.object)

    (made,) = {item.uid: item for state in replica_sets.states[1:] for item in state if _revision(item) != "1"}.values()
    main = made.spec["template"]["spec"]["containers"][0]
    assert (main["image"], main.get("env")) == (images.agnhost, [{"name": "MODE", "value": "new"}])


def test_bad_rollout(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Deployment whose new pods never become ready MUST keep the old ones, and tell of it at its deadline.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#failed-deployment
    """
    strategy = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    web = namespace.create(manifests.deployment("web", images.agnhost, replicas=2, strategy=strategy, args=["pause"]))
    before = eventually(web.pods(), all_ready(2), within=timeouts.rollout)

    never = {"readinessProbe": {"tcpSocket": {"port": 9}, "periodSeconds": 1}}
    seconds, overdue = 3, has_condition("Progressing", "False", "ProgressDeadlineExceeded")

    def late(web: Object) -> str | None:
        # A busy controller may be late with the new pod itself: that is progress then, and the time begins anew.
        made = web.status.get("updatedReplicas") == 1
        return overdue(web) or (None if made else "its new pod is not made yet")

    late.__name__ = overdue.__name__
    with watching(web.pods()) as pods, watching(namespace.select(kinds.DEPLOYMENT)) as deployments:
        _patch_main(web, never, progressDeadlineSeconds=seconds)
        eventually(web, late, within=2 * seconds + timeouts.object)
    waited = _without_progress(deployments.states)
    assert waited >= seconds, f"{web} may be without progress for {seconds} s, and was given up after {waited:g}"

    old = {pod.uid for pod in before}

    def old_ones_stay(state: list[Object]) -> str | None:
        left = {pod.uid for pod in state if _available(pod)} & old
        return None if left == old else f"{len(left)} of the {len(old)} old pods are available"

    old_ones_stay.__name__ = f"{web}: the old pods stay available"
    pods.every(old_ones_stay)
    tried = {pod.uid for state in pods.states for pod in state} - old
    assert len(tried) == 1, f"{web} made {len(tried)} new pods, not the one that maxSurge allows"
    assert web.status.get("availableReplicas") == 2, f"{web}: its status tells of {web.status}"


def test_scale(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Deployment that is scaled MUST get as many pods as it is told to, those it already had among them.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#scaling-a-deployment
    """
    web = namespace.create(manifests.deployment("web", images.agnhost, args=["pause"]))
    (first,) = eventually(web.pods(), all_ready(1), within=timeouts.rollout)

    web.scale(2)
    eventually(web, scaled(2), within=timeouts.rollout)
    pods = eventually(web.pods(), all_ready(2), within=timeouts.object)
    assert first.uid in {pod.uid for pod in pods}, f"{first} was replaced when {web} was scaled up"
    told = web.client.get(kinds.DEPLOYMENT.path(web.namespace, web.name, "scale"))
    assert (told["spec"]["replicas"], told["status"]["replicas"]) == (2, 2), f"{web}: its scale is {told}"

    web.scale(0)
    eventually(web.pods(), count(0), within=timeouts.object)
    eventually(web, scaled(0), within=timeouts.pod_end)


def test_proportional_scaling(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Deployment that is scaled in the middle of a rollout MUST share out the new pods between old and new template.

    None of the pods ever starts, so the rollout stays where it is: at one new pod beside two old ones.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#proportional-scaling
    """
    strategy = {"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 0}}
    web = namespace.create(
        manifests.deployment("web", images.agnhost_old, replicas=2, strategy=strategy, spec=manifests.PARKED)
    )
    eventually(_replica_sets(web), _share({"1": 2}), within=timeouts.object)
    web.set_image(images.agnhost)
    eventually(_replica_sets(web), _share({"1": 2, "2": 1}), within=timeouts.object)

    web.scale(4)

    eventually(_replica_sets(web), _share({"1": 4, "2": 2}), within=timeouts.object)
    eventually(web.pods(), count(6), within=timeouts.object)


def test_blue_green(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Service whose selector is switched to another Deployment MUST send all requests there, and back again.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#defining-a-service
    """
    pods = {}
    for colour in ("blue", "green"):
        deployment = namespace.create(manifests.web(colour, images.agnhost))
        pods[colour] = eventually(deployment.pods(), all_ready(1), within=timeouts.rollout)[0]
    service = namespace.create(manifests.service("web", selector={"app": "blue"}))
    client, url = pods["blue"], url_of(service)

    for colour in ("blue", "green", "blue"):
        service.patch({"spec": {"selector": {"app": colour}}})
        switched = time.monotonic()
        eventually(
            lambda: fetch(client, [url], tries=20)[url],
            equals({pods[colour].name}),
            within=timeouts.propagation,
            describe=f"{service} sends 20 requests to {colour}",
        )
        measure(f"time until all requests go to {colour} (s)", time.monotonic() - switched)


def test_canary(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """Two Deployments behind one Service MUST share its requests about as they share its pods.

    Of 300 requests each of the three pods should get 100; by mere chance it gets fewer than 60 or more than 140 once
    in a million times.

    Source: https://kubernetes.io/docs/concepts/workloads/management/#canary-deployments
    """
    labels = {"behind": "web"}
    stable = namespace.create(manifests.web("stable", images.agnhost, replicas=2, labels=labels))
    canary = namespace.create(manifests.web("canary", images.agnhost, labels=labels))
    pods = [
        *eventually(stable.pods(), all_ready(2), within=timeouts.rollout),
        *eventually(canary.pods(), all_ready(1), within=timeouts.rollout),
    ]
    service = namespace.create(manifests.service("web", selector=labels))
    names, url = {pod.name for pod in pods}, url_of(service)
    found = functools.partial(fetch, pods[0], [url], tries=20)
    eventually(lambda: found()[url], equals(names), within=timeouts.propagation, describe=f"{service} knows its pods")

    # One new connection for each request: that is what is shared out.
    ask = f"curl --silent --show-error --noproxy '*' --header 'Connection: close' -w '\\n' '{url}?[1-300]'"
    counted = pods[0].exec(["bash", "-c", f"{ask} 2>&1 | sort | uniq -c"]).stdout.split("\n")
    shares = {name: int(number) for number, name in (line.split(maxsplit=1) for line in counted if line.strip())}
    measure("share of the canary's pod (of 300 requests)", shares.get(pods[-1].name, 0))
    fair = shares.keys() == names and all(60 <= number <= 140 for number in shares.values())
    assert fair, f"{service}: its 3 pods should get about 100 of 300 requests each, and got {shares}"


def test_min_ready_seconds(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A ready pod of a Deployment MUST NOT count as available before it was ready for minReadySeconds.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#min-ready-seconds
    """
    web = namespace.create(manifests.deployment("web", images.agnhost, args=["pause"], more={"minReadySeconds": LONG}))

    eventually(web, has_ready_pods, within=timeouts.rollout)
    assert not web.status.get("availableReplicas"), f"{web}: its pod is available as soon as it is ready: {web.status}"
    consistently(web, _has_no_available_pods, during=timeouts.steady)

    web.patch({"spec": {"minReadySeconds": 0}})
    eventually(web, rolled_out, within=timeouts.rollout)


def _drained(image: str, seconds: int) -> dict[str, Any]:
    """A web server whose pods serve for some seconds after they were told to end."""
    return manifests.web(
        "web",
        image,
        replicas=2,
        strategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        grace=seconds + 5,
        readiness=manifests.http_probe(failures=10) | {"timeoutSeconds": 5},
        container={"lifecycle": {"preStop": {"exec": {"command": ["sleep", str(seconds)]}}}},
    )


def _replica_sets(web: Object) -> Selection:
    return Selection(web.client, kinds.REPLICA_SET, web.namespace, f"app={web.name}")


def _share(wanted: dict[str, int]) -> ListCondition:
    """ReplicaSets ask for these numbers of pods, by revision."""

    def share(replica_sets: list[Object]) -> str | None:
        found = {_revision(item): item.spec["replicas"] for item in replica_sets}
        return None if found == wanted else f"by revision they ask for {found}, not {wanted}"

    share.__name__ = f"share the pods as {wanted}"
    return share


def _patch_main(web: Object, main: dict[str, Any], **spec: Any) -> None:
    """Change the container of the template; `spec` goes into the Deployment's own."""
    template = {"spec": {"containers": [{"name": "main", **main}]}}
    web.patch({"spec": {"template": template, **spec}}, type="strategic")


def _set_environment(web: Object, name: str, value: str) -> None:
    _patch_main(web, {"env": [{"name": name, "value": value}]})


def _revision(replica_set: Object) -> str:
    return replica_set.annotations.get(REVISION, "")


def _available(pod: Object) -> bool:
    return not pod.deleting and pod.condition("Ready").get("status") == "True"


def _runs(pod: Object) -> bool:
    return not pod.deleting and pod.status.get("phase") == "Running"


def _ended(pod: Object) -> bool:
    return pod.status.get("phase") in ("Succeeded", "Failed")


def _at_least_available(web: Object, least: int) -> ListCondition:
    def at_least_available(pods: list[Object]) -> str | None:
        number = sum(map(_available, pods))
        return f"{number} are" if number < least else None

    at_least_available.__name__ = f"{web}: at least {least} pods are available"
    return at_least_available


def _at_most_running(web: Object, most: int) -> ListCondition:
    def at_most_running(pods: list[Object]) -> str | None:
        # Only those that run: an old pod may be told to end just after its successor was created.
        number = sum(map(_runs, pods))
        return f"{number} do" if number > most else None

    at_most_running.__name__ = f"{web}: at most {most} pods run"
    return at_most_running


def _at_most_asked_for(web: Object, most: int) -> ListCondition:
    def at_most_asked_for(replica_sets: list[Object]) -> str | None:
        wanted = {item.name: item.spec["replicas"] for item in replica_sets}
        return f"they ask for {wanted}" if sum(wanted.values()) > most else None

    at_most_asked_for.__name__ = f"{web}: at most {most} pods are asked for by its ReplicaSets"
    return at_most_asked_for


def _without_progress(states: list[list[Object]]) -> float:
    """Seconds from a Deployment's last progress to when it was said to have had none for too long.

    Both are whole seconds of the controller's clock, and it reckons the one from the other as it stands there.
    """
    told = [web.condition("Progressing") for state in states for web in state]
    progress = [datetime.fromisoformat(each["lastUpdateTime"]) for each in told if each.get("status") == "True"]
    return (datetime.fromisoformat(told[-1]["lastUpdateTime"]) - progress[-1]).total_seconds()


def _has_no_available_pods(web: Object) -> str | None:
    return "its pod is available" if web.status.get("availableReplicas") else None
