"""A Docker of our own: it runs, and the machine is afterwards what it was, however the command ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clusterproof.kind import docker

_SEEN = """
iptables-save | grep -v -e '^#' | sed 's/\\[[0-9:]*\\]//'; ip6tables-save | grep -v -e '^#' | sed 's/\\[[0-9:]*\\]//'
ip -o link show type bridge | grep -o 'docker[^:]*\\|br-[^:]*'
grep -e docker -e overlay2 /proc/self/mounts
find /sys/fs/cgroup -maxdepth 3 -type d -name 'clusterproof-docker-*'
ls -d /var/tmp/clusterproof-docker-*
pgrep --list-full dockerd
sysctl -n net.ipv4.ip_forward
"""


def machine() -> set[str]:
    """What a Docker could have changed here, less what says that it is another's, or an embedded cluster's."""
    said = subprocess.run(["sh", "-c", _SEEN], capture_output=True, text=True, check=False).stdout
    return {line for line in said.splitlines() if "clusterproof:" not in line and docker.PREFIX not in line}


def left_of(folder: Path) -> list[str]:
    """What is left of one Docker on this machine."""
    said = subprocess.run(["sh", "-c", _SEEN], capture_output=True, text=True, check=False).stdout
    return [line for line in said.splitlines() if folder.name in line]


def say(line: str) -> None:
    print(line)


@contextmanager
def sleeping() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process whose command sleeps in a Docker of its own, and that Docker's folder."""
    script = "from clusterproof.kind import docker; "
    script += "docker.run(['sh', '-c', 'echo $DOCKER_HOST; sleep 600'], lambda line: None)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip().removeprefix("unix://")).parent


def test_it_runs_containers_and_leaves_nothing(tmp_path: Path) -> None:
    before = machine()
    files = tmp_path / "files"
    files.mkdir()
    (files / "hello").write_text("hello")
    script = f"""
        set -e
        echo $DOCKER_HOST
        tar -C {files} -c . | docker import - test:1 >/dev/null
        docker create --name one test:1 /hello >/dev/null
        docker cp one:/hello {tmp_path}/copied >/dev/null
        docker network create --ipv6 --subnet fd00:1::/64 more >/dev/null
        iptables -S FORWARD | head -1
        timeout 5 getent hosts example.com || echo no such name
    """
    with (tmp_path / "output").open("w") as output:
        code = docker.run(["sh", "-c", script], say, output=output.fileno())
    said = (tmp_path / "output").read_text()
    assert code == 0, said
    assert (tmp_path / "copied").read_text() == "hello"
    assert "-P FORWARD DROP" in said
    assert "no such name" in said
    assert machine() == before
    assert not left_of(Path(said.splitlines()[0].removeprefix("unix://")).parent)


def test_the_commands_exit_code_is_passed_on() -> None:
    assert docker.run(["sh", "-c", "exit 7"], say) == 7


def test_a_killed_command_leaves_what_sweep_removes() -> None:
    before = machine()
    with sleeping() as (process, folder):
        assert f"Docker in {folder}" not in list(docker.sweep())  # it is in use
        assert left_of(folder)
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any("dockerd" in line for line in left_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert f"Docker in {folder}" in list(docker.sweep())
    assert not left_of(folder)
    assert machine() == before


def test_a_terminated_command_leaves_nothing() -> None:
    before = machine()
    with sleeping() as (process, folder):
        process.terminate()
        process.wait(60)
    assert not left_of(folder)
    assert machine() == before
