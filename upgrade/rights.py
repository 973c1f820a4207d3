"""Checks of who may do what: a user from before is still known, and is still refused what was never granted."""

from __future__ import annotations

import time

from clusterproof import kinds, manifests
from clusterproof.client import Client
from clusterproof.errors import ApiError

from . import workloads
from .context import Context
from .verdict import SKIPPED, Check, check


def refusals(context: Context) -> list[Check]:
    """The user may read ConfigMaps and nothing else; strangers may not even that; what is unsafe is not admitted."""
    before = context.before
    settings = kinds.CONFIG_MAP.path(before.namespace, "settings")
    secret = kinds.SECRET.path(before.namespace, "settings")
    pods = kinds.POD.path(before.namespace)
    stranger = context.client.as_user("system:anonymous")
    problems = []
    identity = Check("access/identity", SKIPPED, ("the token from before the upgrade has expired meanwhile",))
    if time.time() < before.token_until:
        user = context.client.as_user(f"{before.namespace}/{workloads.READER}", token=before.token)
        status = _status(user, "GET", settings)
        known = [] if status == 200 else [_sentence("was granted to read ConfigMaps", "read one", status)]
        identity = check(
            "access/identity", known, "a service account's token from before is taken, and its role counts"
        )
        for verb, method, path in (("read a Secret", "GET", secret), ("list Pods", "GET", pods)):
            if (status := _status(user, method, path)) < 400:
                problems.append(_sentence("was granted to read ConfigMaps alone", verb, status))
    if (status := _status(stranger, "GET", secret)) < 400:
        problems.append(f"somebody without credentials is answered {status} to read a Secret in {before.namespace}")
    authorization = check("access/authorization", problems, "what was never granted is refused, also to strangers")
    return [identity, authorization, _admission(context)]


def _admission(context: Context) -> Check:
    before = context.before
    unsafe = manifests.pod("unsafe", before.image, privileged=True)
    problems = []
    try:
        context.client.post(kinds.POD.path(before.namespace), unsafe, {"dryRun": "All"})
        problems.append(f"a privileged Pod is admitted in {before.namespace}, which enforces Pod Security `restricted`")
    except ApiError as error:
        if error.status != 403:
            problems.append(f"a privileged Pod should be refused with 403, but the answer was: {error}")
    return check("access/admission", problems, "Pod Security refuses a privileged pod")


def _status(client: Client, method: str, path: str) -> int:
    return client.request(method, path).status


def _sentence(granted: str, wanted: str, status: int) -> str:
    return f"a service account that {granted} is answered {status} when it wants to {wanted}"
