"""The marks of the suites: what each means to pytest's `--markers`, and how a parametrized case is named."""

from __future__ import annotations

from typing import Any

import pytest

TIERS = ("smoke", "normal", "full", "disruptive")
"""From quickest to most harmful; a promise without a mark is normal."""

DESCRIPTIONS = (
    "requires(*capabilities): what a cluster must claim for this promise; unsupported without",
    "smoke: among the quickest and most telling promises",
    "normal: the default tier",
    "full: slow or costly promises",
    "disruptive: disturbs the whole cluster; runs only with --disruptive, after all others and alone",
    "alone: disturbs what others rely on, as the number of nodes, or suffers from them; runs last and harms nothing",
    "pod_security(level): Pod Security level of the test's namespaces: privileged, baseline or restricted (default)",
    "first: waits for a wall-clock minute or is otherwise long, so it is started before the others",
    # pytest-kubernetes uses this mark without registering it.
    "k8s(**options): cluster of pytest-kubernetes",
)


def alone(item: pytest.Item) -> bool:
    """Whether nothing else may be proven meanwhile."""
    return any(item.get_closest_marker(name) for name in ("alone", "disruptive"))


def case(name: str, *values: Any, marks: Any = ()) -> Any:
    """One case of `pytest.mark.parametrize`; its name ends the report id: `apps/job/completion[indexed]`."""
    return pytest.param(*values, id=name, marks=marks)
