"""How long an embedded cluster takes to start and to end, and how that compares with the API server alone.

Prints the median of five runs of each, taken in turn, so that a machine that slows down slows both down:
    python bench/embedded_start.py [--runs 5] [--nodes 2] [--addons dns,metrics,ingress,storage]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import threading
import time

from clusterproof.embedded import addons, cluster, state
from clusterproof.embedded.components import DEFAULT_KUBERNETES
from clusterproof.embedded.state import NAMESPACES, namespace_name

TARGETS = {"2 nodes Ready": 5.0, "DNS answers": 8.0, "all add-ons ready": 15.0, "down": 3.0}
"""Seconds, on 2 cores."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument(
        "--addons", default=",".join(addons.NAMES), help="what runs on it, by comma (default: %(default)s)"
    )
    args = parser.parse_args()
    names = tuple(args.addons.split(","))
    artifacts, images = cluster.build(cluster.Plan("bench"), _quiet)
    seen: dict[str, list[float]] = {}
    for number in range(args.runs):
        for key, seconds in (_alone(artifacts, images) | _whole(artifacts, images, args.nodes, names)).items():
            seen.setdefault(key, []).append(seconds)
        print(
            f"run {number + 1}: {', '.join(f'{key} {values[-1]:.1f} s' for key, values in seen.items())}",
            file=sys.stderr,
        )
    medians = {key: statistics.median(values) for key, values in seen.items()}
    for key, seconds in medians.items():
        target = f"  (target {TARGETS[key]:g} s)" if key in TARGETS else ""
        print(f"{key:24} {seconds:6.2f} s  {min(seen[key]):.2f} to {max(seen[key]):.2f}{target}")
    ratio = medians[f"{args.nodes} nodes Ready"] / medians["API server alone"]
    print(f"{f'{args.nodes} nodes Ready ÷ API server alone':24} {ratio:.2f}")
    return 0


def _alone(artifacts: cluster.builder.Artifacts, images: cluster.Path) -> dict[str, float]:
    made = state.allocate("bench-alone", DEFAULT_KUBERNETES, 1)
    try:
        launch = cluster.Launch(made, artifacts, images, _quiet)
        launch.run_api_server_alone()
        return {"API server alone": launch.milestones["API server ready"]}
    finally:
        cluster.down(made.name)


def _whole(
    artifacts: cluster.builder.Artifacts, images: cluster.Path, nodes: int, names: tuple[str, ...]
) -> dict[str, float]:
    made = state.allocate("bench-whole", DEFAULT_KUBERNETES, nodes)
    try:
        launch = cluster.Launch(made, artifacts, images, _quiet)
        asking = _Resolver(made)
        started = time.monotonic()
        asking.start()
        launch.run(names)
        asking.join()
        reached = dict(launch.milestones)
        reached["DNS answers"] = asking.answered - started
        reached["all add-ons ready"] = max(launch.milestones.values())
    finally:
        started = time.monotonic()
        cluster.down(made.name)
        ended = time.monotonic() - started
    wanted = ("API server ready", f"{nodes} nodes Ready", "DNS answers", "all add-ons ready")
    return {key: reached[key] for key in wanted} | {"down": ended}


class _Resolver(threading.Thread):
    """Asks the cluster's DNS Service from a node, until it answers."""

    def __init__(self, made: state.ClusterState) -> None:
        super().__init__(daemon=True)
        namespace = NAMESPACES / namespace_name(made.name, made.nodes[-1].name)
        query = ["dig", "+short", "+time=1", "+tries=1", f"@{made.dns_address}", "kubernetes.default.svc.cluster.local"]
        self._command = ["nsenter", f"--net={namespace}", *query]
        self._wanted = str(made.service_network[1])
        self.answered = 0.0

    def run(self) -> None:
        """Until the answer is the API server's cluster IP."""
        while (
            self._wanted
            not in subprocess.run(self._command, capture_output=True, text=True, check=False).stdout.split()
        ):
            time.sleep(0.1)
        self.answered = time.monotonic()


def _quiet(line: str) -> None:
    """No progress: only figures are printed."""


if __name__ == "__main__":
    sys.exit(main())
