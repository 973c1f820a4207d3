"""Makes the image with the suites, without Docker: everything is kept in the cache, in three layers.

Debian's root file system with Python (needs a way to a Debian mirror), the pinned packages that clusterproof depends on
(needs a way to a package index), and clusterproof itself, which is all that a change of the code makes anew.
"""

from __future__ import annotations

import compileall
import hashlib
import platform
import shutil
import sys
import time
import tomllib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

from clusterproof import debian, parts
from clusterproof.errors import SurroundingsError
from clusterproof.parts import Packing, Progress

HERE = Path(__file__).parent
REFERENCE = f"localhost/clusterproof:{version('clusterproof')}"
"""What the image is called: in no registry is there one of that name that a cluster could pull instead."""

SUITE, PYTHON = "bookworm", (3, 11)
"""Debian's release, and the Python that it has."""
PACKAGES = tuple((HERE / "packages.txt").read_text().split())
"""Debian's packages in the image, beyond the least there is."""
WITHOUT = tuple(f"/usr/share/{folder}/*" for folder in ("doc", "groff", "info", "lintian", "locale", "man"))
"""What Debian's slim images leave out, too."""

ROOT = "opt/clusterproof"
"""Where Python's packages are, and clusterproof among them."""
ENVIRONMENT = {
    "PATH": f"/{ROOT}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONPATH": f"/{ROOT}",
    "HOME": "/tmp",
    "PYTEST_ADDOPTS": "-p no:cacheprovider",
}
FOLDER = f"/{ROOT}/clusterproof"
"""Where a container starts, so that `pytest suites/` means the same as in a checkout."""
USER = "65534:65534"
COMMAND = ("clusterproof",)

_GLIBC = range(36, 4, -1)
"""Minor versions of the C library that packages may be built for: those up to bookworm's."""


def ensure(progress: Progress) -> Path:
    """An archive with the image, for `docker load` and `ctr images import`; made now if it is not in the cache.

    Raises SurroundingsError with what is in the way.
    """
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "constraints.txt").exists():
        raise SurroundingsError(f"the image is made from a checkout of clusterproof, and {checkout} is none")
    if sys.version_info[:2] != PYTHON:
        wanted = ".".join(map(str, PYTHON))
        raise SurroundingsError(
            f"the image has Python {wanted}, and packages for it are installed by the same: this is Python "
            f"{platform.python_version()} (or use Docker: docker build --file incluster/image/Dockerfile .)"
        )
    rootfs = debian.rootfs("image", SUITE, PACKAGES, progress, without=WITHOUT)
    project = tomllib.loads((checkout / "pyproject.toml").read_text())
    packages = _packages(checkout, project["project"]["dependencies"], progress)
    sources = _sources(checkout, project["tool"]["setuptools"]["package-dir"])
    made = parts.load()

    def make(draft: Path) -> None:
        started = time.monotonic()
        layer = _clusterproof(checkout, sources, draft, progress)
        layers = (rootfs, packages, layer)
        image = Packing(REFERENCE, layers, environment=ENVIRONMENT, folder=FOLDER, user=USER, command=COMMAND)
        made.pack(draft / "image.tar", image, progress)
        shutil.rmtree(layer)
        progress(f"image: {REFERENCE} packed in {time.monotonic() - started:.0f} s")

    ingredients = {
        "layers": [str(rootfs), str(packages)],
        "sources": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sources.items()},
        "recipe": [made.recipe(), hashlib.sha256(Path(__file__).read_bytes()).hexdigest()],
    }
    return made.obtain("image", "clusterproof", ingredients, make, progress) / "image.tar"


def _packages(checkout: Path, dependencies: list[str], progress: Progress) -> Path:
    """A folder with the pinned packages that clusterproof depends on, where the image has them."""
    constraints = checkout / "constraints.txt"

    def make(draft: Path) -> None:
        started = time.monotonic()
        progress("image: installing the packages that clusterproof depends on")
        _install(draft / ROOT, f"--constraint={constraints}", *dependencies)
        progress(f"image: packages installed in {time.monotonic() - started:.0f} s")

    ingredients = {
        "dependencies": dependencies,
        "constraints": constraints.read_text(),
        "python": PYTHON,
        "machine": platform.machine(),
        "root": ROOT,
    }
    return parts.load().obtain("image", "packages", ingredients, make, progress)


def _sources(checkout: Path, rooms: Mapping[str, str]) -> dict[str, Path]:
    """The files that clusterproof's wheel is built from, by their names in the checkout."""
    found = [checkout / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    for room in sorted(rooms.values()):
        found += [path for path in sorted((checkout / room).rglob("*")) if path.is_file()]
    named = {str(path.relative_to(checkout)): path for path in found}
    return {name: path for name, path in named.items() if "__pycache__" not in name}


def _clusterproof(checkout: Path, sources: Mapping[str, Path], draft: Path, progress: Progress) -> Path:
    """A folder with clusterproof's own wheel, installed where the image has it."""
    # Built from a copy: setuptools leaves its folder `build` in the sources, and takes what is in it for theirs.
    copy, layer = draft / "source", draft / "layer"
    for name, path in sources.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy / name)
    progress("image: building clusterproof's wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={draft}", str(copy)]
    debian.run(command, "clusterproof's wheel cannot be built")
    (wheel,) = draft.glob("*.whl")
    _install(layer / ROOT, "--no-deps", str(wheel))
    shutil.rmtree(copy)
    wheel.unlink()
    return layer


def _install(into: Path, *what: str) -> None:
    """Install packages into a folder, for the image's Python and C library whatever this machine has."""
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}_{machine}" for minor in _GLIBC] + [f"manylinux2014_{machine}"]
    command: list[Any] = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:"]
    command += [f"--target={into}", *(f"--platform={tag}" for tag in tags), *what]
    debian.run(command, "the packages in the image cannot be installed", help="is a package index in reach?")
    for script in (into / "bin").iterdir():
        script.write_text(script.read_text().replace(f"#!{sys.executable}\n", "#!/usr/bin/python3\n", 1))
    # Times are left out of layers, and a read-only image cannot keep what Python would compile at each start.
    unchecked = PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(into, quiet=2, stripdir=into, prependdir=f"/{ROOT}", invalidation_mode=unchecked, workers=2)
