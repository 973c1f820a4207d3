"""Images: who may have them, and when they are pulled."""

from __future__ import annotations

from typing import Any

import pytest

from clusterproof import Images, Namespace, Object, Timeouts, capabilities, eventually, manifests
from clusterproof.conditions import container_waits, ready
from clusterproof.registry import Registry
from clusterproof.running.proving import Unsupported

pytestmark = pytest.mark.pod_security("privileged")


@pytest.mark.parametrize("named_by", ["pod", "service_account"])
def test_pull_secret(
    namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts, named_by: str
) -> None:
    """A pod MUST get an image that needs credentials by a Secret that it or its service account names, and only so.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/
    """
    registry = Registry(namespace, nodes[0], images, {"safe": "first"}, private=True)
    eventually(registry.pod, ready, within=timeouts.pod)
    secrets = [*namespace.pull_secrets, {"name": "credentials"}]
    namespace.create(registry.secret("credentials"))
    if named_by == "pod":
        named: dict[str, Any] = {"spec": {"imagePullSecrets": secrets}}
    else:
        namespace.create(manifests.service_account("puller") | {"imagePullSecrets": secrets})
        named = {"service_account": "puller"}

    stranger = registry.pod_of("stranger", registry.tagged("safe"))
    eventually(stranger, container_waits("ErrImagePull", "ImagePullBackOff"), within=timeouts.pod)
    guest = registry.pod_of("guest", registry.tagged("safe"), **named)
    eventually(guest, _runs, within=timeouts.pod)


@pytest.mark.requires(capabilities.IMAGE_CREDENTIALS)
def test_pulled_by_others(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """An image that a pod got by its credentials MUST NOT be given to pods of the same node that have none.

    Source: https://kubernetes.io/docs/concepts/containers/images/#ensureimagepullcredentialverification
    """
    node = nodes[0]
    answer = node.client.request("GET", f"{node.path}/proxy/configz")
    known = answer.json()["kubeletconfig"] if answer.status == 200 else {}
    if (policy := known.get("imagePullCredentialsVerificationPolicy", "")) in ("", "NeverVerify"):
        raise Unsupported(f"the kubelet of {node} tells of no policy to verify credentials for images: {policy!r}")
    registry = Registry(namespace, node, images, {"safe": "first"}, private=True)
    eventually(registry.pod, ready, within=timeouts.pod)
    namespace.create(registry.secret("credentials"))
    secrets = [*namespace.pull_secrets, {"name": "credentials"}]

    guest = registry.pod_of("guest", registry.tagged("safe"), spec={"imagePullSecrets": secrets})
    eventually(guest, _runs, within=timeouts.pod)
    stranger = registry.pod_of("stranger", registry.tagged("safe"))

    eventually(stranger, container_waits("ErrImagePull", "ImagePullBackOff"), within=timeouts.pod)


def test_pull_policy(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A pod MUST get what its tag means now, or what the node has already, or nothing new, as its pull policy says.

    Source: https://kubernetes.io/docs/concepts/containers/images/#image-pull-policy
    """
    registry = Registry(namespace, nodes[0], images, {"latest": "first", "next": "second", "unseen": "first"})
    eventually(registry.pod, ready, within=timeouts.pod)
    latest, unseen = registry.tagged("latest"), registry.tagged("unseen")
    first = _image_of(eventually(registry.pod_of("first", latest), _runs, within=timeouts.pod))

    registry.retag("latest", "second")
    frugal = registry.pod_of("frugal", unseen, policy="Never")
    if frugal.spec["containers"][0]["imagePullPolicy"] == "Always":
        raise Unsupported("admission makes Always of Never, as the plugin AlwaysPullImages does")
    content = eventually(registry.pod_of("content", latest), _runs, within=timeouts.pod)
    found = _image_of(content)
    assert found == first, f"{content}: with IfNotPresent it has {found}, and {first} was on its node"
    curious = eventually(registry.pod_of("curious", latest, policy="Always"), _runs, within=timeouts.pod)
    found = _image_of(curious)
    assert found != first, f"{curious}: with Always it has {found}, as before its tag meant another image"
    eventually(frugal, container_waits("ErrImageNeverPull"), within=timeouts.pod)


def test_digest(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A pod that names its image by a digest MUST get that one, whatever its tag has come to mean.

    Source: https://kubernetes.io/docs/concepts/containers/images/#image-names
    """
    registry = Registry(namespace, nodes[0], images, {"latest": "first", "next": "second"})
    eventually(registry.pod, ready, within=timeouts.pod)
    latest = registry.tagged("latest")
    first = _image_of(eventually(registry.pod_of("first", latest), _runs, within=timeouts.pod))
    registry.retag("latest", "second")

    moved = registry.pod_of("moved", latest, policy="Always")
    exact = registry.pod_of("exact", registry.exactly("first"), policy="Always")

    found = _image_of(eventually(exact, _runs, within=timeouts.pod))
    assert found == first, f"{exact} has {found}, and names {first} by its digest"
    assert _image_of(eventually(moved, _runs, within=timeouts.pod)) != first, f"{moved} has what {latest} was before"


def _runs(pod: Object) -> str | None:
    """Its container has been started; that its image cannot be had is what is proven here, not of the surroundings."""
    (status,) = pod.status.get("containerStatuses") or [{}]
    state: dict[str, Any] = status.get("state") or {}
    if "running" in state:
        return None
    waiting = state.get("waiting") or {}
    if "server gave HTTP response to HTTPS client" in (message := waiting.get("message", "")):
        raise Unsupported(f"the runtime of Node {pod.spec['nodeName']} asks registries on localhost by TLS")
    return f"its container waits: {waiting.get('reason')}: {message}" if waiting else "it has not begun"


def _image_of(pod: Object) -> str:
    (known,) = pod.status["containerStatuses"]
    return str(known["imageID"])
