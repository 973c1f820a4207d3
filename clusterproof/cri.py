"""Asking a container runtime over the interface that the kubelet uses, from the machine it runs on.

`crictl` does that where it is installed and works; else curl, which can speak gRPC to a socket when the message is made
by hand.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from clusterproof.machine import Machine, Unseen

DEFAULT_ENDPOINT = "unix:///run/containerd/containerd.sock"
NETWORK_FOLDER = "/etc/cni/net.d"
"""Where runtimes look for a CNI configuration that are told no other place."""
VERBOSE = r"\010\001"
"""A StatusRequest with its first field set: tell the configuration, too."""

_ASK = r"""
socket=$1 message=$2
[ -S "$socket" ] || { echo "none"; exit; }
told=
if command -v crictl >/dev/null; then
    told=$(crictl --timeout 10s --runtime-endpoint "unix://$socket" info -o json 2>&1)
    case $told in "{"*) echo "crictl"; echo "$told"; exit ;; esac
fi
if command -v curl >/dev/null; then
    told=$({ printf "\0\0\0\0\002$message" | curl -sS --fail --max-time 10 --http2-prior-knowledge \
        --unix-socket "$socket" -H 'content-type: application/grpc' -H 'te: trailers' --data-binary @- \
        http://localhost/runtime.v1.RuntimeService/Status 2>&3 | base64; } 3>&1)
    case $told in curl:*) ;; *) echo "grpc"; echo "$told"; exit ;; esac
fi
[ -n "$told" ] || { echo "nothing"; exit; }
echo "refused"
echo "$told"
"""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a container runtime says of itself."""

    endpoint: str
    conditions: dict[str, str]
    """By name (`RuntimeReady`, `NetworkReady`): empty when it is met, else why not."""
    config: dict[str, Any]
    """Its configuration, in its own words; empty when it tells none."""

    @property
    def network_folder(self) -> str:
        """Where it looks for the CNI configuration of its pods' network; Unseen where it may be anywhere."""
        if "cni" not in self.config and "crio" in self.endpoint:
            raise Unseen(f"has a runtime at {self.endpoint} that does not tell where its CNI configuration is")
        return (self.config.get("cni") or {}).get("confDir") or NETWORK_FOLDER


class Silent(Unseen):
    """The runtime does not answer at its endpoint; says how."""

    def __init__(self, endpoint: str, how: str) -> None:
        super().__init__(f"has no container runtime that answers at {endpoint}: {how}")


def status(machine: Machine) -> Runtime:
    """Ask the runtime that the kubelet uses; Silent when it does not answer, Unseen when nothing there can ask it."""
    endpoint = machine.kubelet("containerRuntimeEndpoint") or DEFAULT_ENDPOINT
    told = machine.run(_ASK, endpoint.removeprefix("unix://"), VERBOSE)
    how, _, answer = told.partition("\n")
    match how:
        case "crictl":
            return _of_crictl(endpoint, json.loads(answer))
        case "grpc":
            return _of_grpc(endpoint, base64.b64decode(answer))
        case "nothing":
            raise Unseen(f"has neither crictl nor curl to ask {endpoint} with")
    raise Silent(endpoint, "there is no such socket" if how == "none" else answer.strip()[-200:])


def _of_crictl(endpoint: str, told: dict[str, Any]) -> Runtime:
    listed = told.get("status", {}).get("conditions", [])
    conditions = {each["type"]: "" if each.get("status") else _why(each) for each in listed}
    return Runtime(endpoint, conditions, told.get("config") or {})


def _why(condition: dict[str, Any]) -> str:
    return f"{condition.get('reason', '')} {condition.get('message', '')}".strip() or "it does not say why"


def _of_grpc(endpoint: str, answer: bytes) -> Runtime:
    """Five bytes of frame, then a StatusResponse: 1 the status with its conditions, 2 a map of further information."""
    if len(answer) < 5:
        raise Silent(endpoint, "it said nothing")
    response = list(_fields(answer[5:]))
    conditions, config = {}, {}
    for number, value in response:
        for inner, part in _fields(value):
            if number == 1 and inner == 1:
                condition = dict(_fields(part))
                why = _why({"reason": _text(condition, 3), "message": _text(condition, 4)})
                conditions[_text(condition, 1)] = "" if 2 in condition else why
        entry = dict(_fields(value)) if number == 2 else {}
        if _text(entry, 1) == "config":
            config = json.loads(_text(entry, 2))
    return Runtime(endpoint, conditions, config)


def _text(message: dict[int, bytes], number: int) -> str:
    return message.get(number, b"").decode(errors="replace")


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Fields of a protocol buffer by number; of a number field only that it is there."""
    position = 0
    while position < len(message):
        key, position = _number(message, position)
        if key & 7 == 2:
            length, position = _number(message, position)
            yield key >> 3, message[position : position + length]
            position += length
        else:
            _, position = _number(message, position)
            yield key >> 3, b""


def _number(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
