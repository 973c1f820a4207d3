"""What the checks of `verify` share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from clusterproof.client import Client
from clusterproof.errors import NeverHappened
from clusterproof.objects import Object
from clusterproof.wait import eventually

from . import surface
from .folder import Before

PATIENCE = 10.0
"""Seconds for what may fail for a moment, once everything else has come to rest."""


@dataclass(slots=True)
class Context:
    """The cluster after the upgrade, and what it was before."""

    client: Client
    before: Before
    deadline: float
    """On the monotonic clock: by when what is still moving must have come to rest."""
    told: list[str] = field(default_factory=list)
    """What is neither good nor bad, but should be known."""

    @property
    def left(self) -> float:
        """Seconds until the deadline; a second at least, to look once."""
        return max(1.0, self.deadline - time.monotonic())

    def object(self, kind: str, name: str) -> Object:
        """A handle on something that was laid down; makes no request."""
        (known,) = [each for each in self.before.objects if (each["kind"], each["name"]) == (kind, name)]
        return surface.found_again(self.client, known)

    def laid_down(self, kind: str, name: str) -> bool:
        """Whether `prepare` made such an object."""
        return any((each["kind"], each["name"]) == (kind, name) for each in self.before.objects)

    def settles(self, source: Any, condition: Callable[[Any], str | None]) -> str:
        """Wait for a condition until the deadline; what is missing then, or nothing."""
        try:
            eventually(source, condition, within=self.left)
        except NeverHappened as late:
            return str(late)
        return ""
