"""Probes: the cluster asks containers how they are, and does what the answers mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from clusterproof import Images, Namespace, Object, Timeouts, consistently, eventually, kinds, manifests
from clusterproof.certificates import self_signed
from clusterproof.conditions import Condition, all_ready, endpoints, has_condition, ready, running
from clusterproof.inside import said

_SERVE = """
trap 'exit 0' TERM; touch /tmp/well
/agnhost "$@" & echo $! > /tmp/server
while :; do sleep 0.2; done
"""

_LISTEN = r"""
mkfifo /tmp/answer
case $(hostname -i) in *:*) family=-6;; *) family=-4;; esac
while :; do
    cat /tmp/answer | nc $family -l -N 9001 | {
        while read -r line && [ "${line%$'\r'}" ]; do echo "${line%$'\r'}" >> /tmp/asked; done
        printf 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' > /tmp/answer
    }
done
"""
"""Answers requests, one after the other, and writes down what was asked."""


class Way(NamedTuple):
    """A kind of probe, and how a container is made to fail it and to pass it again."""

    arguments: list[str]
    asks: dict[str, Any]
    fail: str
    mend: str


_GONE, _BACK = "rm /tmp/well", "touch /tmp/well"
_AGAIN = "/agnhost netexec --http-port=9002 --udp-port=-1 > /dev/null 2>&1 &"
_WAYS = {
    "http": Way(
        ["test-webserver", "--port=9001"], {"httpGet": {"port": 9001, "path": "/tmp/well"}}, fail=_GONE, mend=_BACK
    ),
    "tcp": Way(
        ["netexec", "--http-port=9002", "--udp-port=-1"],
        {"tcpSocket": {"port": 9002}},
        fail="kill -9 $(cat /tmp/server)",
        mend=_AGAIN,
    ),
    "exec": Way(["pause"], {"exec": {"command": ["test", "-e", "/tmp/well"]}}, fail=_GONE, mend=_BACK),
    "grpc": Way(
        ["grpc-health-checking", "--port=9004", "--http-port=9005"],
        {"grpc": {"port": 9004}},
        fail="curl --silent --fail localhost:9005/make-not-serving",
        mend="curl --silent --fail localhost:9005/make-serving",
    ),
}


def test_readiness(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod of which a readiness probe fails MUST leave its Services, come back with it, and never be restarted.

    It has a container for each kind of probe: http, tcp, exec and grpc.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/probes/#readiness-probe
    """
    service = namespace.create(manifests.service("web", port=9001, target=9001))
    slices = namespace.select(kinds.ENDPOINT_SLICE, f"kubernetes.io/service-name={service.name}")
    web = namespace.create(_of_each_kind("web", images, "readinessProbe"))
    eventually(web, ready, within=timeouts.pod)
    eventually(slices, endpoints(1), within=timeouts.object)

    for name, way in _WAYS.items():
        said(web, way.fail, container=name)
    eventually(web, _containers(ready=False, restarts=0), within=timeouts.propagation)
    eventually(web, has_condition("Ready", "False", "ContainersNotReady"), within=timeouts.object)
    eventually(slices, endpoints(0), within=timeouts.object)

    for name, way in _WAYS.items():
        said(web, way.mend, container=name)
    eventually(web, _containers(ready=True, restarts=0), within=timeouts.propagation)
    eventually(slices, endpoints(1), within=timeouts.object)


def test_timeout(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A probe that is not answered within its timeoutSeconds MUST count as failed.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/#configure-probes
    """
    hangs = {"exec": {"command": ["sh", "-c", "test -e /tmp/well || sleep 600"]}}
    command = ["sh", "-c", "touch /tmp/well; exec /agnhost pause"]
    seconds, failures = 3, 2
    probe = _probe(hangs, failures=failures) | {"timeoutSeconds": seconds}
    pod = namespace.create(manifests.pod("hangs", images.agnhost, command=command, readiness=probe))
    eventually(pod, ready, within=timeouts.pod)

    said(pod, _GONE)

    late = failures * (seconds + 1) + timeouts.propagation
    eventually(pod, has_condition("Ready", "False", "ContainersNotReady"), within=late)


def test_liveness(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container of which the liveness probe fails MUST be restarted, and none of the others.

    There is a container for each kind of probe, and one that is well all the time.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/probes/#liveness-probe
    """
    well = _container("well", images, _WAYS["exec"], "livenessProbe")
    web = namespace.create(_of_each_kind("web", images, "livenessProbe", well))
    eventually(web, ready, within=timeouts.pod)

    for name, way in _WAYS.items():
        said(web, way.fail, container=name)

    eventually(web, _containers(ready=True, restarts=1), within=timeouts.recovery)
    (untouched,) = (each for each in web.status["containerStatuses"] if each["name"] == "well")
    assert untouched["restartCount"] == 0, f"{web}: its container that is well was restarted"
    assert web.status["phase"] == "Running"


def test_failure_threshold(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container MUST NOT be restarted before its liveness probe has failed failureThreshold times in a row.

    The probe counts how often it is asked, in a file that outlives the container, and fails the first two times.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/#configure-probes
    """
    script = "echo >> /count/asked; test $(wc -l < /count/asked) -gt 2"
    # One that is late by half a minute has not failed, however busy the node is.
    probe = _probe({"exec": {"command": ["sh", "-c", script]}}, failures=3) | {"timeoutSeconds": 30}
    volume: dict[str, Any] = {"volumes": [{"name": "count", "emptyDir": {}}], "mounts": {"count": "/count"}}
    pod = namespace.create(manifests.pod("shaky", images.agnhost, args=["pause"], liveness=probe, **volume))
    eventually(pod, running, within=timeouts.pod)

    def asked() -> int:
        restarts = pod.read().status["containerStatuses"][0]["restartCount"]
        assert not restarts, f"{pod} was restarted {restarts} times; its probe failed twice, and may fail 3 times"
        return len(pod.exec(["cat", "/count/asked"]).stdout.splitlines())

    what = f"{pod} is asked how it is by its probe"
    eventually(asked, _at_least(5), within=timeouts.recovery, describe=what)
    asked()


def test_success_threshold(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container MUST NOT be ready before its readiness probe has succeeded successThreshold times in a row.

    The probe counts how often it is asked, and fails the third time only.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/#configure-probes
    """
    script = "echo >> /tmp/asked; test $(wc -l < /tmp/asked) -ne 3"
    probe = _probe({"exec": {"command": ["sh", "-c", script]}}) | {"timeoutSeconds": 30, "successThreshold": 3}
    pod = namespace.create(manifests.pod("shaky", images.agnhost, args=["pause"], readiness=probe))

    eventually(pod, ready, within=timeouts.pod)

    asked = len(pod.exec(["cat", "/tmp/asked"]).stdout.splitlines())
    assert asked >= 6, f"{pod} is ready after {asked} answers of its probe, of which 3 in a row are good by the 6th"


def test_http_request(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A probe by HTTP MUST ask for its path, with its headers, and by TLS where it says so, whoever is certified there.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/#http-probes
    """
    namespace.create(manifests.tls_secret("other", *self_signed("other.example")))
    headers = {"Host": "own.example", "User-Agent": "prober", "X-Clusterproof": "yes"}
    listed = [{"name": name, "value": value} for name, value in headers.items()]
    probes = [
        _probe({"httpGet": {"port": 9001, "path": "/well?how=so", "httpHeaders": listed}}),
        _probe({"httpGet": {"port": 9002, "path": "/hostname", "scheme": "HTTPS"}}),
    ]
    files = ["--tls-cert-file=/tls/tls.crt", "--tls-private-key-file=/tls/tls.key"]
    options: dict[str, Any] = {"args": ["netexec", "--http-port=9002", "--udp-port=-1", *files]}
    safe = manifests.container("safe", images.agnhost, mounts={"tls": "/tls"}, readinessProbe=probes[1], **options)
    volume = {"name": "tls", "secret": {"secretName": "other"}}
    parts: dict[str, Any] = {"command": ["bash", "-c", _LISTEN], "beside": [safe], "volumes": [volume]}
    pod = namespace.create(manifests.pod("asked", images.agnhost, readiness=probes[0], **parts))

    eventually(pod, ready, within=timeouts.pod)

    asked = set(said(pod, "cat /tmp/asked", container="main").splitlines())
    wanted = {"GET /well?how=so HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())}
    assert wanted <= asked, f"{pod}: its probe asked {sorted(asked)}, without {sorted(wanted - asked)}"


def test_grace_period(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container that fails its liveness probe MUST be given the probe's time to end, and not the pod's.

    It ignores that it is to end, and its pod would have a day.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/#probe-level-terminationgraceperiodseconds
    """
    asks = {"exec": {"command": ["test", "-e", "/tmp/well"]}}
    up = {"startupProbe": _probe(asks, failures=120)}
    command = ["sh", "-c", "trap : TERM; touch /tmp/well; while :; do sleep 0.2; done"]
    more: dict[str, Any] = {"liveness": _probe(asks) | {"terminationGracePeriodSeconds": 1}, "grace": 86400}
    pod = namespace.create(manifests.pod("stubborn", images.agnhost, command=command, container=up, **more))
    eventually(pod, ready, within=timeouts.pod)

    said(pod, _GONE)

    eventually(pod, _was_restarted, within=timeouts.recovery)


def test_startup(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container MUST NOT be judged by its other probes before its startup probe has succeeded once.

    The container would fail its liveness probe at once, and has no readiness probe. Beside it is one that never starts
    up, and is restarted for it.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/probes/#startup-probe
    """
    probes = {
        "startupProbe": _probe({"exec": {"command": ["test", "-e", "/tmp/started"]}}, failures=600),
        "livenessProbe": _probe({"exec": {"command": ["test", "-e", "/tmp/alive"]}}, failures=1),
    }
    never = {"startupProbe": _probe({"exec": {"command": ["false"]}})}
    pods = [
        namespace.create(manifests.pod("slow", images.agnhost, args=["pause"], container=probes)),
        namespace.create(manifests.pod("never", images.agnhost, args=["pause"], container=never)),
    ]
    slow, hopeless = (eventually(pod, _starts, within=timeouts.pod) for pod in pods)

    eventually(hopeless, _was_restarted, within=timeouts.recovery)
    consistently(slow, _is_starting, during=timeouts.steady / 2)
    result = slow.exec(["touch", "/tmp/alive", "/tmp/started"])
    assert result.code == 0, f"{slow}: {result.stderr}"
    (pod,) = eventually(namespace.pods("app=slow"), all_ready(1), within=timeouts.propagation)
    assert pod.status["containerStatuses"][0]["restartCount"] == 0, f"{slow} was restarted"


def test_readiness_gate(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod with a readiness gate MUST be ready only while the condition that the gate names is true.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-readiness-gate
    """
    gate = "clusterproof.dev/open"
    spec = {"readinessGates": [{"conditionType": gate}]}
    pod = namespace.create(manifests.pod("gated", images.agnhost, args=["pause"], spec=spec))
    eventually(pod, has_condition("ContainersReady"), within=timeouts.pod)
    eventually(pod, has_condition("Ready", "False", "ReadinessGatesNotReady"), within=timeouts.object)

    for status in ("True", "False"):
        told = [{"type": gate, "status": status}]
        pod.patch({"status": {"conditions": told}}, type="strategic", subresource="status")
        eventually(pod, has_condition("Ready", status), within=timeouts.object)


def _at_least(number: int) -> Callable[[int], str | None]:
    def at_least(seen: int) -> str | None:
        return None if seen >= number else f"it was {seen} times, not {number}"

    return at_least


def _probe(way: dict[str, Any], *, failures: int = 2) -> dict[str, Any]:
    # A probe that takes long on a busy machine has not failed.
    return {**way, "periodSeconds": 1, "failureThreshold": failures, "timeoutSeconds": 10}


def _container(name: str, images: Images, way: Way, probe: str) -> dict[str, Any]:
    # What is not served when the container starts shall not be taken for what fails later.
    probes: dict[str, Any] = {"startupProbe": _probe(way.asks, failures=120), probe: _probe(way.asks)}
    command = ["sh", "-c", _SERVE, "serve", *way.arguments]
    return manifests.container(name, images.agnhost, command=command, **probes)


def _of_each_kind(pod: str, images: Images, probe: str, *more: dict[str, Any]) -> dict[str, Any]:
    """A pod with a container for each kind of probe, and none besides."""
    containers = [_container(name, images, way, probe) for name, way in _WAYS.items()]
    return manifests.pod(pod, images.agnhost, spec={"containers": [*containers, *more]})


def _containers(*, ready: bool, restarts: int) -> Condition:
    """Those that answer probes in different ways are all ready or all not, and were restarted so often."""

    def containers(pod: Object) -> str | None:
        found = {each["name"]: each for each in pod.status.get("containerStatuses") or []}
        wrong = []
        for name in _WAYS:
            seen = found[name]["ready"], found[name]["restartCount"]
            if seen[1] > restarts or seen != (ready, restarts):
                wrong.append(f"{name} is {'' if seen[0] else 'not '}ready after {seen[1]} restarts")
        return "; ".join(wrong) or None

    containers.__name__ = f"has containers that are all {'' if ready else 'not '}ready after {restarts} restarts"
    return containers


def _starts(pod: Object) -> str | None:
    return None if pod.status.get("containerStatuses", [{}])[0].get("state", {}).get("running") else "it does not run"


def _was_restarted(pod: Object) -> str | None:
    return None if pod.status["containerStatuses"][0]["restartCount"] else "it was not restarted"


def _is_starting(pod: Object) -> str | None:
    (container,) = pod.status["containerStatuses"]
    seen = {key: container.get(key) for key in ("started", "ready", "restartCount")}
    return None if seen == {"started": False, "ready": False, "restartCount": 0} else f"its container is {seen}"
