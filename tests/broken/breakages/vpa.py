"""Autoscalers of pods' requests that do nothing, too much, or not what they are told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from clusterproof import kinds

from ..registry import Damage, breakage
from ..subject import SYSTEM, Subject

SCALERS = "autoscaling.k8s.io/v1/verticalpodautoscalers"


@contextlib.contextmanager
def _told(subject: Subject, name: str, *more: str) -> Iterator[None]:
    """With further arguments for one of the autoscaler's programs."""

    def change(deployment: dict[str, Any]) -> None:
        (program,) = deployment["spec"]["template"]["spec"]["containers"]
        program["args"] += more

    with subject.reconfigured(kinds.DEPLOYMENT, name, SYSTEM, change):
        yield


@breakage(
    breaks={"scale/vpa/recommendation": r"recommends 0m to 60m of CPU: not within .*it recommends nothing yet"},
    keeps=["scale/hpa/memory"],
)
def vpa_recommender_stopped(subject: Subject) -> Damage:
    """Nobody looks at what pods use to recommend something for them."""
    with subject.scaled("vpa-recommender", 0):
        yield []


@breakage(
    breaks={"scale/vpa/recommendation": r"it recommends [2-4]\d\dm of CPU, not 120m to \d+m"},
    keeps=["scale/vpa/bounds"],
)
def vpa_recommends_twice_as_much(subject: Subject) -> Damage:
    """Twice of what would be right is recommended."""
    with _told(subject, "vpa-recommender", "--recommendation-margin-fraction=1.3"):
        yield []


@breakage(
    breaks={"scale/vpa/recommendation": r"it recommends \d{1,2}m of CPU, not 120m or more"},
    keeps=["scale/vpa/new_pods[initial]"],
)
def vpa_recommendation_frozen(subject: Subject) -> Damage:
    """What was recommended first for a pod stays, whatever it uses later."""
    old = "oldObject.status"
    known = f"has({old}) && has({old}.recommendation) && has({old}.recommendation.containerRecommendations)"
    kept = f'[JSONPatch{{op: "add", path: "/status/recommendation", value: {old}.recommendation}}]'
    with subject.mutating(f"{SCALERS}/status", f"{known} ? {kept} : []", patch="JSONPatch"):
        yield []


@breakage(
    breaks={"scale/vpa/running_pods": r"one pod has 60m of CPU: not within .* requests 20m of CPU, not 60m"},
    keeps=["scale/vpa/recommendation", "scale/vpa/bounds"],
)
def vpa_updater_stopped(subject: Subject) -> Damage:
    """Nobody changes running pods to what is recommended for them."""
    with subject.scaled("vpa-updater", 0):
        yield []


@breakage(
    breaks={
        "scale/vpa/new_pods[initial]": r"new under mode Initial, requests 20m, not 60m",
        "scale/vpa/running_pods[recreate]": r"one pod has 60m of CPU: not within",
    },
    keeps=["scale/vpa/recommendation", "scale/vpa/bounds"],
)
def vpa_admission_controller_stopped(subject: Subject) -> Damage:
    """New pods are not given what is recommended for them."""
    with subject.scaled("vpa-admission-controller", 0):
        yield []


@breakage(
    breaks={"scale/vpa/running_pods[in-place]": r"should be changed in place: True, but Pod \S+ has 60m"},
    keeps=["scale/vpa/running_pods[recreate]", "scale/vpa/new_pods"],
)
def vpa_never_in_place(subject: Subject) -> Damage:
    """Pods that could be changed where they run are replaced all the same."""
    with _mode_changed(subject, "InPlaceOrRecreate", "Recreate"):
        yield []


@breakage(
    breaks={"scale/vpa/new_pods[off]": r"requests of pods are .*, not {'web-\S+': '20m'}|under mode Off, requests 60m"},
    keeps=["scale/vpa/new_pods[initial]", "scale/vpa/running_pods"],
)
def vpa_off_acts(subject: Subject) -> Damage:
    """An autoscaler that is to recommend only changes pods."""
    with _mode_changed(subject, "Off", "Recreate"):
        yield []


@breakage(
    breaks={"scale/vpa/new_pods[initial]": r"requests of pods are .*, not {'web-\S+': '20m'}"},
    keeps=["scale/vpa/new_pods[off]", "scale/vpa/running_pods"],
)
def vpa_initial_changes_running_pods(subject: Subject) -> Damage:
    """An autoscaler that is to change new pods only changes running ones, too."""
    with _mode_changed(subject, "Initial", "Recreate"):
        yield []


@breakage(
    breaks={"scale/vpa/bounds": r"recommends \d+m of CPU for main, not the 60m allowed"},
    keeps=["scale/vpa/recommendation"],
)
def vpa_bounds_ignored(subject: Subject) -> Damage:
    """An autoscaler does not know how much it may recommend."""
    forget = 'has(object.spec.resourcePolicy) ? [JSONPatch{op: "remove", path: "/spec/resourcePolicy"}] : []'
    with subject.mutating(SCALERS, forget, patch="JSONPatch"):
        yield []


@contextlib.contextmanager
def _mode_changed(subject: Subject, of: str, to: str) -> Iterator[None]:
    """Every autoscaler that is created with one mode gets another."""
    change = f'[JSONPatch{{op: "replace", path: "/spec/updatePolicy/updateMode", value: "{to}"}}]'
    with subject.mutating(SCALERS, f'object.spec.updatePolicy.updateMode == "{of}" ? {change} : []', patch="JSONPatch"):
        yield
