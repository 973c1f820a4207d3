"""What can go wrong, sorted by whose fault it is: that decides the outcome of a promise."""

from __future__ import annotations

from typing import Any


class SurroundingsError(Exception):
    """Something around the cluster failed (connection, image, quota, missing right): nothing was learned.

    Ends a promise with outcome `error`.
    """


class ApiError(Exception):
    """The API server refused a request. Ends a promise with outcome `broken` where it was not expected."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        method: str,
        path: str,
        details: dict[str, Any],
        *,
        user: str = "",
    ) -> None:
        super().__init__(f"{method} {path}: {status} {reason}: {message}")
        self.status = status
        """HTTP status."""
        self.reason = reason
        """Kubernetes' word for it: `NotFound`, `Conflict`, `Invalid`, ..."""
        self.message = message
        self.method = method
        self.path = path
        self.details = details
        """`details` of the Status object: `causes` name the fields of an invalid object."""

        self.user = user
        """Who was refused; empty for the user of the run's kubeconfig."""

    @property
    def fields(self) -> list[str]:
        """Paths of the fields that the server complained about."""
        return [cause.get("field", "") for cause in self.details.get("causes", [])]


class NeverHappened(AssertionError):
    """A condition was not met in time, or not kept: the cluster broke its promise."""


class Hopeless(AssertionError):
    """A condition can no longer be met; raised by conditions to end a wait at once."""
