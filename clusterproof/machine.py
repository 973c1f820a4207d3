"""One machine of the cluster, seen from inside: what runs on it, with which arguments, and where its files are.

Paths come from the running programs' own command lines and from the configuration that the kubelet itself reports, so
that nothing depends on how a cluster was installed.
"""

from __future__ import annotations

import posixpath
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from testinfra.host import Host

from clusterproof.errors import SurroundingsError

RUNTIMES = ("containerd", "crio", "cri-dockerd", "dockerd")
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
PROGRAMS = ("kubelet", *RUNTIMES, *CONTROL_PLANE, "kube-proxy")
PATIENCE = 30
"""Seconds for one script on a machine."""

# What is asked of every machine once in a run. The kernel has the first 15 characters of a program's name.
_SURVEY = r"""
echo "user=$(id -u)"
echo "kernel=$(uname -r)"
echo "boot_id=$(cat /proc/sys/kernel/random/boot_id)"
echo "os=$(. /etc/os-release && echo "$PRETTY_NAME")"
echo "cgroup=$([ -e /sys/fs/cgroup/cgroup.controllers ] && echo v2 || echo v1)"
[ ! -d /run/systemd/system ] || echo "systemd=yes"
ours=$(readlink /proc/1/ns/pid) network=$(readlink /proc/1/ns/net)
for folder in /proc/[0-9]*; do
    name=
    read -r name < "$folder/comm" || continue
    case $name in
    kubelet | containerd | crio | dockerd | cri-dockerd) [ "$(readlink "$folder/ns/pid")" = "$ours" ] || continue ;;
    # Those of another cluster, whose control plane or nodes are this one's pods, have networks of their own.
    kube-apiserver | kube-controller | kube-scheduler | etcd | kube-proxy)
        [ "$(readlink "$folder/ns/net")" = "$network" ] || continue ;;
    *) continue ;;
    esac
    unit=$(sed -n 's|.*/\([^/]*\.service\).*|\1|p' "$folder/cgroup" | head -n 1)
    user=$(stat -c %u "$folder") && command=$(tr '\0' '\037' < "$folder/cmdline") || continue
    # One that has ended meanwhile, as what a program forks has soon, has none.
    [ -z "$command" ] || echo "program=${folder#/proc/} $user ${unit:--} $command"
done 2>/dev/null
exit 0
"""


class Unseen(Exception):
    """A machine does not show what was looked for; says why."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program of Kubernetes that runs on a machine."""

    name: str
    pid: int
    user: int
    """Numeric user it runs as."""
    unit: str
    """The systemd unit that it belongs to, or empty."""
    command: tuple[str, ...]

    def flag(self, name: str, default: str = "") -> str:
        """The value of `--name=value` or `--name value`; the last one counts, as it does for the program."""
        found = default
        for argument, following in zip(self.command[1:], (*self.command[2:], ""), strict=True):
            option, equals, value = argument.partition("=")
            if option.lstrip("-") == name and option.startswith("-"):
                alone = not following or following.startswith("-")
                found = value if equals else "true" if alone else following
        return found

    @property
    def flags(self) -> dict[str, str]:
        """Every flag that was given, with its value."""
        names = [argument.partition("=")[0].lstrip("-") for argument in self.command[1:] if argument.startswith("-")]
        return {name: self.flag(name) for name in names}

    def seen_from_outside(self, path: str) -> str:
        """Where the machine has a file that the program, perhaps in a container, knows as `path`."""
        return f"/proc/{self.pid}/root{path}"


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found out about a machine when the run first looked at it."""

    user: int
    """Numeric user that commands run as."""
    kernel: str
    boot_id: str
    os: str
    cgroup: str
    """v1 or v2."""
    systemd: bool
    offset: float
    """Seconds that its clock is ahead of the observer's."""
    uncertainty: float
    """Seconds by which `offset` may be wrong: half of what asking took."""
    programs: tuple[Program, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """A node, or a machine of the control plane that is none."""

    name: str
    """The node's name."""
    host: Host
    node: bool
    """Whether the API server knows it as a Node."""
    survey: Survey
    kubelet_config: dict[str, Any] = field(default_factory=dict)
    """What the kubelet runs with (KubeletConfiguration), as it reports it; empty when it was not told."""

    def run(self, script: str, *arguments: str) -> str:
        """What a shell script prints there; Unseen with its own words when it fails."""
        return run(self.name, self.host, script, *arguments)

    def program(self, *names: str) -> Program:
        """The first of these programs that runs there; Unseen when none does."""
        for name in names:
            for each in self.survey.programs:
                if each.name == name:
                    return each
        raise Unseen(f"runs no process called {' or '.join(names)}")

    def programs(self, *names: str) -> list[Program]:
        """Those of these programs that run there."""
        return [each for each in self.survey.programs if each.name in names]

    def kubelet(self, *path: str) -> Any:
        """A value of the kubelet's configuration, None where it has none: `kubelet("authentication", "anonymous")`."""
        if not self.kubelet_config:
            raise Unseen("does not tell its kubelet's configuration: GET nodes/proxy configz was refused")
        value: Any = self.kubelet_config
        for part in path:
            value = (value or {}).get(part)
        return value


def run(name: str, host: Host, script: str, *arguments: str) -> str:
    """What a shell script prints on a host; Unseen with its own words when it fails."""
    command = f"timeout %s sh -c %s sh{' %s' * len(arguments)}"
    try:
        done = host.run(command, str(PATIENCE), f"PATH=$PATH:/usr/sbin:/sbin\n{script}", *arguments)
    except (RuntimeError, OSError, ValueError) as error:  # how testinfra's backends say that there is no way
        way = host.backend.get_pytest_id()
        raise SurroundingsError(f"{name} cannot be reached by {way}: {_brief(error)}") from error
    if done.rc:
        raise Unseen(f"a command exited with {done.rc}: {_brief(done.stderr_bytes.decode(errors='replace'))}")
    return str(done.stdout_bytes.decode(errors="replace"))


def look_at(name: str, host: Host) -> Survey:
    """The survey of a machine; SurroundingsError when it cannot be reached."""
    try:
        offset, uncertainty = clock(name, host)
        lines = [line.partition("=") for line in run(name, host, _SURVEY).splitlines()]
    except Unseen as error:
        way = host.backend.get_pytest_id()
        raise SurroundingsError(f"{name} cannot be looked at by {way}: {error}") from error
    values = {key: value for key, _, value in lines if key != "program"}
    return Survey(
        user=int(values["user"]),
        kernel=values["kernel"],
        boot_id=values["boot_id"],
        os=values["os"],
        cgroup=values["cgroup"],
        systemd="systemd" in values,
        offset=offset,
        uncertainty=uncertainty,
        programs=tuple(_program(value) for key, _, value in lines if key == "program"),
    )


def clock(name: str, host: Host) -> tuple[float, float]:
    """How many seconds a machine's clock is ahead of this one's, and by how many that may be wrong."""
    before = time.time()
    told = float(run(name, host, "date +%s.%N").strip().rstrip("N."))
    after = time.time()
    return told - (before + after) / 2, (after - before) / 2


def to_json(survey: Survey) -> dict[str, Any]:
    """A survey as plain values."""
    return asdict(survey)


def from_json(raw: dict[str, Any]) -> Survey:
    """What `to_json` made."""
    programs = tuple(Program(**{**each, "command": tuple(each["command"])}) for each in raw["programs"])
    return Survey(**{**raw, "programs": programs})


def _program(line: str) -> Program:
    pid, user, unit, command = line.split(" ", 3)
    arguments = tuple(command.rstrip("\x1f").split("\x1f"))
    return Program(posixpath.basename(arguments[0]), int(pid), int(user), unit.strip("-"), arguments)


def _brief(text: object) -> str:
    return " ".join(str(text).split())[-200:]
