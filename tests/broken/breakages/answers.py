"""An API server that understands what it is asked for in its own way, in one respect each: through a proxy."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from clusterproof.credentials import unpadded

from ..registry import Damage, breakage
from ..relay import Answer, Ask, Request
from ..subject import Subject
from .apis import through

MERGE = "application/merge-patch+json"


@contextlib.contextmanager
def query(request: Request) -> Iterator[dict[str, str]]:
    """What follows the path, to be changed in place."""
    path, _, text = request.path.partition("?")
    found = dict(parse_qsl(text, keep_blank_values=True))
    yield found
    request.path = f"{path}?{urlencode(found)}" if found else path


def namespaced(request: Request) -> bool:
    """Whether it is about objects in a namespace: what holds the run itself together is not to suffer."""
    return bool(re.search(r"/namespaces/[^/?]+/", request.path))


def misunderstood(
    name: str,
    meaning: str,
    change: Callable[[Request], None],
    *,
    breaks: Mapping[str, str],
    keeps: Sequence[str],
    scale: float = 0.3,
) -> None:
    """Register a breakage: requests about objects in a namespace are changed before the API server sees them."""

    @breakage(name=name, meaning=meaning, breaks=breaks, keeps=keeps, scale=scale)
    def misunderstand(subject: Subject) -> Damage:
        def asked(request: Request) -> None:
            if namespaced(request):
                change(request)

        with through(subject, asked=asked) as arguments:
            yield arguments


def _ignoring(*parameters: str) -> Callable[[Request], None]:
    """Drops parameters of the query."""

    def change(request: Request) -> None:
        with query(request) as asked:
            for parameter in parameters:
                asked.pop(parameter, None)

    return change


def _names_only(request: Request) -> None:
    with query(request) as asked:
        if not asked.get("fieldSelector", "metadata.name=").startswith("metadata.name="):
            del asked["fieldSelector"]


def _merge(request: Request) -> None:
    if request.method == "PUT":
        request.method, request.headers["Content-Type"] = "PATCH", "application/merge-patch+json"


def _force(request: Request) -> None:
    if "apply-patch" in request.headers.get("Content-Type", ""):
        with query(request) as asked:
            asked["force"] = "true"


def _forget_tests(request: Request) -> None:
    if "json-patch" in request.headers.get("Content-Type", ""):
        request.body = json.dumps([each for each in json.loads(request.body) if each["op"] != "test"]).encode()


def _forget_the_moment(request: Request) -> None:
    with query(request) as asked:
        if token := asked.get("continue", ""):
            with contextlib.suppress(ValueError):
                known = json.loads(unpadded(token))
                known["rv"] = -1  # what the server itself gives out when it has forgotten that moment
                asked["continue"] = base64.urlsafe_b64encode(json.dumps(known).encode()).decode().rstrip("=")


def _only_try(request: Request) -> None:
    path = request.path.partition("?")[0]
    if path.endswith("/scale") and request.method in ("PUT", "PATCH"):
        with query(request) as asked:
            asked["dryRun"] = "All"


def _tell_the_whole_log(request: Request) -> None:
    if request.path.partition("?")[0].endswith("/log"):
        with query(request) as asked:
            asked.pop("sinceSeconds", None)


def _everywhere(request: Request) -> None:
    if request.method == "GET":
        request.path = re.sub(r"^/api/v1/namespaces/[^/?]+/configmaps(?=\?|$)", "/api/v1/configmaps", request.path)


def _plainly(wanted: str) -> Callable[[Request], None]:
    """Asks for plain JSON where what is wanted has these words in it."""

    def change(request: Request) -> None:
        for header in ("Accept", "Content-Type"):
            if wanted in request.headers.get(header, ""):
                request.headers[header] = "application/json"

    return change


misunderstood(
    "protobuf_not_spoken",
    "What is asked for in Protobuf is told in JSON.",
    _plainly("protobuf"),
    breaks={"api/representations": r"ConfigMap \S+/item in Protobuf begins with b'\{"},
    keeps=["api/field_selectors"],
)
misunderstood(
    "tables_not_told",
    "What is asked for as a table is told as an object.",
    _plainly("as=Table;"),
    breaks={"api/representations": r"ConfigMap \S+/item as a table has the rows \[\], not one"},
    keeps=["api/field_selectors"],
)
misunderstood(
    "metadata_with_everything",
    "Whoever asks for metadata alone is told all there is.",
    _plainly("as=PartialObjectMetadata;"),
    breaks={"api/representations": r"the metadata of ConfigMap \S+/item alone are \('ConfigMap', 'item', True\)"},
    keeps=["api/field_selectors"],
)
misunderstood(
    "any_media_type_taken",
    "Whatever media type is asked for, or sent, is taken for JSON.",
    _plainly("application/strange"),
    breaks={"api/representations": r"ConfigMap \S+/item, asked for as \S+, was answered with \d+, not 406"},
    keeps=["api/field_selectors"],
)
misunderstood(
    "label_selectors_ignored",
    "Label selectors select everything.",
    _ignoring("labelSelector"),
    breaks={
        "api/labels/selectors": r"'tier=\S+' selects 'abcde\S*', not",
        "api/labels/watched": r"a watch for tier=db .* was told \[\('MODIFIED', '1'\)",
        "api/pagination": r"ConfigMaps of \S+ .*",
        "extend/crd/served": r"a watch of \S+ \S+/red MUST tell each change once",
    },
    keeps=["api/crud_conflict/stale_write"],
)
misunderstood(
    "log_times_ignored",
    "Whoever asks for what a log says of late is told everything.",
    _tell_the_whole_log,
    breaks={"pods/interactive/logs": r"the last second of the log of Pod \S+ is what was said: not within"},
    keeps=["pods/interactive/exec"],
)
misunderstood(
    "field_selectors_for_names_only",
    "Field selectors look at names only.",
    _names_only,
    breaks={"api/field_selectors": r"the field selector \S+ selects \['one', 'other'\]"},
    keeps=["api/pagination"],
)
misunderstood(
    "replacements_merged",
    "What replaces an object is merged into it.",
    _merge,
    breaks={"api/crud_conflict/verbs": r"kept a field that it was replaced without"},
    keeps=["api/crud_conflict/stale_write"],
)
misunderstood(
    "field_selectors_ignored",
    "Field selectors select everything.",
    _ignoring("fieldSelector"),
    breaks={
        "api/pagination": r"the field selector for item-007 selects \[",
        "extend/crd/selectable_fields": r"field selectors of \S+ select \{'spec\.color=red': \['a', 'b', 'c'\]",
    },
    keeps=["api/labels/selectors"],
)
misunderstood(
    "dry_runs_applied",
    "Dry runs are carried out.",
    _ignoring("dryRun"),
    breaks={"api/crud_conflict/dry_run": r"dry runs MUST store nothing, but changed ConfigMap \S+/item"},
    keeps=["api/crud_conflict/stale_write"],
)
misunderstood(
    "unknown_fields_swallowed",
    "Nobody is strict about fields that do not exist.",
    _ignoring("fieldValidation"),
    breaks={"api/crud_conflict/unknown_fields": r"spec\.slector under strict validation MUST be refused with 400"},
    keeps=["api/crud_conflict/validation"],
)
misunderstood(
    "page_sizes_ignored",
    "Lists come in one piece, however small their pages are to be.",
    _ignoring("limit"),
    breaks={"api/pagination": r"pages of at most \d+ hold \["},
    keeps=["api/labels/selectors"],
)
misunderstood(
    "pages_of_other_moments",
    "Each page of a list shows what there is when it is asked for.",
    _forget_the_moment,
    breaks={"api/pagination": r"ConfigMaps of \S+ in pages of \d+ MUST be 250, but .*(missing|item-late)"},
    keeps=["api/labels/selectors"],
)
misunderstood(
    "applies_forced",
    "Whoever applies a field gets it, whoever owns it.",
    _force,
    breaks={
        "api/server_side_apply": r"applying another color of \S+ \S+ than its owner alice MUST be refused with 409",
        "extend/crd/served": r"applying another color of \S+ \S+ than its owner MUST be refused with 409",
    },
    keeps=["api/crud_conflict/stale_write"],
)
misunderstood(
    "patches_untested",
    "JSON patches are applied although their tests fail.",
    _forget_tests,
    breaks={"api/crud_conflict/verbs": r"a JSON patch of \S+ \S+ whose test fails MUST be refused with 422"},
    keeps=["api/crud_conflict/stale_write"],
)
misunderstood(
    "scales_not_stored",
    "A new number of replicas is acknowledged and forgotten.",
    _only_try,
    breaks={
        "apps/deployment/scale": r"Deployment \S+/web scaled: not within .* 1 replicas, not 2",
        "apps/replicaset/scale": r"not within .* there are \d, not \d",
        "apps/statefulset/parallel": r"number exactly 1.* there are 3, not 1",
        "extend/crd/subresources": r"was scaled to 5, but is \{'count': 2\}",
    },
    keeps=["apps/deployment/self_heal"],
)
misunderstood(
    "namespaces_mixed_up",
    "Lists and watches of a namespace's ConfigMaps tell of those of all.",
    _everywhere,
    breaks={"api/namespaces/isolation": r"a watch of \S+ was told about"},
    keeps=["api/crud_conflict/stale_write"],
)


@breakage(
    breaks={
        "api/crud_conflict/stale_write": r"replacing \S+ \S+ as it was one version ago MUST be refused with 409",
        "api/crud_conflict/concurrent_writes": r"all acknowledged, \d+ times after a conflict, but it counts \d",
        "extend/crd/lifecycle": r"replacing \S+ \S+ as it was one version ago MUST be refused with 409",
    },
    keeps=["api/crud_conflict/dry_run"],
)
def stale_writes_accepted(subject: Subject) -> Damage:
    """Who replaces what somebody else has changed meanwhile wins."""

    def exchange(request: Request, ask: Ask) -> Answer:
        if request.method == "PUT" and namespaced(request):
            path = request.path.partition("?")[0]
            now = json.loads(ask(Request("GET", path, {**request.headers}, b"")).body)
            sent = json.loads(request.body)
            sent["metadata"]["resourceVersion"] = now["metadata"].get("resourceVersion", "")
            request.body = json.dumps(sent).encode()
        return ask(request)

    with through(subject, exchange=exchange) as arguments:
        yield arguments


@breakage(
    breaks={"api/crud_conflict/stale_write": r"deleting \S+ \S+ on the precondition .* MUST be refused with 409"},
    keeps=["api/crud_conflict/concurrent_writes"],
)
def preconditions_ignored(subject: Subject) -> Damage:
    """Whatever is to be deleted is deleted, whichever version or object was meant."""

    def asked(request: Request) -> None:
        if request.method == "DELETE" and request.body:
            options = json.loads(request.body)
            options.pop("preconditions", None)
            request.body = json.dumps(options).encode()

    with through(subject, asked=asked) as arguments:
        yield arguments


@breakage(
    breaks={
        "api/crud_conflict/validation": r"that is invalid in \S+ MUST be refused with 422, but it was accepted",
        "api/crud_conflict/size": r"with more than 1 MiB of data MUST be refused with .*, but it was accepted",
        "api/admission_policies/deny": r"a red ConfigMap in \S+: not within",
        "extend/crd/ratcheting": r"too big for the tightened schema is refused: not within",
    },
    keeps=["api/crud_conflict/stale_write"],
)
def refusals_hidden(subject: Subject) -> Damage:
    """What is refused as invalid is answered as if it had been stored."""

    def exchange(request: Request, ask: Ask) -> Answer:
        answer = ask(request)
        if answer.status != 422 or request.method not in ("POST", "PUT", "PATCH"):
            return answer
        sent = json.loads(request.body)
        if request.method == "PATCH":
            sent = json.loads(ask(Request("GET", request.path.partition("?")[0], request.headers, b"")).body)
        return Answer(201 if request.method == "POST" else 200, answer.headers, json.dumps(sent).encode())

    with through(subject, exchange=exchange) as arguments:
        yield arguments


@breakage(
    breaks={
        "api/crud_conflict/verbs": r"item MUST be gone once its deletion was answered",
        "api/namespaces/isolation": r"shared MUST be gone once it was deleted",
        "api/garbage_collection/background": r"owner MUST be gone at once, whatever it owns",
    },
    keeps=["api/crud_conflict/stale_write"],
)
def deletions_late(subject: Subject) -> Damage:
    """Who deletes something is answered a while before it is gone."""
    doomed: dict[str, tuple[float, bytes]] = {}

    def exchange(request: Request, ask: Ask) -> Answer:
        path = request.path.partition("?")[0]
        before = ask(Request("GET", path, request.headers, b"")).body if request.method == "DELETE" else b""
        answer = ask(request)
        if request.method == "DELETE" and answer.status == 200 and namespaced(request):
            doomed[path] = (time.monotonic() + 2, before)
        until, was = doomed.get(path, (0.0, b""))
        if request.method == "GET" and answer.status == 404 and time.monotonic() < until:
            return Answer(200, answer.headers, was)
        return answer

    with through(subject, exchange=exchange) as arguments:
        yield arguments


@breakage(
    breaks={"api/crud_conflict/size": r"a ConfigMap with 900 kB MUST be stored, but: 413"},
    keeps=["api/crud_conflict/stale_write"],
)
def large_writes_refused(subject: Subject) -> Damage:
    """What is written may have 256 KiB at most."""

    def exchange(request: Request, ask: Ask) -> Answer:
        if len(request.body) > 256 * 1024:
            return Answer(413, {"Content-Type": "text/plain"}, b"request entity too large")
        return ask(request)

    with through(subject, exchange=exchange) as arguments:
        yield arguments


@breakage(
    breaks={"api/crud_conflict/size": r"ConfigMap \S+/large was written with 900 kB of lines, but is read with \d+"},
    keeps=["api/crud_conflict/verbs"],
)
def large_answers_cut(subject: Subject) -> Damage:
    """Of a long value only the first 64 KiB are told."""

    def exchange(request: Request, ask: Ask) -> Answer:
        answer = ask(request)
        if request.method == "GET" and "/configmaps/" in request.path and len(answer.body) > 256 * 1024:
            told = json.loads(answer.body)
            told["data"] = {key: value[: 64 * 1024] for key, value in told["data"].items()}
            answer.body = json.dumps(told).encode()
        return answer

    with through(subject, exchange=exchange) as arguments:
        yield arguments


@breakage(
    breaks={"api/watch/expired": r"from version 1 got neither 410 nor the creation of ConfigMap"},
    keeps=["api/watch/every_change"],
)
def old_watches_begin_now(subject: Subject) -> Damage:
    """A watch from a version that is too old is told only what comes next."""

    def asked(request: Request) -> None:
        if request.is_stream:
            with query(request) as wanted:
                if wanted.get("resourceVersion") == "1":
                    now = subject.client.get("/api/v1/configmaps", {"limit": 1})["metadata"]["resourceVersion"]
                    wanted["resourceVersion"] = now

    with through(subject, asked=asked) as arguments:
        yield arguments


@breakage(
    breaks={"api/watch/initial_events": r"no bookmark marked the end of the initial events of \S+, after \{.*item-"},
    keeps=["api/watch/every_change"],
)
def initial_events_without_end(subject: Subject) -> Damage:
    """Nobody is told when the initial events of a watch are over."""

    def line(request: Request, text: bytes) -> bytes | None:
        return None if b"k8s.io/initial-events-end" in text else text

    with through(subject, line=line) as arguments:
        yield arguments


@breakage(
    breaks={"extend/crd/ratcheting": r"422 Invalid: .*spec\.size.*(less than or equal to|maximum)"},
    keeps=["extend/crd/schema"],
)
def schemas_not_ratcheting(subject: Subject) -> Damage:
    """A custom object that its schema no longer allows can be changed in no way but to what is allowed."""

    def exchange(request: Request, ask: Ask) -> Answer:
        path = request.path.partition("?")[0]
        if request.method == "PATCH" and "/gadgets/" in path and request.headers.get("Content-Type") == MERGE:
            now = json.loads(ask(Request("GET", path, request.headers, b"")).body)
            anew: dict[str, Any] = {key: now[key] for key in ("apiVersion", "kind")}
            anew |= {
                "metadata": {"generateName": "again-"},
                "spec": {**now["spec"], **json.loads(request.body)["spec"]},
            }
            headers = {**request.headers, "Content-Type": "application/json"}
            tried = ask(Request("POST", f"{path.rpartition('/')[0]}?dryRun=All", headers, json.dumps(anew).encode()))
            if tried.status == 422:
                return tried
        return ask(request)

    with through(subject, exchange=exchange) as arguments:
        yield arguments


@breakage(
    breaks={
        "health/livez": r"/livez\?verbose MUST list what it checks, but: 'ok'",
        "health/readyz": r"/readyz\?verbose MUST list what it checks, but: 'ok'",
        "health/healthz": r"/healthz\?verbose MUST list what it checks, but: 'ok'",
    },
    keeps=["health/latency"],
)
def health_answered_by_somebody_else(subject: Subject) -> Damage:
    """Health is told by a load balancer, which checks nothing."""

    def exchange(request: Request, ask: Ask) -> Answer:
        if request.path.startswith(("/livez", "/readyz", "/healthz")):
            return Answer(200, {"Content-Type": "text/plain"}, b"ok")
        return ask(request)

    with through(subject, exchange=exchange) as arguments:
        yield arguments


@breakage(
    breaks={
        "access/credentials/tokens": r"a token for another audience MUST be refused with 401, but is answered with 200",
    },
    keeps=["access/credentials/bound_tokens"],
)
def audiences_ignored(subject: Subject) -> Damage:
    """Every token is good for the API server, whoever it was asked for."""
    with through(subject, asked=_tokens_wanted(lambda spec: spec.pop("audiences", None))) as arguments:
        yield arguments


@breakage(
    breaks={"access/credentials/bound_tokens": r"a token bound to Pod \S+/pod tells"},
    keeps=["access/credentials/tokens"],
)
def tokens_never_bound(subject: Subject) -> Damage:
    """No token is bound to anything but its service account."""
    with through(subject, asked=_tokens_wanted(lambda spec: spec.pop("boundObjectRef", None))) as arguments:
        yield arguments


def _tokens_wanted(change: Callable[[dict[str, Any]], object]) -> Callable[[Request], None]:
    """Changes the `spec` of what asks for a token."""

    def asked(request: Request) -> None:
        if request.method == "POST" and request.path.partition("?")[0].endswith("/token"):
            wanted = json.loads(request.body)
            change(wanted.setdefault("spec", {}))
            request.body = json.dumps(wanted).encode()

    return asked


@breakage(
    breaks={"access/node_isolation/pods": r"(deleting|evicting) Pod \S+/pod, .* MUST be refused .* it was accepted"},
    keeps=["access/node_isolation/reads"],
)
def nodes_delete_all_pods(subject: Subject) -> Damage:
    """Every node may delete pods of others."""

    def asked(request: Request) -> None:
        if request.method == "DELETE" and request.headers.get("X-Remote-User", "").startswith("system:node:"):
            request.headers |= {"X-Remote-User": "broken", "X-Remote-Group": "system:masters"}

    with through(subject, asked=asked) as arguments:
        yield arguments


@breakage(
    breaks={"access/credentials/tokens": r"a token for 3600 s was given for 172800 s"},
    keeps=["access/credentials/bound_tokens"],
)
def tokens_for_days(subject: Subject) -> Damage:
    """Every token is good for two days, for however short a time it was asked for."""
    days = {"expirationSeconds": 2 * 24 * 3600}
    with through(subject, asked=_tokens_wanted(lambda spec: spec.update(days))) as arguments:
        yield arguments


@breakage(
    breaks={"health/public_info": r"a false token MUST be refused with 401, but /version answered 200"},
    keeps=["health/livez"],
)
def false_credentials_taken_for_none(subject: Subject) -> Damage:
    """Who shows false credentials is treated as if they had shown none."""

    def asked(request: Request) -> None:
        if any(value.endswith("not-a-token") for value in request.headers.values()):
            nobody = {"X-Remote-User": "system:anonymous", "X-Remote-Group": "system:unauthenticated"}
            request.headers = {key: value for key, value in request.headers.items() if key.lower() != "authorization"}
            request.headers |= nobody

    with through(subject, asked=asked) as arguments:
        yield arguments
