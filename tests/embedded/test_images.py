"""Images made without a container engine: whole, the same every time, and with layers that are shared."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from clusterproof.embedded import cache, images, imagestore, rootfs
from clusterproof.embedded.builder import Artifacts
from clusterproof.embedded.components import COMPONENTS
from clusterproof.embedded.images import IMAGES, REFERENCES
from clusterproof.embedded.rootfs import Entry, File, Folder, Link
from clusterproof.embedded.state import EmbeddedError

CERTIFICATES = Path("test/images/agnhost/porter")


def quiet(_: str) -> None:
    """Show no progress."""


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    """Small programs in place of the real ones, and a fresh cache."""
    monkeypatch.setenv("CLUSTERPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "tools", lambda: (Folder("usr"), File("usr/sh", b"#!"), Link("sh", "usr/sh")))
    (tmp_path / CERTIFICATES).mkdir(parents=True)
    for name in ("localhost.crt", "localhost.key"):
        (tmp_path / CERTIFICATES / name).write_text(name)
    for animal in ("nautilus", "kitten"):
        html = tmp_path / "test/images" / animal / "html"
        html.mkdir(parents=True)
        for name in (f"{animal}.jpg", "data.json"):
            (html / name).write_text(name)
    programs = [program for component in COMPONENTS for program in component.programs] + ["envoy"]
    (tmp_path / "bin").mkdir()
    for name in programs:
        (tmp_path / "bin" / name).write_text(f"program {name}")
    return Artifacts(
        {name: tmp_path / "bin" / name for name in programs}, {"agnhost": tmp_path, "e2e-images": tmp_path}, {}
    )


class Layout:
    """An OCI archive, read back."""

    def __init__(self, path: Path) -> None:
        with tarfile.open(path) as tar:
            self.members = [member.name for member in tar]
            self.files = {
                member.name: file.read() for member in tar.getmembers() if (file := tar.extractfile(member)) is not None
            }
        index = json.loads(self.files["index.json"])
        self.manifests = {
            one["annotations"]["io.containerd.image.name"]: json.loads(self.blob(one)) for one in index["manifests"]
        }

    def blob(self, descriptor: dict[str, Any]) -> bytes:
        """Content of a blob, if it is what its descriptor says."""
        content = self.files[f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}"]
        assert hashlib.sha256(content).hexdigest() == descriptor["digest"].removeprefix("sha256:")
        assert len(content) == descriptor["size"]
        return content

    def config(self, name: str) -> dict[str, Any]:
        """Configuration of an image."""
        config: dict[str, Any] = json.loads(self.blob(self.manifests[REFERENCES[name]]["config"]))
        return config

    def layers(self, name: str) -> list[dict[str, tarfile.TarInfo]]:
        """Members of each layer of an image, by name."""
        blobs = [self.blob(layer) for layer in self.manifests[REFERENCES[name]]["layers"]]
        return [{member.name: member for member in tarfile.open(fileobj=io.BytesIO(blob))} for blob in blobs]


@pytest.mark.parametrize("name", IMAGES)
def test_whole(name: str, artifacts: Artifacts) -> None:
    """Every archive MUST be a whole OCI layout that has the image it was asked for."""
    layout = Layout(images.archive(name, artifacts, quiet))
    manifest, config = layout.manifests[REFERENCES[name]], layout.config(name)

    assert layout.files["oci-layout"] == b'{"imageLayoutVersion":"1.0.0"}'
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    assert config["os"] == "linux"
    assert len(layout.members) == len(set(layout.members))
    for layer in layout.layers(name):
        for member in layer.values():
            assert (member.mtime, member.uname, member.gname) == (0, "", "")


def test_agnhost(artifacts: Artifacts) -> None:
    """The workload image MUST run as upstream's does, and have its certificates."""
    layout = Layout(images.archive("agnhost", artifacts, quiet))
    _, program = layout.layers("agnhost")
    config = layout.config("agnhost")["config"]

    assert config["Entrypoint"] == ["/agnhost"]
    assert config["Cmd"] == ["pause"]
    assert "User" not in config
    assert "8080/tcp" in config["ExposedPorts"]
    assert program["agnhost"].mode == 0o755
    assert program["agnhost-2"].linkname == "agnhost"
    assert {"localhost.crt", "localhost.key", "uploads"} <= program.keys()


def test_shared_layers(artifacts: Artifacts) -> None:
    """Images of the same layers MUST share them in one archive, and stay different images."""
    layout = Layout(images.archive("agnhost", artifacts, quiet))
    assert {images.archive(name, artifacts, quiet) for name in ("agnhost-old", "pause", "busybox")} == {
        images.archive("agnhost", artifacts, quiet)
    }

    layers = {
        name: layout.config(name)["rootfs"]["diff_ids"] for name in ("agnhost", "agnhost-old", "pause", "busybox")
    }
    assert layers["agnhost"] == layers["agnhost-old"] == layers["pause"]
    assert layers["busybox"][0] == layers["agnhost"][0]  # all but a shell of its own
    configs = {manifest["config"]["digest"] for manifest in layout.manifests.values()}
    assert len(configs) == 4


def test_same_bytes(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same programs MUST give the same bytes, in another cache and at another time."""
    first = images.archive("agnhost", artifacts, quiet).read_bytes()
    for program in artifacts.programs.values():
        os.utime(program, (0, 0))
    monkeypatch.setenv("CLUSTERPROOF_CACHE", str(tmp_path / "other"))

    assert images.archive("agnhost", artifacts, quiet).read_bytes() == first


def test_packed_once(artifacts: Artifacts) -> None:
    """An archive MUST be packed once, and again when a program changed."""
    lines: list[str] = []
    first = images.archive("coredns", artifacts, lines.append)
    assert images.archive("coredns", artifacts, lines.append) == first
    assert lines == [f"images: packing {REFERENCES['coredns']}"]
    artifacts.binary("coredns").write_text("a newer program")

    assert images.archive("coredns", artifacts, lines.append) != first
    assert len(lines) == 2


def test_unknown(artifacts: Artifacts) -> None:
    """An image that is not known MUST be told with those that are."""
    with pytest.raises(EmbeddedError, match="there is no image 'apache'; choose from: agnhost, agnhost-old"):
        images.archive("apache", artifacts, quiet)


def test_missing_program() -> None:
    """An image whose program was not built MUST say which."""
    with pytest.raises(EmbeddedError, match="no program 'coredns' among those asked for \\(none\\)"):
        images.archive("coredns", Artifacts({}, {}, {}), quiet)


def test_components() -> None:
    """Images MUST name what is needed to make them, and everything that comes in the same archive."""
    assert images.components(["busybox", "contour"]) == ["agnhost", "contour"]
    assert set(images.components(images.UPSTREAM)) == {"agnhost", "e2e-images", "etcd"}


def extracted(entries: list[Entry], into: Path) -> None:
    """Lay a layer out as a folder."""
    packed = images._pack(tuple(entries), into.with_suffix(".tar"))
    with tarfile.open(packed) as tar:
        tar.extractall(into, filter="fully_trusted")


needs_tools = pytest.mark.skipif(bool(rootfs.missing_packages()), reason=f"needs {rootfs.missing_packages()}")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its root folder")


@needs_tools
def test_order() -> None:
    """Every entry MUST come after the folder it is in, and once."""
    known = {"."}
    links: dict[str, str] = {}
    for entry in rootfs.entries():
        parent = str(Path(entry.path).parent)
        assert entry.path not in known, entry
        assert parent in known, entry
        assert parent not in links, f"{entry.path} is behind a link"
        known.add(entry.path)
        if isinstance(entry, Link):
            links[entry.path] = entry.target
    assert {"tmp", "etc/passwd", "usr/bin/bash", "usr/bin/cat"} <= known
    assert links["usr/bin/sh"] == "bash"


@needs_tools
@needs_root
@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("env", "data-1=kept"),
        ("dig -v 2>&1", "DiG 9"),
        ("nslookup -version 2>&1", "nslookup 9"),
        ("nc -h 2>&1", "OpenBSD netcat"),
        ("curl --version", "curl "),
        ("ip address show dev lo", "127.0.0.1/8"),
        ("ss -V", "iproute2"),
        ("id user-defined-in-image", "groups=1000(user-defined-in-image),50000(group-defined-in-image)"),
        ("stat -c %a /tmp", "1777"),
        ("getent passwd nobody", "65534"),
        ("hostname; wget --help 2>&1; date; ls /; mount --help 2>&1; head /etc/group; grep root /etc/passwd", "root"),
    ],
    ids=lambda value: value.split()[0],
)
def test_tools(command: str, shown: str, tools: Path) -> None:
    """The tools that upstream's specs call MUST work with nothing but the layer's own files."""
    environment = {"PATH": images._PATH, "data-1": "kept"}
    done = subprocess.run(["chroot", tools, "sh", "-c", command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done
    assert shown in done.stdout
    assert done.stderr == ""


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root file system, laid out as a folder."""
    folder = tmp_path_factory.mktemp("tools") / "root"
    extracted(list(rootfs.entries()), folder)
    return folder


@needs_root
def test_runtime(tmp_path: Path) -> None:
    """A dynamic program MUST run in an image of its own."""
    program = Path("/bin/ls").resolve()
    extracted([*rootfs.runtime((program,)), File("usr/bin/ls", program, 0o755)], tmp_path / "root")
    done = subprocess.run(
        ["chroot", tmp_path / "root", "/usr/bin/ls", "/etc"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["group", "nsswitch.conf", "passwd"]


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing on this machine MUST be told as one command that installs it."""
    monkeypatch.setattr(rootfs, "_which", lambda _: None)
    assert rootfs.missing_packages() == sorted(set(rootfs.PROGRAMS.values()))
    with pytest.raises(
        EmbeddedError, match="apt-get install bash bind9-dnsutils busybox-static curl iproute2 libc-bin"
    ):
        list(rootfs.entries())


def test_clone(tmp_path: Path) -> None:
    """A copy of the image store MUST share its content and have databases of its own."""
    store, node = tmp_path / "store", tmp_path / "node"
    for name in (*imagestore._DATABASES, "io.containerd.content.v1.content/blobs/one"):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text(name)
    imagestore.clone(store, node)

    blob = "io.containerd.content.v1.content/blobs/one"
    assert (node / blob).samefile(store / blob)
    for name in imagestore._DATABASES:
        assert (node / name).read_text() == name
        assert not (node / name).samefile(store / name)


def test_store_failure(artifacts: Artifacts, tmp_path: Path) -> None:
    """A containerd that does not start MUST be told with its last words, and leave nothing."""
    program = tmp_path / "containerd"
    program.write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    program.chmod(0o755)
    having = Artifacts({**artifacts.programs, "containerd": program, "ctr": program}, artifacts.sources, {})
    with pytest.raises(EmbeddedError, match=r"containerd, which unpacks them, failed: it ended with exit code (?s:.*)"):
        images.store(["coredns"], having, quiet)
    assert not [path for path in (cache.root() / "stores").iterdir() if path.suffix != ".lock"]
