"""Checks of the cluster as a whole: nodes, versions, what the API serves, addresses of Services, restarts."""

from __future__ import annotations

from typing import Any

from . import surface
from .context import Context
from .surface import plain
from .verdict import Check, check


def nodes(context: Context, expected: str) -> list[Check]:
    """Every node runs the expected version, is Ready, and takes pods if it did before."""
    server = str(context.client.get("/version")["gitVersion"])
    wanted = plain(expected or server)
    now = surface.nodes(context.client)
    behind = [
        f"Node {name} is left behind at {node['version']}; "
        + (f"{expected} is expected" if expected else f"the API server runs {server}")
        for name, node in now.items()
        if plain(node["version"]) != wanted
    ]
    if plain(server) != wanted:
        behind.insert(0, f"the API server runs {server}; {expected} is expected")
    closed = [f"Node {name} is not Ready" for name, node in now.items() if not node["ready"]]
    closed += [
        f"Node {name} still takes no pods (it is cordoned), which it did before"
        for name, node in now.items()
        if node["unschedulable"] and not context.before.nodes.get(name, {}).get("unschedulable")
    ]
    gone, new = set(context.before.nodes) - set(now), set(now) - set(context.before.nodes)
    context.told += [f"Node {name} is gone" for name in sorted(gone)] + [f"Node {name} is new" for name in sorted(new)]
    return [
        check("nodes/version", behind, f"all {len(now)} nodes run {wanted}"),
        check("nodes/ready", closed, f"all {len(now)} nodes are Ready and take pods as before"),
    ]


def served(context: Context) -> list[Check]:
    """What the API serves: versions that definitions and other servers brought are still there."""
    before, now = set(context.before.surface), set(surface.surface(context.client))
    foreign = set(context.before.foreign_groups)
    lost = sorted(before - now)
    dropped = [each for each in lost if _group(each) in foreign]
    builtin = [each for each in lost if _group(each) not in foreign]
    if builtin:
        context.told.append(f"no longer served by Kubernetes itself: {', '.join(builtin)}")
    if gained := sorted(now - before):
        context.told.append(f"newly served: {', '.join(gained)}")
    problems = [f"{each} is no longer served; it was before the upgrade" for each in dropped]
    return [check("api/surface", problems, f"{len(now)} resources: {len(builtin)} lost, {len(gained)} gained")]


def services(context: Context) -> list[Check]:
    """Every Service that is still there has the addresses it had."""
    now = surface.services(context.client)
    problems = []
    for name, had in context.before.services.items():
        if name not in now:
            context.told.append(f"Service {name} is gone")
            continue
        for what, value in had.items():
            if now[name][what] != value and value:
                has = ", ".join(map(str, now[name][what])) or "none"
                problems.append(f"Service {name}: its {what} were {', '.join(map(str, value))} and are {has}")
    return [check("services/addresses", problems, f"{len(context.before.services)} Services kept their addresses")]


def restarts(context: Context) -> list[Check]:
    """Containers of what was laid down ran on, unless their node was started anew; others' restarts are told."""
    now, nodes = surface.containers(context.client), surface.nodes(context.client)
    problems: list[str] = []
    others: list[str] = []
    moved = 0
    for uid, had in context.before.containers.items():
        mine = had["pod"].startswith(f"{context.before.namespace}/")
        if uid not in now:
            moved += mine
            continue
        more = now[uid]["restarts"] - had["restarts"]
        if more <= 0 or _rebooted(context, nodes, had["node"]):
            continue
        sentence = f"Pod {had['pod']} on {had['node']}: {more} restarts, although its node was not started anew"
        (problems if mine else others).append(sentence)
    context.told += others
    return [check("pods/restarts", problems, f"no container was restarted; pods replaced by others: {moved}")]


def _rebooted(context: Context, nodes: dict[str, dict[str, Any]], name: str) -> bool:
    return name not in nodes or nodes[name]["boot"] != context.before.nodes.get(name, {}).get("boot")


def _group(resource: str) -> str:
    return resource.split("/")[0] if resource.count("/") > 1 else ""
