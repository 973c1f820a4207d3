"""A containerd root folder with the images already in it, and copies of it for nodes.

Importing an archive costs every node a second or two, mostly for writing and syncing the same bytes again. Instead a
containerd that no cluster uses imports each image once; a node's containerd then starts on a copy of what that one
left, made of hard links: containers write into layers of their own, and stored content is never changed in place.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from .builder import LAST_LINES, Artifacts
from .cache import BuildError, Progress

START = 30.0
"""Seconds that containerd may take until it answers."""

_KEPT = ("io.containerd.content.v1.content", "io.containerd.metadata.v1.bolt", "io.containerd.snapshotter.v1.overlayfs")
_DATABASES = ("io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db")
"""Files that containerd changes in place: every copy needs its own."""


class Importer:
    """A containerd that only takes images in. Its root folder is complete when the `with` block has been left."""

    def __init__(self, artifacts: Artifacts, root: Path, progress: Progress) -> None:
        self._ctr = str(artifacts.binary("ctr"))
        self._containerd = str(artifacts.binary("containerd"))
        self._root = root
        self._progress = progress
        self._resources = ExitStack()

    def __enter__(self) -> Importer:
        with ExitStack() as resources:
            # Sockets have short names only, which a cache folder may not allow.
            state = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="clusterproof-images-")))
            self._socket = state / "containerd.sock"
            self._log = state / "log"
            settings = state / "config.toml"
            settings.write_text(self._settings(state))
            # Its mounts must not outlive it, nor it us, however we end.
            command = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", self._containerd, "--config", str(settings)]
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            resources.callback(self._end)
            self._await()
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._resources.close()
        for path in self._root.iterdir():
            if path.name not in _KEPT:
                shutil.rmtree(path)

    def load(self, archive: Path) -> None:
        """Import and unpack every image of an archive. Raises BuildError if containerd refuses it."""
        started = time.monotonic()
        # --local: through the other way in, ctr's default, images take twice as long.
        command = [self._ctr, "--address", str(self._socket), "--namespace", "k8s.io", "images", "import", "--local"]
        done = subprocess.run([*command, str(archive)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self._fail(f"`ctr images import` ended with exit code {done.returncode}", done.stderr)
        self._progress(f"images: unpacked in {time.monotonic() - started:.1f} s")

    def _settings(self, state: Path) -> str:
        def quoted(path: Path) -> str:
            return json.dumps(str(path))

        return (
            "version = 3\n"
            f"root = {quoted(self._root)}\n"
            f"state = {quoted(state / 'state')}\n"
            'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images",'
            ' "io.containerd.cri.v1.runtime"]\n'
            f"[grpc]\naddress = {quoted(self._socket)}\n"
            f"[ttrpc]\naddress = {quoted(state / 'ttrpc.sock')}\n"
        )

    def _await(self) -> None:
        deadline = time.monotonic() + START
        while True:
            if (code := self._process.poll()) is not None:
                self._fail(f"it ended with exit code {code}")
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(str(self._socket))
                    return
                except OSError as error:
                    if time.monotonic() > deadline:
                        self._fail(f"it did not answer within {START:.0f} s ({error})")
            time.sleep(0.02)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(START)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _fail(self, problem: str, output: str = "") -> None:
        lines = [*output.splitlines(), *self._log.read_text(errors="replace").splitlines()][-LAST_LINES:]
        raise BuildError(
            "images: containerd, which unpacks them, failed: "
            + "\n  ".join([f"{problem}. Last lines:", *lines])
            + "\nIt needs root's rights, and a cache folder on a file system that overlays work on"
        )


def clone(store: Path, into: Path) -> None:
    """Make `into` a containerd root folder with the images of a store; both should be on one file system.

    On another file system everything is copied, which takes seconds. Raises BuildError if it fails.
    """
    into.mkdir(mode=0o711, parents=True, exist_ok=True)
    linked = store.stat().st_dev == into.stat().st_dev
    how = "--link" if linked else "--reflink=auto"
    done = subprocess.run(
        ["cp", "--archive", how, f"{store}/.", str(into)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"images: {store} was not copied to {into}: {done.stderr.strip()}")
    for name in _DATABASES:
        database = into / name
        database.unlink()
        shutil.copyfile(store / name, database)
        database.chmod(0o600)
