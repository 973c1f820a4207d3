"""Recipes and pages say nothing to our programs that these do not understand."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pygments.lexers.jvm import GroovyLexer
from pygments.token import Error, Punctuation

from .commands import commands, problem, scripts
from .conftest import ROOT

RECIPES = ROOT / "docs" / "recipes"
FILES = (*sorted(RECIPES.iterdir()), *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md")))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_command_is_understood(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {
        " ".join(words): f"{said} {capsys.readouterr().err}"
        for script in scripts(path)
        for words in commands(script)
        if (said := problem(words))
    }

    assert not wrong


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("pytest suites/ --retry-brokn", "unrecognized arguments: --retry-brokn"),
        ('KEY=1 clusterproof merge out/*/result.json \\\n  --outptu="$OUT" || exit', "exits with 4"),
        ("cd x && clusterproof histroy here", "exits with 4"),
        ("pytest suites/ --shard=5/4", "--shard=5/4: must be I/N"),
        ("sudo ./prove suits", "knows suites and tests"),
    ],
)
def test_a_wrong_command_is_noticed(script: str, told: str) -> None:
    (words,) = commands(script)

    assert told in problem(words)


def test_every_recipe_goes_through_the_night() -> None:
    night = "".join(path.read_text() for path in RECIPES.glob("*.sh"))
    needed = ("--shard=", "--shard-by=", "--run-id=", "--retry-broken", "--resume", "merge ", "diff ", "history ")
    assert all(word in night for word in needed)
    for path in RECIPES.iterdir():
        run = "\n".join(scripts(path))
        assert path.suffix == ".sh" or ("recipes/shard.sh" in run and "recipes/verdict.sh" in run), path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--builtin-schema", "vendor.github-workflows", "github.yml"],
        ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci", "gitlab-ci.yml"],
    ],
    ids=["github", "gitlab"],
)
def test_the_published_schema_is_kept_to(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *arguments], cwd=RECIPES, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout


def test_clusters_that_recipes_start_are_built_by_a_go_that_is_new_enough() -> None:
    modules = (ROOT / "embedded" / "modules").glob("*/go.mod")
    needed = max(_numbers(re.findall(r"^go (\S+)$", path.read_text(), re.MULTILINE)[0]) for path in modules)
    for path, brings in {"github.yml": r'go-version: "(.*)"', "gitlab-ci.yml": r"image: golang:([\d.]+)"}.items():
        (version,) = re.findall(brings, (RECIPES / path).read_text())
        assert _numbers(version) >= needed, path


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def test_jobs_of_gitlab_have_a_stage_and_needs_of_github_exist() -> None:
    gitlab = yaml.safe_load((RECIPES / "gitlab-ci.yml").read_text())
    jobs = {name: job for name, job in gitlab.items() if isinstance(job, dict) and "script" in job}
    assert {job["stage"] for job in jobs.values()} == set(gitlab["stages"])
    github = yaml.safe_load((RECIPES / "github.yml").read_text())["jobs"]
    assert {job["needs"] for job in github.values() if "needs" in job} <= set(github)


def test_the_pipeline_of_jenkins_is_groovy_with_every_bracket_closed() -> None:
    opened: list[str] = []
    for token, text in GroovyLexer().get_tokens((RECIPES / "Jenkinsfile").read_text()):
        assert token is not Error, text
        for sign in text if token in Punctuation else "":
            if sign in "([{":
                opened.append(sign)
            elif sign in ")]}":
                assert opened.pop() + sign in ("()", "[]", "{}")
    assert opened == []


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_of_any_shell(path: Path) -> None:
    subprocess.run(["sh", "-n", path], check=True)
    if program := shutil.which("dash"):
        subprocess.run([program, "-n", path], check=True)
