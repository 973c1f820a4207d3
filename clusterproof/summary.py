"""One line about what was last seen, for failure messages."""

from __future__ import annotations

import json
from typing import Any

from clusterproof.objects import Object

LONGEST = 400
"""Characters of one summary."""


def summary(seen: Any) -> str:
    """What was last seen, short enough for one line of a message."""
    if isinstance(seen, list):
        some = "; ".join(_one(item) for item in seen[:6])
        text = f"{len(seen)}: {some}{'; ...' if len(seen) > 6 else ''}" if seen else "none"
    else:
        text = _one(seen)
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."


def _one(seen: Any) -> str:
    if not isinstance(seen, Object):
        return repr(seen)
    if not seen.raw:
        return f"no {seen}"
    if seen.kind.kind == "Pod":
        return f"{seen.name} {_pod(seen)}"
    status = {key: value for key, value in seen.status.items() if key != "conditions"}
    marks = [f"{c['type']}={c['status']}{_because(c)}" for c in seen.status.get("conditions") or []]
    parts = [json.dumps(status, separators=(",", ":"))] if status else []
    return f"{seen.name} {' '.join(parts + marks)}".strip() + (" (being deleted)" if seen.deleting else "")


def _because(condition: dict[str, Any]) -> str:
    return f" ({condition['reason']})" if condition.get("status") != "True" and condition.get("reason") else ""


def _pod(pod: Object) -> str:
    parts = [pod.status.get("phase", "without status")]
    if node := pod.spec.get("nodeName"):
        parts.append(f"on {node}")
    for container in pod.status.get("containerStatuses") or []:
        for state, details in (container.get("state") or {}).items():
            if state != "running" and details.get("reason"):
                parts.append(f"{container['name']} {details['reason']} {details.get('message', '')}".strip())
        if container.get("restartCount"):
            parts.append(f"{container['restartCount']} restarts")
    scheduled = pod.condition("PodScheduled")
    if scheduled.get("status") == "False":
        parts.append(scheduled.get("message", "not scheduled"))
    elif pod.condition("Ready").get("status") == "True":
        parts.append("ready")
    if pod.deleting:
        parts.append("being deleted")
    return " ".join(parts)
