"""Fetching published programs, from a server on this machine that can also misbehave."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from clusterproof.embedded import builder, cache, mirror, releases
from clusterproof.embedded.components import DEFAULT_KUBERNETES, Chosen, choose
from clusterproof.embedded.state import EmbeddedError

PROGRAMS = ("loopback", "ptp", "host-local", "portmap")


@dataclass
class Server:
    """What a release server has, what it does wrong, and what it was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    """Bytes after which an answer ends, once per path."""
    failing: dict[str, int] = field(default_factory=dict)
    """Answers with status 503 that a path gives before it works."""
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Paths with their Range headers."""
    address: str = ""

    def publish(self, path: str, content: bytes, digest: str | None = None) -> None:
        """Offer a file beside its checksum."""
        self.files[path] = content
        self.files[f"{path}.sha256"] = (digest or hashlib.sha256(content).hexdigest()).encode()

    def program(self, component: str, name: str) -> str:
        """Path of a program."""
        (chosen,) = choose([component], DEFAULT_KUBERNETES)
        assert isinstance(chosen, Chosen)
        return f"/{component}/{chosen.version}/bin/{releases.platform()}/{name}"

    def asked_for(self, path: str) -> list[str | None]:
        """Range headers of the requests for a path."""
        return [header for one, header in self.asked if one == path]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server that a fresh cache is pointed at."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            header = self.headers.get("Range")
            state.asked.append((self.path, header))
            content = state.files.get(self.path)
            if state.failing.get(self.path, 0) > 0:
                state.failing[self.path] -= 1
                return self.send_error(503)
            if content is None:
                return self.send_error(404)
            start = int(header.removeprefix("bytes=").removesuffix("-")) if header and state.ranges else 0
            if start and start >= len(content):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : state.cut.pop(self.path, len(content))])
            self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep quiet."""

    monkeypatch.setenv("CLUSTERPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CLUSTERPROOF_SOURCE", "release")
    monkeypatch.setattr(releases, "PAUSE", 0.01)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        state.address = f"http://127.0.0.1:{http.server_address[1]}"
        monkeypatch.setenv("CLUSTERPROOF_RELEASES", f"{state.address}/")
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def plugins(server: Server) -> dict[str, bytes]:
    """Published CNI plugins, by name."""
    contents = {name: name.encode() * 100_000 for name in PROGRAMS}
    for name, content in contents.items():
        server.publish(server.program("cni-plugins", name), content)
    return contents


def fetch(lines: list[str] | None = None) -> builder.Artifacts:
    """Fetch the CNI plugins."""
    return builder.ensure(["cni-plugins"], progress=(lines if lines is not None else []).append)


def test_good(server: Server, plugins: dict[str, bytes]) -> None:
    """Published programs MUST be fetched once, be what was published, and be executable."""
    lines: list[str] = []
    artifacts = fetch(lines)

    for name, content in plugins.items():
        assert artifacts.binary(name).read_bytes() == content
        assert artifacts.binary(name).stat().st_mode & 0o777 == 0o755
    assert lines[0].startswith("cni-plugins 1.9.1: downloading 4 files from http://127.0.0.1:")
    assert lines[-1].startswith("cni-plugins 1.9.1: 3 MB downloaded in ")
    before = len(server.asked)
    assert fetch() == artifacts
    assert len(server.asked) == before


def test_wrong_checksum(server: Server, plugins: dict[str, bytes], tmp_path: Path) -> None:
    """A program with the wrong checksum MUST be refused and thrown away; both sums MUST be named."""
    server.publish(server.program("cni-plugins", "ptp"), b"something else", "0" * 64)
    with pytest.raises(
        EmbeddedError, match=rf"/ptp has SHA-256 [0-9a-f]{{64}}, but .*ptp\.sha256 says {'0' * 64}\. It was"
    ):
        fetch()
    assert not list((tmp_path / "cache" / "programs").glob("[!.]*"))
    assert not (tmp_path / "cache" / "downloads" / f"{'0' * 64}.part").exists()


def test_cut_off(server: Server, plugins: dict[str, bytes]) -> None:
    """A download that is cut off MUST go on where it ended."""
    path = server.program("cni-plugins", "ptp")
    server.cut[path] = 100_000
    artifacts = fetch()

    assert artifacts.binary("ptp").read_bytes() == plugins["ptp"]
    assert server.asked_for(path) == [None, "bytes=100000-"]


def test_cut_off_without_ranges(server: Server, plugins: dict[str, bytes]) -> None:
    """Where the server cannot go on in the middle, a download that was cut off MUST start again."""
    path = server.program("cni-plugins", "ptp")
    server.cut[path], server.ranges = 100_000, False

    assert fetch().binary("ptp").read_bytes() == plugins["ptp"]


def test_continued_by_the_next_run(server: Server, plugins: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """What one run could not finish, the next MUST continue."""
    path = server.program("cni-plugins", "ptp")
    server.cut[path] = 100_000
    with monkeypatch.context() as patch:
        patch.setattr(releases, "ATTEMPTS", 1)
        with pytest.raises(
            EmbeddedError, match=r"/ptp was not downloaded in 1 attempts; .*another try continues there"
        ):
            fetch()

    assert fetch().binary("ptp").read_bytes() == plugins["ptp"]
    assert server.asked_for(path) == [None, "bytes=100000-"]


@pytest.mark.parametrize("have", [b"x" * 1000, b"x" * 300_000], ids=["part", "as long as the whole"])
def test_bad_beginning(server: Server, plugins: dict[str, bytes], tmp_path: Path, have: bytes) -> None:
    """A beginning that turns out to be wrong MUST be downloaded again, not blamed on the server."""
    shelf = tmp_path / "cache" / "downloads"
    shelf.mkdir(parents=True)
    (shelf / f"{hashlib.sha256(plugins['ptp']).hexdigest()}.part").write_bytes(have)

    assert fetch().binary("ptp").read_bytes() == plugins["ptp"]


def test_not_there(server: Server, plugins: dict[str, bytes]) -> None:
    """A file that is not published MUST be named, at once."""
    path = server.program("cni-plugins", "portmap")
    del server.files[path]
    with pytest.raises(
        EmbeddedError, match=rf"cni-plugins 1\.9\.1: {server.address}{path} answers 404 Not Found\. Check"
    ):
        fetch()
    assert len(server.asked_for(path)) == 1


def test_no_checksum(server: Server, plugins: dict[str, bytes]) -> None:
    """A checksum file that has none MUST be named."""
    server.files[f"{server.program('cni-plugins', 'ptp')}.sha256"] = b"<html>welcome</html>"
    with pytest.raises(EmbeddedError, match=r"ptp\.sha256 does not begin with a SHA-256: '<html>welcome</html>'"):
        fetch()


def test_server_trouble(server: Server, plugins: dict[str, bytes]) -> None:
    """A server that is busy for a moment MUST be asked again."""
    path = server.program("cni-plugins", "ptp")
    server.failing[path] = 2
    fetch()

    assert len(server.asked_for(path)) == 3


def test_no_server(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """A server that does not answer MUST be told with the address and the cause."""
    monkeypatch.setenv("CLUSTERPROOF_RELEASES", "http://127.0.0.1:1/mirror")
    with pytest.raises(
        EmbeddedError, match=r"http://127\.0\.0\.1:1/mirror/cni-plugins/.* the last ended with: .*refused"
    ):
        fetch()


def test_kubernetes_itself(monkeypatch: pytest.MonkeyPatch, server: Server, plugins: dict[str, bytes]) -> None:
    """Without a mirror Kubernetes' programs MUST come from where it publishes them, laid out its way."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path in ("./cluster/addons/dns/coredns/coredns.yaml.base", "./LICENSE"):
            member = tarfile.TarInfo(path)
            member.size = 5
            archive.addfile(member, io.BytesIO(b"text\n"))
    monkeypatch.delenv("CLUSTERPROOF_RELEASES")
    monkeypatch.setattr(releases, "KUBERNETES", f"{server.address}/official")
    version = f"v{DEFAULT_KUBERNETES}"
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"):
        server.publish(f"/official/{version}/bin/{releases.platform()}/{name}", name.encode())
    server.publish(f"/official/{version}/kubernetes-src.tar.gz", packed.getvalue())

    artifacts = builder.ensure(["kubernetes"], progress=lambda _: None)
    assert artifacts.binary("kubelet").read_bytes() == b"kubelet"
    source = artifacts.source("kubernetes")
    assert (source / "cluster/addons/dns/coredns/coredns.yaml.base").read_text() == "text\n"
    assert not (source / "LICENSE").exists()
    with pytest.raises(EmbeddedError, match="cni-plugins: no published programs are known"):
        fetch()


def test_wrong_source(server: Server) -> None:
    """An archive that is not the component's source MUST be refused."""
    packed = io.BytesIO()
    tarfile.open(fileobj=packed, mode="w:gz").close()
    (chosen,) = choose(["contour"], DEFAULT_KUBERNETES)
    assert isinstance(chosen, Chosen)
    server.publish(server.program("contour", "contour"), b"contour")
    server.publish(f"/contour/{chosen.version}/contour-src.tar.gz", packed.getvalue())
    with pytest.raises(EmbeddedError, match=r"contour-src\.tar\.gz has no examples"):
        builder.ensure(["contour"], progress=lambda _: None)


def test_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that is none MUST be named."""
    monkeypatch.setenv("CLUSTERPROOF_RELEASES", "mirror.example.org")
    with pytest.raises(EmbeddedError, match=r"CLUSTERPROOF_RELEASES is 'mirror\.example\.org'; expected an http"):
        releases.address("etcd")


def test_heartbeat(server: Server, plugins: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that takes long MUST give signs of life."""
    monkeypatch.setattr(cache, "HEARTBEAT", 0.05)
    monkeypatch.setattr(releases, "PAUSE", 0.3)
    server.failing[server.program("cni-plugins", "ptp")] = 1
    lines: list[str] = []
    fetch(lines)

    assert [line for line in lines[1:-1] if " MB downloaded, " in line]


def test_mirror(server: Server, plugins: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror written by the project's own command MUST be one that it can fetch from."""
    source = tmp_path / "source" / "deploy"
    source.mkdir(parents=True)
    (source / "local-path-storage.yaml").write_text("kind: List\n")
    program = tmp_path / "local-path-provisioner"
    program.write_bytes(b"program")
    made = builder.Artifacts({program.name: program}, {program.name: source.parent}, {})
    monkeypatch.setattr(mirror, "ensure", lambda *_: made)
    mirror.main([str(tmp_path / "mirror"), "local-path-provisioner", "envoy"])
    for path in (tmp_path / "mirror").rglob("*"):
        if path.is_file():
            server.files[f"/{path.relative_to(tmp_path / 'mirror')}"] = path.read_bytes()

    artifacts = builder.ensure(["local-path-provisioner"], progress=lambda _: None)
    assert artifacts.binary("local-path-provisioner").read_bytes() == b"program"
    manifest = artifacts.source("local-path-provisioner") / "deploy/local-path-storage.yaml"
    assert manifest.read_text() == "kind: List\n"
