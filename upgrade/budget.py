"""How long each kind of request may go unanswered in all during an upgrade, and whether it did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from .timeline import OBSERVER, Outage, Seen
from .verdict import SKIPPED, Check, check

DEFAULT = {"api": 60.0, "watch": 75.0, "service": 5.0, "dns": 5.0, "ingress": 10.0, "balancer": 10.0}
"""Seconds. The API server of a cluster with one control plane node is away while it is replaced; an application with
two replicas, readiness and a graceful end is not."""
FAMILIES = tuple(DEFAULT)


def parse(text: str) -> dict[str, float]:
    """Seconds by family of `10`, for all, or `api=60,service=2`, the rest by default; ValueError says what is wrong."""
    budget = dict(DEFAULT)
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, equals, value = part.rpartition("=")
        try:
            seconds = float(value)
        except ValueError:
            raise ValueError(f"{part!r}: a number of seconds is expected") from None
        if not seconds >= 0:
            raise ValueError(f"{part!r}: seconds cannot be negative")
        if equals and name not in FAMILIES:
            raise ValueError(f"{part!r}: there is no {name!r}; choose from {', '.join(FAMILIES)}")
        budget.update({name: seconds} if equals else dict.fromkeys(FAMILIES, seconds))
    return budget


def disruption(seen: Iterable[Seen], budget: Mapping[str, float]) -> list[Check]:
    """For each family, whether any client went without answers for longer than its budget, all outages together."""
    clients = list(seen)
    return [_family(name, [each for each in clients if each.family == name], budget[name]) for name in FAMILIES]


def _family(name: str, clients: list[Seen], seconds: float) -> Check:
    id = f"disruption/{name}"
    if not any(each.requests for each in clients):
        return Check(id, SKIPPED, ("nobody looked: no monitor ran, and no pod's log could be read",))
    over = [_told(each, seconds) for each in clients if each.disruption > seconds]
    worst = max(clients, key=lambda each: each.disruption)
    excused = max(sum(each.seconds for each in one.excused) for one in clients)
    kept = f"at most {worst.disruption:.1f} s of {seconds:g} s, longest gap {worst.longest_gap:.1f} s"
    kept += f" ({worst.probe}, {_from(worst)})" if worst.disruption else ""
    kept += f"; {excused:.1f} s were the observer's own network" if excused else ""
    return check(id, over, kept)


def _told(client: Seen, seconds: float) -> str:
    longest = max(client.outages, key=lambda each: each.seconds)
    return (
        f"{client.probe}, {_from(client)}: no answers for {client.disruption:.1f} s in {len(client.outages)} outages, "
        f"budget {seconds:g} s; the longest {_described(longest)}"
    )


def _from(client: Seen) -> str:
    return "seen from outside" if client.vantage == OBSERVER else f"seen from {client.vantage}"


def _described(outage: Outage) -> str:
    clock = datetime.fromtimestamp(outage.start, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"{outage.seconds:.1f} s from {clock}: {outage.error}"
