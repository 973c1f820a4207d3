"""A cluster, an sshd on loopback, and a controller that runs playbooks."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clusterproof.embedded import cluster

ROOT = Path(__file__).parents[2]
NAME = "playbooks"


@dataclass(frozen=True, slots=True)
class Play:
    """What a run of a playbook said."""

    code: int
    output: str

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """`ok`, `changed`, `failed`, … of each host."""
        lines = re.findall(r"^(\S+)\s+: (ok=.*)$", self.output, re.MULTILINE)
        return {host: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", said)} for host, said in lines}


class Controller:
    """Runs the playbooks with an inventory of its own, in a copy of their folder, which they write into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.playbooks = folder / "playbooks"
        shutil.copytree(ROOT / "playbooks", self.playbooks)

    def play(self, playbook: str, inventory: dict[str, Any], *options: str) -> Play:
        """Run a playbook with groups of hosts, each with its variables."""
        path = self.folder / "inventory.json"
        path.write_text(json.dumps({name: {"hosts": hosts} for name, hosts in inventory.items()}))
        programs = Path(sys.executable).parent
        command = [programs / "ansible-playbook", "-i", path, self.playbooks / playbook, *options]
        settings = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": os.environ["HOME"],
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_HOST_KEY_CHECKING": "False",
            "ANSIBLE_NOCOLOR": "True",
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "LC_ALL": "C.UTF-8",
        }
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "CLUSTERPROOF_", "XDG_"))}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**kept, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )
        return Play(done.returncode, done.stdout)


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[Path]:
    """Of a real cluster with one node."""
    if os.geteuid() != 0:
        pytest.skip("embedded clusters need root")
    made = cluster.up(cluster.Plan(NAME, nodes=1, addons=("dns",)), print)
    try:
        yield made.kubeconfig
    finally:
        cluster.down(NAME)


@pytest.fixture(scope="session")
def by_ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Ansible's variables for this machine, reached by a real sshd on loopback."""
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/key.pub\n"
        "StrictModes no\nPermitRootLogin prohibit-password\nPidFile none\nSubsystem sftp internal-sftp\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert sshd, "the playbooks' tests need openssh-server: apt-get install openssh-server"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stdout=log, stderr=log)
    try:
        _await_port(port, process, folder / "log")
        yield {
            "ansible_host": "127.0.0.1",
            "ansible_port": port,
            "ansible_user": "root",
            "ansible_python_interpreter": sys.executable,
            "ansible_ssh_private_key_file": str(folder / "key"),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={folder}/known_hosts",
        }
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    """A controller with nothing in its folder but the playbooks."""
    return Controller(tmp_path)


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"sshd does not listen on port {port}: {log.read_text(errors='replace')}")
