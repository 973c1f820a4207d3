"""How promises are divided among shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clusterproof.running import shards

SECONDS = {f"area/thing/{number}": float(number % 17) for number in range(101)}


@pytest.mark.parametrize("number", [1, 2, 4, 7, 150])
def test_every_promise_is_in_one_part(number: int) -> None:
    parts = shards.divide(SECONDS, number)
    assert len(parts) == number
    assert sorted(id for part in parts for id in part) == sorted(SECONDS)


def test_the_order_of_collection_does_not_matter() -> None:
    assert shards.divide(dict(reversed(SECONDS.items())), 4) == shards.divide(SECONDS, 4)


def test_parts_take_about_as_long() -> None:
    loads = [sum(SECONDS[id] for id in part) for part in shards.divide(SECONDS, 4)]
    assert max(loads) - min(loads) <= 1.0


def test_without_known_times_the_parts_have_as_many() -> None:
    sizes = [len(part) for part in shards.divide(shards.weights(dict.fromkeys(SECONDS, False), None), 4)]
    assert max(sizes) - min(sizes) <= 1


def test_known_times_are_taken_from_an_earlier_result(tmp_path: Path) -> None:
    earlier = tmp_path / "result.json"
    results = [{"id": "a/b", "seconds": 9, "outcome": "kept"}, {"id": "a/c", "seconds": 1, "outcome": "error"}]
    earlier.write_text(json.dumps({"results": results}))
    found = shards.weights({"a/b": False, "a/c": False, "a/new": True}, earlier)
    assert found == {"a/b": 9.0, "a/c": shards.SHORT, "a/new": shards.LONG}


def test_an_earlier_result_that_is_none(tmp_path: Path) -> None:
    earlier = tmp_path / "result.json"
    earlier.write_text("[]")
    with pytest.raises(pytest.UsageError, match=r"--shard-by=.*: a result\.json is expected"):
        shards.weights({}, earlier)
