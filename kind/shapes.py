"""What a cluster consists of: shapes/*.yaml by name, or a kind configuration of the user's own."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterproof.provider import Shape

SHAPES = Path(__file__).parent / "shapes"


@dataclass(frozen=True, slots=True)
class Layout:
    """The nodes of a cluster, as a kind configuration has them."""

    name: str
    configuration: dict[str, Any]

    @property
    def control_planes(self) -> int:
        """Nodes with a control plane."""
        return sum(node.get("role") == "control-plane" for node in self.configuration["nodes"])

    @property
    def nodes(self) -> int:
        """All nodes."""
        return len(self.configuration["nodes"])

    @property
    def plain(self) -> bool:
        """Whether the numbers of nodes say all of it, so that tools other than kind can make it."""
        return not self.configuration.get("networking")


def layout(shape: Shape) -> Layout:
    """The layout that was asked for, by name, by file, or by number of nodes; UsageError when there is none such."""
    if not shape.layout:
        made = _read(SHAPES / ("single.yaml" if shape.nodes == 1 else "two-node.yaml"))
        worker = {"role": "worker"}
        configuration = copy.deepcopy(made.configuration)
        configuration["nodes"] += [dict(worker) for _ in range(shape.nodes - made.nodes)]
        return Layout(made.name, configuration)
    if (known := SHAPES / f"{shape.layout}.yaml").exists():
        return _read(known)
    if not Path(shape.layout).exists():
        names = ", ".join(sorted(path.stem for path in SHAPES.glob("*.yaml")))
        raise pytest.UsageError(f"--shape={shape.layout}: there is no such shape or file; there are {names}")
    return _read(Path(shape.layout))


def _read(path: Path) -> Layout:
    try:
        read = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise pytest.UsageError(f"--shape={path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(read, dict) or read.get("kind") != "Cluster":
        raise pytest.UsageError(f"--shape={path}: is not a kind configuration: it has no `kind: Cluster`")
    nodes = read.setdefault("nodes", [{"role": "control-plane"}])
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise pytest.UsageError(f"--shape={path}: `nodes` is not a list of mappings")
    return Layout(path.stem, read)
