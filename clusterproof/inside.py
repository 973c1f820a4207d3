"""What a pod sees: what scripts say in it, and web requests, datagrams and DNS look-ups, many in one command.

The pod needs the tools of agnhost's image: bash, curl, dig and nc.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from clusterproof.objects import Object

PATIENCE = 2
"""Seconds for one web request, and for the answer to a datagram."""
NO_ANSWER = "no answer to a datagram"
LONGEST_TTL = 30
"""Seconds for which a name may be remembered, and that it was not there: kubeadm's choice, and no usual cluster's is
longer."""

# Each question's lines are short enough to be written at once, so that those of two questions do not mix.
_FETCH = r"""
web() {
    curl --silent --show-error --fail --fail-early --noproxy '*' --max-time "$patience" --header 'Connection: close' \
        --write-out '\n' "$1#[1-$tries]" 2>&1
}
datagrams() {
    local place=${1%%/*} request=${1#*/} answer
    local host=${place%:*} port=${place##*:}
    host=${host#[} host=${host%]}
    for ((try = 0; try < tries; try++)); do
        answer=$(nc -u -w "$patience" -W 1 "$host" "$port" <<< "$request")
        echo "${answer:-$silence}"
        [ "$answer" ] || break
    done
}
number=0 tries=$1 patience=$2 silence=$3; shift 3
for url; do
    case $url in udp://*) datagrams "${url#udp://}";; *) web "$url";; esac | sort | uniq | sed "s/^/$number /" &
    number=$((number + 1))
done
wait
"""
_LOOK_UP = r"""
number=0 times=$1; shift
for question; do (
    again=$question; for ((i = 1; i < times; i++)); do again="$again $question"; done
    dig +noall +comments +answer +time=2 +tries=2 $again | grep -E '^[^;]|status: |no servers could be reached' |
        sed 's/^;.*status: \([A-Z]*\).*/; \1/' | sort -u | sed "s/^/$number /"
) & number=$((number + 1)); done
wait
"""


def said(pod: Object, script: str, *, container: str = "") -> str:
    """What a shell script prints in a pod's container; AssertionError when it fails."""
    __tracebackhide__ = True
    result = pod.exec(["sh", "-c", script], container=container)
    assert result.code == 0, f"{pod}: {script!r} ended with {result.code}: {result.stderr.strip()}"
    return result.stdout


def fetch(pod: Object, urls: Iterable[str], *, tries: int = 1, patience: float = PATIENCE) -> dict[str, set[str]]:
    """What a pod is answered, by URL: each URL is asked `tries` times, on a new connection each time.

    `patience` is how many seconds one answer may take.
    A failure is an answer too, curl's own words, `curl: (7) ...`, or `NO_ANSWER`; it ends the tries of its URL.
    `datagram` makes URLs for UDP.
    """
    asked = list(urls)
    command = ["bash", "-c", _FETCH, "fetch", str(tries), f"{patience:g}", NO_ANSWER, *asked]
    said = pod.exec(command, within=60 + patience).stdout
    answers: dict[str, set[str]] = {url: set() for url in asked}
    for line in said.splitlines():
        number, _, answer = line.partition(" ")
        if answer:
            answers[asked[int(number)]].add(answer)
    return answers


def url_of(service: Object, path: str = "/hostname") -> str:
    """The URL by which pods reach the port 80 of a Service at its cluster IP; by default, of who answers."""
    return f"http://{in_url(service.spec['clusterIP'])}{path}"


def node_address(node: Object, to: Object) -> str:
    """The address of a node that is of a Service's family."""
    inner = [each["address"] for each in node.status["addresses"] if each["type"] == "InternalIP"]
    return str(next(address for address in inner if (":" in address) == (":" in to.spec["clusterIP"])))


def in_url(address: str) -> str:
    """A host's address or name as it stands before a port: an IPv6 address has brackets around it."""
    return f"[{address}]" if ":" in address else address


def datagram(host: str, port: int, request: str) -> str:
    """The URL of a UDP datagram, for `fetch`."""
    return f"udp://{in_url(host)}:{port}/{request}"


def ask_by_datagram(pod: Object, host: str, port: int, request: str, *, own_port: int) -> str:
    """The answer to one datagram that a pod sends from a port of its own choice; empty where none came in time."""
    script = f'nc -u -p {own_port} -w {PATIENCE} -W 1 "$1" "$2" <<< "$3"'
    return pod.exec(["bash", "-c", script, "ask", host, str(port), request]).stdout.strip()


def record(address: str) -> str:
    """The record of an address, as `Answer.records` has it."""
    return f"{'AAAA' if ':' in address else 'A'} {address}"


@dataclass(slots=True)
class Answer:
    """What DNS says to one question."""

    records: set[str] = field(default_factory=set)
    """`A 10.0.0.1`, `SRV 80 web.ns.svc.cluster.local.` (without priority and weight), `NXDOMAIN`, or `no answer`."""
    ttl: int = 0
    """Seconds for which the longest-lived record may be remembered."""


def look_up(pod: Object, questions: Iterable[str], *, times: int = 1) -> dict[str, Answer]:
    """What DNS answers to a pod, by question: dig's arguments, as `web A`, `+search web A` or `-x 10.0.0.1`.

    Each question is asked `times` times, so that every server behind the cluster's DNS address is likely to be asked;
    the answer holds everything that any of them said.
    """
    asked = list(questions)
    said = pod.exec(["bash", "-c", _LOOK_UP, "look-up", str(times), *asked]).stdout
    answers = {question: Answer() for question in asked}
    for line in said.splitlines():
        number, _, text = line.partition(" ")
        _take(answers[asked[int(number)]], text)
    return answers


def _take(answer: Answer, line: str) -> None:
    if line.startswith(";"):
        status = "no answer" if "no servers" in line else line.removeprefix("; ")
        answer.records |= {status} - {"NOERROR"}
    else:
        _, ttl, _, kind, *data = line.split()
        answer.records.add(" ".join([kind, *(data[2:] if kind == "SRV" else data)]))
        answer.ttl = max(answer.ttl, int(ttl))
