"""Which add-ons a cluster gets for those that are asked for."""

from __future__ import annotations

import pytest
from clusterproof.embedded import addons
from clusterproof.embedded.state import CannotStart


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ((), []),
        (("vpa", "dns"), ["dns", "metrics", "vpa"]),
        (addons.NAMES, list(addons.NAMES)),
    ],
)
def test_an_addon_brings_those_that_it_needs(asked: tuple[str, ...], given: list[str]) -> None:
    assert [addon.name for addon in addons.named(asked)] == given


def test_an_unknown_addon_is_named_with_those_there_are() -> None:
    with pytest.raises(CannotStart, match=r"there is no mesh; choose from: .*dns, .*vpa"):
        addons.named(["dns", "mesh"])
