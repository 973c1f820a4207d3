"""What a run of the suites costs, and how that compares with upstream's specs for the same behaviours.

Everything is measured on one fresh embedded cluster with a warm cache:
    python bench/suites.py [--workers N] [--skip-upstream]

Requests are counted by the API server itself, in its audit log: what the suites' user and upstream's user asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterproof.embedded import builder, cluster, images, operate, state
from clusterproof.embedded.components import DEFAULT_KUBERNETES
from clusterproof.embedded.pki import Authority, write_kubeconfig

from clusterproof.client import Client
from clusterproof.errors import SurroundingsError

NAME = "bench-suites"
SCHEDULER = "system:kube-scheduler"
WALL_TARGET, RATIO_TARGET, CPU_TARGET, START_TARGET = 150.0, 1.5, 0.060, 1.5

PAIRS = {
    "rolling update": ("apps/deployment/rolling_update", "RollingUpdateDeployment should delete old pods"),
    "Job": ("apps/job/completion", "Job should run a job to completion when tasks sometimes fail"),
    "indexed Job": ("apps/job/completion", "Job should create pods for an Indexed job"),
    "StatefulSet": ("apps/statefulset/order", "Scaling should happen in predictable order and halt"),
    "Service": ("network/service/cluster_ip", "Services should serve (a basic|multiport) endpoint"),
    "DNS": ("network/service/discovery", "DNS should provide DNS for (services|the cluster|pods for|ExternalName)"),
    "CRD": ("extend/crd/lifecycle", "creating/deleting custom resource definition objects works"),
    "namespace deletion": ("api/namespaces/deletion", "Namespaces should ensure that all (pods|services) are removed"),
    "webhook": (
        "api/admission_webhooks/(mutating|validating|failure_policy)",
        "AdmissionWebhook .*should (be able to deny pod and configmap|mutate configmap|unconditionally reject)",
    ),
}
"""Behaviours that both prove: our promises (a regular expression of how their ids begin), and upstream's specs."""


FIRST = (
    "health/livez",
    "health/readyz",
    "health/healthz",
    "health/nodes",
    "health/system_pods",
    "health/apis",
    "api/namespaces",
    "api/labels",
    "apps/deployment/rolling_update",
    "apps/deployment/zero_downtime",
    "apps/deployment/self_heal",
    "apps/statefulset/order",
    "apps/statefulset/identity",
    "apps/daemonset/every_node",
    "apps/daemonset/log_agent",
    "apps/job/completion",
    "apps/cronjob/schedule",
    "network/pod_to_pod",
    "network/service/cluster_ip",
    "network/service/discovery",
    "network/ingress/routing",
    "network/ingress/endpoints",
    "access/rbac/matrix",
    "access/rbac/scope",
    "extend/crd/lifecycle",
    "extend/crd/schema",
    "scale/metrics",
    "scale/hpa/cpu",
    "storage/dynamic",
    "storage/data_survives",
)
"""What each cluster is asked first: one thing at least of everything that people use Kubernetes for."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took."""

    wall: float
    cpu: float
    """Seconds of processor time of the command and its children."""
    requests: int
    """API requests of its user."""
    pods: int
    """Pods that the scheduler gave a node meanwhile."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", default="", help="processes that prove promises (default: the suites' own choice)")
    parser.add_argument("--skip-upstream", action="store_true", help="leave out the comparison with upstream's specs")
    args = parser.parse_args()
    workers = ["-n", args.workers] if args.workers else []
    with tempfile.TemporaryDirectory() as folder:
        _as_users_run_it(Path(folder), workers)
        _on_one_cluster(Path(folder), workers, upstream=not args.skip_upstream)
    return 0


def _as_users_run_it(folder: Path, workers: list[str]) -> None:
    """Everything, and what is asked first; the start and the end of a cluster of their own included."""
    _timed("pytest suites/", folder / "whole", ["suites/", *workers])
    first = sorted({result["nodeid"] for result in _results(folder / "whole") if result["id"].startswith(FIRST)})
    _timed("first promises", folder / "first", [*first, *workers])


def _timed(name: str, reports: Path, arguments: list[str]) -> None:
    started = time.monotonic()
    code = _pytest(*arguments, reports=reports)
    wall = time.monotonic() - started
    results = _results(reports)
    longest = max(results, key=lambda result: float(result["seconds"]))
    _print(f"{name} with a cluster", f"{wall:.1f} s, exit {code}", f"target {WALL_TARGET:g} s")
    _print("promises and cases", str(len(results)))
    _print("longest promise", f"{longest['seconds']:.1f} s", longest["id"])
    _print("wall ÷ longest promise", f"{wall / longest['seconds']:.2f}", f"target {RATIO_TARGET:g}")


def _on_one_cluster(folder: Path, workers: list[str], *, upstream: bool) -> None:
    tests = builder.ensure(["e2e"], DEFAULT_KUBERNETES, _say) if upstream else None
    made = cluster.up(cluster.Plan(NAME, images=images.UPSTREAM if upstream else ()), _say)
    try:
        meter = _Meter(made, folder)
        ours = [f"--kubeconfig={meter.kubeconfig('suites')}", "--cluster=external", *_ingress(made), *workers]
        idle = meter.measure(
            "suites", lambda: _pytest("suites/", *ours, "-k", "no_such_promise", reports=folder / "idle")
        )
        full = meter.measure("suites", lambda: _pytest("suites/", *ours, reports=folder / "full"))
        _print_costs(_results(folder / "full"), idle, full)
        if tests is not None:
            _compare(meter, tests, ours, folder)
    finally:
        cluster.down(NAME)


def _print_costs(results: list[dict[str, Any]], idle: Cost, full: Cost) -> None:
    count = len(results)
    processes = len({result["worker"] for result in results}) + 1
    _print("fixed start, CPU per process", f"{idle.cpu / processes:.2f} s", f"target {START_TARGET:g} s")
    _print(
        "client CPU per promise", f"{1000 * (full.cpu - idle.cpu) / count:.0f} ms", f"target {CPU_TARGET * 1000:g} ms"
    )
    _print("API requests per promise", f"{full.requests / count:.1f}")
    _print("pods per promise", f"{full.pods / count:.1f}")


def _compare(meter: _Meter, tests: builder.Artifacts, ours: list[str], folder: Path) -> None:
    """Both sides prove the same behaviours on the same cluster, one after the other, each as parallel as it can be."""
    known = {result["id"].partition("[")[0] for result in _results(folder / "full")}
    pairs = {name: pair for name, pair in PAIRS.items() if any(re.match(pair[0], promise) for promise in known)}
    nodes = sorted({result["nodeid"] for result in _results(folder / "full") if _wanted(result["id"], pairs)})
    theirs = meter.measure("upstream", lambda: _ginkgo(meter, tests, [spec for _, spec in pairs.values()], folder))
    mine = meter.measure("suites", lambda: _pytest(*nodes, *ours, reports=folder / "pairs"))
    _print("same behaviours", ", ".join(pairs))
    _print("ours", f"{mine.wall:.1f} s, {mine.requests} requests, {mine.cpu:.1f} CPU s")
    _print("upstream, 6 processes", f"{theirs.wall:.1f} s, {theirs.requests} requests, {theirs.cpu:.1f} CPU s")
    _print("upstream ÷ ours, time", f"{theirs.wall / mine.wall:.1f}", "target 3")
    _print("ours ÷ upstream, requests", f"{mine.requests / theirs.requests:.2f}", "target 0.5")


def _wanted(promise: str, pairs: dict[str, tuple[str, str]]) -> bool:
    return any(re.match(beginning, promise) for beginning, _ in pairs.values())


class _Meter:
    """Counts what a user of its own asks the API server for, and what a command takes."""

    def __init__(self, made: state.ClusterState, folder: Path) -> None:
        self._made = made
        self._folder = folder
        self._log = made.logs / "audit.log"
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["ResponseStarted", "ResponseComplete", "Panic"],
            "rules": [
                {"level": "Metadata", "users": ["bench-suites", "bench-upstream"]},
                {
                    "level": "Metadata",
                    "users": [SCHEDULER],
                    "resources": [{"group": "", "resources": ["pods/binding"]}],
                },
                {"level": "None"},
            ],
        }
        path = made.folder / "audit-policy.json"
        path.write_text(json.dumps(policy))
        arguments = (f"--audit-policy-file={path}", f"--audit-log-path={self._log}", "--audit-log-mode=blocking")
        operate.restart(made, "kube-apiserver", operate.replacing(*((one, one) for one in arguments)))
        _await_ready(Client.from_kubeconfig(made.kubeconfig))

    def kubeconfig(self, who: str) -> Path:
        """An administrator whose requests are counted."""
        authority = Authority(self._made.pki, "ca")
        user = f"bench-{who}"
        return write_kubeconfig(
            self._folder / f"{user}.kubeconfig",
            cluster=user,
            server=self._made.server,
            authority=authority.pair.certificate,
            user=user,
            identity=authority.issue(user, user=user, groups=["system:masters"], folder=self._folder),
        )

    def measure(self, who: str, run: Any) -> Cost:
        """What a run costs, how many requests its user made, and how many pods were started for it."""
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        requests, pods = self._requests(f"bench-{who}"), self._requests(SCHEDULER)
        run()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        wall = time.monotonic() - started
        return Cost(wall, cpu, self._requests(f"bench-{who}") - requests, self._requests(SCHEDULER) - pods)

    def _requests(self, user: str) -> int:
        if not self._log.exists():
            return 0
        return sum(f'"username":"{user}"' in line for line in self._log.read_text().splitlines())


def _pytest(*arguments: str, reports: Path) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--reports-dir={reports}"]
    done = subprocess.run([*command, *arguments], stdout=sys.stderr, check=False)
    return done.returncode


def _ginkgo(meter: _Meter, tests: builder.Artifacts, specs: list[str], folder: Path) -> None:
    options = [f"--focus=({'|'.join(specs)}).*Conformance", "--procs=6", "--no-color", "--timeout=1h"]
    target = [
        str(tests.binary("e2e.test")),
        "--",
        f"--kubeconfig={meter.kubeconfig('upstream')}",
        "--provider=skeleton",
    ]
    with (folder / "upstream.log").open("wb") as log:
        subprocess.run([tests.binary("ginkgo"), *options, *target], cwd=folder, env=os.environ, stdout=log, check=False)
    said = (folder / "upstream.log").read_text().splitlines()
    _print("upstream's specs", next((line.strip() for line in said if " Passed | " in line), "did not run"))


def _ingress(made: state.ClusterState) -> list[str]:
    return [f"--ingress-address={made.nodes[0].address}:80"]


def _results(reports: Path) -> list[dict[str, Any]]:
    document: dict[str, Any] = json.loads((reports / "result.json").read_text())
    return [result for result in document["results"] if result["outcome"] in ("kept", "broken", "error")]


def _await_ready(client: Client) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if client.request("GET", "/readyz", timeout=2).status == 200:
                return
        except SurroundingsError:
            pass  # it is starting again
        time.sleep(0.1)
    raise SurroundingsError("kube-apiserver did not come back with an audit log")


def _print(name: str, figure: str, remark: str = "") -> None:
    print(f"{name:32} {figure}{f'  ({remark})' if remark else ''}", flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
