"""Makes a mirror that machines without Go can be pointed at: `python -m clusterproof.embedded.mirror FOLDER`.

Builds every component for this platform (or takes it from the cache) and lays it out as releases.py expects. A folder
that has other versions or platforms already keeps them.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from .builder import ensure
from .cache import Progress
from .components import COMPONENTS, DEFAULT_KUBERNETES, Chosen, choose
from .releases import platform


def write(folder: Path, names: Sequence[str], kubernetes_version: str, progress: Progress) -> None:
    """Add the named components to a mirror."""
    artifacts = ensure(names, kubernetes_version, progress)
    for chosen in choose(names, kubernetes_version):
        if not isinstance(chosen, Chosen):
            continue  # a wheel comes from Python's own index everywhere
        release = folder / chosen.component.name / chosen.version
        programs = release / "bin" / platform()
        programs.mkdir(parents=True, exist_ok=True)
        for name in chosen.programs:
            shutil.copyfile(artifacts.binary(name), programs / name)
            _sum(programs / name)
        if chosen.component.data:
            source = release / f"{chosen.component.name}-src.tar.gz"
            with tarfile.open(source, "w:gz") as archive:
                archive.add(artifacts.source(chosen.component.name), arcname=".")
            _sum(source)


def _sum(path: Path) -> None:
    path.with_name(f"{path.name}.sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("folder", type=Path, help="the mirror; made if it is not there")
    parser.add_argument("--kubernetes-version", default=DEFAULT_KUBERNETES)
    parser.add_argument("components", nargs="*", metavar="COMPONENT", help="default: all")
    chosen = parser.parse_args(arguments)
    names = chosen.components or [component.name for component in COMPONENTS]
    write(chosen.folder, names, chosen.kubernetes_version, print)


if __name__ == "__main__":
    main()
