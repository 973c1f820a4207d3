"""ReplicaSet: as many pods as asked for, recognised by their labels."""

from __future__ import annotations

from clusterproof import Images, Namespace, Object, Timeouts, eventually, manifests
from clusterproof.conditions import Condition, gone, settled


def test_adoption(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A ReplicaSet MUST adopt a pod that has its labels and no owner, and release one that loses them.

    An adopted pod counts; a released one goes on without owner, and is replaced.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#non-template-pod-acquisitions
    """
    manifest = manifests.pod("orphan", images.agnhost, labels={"app": "web"}, spec=manifests.PARKED)
    # A controller that hears of it late has one pod too many for a moment, and is to take away another.
    manifest["metadata"]["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": "1000"}
    orphan = namespace.create(manifest)
    web = namespace.create(manifests.replica_set("web", images.agnhost, replicas=2, spec=manifests.PARKED))
    pods = eventually(web.pods(), settled(2), within=timeouts.object)
    assert orphan.uid in {pod.uid for pod in pods}, f"{web} has made two pods instead of adopting {orphan}"
    eventually(orphan, _owned_by(web), within=timeouts.object)

    orphan.patch({"metadata": {"labels": {"app": "free"}}})
    eventually(orphan, _owned_by(None), within=timeouts.object)
    pods = eventually(web.pods(), settled(2), within=timeouts.object)
    strangers = [pod.name for pod in pods if _owner(pod) != web.uid]
    assert not strangers, f"{web}: {', '.join(strangers)} have its labels, but another owner"
    assert orphan.exists(), f"{orphan} is gone although it was only released"


def test_scale(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A ReplicaSet MUST have exactly as many pods as it asks for, whether they are too few, too many or deleted.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#how-a-replicaset-works
    """
    web = namespace.create(manifests.replica_set("web", images.agnhost, replicas=2, spec=manifests.PARKED))
    victim, other = eventually(web.pods(), settled(2), within=timeouts.object)

    victim.delete()
    eventually(victim, gone, within=timeouts.object)
    pods = eventually(web.pods(), settled(2), within=timeouts.object)
    assert other.uid in {pod.uid for pod in pods}, f"{other} was replaced although only {victim} was deleted"
    web.scale(3)
    eventually(web.pods(), settled(3), within=timeouts.object)
    web.scale(1)
    eventually(web.pods(), settled(1), within=timeouts.object)


def _owner(pod: Object) -> str:
    """Uid of its controller; empty when it has none."""
    owners = pod.metadata.get("ownerReferences") or []
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def _owned_by(controller: Object | None) -> Condition:
    wanted = controller.uid if controller else ""

    def owned(pod: Object) -> str | None:
        return None if _owner(pod) == wanted else f"its owners are {pod.metadata.get('ownerReferences')}"

    owned.__name__ = f"belongs to {controller or 'nobody'}"
    return owned
