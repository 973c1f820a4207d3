"""What MUST be refused: a block that breaks a promise when the API server accepts it, or refuses it otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from clusterproof.doctor.needs import is_missing_right
from clusterproof.errors import ApiError


class Refusal:
    """How the API server refused what was tried; known once the block of `refused` has ended."""

    error: ApiError

    @property
    def message(self) -> str:
        """What the server said."""
        return self.error.message

    @property
    def fields(self) -> list[str]:
        """Paths of the fields that it complained about."""
        return self.error.fields


@contextmanager
def refused(what: str, *status: int) -> Iterator[Refusal]:
    """Expect the API server to refuse `what` the body does, with one of these statuses; 403 when none is named.

    `what` begins the sentence of the failure: "a second Secret MUST be refused with 403, but it was accepted".
    """
    __tracebackhide__ = True
    refusal, expected = Refusal(), status or (403,)
    must = f"{what} MUST be refused with {' or '.join(map(str, expected))}"
    try:
        yield refusal
    except ApiError as error:
        if not error.user and is_missing_right(error):
            raise  # the run's own user may not even try
        if error.status not in expected:
            raise AssertionError(f"{must}, but the answer was: {error}") from None
        refusal.error = error
    else:
        raise AssertionError(f"{must}, but it was accepted")
