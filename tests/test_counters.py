"""What an API server counts, as it tells it."""

from __future__ import annotations

from typing import Any

import pytest

from clusterproof import counters
from clusterproof.client import Client
from clusterproof.errors import ApiError

from .fake_api import FakeApi

SAID = b"""# HELP checks_total How often something was checked.
checks_total{mode="audit",policy="a"} 2
checks_total{mode="audit",policy="b"} 1e+02
checks_total{mode="warn",policy="a"} 5
checks_total_more{mode="audit"} 7
"""


def test_what_was_counted_is_summed_up_over_the_other_labels(api: FakeApi, client: Client) -> None:
    def answer(handler: Any) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(SAID)))
        handler.end_headers()
        handler.wfile.write(SAID)
        return True

    api.overrides["GET /metrics"] = answer
    assert counters.total(client, "checks_total", mode="audit") == 102
    assert counters.total(client, "checks_total", mode="audit", policy="c") == 0


def test_who_may_not_read_it_is_told(api: FakeApi, client: Client) -> None:
    def refuse(handler: Any) -> bool:
        handler.fail(403, "Forbidden", 'User "jane" cannot get path "/metrics"')
        return True

    api.overrides["GET /metrics"] = refuse
    with pytest.raises(ApiError, match='User "jane" cannot get path'):
        counters.total(client, "checks_total")
