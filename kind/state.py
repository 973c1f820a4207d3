"""Which clusters of this room there are: a folder for each, with its kubeconfig and who it belongs to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


def root() -> Path:
    """Folder of all records: below `$CLUSTERPROOF_STATE`, else below the user's own folder for state."""
    if chosen := os.environ.get("CLUSTERPROOF_STATE"):
        return Path(chosen) / ".kind"
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state).absolute() / "clusterproof/kind"


@dataclass(frozen=True, slots=True)
class Record:
    """A cluster that this room made, or is about to make."""

    name: str
    provider: str
    """kind, k3d or minikube."""
    owner: str
    """The process that it belongs to, `<id>:<when it began>`."""
    kept: bool = False
    """It outlives its owner, because the user said so."""
    docker: str = ""
    """DOCKER_HOST when it was made."""

    @property
    def folder(self) -> Path:
        return root() / self.name

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def abandoned(self) -> bool:
        """The run that it belongs to was killed."""
        return not self.kept and _identity(int(self.owner.partition(":")[0])) != self.owner

    def save(self) -> None:
        """Write it whole or not at all, before anything of the cluster is made."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.kubeconfig.touch(mode=0o600)
        draft = self.folder / "record.json.new"
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(self.folder / "record.json")

    def forget(self) -> None:
        """Remove its folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def me() -> str:
    """This process, told from a later one that gets the same id."""
    return _identity(os.getpid())


def records() -> Iterator[Record]:
    """All records that can be read."""
    for path in sorted(root().glob("*/record.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):  # another process was faster
            yield Record(**json.loads(path.read_text()))


def _identity(pid: int) -> str:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{pid}:{fields[19]}"
