"""Where built things are kept between runs: one folder per thing, named after what went into it.

An entry is made in a folder beside its place and renamed there as its last step, so whoever finds an entry finds all
of it. While it is made its maker holds a file lock: a second maker waits and then finds the finished entry, and
whatever half-made folders a holder of the lock sees were left by makers that died.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .state import EmbeddedError

Progress = Callable[[str], None]
"""Takes one finished line at a time, without a line end."""

HEARTBEAT = 15.0
"""Seconds between two signs of life of a step that takes long."""

MANIFEST = "entry.json"
"""File of an entry that lists its other files with their sizes. Its time is that of the last use."""

UNUSED = 30 * 24 * 3600.0
"""Seconds after which an entry that nobody asked for makes room for new ones."""


class BuildError(EmbeddedError):
    """Something could not be built or fetched; the message ends with what to do."""


def root() -> Path:
    """Folder of the cache: `$CLUSTERPROOF_CACHE`, else `clusterproof` in the user's cache folder."""
    if chosen := os.environ.get("CLUSTERPROOF_CACHE"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "clusterproof"


def key(ingredients: Any) -> str:
    """Short digest of everything that decides what an entry contains; takes whatever JSON takes."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:16]


def find(kind: str, name: str, digest: str) -> Path | None:
    """Folder of a finished entry, or None.

    An entry with a missing or short file (a disk that filled up, a machine that lost power before its data was
    written) counts as none.
    """
    folder = root() / kind / f"{name}-{digest}"
    try:
        files = json.loads((folder / MANIFEST).read_text())
        whole = all((folder / path).stat().st_size == size for path, size in files.items())
    except (OSError, ValueError):
        return None
    if not whole:
        return None
    with suppress(OSError):  # a cache that may only be read
        os.utime(folder / MANIFEST)
    return folder


def obtain(kind: str, name: str, digest: str, make: Callable[[Path], None], progress: Progress) -> Path:
    """Folder of an entry; made now if it is not there.

    `make` fills the folder it is given; what it raises is passed on, and nothing stays behind. Waits as long as another
    process makes the same thing.
    """
    if found := find(kind, name, digest):
        return found
    shelf = root() / kind
    shelf.mkdir(parents=True, exist_ok=True)
    lock = FileLock(shelf / f".{name}.lock")
    _acquire(lock, name, progress)
    try:
        if found := find(kind, name, digest):
            return found
        return _make(shelf, name, digest, make)
    finally:
        lock.release()


def _acquire(lock: FileLock, name: str, progress: Progress) -> None:
    """Take the lock; say so when it has to be waited for."""
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        progress(f"{name}: another process is making it; waiting for that one")
        lock.acquire()


def _make(shelf: Path, name: str, digest: str, make: Callable[[Path], None]) -> Path:
    for leftover in shelf.glob(f".{name}.making-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{name}.making-", dir=shelf))
    try:
        draft.chmod(0o755)
        make(draft)
        files = {
            str(path.relative_to(draft)): path.stat().st_size for path in sorted(draft.rglob("*")) if path.is_file()
        }
        (draft / MANIFEST).write_text(json.dumps(files, indent=1))
        place = shelf / f"{name}-{digest}"
        if place.exists():  # an entry that `find` did not accept
            shutil.rmtree(place)
        draft.rename(place)
        _forget_unused(shelf)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return place


def _forget_unused(shelf: Path) -> None:
    for manifest in shelf.glob(f"*/{MANIFEST}"):
        with suppress(OSError):  # another process was faster
            if time.time() - manifest.stat().st_mtime > UNUSED:
                shutil.rmtree(manifest.parent)
