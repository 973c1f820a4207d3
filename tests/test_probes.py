"""Probes, against real HTTP servers on this machine; the pod of a probe inside is a local shell behind a fake API."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kubernetes.client import Configuration

from clusterproof import steps
from clusterproof.client import Client
from clusterproof.errors import NeverHappened, SurroundingsError
from clusterproof.namespace import Namespace
from clusterproof.probes import Answer, Lane, ProbeResult, inside, outside, together, unbroken


class Server(http.server.ThreadingHTTPServer):
    """Serves in the background, and does not mind clients that go away."""

    daemon_threads = True

    def __init__(self, answers: type[http.server.BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """Nothing: probes end with a request under way."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Web:
    """A web server that answers as told, and counts requests and connections."""

    def __init__(self) -> None:
        self.status = 200
        self.delay = 0.0
        self.paths: list[str] = []
        self.connections: set[Any] = set()
        self.hosts: set[str | None] = set()
        web = self

        class Answers(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                web.paths.append(self.path)
                web.connections.add(self.client_address)
                web.hosts.add(self.headers["Host"])
                time.sleep(web.delay)
                self.send_response(web.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                """Silent."""

        self.server = Server(Answers)
        self.url = self.server.url
        self.close = self.server.close


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


def until(met: Callable[[], object], within: float = 5.0) -> None:
    deadline = time.monotonic() + within
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lane(*answers: Answer, reuse: bool = False, rate: float = 10.0) -> Lane:
    return Lane("the runner", reuse, rate, answers)


def good(at: float, seconds: float = 0.01) -> Answer:
    return Answer(at, seconds)


def bad(at: float, seconds: float = 0.01, error: str = "could not connect", detail: str = "refused") -> Answer:
    return Answer(at, seconds, error, detail)


class TestAccounting:
    def test_a_quick_client_has_the_gap_of_its_pace(self) -> None:
        assert lane(good(1.0), good(1.1), good(1.2)).longest_gap == pytest.approx(0.1)

    def test_failed_requests_in_between_add_up(self) -> None:
        assert lane(good(1.0), bad(2.0, 1.0), bad(2.1), good(2.2)).longest_gap == pytest.approx(1.0 + 0.1 + 0.1)

    def test_a_slow_answer_is_a_gap(self) -> None:
        assert lane(good(1.0), good(1.9, 0.8)).longest_gap == pytest.approx(0.8)

    def test_an_outage_that_has_not_ended_is_a_gap(self) -> None:
        assert lane(good(1.0), bad(2.0, 1.0), bad(3.0, 1.0)).longest_gap == pytest.approx(2.0)

    def test_a_pause_of_the_client_itself_is_none(self) -> None:
        assert lane(good(1.0), good(9.0)).longest_gap == pytest.approx(0.1)

    def test_the_report_has_what_was_seen_by_interval(self) -> None:
        seen = lane(good(1.0), good(1.4, 0.2), bad(1.6, 0.1), good(2.6)).availability("http://web")
        assert (seen.started, seen.interval, seen.answered, seen.failed) == (1.0, 0.5, (2, 0, 0, 1), (0, 1, 0, 0))
        assert seen.slowest == (0.2, 0.1, 0.0, 0.01)
        assert seen.asked_from == "the runner, a new connection each time"

    def test_the_report_has_no_more_intervals_of_a_long_watch(self) -> None:
        seen = lane(*(good(at / 7) for at in range(70_000))).availability("http://web")
        assert (len(seen.answered), sum(seen.answered), len(seen.failed)) == (100, 70_000, 100)

    def test_p99_is_of_good_answers(self) -> None:
        answers = [good(n, n / 1000) for n in range(1, 101)]
        assert ProbeResult("u", (lane(*answers, bad(200, 5.0)),)).p99 == pytest.approx(0.099)

    def test_results_add_up(self) -> None:
        both = ProbeResult("u", (lane(good(1), bad(2)),)) + ProbeResult("u", (lane(bad(1.5), good(3)),))
        assert (both.requests, both.failures, both.errors, both.seconds) == (4, 2, {"could not connect": 2}, 2)
        assert both.first_failure == (
            1.5,
            "could not connect (refused), asked from the runner, a new connection each time",
        )

    def test_message_says_what_failed_when_and_from_where(self) -> None:
        result = ProbeResult("http://web", (lane(good(0.0), bad(0.5), bad(1.0, 0.4, "answered 503", ""), good(2.0)),))
        assert str(result) == (
            "4 requests to http://web in 2.0 s: 2 failed (1 x could not connect, 1 x answered 503), the first at "
            "1970-01-01T00:00:00.500Z: could not connect (refused), asked from the runner, a new connection each time; "
            "longest gap 0.60 s, p99 10 ms"
        )


class TestUnbroken:
    def test_met_by_good_answers_only(self) -> None:
        assert unbroken(ProbeResult("u", (lane(good(1)),))) is None
        assert "1 failed" in (unbroken(ProbeResult("u", (lane(good(1), bad(2)),))) or "")

    def test_a_probe_that_made_no_request_has_proven_nothing(self) -> None:
        assert "no request was made" in (unbroken(ProbeResult("u", ())) or "")
        idle = ProbeResult("u", (lane(good(1)), lane(reuse=True)))
        assert "one kept connection" in (unbroken(idle) or "")


class TestOutside:
    def test_keeps_its_pace_and_its_connection(self, web: Web) -> None:
        with outside(f"{web.url}/a?b=c", rate=100, reuse=True, headers={"Host": "shop.example"}) as probe:
            until(lambda: len(web.paths) >= 50)
        result = probe.result()
        assert unbroken(result) is None
        assert 80 <= result.rate <= 120
        assert result.connections == len(web.connections) == 1
        assert (set(web.paths), web.hosts) == ({"/a?b=c"}, {"shop.example"})

    def test_opens_a_connection_for_each_request(self, web: Web) -> None:
        with outside(web.url, rate=100, reuse=False) as probe:
            until(lambda: len(web.paths) >= 20)
        assert probe.result().connections == probe.result().requests == len(web.connections)

    def test_half_and_half(self, web: Web) -> None:
        with outside(web.url, rate=100) as probe:
            until(lambda: len(web.paths) >= 30)
        new, kept = sorted(probe.result().lanes, key=lambda found: found.reuse)
        assert (new.reuse, kept.reuse) == (False, True)
        assert min(len(new.answers), len(kept.answers)) >= 10

    def test_counts_error_answers(self, web: Web) -> None:
        with outside(web.url, rate=100, reuse=True) as probe:
            web.status = 503
            until(lambda: len(web.paths) >= 20)
        assert set(probe.result().errors) == {"answered 503"}

    def test_a_server_that_goes_away_is_a_gap_to_the_end(self, web: Web) -> None:
        with outside(web.url, rate=50) as probe:
            web.close()
            time.sleep(0.4)
        result = probe.result()
        assert result.errors["could not connect"] > 5
        assert 0.2 < result.longest_gap < 2.0

    def test_a_slow_answer_fails_and_delays_the_next_request(self, web: Web) -> None:
        with outside(web.url, rate=50, reuse=True, within=0.2) as probe:
            web.delay = 0.5
            time.sleep(0.7)
        result = probe.result()
        assert set(result.errors) == {"no answer in time"}
        assert result.failures <= 5

    def test_a_kept_connection_that_the_server_closed_is_opened_again(self) -> None:
        with closing_server() as url, outside(url, rate=50, reuse=True) as probe:
            time.sleep(0.3)
        result = probe.result()
        assert unbroken(result) is None
        assert result.connections == result.requests > 3

    def test_start_waits_for_a_first_good_answer(self, web: Web) -> None:
        web.status = 404
        threading.Timer(0.3, lambda: setattr(web, "status", 200)).start()
        with outside(web.url, rate=50, reuse=True) as probe:
            pass
        assert unbroken(probe.result()) is None
        assert len(web.paths) > probe.result().requests

    def test_start_says_what_came_instead(self, web: Web) -> None:
        web.status = 500
        with pytest.raises(NeverHappened, match=r"first good answer .* not within 0\.3 s.* answered 500"):
            outside(web.url, rate=50, reuse=True, patience=0.3).start()
        assert not [thread for thread in threading.enumerate() if thread.name == f"probe {web.url}"]

    def test_together_adds_up(self, web: Web) -> None:
        with together(outside(web.url, rate=50, reuse=True), outside(web.url, rate=50, reuse=False)) as probe:
            pass
        assert len(probe.result().lanes) == 2
        assert unbroken(probe.result()) is None

    def test_each_client_is_in_the_report_once(self, web: Web) -> None:
        record = steps.restart()
        with together(outside(web.url, rate=50), outside(web.url, rate=50)) as probe:
            pass
        probe.result()
        assert len(record.availability) == 4
        assert sum(sum(seen.answered) for seen in record.availability) == probe.result().requests

    @pytest.mark.parametrize("url", ["ftp://host/", "host:80", "http://"])
    def test_refuses_what_is_no_http_url(self, url: str) -> None:
        with pytest.raises(ValueError, match="a probe asks http"):
            outside(url, reuse=True).start()

    def test_refuses_a_rate_that_leaves_a_lane_idle(self) -> None:
        with pytest.raises(ValueError, match="at least one request per second"):
            outside("http://host", rate=1)


@contextlib.contextmanager
def closing_server() -> Iterator[str]:
    """A server that closes each connection after its first answer, without having said so."""

    class Answers(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = Server(Answers)
    yield server.url
    server.close()


class Pods:
    """An API server with one pod, which is a process of this machine."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self.read_to_end = threading.Event()
        self.manifests: list[dict[str, Any]] = []
        self.deleted = 0
        pods = self

        class Answers(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                manifest = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                pods.start(manifest)
                manifest["metadata"] |= {"namespace": "here", "resourceVersion": "1"}
                manifest["spec"]["nodeName"] = "node-1"
                self.answer(json.dumps({**manifest, "status": {"phase": "Running"}}))

            def do_DELETE(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                pods.deleted += 1
                self.answer("{}")

            def do_GET(self) -> None:
                if "tailLines=1" in self.path:
                    self.answer(pods.lines[-1])
                else:
                    self.follow()

            def follow(self) -> None:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    for line in pods.followed():
                        self.wfile.write(b"%x\r\n%s\n\r\n" % (len(line) + 1, line.encode()))
                    self.wfile.write(b"0\r\n\r\n")

            def answer(self, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Silent."""

        self.server = Server(Answers)
        configuration = Configuration()
        configuration.host = self.server.url
        self.namespace = Namespace("here", cast(Any, SimpleNamespace(run_id="r1", mixed=False)), Client(configuration))

    def start(self, manifest: dict[str, Any]) -> None:
        self.manifests.append(manifest)
        command = manifest["spec"]["containers"][0]["command"]
        # Its own session, so that the shell can be ended with all it has started, as a container is.
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        threading.Thread(target=self._log, args=(self.process,), daemon=True).start()

    def _log(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        with process.stdout as printed:
            for line in printed:
                self.lines.append(f"{datetime.now(UTC).isoformat().replace('+00:00', '000Z')} {line.rstrip()}")
        self.read_to_end.set()

    def followed(self) -> Iterator[str]:
        for number in itertools.count():
            while number >= len(self.lines):
                if self.process is None or (self.read_to_end.is_set() and number >= len(self.lines)):
                    return
                time.sleep(0.005)
            yield self.lines[number]

    def end(self) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                subprocess.run(["kill", "--", f"-{self.process.pid}"], check=False, stderr=subprocess.DEVNULL)
            self.process.wait()

    def close(self) -> None:
        self.end()
        self.server.close()


@pytest.fixture
def pods() -> Iterator[Pods]:
    fake = Pods()
    yield fake
    fake.close()


class TestInside:
    def test_asks_by_new_and_by_kept_connections(self, pods: Pods, web: Web) -> None:
        with inside(pods.namespace, f"{web.url}/a[1]?b={{c}}", image="agnhost:1", rate=100) as probe:
            until(lambda: len(web.paths) >= 100)
        result = probe.result()
        assert unbroken(result) is None
        assert set(web.paths) == {"/a[1]?b={c}"}
        new, kept = (found for found in result.lanes)
        assert sum(answer.connected for answer in kept.answers) <= 1
        assert all(answer.connected for answer in new.answers)
        assert kept.place == f"pod here/{pods.manifests[0]['metadata']['name']} on node-1"
        assert 60 <= result.rate <= 110
        assert result.longest_gap < 0.5

    def test_the_pod_is_fit_for_restricted_namespaces_and_goes_away(self, pods: Pods, web: Web) -> None:
        with inside(pods.namespace, web.url, image="agnhost:1", reuse=True, node="node-2"):
            assert pods.deleted == 0
        assert pods.deleted == 1
        manifest = pods.manifests[0]
        assert manifest["metadata"]["labels"]["clusterproof.dev/run"] == "r1"
        assert manifest["spec"]["securityContext"]["runAsNonRoot"] is True
        assert manifest["spec"]["containers"][0]["image"] == "agnhost:1"
        assert "node-2" in json.dumps(manifest["spec"]["affinity"])

    def test_goes_on_over_an_outage_and_measures_it(self, pods: Pods, web: Web) -> None:
        with inside(pods.namespace, web.url, image="agnhost:1", rate=50, reuse=True, within=0.3) as probe:
            web.delay = 0.5
            time.sleep(0.7)
            web.delay = 0.0
            asked = len(web.paths)
            until(lambda: len(web.paths) > asked + 10)
        result = probe.result()
        assert set(result.errors) == {"no answer in time"}
        assert 0.3 < result.longest_gap < 2.0
        assert result.first_failure
        assert abs(result.first_failure[0] - time.time()) < 10

    def test_counts_refused_connections_and_error_answers(self, pods: Pods, web: Web) -> None:
        with inside(pods.namespace, web.url, image="agnhost:1", rate=50) as probe:
            web.status = 503
            time.sleep(0.3)
            web.close()
            time.sleep(0.3)
        assert set(probe.result().errors) >= {"answered 503", "could not connect"}

    def test_a_request_under_way_when_it_is_stopped_counts(self, pods: Pods, web: Web) -> None:
        with inside(pods.namespace, web.url, image="agnhost:1", rate=50, reuse=True, within=0.4) as probe:
            web.delay = 5.0
            asked = len(web.paths)
            until(lambda: len(web.paths) > asked)
        assert probe.result().errors == {"no answer in time": 1}

    def test_a_probe_that_died_is_no_proof(self, pods: Pods, web: Web) -> None:
        probe = inside(pods.namespace, web.url, image="agnhost:1", reuse=True).start()
        pods.end()
        with pytest.raises(SurroundingsError, match="ended before it was stopped"):
            probe.stop()

    def test_a_log_that_lost_its_beginning_is_no_proof(self, pods: Pods, web: Web) -> None:
        probe = inside(pods.namespace, web.url, image="agnhost:1", reuse=True).start()
        until(lambda: len(pods.lines) > 3)
        del pods.lines[0]
        with pytest.raises(SurroundingsError, match="discarded the beginning"):
            probe.stop()

    def test_start_says_what_came_instead(self, pods: Pods) -> None:
        probe = inside(pods.namespace, "http://127.0.0.1:9", image="agnhost:1", reuse=True, patience=0.3)
        with pytest.raises(NeverHappened, match=r"first good answer from http://127.0.0.1:9 to pod here/.*connect"):
            probe.start()
        assert pods.deleted == 1

    def test_an_image_without_curl_is_the_surroundings(
        self, pods: Pods, web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "sh").symlink_to("/bin/sh")
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(SurroundingsError, match=r"0 requests failed; last seen: .*not found"):
            inside(pods.namespace, web.url, image="agnhost:1", reuse=True).start()

    def test_an_error_of_the_block_is_not_replaced(self, pods: Pods, web: Web) -> None:
        with pytest.raises(RuntimeError, match="of the promise"):
            self._breaks(pods, web)
        assert pods.deleted == 1

    def _breaks(self, pods: Pods, web: Web) -> None:
        with inside(pods.namespace, web.url, image="agnhost:1", reuse=True):
            pods.end()
            raise RuntimeError("of the promise")
