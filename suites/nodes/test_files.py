"""Files: what the programs of Kubernetes were started with is theirs, and their certificates last.

Which files these are is told by the running programs' command lines and by the kubelet's configuration.
"""

from __future__ import annotations

import base64
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from clusterproof import Machine, Machines, Program, Unseen, cri, tls

CERTIFICATES = "/var/lib/kubelet/pki"
"""Where a kubelet keeps the certificates that it asks for itself, unless it is told another place."""
ROTATED = ("kubelet-client-current.pem", "kubelet-server-current.pem")
"""Those of them that it replaces: when between a third and a tenth of their time is left."""
SOON = timedelta(days=30)
"""What is left of a certificate that somebody has to replace by hand."""
KEPT = re.compile(r"cert|key|ca-file|kubeconfig")
"""Flags that name files beside which others of the kind lie."""
_FILES = r"""
cd /; IFS='
'
files=$(for place; do for file in $place; do [ ! -f "$file" ] || echo "$file"; done; done | sort -u)
[ -n "$files" ] || exit 0
stat -Lc 'file %a %u %d:%i %n' $files
grep -lsE 'PRIVATE KEY-----|client-key-data' $files | sed 's/^/secret /' || true
"""
_FOLDERS = """
for folder; do [ ! -d "$folder" ] || stat -Lc '%a %n' "$folder"; done
"""
_CERTIFICATES = r"""
cd /; IFS='
'
for file; do
    [ ! -f "$file" ] || { echo "file $file"; sed -n '/-BEGIN CERT/,/-END CERT/p; /client-certificate-data/p' "$file"; }
done
"""


@dataclass(frozen=True, slots=True)
class File:
    """A file that a program of Kubernetes was told to use."""

    program: Program
    path: str
    """As the program knows it."""
    mode: int
    user: int
    secret: bool
    """It has a private key in it."""

    def __str__(self) -> str:
        return f"{self.path} ({self.program.name}'s)"


def test_private(machines: Machines) -> None:
    """Every file with a private key MUST be readable by nobody but its owner: root, or the user of its program.

    Source: https://kubernetes.io/docs/setup/best-practices/certificates/
    Also CIS Kubernetes Benchmark 1.1.13 to 1.1.21, 4.1.5 and 4.1.7.
    """

    def is_shown(each: Machine) -> Iterator[str]:
        secrets = [file for file in _files(each) if file.secret]
        if not secrets:
            raise Unseen("shows no private key of any of its programs")
        for file in secrets:
            if file.mode & 0o077:
                yield f"has private key {file} with mode {file.mode:o}, which MUST be 600 or less"
            if file.user not in (0, file.program.user):
                yield f"has private key {file} owned by user {file.user}"

    machines.prove(is_shown)


def test_writable(machines: Machines) -> None:
    """No file that configures a program of Kubernetes MUST be writable by others than root or the program's user.

    Nobody else can put another one in its place either: no folder above a kubelet's files, and not that of etcd's data,
    is one that everybody may write to. The configuration of pods' network is a kubelet's, too.

    Source: https://kubernetes.io/docs/concepts/security/api-server-bypass-risks/
    Also CIS Kubernetes Benchmark 1.1.1 to 1.1.20 and 4.1.1 to 4.1.10.
    """

    def is_writable(each: Machine) -> Iterator[str]:
        network = _network(each)
        files = _files(each, network)
        if not files:
            raise Unseen("shows no file of any of its programs")
        for file in files:
            if file.mode & 0o022:
                yield f"has {file} with mode {file.mode:o}, which others MUST NOT write to"
            if file.user not in (0, file.program.user):
                yield f"has {file} owned by user {file.user}, not by root"
        for program, path, mode in _folders(each, network):
            # In a folder like /tmp everybody may write, but not take away what is others'.
            if mode & 0o002 and not mode & 0o1000:
                yield f"has folder {path} ({program.name}'s) with mode {mode:o}, which others MUST NOT write to"

    machines.prove(is_writable)


def test_certificates(machines: Machines) -> None:
    """Every certificate that a program of Kubernetes uses MUST be valid, for 30 days more where nobody renews it.

    A kubelet renews those that it has asked for itself; of them a twentieth of their time has to be left. One that it
    has signed itself is verified by nobody.

    Source: https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-certs/
    """
    now = datetime.now(UTC)

    def expires(each: Machine) -> Iterator[str]:
        used = {known.seen_from_outside(path): (known, path) for known, path in _used(each) if "*" not in path}
        found = _certificates(each.run(_CERTIFICATES, *used))
        if not found:
            raise Unseen("shows no certificate of any of its programs")
        for file, certificate in found:
            program, path = used[file]
            rotated = posixpath.basename(path) in ROTATED
            need = certificate.lifetime / 20 if rotated else min(SOON, max(timedelta(days=5), certificate.lifetime / 6))
            if certificate.not_after - now < need and not certificate.of_a_lone_kubelet:
                yield f"has certificate {path} ({program.name}'s) that ends {certificate.not_after:%Y-%m-%d %H:%M} UTC"

    machines.prove(expires)


Used = tuple[Program, str]
"""A file, or a pattern for several, as the program that uses it knows it."""


def _used(machine: Machine) -> Iterator[Used]:
    """Files that the programs were told to use, and patterns for those beside them."""
    for program in machine.survey.programs:
        paths = {flag: value for flag, value in program.flags.items() if value.startswith("/")}
        yield from ((program, path) for path in paths.values())
        yield from ((program, f"{posixpath.dirname(path)}/*") for flag, path in paths.items() if KEPT.search(flag))
        if program.name == "kubelet":
            yield from ((program, path) for path in _used_by_kubelet(machine, program))


def _used_by_kubelet(machine: Machine, kubelet: Program) -> Iterator[str]:
    folder = kubelet.flag("cert-dir", CERTIFICATES)
    yield from (f"{folder}/{name}" for name in (*ROTATED, "*"))
    if manifests := machine.kubelet("staticPodPath"):
        yield f"{manifests}/*"
    named = (("authentication", "x509", "clientCAFile"), ("tlsCertFile",), ("tlsPrivateKeyFile",))
    yield from filter(None, (machine.kubelet(*path) for path in named))


def _network(machine: Machine) -> list[Used]:
    """The configuration of pods' network, where the runtime tells its place or has not been told another."""
    try:
        folder = cri.status(machine).network_folder
    except Unseen:
        folder = cri.NETWORK_FOLDER
    return [(kubelet, f"{folder}/*") for kubelet in machine.programs("kubelet")]


def _folders(machine: Machine, more: list[Used]) -> Iterator[tuple[Program, str, int]]:
    """Folders in which a kubelet's files are, at whatever depth, and that of etcd's data, with their modes.

    Those of programs in containers are volumes, which everybody may write to who could get there.
    """
    known: dict[str, Used] = {}
    for program, path in [*_used(machine), *more]:
        if program.name == "kubelet":
            for folder in map(str, PurePosixPath(path).parents):
                known[program.seen_from_outside(folder)] = program, folder
    for program in machine.programs("etcd"):
        if (folder := program.flag("data-dir")).startswith("/"):
            known[program.seen_from_outside(folder)] = program, folder
    for line in machine.run(_FOLDERS, *known).splitlines():
        mode, outside = line.split(" ", 1)
        yield *known[outside], int(mode, 8)


def _files(machine: Machine, more: list[Used] | None = None) -> list[File]:
    """Every such file that is there, and of some more."""
    if machine.survey.user != 0:
        raise Unseen("shows these files to root alone; add ?sudo=true to its host")
    programs = {f"/proc/{program.pid}/root": program for program in machine.survey.programs}
    used = [*_used(machine), *(more or [])]
    lines = machine.run(_FILES, *(program.seen_from_outside(path) for program, path in used)).splitlines()
    secret = {line.removeprefix("secret ") for line in lines if line.startswith("secret ")}
    found: dict[str, File] = {}
    for line in lines:
        if line.startswith("file "):
            _, mode, user, inode, outside = line.split(" ", 4)
            root = next(root for root in programs if outside.startswith(f"{root}/"))
            path = outside.removeprefix(root)
            # Several programs use the same file, perhaps each in a container of its own.
            found.setdefault(inode, File(programs[root], path, int(mode, 8), int(user), outside in secret))
    return list(found.values())


def _certificates(text: str) -> list[tuple[str, tls.Certificate]]:
    """The first certificate of each file, and that of the user of each kubeconfig."""
    found = []
    for part in re.split(r"^file ", text, flags=re.MULTILINE)[1:]:
        path, _, content = part.partition("\n")
        inline = re.findall(r'client-certificate-data"?:\s*"?([\w+/=]+)', content)
        pem = content + "".join(base64.b64decode(each).decode() for each in inline)
        found += [(path.strip(), certificate) for certificate in tls.certificates(pem)[:1]]
    return found
