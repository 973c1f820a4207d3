"""The `clusterproof` command."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from clusterproof import cli
from clusterproof.errors import ApiError, NeverHappened, SurroundingsError
from clusterproof.running import ledger

from .fake_api import FakeApi

Run = Callable[..., tuple[int, str, str]]

RUN = """
import os, sys, tempfile, time
from clusterproof.running import run
tempfile.tempdir = sys.argv[1]
folder, parent = run.RunFolder.make("run"), os.getpid()
folder.write("plan.json", {})
if os.fork():
    time.sleep(60)
print(folder.path, flush=True)
while os.getppid() == parent:
    time.sleep(0.01)
print("removed by its child:", *run.sweep())
"""


class Point:
    """An entry point, as far as the command cares."""

    def __init__(self, name: str, target: Any) -> None:
        self.name = name
        self.value = "a.room:thing"
        self._target = target

    def load(self) -> Any:
        if isinstance(self._target, Exception):
            raise self._target
        return self._target


class Brew:
    """A command of some room."""

    help = "make coffee"

    def __init__(self, behaviour: Callable[[], int] = lambda: 0) -> None:
        self._behaviour = behaviour

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--cups", type=int, default=1, help="how many")

    def run(self, args: argparse.Namespace) -> int:
        print(f"{args.cups} cups")
        return self._behaviour()


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Point]]:
    """Entry points by group; tests add to them."""
    found: dict[str, list[Point]] = {cli.COMMANDS: [], cli.SWEEPERS: []}
    monkeypatch.setattr(cli, "entry_points", lambda group: found[group])
    return found


@pytest.fixture
def run(points: dict[str, list[Point]], capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; its exit code, output and error output."""

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            code = cli.main(arguments)
        except SystemExit as end:
            code = int(str(end.code))
        return code, *capsys.readouterr()

    return call


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("KUBECONFIG", "CONTEXT", "IMAGE_REGISTRY"):
        monkeypatch.delenv(f"CLUSTERPROOF_{name}", raising=False)


class TestCommands:
    def test_help_lists_own_commands_and_those_of_rooms(self, run: Run, points: dict[str, list[Point]]) -> None:
        points[cli.COMMANDS].append(Point("brew", Brew()))
        for arguments in ([], ["--help"]):
            code, output, errors = run(*arguments)
            assert (code, errors) == (0, "")
            assert "brew      make coffee" in output
            assert "version   print the version" in output

    def test_a_room_s_command_gets_its_arguments(self, run: Run, points: dict[str, list[Point]]) -> None:
        points[cli.COMMANDS].append(Point("brew", Brew(lambda: 7)))
        assert run("brew", "--cups", "3") == (7, "3 cups\n", "")
        assert "Make coffee." in run("brew", "--help")[1]

    def test_a_room_that_cannot_be_loaded_leaves_the_others_working(
        self, run: Run, points: dict[str, list[Point]]
    ) -> None:
        points[cli.COMMANDS] += [Point("brew", ImportError("No module named 'beans'")), Point("pour", Brew())]
        assert run("pour")[0] == 0
        assert "not available in this installation" in run("--help")[1]
        expected = "clusterproof: brew: a.room:thing cannot be loaded: No module named 'beans'\n"
        assert run("brew", "--cups", "3") == (1, "", expected)

    def test_version(self, run: Run) -> None:
        assert run("version") == (0, f"clusterproof {version('clusterproof')}\n", "")

    def test_images_one_a_line(self, run: Run) -> None:
        code, output, _ = run("images")
        assert code == 0
        assert all(line.startswith("registry.k8s.io/e2e-test-images/agnhost:") for line in output.splitlines())

    def test_images_of_another_registry(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        output = run("images", "--image-registry=mirror.example/k8s")[1]
        assert all(line.startswith("mirror.example/k8s/e2e-test-images/agnhost:") for line in output.splitlines())
        monkeypatch.setenv("CLUSTERPROOF_IMAGE_REGISTRY", "mirror.example/k8s")
        assert run("images")[1] == output


class TestBadInput:
    def test_an_unknown_command_is_one_sentence(self, run: Run) -> None:
        code, output, errors = run("sweap")
        assert (code, output) == (4, "")
        assert errors == ("clusterproof: there is no command 'sweap'; did you mean 'sweep'?; see clusterproof --help\n")
        assert "there are doctor, images, sweep, version" in run("frobnicate")[2]

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["version", "--loud"], "clusterproof: unrecognized arguments: --loud"),
            (["sweep", "--within=soon"], "clusterproof sweep: argument --within: invalid float value: 'soon'"),
            (["sweep", "--run"], "clusterproof sweep: argument --run: expected one argument"),
        ],
    )
    def test_bad_options_are_one_sentence(self, run: Run, arguments: list[str], complaint: str) -> None:
        code, output, errors = run(*arguments)
        assert (code, output) == (4, "")
        assert errors.startswith(complaint)
        assert len(errors.splitlines()) == 1


class TestTrouble:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (SurroundingsError("the cluster\nis gone"), 1),
            (NeverHappened("the cluster is gone"), 1),
            (pytest.UsageError("the cluster is gone"), 4),
        ],
    )
    def test_a_known_error_is_one_sentence(
        self, run: Run, points: dict[str, list[Point]], error: Exception, code: int
    ) -> None:
        points[cli.COMMANDS].append(Point("brew", Brew(raising(error))))
        assert run("brew") == (code, "1 cups\n", "clusterproof: the cluster is gone\n")

    def test_a_refusal_of_the_api_server_is_one_sentence(self, run: Run, points: dict[str, list[Point]]) -> None:
        error = ApiError(403, "Forbidden", "not yours", "GET", "/api", {})
        points[cli.COMMANDS].append(Point("brew", Brew(raising(error))))
        assert run("brew")[2] == "clusterproof: GET /api: 403 Forbidden: not yours\n"

    def test_ctrl_c_ends_quietly(self, run: Run, points: dict[str, list[Point]]) -> None:
        points[cli.COMMANDS].append(Point("brew", Brew(raising(KeyboardInterrupt()))))
        code, _, errors = run("brew")
        assert (code, errors) == (130, "")

    def test_a_mistake_of_ours_is_not_hidden(self, run: Run, points: dict[str, list[Point]]) -> None:
        points[cli.COMMANDS].append(Point("brew", Brew(raising(ZeroDivisionError()))))
        with pytest.raises(ZeroDivisionError):
            run("brew")


def raising(error: BaseException) -> Callable[[], int]:
    def behave() -> int:
        raise error

    return behave


def test_whoever_stops_reading_is_told_nothing() -> None:
    command = [Path(sys.executable).with_name("clusterproof"), "images"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == cli.UNREAD


class TestSweep:
    def test_without_a_cluster_sweeps_the_machine(self, run: Run, points: dict[str, list[Point]]) -> None:
        asked: list[tuple[str, bool]] = []

        def sweeper(run_id: str, everything: bool) -> Iterator[str]:
            asked.append((run_id, everything))
            yield "removed process 17"

        points[cli.SWEEPERS].append(Point("room", sweeper))
        assert run("sweep", "--run=r1") == (0, "removed process 17\n", "")
        assert run("sweep", "--all")[0] == 0
        assert asked == [("r1", False), ("", True)]

    def test_says_when_nothing_was_left(self, run: Run) -> None:
        assert run("sweep")[1] == "nothing was left on this machine; no cluster was named\n"

    def test_removes_files_of_runs_of_which_no_process_is_left(self, run: Run, tmp_path: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", RUN, tmp_path], stdout=subprocess.PIPE, text=True) as alive:
            assert alive.stdout
            folder = alive.stdout.readline().strip()
            assert run("sweep")[1].startswith("nothing was left")
            alive.kill()
            # Its child goes on for a moment, with the same files.
            assert alive.stdout.read() == "removed by its child:\n"

        assert run("sweep", "--run=other")[1].startswith("nothing was left")
        assert run("sweep", "--run=run") == (0, f"removed files of a killed run: {folder}\n", "")
        assert not Path(folder).exists()

    def test_sweeps_the_named_cluster(self, run: Run, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[str, str, float]] = []

        def sweep(client: Any, run_id: str, *, within: float) -> ledger.Swept:
            asked.append((client.server, run_id, within))
            return ledger.Swept(("Namespace a",), ("Namespace b: still there",))

        monkeypatch.setattr(ledger, "sweep", sweep)
        code, output, errors = run("sweep", f"--kubeconfig={kubeconfig}", "--context=fake", "--run=r1", "--within=9")
        assert (code, output, errors) == (1, "removed Namespace a\n", "still there: Namespace b: still there\n")
        assert [call[1:] for call in asked] == [("r1", 9.0)]

    def test_sweeps_for_real(self, run: Run, kubeconfig: Path) -> None:
        assert run("sweep", f"--kubeconfig={kubeconfig}", "--run=r1") == (0, "nothing was left\n", "")

    @pytest.mark.parametrize("option", ["--kubeconfig=/nowhere", "--context=other"])
    def test_a_cluster_that_is_not_there(self, run: Run, kubeconfig: Path, option: str) -> None:
        code, output, errors = run("sweep", f"--kubeconfig={kubeconfig}", option)
        assert (code, output) == (4, "")
        assert errors.startswith(f"clusterproof: {option}: ")
        assert len(errors.splitlines()) == 1

    @pytest.mark.parametrize("content", ["{", "[]", "contexts: 1", "\x00"])
    def test_what_is_no_kubeconfig_is_one_sentence(self, run: Run, tmp_path: Path, content: str) -> None:
        (tmp_path / "config").write_text(content)
        code, output, errors = run("sweep", f"--kubeconfig={tmp_path / 'config'}")
        assert (code, output) == (4, "")
        assert errors.startswith(f"clusterproof: --kubeconfig={tmp_path / 'config'}: ")
        assert len(errors.splitlines()) == 1

    def test_nobody_sweeps_as_somebody_else(self, run: Run, api: FakeApi, tmp_path: Path) -> None:
        failing = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/false", "interactiveMode": "Never"}
        code, output, errors = run("sweep", f"--kubeconfig={api.kubeconfig(tmp_path / 'config', exec=failing)}")
        assert (code, output) == (4, "")
        assert "context 'fake': no credentials: " in errors
        assert api.requests == []
