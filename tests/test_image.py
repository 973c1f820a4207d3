"""The image that runs inside a cluster: what makes it without Docker, and the Dockerfile, agree on what is in it."""

from __future__ import annotations

import json
import re
import shlex
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml
from clusterproof.incluster import commands, jobs, manifests
from clusterproof.incluster.image import recipe

from clusterproof import cli, parts
from clusterproof.client import Client
from clusterproof.objects import Object
from clusterproof.parts import Packing

from .fake_api import FakeApi

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "incluster/manifests"


def _instructions() -> list[tuple[str, str]]:
    text = (ROOT / "incluster/image/Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_dockerfile_says_what_the_recipe_says() -> None:
    said = _instructions()
    settings = dict(said)
    variables = dict(line.split("=", 1) for line in (shlex.split(rest)[0] for word, rest in said if word == "ENV"))
    assert variables == recipe.ENVIRONMENT
    assert settings["WORKDIR"] == recipe.FOLDER
    assert settings["USER"] == recipe.USER
    assert json.loads(settings["CMD"]) == list(recipe.COMMAND)
    assert settings["FROM"] == f"debian:{recipe.SUITE}-slim"
    assert any("packages.txt" in rest for word, rest in said if word == "RUN")
    assert any(f"--target=/{recipe.ROOT} --constraint=constraints.txt" in rest for word, rest in said if word == "RUN")


def test_the_dockerfile_takes_every_room() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = {name for word, rest in _instructions() if word == "COPY" for name in rest.split()[:-1]}
    assert copied >= set(project["tool"]["setuptools"]["package-dir"].values())


def test_manifests_have_the_image_of_this_version() -> None:
    for path in FOLDER.glob("*.yaml"):
        assert set(re.findall(r"image: (\S+)", path.read_text())) <= {recipe.REFERENCE}, path.name


def test_every_file_of_manifests_is_a_set() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(manifests.SETS)


def test_manifests_are_printed_for_an_image_and_a_number_of_shards(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["manifests", "shards", "nightly", "--image=registry.example/cp:1", "--shards=7"]) == 0
    said = capsys.readouterr().out
    (shards, merge, nightly) = yaml.safe_load_all(said)
    assert (shards["spec"]["completions"], shards["spec"]["parallelism"]) == (7, 7)
    assert (merge["kind"], nightly["kind"]) == ("Job", "CronJob")
    assert set(re.findall(r"image: (\S+)", said)) == {"registry.example/cp:1"}
    assert cli.main(["manifests", "shards", "--shards=0"]) == cli.MISUSED


def test_layers_are_packed_as_roots_for_ctr_and_docker(tmp_path: Path) -> None:
    (tmp_path / "layer/bin").mkdir(parents=True)
    (tmp_path / "layer/bin/tool").write_text("#!/bin/sh")
    (tmp_path / "layer/bin/tool").chmod(0o700)
    (tmp_path / "layer/link").symlink_to("bin/tool")
    with tarfile.open(tmp_path / "lowest.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("lowest"))
    layers = (tmp_path / "lowest.tar", tmp_path / "layer")
    image = Packing("localhost/x:1", layers, {"PATH": "/mine", "A": "b"}, "/bin", "1:2", ("tool",))
    parts.load().pack(tmp_path / "image.tar", image, print)

    with tarfile.open(tmp_path / "image.tar") as archive:

        def read(name: str) -> bytes:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()

        (listed,) = json.loads(read("manifest.json"))
        config = json.loads(read(listed["Config"]))["config"]
        lowest, upper = listed["Layers"]
        assert read(lowest) == (tmp_path / "lowest.tar").read_bytes()
        with tarfile.open(fileobj=archive.extractfile(upper)) as tar:
            members = {member.name: (member.mode, member.uid, member.linkname) for member in tar}
    assert listed["RepoTags"] == ["localhost/x:1"]
    assert (config["Env"], config["User"], config["WorkingDir"]) == (["PATH=/mine", "A=b"], "1:2", "/bin")
    assert config["Cmd"] == ["tool"]
    assert members == {"bin": (0o755, 0, ""), "bin/tool": (0o755, 0, ""), "link": (0o777, 0, "bin/tool")}


@pytest.fixture
def job(api: FakeApi, client: Client) -> Object:
    """A Job that has ended."""
    status = {"conditions": [{"type": "Complete", "status": "True"}]}
    raw = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "shards"}, "spec": {"completions": 2}}
    api.put("/apis/batch/v1/namespaces/here/jobs/shards", {**raw, "status": status})
    return Object(client, jobs.kinds.JOB, "shards", "here").read()


def test_results_come_back_as_they_were_handed_over(
    client: Client, job: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LIMIT", 10)
    first, second = b"".join(bytes([n]) * n for n in range(256)), b"second"
    for number, result in ((2, second), (1, first)):
        jobs.publish(client, job, number, b"of an earlier try, which came to more" * 9)
        jobs.publish(client, job, number, result)
    assert jobs.results(client, job) == {1: first, 2: second}


def test_outside_of_a_pod_a_shard_says_where_it_belongs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("JOB_NAME", raising=False)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    assert cli.main(["job-shard", "--", "suites/"]) == cli.MISUSED
    assert "(JOB_NAME is missing here); see: clusterproof manifests shards" in capsys.readouterr().err
    assert cli.main(["job-merge", "shards", "--output=x"]) == cli.MISUSED
    assert "this runs in pods with a service account" in capsys.readouterr().err


def test_a_job_has_ended_when_no_pod_of_it_will_run(client: Client) -> None:
    def seen(**status: object) -> str | None:
        raw = {"metadata": {"name": "shards"}, "spec": {"completions": 4}, "status": status}
        return jobs.ended(Object.of(client, raw, jobs.kinds.JOB))

    assert seen(succeeded=1, failed=2) == "1 of 4 pods have ended well, 2 badly"
    assert seen(conditions=[{"type": "Failed", "status": "True"}]) is None


def test_shards_are_for_pytest_with_all_its_words() -> None:
    parser = cli._parser({"job-shard": commands.shard})
    assert parser.parse_args(["job-shard", "--", "suites/", "-m", "smoke"]).arguments[-3:] == ["suites/", "-m", "smoke"]
