"""Loop devices: what volumes of the add-on `disks` are attached to nodes as.

They are the machine's own, and stay when the node that had one is switched off.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CONTROL = Path("/dev/loop-control")
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
PROGRAMS = {"losetup": "mount", "blkid": "util-linux", "mkfs.xfs": "xfsprogs"}
"""Programs of this machine that make volumes usable, each with its Debian package."""


def refused() -> str:
    """Why this machine attaches no files as devices, and what to do about that; empty when it does."""
    if packages := {package for program, package in PROGRAMS.items() if not shutil.which(program, path=_PATH)}:
        return f"packages are missing: apt-get install --no-install-recommends -y {' '.join(sorted(packages))}"
    if not CONTROL.exists():
        return f"there is no {CONTROL}: modprobe loop, or in a container, run it --privileged"
    return "" if os.geteuid() else _attach_refused()


def _attach_refused() -> str:
    """Why no file can be attached: in a container the kernel's devices may not appear."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(1 << 20)
        command = [_program(), "--find", "--show", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            _losetup("--detach", done.stdout.strip())
            return ""
    return f"no file can be attached as a device ({done.stderr.strip()}): in a container, give it the machine's /dev"


def detach(folder: Path) -> None:
    """Detach all files of a folder from their devices; nothing uses them any more."""
    for file in folder.glob("*.disk"):
        _free(file)


def _free(file: Path) -> None:
    for device in _losetup("--associated", str(file), "--noheadings", "--output", "NAME").split():
        _free(Path(device))  # a kubelet keeps a pod's device open by another one upon it
        _losetup("--detach", device)


def _losetup(*arguments: str) -> str:
    return subprocess.run([_program(), *arguments], capture_output=True, text=True, check=False).stdout


def _program() -> str:
    return shutil.which("losetup", path=_PATH) or "losetup"
