"""The rooms' walls: every room imports the engine only, and the engine imports no room."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("suites", "fixtures", "reports", "embedded", "kind", "upgrade", "incluster")


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.update({node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)})
    return found


@pytest.mark.parametrize("room", ["clusterproof", *ROOMS])
def test_no_room_imports_another(room: str) -> None:
    others = {f"clusterproof.{each}" for each in ROOMS}
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / room).rglob("*.py")
        for name in imports(file)
        if name in others or name.startswith(tuple(f"{each}." for each in others))
    }
    assert not wrong


def test_a_pytest_run_without_promises_loads_no_client() -> None:
    heavy = ("kubernetes", "urllib3", "cryptography", "yaml", "clusterproof.wait", "clusterproof.client")
    script = f"import sys, clusterproof.plugin\nprint([name for name in {heavy!r} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
