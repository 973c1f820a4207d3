"""Addresses of Services: which ones there are, and whose they are."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from clusterproof import ApiError, Cluster, Namespace, Timeouts, capabilities, eventually, kinds, manifests
from clusterproof.conditions import exists, gone, has_condition
from clusterproof.refusals import refused
from clusterproof.running.proving import Unsupported

KEEPERS = ("ValidatingAdmissionPolicy", "admission webhook")
"""By whom an administrator may keep others from adding ranges: that is documented, too."""


def test_chosen(namespace: Namespace, timeouts: Timeouts) -> None:
    """A Service MUST be given the address that it asks for, unless another Service has it.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#choosing-your-own-ip-address
    """
    first = namespace.create(manifests.service("first"))
    address = first.spec["clusterIP"]
    same: dict[str, Any] = {"spec": {"clusterIP": address}}

    with refused(f"a second Service with {address}, which {first} has,", 422) as refusal:
        namespace.create(manifests.service("second", **same))
    assert any("clusterIP" in field for field in refusal.fields), f"the refusal names {refusal.fields}"
    first.delete()
    eventually(first, gone, within=timeouts.object)
    third = eventually(
        lambda: namespace.create(manifests.service("third", **same)),
        exists,
        within=timeouts.propagation,
        describe=f"a Service with {address}, which nobody has any more, is let in",
    )
    assert third.spec["clusterIP"] == address, f"{third} asks for {address}, and has {third.spec['clusterIP']}"


@pytest.mark.requires(capabilities.SERVICE_RANGES)
def test_ranges(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """A further range of Service addresses MUST become ready, and go when no Service needs it.

    It is a part of what the cluster has already, so that no Service gets an address which nobody knows the way to.

    Source: https://kubernetes.io/docs/tasks/network/extend-service-ip-ranges/
    """
    default = cluster.get(kinds.SERVICE_CIDR, "kubernetes")
    parts = [str(next(ipaddress.ip_network(each).subnets())) for each in default.spec["cidrs"]]

    try:
        further = cluster.create(manifests.custom_object(kinds.SERVICE_CIDR, namespace.name, spec={"cidrs": parts}))
    except ApiError as refusal:
        if not any(who in refusal.message for who in KEEPERS):
            raise
        raise Unsupported(f"a further range of Service addresses is refused: {refusal.message}") from refusal
    eventually(further, has_condition("Ready"), within=timeouts.object)

    further.delete()
    eventually(further, gone, within=timeouts.object)
