"""Fetches published programs, for machines without Go.

Each component has an address; below it files lie as Kubernetes publishes its own, each beside a `.sha256` file that
holds its SHA-256 in hexadecimal:

    <address>/v1.37.2/bin/linux/amd64/kube-apiserver     a program
    <address>/v1.37.2/kubernetes-src.tar.gz              what is read at run time: manifests, certificates

`CLUSTERPROOF_RELEASES` names a mirror; a component's address is then `<mirror>/<component>` (the names are those of
components.py). `python -m clusterproof.embedded.mirror FOLDER` makes such a mirror on a machine that has Go; any static
file server can offer it. Without a mirror only Kubernetes' own programs can be fetched, from where Kubernetes publishes
them.

Downloads run side by side, continue where an earlier one was cut off, and count only with the right checksum.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Protocol

from . import cache
from .cache import BuildError, Progress
from .components import Chosen

KUBERNETES = "https://dl.k8s.io"
"""Where Kubernetes publishes its releases."""
MIRROR = (
    "CLUSTERPROOF_RELEASES to the address of a mirror (`python -m clusterproof.embedded.mirror FOLDER` makes one on a "
    "machine that has Go)"
)
"""What has to be set, as messages say it: whoever wants more than Kubernetes' own programs needs one."""

ATTEMPTS = 4
SIDE_BY_SIDE = 4
TIMEOUT = 30.0
"""Seconds that a server may stay silent."""
PAUSE = 1.0
"""Seconds before the second attempt; it grows with each one."""

_CHUNK = 1 << 18
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def platform() -> str:
    """This machine as release addresses name it: `linux/amd64`."""
    machine = os.uname().machine
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"


def published(component: str) -> bool:
    """Whether something is known to publish a component."""
    return bool(os.environ.get("CLUSTERPROOF_RELEASES")) or component == "kubernetes"


def address(component: str) -> str:
    """Where a component's releases are. Raises BuildError where nothing is known to publish it."""
    if mirror := os.environ.get("CLUSTERPROOF_RELEASES"):
        if not mirror.startswith(("http://", "https://")):
            raise BuildError(f"CLUSTERPROOF_RELEASES is {mirror!r}; expected an http:// or https:// address")
        return f"{mirror.rstrip('/')}/{component}"
    if component == "kubernetes":
        return KUBERNETES
    raise BuildError(
        f"{component}: no published programs are known. Install Go, so that it can be built here, or set {MIRROR}"
    )


def fetch(chosen: Chosen, progress: Progress) -> Path:
    """Folder with the component's published programs under bin/. Raises BuildError if one cannot be had."""
    component = chosen.component
    base = f"{address(component.name)}/{chosen.version}/bin/{platform()}"
    names = chosen.programs
    digest = cache.key({"address": base, "programs": names})

    def make(draft: Path) -> None:
        (draft / "bin").mkdir()
        with _Downloads(chosen.label, progress) as downloads:
            downloads.all({f"{base}/{name}": draft / "bin" / name for name in names})
        for name in names:
            (draft / "bin" / name).chmod(0o755)

    return cache.obtain("programs", f"{component.name}-{chosen.version}", digest, make, progress)


def fetch_data(chosen: Chosen, progress: Progress) -> Path:
    """Folder with the component's data under source/. Raises BuildError if it cannot be had."""
    component = chosen.component
    url = f"{address(component.name)}/{chosen.version}/{component.name}-src.tar.gz"
    digest = cache.key({"address": url, "data": component.data})

    def make(draft: Path) -> None:
        packed = draft / "source.tar.gz"
        with _Downloads(f"{chosen.label} (data)", progress) as downloads:
            downloads.all({url: packed})
        with tarfile.open(packed) as archive:
            archive.extractall(draft / "source", members=_wanted(archive, component.data), filter="data")
        for path in component.data:
            if not (draft / "source" / path).exists():
                raise BuildError(f"{chosen.label}: {url} has no {path}; it is not the source of this component")
        packed.unlink()

    return cache.obtain("data", f"{component.name}-{chosen.version}", digest, make, progress)


def _wanted(archive: tarfile.TarFile, data: tuple[str, ...]) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        path = member.name.removeprefix("./")
        if any(path == one or path.startswith(f"{one}/") for one in data):
            yield member


class _Body(Protocol):
    """What is read of an answer."""

    status: int
    length: int | None
    """Bytes that are still to come, where the server said how many there are."""

    def read(self, amount: int, /) -> bytes: ...


@dataclass
class _Downloads:
    """Downloads of one component, side by side; leaving it ends those that still run."""

    label: str
    progress: Progress
    received: dict[str, int] = field(default_factory=dict)
    stop: Event = field(default_factory=Event)

    def __enter__(self) -> _Downloads:
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop.set()

    def all(self, files: dict[str, Path]) -> None:
        """Download each address into its file; raise BuildError for the first that cannot be had."""
        started = time.monotonic()
        count = f"{len(files)} file{'s' if len(files) > 1 else ''}"
        self.progress(f"{self.label}: downloading {count} from {os.path.dirname(next(iter(files)))}")
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            try:
                waiting = {pool.submit(self._one, url, into) for url, into in files.items()}
                while waiting:
                    done, waiting = wait(waiting, cache.HEARTBEAT, FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    if waiting:
                        self.progress(f"{self.label}: {self._megabytes()}, {time.monotonic() - started:.0f} s")
            except BaseException:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        self.progress(f"{self.label}: {self._megabytes()} in {time.monotonic() - started:.1f} s")

    def _megabytes(self) -> str:
        return f"{sum(self.received.values()) / 1e6:.0f} MB downloaded"

    def _one(self, url: str, into: Path) -> None:
        expected = self._checksum(url)
        shelf = cache.root() / "downloads"
        shelf.mkdir(parents=True, exist_ok=True)
        partial = shelf / f"{expected}.part"  # named after its content: whoever continues it wants the same bytes
        fresh = not partial.exists()
        self._bytes(url, partial)
        if (seen := _digest(partial)) != expected and not fresh:
            partial.unlink()  # perhaps only the older half was bad
            self._bytes(url, partial)
            seen = _digest(partial)
        if seen != expected:
            partial.unlink()
            raise BuildError(
                f"{self.label}: {url} has SHA-256 {seen}, but {url}.sha256 says {expected}. "
                "It was thrown away; ask whoever runs that server"
            )
        partial.replace(into)

    def _checksum(self, url: str) -> str:
        seen = self._attempt(f"{url}.sha256", lambda: self._read(f"{url}.sha256"))
        found = re.match(r"[0-9a-f]{64}\b", seen)
        if found is None:
            raise BuildError(f"{self.label}: {url}.sha256 does not begin with a SHA-256: {seen[:80]!r}")
        return found[0]

    def _read(self, url: str) -> str:
        with _open(url) as answer:
            return answer.read(4096).decode("ascii", "replace")

    def _bytes(self, url: str, partial: Path) -> None:
        self._attempt(url, lambda: self._continue(url, partial))

    def _continue(self, url: str, partial: Path) -> str:
        """Download what is not there yet; raise OSError or HTTPException when cut off."""
        have = partial.stat().st_size if partial.exists() else 0
        try:
            with _open(url, have) as answer:
                resumed = answer.status == 206
                self.received[url] = have if resumed else 0
                with partial.open("ab" if resumed else "wb") as into:
                    while chunk := answer.read(_CHUNK):
                        into.write(chunk)
                        self.received[url] += len(chunk)
                        if self.stop.is_set():
                            raise BuildError(f"{self.label}: given up, because another download failed")
                if answer.length:
                    raise http.client.IncompleteRead(b"", answer.length)
        except urllib.error.HTTPError as error:
            if error.code != 416:  # the server has no more than what is here
                raise
        return ""

    def _attempt(self, url: str, step: _Step) -> str:
        """Do a step again when the connection failed or the server had a fault of its own."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return step()
            except urllib.error.HTTPError as error:
                problem = f"{error.code} {error.reason}"
                if error.code < 500 and error.code != 429:
                    raise BuildError(
                        f"{self.label}: {url} answers {problem}. Check that this version is published there for "
                        f"{platform()}, and CLUSTERPROOF_RELEASES"
                    ) from None
            except (OSError, http.client.HTTPException) as error:
                problem = str(error) or type(error).__name__
            if attempt < ATTEMPTS and self.stop.wait(PAUSE * attempt):
                break
        raise BuildError(
            f"{self.label}: {url} was not downloaded in {ATTEMPTS} attempts; the last ended with: {problem}. "
            "What came is kept: another try continues there"
        )


class _Step(Protocol):
    def __call__(self) -> str: ...


@contextmanager
def _open(url: str, have: int = 0) -> Iterator[_Body]:
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        raise
    with answer:
        yield answer


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
