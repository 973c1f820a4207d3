"""The end of an observation: what was laid down is removed from the cluster; the folder keeps what was seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clusterproof import external
from clusterproof.errors import SurroundingsError
from clusterproof.running import ledger

from .folder import Folder

WITHIN = 180.0
"""Seconds for everything to have gone."""


def remove(folder: Folder, kubeconfig: Path | None, context: str, progress: Callable[[str], None]) -> None:
    """Remove it and wait until it is gone; the folder can then be used for another upgrade.

    SurroundingsError names what is still there.
    """
    before = folder.load()
    client, _, _ = external.connect(kubeconfig or Path(before.kubeconfig), context or before.context)
    swept = ledger.sweep(client, before.run, within=WITHIN)
    if swept.stuck:
        raise SurroundingsError(f"still there: {'; '.join(swept.stuck)}")
    folder.end()
    progress(f"{len(swept.removed)} objects of run {before.run} are removed; what was seen stays in {folder.path}")
