"""Images, unpacked once: a container runtime's folder that every node starts with, so that no start imports anything.

A node's runtime gets its own databases and hard links to everything else, which is never changed in place: image contents
are addressed by digest, and unpacked layers are only read.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from . import cache, images
from .builder import Artifacts
from .process import tail
from .state import EmbeddedError


def obtain(names: Sequence[str], artifacts: Artifacts, progress: cache.Progress) -> Path:
    """Folder of a runtime that holds these images; made now if it is not in the cache."""
    archives = sorted({images.archive(name, artifacts, progress) for name in names})  # some images share one
    digest = cache.key([str(path) for path in (*archives, artifacts.binary("containerd"))])

    def make(folder: Path) -> None:
        progress("images: unpacking once for all nodes")
        _unpack(archives, artifacts, folder / "containerd")

    return cache.obtain("runtimes", "images", digest, make, progress) / "containerd"


def _unpack(archives: Sequence[Path], artifacts: Artifacts, root: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="clusterproof-") as state:
        socket, log = Path(state, "containerd.sock"), Path(state, "log")
        config = Path(state, "config.toml")
        # Only what imports and unpacks; the Kubernetes interface would look for a network.
        config.write_text(
            f"version = 3\nroot = '{root}'\nstate = '{state}/run'\n"
            "disabled_plugins = ['io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime', 'io.containerd.grpc.v1.cri']\n"
            f"[grpc]\naddress = '{socket}'\n[ttrpc]\naddress = '{socket}.ttrpc'\n"
        )
        with log.open("wb") as output:
            runtime = subprocess.Popen(
                [artifacts.binary("containerd"), "--config", config], stdout=output, stderr=subprocess.STDOUT
            )
        try:
            _await(socket, runtime, log)
            for archive in archives:
                command = [artifacts.binary("ctr"), "--address", socket, "--namespace", "k8s.io", "images", "import", archive]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise EmbeddedError(f"images: containerd cannot import {archive}: {done.stderr.strip()}")
        finally:
            runtime.terminate()
            runtime.wait()


def _await(socket: Path, runtime: subprocess.Popen[bytes], log: Path, within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not socket.exists():
        if runtime.poll() is not None or time.monotonic() > deadline:
            raise EmbeddedError(f"images: containerd did not start; its log ends with:\n{tail(log)}")
        time.sleep(0.02)
