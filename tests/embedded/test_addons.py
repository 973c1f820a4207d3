"""Which add-ons a cluster gets for those that are asked for."""

from __future__ import annotations

import pytest
from clusterproof.embedded import addons, cluster, preflight
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


@pytest.fixture
def no_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose kernel hands no packets to programs."""
    monkeypatch.setattr(preflight.os, "geteuid", lambda: 0)
    monkeypatch.setattr(preflight, "_refused", lambda *command: "no such target" if "NFQUEUE" in command else "")


@pytest.mark.usefixtures("no_queues")
def test_what_the_machine_cannot_run_is_left_out_unless_it_is_named() -> None:
    assert addons.usual() == tuple(name for name in addons.NAMES if name != "network-policies")
    with pytest.raises(CannotStart, match=r"add-on network-policies: .*\(no such target\): modprobe -a xt_NFQUEUE"):
        cluster.check(cluster.Plan("some", addons=("network-policies",)))
