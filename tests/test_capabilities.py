"""What counts as a claim to a capability, judged by what a cluster tells of itself."""

from __future__ import annotations

from typing import Any

import pytest

from clusterproof import capabilities
from clusterproof.capabilities import Survey
from clusterproof.client import Client
from clusterproof.namespace import RUN_LABEL

from .fake_api import FakeApi


def node(name: str, *handlers: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {}, "status": {"runtimeHandlers": list(handlers)}}


def kubelet(name: str, minor: int, os: str = "linux") -> dict[str, Any]:
    metadata = {"name": name, "labels": {"kubernetes.io/os": os}}
    return {"metadata": metadata, "spec": {}, "status": {"nodeInfo": {"kubeletVersion": f"v1.{minor}.2"}}}


CAPABLE = {"name": "", "features": {"userNamespaces": True}}
INCAPABLE = {"name": "", "features": {"userNamespaces": False}}
SPECIAL = {"name": "special", "features": {"userNamespaces": True}}


@pytest.mark.parametrize(
    ("nodes", "found", "evidence"),
    [
        ([node("a", CAPABLE), node("b", SPECIAL, CAPABLE)], True, "of every node"),
        ([node("a", CAPABLE), node("b", INCAPABLE, SPECIAL)], False, "default runtime of b does not tell"),
        ([node("a")], False, "default runtime of a does not tell"),
    ],
)
def test_user_namespaces_are_claimed_by_the_runtimes(
    client: Client, nodes: list[dict[str, Any]], found: bool, evidence: str
) -> None:
    survey = Survey(client)
    survey.__dict__["nodes"] = nodes

    finding = capabilities.USERNS.detect(survey)

    assert finding.found is found
    assert evidence in finding.evidence


@pytest.mark.parametrize(
    ("spec", "labels", "found"),
    [
        ({"rules": [{"host": "shop.example"}]}, {}, True),
        ({"rules": [{"host": "shop.example"}, {"http": {}}]}, {}, False),
        ({"defaultBackend": {"service": {"name": "shop"}}}, {}, False),
        ({"defaultBackend": {"service": {"name": "rest"}}}, {RUN_LABEL: "a-run-before"}, True),
    ],
)
def test_a_default_backend_can_be_had_where_nobody_has_it(
    client: Client, spec: dict[str, Any], labels: dict[str, str], found: bool
) -> None:
    survey = Survey(client)
    survey.__dict__["ingress_classes"] = [{"metadata": {"name": "class"}}]
    survey.__dict__["ingresses"] = [{"metadata": {"namespace": "ns", "name": "shop", "labels": labels}, "spec": spec}]

    finding = capabilities.INGRESS_DEFAULT_BACKEND.detect(survey)

    assert finding.found is found
    assert ("Ingress ns/shop serves the hosts" in finding.evidence) is not found


@pytest.mark.parametrize(
    ("provider_id", "labels", "found"),
    [
        ("aws:///eu-west-1a/i-1", {"topology.kubernetes.io/region": "eu-west-1"}, True),
        ("kind://docker/kind/kind-worker", {}, False),
        ("", {"topology.kubernetes.io/region": "cellar"}, False),
    ],
)
def test_a_cloud_is_claimed_by_an_instance_in_a_region(
    client: Client, provider_id: str, labels: dict[str, str], found: bool
) -> None:
    survey = Survey(client)
    seen = {"metadata": {"name": "b", "labels": labels}, "spec": {"providerID": provider_id}}
    survey.__dict__["nodes"] = [node("a"), seen]

    finding = capabilities.CLOUD_NODES.detect(survey)

    assert finding.found is found
    assert finding.evidence == f"{'b has' if found else 'no node has'} an instance and a region"


@pytest.mark.parametrize(
    ("modes", "resizes", "evidence"),
    [
        (["Off", "Recreate", "InPlaceOrRecreate"], True, "found mode InPlaceOrRecreate"),
        (["Off", "Recreate"], True, "no mode InPlaceOrRecreate"),
        (["Off", "Recreate", "InPlaceOrRecreate"], False, "no subresource resize"),
    ],
)
def test_autoscaling_in_place_is_claimed_by_the_schema(
    api: FakeApi, client: Client, modes: list[str], resizes: bool, evidence: str
) -> None:
    def answer(handler: Any) -> bool:
        handler.answer(200, {"enum": modes})
        return True

    survey = Survey(client)
    pods = {"resource": "pods", "subresources": [{"subresource": "resize"}] if resizes else []}
    survey.__dict__["served"] = [
        {"metadata": {"name": group}, "versions": [{"version": "v1", "resources": resources}]}
        for group, resources in (("", [pods]), ("autoscaling.k8s.io", []))
    ]
    survey.__dict__["nodes"] = [kubelet("a", 37)]
    api.overrides["GET /openapi/v3/apis/autoscaling.k8s.io/v1"] = answer

    finding = capabilities.VPA_IN_PLACE.detect(survey)

    assert finding.found is evidence.startswith("found")
    assert evidence in finding.evidence


@pytest.mark.parametrize(
    ("nodes", "evidence"),
    [
        ([kubelet("a", 37), kubelet("b", 33)], "found subresource resize of pods"),
        ([kubelet("a", 37), kubelet("b", 32)], "found subresource resize of pods, but a kubelet before 1.33 on b"),
        ([kubelet("a", 37), kubelet("b", 32, os="windows")], "found subresource resize of pods"),
    ],
)
def test_pods_are_resized_where_every_kubelet_can(client: Client, nodes: list[dict[str, Any]], evidence: str) -> None:
    survey = Survey(client)
    pods = {"resource": "pods", "subresources": [{"subresource": "resize"}]}
    survey.__dict__["served"] = [{"metadata": {}, "versions": [{"version": "v1", "resources": [pods]}]}]
    survey.__dict__["nodes"] = nodes

    finding = capabilities.RESIZE.detect(survey)

    assert finding == capabilities.Finding("before" not in evidence, evidence)


@pytest.mark.parametrize(("minor", "found"), [(36, False), (37, True)])
def test_bundles_of_trust_are_mounted_where_every_kubelet_can(client: Client, minor: int, found: bool) -> None:
    survey = Survey(client)
    bundles = {"version": "v1", "resources": [{"resource": "clustertrustbundles"}]}
    survey.__dict__["served"] = [{"metadata": {"name": "certificates.k8s.io"}, "versions": [bundles]}]
    survey.__dict__["nodes"] = [kubelet("a", 37), kubelet("b", minor)]

    finding = capabilities.TRUST_BUNDLES.detect(survey)

    assert finding.found is found, finding.evidence


@pytest.mark.parametrize(
    ("version", "minor", "found"), [("v1.36.2", 36, False), ("v1.37.2", 35, True), ("v1.37.2", 34, False)]
)
def test_pods_are_named_otherwise_where_every_kubelet_can(
    client: Client, version: str, minor: int, found: bool
) -> None:
    survey = Survey(client)
    survey.__dict__["version"] = version
    survey.__dict__["nodes"] = [kubelet("a", 37), kubelet("b", minor)]

    finding = capabilities.HOSTNAME_OVERRIDE.detect(survey)

    assert finding.found is found, finding.evidence


@pytest.mark.parametrize(
    ("runtime", "evidence"),
    [
        ("containerd://2.1.0", "version v1.37.2 is of 1.36 or later"),
        ("containerd://v2.4.2", "version v1.37.2 is of 1.36 or later"),
        ("containerd://1.7.27", "not known to mount images: containerd://1.7.27 on b"),
        ("cri-o://1.36.1", "version v1.37.2 is of 1.36 or later"),
        ("other://9.9", "not known to mount images: other://9.9 on b"),
        ("", "not known to mount images: an unknown container runtime on b"),
    ],
)
def test_images_are_volumes_where_every_runtime_mounts_them(client: Client, runtime: str, evidence: str) -> None:
    survey = Survey(client)
    survey.__dict__["version"] = "v1.37.2"
    survey.__dict__["nodes"] = [kubelet("a", 37), kubelet("b", 35), kubelet("c", 37, os="windows")]
    for node, version in zip(survey.nodes, ("containerd://2.4.2", runtime), strict=False):
        node["status"]["nodeInfo"]["containerRuntimeVersion"] = version

    finding = capabilities.IMAGE_VOLUMES.detect(survey)

    assert finding == capabilities.Finding("not known" not in evidence, evidence)


def test_policies_of_groups_count_where_every_node_tells_of_them(client: Client) -> None:
    survey = Survey(client)
    knowing, other = kubelet("a", 37), kubelet("b", 37)
    knowing["status"]["features"] = {"supplementalGroupsPolicy": True}
    survey.__dict__["nodes"] = [knowing, kubelet("c", 37, os="windows")]
    assert capabilities.GROUPS_POLICY.detect(survey).found
    survey.__dict__["nodes"].append(other)
    assert capabilities.GROUPS_POLICY.detect(survey).evidence == "b does not tell of supplementalGroupsPolicy"


def test_there_are_several_nodes_where_linux_runs_on_several(client: Client) -> None:
    survey = Survey(client)
    survey.__dict__["nodes"] = [kubelet("a", 37), kubelet("b", 37, os="windows")]
    assert not capabilities.SEVERAL_NODES.detect(survey).found
    survey.__dict__["nodes"].append(kubelet("c", 37))
    assert capabilities.SEVERAL_NODES.detect(survey).found


DISKS = {"metadata": {"name": "disks"}, "provisioner": "disks.example", "allowVolumeExpansion": True}
FOLDERS = {"metadata": {"name": "folders"}, "provisioner": "folders.example"}


@pytest.mark.parametrize(
    ("capability", "drivers", "takers", "found"),
    [
        (capabilities.VOLUME_EXPANSION, ["disks.example"], [], True),
        (capabilities.VOLUME_EXPANSION, [], [], False),
        (capabilities.VOLUME_ATTACHMENT, ["disks.example"], [], True),
        (capabilities.VOLUME_ATTACHMENT, ["other.example"], [], False),
        (capabilities.VOLUME_SNAPSHOTS, [], ["disks.example"], True),
        (capabilities.VOLUME_SNAPSHOTS, ["disks.example"], ["other.example"], False),
    ],
)
def test_what_volumes_can_do_is_claimed_by_the_class_that_makes_them(
    client: Client, capability: capabilities.Capability, drivers: list[str], takers: list[str], found: bool
) -> None:
    survey = Survey(client)
    survey.__dict__["storage_classes"] = [FOLDERS, DISKS]
    survey.__dict__["csi_drivers"] = [{"metadata": {"name": name}, "spec": {}} for name in drivers]
    survey.__dict__["snapshot_classes"] = [{"metadata": {"name": "taker"}, "driver": name} for name in takers]

    finding = capability.detect(survey)

    assert finding.found is found
    assert finding.evidence.startswith("found" if found else "no StorageClass of volumes")
    assert ("disks" in finding.evidence, "folders" in finding.evidence) == (found, False)


def test_what_no_driver_tells_is_claimed_by_the_label_of_a_class(client: Client) -> None:
    survey = Survey(client)
    label = f"{capabilities.CLAIM}{capabilities.VOLUME_SHARING}"
    files = {"metadata": {"name": "files", "labels": {label: "true"}}, "provisioner": "files.example"}
    denying = {"metadata": {"name": "denying", "labels": {label: "false"}}, "provisioner": "files.example"}
    survey.__dict__["storage_classes"] = [DISKS, denying, files]

    shared, block = capabilities.VOLUME_SHARING.detect(survey), capabilities.VOLUME_BLOCK.detect(survey)

    assert shared == (True, "found StorageClass with the label clusterproof.dev/storage.shared: files")
    assert block == (False, "no StorageClass with the label clusterproof.dev/storage.block")


def test_the_default_class_comes_first_among_those_of_drivers() -> None:
    usual = {**DISKS, "metadata": {"name": "usual", "annotations": {capabilities.DEFAULT_STORAGE_CLASS: "true"}}}

    assert capabilities.made_by(["disks.example"], [FOLDERS, DISKS, usual]) == [usual, DISKS]


def test_a_driver_that_attaches_nothing_says_so() -> None:
    drivers = [{"metadata": {"name": str(needed)}, "spec": {"attachRequired": needed}} for needed in (True, False)]

    assert capabilities.attaching(drivers) == ["True"]


@pytest.mark.parametrize(("defaults", "found"), [([], False), (["a"], True), (["a", "b"], True)])
def test_a_default_class_is_claimed_also_where_there_are_several(
    client: Client, defaults: list[str], found: bool
) -> None:
    marked = {capabilities.DEFAULT_INGRESS_CLASS: "true"}
    survey = Survey(client)
    survey.__dict__["ingress_classes"] = [
        {"metadata": {"name": name, "annotations": marked if name in defaults else {}}} for name in ("a", "b", "c")
    ]

    finding = capabilities.INGRESS_DEFAULT_CLASS.detect(survey)

    assert finding == (found, f"found default IngressClass {', '.join(defaults)}" if found else finding.evidence)


@pytest.mark.parametrize(
    ("version", "found"), [("v1.34.9-gke.1", False), ("v1.35.0+k3s1", True), ("v1.100.0", True), ("none", False)]
)
def test_what_a_version_does_is_claimed_from_it_on(client: Client, version: str, found: bool) -> None:
    survey = Survey(client)
    survey.__dict__["version"] = version

    finding = capabilities.TRAFFIC_DISTRIBUTION.detect(survey)

    assert finding.found is found
    assert version in finding.evidence
