"""An embedded cluster on control groups version 2, on a machine that has version 1: `tox run -e cgroup2` does this.

Starts a virtual machine with Debian's own kernel, which mounts version 2, and with this machine's files, which it only
reads. In it a cluster of one node starts, promises that rest on control groups are proven, and the cluster ends. All of
it is emulated, thirty times as slow as this machine: those that one can rent seldom allow more. Exit code 0 when each
promise is kept, on a node of version 2, and no control group is left.
    python tests/cgroup2/run.py [--select PATH ...] [--timeout-scale FACTOR] [--within SECONDS]
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from clusterproof.embedded import cache, cluster
from clusterproof.reports import result

from clusterproof import debian
from clusterproof.errors import SurroundingsError
from clusterproof.outcome import Outcome

HERE = Path(__file__).parent
ADDONS = ("dns",)
SELECTION = (
    "nodes/test_runtime.py::test_cgroups",
    "pods/test_resources.py::test_control_group",
    "pods/test_resources.py::test_cpu_limit",
    "pods/test_resources.py::test_memory_limit",
    "pods/test_resources.py::test_resize",
)
"""Of the suites: what is held by control groups."""
PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "depmod": "kmod", "busybox": "busybox-static"}
"""What this needs, each with its Debian package."""
BEFORE_FILES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""Modules without which there are no files, and so no other modules."""
MEMORY = "12G"
"""All that it writes is in it."""


def main() -> int:
    """Run it; 0 when all is as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--select", nargs="+", default=SELECTION, metavar="PATH", help="promises, as paths in suites/")
    parser.add_argument(
        "--timeout-scale", type=float, default=20.0, metavar="FACTOR", help="multiply every waiting time (default: 20)"
    )
    parser.add_argument(
        "--within", type=float, default=3600.0, metavar="SECONDS", help="end the machine after that (default: 3600)"
    )
    args = parser.parse_args()
    try:
        return _run(args)
    except SurroundingsError as error:
        print(f"cgroup2: {error}", file=sys.stderr)
        return 4


def _run(args: argparse.Namespace) -> int:
    if missing := [package for program, package in PROGRAMS.items() if not shutil.which(program)]:
        raise SurroundingsError(f"packages are missing: apt-get install --no-install-recommends -y {' '.join(missing)}")
    cluster.build(cluster.Plan("cgroup2", 1, addons=ADDONS), _say)  # the virtual machine has no way to the internet
    kernel = _kernel()
    (version,) = os.listdir(kernel / "lib/modules")
    with tempfile.TemporaryDirectory(prefix="clusterproof-") as folder:
        shared = Path(folder, "shared")
        modules = shared / "modules"
        shutil.copytree(kernel / "lib/modules", modules / "lib/modules")
        debian.run(["depmod", "--basedir", str(modules), version], "modules cannot be listed")
        shutil.copy(HERE / "inside", shared)
        (shared / "settings").write_text(_settings(args))
        initial = Path(folder, "initial.gz")
        _pack(initial, modules, version)
        _boot(kernel / f"boot/vmlinuz-{version}", initial, shared, args.within)
        return _judge(shared)


def _kernel() -> Path:
    """Folder with the files of this release's newest kernel."""
    newest = f"linux-image-{os.uname().machine.replace('x86_64', 'amd64')}"
    depends = subprocess.run(["apt-cache", "depends", newest], capture_output=True, text=True, check=False).stdout
    if not (found := re.search(r"Depends: (linux-image-\d\S+)", depends)):
        raise SurroundingsError(f"{newest} names no kernel: try apt-get update; only Debian on x86-64 has one here")
    return debian.unpacked("kernel", (found[1],), _say)


def _settings(args: argparse.Namespace) -> str:
    """Shell variables for `inside`."""
    programs = Path(sys.executable).parent
    told = {
        "project": HERE.parent.parent,
        "clusterproof": programs / "clusterproof",
        "pytest": programs / "pytest",
        "addons": ",".join(ADDONS),
        "selection": " ".join(f"suites/{path}" for path in args.select),
        "scale": args.timeout_scale,
        "CLUSTERPROOF_CACHE": cache.root(),
        "HOME": Path.home(),
    }
    return "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in told.items())


def _pack(into: Path, modules: Path, version: str) -> None:
    """The first file system: `init`, busybox, and the modules that reach the files, in the order they need."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("bin", "dev", "files", "layer", "modules", "proc", "root", "sys"):
            (root / name).mkdir()
        shutil.copy(shutil.which("busybox") or "", root / "bin/busybox")
        shutil.copy(HERE / "init", root)
        (root / "init").chmod(0o755)
        command = ["modprobe", "--dirname", str(modules), "--set-version", version, "--show-depends", "--all"]
        listed = subprocess.run([*command, *BEFORE_FILES], capture_output=True, text=True, check=True).stdout
        paths = [Path(line.split()[1]) for line in listed.splitlines() if line.startswith("insmod ")]
        for number, path in enumerate(dict.fromkeys(paths)):
            content = path.read_bytes()
            plain = lzma.decompress(content) if path.suffix == ".xz" else content
            (root / f"modules/{number:02}").write_bytes(plain)
        names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
        packed = subprocess.run(
            ["busybox", "cpio", "-o", "-H", "newc"], cwd=root, input=names.encode(), capture_output=True, check=True
        )
        into.write_bytes(gzip.compress(packed.stdout, 1))


def _boot(kernel: Path, initial: Path, shared: Path, within: float) -> None:
    """Run the virtual machine until it ends, its console on this one."""
    command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max", "-smp", "2"]
    command += ["-m", MEMORY, "-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot"]
    command += ["-kernel", str(kernel), "-initrd", str(initial)]
    command += ["-append", "console=ttyS0 panic=1 quiet mitigations=off"]
    for tag, path, options in (("files", Path("/"), ",readonly=on,multidevs=remap"), ("shared", shared, "")):
        command += ["-fsdev", f"local,id={tag},path={path},security_model=none{options}"]
        command += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    with contextlib.suppress(subprocess.TimeoutExpired):  # what it has left says how far it came
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=within, check=False)


def _judge(shared: Path) -> int:
    """Say what came of it."""
    if not (shared / "left").exists():
        raise SurroundingsError("the machine ended before the cluster did; its last words are above")
    run = result.read(shared / "reports" / result.NAME)
    versions = {node.cgroup for node in run.cluster.nodes} if run.cluster else set()
    wrong = [f"{each.id}: {each.outcome}: {each.reason}" for each in run.results if each.outcome is not Outcome.KEPT]
    wrong += [] if versions == {"v2"} else [f"control groups of the nodes are {versions}, not v2"]
    wrong += [f"control group {left} is left" for left in (shared / "left").read_text().splitlines()]
    print(f"{sum(each.outcome is Outcome.KEPT for each in run.results)} kept in {run.seconds:.0f} s, on {versions}")
    print("\n".join(wrong))
    return 1 if wrong or not run.results else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
