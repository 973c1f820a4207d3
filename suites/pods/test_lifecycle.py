"""Lifecycle: in which order the containers of a pod begin and end."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any

from clusterproof import Hopeless, Images, Namespace, Object, Timeouts, eventually, manifests, measure, watching
from clusterproof.conditions import gone, ready

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


def test_end(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod that is deleted MUST be given its grace period: preStop, then SIGTERM, at last SIGKILL; then its sidecars.

    The sidecars are ended one by one, the one that was started last first. What each container leaves as its
    termination message tells the order.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
    """
    grace = 6
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo preStop >> /diary/log; sleep 1"]}}}
    polite = _traps("polite", images, "echo TERM >> /diary/log; exit 3") | {"lifecycle": hook}
    stubborn = _traps("stubborn", images, "echo ignored >> /dev/null")
    leave = "echo {} >> /diary/log; cat /diary/log > /dev/termination-log; exit 0"
    sidecars = [_traps(name, images, leave.format(name)) | {"restartPolicy": "Always"} for name in ("one", "two")]
    spec = {"containers": [polite, stubborn], "initContainers": sidecars, "volumes": [EMPTY]}
    pod = namespace.create(manifests.pod("ends", images.agnhost, grace=grace, spec=spec))
    eventually(pod, ready, within=timeouts.pod)

    with watching(namespace.pods("app=ends")) as history:
        pod.delete()
        eventually(pod, gone, within=grace + timeouts.pod_end)

    ended: dict[str, Any] = {}
    for (last,) in (state for state in history.states if state):
        for each in [*last.status["containerStatuses"], *last.status["initContainerStatuses"]]:
            ended |= {each["name"]: each["state"]["terminated"]} if "terminated" in each["state"] else {}
    assert sorted(ended) == ["one", "polite", "stubborn", "two"], f"{pod} was gone when only {sorted(ended)} had ended"
    codes = {name: ended[name]["exitCode"] for name in ended}
    assert codes == {"polite": 3, "stubborn": 137, "one": 0, "two": 0}, f"{pod}: exit codes are {codes}"
    told = ended["one"].get("message", "").split()
    assert told == ["preStop", "TERM", "two", "one"], f"{pod}: its containers were told to end as {told}"
    lasted = _moment(ended["stubborn"]["finishedAt"]) - _moment(last.metadata["deletionTimestamp"]) + grace
    measure("time until a container that ignores SIGTERM is killed (s)", lasted)
    # Both moments are told in whole seconds.
    assert lasted > grace / 2, f"{pod}: a container was killed after {lasted:g} s, its grace period is {grace} s"


def test_back_off(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container that fails again and again MUST be restarted, each time after a longer pause.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy
    """
    pod = namespace.create(manifests.pod("fails", images.agnhost, command=["sh", "-c", "echo failed; exit 1"]))

    with watching(namespace.pods("app=fails")) as history:
        eventually(pod, _restarted(2), within=timeouts.recovery)

    runs: dict[str, tuple[float, float]] = {}
    reasons = set()
    for (state,) in (state for state in history.states if state):
        for each in state.status.get("containerStatuses") or []:
            reasons.add((each["state"].get("waiting") or {}).get("reason"))
            for run in (each["state"].get("terminated"), each["lastState"].get("terminated")):
                if run:
                    runs[run["containerID"]] = _moment(run["startedAt"]), _moment(run["finishedAt"])
            if run := each["state"].get("running"):
                runs.setdefault(each["containerID"], (_moment(run["startedAt"]), 0))
    pauses = [after[0] - before[1] for before, after in pairwise(sorted(runs.values()))]
    measure("pause before the second restart (s)", pauses[1])
    assert "CrashLoopBackOff" in reasons, f"{pod}: it never waited as CrashLoopBackOff, only as {reasons}"
    assert pauses[0] < pauses[1] > 3, f"{pod}: the pauses before its restarts are {pauses} s, and should grow"


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


def _restarted(times: int) -> Any:
    def restarted(pod: Object) -> str | None:
        if (phase := pod.status.get("phase")) in ("Succeeded", "Failed"):
            raise Hopeless(f"its phase is {phase}")
        count = pod.status.get("containerStatuses", [{}])[0].get("restartCount", 0)
        return None if count >= times else f"it was restarted {count} times"

    restarted.__name__ = f"is restarted {times} times"
    return restarted


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
