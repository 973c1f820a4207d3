"""Changing a cluster that runs: stop, start and restart its programs, run commands on its nodes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from clusterproof import kinds
from clusterproof.client import Client

from . import process
from .node import SOCKET, link
from .process import BIN, Component
from .state import ClusterState, EmbeddedError, Program

LEADERS = ("cloud-controller-manager", "kube-controller-manager", "kube-scheduler")
"""Programs that work only while they hold a lease of their own name."""


def stop(state: ClusterState, name: str, *, kill: bool = True, patience: float = 0) -> None:
    """End a program (`kube-apiserver`, `<node>/kubelet`), at once or in its own way; what it started stays.

    One that is to end in its own way is killed after so many seconds of `patience`, where that is not 0.
    """
    parent = _program(state, name).pid
    child = process.child_of(parent)
    if child is not None:
        os.kill(child, signal.SIGKILL if kill else signal.SIGTERM)
        # It ends when the last of the child's threads has: until then the child's ports are taken.
        try:
            process.await_end([child, parent], patience or process.PATIENCE)
        except EmbeddedError:
            if kill or not patience:
                raise
            process.kill([child, parent])


def start(state: ClusterState, name: str, change: Callable[[list[str]], list[str]] | None = None) -> Component:
    """Start a program that was stopped, with the arguments it had, or with what `change` makes of them."""
    _program(state, name)
    if name in LEADERS:
        # Its predecessor's lease would make it wait for a minute.
        Client.from_kubeconfig(state.kubeconfig).request("DELETE", kinds.LEASE.path("kube-system", name))
    with state.changing():
        program = _program(state, name)
        command = change(list(program.command)) if change else program.command
        return process.start(state, name, command, on=program.anchor)


def mend(state: ClusterState) -> None:
    """Start every program that has ended."""
    for name, program in list(state.programs.items()):
        if process.child_of(program.pid) is None:
            start(state, name)


def restart(state: ClusterState, name: str, change: Callable[[list[str]], list[str]] | None = None) -> Component:
    """Stop and start a program."""
    stop(state, name)
    return start(state, name, change)


def run_on(state: ClusterState, place: str, *command: str) -> str:
    """Run a command in a node's namespaces (or those of `control-plane`); its output. EmbeddedError when it fails."""
    enter = ["nsenter", f"--target={state.anchors[place]}", "--mount", "--uts", "--net", "--pid", "--wd=/"]
    done = subprocess.run([*enter, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmbeddedError(f"{' '.join(command)} on {place} exited with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def load(state: ClusterState, archive: Path) -> None:
    """Put the images of an archive on every node, as `ctr images import` does. EmbeddedError where it fails."""
    for node in state.nodes:
        copy = state.node_folder(node) / "tmp" / f"images-{os.getpid()}.tar"  # which the node has as /tmp
        try:
            link(archive, copy)
            given = [f"{BIN}/ctr", "--address", SOCKET, "--namespace", "k8s.io", "images", "import", "--local"]
            run_on(state, node.name, *given, f"/tmp/{copy.name}")
        finally:
            copy.unlink(missing_ok=True)


def replacing(*pairs: tuple[str, str]) -> Callable[[list[str]], list[str]]:
    """A change of arguments: each that starts with the first of a pair becomes the second; added if there is none."""

    def change(command: list[str]) -> list[str]:
        for prefix, argument in pairs:
            command = [part for part in command if not part.startswith(prefix)] + [argument]
        return command

    return change


def _program(state: ClusterState, name: str) -> Program:
    if name not in state.programs:
        known = ", ".join(sorted(state.programs))
        raise EmbeddedError(f"cluster {state.name} has no program {name!r}; it has: {known}")
    return state.programs[name]
