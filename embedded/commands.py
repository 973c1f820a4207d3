"""The embedded room's commands: `clusterproof up`, `down`, `status`, `node`, `join`, `load`, `logs`, `kubeconfig`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterproof.running.run import cluster_name

from . import addons, cluster, clusterset, grow, operate, process, provider, state
from .components import DEFAULT_KUBERNETES
from .network import processes_in

DEFAULT_NAME = "default"


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default=DEFAULT_NAME, help=f"name of the cluster (default: {DEFAULT_NAME})")


class Up:
    """Starts an embedded cluster."""

    help = "start a real Kubernetes cluster on this machine, without Docker"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_name(parser)
        parser.add_argument("--nodes", type=int, default=2, metavar="N", help="number of nodes (default: 2)")
        parser.add_argument(
            "--addons",
            metavar="LIST",
            help=f"what runs on it, by comma, or 'none'; there are {', '.join(addons.ALL)} "
            f"(default: {','.join(addons.NAMES)}, less what this machine cannot run)",
        )
        parser.add_argument(
            "--kubernetes-version",
            default=DEFAULT_KUBERNETES,
            metavar="VERSION",
            help=f"Kubernetes version (default: {DEFAULT_KUBERNETES})",
        )
        parser.add_argument(
            "--timeout-scale",
            type=float,
            default=1.0,
            metavar="FACTOR",
            help="multiply what its programs, nodes and add-ons may take, for a slow machine (default: 1)",
        )

    def run(self, args: argparse.Namespace) -> int:
        names = addons.usual() if args.addons is None else _listed(args.addons)
        # Whoever ends this politely leaves nothing of the cluster, as with Ctrl-C.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            plan = cluster.Plan(args.name, args.nodes, args.kubernetes_version, names, timeout_scale=args.timeout_scale)
            made = cluster.up(plan, _say)
        except state.CannotStart as error:
            raise pytest.UsageError(str(error)) from error
        print(f"cluster {made.name} is ready: export KUBECONFIG={made.kubeconfig}")
        return 0


class Down:
    """Ends an embedded cluster."""

    help = "end an embedded cluster and remove every trace of it"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_name(parser)
        parser.add_argument("--all", action="store_true", help="end all embedded clusters of this machine")

    def run(self, args: argparse.Namespace) -> int:
        for name in [known.name for known in state.clusters()] if args.all else [args.name]:
            cluster.down(name)
            print(f"cluster {name} is gone")
        return 0


class Status:
    """Shows the embedded clusters of this machine."""

    help = "list the embedded clusters of this machine, and what runs of each"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--name", default="", help="only this cluster")

    def run(self, args: argparse.Namespace) -> int:
        known = [state.load(args.name)] if args.name else state.clusters()
        for one in known:
            print("\n".join(_described(one)))
        if not known:
            print("no embedded clusters on this machine")
        return 0 if all(one.ready and not _ended(one) for one in known) else 1


class Logs:
    """Shows logs of an embedded cluster's components."""

    help = "print the log of a component, or list the components that have one"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_name(parser)
        parser.add_argument(
            "component", nargs="?", default="", help="kube-apiserver, NODE/kubelet, ... (default: list them)"
        )

    def run(self, args: argparse.Namespace) -> int:
        folder = state.load(args.name).logs
        there = {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.log"))}
        if not args.component:
            print("\n".join(there))
        elif args.component in there:
            sys.stdout.write(there[args.component].read_text(errors="replace"))
        else:
            raise pytest.UsageError(f"cluster {args.name} has no log of {args.component!r}; it has: {', '.join(there)}")
        return 0


class Load:
    """Puts images on the nodes of an embedded cluster."""

    help = "put the images of an archive (OCI, or made by docker save) on every node of an embedded cluster"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_name(parser)
        parser.add_argument("archive", type=Path, help="a tar file")

    def run(self, args: argparse.Namespace) -> int:
        if not args.archive.is_file():
            raise pytest.UsageError(f"{args.archive}: is no file")
        known = state.load(args.name)
        operate.load(known, args.archive)
        print(f"cluster {known.name} has it on {len(known.nodes)} nodes")
        return 0


class Nodes:
    """Adds nodes to an embedded cluster, and takes them away."""

    help = "add a node to an embedded cluster that runs, or remove one"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True)
        add = verbs.add_parser("add", help="add a node; it is Ready, and its name printed, when this ends")
        _add_name(add)
        add.add_argument(
            "--taint",
            action="append",
            default=[],
            type=_taint,
            metavar="KEY[=VALUE]:EFFECT",
            help="a taint that it has from the start (can be given several times)",
        )
        add.add_argument(
            "--claim",
            default="",
            metavar="WORD",
            help="for whom it is: whoever asks again with the same word gets the same node. It may not yet be Ready",
        )
        remove = verbs.add_parser("remove", help="take a node away as if it were switched off; its pods are not moved")
        _add_name(remove)
        remove.add_argument("node", help="its name")

    def run(self, args: argparse.Namespace) -> int:
        known = state.load(args.name)
        if args.verb == "remove":
            grow.remove(known, args.node)
            print(f"node {args.node} is gone")
            return 0
        added = grow.add(known, claim=args.claim, taints=args.taint)
        if not args.claim:
            grow.await_ready(known, added)
        print(added.name)
        return 0


def _taint(text: str) -> grow.Taint:
    what, _, effect = text.rpartition(":")
    key, _, value = what.partition("=")
    if not key or effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
        raise argparse.ArgumentTypeError(f"{text}: KEY:NoSchedule or the like is expected")
    return {"key": key, "effect": effect, **({"value": value} if value else {})}


class Join:
    """Makes several embedded clusters one ClusterSet."""

    help = "join two embedded clusters: Services that one exports are reached from both (Multi-Cluster Services)"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        for which in ("one", "other"):
            parser.add_argument(which, help=f"name of a cluster that has the add-on {clusterset.PROGRAM}")

    def run(self, args: argparse.Namespace) -> int:
        clusterset.join(state.load(args.one), state.load(args.other))
        print(f"clusters {args.one} and {args.other} are joined")
        return 0


class Kubeconfig:
    """Shows where the administrator's kubeconfig is."""

    help = "print the path of an embedded cluster's kubeconfig"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_name(parser)

    def run(self, args: argparse.Namespace) -> int:
        print(state.load(args.name).kubeconfig)
        return 0


def sweep(run: str, everything: bool) -> Iterator[str]:
    """End all clusters whose launcher was killed: those that never became ready, and those of runs that have ended.

    `run` names one run's cluster, and the one beside it; empty means all. Clusters that were started to stay, with
    `clusterproof up` or `--keep-cluster`, do so unless `everything` is to go.
    """
    of_run = (cluster_name(run), provider.peer_of(cluster_name(run)))
    for known in state.clusters():
        if run and known.name not in of_run:
            continue
        stays = known.ready and not known.owner
        if stays and not everything:
            yield (
                f"kept embedded cluster {known.name}: it was started to stay, with `clusterproof up` or --keep-cluster "
                f"(remove it with: clusterproof down --name {known.name})"
            )
        elif stays or run or known.abandoned:
            cluster.down(known.name)
            yield f"removed embedded cluster {known.name}"


def _described(one: state.ClusterState) -> Iterator[str]:
    ended = _ended(one)
    verdict = (
        "starting, or its start was cut off"
        if not one.ready
        else f"{len(ended)} components ended"
        if ended
        else "running"
    )
    yield f"{one.name}: {verdict}; Kubernetes {one.kubernetes_version}, {one.server}, KUBECONFIG={one.kubeconfig}"
    yield f"  add-ons: {', '.join(one.addons) or 'none'}; {len(processes_in(state.namespaces_of(one.name)))} processes"
    if one.peers:
        yield f"  joined with: {', '.join(one.peers)}"
    for node in one.nodes:
        yield f"  node {node.name}: {node.address}, pods {node.pods}"
    for name in ended:
        yield f"  ended: {name} (see: clusterproof logs --name {one.name} {name})"


def _ended(one: state.ClusterState) -> list[str]:
    """Names of components whose program does not run any more."""
    return sorted(name for name, program in one.programs.items() if process.child_of(program.pid) is None)


def _listed(text: str) -> tuple[str, ...]:
    """The names of a list by comma, of which `none` is the empty one."""
    return () if text == "none" else tuple(name.strip() for name in text.split(",") if name.strip())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


up, down, status, node, join = Up(), Down(), Status(), Nodes(), Join()
load, logs, kubeconfig = Load(), Logs(), Kubeconfig()
