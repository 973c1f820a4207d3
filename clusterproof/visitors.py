"""Known numbers of connections: pods that hold as many to each other as they are told, and tell how many they have.

They tell it as the metric `current_connections`, a gauge in Prometheus' text format, which their annotations point at.
What they tell is counted by their kernel, so it is the truth that served metrics are compared to. They need bash, as in
agnhost's image.
"""

from __future__ import annotations

from typing import Any

from clusterproof import manifests
from clusterproof.objects import Object
from clusterproof.wait import eventually

METRIC = "current_connections"
ANNOTATIONS = {
    "prometheus.io/scrape": "true",
    "prometheus.io/port": "9090",
    "prometheus.io/path": "/tmp/metrics",
}

# Two servers: one that is visited, and one for the metric. A loop opens and closes connections until there are as many
# as wanted, and counts those at its own server (port 8080, state established). A read from a pipe that nobody writes to
# is a sleep that starts no process.
_SCRIPT = r"""
/agnhost netexec --http-port=8080 --udp-port=-1 > /dev/null & /agnhost test-webserver --port=9090 &
mkfifo /tmp/never; exec 3<> /tmp/never; echo "- 0" > /tmp/visits; mine=()
while :; do
    read -r host visits < /tmp/visits
    while ((${#mine[@]} < visits)) && exec {one}<> "/dev/tcp/$host/8080"; do mine+=("$one"); done
    while ((${#mine[@]} > visits)); do one=${mine[-1]}; exec {one}>&-; unset 'mine[-1]'; done
    connections=0
    while read -r _ local _ state _; do
        if [[ $local == *:1F90 && $state == 01 ]]; then connections=$((connections + 1)); fi
    done < <(cat /proc/net/tcp /proc/net/tcp6 2> /dev/null)
    if [ "$connections" != "$told" ]; then
        printf '# TYPE current_connections gauge\ncurrent_connections %d\n' "$connections" > /tmp/new
        mv /tmp/new /tmp/metrics; told=$connections
    fi
    read -rt 0.5 <&3
done
"""

OPTIONS: dict[str, Any] = {
    "command": ["bash", "-c", _SCRIPT],
    "readiness": manifests.http_probe(9090, ANNOTATIONS["prometheus.io/path"]),
}
"""Of a pod that can visit and be visited; for `manifests.pod_spec`."""


def pod(name: str, image: str) -> manifests.Manifest:
    """A pod that can visit and be visited."""
    return annotated(manifests.pod(name, image, **OPTIONS))


def annotated(manifest: manifests.Manifest) -> manifests.Manifest:
    """A pod, or a workload with `OPTIONS`, whose metric is to be picked up."""
    of_pods = manifest["spec"].get("template", manifest)
    of_pods["metadata"]["annotations"] = dict(ANNOTATIONS)
    return manifest


def visit(host: Object, number: int, *, by: Object | None = None, within: float) -> None:
    """Hold so many connections to a pod, from another one or from within itself; it counts them when this returns."""
    visitor = by or host
    told = visitor.exec(["sh", "-c", f"echo {host.status['podIP']} {number} > /tmp/visits"])
    assert told.code == 0, f"{visitor}: cannot change whom it visits: {told.stderr}"
    seen, what = f"{METRIC} {number}\n", f"{host} has {number} connections"
    eventually(
        lambda: host.exec(["cat", ANNOTATIONS["prometheus.io/path"]]).stdout,
        lambda metrics: None if metrics.endswith(f"\n{seen}") else f"it tells {metrics.splitlines()[-1:]}",
        within=within,
        describe=what,
    )
