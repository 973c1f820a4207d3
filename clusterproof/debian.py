"""Debian packages that are not installed: nothing on this machine changes or starts.

Programs are unpacked from them, and root file systems for images made of them.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from clusterproof import parts
from clusterproof.errors import SurroundingsError
from clusterproof.parts import Progress


def unpacked(name: str, packages: Sequence[str], progress: Progress) -> Path:
    """Folder with the files of these packages, as this machine's own release has them; kept in the cache.

    Raises SurroundingsError where apt cannot fetch them.
    """

    def make(draft: Path) -> None:
        progress(f"{name}: fetching {', '.join(packages)} from this machine's Debian packages")
        folder = draft / "packages"
        folder.mkdir()
        # Without a sandbox user: it could not write into the cache of root.
        fetch = ["apt-get", "-o", "APT::Sandbox::User=", "--quiet", "--quiet", "download", *packages]
        run(fetch, f"{', '.join(packages)} cannot be fetched", folder, help="try: apt-get update")
        for package in sorted(folder.glob("*.deb")):
            run(["dpkg-deb", "--extract", str(package), str(draft / "root")], f"{package.name} cannot be unpacked")
            package.unlink()
        folder.rmdir()

    release = Path("/etc/os-release").read_text() if os.path.exists("/etc/os-release") else ""
    ingredients = {"packages": list(packages), "release": release, "machine": os.uname().machine}
    return parts.load().obtain("debian", name, ingredients, make, progress) / "root"


def rootfs(room: str, suite: str, packages: Sequence[str], progress: Progress, *, without: Sequence[str] = ()) -> Path:
    """A tar file with the root file system of a Debian release and these packages; kept in the cache for a room.

    `without` are patterns of files that are left out. Raises SurroundingsError where no mirror is in reach;
    `CLUSTERPROOF_DEBIAN_MIRROR` names another one.
    """

    def make(draft: Path) -> None:
        started = time.monotonic()
        tool = unpacked("mmdebstrap", ("mmdebstrap", "debian-archive-keyring"), progress)
        progress(f"{room}: making a root file system of Debian {suite}")
        keys = tool / "usr/share/keyrings/debian-archive-keyring.gpg"
        command = ["perl", str(tool / "usr/bin/mmdebstrap"), "--quiet", "--variant=minbase", f"--keyring={keys}"]
        command += [f"--dpkgopt=path-exclude={pattern}" for pattern in without]
        command += [f"--include={','.join(packages)}", suite, str(draft / "rootfs.tar")]
        if mirror := os.environ.get("CLUSTERPROOF_DEBIAN_MIRROR"):
            command.append(mirror)
        run(
            command,
            f"the root file system of Debian {suite} cannot be made",
            help="is a mirror in reach?",
            programs=tool / "usr/bin",
        )
        progress(f"{room}: root file system made in {time.monotonic() - started:.0f} s")

    ingredients = {"suite": suite, "packages": packages, "machine": os.uname().machine}
    if without:
        ingredients["without"] = without
    return parts.load().obtain(room, "rootfs", ingredients, make, progress) / "rootfs.tar"


def run(
    command: Sequence[str], problem: str, folder: Path | None = None, *, help: str = "", programs: str | Path = ""
) -> None:
    """Run a quiet command; SurroundingsError with the problem and its last lines when it fails.

    `programs` is a folder of programs that it finds beside those of PATH.
    """
    found = [os.environ.get("PATH", os.defpath), *([str(programs)] if programs else [])]
    environment = {**os.environ, "PATH": os.pathsep.join(found)}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SurroundingsError(f"{problem}: {command[0]} is not on this machine") from error
    if done.returncode:
        said = "\n".join(f"  {line}" for line in (done.stdout + done.stderr).strip().splitlines()[-15:])
        raise SurroundingsError(
            f"{problem}: {command[0]} ended with {done.returncode}{f' ({help})' if help else ''}:\n{said}"
        )
