"""Dynamic volumes on the nodes' own disks: local-path-provisioner, as the default StorageClass."""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from clusterproof import kinds

from ... import images
from ...builder import Artifacts
from ...state import ClusterState
from .. import Addon, Manifest
from ..manifests import container, of_kind, read


def _manifests(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Manifest]:
    found = read(artifacts.source("local-path-provisioner") / "deploy/local-path-storage.yaml")
    deployment = of_kind(found, "Deployment")
    container(deployment, "local-path-provisioner")["image"] = images.REFERENCES["local-path-provisioner"]
    annotations = of_kind(found, "StorageClass")["metadata"].setdefault("annotations", {})
    annotations["storageclass.kubernetes.io/is-default-class"] = "true"
    settings = of_kind(found, "ConfigMap")["data"]
    helper = yaml.safe_load(settings["helperPod.yaml"])
    (program,) = helper["spec"]["containers"]
    program["image"] = images.REFERENCES["busybox"]
    helper["spec"]["terminationGracePeriodSeconds"] = 0
    settings["helperPod.yaml"] = yaml.safe_dump(helper)
    return found


ADDON = Addon(
    name="storage",
    images=("local-path-provisioner", "busybox"),
    capabilities=("storage.dynamic",),
    manifests=_manifests,
    workloads=((kinds.DEPLOYMENT, "local-path-storage", "local-path-provisioner"),),
)
