"""A Docker of our own: it runs, and the machine is afterwards what it was, however the command ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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


def machine() -> str:
    """What a Docker could have changed on this machine. Rules of embedded clusters, which come and go, do not count."""
    said = subprocess.run(["sh", "-c", _SEEN], capture_output=True, text=True, check=False).stdout
    return "\n".join(line for line in said.splitlines() if "clusterproof:" not in line)


def say(line: str) -> None:
    print(line)


def test_it_runs_containers_and_leaves_nothing(tmp_path: Path) -> None:
    before = machine()
    output = (tmp_path / "output").open("w+")
    files = tmp_path / "files"
    files.mkdir()
    (files / "hello").write_text("hello")
    script = f"""
        set -e
        tar -C {files} -c . | docker import - test:1 >/dev/null
        docker create --name one test:1 /hello >/dev/null
        docker cp one:/hello {tmp_path}/copied
        docker network create --ipv6 --subnet fd00:1::/64 more >/dev/null
        iptables -S FORWARD | head -1
    """
    code = docker.run(["sh", "-c", script], say, output=output.fileno())
    assert code == 0, (tmp_path / "output").read_text()
    assert (tmp_path / "copied").read_text() == "hello"
    assert "-P FORWARD DROP" in (tmp_path / "output").read_text()
    assert machine() == before


def test_the_commands_exit_code_is_passed_on() -> None:
    assert docker.run(["sh", "-c", "exit 7"], say) == 7


def test_a_killed_command_leaves_what_sweep_removes() -> None:
    before = machine()
    script = "from clusterproof.kind import docker; docker.run(['sh', '-c', 'echo up; sleep 600'], lambda line: None)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (folder,) = docker.WHERE.glob(f"{docker.PREFIX}*")
        assert list(docker.sweep()) == []  # it is in use
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 30
    while "dockerd" in machine() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list(docker.sweep()) == [f"Docker in {folder}"]
    assert machine() == before


def test_a_terminated_command_leaves_nothing() -> None:
    before = machine()
    script = "from clusterproof.kind import docker; docker.run(['sh', '-c', 'echo up; sleep 600'], lambda line: None)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.terminate()
        process.wait(60)
    assert machine() == before
