"""Resources: containers get what they ask for and are held to their limits."""

from __future__ import annotations

from typing import Any

import pytest

from clusterproof import Images, Namespace, Object, Timeouts, capabilities, case, eventually, load, manifests, measure
from clusterproof.conditions import Condition, phase, ready
from clusterproof.running.proving import Unsupported

# Of a container's control group, whichever version it is: CPU time per second in millicores, and memory in MiB.
_LIMITS = """
cd /sys/fs/cgroup
if [ -e cpu.max ]; then read -r quota period < cpu.max; memory=$(cat memory.max)
else quota=$(cat cpu/cpu.cfs_quota_us) period=$(cat cpu/cpu.cfs_period_us) memory=$(cat memory/memory.limit_in_bytes)
fi
echo $((quota * 1000 / period)) $((memory >> 20))
"""
# The weight of each of its processes among those that want CPU time, in figures of its version of control groups.
_WEIGHT = "cat /sys/fs/cgroup/cpu.weight /sys/fs/cgroup/cpu/cpu.shares 2> /dev/null"
_THROTTLED = "cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpu/cpu.stat 2> /dev/null | grep nr_throttled"


def test_memory_limit(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container that uses more memory than its limit MUST be killed, and be said to have been.

    Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#how-pods-with-resource-limits-are-run
    """
    ended = _greedy(namespace, images, timeouts, resources={"limits": {"memory": "64Mi"}})

    seen = _end_of(ended)
    assert seen == ("OOMKilled", 137), (
        f"{ended}: a container with a limit of 64Mi that uses 256 MiB ended as {seen[0]} with {seen[1]}, not OOMKilled"
    )


@pytest.mark.requires(capabilities.POD_RESOURCES)
def test_pod_limit(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod's own limits MUST hold for its containers together, and decide about the class of its quality of service.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/assign-pod-level-resources/
    """
    limits = {"limits": {"cpu": "500m", "memory": "64Mi"}}

    ended = _greedy(namespace, images, timeouts, spec={"resources": limits})

    if "resources" not in ended.spec:
        raise Unsupported.dropped("resources of pods", "PodLevelResources")
    _, code = _end_of(ended)
    assert code == 137, (
        f"{ended}: under its limit of 64Mi a container that uses 256 MiB ended with {code}, not with 137: killed"
    )
    found = ended.status.get("qosClass")
    assert found == "Guaranteed", f"{ended}: its own limits make it Guaranteed, and it is {found}"


def test_ephemeral_storage(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod MUST be evicted, and say why, when a container writes more to its own files than its limit of storage.

    Source: https://kubernetes.io/docs/concepts/storage/ephemeral-storage/#resource-ephemeralstorage-consumption
    """
    script = "dd if=/dev/zero of=/tmp/large bs=1M count=16; exec /agnhost pause"
    limits = {"limits": {"ephemeral-storage": "4Mi"}}
    pod = namespace.create(manifests.pod("greedy", images.agnhost, command=["sh", "-c", script], resources=limits))

    eventually(pod, phase("Failed"), within=timeouts.pod + timeouts.eviction)

    assert pod.status.get("reason") == "Evicted", f"{pod} failed because of {pod.status.get('reason')}, not as Evicted"
    assert "ephemeral" in pod.status.get("message", ""), f"{pod}: it says {pod.status.get('message')}"


def test_control_group(namespace: Namespace, some_nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A container's control group MUST allow as much CPU time and memory as its limits say.

    Shown on each node, of many on eight.

    Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#how-pods-with-resource-limits-are-run
    """
    resources = {"limits": {"cpu": "100m", "memory": "96Mi"}, "requests": {"cpu": "10m", "memory": "16Mi"}}
    held = [
        manifests.pod(f"held-{number}", images.agnhost, args=["pause"], resources=resources, node=node.name)
        for number, node in enumerate(some_nodes)
    ]
    pods = [namespace.create(each) for each in held]

    for pod in pods:
        eventually(pod, ready, within=timeouts.pod)
        seen = tuple(map(int, pod.exec(["bash", "-c", _LIMITS]).stdout.split()))
        where = f"{pod} on {pod.spec['nodeName']}"
        assert seen == (100, 96), f"{where}: its control group allows {seen[0]}m CPU and {seen[1]} MiB, not 100m and 96"


def test_cpu_limit(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container MUST NOT get more CPU time than its limit, however much it wants.

    Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#how-pods-with-resource-limits-are-run
    """
    limits = {"limits": {"cpu": "100m", "memory": "96Mi"}, "requests": {"cpu": "50m"}}
    pod = namespace.create(manifests.pod("eager", images.agnhost, command=load.command(1000), resources=limits))
    eventually(pod, ready, within=timeouts.pod)

    eventually(
        lambda: pod.exec(["sh", "-c", _THROTTLED]).stdout, _some, within=timeouts.pod, describe=f"{pod} is held back"
    )
    eventually(lambda: load.account(pod), _long_enough, within=timeouts.pod, describe=f"the account of {pod}")
    known = load.account(pod)
    share = load.cores(known, known[0].at, known[-1].at) or 0
    measure("CPU of a container limited to 0.1 (cores)", share)
    assert share < 0.15, f"{pod}: with a limit of 100m it got {share * 1000:.0f}m of CPU"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        case("Guaranteed", {"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        case("Burstable", {"requests": {"memory": "1Mi"}}, "Burstable"),
        case("BestEffort", None, "BestEffort"),
    ],
)
def test_qos(namespace: Namespace, images: Images, resources: dict[str, Any] | None, expected: str) -> None:
    """A pod MUST be of the quality of service class that its requests and limits make it.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/
    """
    pod = namespace.create(manifests.pod("some", images.agnhost, resources=resources, spec=manifests.PARKED))

    found = pod.status.get("qosClass")
    assert found == expected, f"{pod} with {resources} is {found}, not {expected}"


def test_cpu_request(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container that requests more CPU than another MUST have more weight where both want more than there is.

    Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#how-pods-with-resource-limits-are-run
    """
    asked = {"little": "20m", "much": "200m"}
    containers = [
        manifests.container(name, images.agnhost, args=["pause"], resources={"requests": {"cpu": request}})
        for name, request in asked.items()
    ]
    pod = namespace.create(manifests.pod("some", images.agnhost, spec={"containers": containers}))
    eventually(pod, ready, within=timeouts.pod)

    little, much = (int(pod.exec(["sh", "-c", _WEIGHT], container=name).stdout) for name in asked)
    assert little < much, f"{pod}: its containers request {asked} CPU and have the weights {little} and {much}"


def test_out_of_memory(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A node without memory MUST end BestEffort pods before Burstable ones, and these before Guaranteed ones.

    Shown by what the kernel is told of each: the larger the number, the sooner it is ended.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#node-out-of-memory-behavior
    """
    some = {"cpu": "10m", "memory": "64Mi"}
    classes: dict[str, Any] = {"Guaranteed": {"limits": some}, "Burstable": {"requests": some}, "BestEffort": None}
    pods = [
        namespace.create(manifests.pod(name.lower(), images.agnhost, args=["pause"], resources=resources))
        for name, resources in classes.items()
    ]
    for pod in pods:
        eventually(pod, ready, within=timeouts.pod)

    told = [int(pod.exec(["cat", "/proc/1/oom_score_adj"]).stdout) for pod in pods]
    seen = dict(zip(classes, told, strict=True))
    assert told == sorted({*told}), f"Pods of {namespace}: oom_score_adj is {seen}, not larger with each class"


@pytest.mark.requires(capabilities.RESIZE)
def test_resize(namespace: Namespace, some_nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A running container MUST be given changed limits in place, without a restart where it wants none.

    Shown on each node, of many on eight.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/
    """
    # Requests below the limits: a node that gives whole CPUs to pods with both the same may not change these.
    requests = {"cpu": "50m", "memory": "32Mi"}
    before = {"limits": {"cpu": "100m", "memory": "64Mi"}, "requests": requests}
    held = [
        manifests.pod(f"some-{number}", images.agnhost, args=["pause"], resources=before, node=node.name)
        for number, node in enumerate(some_nodes)
    ]
    pods = [namespace.create(each) for each in held]
    after = {"cpu": "200m", "memory": "96Mi"}
    for pod in pods:
        eventually(pod, ready, within=timeouts.pod)
        _resize(pod, {"limits": after, "requests": requests})

    for pod in pods:
        eventually(pod, _is_given(after), within=timeouts.pod)
        seen = tuple(map(int, pod.exec(["bash", "-c", _LIMITS]).stdout.split()))
        where = f"{pod} on {pod.spec['nodeName']}"
        assert seen == (200, 96), f"{where}: its control group allows {seen[0]}m CPU and {seen[1]} MiB, not 200m and 96"
        assert pod.status["containerStatuses"][0]["restartCount"] == 0, f"{where} was restarted"


@pytest.mark.requires(capabilities.RESIZE)
def test_resize_restart(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container whose resizePolicy says so of a resource MUST be restarted when that changes, and not for another.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/#container-resize-policies
    """
    requests = {"cpu": "50m", "memory": "32Mi"}
    limits = {"cpu": "100m", "memory": "64Mi"}
    policy = {"resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]}
    resources = {"limits": limits, "requests": requests}
    pod = namespace.create(manifests.pod("some", images.agnhost, args=["pause"], resources=resources, container=policy))
    eventually(pod, ready, within=timeouts.pod)

    for change, restarts in ({"cpu": "200m"}, 0), ({"memory": "96Mi"}, 1):
        limits = limits | change
        _resize(pod, {"limits": limits, "requests": requests})
        eventually(pod, _is_given(limits), within=timeouts.pod)
        eventually(pod, _was_restarted(restarts), within=timeouts.pod)


def _resize(pod: Object, resources: dict[str, Any]) -> None:
    containers = [{"name": "main", "resources": resources}]
    pod.patch({"spec": {"containers": containers}}, type="strategic", subresource="resize")


def _greedy(namespace: Namespace, images: Images, timeouts: Timeouts, **options: Any) -> Object:
    """A pod that has ended after it used 256 MiB."""
    # dd fills a buffer of the size of one block. A runtime may not yet look out for the memory of a container that ends
    # as soon as it starts.
    command = ["sh", "-c", "sleep 2; exec dd if=/dev/zero of=/dev/null bs=256M count=4"]
    for turn in range(3):  # of one in many kills, some runtimes do not learn in time why it was
        made = manifests.pod(f"greedy-{turn}", images.agnhost, command=command, restart_policy="Never", **options)
        pod = eventually(namespace.create(made), _ended, within=timeouts.pod)
        if _end_of(pod) != ("Error", 137):
            break
    return pod


def _end_of(pod: Object) -> tuple[str, int]:
    """Why the only container of a pod has ended, and with which exit code."""
    (container,) = pod.status.get("containerStatuses") or [{}]
    told = container.get("state", {}).get("terminated")
    assert told, f"{pod} has failed before its container ran: {pod.status.get('message') or pod.status.get('reason')}"
    return told["reason"], told["exitCode"]


def _ended(pod: Object) -> str | None:
    return None if pod.status.get("phase") in ("Failed", "Succeeded") else phase("Failed")(pod)


def _some(statistics: str) -> str | None:
    return None if any(int(line.split()[1]) for line in statistics.splitlines()) else f"it was not: {statistics!r}"


def _long_enough(account: list[load.Account]) -> str | None:
    length = account[-1].at - account[0].at if account else 0
    return None if length > 3 else f"it covers {length:.1f} s"


def _is_given(limits: dict[str, str]) -> Condition:
    def is_given(pod: Object) -> str | None:
        found = (pod.status["containerStatuses"][0].get("resources") or {}).get("limits")
        return None if found == limits else f"its container's status tells of {found}"

    is_given.__name__ = f"is given {limits}"
    return is_given


def _was_restarted(times: int) -> Condition:
    def was_restarted(pod: Object) -> str | None:
        seen = pod.status["containerStatuses"][0]["restartCount"]
        return None if seen == times else f"it was {seen} times"

    was_restarted.__name__ = f"was restarted {times} times"
    return was_restarted
