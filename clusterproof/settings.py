"""What can be set: each option as command line, ini value and environment variable, resolved once into `Settings`.

The command line wins over the environment, the environment over the ini file.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from clusterproof.timeouts import Timeouts

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
"""Names that fit into names of Kubernetes objects."""
NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""Names that a namespace may have."""
ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})")
"""`host:port`, where an IPv6 address stands in brackets."""
NEW = "new"
"""The `peer` that is started for the run."""
WRITER = "clusterproof.reports.writer"
"""The plugin that knows which report formats there are."""

_MADE = ("embedded", "kind", "k3d", "minikube")
_FOR_EXTERNAL = "is for --cluster=external: with --cluster={} another cluster is made, and that one would be proven"
_FOR_CONTAINERS = "is for clusters of kind and their like: with --cluster={} it changes nothing"
_FOR_NEW = "is for clusters that are made: with --cluster={} one is proven as it is"
_ELSEWHERE = {
    "kubeconfig": (_MADE, _FOR_EXTERNAL),
    "context": (_MADE, _FOR_EXTERNAL),
    "shape": (("embedded", "external"), _FOR_CONTAINERS),
    "node_image": (("embedded", "external"), _FOR_CONTAINERS),
    "nodes": (("external",), _FOR_NEW),
    "kubernetes_version": (("external",), _FOR_NEW),
}
"""Options that some of our own providers take no account of: which, and what it is for. Others may use all."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the user decided about a run; what has no meaning for a cluster is ignored by its provider."""

    cluster: str = "embedded"
    kubeconfig: Path | None = None
    context: str = ""
    cluster_name: str = ""
    nodes: int = 2
    kubernetes_version: str = ""
    shape: str = ""
    node_image: str = ""
    keep_cluster: bool = False
    reuse: bool = False
    capabilities: tuple[str, ...] = ()
    """Names of capabilities the user declares."""
    timeout_scale: float = 1.0
    image_registry: str = ""
    image_pull_secret: str = ""
    """`namespace/name` of a Secret that is copied into every test namespace."""
    peer: str = ""
    """Another cluster of the same ClusterSet: `FILE` or `FILE:CONTEXT` of its kubeconfig, or `new`."""
    namespaces: tuple[str, ...] = ()
    """Namespaces that the run may use in place of its own, where its user may make none."""
    ingress_address: str = ""
    gateway_address: str = ""
    node_hosts: str = ""
    """How nodes are reached, as testinfra hosts; empty for the provider's way."""
    node_inventory: Path | None = None
    """An Ansible inventory that has the nodes."""
    workers: int = 10
    """Processes that prove at the same time; promises mostly wait, so there may be more of them than processors."""
    disruptive: bool = False
    keep_failed: bool = False
    retry_broken: bool = False
    """Prove a broken promise once more, in a fresh namespace; forbidden where pytest is strict."""
    resume: bool = False
    """Go on with the interrupted run that the reports' folder has the journal of."""
    shard: tuple[int, int] | None = None
    """Which part of how many, from 1."""
    shard_by: Path | None = None
    """Result document whose durations balance the shards; the same for all of them."""
    reports_dir: Path = Path("reports/out")
    report_formats: tuple[str, ...] = ("json", "junit", "markdown", "allure", "html")
    run_id: str = ""
    baseline: Path | None = None
    """Result document of an earlier run, to compare with."""
    slower: float = 2.0
    """By which factor a promise must have become slower than in the baseline to count as a regression; 0: never."""

    @property
    def keeps_cluster(self) -> bool:
        """Whether the cluster outlives the run."""
        return self.keep_cluster or self.reuse

    @property
    def chosen_id(self) -> str:
        """The run's id where the user gave one: each shard is a run of its own."""
        return f"{self.run_id}-{self.shard[0]}" if self.run_id and self.shard else self.run_id

    @property
    def timeouts(self) -> Timeouts:
        """The budgets, scaled."""
        return Timeouts().scaled(self.timeout_scale)


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that can be set."""

    name: str
    """Field of Settings; the command line has it with dashes."""
    help: str
    read: Callable[[str], Any] = str
    """Text to value; ValueError with a reason for bad input."""
    metavar: str = ""
    check: Callable[[Any], str] = field(default=lambda value: "")
    """What is wrong with a value, or nothing."""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return f"CLUSTERPROOF_{self.name.upper()}"

    @property
    def ini(self) -> str:
        return f"clusterproof_{self.name}"

    @property
    def is_switch(self) -> bool:
        return self.read is _switch


def _switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("", "0", "false", "no", "off"):
        return False
    raise ValueError("is neither true nor false")


def names(text: str) -> tuple[str, ...]:
    """What stands between commas or blanks."""
    return tuple(filter(None, re.split(r"[,\s]+", text)))


def _shard(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ValueError("must be I/N, with I from 1 to N")
    return int(number), int(of)


def _known_provider(name: str) -> str:
    from clusterproof import provider

    known = sorted(provider.registered())
    return "" if name in known else f"names no provider; registered are {', '.join(known)}"


def _known_capabilities(names: tuple[str, ...]) -> str:
    from clusterproof import capabilities

    unknown = [name for name in names if name not in capabilities.ALL]
    known = ", ".join(sorted(capabilities.ALL))
    return f"names no capability with {', '.join(unknown)}; there are {known}" if unknown else ""


def _label(value: str) -> str:
    return (
        "" if not value or DNS_LABEL.fullmatch(value) else "must be lower-case letters, digits and dashes, at most 40"
    )


def _factor(value: float) -> str:
    if not value > 0:
        return "must be more than 0"
    return "must be a finite number" if math.isinf(value) else ""


def _registry(value: str) -> str:
    return "must be HOST[/PATH], without a scheme" if "://" in value else ""


def _address(value: str) -> str:
    found = ADDRESS.fullmatch(value)
    good = not value or (found and 1 <= int(found[2]) <= 65535)
    return "" if good else "must be HOST:PORT; an IPv6 address stands in brackets, as in [fd00::1]:80"


def _namespaces(found: tuple[str, ...]) -> str:
    wrong = [name for name in found if not NAMESPACE.fullmatch(name)]
    rule = "lower-case letters, digits and dashes are expected, at most 63"
    return f"has what no namespace can be called, {', '.join(wrong)}: {rule}" if wrong else ""


OPTIONS = (
    Option(
        "cluster",
        "where the cluster comes from: embedded (default), external, kind, k3d, minikube, or another provider",
        check=_known_provider,
    ),
    Option(
        "kubeconfig",
        "kubeconfig file of an external cluster; in-cluster: that of the pod this runs in, by its service account, "
        "which is also the default where there is one",
        Path,
        "FILE",
    ),
    Option("context", "context in the kubeconfig (default: its current one)"),
    Option(
        "cluster_name",
        "name of the cluster to create (default: after the run; with --reuse: clusterproof)",
        metavar="NAME",
        check=_label,
    ),
    Option(
        "nodes",
        "nodes of the cluster to create (default: 2)",
        int,
        "N",
        lambda n: "" if n > 0 else "must be at least 1",
    ),
    Option("kubernetes_version", "version of the cluster to create (default: the provider's)", metavar="VERSION"),
    Option(
        "shape", "shape of a kind cluster, instead of --nodes: single, two-node, ha, dual-stack, or a kind config file"
    ),
    Option("node_image", "image of the nodes of a kind or k3d cluster (default: its own)", metavar="IMAGE"),
    Option("keep_cluster", "leave the created cluster running, and say how to use and remove it", _switch),
    Option("reuse", "use the cluster of that name if it is there, make it if not, and keep it", _switch),
    Option(
        "capabilities",
        "capabilities the cluster claims, beyond those that are found: names, separated by commas",
        names,
        "NAMES",
        _known_capabilities,
    ),
    Option(
        "timeout_scale",
        "multiply every waiting time, for slow clusters (default: 1)",
        float,
        "FACTOR",
        _factor,
    ),
    Option(
        "image_registry",
        "registry that has copies of all images under the same paths",
        metavar="HOST[/PATH]",
        check=_registry,
    ),
    Option(
        "image_pull_secret",
        "Secret to copy into every test namespace for pulling images",
        metavar="NAMESPACE/NAME",
        check=lambda name: "" if not name or re.fullmatch(r"[^/]+/[^/]+", name) else "must be namespace/name",
    ),
    Option(
        "namespaces",
        "existing namespaces of an external cluster for promises to use, where you may make none: names, by commas",
        names,
        "NAMES",
        _namespaces,
    ),
    Option(
        "peer",
        "another cluster of the same ClusterSet, for promises about several clusters: its kubeconfig and context, or "
        "new, to start one beside an embedded cluster and join the two",
        metavar="FILE[:CONTEXT]",
    ),
    Option(
        "ingress_address",
        "host:port of the ingress controller (default: as the provider or the status of an Ingress says)",
        metavar="HOST:PORT",
        check=_address,
    ),
    Option(
        "gateway_address",
        "host:port of the first Gateway that takes routes of all namespaces, for any host, by http (default: as its "
        "status says)",
        metavar="HOST:PORT",
        check=_address,
    ),
    Option(
        "node_hosts",
        "how nodes are looked at: a testinfra host with {name} or {address} in it (ssh://root@{address}), "
        "NAME=HOST for each by comma, or pod (default: the provider's way)",
        metavar="HOST",
        check=lambda hosts: "" if not hosts or hosts == "pod" or "://" in hosts else "is neither pod nor KIND://HOST",
    ),
    Option("node_inventory", "Ansible inventory file by which nodes are looked at", Path, "FILE"),
    Option(
        "workers",
        "processes in which the suites are proven, without -n (default: 10)",
        int,
        "N",
        lambda workers: "" if workers > 0 else "must be at least 1",
    ),
    Option("disruptive", "also prove promises that disturb the whole cluster", _switch),
    Option(
        "keep_failed",
        "keep the namespaces of promises that did not hold: on a cluster of your own, or with --keep-cluster",
        _switch,
    ),
    Option("retry_broken", "prove a broken promise once more: kept then, it is flaky, which is not kept", _switch),
    Option(
        "resume",
        "after an interruption, prove only what the journal in the reports' folder does not have: same selection, same "
        "suites, same cluster; one that was made for the run and has gone is made anew",
        _switch,
    ),
    Option("shard", "prove part I of N, from 1; put together with: clusterproof merge", _shard, "I/N"),
    Option("shard_by", "result.json of an earlier run, by whose durations shards take as long", Path, "FILE"),
    Option("reports_dir", "where the reports go (default: reports/out)", Path, "DIR"),
    Option(
        "report_formats",
        "formats to write (default: json,junit,markdown,allure,html)",
        names,
        "NAMES",
        lambda formats: "" if formats else "names no format",
    ),
    Option("run_id", "name of this run, in labels and namespaces (default: random)", metavar="ID", check=_label),
    Option("baseline", "result.json of an earlier run: say what changed since, and fail on a regression", Path, "FILE"),
    Option("slower", "with --baseline: factor by which a slower promise is a regression (default: 2)", float, "FACTOR"),
)


def add_options(parser: pytest.Parser) -> None:
    """Declare every option to pytest."""
    group = parser.getgroup("clusterproof", "Kubernetes conformance")
    for option in OPTIONS:
        told = f"{option.help}. Also ini {option.ini}, environment {option.variable}."
        if option.is_switch:
            group.addoption(option.flag, action="store_true", default=None, dest=option.ini, help=told)
        else:
            metavar = option.metavar or option.name.upper()
            group.addoption(option.flag, default=None, dest=option.ini, metavar=metavar, help=told)
        # TOML has lists, and pytest wants to be told where they are meant.
        written: Literal["linelist", "string"] = "linelist" if option.read is names else "string"
        parser.addini(option.ini, option.help, type=written, default=None)


def resolve(config: pytest.Config, environment: Mapping[str, str] = os.environ) -> Settings:
    """What was set; UsageError lists everything that is wrong with it."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for option in OPTIONS:
        given, text = _given(option, config, environment)
        if text is None:
            continue
        try:
            value = text if isinstance(text, bool) else option.read(text.strip())
        except ValueError as error:
            problems.append(f"{given}={text}: {error}")
            continue
        if wrong := option.check(value):
            problems.append(f"{given}={text} {wrong}")
        values[option.name] = value
    problems += _without_effect(config, values)
    # The formats are the reports' own: the engine knows none of them.
    writer = config.pluginmanager.get_plugin(WRITER)
    if writer and (wrong := writer.unknown(values.get("report_formats", ()))):
        problems.append(f"--report-formats: {wrong}")
    if values.get("retry_broken") and config.getini("strict"):
        problems.append("--retry-broken cannot be had with --strict: there, what was broken once is broken")
    if values.get("namespaces") and values.get("cluster") != "external":
        problems.append("--namespaces is for --cluster=external: in any other cluster the run may make its own")
    if values.get("peer") == NEW and values.get("cluster", Settings().cluster) != "embedded":
        problems.append("--peer=new is for --cluster=embedded: beside any other cluster, name one that is there")
    if values.get("peer") and values.get("namespaces"):
        problems.append("--peer cannot be had with --namespaces: the same ones would have to be lent in both clusters")
    if problems:
        raise pytest.UsageError("\n".join(problems))
    return Settings(**values)


def _without_effect(config: pytest.Config, values: Mapping[str, Any]) -> Iterator[str]:
    """What was typed for another kind of cluster than is to be proven: surely another one was meant.

    Ini file and environment may be for several kinds of runs, of which each takes what is for it.
    """
    cluster = values.get("cluster", Settings().cluster)
    for option in OPTIONS:
        providers, meant = _ELSEWHERE.get(option.name, ((), ""))
        if cluster in providers and values.get(option.name) and config.getoption(option.ini) is not None:
            yield f"{option.flag} {meant.format(cluster)}"


def _given(option: Option, config: pytest.Config, environment: Mapping[str, str]) -> tuple[str, Any]:
    typed = config.getoption(option.ini)
    if typed is not None:
        return option.flag, typed
    if option.variable in environment:
        return option.variable, environment[option.variable]
    value = config.getini(option.ini)
    return option.ini, ",".join(map(str, value)) if isinstance(value, list) else value


SETTINGS = pytest.StashKey[Settings]()


def of(config: pytest.Config) -> Settings:
    """The settings of this process, resolved once."""
    if SETTINGS not in config.stash:
        config.stash[SETTINGS] = resolve(config)
    return config.stash[SETTINGS]
