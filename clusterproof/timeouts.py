"""How long a sound cluster may take for each thing."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, each the most that a sound cluster may need. No success is ever required to be slow."""

    request: float = 15.0
    """One answer of the API server, or one look-up or web request inside the cluster."""
    propagation: float = 15.0
    """A change in the API to take effect where it is carried out: a Service's endpoints, a permission."""
    object: float = 20.0
    """A controller to react to an object: create what it owns, set its status, remove what is orphaned."""
    pod: float = 60.0
    """A created pod to be Ready, its image present on the node or quick to pull."""
    pod_end: float = 45.0
    """A deleted pod to be gone, its grace period of one second included."""
    rollout: float = 120.0
    """A workload of up to six pods to run a new template everywhere."""
    job: float = 90.0
    """A Job of a few short pods to end."""
    cron: float = 90.0
    """A schedule of once a minute to start its next Job."""
    volume: float = 60.0
    """A claim to get its volume, or a node a volume, or to be rid of it."""
    expansion: float = 180.0
    """A volume that is in use to become larger: some clouds take minutes for it."""
    volume_end: float = 300.0
    """A volume whose claim was deleted to be gone: clouds refuse to while it is attached, and are asked again later."""
    snapshot: float = 300.0
    """A snapshot to be ready to use, or a volume that begins as a copy: clouds copy at a distance."""
    namespace: float = 180.0
    """A deleted namespace with its content to be gone, behind those of all other promises in the queue."""
    definition: float = 20.0
    """A CustomResourceDefinition to be Established and served."""
    certificate: float = 60.0
    """A Certificate to be issued by an authority in the cluster, or renewed when that is due."""
    ingress: float = 90.0
    """An ingress controller or a gateway to serve what it is told to, and to tell where: some look once a minute."""
    balancer: float = 300.0
    """A load balancer to be there, to follow a change or to be gone: clouds take minutes."""
    metrics: float = 90.0
    """Resource metrics of a new pod to be served."""
    scale: float = 180.0
    """A HorizontalPodAutoscaler to follow a change of load by one step."""
    recommendation: float = 240.0
    """A VerticalPodAutoscaler to recommend what fits a change: every minute it reads metrics, which may be as old."""
    vertical: float = 180.0
    """An updater, which looks once a minute, to give a running pod what is recommended, or a successor that has it."""
    recovery: float = 60.0
    """What was deleted or has crashed to be replaced and Ready."""
    node_loss: float = 120.0
    """A node of which nothing is heard to be known as lost; the default grace period is 50 s."""
    eviction: float = 150.0
    """A kubelet to end a pod that uses more than it may: it measures volumes only every minute or two."""
    node_up: float = 600.0
    """An autoscaler to add a node for pods that fit nowhere, and these to be Ready there: clouds start a machine."""
    node_down: float = 1200.0
    """An autoscaler to take an idle node away: by default the Cluster Autoscaler waits for ten minutes before."""

    steady: float = 5.0
    """Not a limit: how long something is watched that has to stay as it is."""

    def scaled(self, factor: float) -> Timeouts:
        """Every budget times a factor."""
        return Timeouts(**{each.name: getattr(self, each.name) * factor for each in fields(self)})
