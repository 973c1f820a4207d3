"""Upstream's measure of an embedded cluster: its own non-serial [Conformance] specs, which `tox run -e upstream` runs.

Builds upstream's e2e.test and ginkgo from the same go.mod as the cluster, starts a fresh cluster, runs the specs in
parallel, and compares what failed with `unavailable.txt` beside this file. Exit code 0 when nothing else failed.
    python tests/upstream/run.py [--focus REGEX] [--procs N] [--keep]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

from clusterproof.embedded import builder, cluster, images, process, state
from clusterproof.embedded.components import DEFAULT_KUBERNETES

NAME = "upstream"
REGISTRY = 5000
"""Port of each node's own registry."""
UNAVAILABLE = Path(__file__).with_name("unavailable.txt")


def main() -> int:
    """Run the specs; 0 when only specs failed whose image cannot be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--focus", default=r"\[Conformance\]", help="regular expression: only specs whose name it matches"
    )
    parser.add_argument("--procs", type=int, default=6, help="specs at a time (default: 6)")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    args = parser.parse_args()
    tests = builder.ensure(["e2e"], DEFAULT_KUBERNETES, _say)
    unavailable = _unavailable()
    cluster.up(cluster.Plan(NAME, addons=("dns",), images=images.UPSTREAM), _say)
    try:
        _serve_images()
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            _run(tests, args.focus, list(unavailable), args.procs, Path(folder))
            passed, failed = _outcomes(Path(folder, "junit.xml"))
        seconds = time.monotonic() - started
    finally:
        if not args.keep:
            cluster.down(NAME)
    print(
        f"{len(passed)} passed, {len(failed)} failed, {len(unavailable)} not run for want of an image, {seconds:.0f} s"
    )
    for name, why in sorted(failed.items()):
        print(f"FAILED {name}\n  {why}")
    return 1 if failed or not passed else 0


def _serve_images() -> None:
    """Give each node a registry with the images that it has: some specs pull although the image is there."""
    made = state.load(NAME)
    program = Path(__file__).with_name("registry.py").read_text()
    for one in made.nodes:
        hosts = made.node_folder(one) / "lib/registries/_default/hosts.toml"
        hosts.parent.mkdir(parents=True)
        hosts.write_text(f'[host."http://127.0.0.1:{REGISTRY}"]\ncapabilities = ["pull", "resolve"]\n')
        command = ["python3", "-c", program, str(REGISTRY), f"{process.BIN}/ctr"]
        with made.changing():
            process.start(made, f"{one.name}/registry", command, on=one.name)


def _run(tests: builder.Artifacts, focus: str, skip: list[str], procs: int, folder: Path) -> None:
    options = ["--junit-report=junit.xml", f"--output-dir={folder}", "--no-color", "--timeout=3h", f"--procs={procs}"]
    options += [f"--focus={focus}", *(f"--skip={one}" for one in [r"\[Serial\]", *skip])]
    target = [str(tests.binary("e2e.test")), "--", f"--kubeconfig={state.load(NAME).kubeconfig}", "--provider=skeleton"]
    subprocess.run([tests.binary("ginkgo"), *options, *target], cwd=folder, env=os.environ, check=False)


def _outcomes(junit: Path) -> tuple[list[str], dict[str, str]]:
    """Names of the specs that passed, and of those that failed, each with the first line of its reason."""
    passed, failed = [], {}
    for case in ElementTree.parse(junit).iter("testcase"):
        name = case.get("name", "")
        trouble = next((found for tag in ("failure", "error") if (found := case.find(tag)) is not None), None)
        if trouble is not None:
            failed[name] = (trouble.get("message") or trouble.text or "").strip().splitlines()[0]
        elif case.get("status") == "passed" and name.startswith("[It]"):
            passed.append(name)
    return passed, failed


def _unavailable() -> dict[str, str]:
    """Regular expressions of specs, each with the image that it wants."""
    lines = [line for line in UNAVAILABLE.read_text().splitlines() if line and not line.startswith("#")]
    listed = dict(line.split("\t") for line in lines)
    for expression in listed:
        re.compile(expression)
    return listed


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
