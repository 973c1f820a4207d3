"""Options: where they come from, which source wins, and what is said about bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterproof import settings
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
        "--kubeconfig=~/config",
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
