"""ReplicationController: what ReplicaSets came from; clusters still have to run those that there are."""

from __future__ import annotations

from clusterproof import Images, Namespace, Timeouts, eventually, manifests
from clusterproof.conditions import gone, settled


def test_scale(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A ReplicationController MUST have exactly as many pods as it asks for, whether they are too few or too many.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller/
    """
    web = namespace.create(manifests.replication_controller("web", images.agnhost, replicas=2, spec=manifests.PARKED))
    victim, other = eventually(web.pods(), settled(2), within=timeouts.object)

    victim.delete()
    eventually(victim, gone, within=timeouts.object)
    pods = eventually(web.pods(), settled(2), within=timeouts.object)
    assert other.uid in {pod.uid for pod in pods}, f"{other} was replaced although only {victim} was deleted"
    web.scale(1)
    eventually(web.pods(), settled(1), within=timeouts.object)
