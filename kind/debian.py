"""Programs from Debian packages that are unpacked, not installed: nothing on this machine changes or starts."""

from __future__ import annotations

import os
import subprocess
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


def run(command: Sequence[str], problem: str, folder: Path | None = None, *, help: str = "") -> None:
    """Run a quiet command; SurroundingsError with the problem and its last lines when it fails."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SurroundingsError(f"{problem}: {command[0]} is not on this machine") from error
    if done.returncode:
        said = "\n".join(f"  {line}" for line in (done.stdout + done.stderr).strip().splitlines()[-15:])
        raise SurroundingsError(
            f"{problem}: {command[0]} ended with {done.returncode}{f' ({help})' if help else ''}:\n{said}"
        )
