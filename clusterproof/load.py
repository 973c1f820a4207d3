"""A known load: a container that burns the CPU share and holds the memory that it is told to, and accounts for it.

What it spent is read from its own cgroup, so it is the truth that metrics are compared to, however busy the node is.
The pod needs bash, as in agnhost's image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from clusterproof.errors import SurroundingsError
from clusterproof.objects import Object

_UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0}
_UNITS |= {unit: 1000.0**power for power, unit in enumerate("kMGTPE", 1)}
_UNITS |= {f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", 1)}

# Burns in pieces of some milliseconds until its cgroup has the share of CPU time that was asked for since the last
# change; what a busy node kept from it for more than half a second is not made up for. A read from a pipe that nobody
# writes to is a sleep that starts no process. Once a second it prints the time and the CPU time spent, in microseconds.
# A container runs before its script does anything: what it has been told by then is not overwritten (set -C).
_SCRIPT = r"""
mkfifo /tmp/never; exec 3<> /tmp/never
spent() {
    if [ -e /sys/fs/cgroup/cpu.stat ]; then read -r _ spent < /sys/fs/cgroup/cpu.stat
    else read -r spent < /sys/fs/cgroup/cpuacct/cpuacct.usage; spent=$((spent / 1000)); fi
}
spent; echo "${EPOCHREALTIME/[.,]/} $spent"
{ set -C; echo "$1" > /tmp/share; dd if=/dev/zero bs=1M count="$2" > /dev/shm/held; set +C; } 2> /dev/null
while :; do
    now=${EPOCHREALTIME/[.,]/}; spent; read -r share < /tmp/share
    if [ "$share" != "$burning" ]; then burning=$share since=$now base=$spent; fi
    owed=$(((now - since) * burning / 1000 - (spent - base)))
    if ((owed > burning * 500)); then base=$((base - owed + burning * 500)); fi
    if ((now >= next)); then echo "$now $spent"; next=$((now + 1000000)); fi
    if ((owed > 0)); then for ((i = 0; i < 1000; i++)); do :; done; else read -rt 0.2 <&3; fi
done
"""


LONGEST = 600.0
"""Seconds of the longest time for a metric to be about that is waited for."""


def window(metric: Object) -> float:
    """Seconds of the time that a metric is about; Go writes them as `10.012s` or `1m0s`."""
    parts = re.findall(r"([\d.]+)(ms|h|m|s)", metric["window"])
    return sum(float(number) * {"h": 3600, "m": 60, "s": 1, "ms": 0.001}[unit] for number, unit in parts)


def patience(metrics: Iterable[Object], within: float) -> float:
    """Seconds for what follows metrics, which may be about minutes: a new pod's count only after that."""
    return within + 2 * min(LONGEST, max(map(window, metrics), default=0.0))


def command(millicores: int = 0, *, megabytes: int = 0) -> list[str]:
    """The command of a container that begins with this load; for `pod_spec(command=...)`."""
    return ["bash", "-c", _SCRIPT, "load", str(millicores), str(megabytes)]


def burn(pod: Object, millicores: int) -> None:
    """Change what a running container burns; it follows within a second."""
    result = pod.exec(["sh", "-c", f"echo {millicores} > /tmp/share"])
    assert result.code == 0, f"{pod}: cannot change its load: {result.stderr}"


def hold(pod: Object, megabytes: int, *, container: str = "") -> None:
    """Change how much memory a running container holds; of several in a pod, the one of this name."""
    script = f"rm -f /dev/shm/held; dd if=/dev/zero of=/dev/shm/held bs=1M count={megabytes} 2>&1"
    result = pod.exec(["sh", "-c", script], container=container)
    assert result.code == 0, f"{pod}: cannot change its load: {result.stdout}"


class Account(NamedTuple):
    """What a container had spent at one moment, by its node's clock."""

    at: float
    """Seconds since the epoch."""
    spent: float
    """Seconds of CPU time since it started."""


def account(pod: Object, container: str = "") -> list[Account]:
    """What a container spent so far, about once a second; it needs a name where the pod has several."""
    lines = (line.split() for line in pod.logs(container=container).splitlines())
    return [Account(int(at) / 1e6, int(spent) / 1e6) for at, spent in lines]


def cores(account: Iterable[Account], start: float, end: float) -> float | None:
    """CPU seconds per second between two moments; None when the account does not cover them."""
    known = list(account)
    # The first line is printed a moment after the container's start.
    if not known or start < known[0].at - 2 or end > known[-1].at:
        return None
    return (_spent(known, end) - _spent(known, start)) / (end - start)


@contextmanager
def needed(pod: Object, millicores: int, container: str = "") -> Iterator[None]:
    """What fails in the block proves nothing when the node was too busy to let a container burn what it should.

    Then the failure becomes a SurroundingsError.
    """
    try:
        yield
    except AssertionError as failure:
        known = account(pod, container)
        burnt = cores(known, max(known[0].at, known[-1].at - 30), known[-1].at) if len(known) > 1 else None
        if burnt is None or burnt >= 0.9 * millicores / 1000:
            raise
        node = pod.spec.get("nodeName")
        raise SurroundingsError(
            f"{node} is too busy: {pod} should burn {millicores}m of CPU and burnt {burnt * 1000:.0f}m, so it proves "
            f"nothing that {failure}"
        ) from failure


def quantity(text: str) -> float:
    """A quantity of the API as a number: `250m` is 0.25, `1Ki` is 1024."""
    digits = text.rstrip("numkKMGTPEi")
    return float(digits) * _UNITS[text[len(digits) :]]


def _spent(known: list[Account], at: float) -> float:
    """What was spent at a moment in between, in proportion to the time."""
    later = next(index for index, each in enumerate(known) if each.at >= at)
    if later == 0:
        return 0.0
    before, after = known[later - 1], known[later]
    return before.spent + (after.spent - before.spent) * (at - before.at) / (after.at - before.at)
