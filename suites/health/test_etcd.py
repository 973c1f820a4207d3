"""etcd: what the API server does without its storage, and when it is back."""

from __future__ import annotations

import re
from time import monotonic

import pytest

from clusterproof import Cluster, Namespace, Timeouts, capabilities, eventually, manifests, measure
from clusterproof.conditions import equals

OBJECTS = 20


@pytest.mark.disruptive
@pytest.mark.requires(capabilities.OPERATOR)
def test_loss(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """Without etcd the API server MUST say that it is not ready, naming etcd, and be well again with it, nothing lost.

    Source: https://kubernetes.io/docs/reference/using-api/health-checks/
    """
    before = {(made := namespace.create(manifests.config_map(f"item-{n}"))).uid: made for n in range(OBJECTS)}
    with cluster.without("etcd"):
        failing = equals((500, ["etcd"]))
        eventually(lambda: _health(cluster), failing, within=timeouts.propagation, describe="/readyz names etcd")

    started = monotonic()
    well = equals((200, []))
    eventually(lambda: _health(cluster), well, within=timeouts.recovery, describe="/readyz is well again")
    livez = cluster.client.request("GET", "/livez").status
    assert livez == 200, f"etcd is back and /readyz is well, but /livez is answered with {livez}"
    measure("time to recover (s)", monotonic() - started)
    # One by one: a list may come from what the API server remembers, and not from etcd.
    lost = [str(each) for uid, each in before.items() if not each.exists() or each.uid != uid]
    assert not lost, f"{OBJECTS} ConfigMaps were stored before etcd was lost; after it there is no {', no '.join(lost)}"
    namespace.create(manifests.config_map("after"))


def _health(cluster: Cluster) -> tuple[int, list[str]]:
    """How /readyz is answered, and whether etcd is among the checks that fail."""
    answer = cluster.client.request("GET", "/readyz?verbose")
    failing = re.findall(r"^\[-\](\S+)", answer.text, re.MULTILINE)
    return answer.status, [name for name in failing if name == "etcd"]
