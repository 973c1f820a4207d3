"""Checks of the network, from a pod on each node: every other node's pod, the Service, and its name."""

from __future__ import annotations

from collections.abc import Iterator

from clusterproof import inside
from clusterproof.conditions import equals
from clusterproof.errors import ApiError, NeverHappened, SurroundingsError
from clusterproof.objects import Object
from clusterproof.wait import eventually

from . import vantage
from .context import PATIENCE, Context
from .verdict import Check, check

MOST = 20
"""Nodes between which every way is tried; of a larger cluster, the first ones by name."""


def ways(context: Context) -> list[Check]:
    """From every node, pods on every node, the Service and its name are reached."""
    pods = vantage.pods(context.client, context.before)[:MOST]
    problems = [problem for pod in pods for problem in _from(context, pod, pods)]
    if not pods:
        problems = ["there is no pod to look from"]
    return [check("network/ways", problems, f"pods on {len(pods)} nodes reach each other, the Service and its name")]


def _from(context: Context, pod: Object, pods: list[Object]) -> Iterator[str]:
    host = inside.in_url(context.before.service)
    asked = {f"http://{_address(other)}:{vantage.PORT}/hostname": f"the pod on {_node(other)}" for other in pods}
    asked[f"http://{host}/hostname"] = f"the Service web at {context.before.service}"
    asked[f"http://web.{context.before.namespace}.svc/hostname"] = "the Service web by its name"

    def failing() -> dict[str, str]:
        answers = inside.fetch(pod, asked)
        return {
            asked[url]: next(iter(said), "nothing")
            for url, said in answers.items()
            if not said or any(answer.startswith("curl: ") for answer in said)
        }

    failing.__name__ = "ways"
    lost: dict[str, str] = {}
    try:
        eventually(failing, equals({}), within=min(PATIENCE, context.left))
    except NeverHappened:
        lost = failing()
    except (ApiError, SurroundingsError) as error:
        yield f"from {_node(pod)} nothing can be asked: {error}"
    for what, said in lost.items():
        yield f"from {_node(pod)}, {what} is not reached: {said}"


def _node(pod: Object) -> str:
    return str(pod.spec["nodeName"])


def _address(pod: Object) -> str:
    return inside.in_url(str(pod.status.get("podIP", "")))
