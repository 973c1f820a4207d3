"""The second vantage point: a pod on each node that asks all the time and keeps its log, to be read afterwards.

It asks what an application asks: a Service by address and by name, the API server, the ingress controller. What it saw
is in its log as intervals, in the form of timeline.py: so it stays small, however long an upgrade takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from clusterproof import inside, kinds, manifests
from clusterproof.client import Client
from clusterproof.errors import ApiError, NeverHappened, SurroundingsError
from clusterproof.objects import Object, Selection
from clusterproof.probes import curl_error

from .folder import Before, Folder
from .timeline import BEAT, FAILING, GOOD, HELD_UP, OBSERVER, UNOBSERVED, Interval

NAME = "vantage"
PORT = 8080
PROBES = {
    "service-new": "service, new connections",
    "service-kept": "service, one kept connection",
    "dns": "dns, by the Service's name",
    "api": "api, new connections",
    "ingress": "ingress, new connections",
}
"""What the lanes of its log are called elsewhere."""

# A lane reads curl's line for each request, `code exit seconds connects message`, and prints intervals: when what it
# sees changes, and every BEAT seconds. Times are microseconds. What came before the first good answer does not count:
# then the pods that are asked were not there yet.
_SCRIPT = r"""
trap 'exit 0' TERM
/agnhost netexec --http-port="$1" & shift
rate=$1 within=$2 beat=$3 held=$4 service=$5 named=$6 ingress=$7 host=$8
case $KUBERNETES_SERVICE_HOST in *:*) api="[$KUBERNETES_SERVICE_HOST]" ;; *) api=$KUBERNETES_SERVICE_HOST ;; esac
lane() {
    local name=$1 limit=$2 state= from=0 end=0 n=0 bad=0 why= code exit took connects message now start is turn
    tell() { echo "$name $from $1 $state $n $bad $why"; }
    while read -r code exit took connects message; do
        now=${EPOCHREALTIME/[.,]/} took=$((10#${took/[.,]/})) is=good
        start=$((now - took))
        if [ "$exit" != 0 ] || ((10#$code >= limit)); then is=failing; fi
        if [ "$name" = dns ]; then case $exit:$message in 6:* | 28:*esolv*) ;; *) is=good ;; esac; fi
        if [ "$end" = 0 ]; then if [ $is = good ]; then echo "$name answered"; else continue; fi; fi
        if ((end && start - end > held)); then
            if ((n)); then tell "$end"; fi
            echo "$name $end $start unobserved 0 0"
            state=
        fi
        if [ -z "$state" ]; then state=$is from=$start n=0 bad=0 why=
        elif [ "$state" != $is ]; then
            if [ $is = failing ]; then turn=$start; else turn=$now; fi
            if ((turn < end)); then turn=$end; fi
            tell "$turn"
            state=$is from=$turn n=0 bad=0 why=
        fi
        n=$((n + 1))
        if [ $is = failing ]; then bad=$((bad + 1)) why=${why:-$exit $code $message}; fi
        if ((now > end)); then end=$now; fi
        if ((end < from)); then end=$from; fi
        if ((end - from >= beat)); then tell "$end"; from=$end n=0 bad=0; fi
    done
}
line='%{stderr}%{http_code} %{exitcode} %{time_total} %{num_connects} %{errormsg}\n'
ask() {
    local name=$1 limit=$2 url=$3; shift 3
    while :; do
        curl --silent --output /dev/null --http1.1 --noproxy '*' --connect-timeout "$within" --max-time "$within" \
            --rate "$rate/s" --write-out "$line" "$@" "$url#[1-1000000]" 2>&1
    done | lane "$name" "$limit" &
}
close=(--header 'Connection: close')
ask service-new 400 "$service" "${close[@]}"
ask service-kept 400 "$service"
ask dns 400 "$named" "${close[@]}"
ask api 500 "https://$api:$KUBERNETES_SERVICE_PORT/version" --insecure "${close[@]}"
if [ "$ingress" ]; then ask ingress 400 "http://$ingress/" --header "Host: $host" "${close[@]}"; fi
wait
"""

WITHIN = 2.0
"""Seconds after which a request without an answer has failed."""


def manifest(before: Before, rate: int) -> dict[str, Any]:
    """The DaemonSet of the pods, which a drain of their node leaves alone."""
    service = f"http://{inside.in_url(before.service)}/"
    times = [str(rate), f"{WITHIN:g}", str(round(BEAT * 1e6)), str(round(HELD_UP * 1e6))]
    asked = [service, f"http://web.{before.namespace}.svc/", before.ingress, before.host]
    return manifests.daemon_set(
        NAME,
        before.image,
        command=["bash", "-c", _SCRIPT, NAME, str(PORT), *times, *asked],
        ports=[PORT],
        readiness=manifests.http_probe(PORT),
        resources={"requests": {"cpu": "10m", "memory": "16Mi"}},
    )


def pods(client: Client, before: Before) -> list[Object]:
    """The pods, by node."""
    found = Selection(client, kinds.POD, before.namespace, labels=f"app={NAME}").read()
    return sorted((pod for pod in found if pod.spec.get("nodeName")), key=lambda pod: str(pod.spec["nodeName"]))


def silent(client: Client, before: Before) -> list[str]:
    """What has not been answered yet, as `ingress on node-1`."""
    lanes = [lane for lane in PROBES if lane != "ingress" or before.ingress]
    missing = []
    for pod in pods(client, before):
        said = {line for line in pod.logs().splitlines() if line.endswith(" answered")}
        missing += [f"{lane} on {pod.spec['nodeName']}" for lane in lanes if f"{lane} answered" not in said]
    return missing


class Collector:
    """Brings what the pods saw into the timeline, each interval once; goes on where an earlier one was ended."""

    def __init__(self, folder: Folder, client: Client, before: Before) -> None:
        self._folder = folder
        self._client = client
        self._before = before
        self._offsets = {each["pod"]: float(each["offset"]) for each in folder.timeline.events("clock")}
        """Seconds by which the clock of each pod's node is ahead of ours."""
        self._known: dict[tuple[str, str], float] = {}
        """Until when each probe of each pod is accounted for."""
        for interval in folder.timeline.intervals():
            if interval.vantage != OBSERVER:
                key = interval.pod, interval.probe
                self._known[key] = max(self._known.get(key, 0.0), interval.end)

    def collect(self, *, everything: bool = False) -> list[str]:
        """Read what is new; pods that could not be read, and why. `everything` also reads from restarted containers."""
        problems = []
        for pod in pods(self._client, self._before):
            restarted = any(each.get("restartCount") for each in pod.status.get("containerStatuses") or [])
            try:
                offset = self._offset(pod)
                if everything and restarted:
                    self._take(pod, offset, self._log(pod, offset, previous=True))
                self._take(pod, offset, self._log(pod, offset))
            except (ApiError, SurroundingsError, NeverHappened) as error:
                problems.append(f"{pod}: {error}")
        return problems

    def _log(self, pod: Object, offset: float, *, previous: bool = False) -> list[str]:
        query: dict[str, Any] = {"previous": previous}
        ends = [end for (uid, _), end in self._known.items() if uid == pod.uid]
        if ends:
            query["sinceTime"] = datetime.fromtimestamp(min(ends) + offset - 2, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self._client.get_text(kinds.POD.path(pod.namespace, pod.name, "log"), query).splitlines()

    def _take(self, pod: Object, offset: float, lines: Iterable[str]) -> None:
        for line in lines:
            interval = parse(line, pod.spec["nodeName"], pod.uid, offset)
            if interval is None:
                continue
            key = interval.pod, interval.probe
            if interval.start >= self._known.get(key, 0.0) - 0.002:  # what is read back was rounded
                self._folder.timeline.interval(interval)
                self._known[key] = interval.end

    def _offset(self, pod: Object) -> float:
        if pod.uid not in self._offsets:
            asked = time.time()
            said = pod.exec(["bash", "-c", "echo ${EPOCHREALTIME/,/.}"], within=10).stdout
            answered = time.time()
            offset = float(said) - (asked + answered) / 2
            if abs(offset) <= answered - asked:  # no more than what the question took
                offset = 0.0
            self._offsets[pod.uid] = offset
            self._folder.timeline.event("clock", answered, pod=pod.uid, offset=round(offset, 3))
        return self._offsets[pod.uid]


def parse(line: str, node: str, uid: str, offset: float) -> Interval | None:
    """A line of a pod's log, `lane from to state requests failures [exit code message]`; None for any other line."""
    words = line.split(maxsplit=8)
    if len(words) < 6 or words[0] not in PROBES:
        return None
    lane, start, end, state, requests, failures, *why = words
    states = {"good": GOOD, "failing": FAILING, "unobserved": UNOBSERVED}
    try:
        times = [int(each) / 1e6 - offset for each in (start, end)]
        error = curl_error(int(why[0]), int(why[1])) if len(why) > 1 and state == "failing" else ""
        return Interval(
            f"a pod on {node}",
            PROBES[lane],
            times[0],
            times[1],
            states[state],
            int(requests),
            int(failures),
            error,
            uid,
        )
    except (ValueError, KeyError):
        return None
