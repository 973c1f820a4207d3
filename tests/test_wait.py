"""Waiting, against a server that watches, drops connections and forgets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from clusterproof import conditions, kinds, steps, wait
from clusterproof.client import Client
from clusterproof.errors import ApiError, Hopeless, NeverHappened, SurroundingsError
from clusterproof.namespace import create
from clusterproof.objects import Object, Selection

from .fake_api import FakeApi

MAPS = "/api/v1/namespaces/ns/configmaps"


def config_map(name: str = "one", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def says(value: str) -> Callable[[Object], str | None]:
    def says(item: Object) -> str | None:
        found = (item.raw.get("data") or {}).get("word")
        return None if found == value else f"its word is {found}"

    return says


def later(action: Callable[[], object], seconds: float = 0.1) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def test_an_own_write_is_evaluated_and_watched_without_reading(api: FakeApi, client: Client) -> None:
    made = create(client, kinds.CONFIG_MAP, config_map(), "run", "ns")
    later(lambda: api.put(f"{MAPS}/one", config_map(word="yes")))
    before = len(api.requests)
    seen = wait.eventually(made, says("yes"), within=5)
    assert seen is made
    assert seen.raw["data"] == {"word": "yes"}
    assert [line.partition("?")[0] for line in api.requests[before:]] == [f"GET {MAPS}"]


def test_an_own_write_is_believed_only_once(api: FakeApi, client: Client) -> None:
    made = create(client, kinds.CONFIG_MAP, config_map(word="old"), "run", "ns")
    wait.eventually(made, says("old"), within=1)
    api.put(f"{MAPS}/one", config_map(word="new"))
    with pytest.raises(NeverHappened, match="its word is new"):
        wait.eventually(made, says("old"), within=0.2)


def test_what_is_missing_is_said_with_the_object_and_the_time(client: Client) -> None:
    made = create(client, kinds.CONFIG_MAP, config_map(word="no"), "run", "ns")
    with pytest.raises(NeverHappened) as caught:
        wait.eventually(made, says("yes"), within=0.3)
    message = str(caught.value)
    assert message.startswith("ConfigMap ns/one says: not within 0.3 s; its word is no; last seen: one")
    assert "--timeout-scale" in message


def test_a_wait_takes_its_time_and_no_longer(client: Client) -> None:
    made = create(client, kinds.CONFIG_MAP, config_map(), "run", "ns")
    started = time.monotonic()
    with pytest.raises(NeverHappened):
        wait.eventually(made, says("yes"), within=0.4)
    assert 0.4 <= time.monotonic() - started < 1


def test_an_object_that_does_not_exist_yet(api: FakeApi, client: Client) -> None:
    handle = Object(client, kinds.CONFIG_MAP, "one", "ns")
    later(lambda: api.put(f"{MAPS}/one", config_map(word="yes")))
    wait.eventually(handle, says("yes"), within=5)
    with pytest.raises(NeverHappened, match="it does not exist"):
        wait.eventually(Object(client, kinds.CONFIG_MAP, "two", "ns"), says("yes"), within=0.2)


def test_deleted_and_recreated(api: FakeApi, client: Client) -> None:
    made = create(client, kinds.CONFIG_MAP, config_map(), "run", "ns")

    def replace() -> None:
        api.remove(f"{MAPS}/one")
        api.put(f"{MAPS}/one", config_map(word="yes"))

    later(replace)
    wait.eventually(made, says("yes"), within=5)


def test_gone(api: FakeApi, client: Client) -> None:
    made = create(client, kinds.CONFIG_MAP, config_map(), "run", "ns")
    later(made.delete)
    assert wait.eventually(made, conditions.gone, within=5).raw == {}
    made.raw = {"metadata": {"name": "one"}}
    wait.eventually(made, conditions.gone, within=1)
    wait.eventually(Selection(client, kinds.CONFIG_MAP, "ns"), conditions.gone, within=1)


def test_a_selection_follows_additions_changes_and_removals(api: FakeApi, client: Client) -> None:
    maps = Selection(client, kinds.CONFIG_MAP, "ns")
    api.put(f"{MAPS}/a", config_map("a"))

    def change() -> None:
        api.put(f"{MAPS}/b", config_map("b"))
        api.put(f"{MAPS}/c", config_map("c"))
        api.remove(f"{MAPS}/a")

    later(change)

    def are_b_and_c(items: list[Object]) -> str | None:
        names = [item.name for item in items]
        return None if names == ["b", "c"] else f"they are {names}"

    assert len(wait.eventually(maps, are_b_and_c, within=5)) == 2


def test_what_is_there_and_what_comes_is_one_request(api: FakeApi, client: Client) -> None:
    api.put(f"{MAPS}/a", config_map("a"))
    later(lambda: api.put(f"{MAPS}/b", config_map("b")))
    before = len(api.requests)
    wait.eventually(Selection(client, kinds.CONFIG_MAP, "ns"), conditions.count(2), within=5)
    assert len(api.requests) == before + 1


@pytest.mark.parametrize("answer", ["refused", "endless"])
def test_a_server_that_cannot_tell_what_is_there_is_asked_for_a_list(
    answer: Any, api: FakeApi, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "BEGINNING", 0.5)
    api.initial_events = answer
    api.put(f"{MAPS}/a", config_map("a"))
    maps = Selection(client, kinds.CONFIG_MAP, "ns")
    later(lambda: api.put(f"{MAPS}/b", config_map("b")), 1)
    before = len(api.requests)
    wait.eventually(maps, conditions.count(2), within=5)
    assert ["sendInitialEvents" in line for line in api.requests[before:]] == [True, False, False]
    before = len(api.requests)
    wait.eventually(maps, conditions.count(2), within=5)
    assert len(api.requests) == before + 1, "it is not asked in vain again"


def test_who_may_not_watch_may_still_read(api: FakeApi, client: Client) -> None:
    def refuse(handler: Any) -> bool:
        if "watch" in handler.query:
            handler.fail(403, "Forbidden")
        return "watch" in handler.query

    api.overrides[f"GET {MAPS}"] = refuse
    api.put(f"{MAPS}/a", config_map("a"))
    wait.eventually(Selection(client, kinds.CONFIG_MAP, "ns"), conditions.count(1), within=5)


def test_an_expired_version_is_listed_again(api: FakeApi, client: Client) -> None:
    made = create(client, kinds.CONFIG_MAP, config_map(), "run", "ns")
    api.put(f"{MAPS}/one", config_map(word="yes"))
    api.oldest = api.version
    wait.eventually(made, says("yes"), within=5)


def test_a_dropped_connection_is_no_failure(api: FakeApi, client: Client) -> None:
    made = create(client, kinds.CONFIG_MAP, config_map(), "run", "ns")
    drops = iter([True, True])

    def drop(handler: BaseHTTPRequestHandler) -> bool:
        if next(drops, False):
            handler.close_connection = True
            handler.connection.close()
            return True
        return False

    api.overrides[f"GET {MAPS}"] = drop
    later(lambda: api.put(f"{MAPS}/one", config_map(word="yes")), 0.3)
    wait.eventually(made, says("yes"), within=5)


def test_a_connection_that_stays_lost_is_trouble_of_the_surroundings(client: Client) -> None:
    nobody = client.as_user("nobody")
    nobody.configuration.host = "http://127.0.0.1:9"
    with pytest.raises(SurroundingsError, match="cannot connect"):
        wait.eventually(Object(nobody, kinds.CONFIG_MAP, "one", "ns"), says("yes"), within=0.5)


def test_a_state_that_was_told_late_was_seen(api: FakeApi, client: Client) -> None:
    """A server that needs all of the time to tell what there is has been reached: what it told is what is missing."""
    api.initial_events = "refused"
    api.put(f"{MAPS}/one", config_map(word="no"))
    api.overrides[f"GET {MAPS}"] = lambda handler: bool(time.sleep(0.8))
    with pytest.raises(NeverHappened, match="its word is no"):
        wait.eventually(Object(client, kinds.CONFIG_MAP, "one", "ns"), says("yes"), within=1.2)


def test_a_refused_read_ends_the_wait_at_once(api: FakeApi, client: Client) -> None:
    def refuse(handler: Any) -> bool:
        handler.fail(403, "Forbidden")
        return True

    api.overrides[f"GET {MAPS}"] = refuse
    with pytest.raises(ApiError, match="403 Forbidden"):
        wait.eventually(Object(client, kinds.CONFIG_MAP, "one", "ns"), says("yes"), within=30)


def test_hopeless_ends_the_wait_at_once(client: Client) -> None:
    def hopeless(item: Object) -> str | None:
        raise Hopeless("it failed")

    made = create(client, kinds.CONFIG_MAP, config_map(), "run", "ns")
    with pytest.raises(Hopeless, match="ConfigMap ns/one hopeless: it failed"):
        wait.eventually(made, hopeless, within=30)


def test_a_callable_is_read_until_it_meets_the_condition() -> None:
    answers = iter([1, 2, 3])

    def number() -> int:
        return next(answers)

    assert wait.eventually(number, conditions.equals(3), within=5) == 3


def test_a_callable_may_be_refused_at_first() -> None:
    refusals = iter([ApiError(503, "Unavailable", "starting", "GET", "/x", {})])

    def page() -> str:
        for refusal in refusals:
            raise refusal
        return "up"

    assert wait.eventually(page, conditions.equals("up"), within=5) == "up"


def test_consistently_sees_a_moment(api: FakeApi, client: Client) -> None:
    made = create(client, kinds.CONFIG_MAP, config_map(word="yes"), "run", "ns")

    def flicker() -> None:
        api.put(f"{MAPS}/one", config_map(word="no"))
        api.put(f"{MAPS}/one", config_map(word="yes"))

    later(flicker)
    with pytest.raises(NeverHappened, match="no longer after"):
        wait.consistently(made, says("yes"), during=2)
    started = time.monotonic()
    wait.consistently(made, says("yes"), during=0.3)
    assert time.monotonic() - started >= 0.3


def test_watching_misses_nothing(api: FakeApi, client: Client) -> None:
    api.put(f"{MAPS}/a", config_map("a"))
    with wait.watching(Selection(client, kinds.CONFIG_MAP, "ns")) as history:
        for number in range(20):
            api.put(f"{MAPS}/b", config_map("b", word=str(number)))
        api.remove(f"{MAPS}/a")
    assert [len(state) for state in history.states] == [1, *[2] * 20, 1]
    with pytest.raises(NeverHappened, match="not at moment 1 of 22"):
        history.every(conditions.count(2))


def test_every_wait_is_a_step(client: Client) -> None:
    record = steps.restart()
    made = create(client, kinds.CONFIG_MAP, config_map(word="yes"), "run", "ns")
    wait.eventually(made, says("yes"), within=1)
    with pytest.raises(NeverHappened):
        wait.eventually(made, says("no"), within=0.1)
    assert [(step.name, step.passed) for step in record.steps] == [
        ("wait until ConfigMap ns/one says", True),
        ("wait until ConfigMap ns/one says", False),
    ]
