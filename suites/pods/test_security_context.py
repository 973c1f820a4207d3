"""Security context: who a container is and what it may not do, as it sees it itself."""

from __future__ import annotations

import functools
from itertools import product
from typing import Any

import pytest

from clusterproof import Images, Namespace, Object, Timeouts, capabilities, eventually, manifests
from clusterproof.conditions import equals, ready
from clusterproof.inside import said

NET_BIND_SERVICE = 1 << 10
IMAGE_USER, IMAGE_GROUP = 1000, 50000
"""A user of agnhost's image, and a group of which only the image says that this user is in it."""


def test_user(namespace: Namespace, some_nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A container MUST run as the user and with the groups that it is told to, and its volumes belong to fsGroup.

    What a container says of itself wins over what the pod says. Shown on each node, of many on eight.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/security-context/#set-the-security-context-for-a-pod
    """
    pods = [namespace.create(_of_users(f"self-{number}", images, node)) for number, node in enumerate(some_nodes)]
    expected = {
        "user": "12345",
        "group": "23456",
        "groups": "23456 34567 45678",
        "group of the volume": "45678",
        "owner of a new file": "12345:45678",
        "user of the other container": "11111",
    }
    for pod in pods:
        eventually(pod, ready, within=timeouts.pod)
        files = functools.partial(said, pod, "ls /shared", container="main")
        eventually(files, equals("new\n"), within=timeouts.request, describe=f"the volume of {pod} holds its file")
        found = _users(pod)
        wrong = {what: f"{found[what]}, not {wanted}" for what, wanted in expected.items() if found[what] != wanted}
        told = "; ".join(f"{what} is {told}" for what, told in wrong.items())
        assert not wrong, f"{pod} on {pod.spec['nodeName']}: {told}"


@pytest.mark.requires(capabilities.GROUPS_POLICY)
def test_groups_policy(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container MUST be in the groups that its image gives its user where these are to be merged, and nowhere else.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/security-context/#supplementalgroupspolicy
    """
    context: dict[str, Any] = {"runAsNonRoot": True, "runAsUser": IMAGE_USER, "runAsGroup": 23456}
    context |= {"supplementalGroups": [34567], "seccompProfile": {"type": "RuntimeDefault"}}
    pods = {}
    for policy in ("Merge", "Strict"):
        spec = {"securityContext": context | {"supplementalGroupsPolicy": policy}}
        pods[policy] = namespace.create(manifests.pod(policy.lower(), images.agnhost, args=["pause"], spec=spec))
    for pod in pods.values():
        eventually(pod, ready, within=timeouts.pod)

    for policy, pod in pods.items():
        wanted = {23456, 34567} | ({IMAGE_GROUP} if policy == "Merge" else set())
        found = set(map(int, _first_process(pod, "main")["Groups"].split())) | {23456}
        assert found == wanted, f"{pod}: with {policy} it is in the groups {sorted(found)}, not {sorted(wanted)}"
        (user,) = (each.get("user", {}).get("linux", {}) for each in pod.status["containerStatuses"])
        told = user.get("supplementalGroups", [])
        assert {*told, 23456} == wanted, f"{pod}: its status tells of the groups {told}, not {sorted(wanted)}"


def test_non_root(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container that must not be root MUST NOT be started as root.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#security-context
    """
    manifest = manifests.pod("root", images.agnhost, args=["pause"])
    # Pod Security looks at the user as well, so it is left to the image, whose user is root.
    for user in ("runAsUser", "runAsGroup"):
        del manifest["spec"]["securityContext"][user]
    pod = namespace.create(manifest)

    eventually(pod, _is_kept_from_starting, within=timeouts.pod)


def test_confinement(namespace: Namespace, some_nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A container MUST have no capabilities but those left to it, gain no privileges, and be filtered by seccomp.

    Shown on each node, of many on eight.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/security-context/
    """
    one = manifests.container("one", images.agnhost, args=["pause"])
    one["securityContext"]["capabilities"]["add"] = ["NET_BIND_SERVICE"]
    pods = [
        namespace.create(manifests.pod(f"self-{number}", images.agnhost, args=["pause"], beside=[one], node=node.name))
        for number, node in enumerate(some_nodes)
    ]
    for pod in pods:
        eventually(pod, ready, within=timeouts.pod)

    for pod, (container, capable) in product(pods, (("main", 0), ("one", NET_BIND_SERVICE))):
        status = _first_process(pod, container)
        where = f"{pod} on {pod.spec['nodeName']}, container {container}"
        bound = int(status["CapBnd"], 16)
        assert bound == capable, f"{where}: its capabilities are limited to {bound:#x}, not {capable:#x}"
        assert not int(status["CapEff"], 16) & ~capable, f"{where}: it has the capabilities {status['CapEff']}"
        assert status["NoNewPrivs"] == "1", f"{where}: allowPrivilegeEscalation is false, and NoNewPrivs is not set"
        assert status["Seccomp"] == "2", f"{where}: its seccomp mode is {status['Seccomp']}, not 2: filtered"


def test_read_only_root(namespace: Namespace, some_nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A container with readOnlyRootFilesystem MUST be able to write to its volumes only.

    Shown on each node, of many on eight.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/security-context/
    """
    other = manifests.container("other", images.agnhost, args=["pause"])
    strict = manifests.container("strict", images.agnhost, args=["pause"], mounts={"shared": "/shared"})
    strict["securityContext"]["readOnlyRootFilesystem"] = True
    spec = {"containers": [strict, other], "volumes": [{"name": "shared", "emptyDir": {}}]}
    pods = [
        namespace.create(manifests.pod(f"self-{number}", images.agnhost, node=node.name, spec=spec))
        for number, node in enumerate(some_nodes)
    ]
    for pod in pods:
        eventually(pod, ready, within=timeouts.pod)
        where = f"{pod} on {pod.spec['nodeName']}"
        said(pod, "touch /shared/here", container="strict")
        said(pod, "touch /tmp/here", container="other")
        tried = pod.exec(["touch", "/tmp/here"], container="strict")
        assert tried.code, f"{where}: its root file system is read-only, and a file was made in it"
        assert "Read-only file system" in tried.stderr, f"{where}: making a file failed with {tried.stderr}"


@pytest.mark.requires(capabilities.USERNS)
def test_user_namespace(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod without hostUsers MUST have users of its own, none of which is a user of the node.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/user-namespaces/
    """
    pods = [
        namespace.create(manifests.pod(name, images.agnhost, args=["pause"], spec={"hostUsers": False}))
        for name in ("one", "two")
    ]
    ranges = []
    for pod in pods:
        eventually(pod, ready, within=timeouts.pod)
        inside, outside, length = map(int, said(pod, "cat /proc/self/uid_map", container="main").split())
        assert inside == 0, f"{pod}: its users begin with {inside}"
        assert outside >= 65536 <= length, f"{pod}: its users 0 to {length} are {outside} and following of the node"
        ranges.append(range(outside, outside + length))
    one, two = ranges
    same_node = pods[0].spec["nodeName"] == pods[1].spec["nodeName"]
    assert not same_node or one.stop <= two.start or two.stop <= one.start, f"{pods} share users: {one}, {two}"


def _of_users(name: str, images: Images, node: Object) -> dict[str, Any]:
    """A pod on a node of which one container runs as its pod is told to, and another says who it is itself."""
    context = {
        "runAsNonRoot": True,
        "runAsUser": 12345,
        "runAsGroup": 23456,
        "supplementalGroups": [34567],
        "fsGroup": 45678,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    other = manifests.container("other", images.agnhost, args=["pause"])
    other["securityContext"] |= {"runAsUser": 11111}
    return manifests.pod(
        name,
        images.agnhost,
        command=["sh", "-c", "touch /shared/new; exec /agnhost pause"],
        node=node.name,
        volumes=[{"name": "shared", "emptyDir": {}}],
        mounts={"shared": "/shared"},
        beside=[other],
        spec={"securityContext": context},
    )


def _users(pod: Object) -> dict[str, str]:
    """Who the containers of such a pod are, and whom its files belong to."""
    # Of the container's own first process: what is run in it later is told its user once more.
    main, beside = _first_process(pod, "main"), _first_process(pod, "other")
    return {
        "user": main["Uid"].split()[0],
        "group": main["Gid"].split()[0],
        "groups": " ".join(sorted({*main["Groups"].split(), *main["Gid"].split()} & {"23456", "34567", "45678"})),
        "group of the volume": said(pod, "stat -c %g /shared", container="main").strip(),
        "owner of a new file": said(pod, "stat -c %u:%g /shared/new", container="main").strip(),
        "user of the other container": beside["Uid"].split()[0],
    }


def _first_process(pod: Object, container: str) -> dict[str, str]:
    """What the kernel tells of the process that a container was started with."""
    lines = said(pod, "cat /proc/1/status", container=container).splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _is_kept_from_starting(pod: Object) -> str | None:
    (status,) = pod.status.get("containerStatuses") or [{}]
    state: dict[str, Any] = status.get("state") or {}
    waiting = state.get("waiting") or {}
    if waiting.get("reason") == "CreateContainerConfigError" and "runAsNonRoot" in waiting.get("message", ""):
        return None
    assert "running" not in state, f"{pod}: its container runs, although its image is for root"
    return f"its container's state is {state or 'not there'}"
