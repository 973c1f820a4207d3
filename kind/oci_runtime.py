"""An OCI runtime for hosts that lack CAP_SYS_RESOURCE: runc, asked for nothing that only that capability allows.

Docker asks for every capability that it knows where a container is privileged, as kind's nodes are; runc refuses to
start what cannot be had.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

LACKING = "CAP_SYS_RESOURCE"


def without(process: dict[str, Any]) -> dict[str, Any]:
    """A process as OCI describes it, less the capability, and less what needs it."""
    kept = {key: value for key, value in process.items() if key != "rlimits"}
    if (kept.get("oomScoreAdj") or 0) < 0:
        del kept["oomScoreAdj"]
    sets = kept.get("capabilities") or {}
    kept["capabilities"] = {name: [each for each in had if each != LACKING] for name, had in sets.items()}
    return kept


def main(arguments: list[str]) -> None:
    """Change the files that runc is about to read, then become runc."""
    for flag, value in pairwise(arguments):
        if flag == "--bundle" and (path := Path(value, "config.json")).exists():
            specification = json.loads(path.read_text())
            path.write_text(json.dumps({**specification, "process": without(specification["process"])}))
        elif flag == "--process":
            path = Path(value)
            path.write_text(json.dumps(without(json.loads(path.read_text()))))
    os.execvp("runc", ["runc", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
