"""Writing files so that whoever reads them sees the old one or the new one, never half of one."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, text: str) -> Path:
    """Put a file in place in one step and return its path; an OSError leaves what was there before."""
    # In the same folder, because only there a rename is one step; with our process id, because two runs may share it.
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return path
