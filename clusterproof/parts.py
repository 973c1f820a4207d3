"""Programs and images that are made from pinned sources: one room makes and registers them, others ask here.

The entry point is in group `clusterproof.parts`; what it names is called without arguments and gives a `Parts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

GROUP = "clusterproof.parts"

Progress = Callable[[str], None]
"""Takes one finished line at a time."""


@dataclass(frozen=True, slots=True)
class Packing:
    """An image of layers that are there already."""

    reference: str
    layers: tuple[Path, ...]
    """The lowest first; each a tar file, or a folder whose files are to be root's."""
    environment: Mapping[str, str]
    """PATH among them where it is to be another than the usual one."""
    folder: str
    """Where a container starts."""
    user: str
    command: tuple[str, ...]


class Parts(Protocol):
    """Builds what is not there yet; what is there costs next to nothing. SurroundingsError says what is in the way."""

    def version(self, kubernetes_version: str) -> str:
        """The Kubernetes version that is meant: the one given, or the default for an empty one."""

    def programs(self, kubernetes_version: str, progress: Progress) -> Mapping[str, Path]:
        """Every program that a node of that Kubernetes version is made of, by name."""

    def source(self, component: str, kubernetes_version: str, progress: Progress) -> Path:
        """Folder laid out as the component's module, with those files of it that are read at run time."""

    def archive(
        self, into: Path, references: Sequence[str], kubernetes_version: str, progress: Progress, script: bytes = b""
    ) -> None:
        """Write an archive with an image under each of these references, told by the last part of its repository.

        `script` is what an image for `kindnetd` runs.
        """

    def pack(self, into: Path, image: Packing, progress: Progress) -> None:
        """Write an archive with one image, for `docker load` and `ctr images import`; other programs are not needed."""

    def recipe(self) -> str:
        """Changes with how `archive` makes images, whatever they are made of."""

    def obtain(
        self, kind: str, name: str, ingredients: object, make: Callable[[Path], None], progress: Progress
    ) -> Path:
        """Folder that `make` fills, kept under everything that decides what is in it (`ingredients`, as JSON)."""


def load() -> Parts:
    """The parts of this installation."""
    (point,) = entry_points(group=GROUP)
    made: Parts = point.load()()
    return made
