"""Interactive: looking into a running pod, speaking to it, and taking things out of it."""

from __future__ import annotations

import base64
import io
import secrets
import tarfile
from typing import Any

from clusterproof import Images, Namespace, Object, Timeouts, eventually, manifests
from clusterproof.conditions import Condition, ready

TALK = """
if [ -e /shared/again ]; then echo second run; exec /agnhost pause >/dev/null 2>&1; fi
touch /shared/again; seq 100; echo complain >&2
until [ -e /shared/more ]; do sleep 0.2; done; echo late; exit 1
"""
"""Says something while its log is followed, ends once when told to, and says something else the second time."""


def test_logs(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """What a container prints MUST be told in whole, from its end, of late, as it comes, and after its restart.

    Source: https://kubernetes.io/docs/concepts/cluster-administration/logging/
    """
    shared: dict[str, Any] = {"volumes": [{"name": "shared", "emptyDir": {}}], "mounts": {"shared": "/shared"}}
    pod = namespace.create(manifests.pod("talks", images.agnhost, command=["sh", "-c", TALK], **shared))
    eventually(pod, ready, within=timeouts.pod)
    lines = [*map(str, range(1, 101)), "complain"]
    eventually(lambda: sorted(pod.logs().split()), _is(sorted(lines), f"the log of {pod}"), within=timeouts.request)
    assert pod.logs(tail=3).split() == pod.logs().split()[-3:], f"{pod}: its last 3 lines are {pod.logs(tail=3)}"
    stamped = [line.partition(" ") for line in pod.logs(timestamps=True).splitlines()]
    assert all(moment.endswith("Z") for moment, *_ in stamped), f"{pod}: its lines with their times are {stamped}"
    assert sorted(line for *_, line in stamped) == sorted(lines), f"{pod}: its lines with their times are {stamped}"

    options = {"follow": True, "tailLines": 1}
    follow = pod.client.clone().stream(f"{pod.path}/log", options, within=timeouts.recovery)
    before = [next(follow)]
    assert pod.exec(["touch", "/shared/more"]).code == 0
    after = list(follow)
    assert after == ["late"], f"{pod}: who follows its log hears {after} after {before}, not late, and then the end"

    eventually(pod, _restarted(1), within=timeouts.recovery)
    eventually(lambda: pod.logs(), _is("second run\n", f"the log of {pod}"), within=timeouts.request)
    previous = _before_the_restart(pod, timeouts)
    assert sorted(previous) == sorted([*lines, "late"]), f"{pod}: the log before its restart ends with {previous[-3:]}"
    recent = pod.logs(since=3600)
    assert recent == "second run\n", f"{pod}: of the last hour its log tells {recent!r}"
    eventually(lambda: pod.logs(since=1), _is("", f"the last second of the log of {pod}"), within=timeouts.request)


def test_exec(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A command in a container MUST be given its input and terminal, and tell its output, errors and exit code.

    Source: https://kubernetes.io/docs/tasks/debug/debug-application/get-shell-running-container/
    """
    other = manifests.container("other", images.agnhost, args=["pause"], env={"WHO": "other"})
    pod = namespace.create(manifests.pod("runs", images.agnhost, args=["pause"], env={"WHO": "main"}, beside=[other]))
    eventually(pod, ready, within=timeouts.pod)

    result = pod.exec(["sh", "-c", "echo $WHO; echo wrong >&2; exit 7"], container="other")
    assert tuple(result) == ("other\n", "wrong\n", 7), f"{pod}: exec answers {result}, not other, wrong and 7"
    text = secrets.token_hex(100_000)
    result = pod.exec(["cat"], container="main", stdin=text)
    assert result.stdout == text, (
        f"{pod}: of {len(text)} characters that cat was given, it returned {len(result.stdout)}"
    )
    result = pod.exec(["sh", "-c", "test -t 1 && echo terminal"], container="main", tty=True)
    assert (result.stdout, result.code) == ("terminal\r\n", 0), f"{pod}: with a terminal, exec answers {result}"
    result = pod.exec(["sh", "-c", "test -t 1 || echo none"], container="main")
    assert result.stdout == "none\n", f"{pod}: without a terminal, exec answers {result}"


def test_attach(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """Whoever attaches to a container MUST be heard by it, and hear it until it ends.

    Source: https://kubernetes.io/docs/reference/kubectl/generated/kubectl_attach/
    """
    script = "while read -r line; do echo heard $line; done; echo the end"
    pod = namespace.create(
        manifests.pod(
            "listens",
            images.agnhost,
            command=["sh", "-c", script],
            restart_policy="Never",
            container={"stdin": True, "stdinOnce": True},
        )
    )
    eventually(pod, ready, within=timeouts.pod)

    told = pod.attach("this\nand that\n", within=timeouts.pod).stdout.splitlines()

    assert told == ["heard this", "heard and that", "the end"], f"{pod}: who attaches to it hears {told}"


def test_copy(visitor: Object) -> None:
    """Files that are copied into a container and out again MUST be the same, with their modes.

    As `kubectl cp` does it: an archive through the input and output of tar.

    Source: https://kubernetes.io/docs/reference/kubectl/generated/kubectl_cp/
    """
    content = base64.b64encode(secrets.token_bytes(300_000))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data, mode in (("large", content, 0o640), ("small", b"#!/bin/sh\necho it runs\n", 0o750)):
            member = tarfile.TarInfo(f"copied/{name}")
            member.size, member.mode = len(data), mode
            tar.addfile(member, io.BytesIO(data))

    result = visitor.exec(["tar", "-xmof", "-", "-C", "/tmp"], stdin=archive.getvalue().decode("ascii"))
    assert result.code == 0, f"{visitor}: tar ended with {result.code}: {result.stderr}"
    result = visitor.exec(["/tmp/copied/small"])
    assert result.stdout == "it runs\n", f"{visitor}: the copied program answers {result}"
    result = visitor.exec(["tar", "-cf", "-", "-C", "/tmp", "copied/large"])
    assert result.code == 0, f"{visitor}: tar ended with {result.code}: {result.stderr}"
    with tarfile.open(fileobj=io.BytesIO(result.stdout.encode("ascii"))) as tar:
        found = tar.getmember("copied/large")
        extracted = tar.extractfile(found)
        assert extracted is not None
        assert extracted.read() == content, f"{visitor}: the copied file came back changed"
        assert found.mode == 0o640, f"{visitor}: the mode of the copied file is {found.mode:o}, not 640"


def test_port_forward(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A port of a pod that is forwarded MUST be reached, also one that listens inside the pod only.

    Source: https://kubernetes.io/docs/tasks/access-application-cluster/port-forward-access-application-cluster/
    """
    private = ["bash", "-c", "while :; do echo private hello | nc -l -s 127.0.0.1 -p 9000; done"]
    inner = manifests.container("inner", images.agnhost, command=private)
    # A probe of the port itself could not reach it, and would take the one answer.
    listens = ["sh", "-c", "ss -ltn | grep -q 127.0.0.1:9000"]
    inner["readinessProbe"] = {"exec": {"command": listens}, "periodSeconds": 1}
    pod = namespace.create(
        manifests.pod("serves", images.agnhost, args=["netexec"], readiness=manifests.http_probe(), beside=[inner])
    )
    eventually(pod, ready, within=timeouts.pod)

    request = b"GET /hostname HTTP/1.1\r\nHost: serves\r\nConnection: close\r\n\r\n"
    answer = pod.forward(8080, request, until=b"serves", within=timeouts.request)
    assert answer.startswith(b"HTTP/1.1 200 OK"), f"{pod}: its forwarded port answers {answer!r}"
    told = pod.forward(9000, b"\n", until=b"hello", within=timeouts.request)
    assert told.strip() == b"private hello", f"{pod}: its private port answers {told!r}"


def test_proxy(namespace: Namespace, some_nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """Web requests to a pod's or a Service's proxy MUST be passed on to it, and what it answers be handed back.

    Shown on each node, of many on eight.

    Source: https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/
    """
    serving: dict[str, Any] = {"args": ["netexec"], "labels": {"set": "all"}, "readiness": manifests.http_probe()}
    pods = [
        namespace.create(manifests.pod(f"serves-{number}", images.agnhost, node=node.name, **serving))
        for number, node in enumerate(some_nodes)
    ]
    service = namespace.create(manifests.service("all", selector={"set": "all"}))

    for pod in pods:
        eventually(pod, ready, within=timeouts.pod)
        answer = pod.proxy("/echo?msg=hello&code=202", 8080)
        where = f"{pod} on {pod.spec['nodeName']}"
        assert (answer.status, answer.text) == (202, "hello"), (
            f"{where}: its proxy answers {answer.status} {answer.text}"
        )
    eventually(
        lambda: service.proxy("/hostname", "main").text,
        lambda told: None if told in {pod.name for pod in pods} else f"it is answered {told[:200]}",
        within=timeouts.propagation,
        describe=f"a request to the proxy of {service}",
    )


def test_debug_container(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container that is added to a running pod for debugging MUST see its network and the target's processes.

    Source: https://kubernetes.io/docs/tasks/debug/debug-application/debug-running-pod/#ephemeral-container
    """
    pod = namespace.create(manifests.pod("runs", images.agnhost, args=["netexec"], readiness=manifests.http_probe()))
    eventually(pod, ready, within=timeouts.pod)

    debugger = manifests.container("debugger", images.agnhost, args=["pause"], targetContainerName="main")
    pod.patch({"spec": {"ephemeralContainers": [debugger]}}, type="strategic", subresource="ephemeralcontainers")
    eventually(pod, _debugged, within=timeouts.pod)

    told = pod.exec(["curl", "--silent", "localhost:8080/hostname"], container="debugger").stdout
    assert told == "runs", f"{pod}: in its debugging container, its own port answers {told!r}"
    told = pod.exec(["sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline"], container="debugger").stdout
    assert "netexec" in told, f"{pod}: the first process that its debugging container sees is {told!r}"
    eventually(pod, ready, within=timeouts.propagation)
    (main,) = pod.status["containerStatuses"]
    assert main["restartCount"] == 0, f"{pod} was restarted when it got its debugging container"


def _is(wanted: Any, what: str) -> Any:
    def is_(found: Any) -> str | None:
        return None if found == wanted else f"it is {str(found)[-200:]!r}, not {str(wanted)[-200:]!r}"

    is_.__name__ = f"{what} is what was said"
    return is_


def _before_the_restart(pod: Object, timeouts: Timeouts) -> list[str]:
    """What the container said that was there before; of a second one, where that of the first is lost."""
    said = pod.logs(previous=True).split()
    if said[:1] != ["unable"]:
        return said
    # A kubelet that tidies up just when the next container is made removes the one that has ended; not twice.
    pod.exec(["sh", "-c", "rm /shared/again; kill 1"])
    eventually(pod, _restarted(3), within=timeouts.recovery)
    return pod.logs(previous=True).split()


def _restarted(times: int) -> Condition:
    def restarted(pod: Object) -> str | None:
        (status,) = pod.status["containerStatuses"]
        count = status["restartCount"]
        return (
            None if count == times and "running" in status["state"] else f"it was restarted {count} times, not {times}"
        )

    return restarted


def _debugged(pod: Object) -> str | None:
    states = [each["state"] for each in pod.status.get("ephemeralContainerStatuses") or []]
    return (
        None if any("running" in state for state in states) else f"its debugging container is {states or 'not there'}"
    )
