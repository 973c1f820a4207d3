"""Hooks that clusterproof calls; rooms and other plugins may implement them."""

from __future__ import annotations

import pytest

from clusterproof.outcome import Run


@pytest.hookspec
def pytest_clusterproof_finished(config: pytest.Config, run: Run) -> None:
    """A run has ended, completely or not; called once, in the process that started it, before the terminal summary."""
