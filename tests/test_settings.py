"""Options: where they come from, which source wins, and what is said about bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterproof import provider, settings
from clusterproof.settings import OPTIONS, Settings

EVERY = {option.name for option in OPTIONS}


def resolved(pytester: pytest.Pytester, *arguments: str, **environment: str) -> Settings:
    return settings.resolve(pytester.parseconfig(*arguments), environment)


def test_every_setting_can_be_set() -> None:
    assert set(Settings.__dataclass_fields__) == EVERY


def test_defaults(pytester: pytest.Pytester) -> None:
    assert resolved(pytester) == Settings()


def test_the_command_line_wins_over_the_environment_over_the_ini_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nclusterproof_nodes = 3\nclusterproof_timeout_scale = 2\nclusterproof_context = here\n")
    found = resolved(pytester, "--nodes=5", CLUSTERPROOF_NODES="4", CLUSTERPROOF_TIMEOUT_SCALE="3")
    assert (found.nodes, found.timeout_scale, found.context) == (5, 3.0, "here")
    assert found.timeouts.pod == 180


def test_lists_switches_and_paths(pytester: pytest.Pytester) -> None:
    found = resolved(
        pytester,
        "--capabilities=network.policy,scale.vpa",
        CLUSTERPROOF_KUBECONFIG="~/config",
        CLUSTERPROOF_KEEP_FAILED="yes",
        CLUSTERPROOF_DISRUPTIVE="0",
    )
    assert found.capabilities == ("network.policy", "scale.vpa")
    assert found.kubeconfig == Path("~/config")
    assert (found.keep_failed, found.disruptive) == (True, False)


def test_all_problems_are_said_at_once(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig("--nodes=two", "--timeout-scale=0", "--capabilities=network.magic", "--run-id=A B")
    with pytest.raises(pytest.UsageError) as caught:
        settings.resolve(config, {"CLUSTERPROOF_DISRUPTIVE": "perhaps", "CLUSTERPROOF_IMAGE_PULL_SECRET": "x"})
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert "--nodes=two: invalid literal" in lines[0]
    assert "--capabilities=network.magic names no capability with network.magic; there are" in lines[1]
    assert lines[2] == "--timeout-scale=0 must be more than 0"
    assert lines[3] == "CLUSTERPROOF_IMAGE_PULL_SECRET=x must be namespace/name"
    assert lines[4] == "CLUSTERPROOF_DISRUPTIVE=perhaps: is neither true nor false"
    assert lines[5].startswith("--run-id=A B must be lower-case letters")


def test_bad_settings_end_pytest_with_exit_code_4(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test(): pass")
    result = pytester.runpytest_inprocess("--nodes=0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("ERROR: --nodes=0 must be at least 1")


def problems(pytester: pytest.Pytester, *arguments: str, **environment: str) -> list[str]:
    with pytest.raises(pytest.UsageError) as caught:
        resolved(pytester, *arguments, **environment)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("provided", "typed", "meant"),
    [
        (
            "embedded",
            "--kubeconfig=prod.yaml",
            "--kubeconfig is for --cluster=external: with --cluster=embedded another ",
        ),
        (
            "embedded",
            "--context=prod",
            "--context is for --cluster=external: with --cluster=embedded another cluster is ",
        ),
        (
            "kind",
            "--kubeconfig=prod.yaml",
            "--kubeconfig is for --cluster=external: with --cluster=kind another cluster ",
        ),
        (
            "minikube",
            "--context=prod",
            "--context is for --cluster=external: with --cluster=minikube another cluster is",
        ),
        (
            "embedded",
            "--shape=ha",
            "--shape is for clusters of kind and their like: with --cluster=embedded it changes",
        ),
        (
            "external",
            "--node-image=node:1",
            "--node-image is for clusters of kind and their like: with --cluster=external",
        ),
        (
            "external",
            "--nodes=3",
            "--nodes is for clusters that are made: with --cluster=external one is proven as it is",
        ),
        (
            "external",
            "--kubernetes-version=1.37.2",
            "--kubernetes-version is for clusters that are made: with --cluster=",
        ),
    ],
)
def test_what_is_typed_for_another_kind_of_cluster_is_refused(
    pytester: pytest.Pytester, provided: str, typed: str, meant: str
) -> None:
    (told,) = problems(pytester, typed, CLUSTERPROOF_CLUSTER=provided)
    assert told.startswith(meant)
    variable = "CLUSTERPROOF_" + typed.removeprefix("--").partition("=")[0].replace("-", "_").upper()
    resolved(pytester, f"--cluster={provided}", **{variable: typed.partition("=")[2]})


def test_what_is_typed_for_this_kind_of_cluster_is_taken(pytester: pytest.Pytester) -> None:
    assert resolved(pytester, "--kubeconfig=prod.yaml", "--context=a", "--cluster=external").context == "a"
    assert resolved(pytester, "--shape=ha", "--node-image=node:1", "--cluster=kind").shape == "ha"
    assert resolved(pytester, "--context=", "--shape=").cluster == "embedded"


def test_another_provider_may_use_a_kubeconfig(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "registered", lambda: {"theirs": None})
    assert resolved(pytester, "--cluster=theirs", "--kubeconfig=a", "--shape=b", "--nodes=1").cluster == "theirs"


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("--ingress-address=web.example", "must be HOST:PORT; an IPv6 address stands in brackets"),
        ("--ingress-address=http://web.example:80", "must be HOST:PORT"),
        ("--ingress-address=web.example:0", "must be HOST:PORT"),
        ("--gateway-address=fd00::1:80", "must be HOST:PORT"),
        ("--image-registry=https://mirror.example", "must be HOST[/PATH], without a scheme"),
        ("--timeout-scale=inf", "must be a finite number"),
        ("--timeout-scale=nan", "must be more than 0"),
        ("--report-formats=,", "names no format"),
        ("--cluster=kidn", "names no provider; registered are embedded, external, k3d, kind, minikube"),
    ],
)
def test_a_value_that_cannot_be(pytester: pytest.Pytester, given: str, wrong: str) -> None:
    (told,) = problems(pytester, given)
    assert told.startswith(f"{given} {wrong}")


def test_a_format_that_there_is_not_is_told_with_the_other_problems(pytester: pytest.Pytester) -> None:
    assert problems(pytester, "--report-formats=json,pdf", "--nodes=0") == [
        "--nodes=0 must be at least 1",
        "--report-formats: no report format pdf; there are json, junit, markdown, allure, html",
    ]


def test_names_of_namespaces(pytester: pytest.Pytester) -> None:
    longest = "a" * 63
    assert resolved(pytester, "--cluster=external", f"--namespaces=b,{longest}").namespaces == ("b", longest)
    (told,) = problems(pytester, "--cluster=external", f"--namespaces=b,Team,{longest}a")
    assert f"has what no namespace can be called, Team, {longest}a: " in told


@pytest.mark.parametrize("address", ["", "web.example:80", "10.0.0.1:8080", "[fd00::1]:443"])
def test_addresses(pytester: pytest.Pytester, address: str) -> None:
    found = resolved(pytester, f"--ingress-address={address}", f"--gateway-address={address}")
    assert (found.ingress_address, found.gateway_address) == (address, address)


@pytest.mark.parametrize(
    "written",
    [
        '[tool.pytest.ini_options]\nclusterproof_capabilities = ["network.policy", "scale.vpa"]',
        '[tool.pytest.ini_options]\nclusterproof_capabilities = "network.policy,scale.vpa"',
        '[tool.pytest]\nclusterproof_capabilities = ["network.policy", "scale.vpa"]',
    ],
)
def test_lists_of_a_toml_file(pytester: pytest.Pytester, written: str) -> None:
    pytester.makepyprojecttoml(written)
    assert resolved(pytester).capabilities == ("network.policy", "scale.vpa")


def test_lists_of_an_ini_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nclusterproof_capabilities =\n    network.policy\n    scale.vpa, scale.nodes\n")
    assert resolved(pytester).capabilities == ("network.policy", "scale.vpa", "scale.nodes")
