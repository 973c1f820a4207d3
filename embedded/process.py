"""Processes of an embedded cluster: a node is a PID, mount, UTS and network namespace around ordinary host processes.

Each node has an anchor, process 1 of its PID namespace. When the anchor is killed the kernel ends everything on the
node with it (containers too), and takes the node's mounts away: that is all the tear-down processes and mounts need,
whatever state the launcher left them in.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from .state import NAMESPACES, RANGE, ClusterState, EmbeddedError, Program

BIN = "/opt/clusterproof/bin"
"""Where a node has its programs."""

HOST = "host"
"""What stands for a node's name where a program runs that starts and ends nodes: only its network is the cluster's."""

STARTS = 20.0
"""Seconds in which a program says that it has started."""
SLOWER = "(for a slower machine raise --timeout-scale)"
"""What to do about a start that took too long."""
PATIENCE = 30.0
"""Seconds for processes to end that were told to."""

# Whatever is started here belongs to this process until it is waited for; kept so that stop() can do that.
_started: dict[int, subprocess.Popen[bytes]] = {}


@atexit.register
def _let_go() -> None:
    """What still runs outlives this process: Python need not warn of it."""
    for process in _started.values():
        process.returncode = process.returncode or 0


_ANCHOR = """
read -r pid _ < /proc/self/stat  # /proc is still the host's: this is the process id out there
mount --make-rprivate / && mount --make-rshared /
mount -t proc proc /proc
hostname "$1"
{prepare}
exec 3>&1 >/dev/null
echo "$pid" >&3
exec 3>&-
while :; do sleep 3600 & wait; done  # reaps whatever loses its parent
"""


def start_anchor(hostname: str, namespace: str, folder: Path, prepare: str = "") -> int:
    """Start a node's first process, which runs `prepare` (shell lines) in its mount namespace and in `folder`.

    Returns the process id on the host. Raises EmbeddedError with what the shell said.
    """
    enter = ["nsenter", f"--net={NAMESPACES / namespace}"]
    isolate = ["unshare", "--fork", "--pid", "--mount", "--uts", "--"]
    shell = ["sh", "-ec", _ANCHOR.format(prepare=prepare), "anchor", hostname]
    process = subprocess.Popen(
        [*enter, *isolate, *shell],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=(log := (folder / "anchor.log").open("wb")),
        cwd=folder,
        start_new_session=True,
    )
    log.close()
    _started[process.pid] = process
    assert process.stdout is not None
    with process.stdout as answer:
        line = answer.readline()
    if not line:
        raise EmbeddedError(f"node {hostname}: cannot be set up:\n{tail(folder / 'anchor.log')}")
    return int(line)


def start(state: ClusterState, name: str, command: Sequence[str | Path], *, on: str) -> Component:
    """Start a program on a node (or `control-plane`, or `HOST`) and note it in the state; it outlives this process."""
    program = Program(on, [str(part) for part in command], 0)
    if on == HOST:
        # The control plane's network: there it is found at the cluster's end. A PID namespace, if only its own, makes
        # `nsenter` its parent, as everywhere else.
        enter = ["nsenter", f"--net={NAMESPACES / state.control_plane}", "--pid=/proc/self/ns/pid", "--wd=/"]
    else:
        enter = ["nsenter", f"--target={state.anchors[on]}", "--mount", "--uts", "--net", "--pid", "--wd=/"]
    state.log(name).parent.mkdir(parents=True, exist_ok=True)
    with state.log(name).open("ab") as output:
        process = subprocess.Popen(
            [*enter, *program.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(),
        )
    _started[process.pid] = process
    program.pid = process.pid
    state.programs[name] = program
    return Component(name, process, state.log(name), STARTS * state.timeout_scale)


def _environment() -> dict[str, str]:
    """What programs of a cluster get of the launcher's environment: where to find others, and how to leave the machine.

    Its other variables speak of folders that a node does not have (TMPDIR) or of the launcher's own business.
    """
    # Heaps are small here: at the usual 100 garbage is collected so often that suites take a tenth longer.
    common = {"PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "GOGC": "400"}
    proxies = {name: value for name, value in os.environ.items() if name.lower() in ("http_proxy", "https_proxy")}
    if not proxies:
        return common
    past = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    direct = ",".join(filter(None, (past, str(RANGE), ".svc", ".cluster.local")))
    return {**common, **proxies, "NO_PROXY": direct, "no_proxy": direct}


class Component:
    """A program that this process started, with the log that says how it is doing."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path, within: float) -> None:
        self.name = name
        self._process = process
        self._log = log
        self._within = within

    def check(self) -> None:
        """Raise EmbeddedError with exit and last log lines when it has ended."""
        if (code := self._process.poll()) is not None:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
            raise EmbeddedError(f"{self.name} {how}; {self.last_words}")

    @property
    def last_words(self) -> str:
        """The last lines of its log, for messages: the log itself goes when a start fails."""
        return f"its log ends with:\n{tail(self._log)}"

    def await_said(self, phrase: str) -> None:
        """Wait until its log has a phrase: for ports that cannot be reached from here."""
        deadline = time.monotonic() + self._within
        while phrase not in self._log.read_text(errors="replace"):
            self.check()
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"{self.name} did not say {phrase!r} within {self._within:g} s {SLOWER}; {self.last_words}"
                )
            time.sleep(0.02)


def child_of(pid: int) -> int | None:
    """The process that an `nsenter` of ours started: what to signal; None when it has ended."""
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it ended meanwhile
                    fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                    if int(fields[1]) == pid and fields[0] != "Z":
                        return int(entry.name)
    return None


def kill(pids: Sequence[int]) -> None:
    """End processes at once and wait until they have gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await_end(pids)


def await_end(pids: Sequence[int], within: float = PATIENCE) -> None:
    """Wait, in seconds, until processes that were told to end have gone; EmbeddedError names those that stay.

    What is stopped is continued, again and again: `nsenter` stops itself, sooner or later, when its child was stopped,
    and would never notice the child's end.
    """
    deadline = time.monotonic() + within
    while left := [pid for pid in pids if _runs(pid)]:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if time.monotonic() > deadline:
            raise EmbeddedError(f"processes {left} do not end, although they were told to; see /proc/<id>/stack")
        time.sleep(0.01)


def reap() -> None:
    """Take note of the ends of what this process started, so that nothing stays a zombie."""
    for pid, process in list(_started.items()):
        if process.poll() is not None:
            del _started[pid]


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, indented as parts of a message that stay lines."""
    with contextlib.suppress(FileNotFoundError):
        if said := log.read_text(errors="replace").splitlines()[-lines:]:
            return "\n".join(f"  {line}" for line in said)
    return "  (nothing was logged)"


def _runs(pid: int) -> bool:
    reap()
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
