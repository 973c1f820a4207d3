"""Every promise there is, read from the suites' source without running it; and the stable ids they are reported by."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from clusterproof.marks import TIERS


@dataclass(frozen=True, slots=True)
class Promise:
    """One test function of the suites."""

    id: str
    """Report id without a case."""
    function: str
    path: Path
    sentence: str
    """First sentence of its docstring; empty without one."""
    tier: str
    capabilities: tuple[str, ...]
    source: str
    """URL of the documentation that makes the promise; empty without one."""
    pod_security: tuple[str, ...] = ()
    """Pod Security levels that its cases demand of their namespaces; empty for the usual one, restricted."""


def root() -> Path:
    """The folder of the suites: in a checkout or installed."""
    found = importlib.util.find_spec("clusterproof.suites")
    assert found is not None
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]).resolve()


def digest() -> str:
    """SHA-256 of the suites' sources: of a line `<sha256 of the file>  <path>` for each, sorted by path."""
    sources = (path for path in root().rglob("*") if path.suffix in (".py", ".yaml"))
    files = sorted((path.relative_to(root()).as_posix(), path) for path in sources)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n" for name, path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def report_id(path: Path, function: str) -> str:
    """The id of a test by its path below the suites: `apps/test_job.py` and `test_completion`: `apps/job/completion`.

    A file named after its area leaves the object out: `health/livez`.
    """
    parts = [*path.parts[:-1], path.stem.removeprefix("test_"), function.removeprefix("test_")]
    if len(parts) > 2 and parts[-2] == parts[-3]:
        del parts[-2]
    return "/".join(parts)


def sentence(docstring: str | None) -> str:
    """The first sentence of a docstring, on one line."""
    text = " ".join((docstring or "").strip().split("\n\n")[0].split())
    end = re.search(r"\.(?=\s+[A-Z]|$)", text)
    return text[: end.end()] if end else text


def source(docstring: str | None) -> str:
    """Where Kubernetes documents it: the URL behind `Source:` in the docstring; empty without one."""
    found = re.search(r"^\s*Source: (\S+)", docstring or "", re.MULTILINE)
    return found[1] if found else ""


def are_suites(arguments: Iterable[str], *, by_module: bool, start: Path) -> bool:
    """Whether all that pytest was asked to run lies in the suites.

    `arguments` are paths relative to `start`, or module names where `by_module` (`--pyargs`), each perhaps with `::`.
    """
    paths = []
    for argument in arguments:
        name = argument.partition("::")[0]
        path = (start / name).resolve()
        if by_module and not path.exists():
            path = _module(name) or path
        paths.append(path)
    return bool(paths) and all(path.is_relative_to(root()) for path in paths)


def scan(paths: Iterable[Path]) -> list[Promise]:
    """The promises of these files and folders of the suites."""
    files = {file for path in paths for file in ([path] if path.is_file() else path.rglob("test_*.py"))}
    return [promise for file in sorted(files) for promise in _promises(file, file.stat().st_mtime_ns)]


def check(promises: Iterable[Promise]) -> None:
    """UsageError that lists every promise without a sentence that says MUST, and every id that is used twice."""
    known = list(promises)
    problems = [
        f"{promise.path}::{promise.function}: its docstring must begin with a sentence that says MUST"
        for promise in known
        if "MUST" not in promise.sentence
    ]
    ids = Counter(promise.id for promise in known)
    problems += [f"{id}: {number} promises share this id" for id, number in ids.items() if number > 1]
    if problems:
        raise pytest.UsageError("\n".join(problems))


def _module(name: str) -> Path | None:
    try:
        found = importlib.util.find_spec(name)
    except ImportError:
        return None
    if found is None:
        return None
    if found.submodule_search_locations:
        return Path(found.submodule_search_locations[0]).resolve()
    return Path(found.origin or "").resolve()


@cache
def _promises(file: Path, written: int) -> tuple[Promise, ...]:
    """The promises of a file as it was written then: a run asks for them again and again."""
    return tuple(_parse(file))


def _parse(file: Path) -> Iterator[Promise]:
    try:
        tree = ast.parse(file.read_text(), str(file))
    except SyntaxError as error:
        raise pytest.UsageError(f"{file}:{error.lineno}: {error.msg}") from error
    for_all = [node.value for node in tree.body if isinstance(node, ast.Assign) and _targets_pytestmark(node)]
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        marks = [*node.decorator_list, *for_all]
        yield Promise(
            report_id(file.relative_to(root()), node.name),
            node.name,
            file,
            sentence(ast.get_docstring(node)),
            next((tier for tier in _names(marks) if tier in TIERS), "normal"),
            tuple(_required(marks)),
            source(ast.get_docstring(node)),
            tuple(_demanded(marks)),
        )


def _targets_pytestmark(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)


def _names(marks: Iterable[ast.expr]) -> Iterator[str]:
    """Names of the marks among these expressions: `smoke` for `pytest.mark.smoke`."""
    for mark in marks:
        for node in ast.walk(mark):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "mark":
                yield node.attr


def _arguments(marks: Iterable[ast.expr], name: str) -> Iterator[ast.expr]:
    """What is handed to the marks of a name among these expressions."""
    for mark in marks:
        for call in ast.walk(mark):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == name:
                yield from call.args


def _required(marks: Iterable[ast.expr]) -> Iterator[str]:
    from clusterproof import capabilities

    for argument in _arguments(marks, "requires"):
        constant = argument.attr if isinstance(argument, ast.Attribute) else getattr(argument, "id", "")
        found = getattr(capabilities, constant, None)
        if isinstance(found, capabilities.Capability):
            yield found.name


def _demanded(marks: Iterable[ast.expr]) -> Iterator[str]:
    for argument in _arguments(marks, "pod_security"):
        if isinstance(argument, ast.Constant):
            yield str(argument.value)
