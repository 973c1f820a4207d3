"""Docker: the one that runs on this machine, or else one of our own for the time of a command.

Our own has a network, a mount and a process namespace to itself. Whatever it does there (bridges, iptables policies,
overlay mounts, containers) the kernel takes away with the last of its processes, however they end, and the network of
the machine itself never changes. Only its folder and its control groups have to be removed, here or by `clusterproof
sweep`. A command that runs with it shares its namespaces: it reaches the containers, and nothing outside.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread

from clusterproof import debian
from clusterproof.errors import SurroundingsError
from clusterproof.parts import Progress

PREFIX = "clusterproof-docker-"
WHERE = Path("/var/tmp")
"""Where its folder is: on disk, and short enough for sockets."""
CGROUPS = Path("/sys/fs/cgroup")
NAME_SERVER = "192.0.2.53"
"""Its name server's address: one that no machine has."""
START = 60.0
"""Seconds that dockerd may take until it answers."""

_PACKAGES = ("docker.io", "containerd", "libdevmapper1.02.1")
_LACKS_SYS_RESOURCE = 24
"""Number of CAP_SYS_RESOURCE."""


def running() -> bool:
    """Whether a Docker daemon answers on this machine (or where DOCKER_HOST points)."""
    if not shutil.which("docker"):
        return False
    answer = subprocess.run(["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, check=False)
    return answer.returncode == 0


def load(archive: Path) -> None:
    """Load the images of an archive into the Docker that runs."""
    debian.run(["docker", "load", "--input", str(archive)], f"{archive} was not loaded into Docker")


def check_run(command: Sequence[str], log: Path, progress: Progress, path: Sequence[Path]) -> None:
    """Run a command that needs Docker; SurroundingsError with its last lines when it fails."""
    with log.open("wb") as output:
        code = run(command, progress, path=path, output=output.fileno())
    if code:
        said = "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-20:])
        raise SurroundingsError(f"{Path(command[0]).name} ended with {code}; its last lines:\n{said}")


def run(
    command: Sequence[str],
    progress: Progress,
    *,
    archives: Sequence[Path] = (),
    path: Sequence[Path] = (),
    output: int | None = None,
) -> int:
    """Run a command with a Docker at hand; its exit code.

    `archives` are loaded first where the Docker is our own, `path` are folders of programs that PATH may lack.
    """
    environment = {**os.environ, "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, path)])}
    if running():
        return subprocess.run(command, env=environment, stdout=output, stderr=output, check=False).returncode
    if os.geteuid() != 0:
        raise SurroundingsError("no Docker answers, and only root can start one: start yours, or run this with sudo")
    root = debian.unpacked("docker", _PACKAGES, progress)
    with _Endings() as endings, _folder() as folder:
        progress(f"docker: none is running; one of our own runs as long as {Path(command[0]).name} does")
        loaded = [f"--load={archive}" for archive in archives]
        inner = [sys.executable, "-m", __spec__.name, str(folder), str(root), *loaded, "--", *command]
        isolate = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *isolate, *inner], env=environment, stdout=output, stderr=output
        )
        endings.process = process
        return process.wait()


class _Endings:
    """A block that SIGTERM and SIGINT do not end: the command ends, and what is left is removed first.

    SIGTERM is passed on to the command; the terminal's SIGINT reaches it by itself.
    """

    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Endings:
        self._before = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._terminate),
            signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _terminate(self, *_: object) -> None:
        if self.process is None:
            sys.exit(128 + signal.SIGTERM)
        with contextlib.suppress(OSError):  # it ended by itself
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            for pid in children.read_text().split():
                os.kill(int(pid), signal.SIGTERM)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder for one Docker; locked as long as it is used, and gone afterwards with its control groups."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=WHERE))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            _remove(folder)


def _remove(folder: Path) -> None:
    for group in [CGROUPS / folder.name, *CGROUPS.glob(f"*/{folder.name}")]:
        for path, _, _ in os.walk(group, topdown=False):
            _remove_group(Path(path))
    shutil.rmtree(folder, ignore_errors=True)


def _remove_group(group: Path) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:  # the kernel has not yet let go of the last process
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def sweep() -> Iterator[str]:
    """Remove what is left of Dockers whose command was killed; a line for each."""
    for folder in sorted(WHERE.glob(f"{PREFIX}*")):
        try:
            with (folder / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # it is in use
        except FileNotFoundError:
            pass
        _remove(folder)
        yield f"Docker in {folder}"


class _NameServer(Thread):
    """Answers that there is no such name. Without an answer Docker leaves whoever asks to wait until time is up."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((NAME_SERVER, 53))

    def run(self) -> None:
        while True:
            asked, client = self._socket.recvfrom(4096)
            name_end = asked.find(b"\0", 12)
            if name_end > 0:
                question = asked[12 : name_end + 5]
                flags, counts = b"\x81\x83", b"\0\x01" + bytes(6)  # an answer: NXDOMAIN; one question, nothing else
                self._socket.sendto(asked[:2] + flags + counts + question, client)


class _Inside:
    """The first process of the namespaces: it starts Docker, runs the command, and ends both."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.root = root
        (folder / "state").mkdir()
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([f"{root}/usr/bin", f"{root}/usr/sbin", os.environ["PATH"], "/usr/sbin", "/sbin"]),
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
            "DOCKER_CONFIG": str(folder / "config"),  # the user's may name contexts, proxies and credential helpers
            "CLUSTERPROOF_STATE": str(folder / "state"),  # of clusters that end when this Docker does
        }

    def run(self, archives: Sequence[str], command: Sequence[str]) -> int:
        for prepare in ("mount -t proc proc /proc", "ip link set lo up", f"ip address add {NAME_SERVER}/32 dev lo"):
            subprocess.run(prepare.split(), env=self.environment, check=True)
        _NameServer().start()
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the kernel ends all others
        daemon = self._start()
        for archive in archives:
            loading = ["docker", "load", "--quiet", "--input", archive]
            if subprocess.run(loading, env=self.environment, check=False).returncode:
                sys.exit(f"docker: {archive} was not loaded")
        child = subprocess.Popen(command, env=self.environment)
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        code = child.wait()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        daemon.terminate()  # it ends its containers, so that their control groups are empty
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(30)
        return 128 - code if code < 0 else code

    def _start(self) -> subprocess.Popen[bytes]:
        command = [
            "dockerd",
            f"--data-root={self.folder}/data",
            f"--exec-root={self.folder}/run",
            f"--pidfile={self.folder}/docker.pid",
            f"--host=unix://{self.folder}/docker.sock",
            f"--dns={NAME_SERVER}",
            f"--cgroup-parent=/{self.folder.name}",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            *self._runtime(),
        ]
        libraries = sorted({str(path.parent) for path in self.root.glob("**/libdevmapper.so*")})
        log = (self.folder / "log").open("wb")
        daemon = subprocess.Popen(
            command,
            env={**self.environment, "LD_LIBRARY_PATH": os.pathsep.join(libraries)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the command
        )
        deadline = time.monotonic() + START
        while subprocess.run(["docker", "info"], env=self.environment, capture_output=True, check=False).returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "log").read_text(errors="replace").splitlines()[-15:]
                print("docker: dockerd does not answer; its log ends with:", *said, sep="\n  ", file=sys.stderr)
                raise SystemExit(1)
            time.sleep(0.1)
        return daemon

    def _runtime(self) -> list[str]:
        bounding = next(
            line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd")
        )
        if int(bounding.split()[1], 16) >> _LACKS_SYS_RESOURCE & 1:
            return []
        wrapper = self.folder / "runtime"
        script = Path(__file__).with_name("oci_runtime.py")
        wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -SI {script} "$@"\n')
        wrapper.chmod(0o755)
        return [f"--add-runtime=modest={wrapper}", "--default-runtime=modest"]


def _main(arguments: Sequence[str]) -> int:
    mine, command = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    folder, root, *loads = mine
    return _Inside(Path(folder), Path(root)).run([each.partition("=")[2] for each in loads], command)


if __name__ == "__main__":
    raise SystemExit(_main(sys.argv[1:]))
