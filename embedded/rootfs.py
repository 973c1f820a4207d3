"""A small root file system made from this machine's own programs and the shared libraries that they need.

It stands below the workload image: upstream's specs call a shell, `curl`, `dig`, `nslookup`, `nc` and many small tools
inside of it. `sh` is bash, because dash and busybox drop variables whose names are no identifiers (`data-1`), and a
ConfigMap may well bring those.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from .cache import BuildError

PROGRAMS = {
    "bash": "bash",
    "busybox": "busybox-static",
    "curl": "curl",
    "dig": "bind9-dnsutils",
    "getent": "libc-bin",
    "ip": "iproute2",
    "nc.openbsd": "netcat-openbsd",
    "nslookup": "bind9-dnsutils",
    "ss": "iproute2",
}
"""Programs taken from this machine, each with the Debian package that has it."""

_LINKS = {"sh": "bash", "nc": "nc.openbsd"}
_BY_DLOPEN = ("libnss_files.so.2", "libnss_dns.so.2")
"""Libraries that no program names but name resolution looks for."""
_SEARCHED = ("/usr/sbin", "/sbin", "/usr/local/sbin")
"""Folders that an ordinary user's PATH leaves out."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder inside an image."""

    path: str
    mode: int = 0o755
    owner: int = 0
    """User and group."""


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link inside an image."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class File:
    """A file inside an image, with its content or the file that has it."""

    path: str
    content: Path | bytes
    mode: int = 0o644


Entry = Folder | Link | File


def tree(folder: Path) -> Iterator[Entry]:
    """Everything in a folder of this machine, as root's, in an order that is always the same."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            yield Link(name, str(path.readlink()))
        elif path.is_dir():
            yield Folder(name)
        else:
            yield File(name, path, 0o755 if path.stat().st_mode & 0o100 else 0o644)


def missing_packages() -> list[str]:
    """Debian packages that must be installed before images can be made; empty if all is there."""
    missing = {package for program, package in PROGRAMS.items() if _which(program) is None}
    busybox = _which("busybox")
    if busybox is not None and _libraries((busybox,)):
        missing.add(PROGRAMS["busybox"])  # the one there needs libraries: scripts may run it where there are none
    return sorted(missing)


def entries() -> Iterator[Entry]:
    """Everything in the root file system, each folder before what is in it.

    Raises BuildError if programs are missing on this machine.
    """
    if missing := missing_packages():
        raise BuildError(
            f"the images need programs that are not on this machine; install them: apt-get install {' '.join(missing)}"
        )
    programs = {name: _which(name) for name in PROGRAMS}
    found = {name: path for name, path in programs.items() if path is not None}
    yield from _skeleton()
    yield from _libraries_of(tuple(found.values()))
    for name, path in sorted(found.items()):
        yield File(f"usr/bin/{name}", path, 0o755)
    for name, target in sorted(_LINKS.items()):
        yield Link(f"usr/bin/{name}", target)
    for applet in sorted(set(_applets(found["busybox"])) - found.keys() - _LINKS.keys()):
        yield Link(f"usr/bin/{applet}", "busybox")


def _skeleton() -> Iterator[Entry]:
    """Folders and the files of /etc: what programs take for granted."""
    for path in ("dev", "etc", "home", "proc", "run", "sys", "usr", "usr/bin", "usr/lib", "usr/local", "var"):
        yield Folder(path)
    for path in ("usr/local/bin", "var/log", "var/lib"):
        yield Folder(path)
    yield Folder("root", 0o700)
    yield Folder("home/user", owner=1000)
    for path in ("tmp", "var/tmp"):
        yield Folder(path, 0o1777)
    for path, target in {"bin": "usr/bin", "sbin": "usr/bin", "lib": "usr/lib", "usr/sbin": "bin"}.items():
        yield Link(path, target)
    yield Link("var/run", "../run")
    # The user and the group are those that upstream's spec on groups of the image expects.
    yield File(
        "etc/passwd",
        b"root:x:0:0:root:/root:/bin/sh\n"
        b"nobody:x:65534:65534:nobody:/:/bin/false\n"
        b"user-defined-in-image:x:1000:1000::/home/user:/bin/sh\n",
    )
    yield File(
        "etc/group",
        b"root:x:0:\n"
        b"nogroup:x:65534:\n"
        b"user-defined-in-image:x:1000:\n"
        b"group-defined-in-image:x:50000:user-defined-in-image\n",
    )
    yield File("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")


def runtime(programs: tuple[Path, ...]) -> Iterator[Entry]:
    """The least that programs need to run in an image of their own: their libraries, and /etc and /tmp."""
    yield from _skeleton()
    yield from _libraries_of(programs)


def iptables() -> Iterator[Entry]:
    """iptables and ip6tables with their extensions, which find their own libraries in this layer.

    Raises BuildError if they are missing on this machine.
    """
    program = _which("xtables-nft-multi")
    if program is None:
        raise BuildError("xtables-nft-multi is not on this machine; install it: apt-get install iptables")
    home = next((path for path in Path("/usr/lib").glob("**/xtables") if (path / "libxt_comment.so").exists()), None)
    if home is None:
        raise BuildError(f"{program} is on this machine without its extensions (xtables/libxt_comment.so)")
    extensions = sorted(home.glob("lib*.so"))
    yield from _libraries_of((program, *extensions))
    yield Folder(str(_below_usr(home)))
    for extension in extensions:
        yield File(str(_below_usr(extension)), extension.resolve())
    yield File("usr/bin/xtables-nft-multi", program, 0o755)
    for family in ("iptables", "ip6tables"):
        for name in (family, f"{family}-save", f"{family}-restore"):
            yield Link(f"usr/bin/{name}", "xtables-nft-multi")


def _libraries_of(programs: tuple[Path, ...]) -> Iterator[Entry]:
    """Shared libraries in one folder that the loader searches, and the loader where programs look for it."""
    libraries = _libraries(programs)
    if not libraries:
        return
    home = next(path for name, path in libraries.items() if name.startswith("libc.so")).parent
    for name in _BY_DLOPEN:
        if (home / name).exists():
            libraries[name] = home / name
    # The loader is named by its full path in every program; the others are found in the folder of libc.
    places = {_below_usr(Path(name) if name.startswith("/") else home / name): path for name, path in libraries.items()}
    made = {"usr", "usr/lib"}
    for place, path in sorted(places.items()):
        for parent in map(str, reversed(place.parents[:-1])):
            if parent not in made:
                made.add(parent)
                yield Folder(parent)
                if parent.count("/") == 1:
                    yield Link(parent.removeprefix("usr/"), parent)
        yield File(str(place), path, 0o755)


def _below_usr(path: Path) -> PurePosixPath:
    """Where something of /lib or /usr/lib goes: the image has one folder for both."""
    return PurePosixPath("usr", *(part for part in path.parts[1:] if part != "usr"))


@cache
def _which(program: str) -> Path | None:
    found = shutil.which(program) or shutil.which(program, path=":".join(_SEARCHED))
    return Path(found).resolve() if found else None


def _libraries(programs: tuple[Path, ...]) -> dict[str, Path]:
    """Shared libraries of programs, by name; the loader by its full path. Empty for static programs."""
    done = subprocess.run([_which("ldd") or "ldd", *map(str, programs)], capture_output=True, text=True, check=False)
    if missing := re.findall(r"^\s*(\S+) => not found", done.stdout, re.MULTILINE):
        raise BuildError(f"{', '.join(map(str, programs))}: libraries not found: {', '.join(sorted(set(missing)))}")
    named = re.findall(r"^\s*(\S+) => (/\S+)", done.stdout, re.MULTILINE)
    loaders = re.findall(r"^\s*(/\S+) \(0x", done.stdout, re.MULTILINE)
    return {name: Path(path).resolve() for name, path in (*named, *((path, path) for path in loaders))}


def _applets(busybox: Path) -> list[str]:
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    return listed.stdout.split()
