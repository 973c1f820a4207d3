"""An image registry on a node, for specs that always pull: it gives out what the node's containerd already has.

Runs on the node itself, with nothing but the standard library: python3 registry.py PORT CTR
"""

import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BLOBS = Path("/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256")
_PATH = re.compile(r"^/v2/(?P<repository>.+)/(?P<what>manifests|blobs)/(?P<reference>[^/?]+)(\?ns=(?P<host>.+))?$")


def _images(ctr: str) -> dict[str, tuple[str, str]]:
    """Digest and media type of each image that has a name."""
    listing = subprocess.run([ctr, "--namespace=k8s.io", "images", "list"], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listing.stdout.splitlines()[1:]]
    return {row[0]: (row[2], row[1]) for row in rows}


class Registry(BaseHTTPRequestHandler):
    """Answers what the OCI distribution specification asks of a registry that is only pulled from."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """A manifest by tag or digest, or a blob."""
        asked = _PATH.match(self.path)
        if asked is None:
            self._answer(200 if self.path.rstrip("/") == "/v2" else 404)
            return
        digest, kind = asked["reference"], "application/octet-stream"
        images = _images(sys.argv[2]) if asked["what"] == "manifests" else {}
        if not digest.startswith("sha256:"):
            digest, kind = images.get(f"{asked['host']}/{asked['repository']}:{digest}", ("", ""))
        elif images:
            kind = dict(images.values()).get(digest, "application/vnd.oci.image.manifest.v1+json")
        blob = BLOBS / digest.removeprefix("sha256:")
        if digest and blob.is_file():
            self._answer(200, blob.read_bytes(), {"Content-Type": kind, "Docker-Content-Digest": digest})
        else:
            self._answer(404)

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Registry).serve_forever()
