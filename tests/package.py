"""The wheel is the project: what it holds collects the same promises as the checkout, from an environment of its own.

Run by `tox run -e package`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    """0 when the installed wheel and the checkout know the same promises."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True, stdout=sys.stderr
        )
        (wheel,) = Path(folder).glob("*.whl")
        venv.create(Path(folder, "venv"), with_pip=True)
        python = Path(folder, "venv/bin/python")
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel], check=True)
        installed = _promises(python, "--pyargs", "clusterproof.suites", cwd=folder)
    ours = _promises(Path(sys.executable), "suites/", cwd=str(ROOT))
    print(f"{len(ours)} promises in the checkout, {len(installed)} in {wheel.name}")
    for name in sorted(ours ^ installed):
        print(f"only in {'the checkout' if name in ours else 'the wheel'}: {name}")
    return 0 if ours and ours == installed else 1


def _promises(python: Path, *selection: str, cwd: str) -> set[str]:
    """Names of the collected promises, without the folder that they were found in."""
    command = [python, "-m", "pytest", "--collect-only", "-q", *selection]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    return {line.rpartition("suites/")[2] for line in done.stdout.splitlines() if "::" in line}


if __name__ == "__main__":
    sys.exit(main())
