"""A machine of its own, as far as the kernel can tell: a network, mount and PID namespace around ordinary processes.

What a cluster leaves behind on it can be counted without exception, since nobody else changes anything there; and what
a test breaks on it is broken nowhere else.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from clusterproof.embedded import cgroups, process, state

from clusterproof import Client, eventually, kinds
from clusterproof.objects import Object, Selection

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
PATIENCE = 90.0
"""Seconds for what takes a second or two on a machine that has nothing else to do."""

_INIT = """
mount -t tmpfs tmpfs /run
mkdir /run/mount  # mount itself makes it
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward  # so that the cluster also makes its rules in the firewall
echo ready
exec >/dev/null
while :; do sleep 3600 & wait; done  # reaps whatever loses its parent
"""
_NETWORK = """
ip -o link; ip -o address; ip rule; ip route show table all; ip -6 route show table all
iptables-save; ip6tables-save
cd /proc/sys
grep -s . vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/* \
    net/ipv4/ip_forward net/ipv4/conf/*/* net/bridge/*
"""
_RESTART = """
import sys, time
from clusterproof.embedded import operate, state
made = state.load(sys.argv[1])
operate.stop(made, sys.argv[2])
time.sleep(float(sys.argv[3]))
operate.start(made, sys.argv[2])
"""
_FOLDERS = (
    "dev/shm",
    "etc",
    "opt",
    "run",
    "var/lib/cni",
    "var/lib/containerd",
    "var/lib/kube-proxy",
    "var/lib/kubelet",
    "var/log/containers",
    "var/log/pods",
)
"""Where the programs of a cluster put their files, on the machine or on a node."""

Snapshot = dict[str, list[str]]
"""What there is of each kind, sorted."""


class Machine:
    """One machine; `clusterproof` and everything else is run on it with `run` or `start`."""

    def __init__(self, folder: Path, init: subprocess.Popen[str]) -> None:
        self.folder = folder
        """Its clusters (`state`) and temporary files (`tmp`), nobody else's."""
        self.word = f"x{secrets.token_hex(3)}"
        """Begins the names of all its clusters: control groups are every machine's."""
        child = process.child_of(init.pid)
        assert child is not None
        self._init = child
        self._environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("CLUSTERPROOF_", "PYTEST_", "KUBECONFIG"))
            or key in ("CLUSTERPROOF_CACHE", "CLUSTERPROOF_SOURCE", "CLUSTERPROOF_RELEASES")
        }
        self._environment |= {"CLUSTERPROOF_STATE": str(folder / "state"), "TMPDIR": str(folder / "tmp")}

    def name(self, suffix: str) -> str:
        """A name for a cluster."""
        return f"{self.word}-{suffix}"

    @property
    def root(self) -> Path:
        """Its files, as it sees them."""
        return Path(f"/proc/{self._init}/root")

    def program(self, name: str) -> Path:
        """A program of the Python environment that runs this."""
        return Path(sys.executable).with_name(name)

    def cluster(self, name: str) -> Path:
        """The folder of a cluster."""
        return self.folder / "state" / name

    def run(
        self, *command: str | Path, within: float = PATIENCE, at: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which must come in time."""
        return subprocess.run(
            self._entered(command, at),
            env=self._environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )

    def clusterproof(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command of that name."""
        return self.run(self.program("clusterproof"), *arguments, **environment)

    def must(self, *arguments: str, **environment: str) -> str:
        """Run `clusterproof`, which must succeed; its output."""
        done = self.clusterproof(*arguments, **environment)
        assert done.returncode == 0, f"clusterproof {' '.join(arguments)} exited with {done.returncode}: {done.stderr}"
        return done.stdout

    def up(self, suffix: str, *options: str, **environment: str) -> Cluster:
        """Start a cluster that has nothing but nodes."""
        name = self.name(suffix)
        return Cluster(self, name, self.must("up", "--name", name, "--addons", "none", *options, **environment))

    @contextlib.contextmanager
    def start(self, *command: str | Path, at: Path | None = None, **environment: str) -> Iterator[Started]:
        """Start a command in a session of its own; whatever of it still runs is killed at the end."""
        with (self.folder / "output").open("w+") as output:
            running = subprocess.Popen(
                self._entered(command, at),
                env=self._environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )
            started = Started(running, Path(output.name))
            try:
                yield started
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.pid, 9)
                running.wait()

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """What this thread connects to inside the block, it connects to from the machine."""
        library = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{self._init}/ns/net") as there, open("/proc/thread-self/ns/net") as here:
            assert library.setns(there.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert library.setns(here.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())

    def ask(self, kubeconfig: Path, question: Callable[[Client], T]) -> T:
        """What a client of a cluster on this machine finds out."""
        with self.network():
            return question(Client.from_kubeconfig(kubeconfig))

    def snapshot(self) -> Snapshot:
        """Everything there is on it that a cluster might leave."""
        done = self.run("sh", "-ec", _NETWORK)
        assert done.returncode in (0, 1, 2), done.stderr  # grep: there is no net/bridge
        root = self.root
        return {
            "processes": sorted(_processes(root / "proc")),
            "mounts": sorted(_mounts(root / "proc/1/mountinfo")),
            "network and kernel": sorted(filter(_lasting, done.stdout.splitlines())),
            "control groups": sorted(str(path) for path in self._groups()),
            "loop devices": sorted(self.run("losetup", "--list", "--noheadings").stdout.splitlines()),
            "files": sorted(
                [
                    *(str(path) for name in _FOLDERS for path in _below(root, root / name)),
                    *(str(path) for path in _below(self.folder, self.folder) if path != Path("output")),
                ]
            ),
        }

    def left_since(self, before: Snapshot) -> list[str]:
        """What differs from a snapshot, once the kernel had time to take away what nothing refers to any more."""
        left: list[str] = []

        def look() -> list[str]:
            left[:] = _differences(before, self.snapshot())
            return left

        with contextlib.suppress(AssertionError):
            eventually(look, lambda seen: "; ".join(seen) or None, within=10)
        return left

    def kill(self, word: str, signal: str = "KILL") -> None:
        """End the processes whose command line has that word, or signal them."""
        pids = [line.partition(":")[0] for line in _processes(self.root / "proc") if word in line]
        assert pids, f"nothing with {word} runs"
        self.run("kill", f"-{signal}", *pids)

    def kill_everything(self) -> None:
        """What a machine does that has run out of memory, only more thoroughly."""
        self.run("sh", "-c", "kill -9 -1")

    def _groups(self) -> Iterator[Path]:
        for hierarchy in cgroups.hierarchies():
            yield from hierarchy.glob(f"{cgroups.TOP}/{self.word}*")
            yield from hierarchy.glob(f"{cgroups.TOP}/{self.word}*/**/")

    def _entered(self, command: tuple[str | Path, ...], at: Path | None) -> list[str]:
        place = [f"--target={self._init}", "--net", "--mount", "--pid", f"--wd={at or self.folder}"]
        return ["nsenter", *place, *map(str, command)]

    def remove(self) -> None:
        """Take away what is not in its namespaces."""
        for name in {path.name for each in cgroups.hierarchies() for path in each.glob(f"{cgroups.TOP}/{self.word}*")}:
            cgroups.remove(name)
        shutil.rmtree(self.folder)


@dataclass(frozen=True)
class Cluster:
    """A cluster that `clusterproof up` has started on a machine."""

    machine: Machine
    name: str
    said: str
    """What the command printed at its end."""

    @property
    def folder(self) -> Path:
        return self.machine.cluster(self.name)

    @property
    def kubeconfig(self) -> Path:
        """Its administrator's."""
        return self.folder / "kubeconfig"

    @property
    def server(self) -> str:
        """URL of its API server."""
        return str(json.loads(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])

    def ask(self, question: Callable[[Client], T]) -> T:
        """What its administrator finds out, or does."""
        return self.machine.ask(self.kubeconfig, question)

    def restart(self, program: str, after: float = 0.0) -> None:
        """End a program of the control plane, and start it again after so many seconds."""
        done = self.machine.run(self.machine.program("python"), "-c", _RESTART, self.name, program, str(after))
        assert done.returncode == 0, done.stderr

    def nodes(self) -> list[Object]:
        return self.ask(lambda client: Selection(client, kinds.NODE).read())


class Started:
    """A command that was started on a machine."""

    def __init__(self, running: subprocess.Popen[str], log: Path) -> None:
        self._running = running
        self._log = log

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        """Its process id, to signal it by: `nsenter` started it and waits for it."""
        child = process.child_of(self._running.pid)
        assert child is not None, f"it has ended: {self.output}"
        return child

    def signal(self, number: int) -> None:
        """Tell it and everything it started, as a terminal does."""
        for pid in _session(self._running.pid):
            if pid != self._running.pid:  # `nsenter`, which would take its exit code with it
                os.kill(pid, number)

    def reaches(self, moment: Callable[[], bool], within: float = PATIENCE) -> None:
        """Wait for something that it brings about."""

        def missing(there: bool) -> str | None:
            assert there or self._running.poll() is None, f"it ended before: {self.output}"
            return None if there else "not yet"

        eventually(moment, missing, within=within)

    def wait(self, within: float = PATIENCE) -> int:
        """Wait for its end; its exit code."""
        return self._running.wait(within)


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """A fresh machine, which ends with everything on it."""
    # Beside the folder of all clusters: that is on the disk that has the room, often the cache's own.
    folder = Path(tempfile.mkdtemp(prefix="clusterproof-test-", dir=state.root().parent))
    for name in ("state", "tmp"):
        (folder / name).mkdir()
    (folder / "state/.lock").touch()  # it stays: two could hold a lock whose file comes and goes
    isolate = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with subprocess.Popen(
        [*isolate, "sh", "-ec", _INIT], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as init:
        assert init.stdout is not None
        assert init.stdout.readline() == "ready\n"
        made = Machine(folder, init)
        inner = made._init
        try:
            yield made
        finally:
            init.kill()
            process.await_end([inner])
    made.remove()


def _session(leader: int) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(int(entry)) == leader:
                    yield int(entry)


def _processes(proc: Path) -> Iterator[str]:
    for entry in os.listdir(proc):
        if entry.isdigit() and entry != "1":
            with contextlib.suppress(OSError):  # it ended meanwhile
                command = (proc / entry / "cmdline").read_text().replace("\0", " ").strip()
                if command and command != "sleep 3600":
                    yield f"{entry}: {command}"


def _mounts(path: Path) -> Iterator[str]:
    for line in path.read_text().splitlines():
        words = line.split()
        yield " ".join([*words[3:6], *words[words.index("-") :]])


def _lasting(line: str) -> bool:
    """Not a comment, nor a counter of packets: those of built-in chains change with every packet."""
    return not re.match(r"#|:\w+ (ACCEPT|DROP) |\*|COMMIT", line)


def _below(start: Path, folder: Path) -> Iterator[Path]:
    if folder.exists():
        yield folder.relative_to(start)
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name).relative_to(start) for name in (*folders, *files))


def _differences(before: Snapshot, after: Snapshot) -> list[str]:
    return [
        f"{kind}: {line}"
        for kind in before
        for line in difflib.unified_diff(before[kind], after[kind], lineterm="", n=0)
        if line.startswith(("+", "-")) and not line.startswith(("+++", "---"))
    ]
