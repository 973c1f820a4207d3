"""Quota: a namespace takes what it was given, and not more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from clusterproof import (
    ApiError,
    Client,
    Cluster,
    Images,
    Namespace,
    Object,
    Timeouts,
    conditions,
    eventually,
    kinds,
    manifests,
)
from clusterproof.refusals import refused

DRY = {"dryRun": "All"}
COUNTED = "count/leases.coordination.k8s.io"
"""Of Leases a fresh namespace has none, whatever else the cluster puts into it."""
_PLAIN: dict[str, Any] = {}
_ASKING: dict[str, Any] = {"resources": {"requests": {"cpu": "1m"}}}
_ENDING: dict[str, Any] = {"spec": {**manifests.PARKED, "activeDeadlineSeconds": 3600}}
SCOPES: Mapping[str, tuple[dict[str, Any], ...]] = {
    "BestEffort": (_PLAIN, _PLAIN, _ASKING, _ASKING),
    "NotBestEffort": (_ASKING, _ASKING, _PLAIN, _PLAIN),
    "Terminating": (_ENDING, _ENDING, _PLAIN, _PLAIN),
    "NotTerminating": (_PLAIN, _PLAIN, _ENDING, _ENDING),
}
"""For each scope of a quota two pods that are in it, and two that are not."""


def test_limit(namespace: Namespace, timeouts: Timeouts) -> None:
    """An object beyond a ResourceQuota MUST be refused with 403 naming the quota, and let in when another has gone.

    Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/
    """
    hard = {COUNTED: "1", "services": "1", "persistentvolumeclaims": "1", "requests.storage": "1Gi"}
    quota = namespace.create(_quota("tight", **hard))
    eventually(quota, _uses(COUNTED, 0), within=timeouts.object)

    first = _counted(namespace, quota, timeouts)
    with refused(f"a second Lease in {namespace} under {quota}") as refusal:
        namespace.create(_lease("second"))
    told = f"exceeded quota: tight, requested: {COUNTED}=1, used: {COUNTED}=1, limited: {COUNTED}=1"
    assert told in refusal.message, f"the refusal MUST say {told!r}, but it says {refusal.message!r}"
    with refused(f"a claim of 2Gi in {namespace} under {quota}") as refusal:
        namespace.create(_claim("large", "2Gi"))
    assert "exceeded quota: tight, requested: requests.storage=2Gi" in refusal.message, refusal.message
    for kind, other, another in (
        ("Service", manifests.service("other"), manifests.service("another")),
        ("PersistentVolumeClaim", _claim("other"), _claim("another")),
    ):
        namespace.create(other)
        with refused(f"a second {kind} in {namespace} under {quota}"):
            namespace.create(another)
    assert not namespace.list(kinds.LEASE, labels="app=second"), "the refused Lease was stored all the same"

    first.delete()
    eventually(quota, _uses(COUNTED, 0), within=timeouts.object)
    _let_in(namespace, _lease("second"), timeouts)
    eventually(quota, _uses(COUNTED, 1), within=timeouts.object)


def test_race(namespace: Namespace, timeouts: Timeouts) -> None:
    """Of many objects that are created at once, a ResourceQuota MUST let in as many as fit, and no more.

    Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/
    """
    room, tries = 3, 12
    quota = namespace.create(_quota("tight", **{COUNTED: str(room + 1)}))
    eventually(quota, _uses(COUNTED, 0), within=timeouts.object)
    _counted(namespace, quota, timeouts)

    clients = [namespace.cluster.new_client() for _ in range(tries)]
    with ThreadPoolExecutor(tries) as pool:
        let_in = list(pool.map(lambda number: _create(clients[number], namespace, number), range(tries)))
    # Servers that count against each other may refuse too many at once, but not for long.
    let_in += [_create(namespace.client, namespace, tries + number) for number in range(room)]

    stored = len(namespace.list(kinds.LEASE, labels="app")) - 1
    assert (sum(let_in), stored) == (room, room), (
        f"{quota} has room for {room} more Leases; of {tries} created at once and some after them {sum(let_in)} were "
        f"accepted and {stored} stored"
    )


def test_resources(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """Under a quota for CPU and memory a pod MUST request both, and be refused with 403 where all pods' are too much.

    Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/#compute-resource-quota
    """
    quota = namespace.create(_quota("tight", **{"requests.cpu": "500m", "requests.memory": "64Mi", "pods": "1"}))
    eventually(quota, _uses("pods", 0), within=timeouts.object)

    # Whoever admits pods follows quotas by a watch, so the first may come too early.
    for asked, told in (_both("600m", "16Mi"), "requests.cpu=600m"), (_both("100m", "96Mi"), "requests.memory=96Mi"):
        tried, wanted = partial(_refusal, namespace, images, asked), _says(f"exceeded quota: tight, requested: {told}")
        eventually(tried, wanted, within=timeouts.propagation, describe=f"a pod with {told} under {quota}")
    missing = _requests("500m")(_dry_pod(namespace, images, _both("500m", "64Mi")))
    assert missing is None, f"a pod that fits {quota}: {missing}"
    for lacking, asked in ("cpu", {"memory": "16Mi"}), ("memory", {"cpu": "100m"}):
        with refused(f"a pod without a request for {lacking} under {quota}") as refusal:
            _dry_pod(namespace, images, {"requests": asked})
        assert f"must specify requests.{lacking}" in refusal.message, refusal.message

    large, few = _both("400m", "48Mi"), _both("200m", "32Mi")
    first = namespace.create(manifests.pod("first", images.agnhost, resources=large, spec=manifests.PARKED))
    eventually(quota, _uses("requests.cpu", "400m"), within=timeouts.object)
    used, limit = "pods=1,requests.cpu=400m,requests.memory=48Mi", "pods=1,requests.cpu=500m,requests.memory=64Mi"
    told, more = f"used: {used}, limited: {limit}", f"a second pod, with 200m of CPU and 32Mi of memory, under {quota}"
    eventually(lambda: _refusal(namespace, images, few), _says(told), within=timeouts.propagation, describe=more)
    first.delete()
    eventually(lambda: _refusal(namespace, images, few), conditions.equals(""), within=timeouts.object)


@pytest.mark.parametrize("scope", SCOPES)
def test_scopes(namespace: Namespace, images: Images, timeouts: Timeouts, scope: str) -> None:
    """A ResourceQuota with a scope MUST count the pods that are in it, and hold no others to its limit.

    Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/#quota-scopes
    """
    first, second, *others = (
        manifests.pod(name, images.agnhost, **{"spec": manifests.PARKED, **options})
        for name, options in zip(("first", "second", "other", "another"), SCOPES[scope], strict=True)
    )
    quota = namespace.create(_quota("tight", scopes=[scope], pods="1"))
    eventually(quota, _uses("pods", 0), within=timeouts.object)

    _counted(namespace, quota, timeouts, first)
    for other in others:
        told = _refusal_of(partial(namespace.create, other))
        assert not told, f"{quota} is for {scope} pods, and a pod that is not one MUST be let in, but: {told}"
    with refused(f"a second {scope} pod under {quota}") as refusal:
        namespace.create(second)
    told = "exceeded quota: tight, requested: pods=1, used: pods=1, limited: pods=1"
    assert told in refusal.message, f"the refusal MUST say {told!r}, but it says {refusal.message!r}"


def test_priority_scope(cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A ResourceQuota for the pods of a priority class MUST count these, and hold no others to its limit.

    Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/#resource-quota-per-priorityclass
    """
    made = cluster.create(manifests.priority_class(namespace.name, 1))
    manifest = _quota("tight", pods="1")
    of_class = {"scopeName": "PriorityClass", "operator": "In", "values": [made.name]}
    manifest["spec"]["scopeSelector"] = {"matchExpressions": [of_class]}
    quota = namespace.create(manifest)
    eventually(quota, _uses("pods", 0), within=timeouts.object)
    spec = {**manifests.PARKED, "priorityClassName": made.name}

    _counted(namespace, quota, timeouts, manifests.pod("first", images.agnhost, spec=spec))
    told = _refusal_of(partial(namespace.create, manifests.pod("other", images.agnhost, spec=manifests.PARKED)))
    assert not told, f"{quota} is for pods of {made}, and a pod without a class MUST be let in, but: {told}"
    with refused(f"a second pod of {made} under {quota}") as refusal:
        namespace.create(manifests.pod("second", images.agnhost, spec=spec))
    assert "exceeded quota: tight, requested: pods=1, used: pods=1" in refusal.message, refusal.message


def test_limit_range(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A LimitRange MUST give a container the requests and limits it does not name, and refuse what is out of bounds.

    Source: https://kubernetes.io/docs/concepts/policy/limit-range/
    """
    bounds = {"min": {"cpu": "50m"}, "max": {"cpu": "1"}, "default": {"cpu": "400m"}, "defaultRequest": {"cpu": "100m"}}
    spec = {"limits": [{"type": "Container", **bounds}]}
    namespace.create({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "bounds"}, "spec": spec})

    # Whoever admits pods follows LimitRanges by a watch, so the first may come too early.
    silent = eventually(
        lambda: _dry_pod(namespace, images, None),
        _requests("100m"),
        within=timeouts.propagation,
        describe="a container without requests",
    )
    given = silent["spec"]["containers"][0]["resources"]
    assert given == {"limits": {"cpu": "400m"}, "requests": {"cpu": "100m"}}, f"a container was given {given}"
    for cpu, bound in ("20m", "minimum cpu usage per Container is 50m"), ("2", "maximum cpu usage per Container is 1"):
        with refused(f"a container with {cpu} of CPU under a LimitRange from 50m to 1") as refusal:
            _dry_pod(namespace, images, {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}})
        assert bound in refusal.message, f"the refusal MUST say {bound!r}, but it says {refusal.message!r}"


def test_limit_range_types(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A LimitRange for pods or claims MUST refuse what is out of bounds: a pod's containers together, a claim alone.

    Source: https://kubernetes.io/docs/concepts/policy/limit-range/
    """
    limits = [
        {"type": "Pod", "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}},
        {"type": "PersistentVolumeClaim", "min": {"storage": "64Mi"}, "max": {"storage": "1Gi"}},
    ]
    manifest = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "bounds"}, "spec": {"limits": limits}}
    namespace.create(manifest)
    pod, claim = partial(manifests.pod, "pod", images.agnhost), partial(manifests.pvc, "claim")
    fair, least, uneven = _cpu("600m", "600m"), _cpu("50m", "50m"), _cpu("300m", "900m")
    two = pod(resources=fair, beside=[manifests.container("beside", images.agnhost, resources=fair)])

    # Whoever admits them follows LimitRanges by a watch, so the first may come too early.
    for what, unfit, told in (
        ("a pod of two containers with 600m of CPU each", two, "maximum cpu usage per Pod is 1"),
        ("a pod with 50m of CPU", pod(resources=least), "minimum cpu usage per Pod is 100m"),
        ("a pod with 300m to 900m of CPU", pod(resources=uneven), "cpu max limit to request ratio per Pod is 2"),
        ("a claim of 2Gi", claim("2Gi"), "maximum storage usage per PersistentVolumeClaim is 1Gi"),
        ("a claim of 32Mi", claim("32Mi"), "minimum storage usage per PersistentVolumeClaim is 64Mi"),
    ):
        tried = partial(_refusal_of, partial(namespace.would_store, unfit))
        eventually(tried, _says(told), within=timeouts.propagation, describe=f"{what} under LimitRange bounds")
    for fitting in (pod(resources=fair), claim("1Gi")):
        told = _refusal_of(partial(namespace.would_store, fitting))
        assert not told, f"a {fitting['kind']} within the limits {limits} MUST be let in, but: {told}"


def _lease(name: str) -> dict[str, Any]:
    return manifests.custom_object(kinds.LEASE, name)


def _claim(name: str, size: str = "64Mi") -> dict[str, Any]:
    """A claim that nobody gives a volume: it has no class, and names a volume that does not exist."""
    return manifests.pvc(name, size, class_name="", spec={"volumeName": "clusterproof-there-is-none"})


def _both(cpu: str, memory: str) -> dict[str, Any]:
    """The resources of a container that requests CPU and memory."""
    return {"requests": {"cpu": cpu, "memory": memory}}


def _cpu(request: str, limit: str) -> dict[str, Any]:
    """The resources of a container that requests CPU and is limited in it."""
    return {"requests": {"cpu": request}, "limits": {"cpu": limit}}


def _quota(name: str, *, scopes: Sequence[str] = (), **hard: str) -> dict[str, Any]:
    spec = {"hard": hard, "scopes": list(scopes)}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec}


def _uses(resource: str, number: int | str) -> conditions.Condition:
    def has_counted(quota: Object) -> str | None:
        """Its status counts just so many."""
        used = quota.status.get("used") or {}
        return None if used.get(resource) == str(number) else f"it counts {used or 'nothing yet'}, not {number}"

    return has_counted


def _let_in(namespace: Namespace, manifest: dict[str, Any], timeouts: Timeouts) -> Object:
    """Create what fits. Whoever admits it follows the quota's status by a watch, so it may need some moments."""
    tried, what = partial(namespace.create, manifest), f"what fits the quota of {namespace} is let in"
    return eventually(tried, conditions.exists, within=timeouts.propagation, describe=what)


def _counted(namespace: Namespace, quota: Object, timeouts: Timeouts, pod: dict[str, Any] | None = None) -> Object:
    """A first Lease or pod, which `quota` counts. One that comes before admission knows that is let in uncounted."""
    wanted, counted = (pod, "pods") if pod else (_lease("first"), COUNTED)

    def create() -> tuple[Object, str | None]:
        first = namespace.create(wanted)
        missing = _uses(counted, 1)(quota.read())
        if missing:
            first.delete()
        return first, missing

    def is_counted(made: tuple[Object, str | None]) -> str | None:
        """The quota counts what was let in."""
        return made[1]

    what = f"the first {wanted['kind']} under {quota}"
    return eventually(create, is_counted, within=timeouts.propagation, describe=what)[0]


def _create(client: Client, namespace: Namespace, number: int) -> bool:
    """Whether one more Lease was let in."""
    try:
        namespace.as_(client).create(_lease(f"lease-{number}"))
    except ApiError as refusal:
        if refusal.status not in (403, 409):
            raise
        return False
    return True


def _dry_pod(namespace: Namespace, images: Images, resources: dict[str, Any] | None) -> dict[str, Any]:
    """What would be stored of a pod; nothing is."""
    manifest = manifests.pod("pod", images.agnhost, args=["pause"], resources=resources)
    return namespace.client.post(kinds.POD.path(namespace.name), manifest, DRY)


def _refusal(namespace: Namespace, images: Images, resources: dict[str, Any]) -> str:
    """What the server says to such a pod; empty when it is let in."""
    return _refusal_of(lambda: _dry_pod(namespace, images, resources))


def _refusal_of(write: Callable[[], object]) -> str:
    """What the server says to a write; empty when it is let in."""
    try:
        write()
    except ApiError as refusal:
        if refusal.status != 403:
            raise
        return refusal.message
    return ""


def _says(expected: str) -> Callable[[str], str | None]:
    def is_refused(told: str) -> str | None:
        """The refusal tells why."""
        return None if expected in told else f"it MUST be refused with {expected!r}, but {told or 'it is let in'!r}"

    return is_refused


def _requests(cpu: str) -> Callable[[dict[str, Any]], str | None]:
    def requests_cpu(pod: dict[str, Any]) -> str | None:
        """Its container requests so much CPU."""
        resources = pod["spec"]["containers"][0]["resources"]
        found = resources.get("requests", {}).get("cpu")
        return None if found == cpu else f"its container has {resources or 'no resources'}, not a request for {cpu}"

    return requests_cpu
