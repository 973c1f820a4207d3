"""Lifecycle: in which order the containers of a pod begin and end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from clusterproof import (
    Hopeless,
    Images,
    Namespace,
    Object,
    Timeouts,
    capabilities,
    eventually,
    hollow,
    kinds,
    manifests,
    measure,
    watching,
)
from clusterproof.conditions import Condition, gone, has_condition, phase, ready, succeeded
from clusterproof.inside import said
from clusterproof.running.proving import Unsupported

DIARY = {"diary": "/diary"}
EMPTY = {"name": "diary", "emptyDir": {}}


def test_start(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod MUST start its init containers one after the other, each when the one before is done, and then the others.

    A restartable one (a sidecar) is done as soon as it has started up, and goes on. The pod is ready only when the
    postStart hook has run, too.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/init-containers/
    """
    up = {"exec": {"command": ["grep", "-q", "sidecar", "/diary/log"]}}
    sidecar = _writes("sidecar", images, "sleep 1; {}; exec /agnhost pause")
    sidecar |= {"restartPolicy": "Always", "startupProbe": {**up, "periodSeconds": 1, "failureThreshold": 60}}
    init = [
        _writes("first", images, "{}; sleep 1; echo first ends >> /diary/log"),
        sidecar,
        _writes("second", images, "{}; sleep 1; echo second ends >> /diary/log"),
    ]
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "sleep 1; echo hook >> /diary/log"]}}}
    main = _writes("main", images, "{}; exec /agnhost pause") | {"lifecycle": hook}
    spec = {"containers": [main], "initContainers": init, "volumes": [EMPTY]}
    pod = namespace.create(manifests.pod("starts", images.agnhost, spec=spec))

    eventually(pod, ready, within=timeouts.pod)

    told = pod.exec(["cat", "/diary/log"]).stdout.splitlines()
    in_order = ["first", "first ends", "sidecar", "second", "second ends"]
    assert told[:5] == in_order, f"{pod}: its init containers did {told[:5]}, not {in_order}"
    assert sorted(told[5:]) == ["hook", "main"], f"{pod} is ready when {told[5:]} had been written, not hook and main"
    sidecars = [each for each in pod.status["initContainerStatuses"] if each["name"] == "sidecar"]
    assert "running" in sidecars[0]["state"], f"{pod}: its sidecar is {sidecars[0]['state']}"


@pytest.mark.requires(capabilities.POD_STATUS)
def test_status(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod MUST tell whether its network and volumes are there, and which generation of its spec its status is about.

    One waits for a volume; of the other an init container runs, and none of the containers.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-conditions
    """
    held = namespace.create(manifests.pod("held", images.agnhost, args=["pause"], **manifests.HELD))
    spec = {"initContainers": [manifests.container("first", images.agnhost, args=["pause"])]}
    starting = namespace.create(manifests.pod("starting", images.agnhost, args=["pause"], spec=spec))

    eventually(starting, has_condition("PodReadyToStartContainers"), within=timeouts.pod)
    assert starting.condition("Initialized").get("status") == "False", f"{starting}: its init container is done"
    eventually(held, has_condition("PodReadyToStartContainers", "False"), within=timeouts.pod)
    starting.patch({"spec": {"activeDeadlineSeconds": 3600}})
    eventually(starting, _tells_of_its_generation, within=timeouts.propagation)


@pytest.mark.requires(capabilities.RESTART_RULES)
def test_restart_rules(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container MUST be restarted where a rule of its own for its exit code says so, whatever the pod's policy.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-restart-rules
    """
    script = "echo >> /diary/log; test $(wc -l < /diary/log) -gt 1 || exit 42; exit 7"
    rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
    ruled = manifests.container("ruled", images.agnhost, command=["sh", "-c", script], mounts=DIARY)
    ruled |= {"restartPolicy": "Never", "restartPolicyRules": rules}
    spec = {"containers": [ruled], "volumes": [EMPTY]}
    pod = namespace.create(manifests.pod("ruled", images.agnhost, restart_policy="Never", spec=spec))
    if "restartPolicyRules" not in pod.spec["containers"][0]:
        raise Unsupported.dropped("restartPolicyRules", "ContainerRestartRules")

    eventually(pod, phase("Failed"), within=timeouts.recovery)

    (told,) = pod.status["containerStatuses"]
    seen = told["restartCount"], told["state"]["terminated"]["exitCode"]
    assert seen == (1, 7), f"{pod}: after {seen[0]} restarts its container ended with {seen[1]}, not with 7 after one"


def test_command(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container MUST be started with the command, the arguments and the working directory that its pod gives it.

    Variables in them are replaced by their values, unless they are escaped.

    Source: https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/
    """
    command = ["sh", "-c", "trap 'exit 0' TERM; sleep 86400 & wait"]
    given: dict[str, Any] = {"command": command, "args": ["idle", "$(WORD)", "$$(WORD)"], "env": {"WORD": "two words"}}
    pod = namespace.create(manifests.pod("told", images.agnhost, container={"workingDir": "/tmp"}, **given))
    eventually(pod, ready, within=timeouts.pod)

    started = said(pod, "cat /proc/1/cmdline").split("\0")[:-1]
    told = [*command, "idle", "two words", "$(WORD)"]
    assert started == told, f"{pod}: its container was started as {started}, not {told}"
    found = said(pod, "readlink /proc/1/cwd").strip()
    assert found == "/tmp", f"{pod}: its container was started in {found}, not in its working directory /tmp"


def test_end(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod that is deleted MUST run its preStop hooks, then end its containers by SIGTERM, and at last its sidecars.

    The sidecars are ended one by one, the one that was started last first. What each container leaves as its
    termination message tells the order.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
    """
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo preStop >> /diary/log; sleep 1"]}}}
    polite = _traps("polite", images, "echo TERM >> /diary/log; exit 3") | {"lifecycle": hook}
    leave = "echo {} >> /diary/log; cat /diary/log > /dev/termination-log; exit 0"
    sidecars = [_traps(name, images, leave.format(name)) | {"restartPolicy": "Always"} for name in ("one", "two")]
    spec = {"containers": [polite], "initContainers": sidecars, "volumes": [EMPTY]}
    # When the time is up, nobody waits for anybody any more: there is plenty of it.
    pod = namespace.create(manifests.pod("ends", images.agnhost, grace=round(timeouts.pod_end), spec=spec))
    eventually(pod, ready, within=timeouts.pod)

    ended, _ = _ended(namespace, pod, timeouts.pod_end)

    assert sorted(ended) == ["one", "polite", "two"], f"{pod} was gone when only {sorted(ended)} had ended"
    codes = {name: ended[name]["exitCode"] for name in ended}
    assert codes == {"polite": 3, "one": 0, "two": 0}, f"{pod}: exit codes are {codes}, some not of SIGTERM"
    told = ended["one"].get("message", "").split()
    assert told == ["preStop", "TERM", "two", "one"], f"{pod}: its containers were told to end as {told}"


def test_hooks(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A hook that asks by HTTP MUST ask as it is told, and a hook that sleeps hold back the end for so many seconds.

    A sidecar that is there before tells what it was asked.

    Source: https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/#hook-handler-implementations
    """
    seconds = 4
    up = manifests.http_probe(failures=60)
    sidecar = manifests.container("sidecar", images.agnhost, args=["netexec"], restartPolicy="Always", startupProbe=up)
    hooks = {
        "postStart": {"httpGet": {"port": 8080, "path": "/echo?msg=started"}},
        "preStop": {"sleep": {"seconds": seconds}},
    }
    main = manifests.container("main", images.agnhost, args=["pause"], lifecycle=hooks)
    spec = {"containers": [main], "initContainers": [sidecar]}
    pod = namespace.create(manifests.pod("hooked", images.agnhost, grace=round(timeouts.pod_end), spec=spec))
    eventually(pod, ready, within=timeouts.pod)

    what = f"the sidecar of {pod} is asked by its postStart hook"
    eventually(lambda: pod.logs("sidecar"), _has("/echo?msg=started"), within=timeouts.request, describe=what)
    ended, asked = _ended(namespace, pod, timeouts.pod_end)
    lasted = _moment(ended["main"]["finishedAt"]) - asked
    # Both moments are told in whole seconds.
    assert lasted >= seconds - 1, f"{pod}: its preStop hook sleeps for {seconds} s, and it ended after {lasted:g} s"


def test_grace(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container that does not end when it is told to MUST be killed when the pod's grace period is over, not before.

    Nor much later.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination-forced
    """
    grace = 8
    stubborn = _traps("stubborn", images, "echo ignored")
    spec = {"containers": [stubborn], "volumes": [EMPTY]}
    pod = namespace.create(manifests.pod("stays", images.agnhost, grace=grace, spec=spec))
    eventually(pod, ready, within=timeouts.pod)

    ended, deleted = _ended(namespace, pod, grace + timeouts.pod_end)

    assert ended["stubborn"]["exitCode"] == 137, f"{pod}: its container ended as {ended['stubborn']}, not by SIGKILL"
    lasted = _moment(ended["stubborn"]["finishedAt"]) - deleted
    measure("time until a container that ignores SIGTERM is killed (s)", lasted)
    # Both moments are told in whole seconds.
    told = f"{pod}: a container was killed after {lasted:g} s, its grace period is {grace} s"
    assert grace - 1 <= lasted <= grace + timeouts.object, told


def test_back_off(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container that fails again and again MUST be restarted, each time after a longer pause.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy
    """
    pod = namespace.create(manifests.pod("fails", images.agnhost, command=["sh", "-c", "echo failed; exit 1"]))

    seen: list[dict[str, Any]] = []
    eventually(pod, _has_run_thrice(seen), within=timeouts.recovery)

    pauses = _pauses(seen)
    measure("pause before the second restart (s)", pauses[1])
    assert pauses[0] < pauses[1] > 3, f"{pod}: the pauses before its restarts are {pauses} s, and should grow"
    notes = namespace.select(kinds.EVENT, fields=f"involvedObject.uid={pod.uid},reason=BackOff")
    eventually(notes, _tell_of("back-off restarting failed container"), within=timeouts.object)


def test_last_words(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """What a container leaves as its termination message MUST be in its status, or else its log's end where asked for.

    The log is for containers that have failed only.

    Source: https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
    """
    log = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "writes": ("echo log; echo file > /tmp/words", {"terminationMessagePath": "/tmp/words"}),
        "fails": ("echo log; exit 1", log),
        "ends": ("echo log", log),
        "silent": ("echo log; exit 1", {}),
    }
    containers = [
        manifests.container(name, images.agnhost, command=["sh", "-c", script], **more)
        for name, (script, more) in ways.items()
    ]
    spec = {"containers": containers, "restartPolicy": "Never"}
    pod = namespace.create(manifests.pod("ends", images.agnhost, spec=spec))

    eventually(pod, phase("Failed"), within=timeouts.pod)

    ended = {each["name"]: each["state"]["terminated"] for each in pod.status["containerStatuses"]}
    words = {name: each.get("message", "").strip() for name, each in ended.items()}
    expected = {"writes": "file", "fails": "log", "ends": "", "silent": ""}
    assert words == expected, f"{pod}: the termination messages of its containers are {words}, not {expected}"


def test_active_deadline(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod MUST fail when it has been active for activeDeadlineSeconds, not before, and its containers end.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#lifecycle
    """
    seconds = 8
    limit = {"activeDeadlineSeconds": seconds}
    created = time.monotonic()
    pod = namespace.create(manifests.pod("late", images.agnhost, args=["pause"], spec=limit))

    eventually(pod, phase("Failed"), within=seconds + timeouts.pod)
    lasted = time.monotonic() - created

    assert pod.status.get("reason") == "DeadlineExceeded", f"{pod} failed, and says why as {pod.status.get('reason')}"
    # It is active from a whole second on.
    assert lasted >= seconds - 1, f"{pod} may be active for {seconds} s, and failed {lasted:.1f} s after its creation"
    eventually(pod, _has_ended, within=timeouts.pod_end)


def test_restart_on_failure(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container with restart policy OnFailure MUST be restarted when it has failed, and not when it has succeeded.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy
    """
    main = _writes("main", images, "test -e /diary/log && sleep 1 && exit 0; {}; exit 3")
    spec = {"containers": [main], "volumes": [EMPTY], "restartPolicy": "OnFailure"}
    pod = namespace.create(manifests.pod("tries", images.agnhost, spec=spec))

    with watching(namespace.pods("app=tries")) as history:
        eventually(pod, succeeded, within=timeouts.pod + timeouts.recovery)

    # At its end a kubelet may have forgotten the run before already.
    told = [each for (state,) in filter(None, history.states) for each in state.status.get("containerStatuses") or []]
    codes = {end["exitCode"] for each in told for end in _ends(each)}
    seen = told[-1]["restartCount"], codes
    assert seen == (1, {3, 0}), f"{pod}: its container failed with 3, then succeeded, and its statuses tell of {seen}"


def test_shared_processes(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """Containers of a pod with shareProcessNamespace MUST see each other's processes.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/share-process-namespace/
    """
    other = manifests.container("other", images.agnhost, command=["sleep", "98765"])
    share = {"shareProcessNamespace": True}
    pod = namespace.create(manifests.pod("shared", images.agnhost, args=["pause"], beside=[other], spec=share))
    eventually(pod, ready, within=timeouts.pod)

    # Some of them end while one looks at them.
    look = "for each in /proc/[0-9]*; do tr '\\0' ' ' < $each/cmdline; echo; done 2> /dev/null; true"
    for container, wanted in (("main", "sleep 98765"), ("other", "agnhost pause")):
        seen = [line.strip() for line in said(pod, look, container=container).splitlines() if line.strip()]
        there = any(wanted in line for line in seen)
        assert there, f"{pod}: container {container} does not see {wanted!r} of the other one, but only {seen}"


@pytest.mark.first
def test_orphan(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod whose node does not exist MUST be removed, although no kubelet says that it has ended.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection
    """
    nowhere = {"nodeName": f"{namespace}-none"}
    pod = namespace.create(manifests.pod("orphan", images.agnhost, args=["pause"], spec=nowhere))
    try:
        eventually(pod, gone, within=timeouts.node_loss)
    finally:
        hollow.end(pod)


def _ends(container: dict[str, Any]) -> list[dict[str, Any]]:
    """How the runs of a container ended of which its status tells: this one, and the one before."""
    return [end for state in ("state", "lastState") if (end := container[state].get("terminated"))]


def _pauses(history: Iterable[dict[str, Any]]) -> list[float]:
    """Seconds between the runs of a pod's only container, which ends at once, from all its statuses.

    A kubelet need not tell of the end of a run when the next one is over, too.
    """
    runs: dict[str, tuple[float, float]] = {}
    for each in (each for status in history for each in status.get("containerStatuses") or []):
        for run in _ends(each):
            runs[run["containerID"]] = _moment(run["startedAt"]), _moment(run["finishedAt"])
        if run := each["state"].get("running"):
            began = _moment(run["startedAt"])
            runs.setdefault(each["containerID"], (began, began))
    return [after[0] - before[1] for before, after in pairwise(sorted(runs.values()))]


def _tell_of(what: str) -> Callable[[list[Object]], str | None]:
    def tell_of(notes: list[Object]) -> str | None:
        told = [note["message"] for note in notes]
        return None if any(what in message.lower() for message in told) else f"they tell {told or 'nothing'}"

    tell_of.__name__ = f"tell of {what!r}"
    return tell_of


def _writes(name: str, images: Images, script: str) -> dict[str, Any]:
    """A container that writes its name, {}, into the diary."""
    command = ["sh", "-c", script.format(f"echo {name} >> /diary/log")]
    return manifests.container(name, images.agnhost, command=command, mounts=DIARY)


def _traps(name: str, images: Images, at_end: str) -> dict[str, Any]:
    """A container that does this when it is told to end; it is ready when it would."""
    script = f"trap '{at_end}' TERM; touch /tmp/set; while :; do sleep 0.1; done"
    probe = {"exec": {"command": ["test", "-e", "/tmp/set"]}, "periodSeconds": 1, "failureThreshold": 60}
    more: dict[str, Any] = {"startupProbe": probe}
    return manifests.container(name, images.agnhost, command=["sh", "-c", script], mounts=DIARY, **more)


def _ended(namespace: Namespace, pod: Object, within: float) -> tuple[dict[str, Any], float]:
    """How the containers of a pod ended when it was deleted, by name; and when that was asked for."""
    with watching(namespace.pods(f"app={pod.name}")) as history:
        pod.delete()
        eventually(pod, gone, within=within)
    ended: dict[str, Any] = {}
    asked = 0.0
    for (state,) in (state for state in history.states if state):
        if state.deleting and not asked:
            asked = _moment(state.metadata["deletionTimestamp"]) - state.metadata["deletionGracePeriodSeconds"]
        for each in [*state.status["containerStatuses"], *state.status.get("initContainerStatuses", [])]:
            ended |= {each["name"]: each["state"]["terminated"]} if "terminated" in each["state"] else {}
    return ended, asked


def _has_ended(pod: Object) -> str | None:
    """None of its containers runs: those that never did cannot be told apart from those that have yet to be started."""
    running = [each["name"] for each in pod.status.get("containerStatuses") or [] if "running" in each["state"]]
    return f"{', '.join(running)} still runs" if running else None


def _has_run_thrice(seen: list[dict[str, Any]]) -> Condition:
    """It has told of three runs of its container; adds all its statuses to those that were seen.

    On a busy node that takes more than two restarts: when the next run is over, too, nobody is told of the one before.
    """

    def run_thrice(pod: Object) -> str | None:
        if (phase := pod.status.get("phase")) in ("Succeeded", "Failed"):
            raise Hopeless(f"its phase is {phase}")
        seen.append(pod.status)
        times = len(_pauses(seen)) + 1
        count = pod.status.get("containerStatuses", [{}])[0].get("restartCount", 0)
        return None if times >= 3 else f"it was restarted {count} times, and has told of {times} runs at most"

    run_thrice.__name__ = "has told of three runs of its container"
    return run_thrice


def _has(words: str) -> Callable[[str], str | None]:
    """A log has these words in it."""

    def has(log: str) -> str | None:
        return None if words in log else f"its log ends with {log.splitlines()[-2:]}, and has no {words}"

    return has


def _tells_of_its_generation(pod: Object) -> str | None:
    """A pod's spec was changed, and its status is about what it is now."""
    wanted: int = pod.metadata.get("generation", 0)
    told = pod.status.get("observedGeneration")
    return None if told == wanted > 1 else f"its generation is {wanted}, and its status is about {told}"


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
