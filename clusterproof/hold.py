"""Holding an object with a finalizer for as long as a promise looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from clusterproof.errors import ApiError
from clusterproof.objects import Object

HOLD = "clusterproof.dev/hold"
"""A finalizer that nobody but the promise itself removes."""


def release(item: Object) -> None:
    """Remove an object's finalizers, if it is still there."""
    try:
        item.patch({"metadata": {"finalizers": None}})
    except ApiError as error:
        if error.status != 404:
            raise


@contextmanager
def held(item: Object) -> Iterator[None]:
    """A block after which an object is released, also when it fails: else it and its namespace stay for ever."""
    try:
        yield
    finally:
        release(item)
