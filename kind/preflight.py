"""What a machine needs for clusters in containers: all that is missing is said at once, with what helps."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

WITHIN = "or run the same command after `clusterproof kind-docker`, which brings Docker, kind and kubectl along"

_HELP = {
    "kind": "install kind (go install sigs.k8s.io/kind@v0.33.0)",
    "k3d": "install k3d (https://k3d.io)",
    "minikube": "install minikube (https://minikube.sigs.k8s.io)",
    "kubectl": "install kubectl (https://kubernetes.io/docs/tasks/tools)",
    "docker": "install Docker (apt-get install docker.io)",
}


def check(program: str) -> None:
    """Raise UsageError when something is missing for clusters that this program makes."""
    if missing := list(problems(program)):
        listed = "\n".join(f"  - {problem}" for problem in missing)
        raise pytest.UsageError(f"--cluster={program}: this machine is not ready for it:\n{listed}")


def problems(program: str) -> Iterator[str]:
    """Everything that is missing, one sentence each, with what to do about it."""
    more = f"; {WITHIN}" if program == "kind" else ""
    for needed in (program, "kubectl", "docker"):
        if not shutil.which(needed):
            yield f"no {needed} in PATH: {_HELP[needed]}{more}"
    if shutil.which("docker"):
        asked = subprocess.run(
            ["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True, check=False
        )
        if asked.returncode:
            said = (asked.stderr.strip().splitlines() or ["docker info failed"])[-1]
            yield f"no Docker daemon answers ({said}): start it (systemctl start docker){more}"
