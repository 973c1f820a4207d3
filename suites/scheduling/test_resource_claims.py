"""Resource claims: a pod gets the device that it asks for, on the node that has it, and nobody else does meanwhile.

No driver is needed: these pods never start, so that nobody has to prepare a device for them.
"""

from __future__ import annotations

from typing import Any

import pytest

from clusterproof import (
    Cluster,
    Images,
    Namespace,
    Object,
    Timeouts,
    capabilities,
    eventually,
    hollow,
    kinds,
    manifests,
)
from clusterproof.conditions import Condition, gone, placed_on, told_to_end, waits_for_node
from clusterproof.refusals import refused

pytestmark = pytest.mark.requires(capabilities.RESOURCE_CLAIMS)

DEVICE = "one"
"""Name of the only device, and of the request for it."""
ADMINS = "resource.kubernetes.io/admin-access"
"""Label of namespaces whose claims may ask for admin access."""


def test_template(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod that names a ResourceClaimTemplate MUST get a claim of its own, made like it, which goes with the pod.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#resourceclaims-templates
    """
    template = namespace.create(_template(namespace.name))
    pods = [namespace.create(_pod(name, images, template, spec=manifests.PARKED)) for name in ("stays", "leaves")]
    stays, leaves = (namespace.get(kinds.RESOURCE_CLAIM, _claim_of(pod, timeouts)) for pod in pods)

    assert stays.name != leaves.name, f"{pods[0]} and {pods[1]} have the same {stays}"
    for pod, claim in zip(pods, (stays, leaves), strict=True):
        (owner,) = claim.metadata.get("ownerReferences") or [{}]
        assert owner.get("uid") == pod.uid, f"{claim} belongs to {owner or 'nobody'}, not to {pod}"
        asked = claim.spec["devices"]["requests"][0]["exactly"]["deviceClassName"]
        assert asked == namespace.name, f"{claim} asks for {asked}, and {template} for {namespace}"
    pods[1].delete()
    eventually(leaves, gone, within=timeouts.pod_end)
    assert not stays.read().deleting, f"{stays} of {pods[0]} was told to end with that of {pods[1]}"


@pytest.mark.requires(capabilities.OWN_NODE)
def test_device(
    cluster: Cluster, namespace: Namespace, hollow_node: Object, images: Images, timeouts: Timeouts
) -> None:
    """A device MUST be allocated to one pod at a time, on its own node, and what one leaves be given to the next.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
    """
    template, devices = _only_device(cluster, namespace, hollow_node)
    driver = devices.spec["driver"]

    first = namespace.create(_user("first", images, template, hollow_node))
    claim = namespace.get(kinds.RESOURCE_CLAIM, _claim_of(first, timeouts))
    eventually(claim, _is_allocated(driver, hollow_node), within=timeouts.object)
    eventually(first, placed_on(hollow_node), within=timeouts.object)
    users = [each["uid"] for each in claim.read().status.get("reservedFor") or []]
    assert users == [first.uid], f"{claim} is reserved for {users}, not for {first} ({first.uid})"
    second = namespace.create(_user("second", images, template, hollow_node))
    eventually(second, waits_for_node("cannot allocate all claims"), within=timeouts.object)

    hollow.end(first)
    eventually(second, placed_on(hollow_node), within=timeouts.pod_end)
    claim = namespace.get(kinds.RESOURCE_CLAIM, _claim_of(second, timeouts))
    eventually(claim, _is_allocated(driver, hollow_node), within=timeouts.object)


@pytest.mark.requires(capabilities.OWN_NODE, capabilities.DEVICE_TAINTS)
def test_taint(cluster: Cluster, namespace: Namespace, hollow_node: Object, images: Images, timeouts: Timeouts) -> None:
    """A pod whose device is tainted MUST be told to end, and nobody be given the device while the taint is there.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#device-taints-and-tolerations
    """
    template, devices = _only_device(cluster, namespace, hollow_node)
    user = namespace.create(_user("user", images, template, hollow_node))
    eventually(user, placed_on(hollow_node), within=timeouts.object)

    taint = {"key": "clusterproof.dev/broken", "effect": "NoExecute"}
    devices.patch({"spec": {"devices": [{"name": DEVICE, "taints": [taint]}]}})
    eventually(user, told_to_end, within=timeouts.object)
    hollow.end(user)
    second = namespace.create(_user("second", images, template, hollow_node))
    eventually(second, waits_for_node("cannot allocate all claims"), within=timeouts.object)

    devices.patch({"spec": {"devices": [{"name": DEVICE}]}})
    eventually(second, placed_on(hollow_node), within=timeouts.pod_end)


@pytest.mark.requires(capabilities.OWN_NODE, capabilities.DEVICE_ALTERNATIVES)
def test_alternatives(
    cluster: Cluster, namespace: Namespace, hollow_node: Object, images: Images, timeouts: Timeouts
) -> None:
    """A claim to one of several devices MUST be given the first in its list that there is.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#prioritized-list
    """
    _, devices = _only_device(cluster, namespace, hollow_node)
    driver = devices.spec["driver"]
    there_is_none = [{"cel": {"expression": f"device.driver == 'other.{driver}'"}}]
    of_class = {"deviceClassName": namespace.name}
    wishes = [{"name": "rare", **of_class, "selectors": there_is_none}, {"name": "usual", **of_class}]
    claim = namespace.create(_claim("either", {"firstAvailable": wishes}))

    pod = namespace.create(_user("user", images, claim, hollow_node))
    eventually(claim, _is_allocated(driver, hollow_node), within=timeouts.object)

    (given,) = claim.status["allocation"]["devices"]["results"]
    assert given["request"] == f"{DEVICE}/usual", f"{claim} was given {given['request']}, not {DEVICE}/usual"
    eventually(pod, placed_on(hollow_node), within=timeouts.object)


@pytest.mark.requires(capabilities.OWN_NODE, capabilities.DEVICE_ADMINS)
def test_admin_access(
    cluster: Cluster, namespace: Namespace, hollow_node: Object, images: Images, timeouts: Timeouts
) -> None:
    """A claim with admin access MUST be given a device that others have, in namespaces only that allow for it.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#admin-access
    """
    _, devices = _only_device(cluster, namespace, hollow_node)
    wanted = {"exactly": {"deviceClassName": namespace.name}}
    access = {"exactly": {"deviceClassName": namespace.name, "adminAccess": True}}
    usual = namespace.create(_claim("usual", wanted))
    namespace.create(_user("user", images, usual, hollow_node))
    eventually(usual, _is_allocated(devices.spec["driver"], hollow_node), within=timeouts.object)

    with refused(f"a claim with admin access in {namespace}, which has no label for that,", 422) as refusal:
        namespace.create(_claim("admin", access))
    assert any("adminAccess" in field for field in refusal.fields), f"the refusal names {refusal.fields}"
    cluster.get(kinds.NAMESPACE, namespace.name).patch({"metadata": {"labels": {ADMINS: "true"}}})
    admin = namespace.create(_claim("admin", access))
    namespace.create(_user("watcher", images, admin, hollow_node))
    eventually(admin, _is_allocated(devices.spec["driver"], hollow_node), within=timeouts.object)


@pytest.mark.requires(capabilities.OWN_NODE, capabilities.EXTENDED_RESOURCES)
def test_extended_resource(
    cluster: Cluster, namespace: Namespace, hollow_node: Object, images: Images, timeouts: Timeouts
) -> None:
    """A pod that requests an extended resource of a DeviceClass MUST get a device of it, and wait where there is none.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#extended-resource
    """
    _only_device(cluster, namespace, hollow_node)
    tolerant = {"tolerations": hollow.pods_on(hollow_node)["tolerations"]}
    uses = {"limits": {_resource(namespace.name): "1"}}
    pods = [
        manifests.pod(name, images.agnhost, resources=uses, spec=tolerant, **manifests.HELD)
        for name in ("first", "second")
    ]

    first = eventually(namespace.create(pods[0]), placed_on(hollow_node), within=timeouts.object)
    claim = namespace.get(kinds.RESOURCE_CLAIM, first.status["extendedResourceClaimStatus"]["resourceClaimName"])
    users = [each["uid"] for each in claim.status.get("reservedFor") or []]
    assert users == [first.uid], f"{claim} is reserved for {users}, not for {first} ({first.uid})"
    second = namespace.create(pods[1])
    eventually(second, waits_for_node("cannot allocate all claims"), within=timeouts.object)

    hollow.end(first)
    eventually(second, placed_on(hollow_node), within=timeouts.pod_end)


@pytest.mark.requires(capabilities.OWN_NODE)
def test_attributes(
    cluster: Cluster, namespace: Namespace, hollow_node: Object, images: Images, timeouts: Timeouts
) -> None:
    """A claim MUST be given devices with the attributes that it selects, and alike in those in which they have to be.

    Of three devices the first is red, and the others are blue.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#resourceclaims-templates
    """
    driver = f"{namespace}.clusterproof.dev"
    colours = {"first": "red", "second": "blue", "third": "blue"}
    cluster.create(_device_class(namespace.name, driver))
    told = _slice(namespace.name, driver, hollow_node)
    told["spec"]["devices"] = [{"name": name, "attributes": {"colour": {"string": of}}} for name, of in colours.items()]
    cluster.create(told)
    blue = {"cel": {"expression": f"device.attributes['{driver}'].colour == 'blue'"}}
    of_class: dict[str, Any] = {"deviceClassName": namespace.name}
    one, two = {"exactly": {**of_class, "selectors": [blue]}}, {"exactly": {**of_class, "count": 2}}
    alike = _claim("alike", two)
    alike["spec"]["devices"]["constraints"] = [{"matchAttribute": f"{driver}/colour"}]

    for manifest, wanted in ((_claim("blue", one), {"second"}), (alike, {"second", "third"})):
        claim = namespace.create(manifest)
        pod = namespace.create(_user(f"uses-{claim.name}", images, claim, hollow_node))
        eventually(pod, placed_on(hollow_node), within=timeouts.object)
        given = {each["device"] for each in claim.read().status["allocation"]["devices"]["results"]}
        assert given == wanted, f"{claim} was given {sorted(given)} of {colours}, not {sorted(wanted)}"
        hollow.end(pod)
        claim.delete()


def _only_device(cluster: Cluster, namespace: Namespace, node: Object) -> tuple[Object, Object]:
    """A node's only device: the template of claims to it, and what its driver tells of it."""
    driver = f"{namespace}.clusterproof.dev"
    made = _device_class(namespace.name, driver)
    if cluster.claim(capabilities.EXTENDED_RESOURCES).supported:
        made["spec"]["extendedResourceName"] = _resource(namespace.name)
    cluster.create(made)
    told = cluster.create(_slice(namespace.name, driver, node))
    return namespace.create(_template(namespace.name)), told


def _claim(name: str, request: dict[str, Any]) -> dict[str, Any]:
    """A claim to the device that a request asks for."""
    return {
        "apiVersion": kinds.RESOURCE_CLAIM.api_version,
        "kind": kinds.RESOURCE_CLAIM.kind,
        "metadata": {"name": name},
        "spec": {"devices": {"requests": [{"name": DEVICE, **request}]}},
    }


def _user(name: str, images: Images, claim: Object, node: Object) -> dict[str, Any]:
    """A held pod with a claim, or with one as a template describes it, for a node that runs nothing."""
    return _pod(name, images, claim, spec={"tolerations": hollow.pods_on(node)["tolerations"]})


def _template(device_class: str) -> dict[str, Any]:
    """The template `device`, of a claim to one device of a class."""
    request = {"name": DEVICE, "exactly": {"deviceClassName": device_class}}
    return {
        "apiVersion": kinds.RESOURCE_CLAIM_TEMPLATE.api_version,
        "kind": kinds.RESOURCE_CLAIM_TEMPLATE.kind,
        "metadata": {"name": "device"},
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }


def _resource(device_class: str) -> str:
    """The extended resource that is a device of a class."""
    return f"{device_class}.clusterproof.dev/device"


def _device_class(name: str, driver: str) -> dict[str, Any]:
    """The class of all devices of a driver."""
    return {
        "apiVersion": kinds.DEVICE_CLASS.api_version,
        "kind": kinds.DEVICE_CLASS.kind,
        "metadata": {"name": name},
        "spec": {"selectors": [{"cel": {"expression": f"device.driver == '{driver}'"}}]},
    }


def _slice(name: str, driver: str, node: Object) -> dict[str, Any]:
    """What a driver tells of a node that has one device."""
    return {
        "apiVersion": kinds.RESOURCE_SLICE.api_version,
        "kind": kinds.RESOURCE_SLICE.kind,
        "metadata": {"name": name},
        "spec": {
            "driver": driver,
            "nodeName": node.name,
            "pool": {"name": node.name, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": DEVICE}],
        },
    }


def _pod(name: str, images: Images, claim: Object, *, spec: dict[str, Any]) -> dict[str, Any]:
    """A held pod with a claim, or with one as a template describes it."""
    by = "resourceClaimTemplateName" if claim.kind is kinds.RESOURCE_CLAIM_TEMPLATE else "resourceClaimName"
    claims = {"resourceClaims": [{"name": "device", by: claim.name}]}
    uses = {"claims": [{"name": "device"}]}
    return manifests.pod(name, images.agnhost, resources=uses, spec={**claims, **spec}, **manifests.HELD)


def _claim_of(pod: Object, timeouts: Timeouts) -> str:
    """Name of the claim that was made for a pod, as soon as its status tells."""
    eventually(pod, _has_claim, within=timeouts.object)
    return str(pod.status["resourceClaimStatuses"][0]["resourceClaimName"])


def _has_claim(pod: Object) -> str | None:
    told = pod.status.get("resourceClaimStatuses") or [{}]
    return None if told[0].get("resourceClaimName") else "its status names no ResourceClaim"


def _is_allocated(driver: str, node: Object) -> Condition:
    """A claim has the device."""
    wanted = [(driver, node.name, DEVICE)]

    def allocated(claim: Object) -> str | None:
        results = ((claim.status.get("allocation") or {}).get("devices") or {}).get("results") or []
        given = [(each["driver"], each["pool"], each["device"]) for each in results]
        return None if given == wanted else f"it was given {given or 'no device'}"

    allocated.__name__ = f"is given the device {DEVICE} of {node}"
    return allocated
