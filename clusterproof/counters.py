"""What an API server counts of what it is asked: its metrics, in the text format of Prometheus.

Where there are several API servers, each of them counts for itself.

Source: https://kubernetes.io/docs/reference/instrumentation/metrics/
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from clusterproof.client import Client

Series = tuple[dict[str, str], float]
"""Labels, and what was counted with them."""


def series(client: Client, name: str) -> Iterator[Series]:
    """What the answering server has counted under this name; ApiError where the user may not read that."""
    for labels, value in re.findall(rf"^{name}\{{(.*)\}} (\S+)", client.get_text("/metrics"), re.MULTILINE):
        yield dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)


def total(client: Client, name: str, **labels: str) -> float:
    """How often something was counted with these labels, whatever its others are."""
    return sum(value for found, value in series(client, name) if labels.items() <= found.items())
