"""Storage: volumes that are not made, or are not what they should be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clusterproof.embedded.addons.disks import CONTROLLER, SNAPSHOTS

from clusterproof import kinds

from ..registry import Damage, breakage
from ..subject import Subject


@breakage(
    breaks={"storage/dynamic": r"no default class was entered"},
    keeps=["storage/binding"],
)
def default_storage_class_missing(subject: Subject) -> Damage:
    """The cluster claims to make volumes, but no StorageClass is the default."""

    def change(storage_class: dict[str, Any]) -> None:
        storage_class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] = "false"

    with subject.changed(kinds.STORAGE_CLASS, "local-path", "", change):
        yield ["--capabilities=storage.dynamic"]


@breakage(
    breaks={
        "storage/binding": r"PersistentVolumeClaim \S+ of 1500Mi with .*selector.* got \S+-labels, not the 2Gi one"
    },
    keeps=["storage/volume_protection"],
)
def selectors_of_claims_ignored(subject: Subject) -> Damage:
    """Claims are given volumes whatever labels they ask for."""
    change = 'has(object.spec.selector) ? [JSONPatch{op: "remove", path: "/spec/selector"}] : []'
    with subject.mutating("v1/persistentvolumeclaims", change, patch="JSONPatch"):
        yield []


NOT_THERE = r"MUST find \w+ +- there, but finds "
LAST = "for last; do :; done"
"""Shell for the last argument."""


def _absent(program: str, *, breaks: Mapping[str, str], keeps: Sequence[str]) -> None:
    """Register a breakage: one of the programs that a driver of volumes has beside it does not run."""

    @breakage(
        name=f"{program.replace('-', '_')}_stopped",
        meaning=f"The program {program} beside the driver of volumes does not run.",
        breaks=breaks,
        keeps=keeps,
        scale=0.1,
    )
    def absent(subject: Subject) -> Damage:
        with subject.stopped(program):
            yield []


_absent(
    "csi-provisioner",
    breaks={
        "storage/disks/block": r"Pod \S+/writer ready: not within .*",
        "storage/disks/shared": r"ready: not within",
    },
    keeps=["storage/dynamic"],
)
_absent(
    "csi-attacher",
    breaks={"storage/disks/attachment": r"Pod \S+/first ready: not within"},
    keeps=["storage/dynamic"],
)
_absent(
    "csi-resizer",
    breaks={"storage/disks/expansion": r"/data has what it asks for: not within .*not 2147483648"},
    keeps=["storage/disks/block"],
)
_absent(
    "csi-snapshotter",
    breaks={"storage/disks/snapshot": r"VolumeSnapshot \S+/taken is ready to use: not within"},
    keeps=["storage/disks/clone"],
)
_absent(
    SNAPSHOTS,
    breaks={"storage/disks/snapshot": r"VolumeSnapshot \S+/taken is ready to use: not within"},
    keeps=["storage/disks/clone"],
)


@contextlib.contextmanager
def _nodes_deceived(subject: Subject, tool: str, script: str) -> Iterator[None]:
    """The driver's part on every node finds a script where it looks for a tool of the machine."""
    with contextlib.ExitStack() as stack:
        for node in subject.nodes:
            stack.enter_context(subject.deceived(f"{node}/disks", tool, script))
        yield


@breakage(
    breaks={"storage/disks/snapshot": NOT_THERE, "storage/disks/clone": NOT_THERE},
    keeps=["storage/disks/block"],
)
def copies_of_volumes_are_empty(subject: Subject) -> Damage:
    """What is made of a snapshot or of another volume begins with nothing."""
    with subject.deceived(CONTROLLER, "cp", ': > "$4"'):
        yield []


@breakage(
    breaks={"storage/disks/snapshot": NOT_THERE, "storage/disks/clone": NOT_THERE},
    keeps=["storage/disks/block"],
)
def copies_of_volumes_are_the_volumes(subject: Subject) -> Damage:
    """What is made of a snapshot or of another volume is that volume itself."""
    with subject.deceived(CONTROLLER, "cp", 'ln "$3" "$4"'):
        yield []


@breakage(
    breaks={"storage/disks/expansion": r"room that Pod \S+/user has on \S+ \S+/data: .*and should be"},
    keeps=["storage/disks/clone"],
)
def volumes_grow_on_paper_only(subject: Subject) -> Damage:
    """A volume is said to be larger, but its pod has no more room."""
    with _nodes_deceived(subject, "losetup", '[ "$1" = --set-capacity ] || real "$@"'):
        yield []


@breakage(
    breaks={"storage/disks/attachment": NOT_THERE},
    keeps=["storage/disks/block"],
)
def volumes_lose_their_data_on_the_way(subject: Subject) -> Damage:
    """What is written to a volume is lost when it leaves its node."""
    lose = 'case "$last" in *globalmount) rm -rf "$last"/* ;; esac'
    with _nodes_deceived(subject, "umount", f'{LAST}; {lose}; real "$@"'):
        yield []


@breakage(
    breaks={"storage/disks/block": r"Pod \S+/writer: .*exit code 1: .*error"},
    keeps=["storage/binding"],
)
def devices_are_read_only(subject: Subject) -> Damage:
    """Nothing can be written to a volume that is a device."""
    with _nodes_deceived(subject, "losetup", '[ "$1" != --find ] || set -- --read-only "$@"; real "$@"'):
        yield []


@breakage(
    breaks={"storage/disks/shared": NOT_THERE},
    keeps=["storage/disks/block"],
)
def shared_volumes_are_each_nodes_own(subject: Subject) -> Damage:
    """A volume for several nodes is another one on each of them."""
    own = 'case "$*" in *.shared*) mkdir -p -m 777 /tmp/own; exec mount --bind /tmp/own "$last" ;; esac'
    with _nodes_deceived(subject, "mount", f'{LAST}; {own}; real "$@"'):
        yield []


@breakage(
    breaks={"storage/disks/attachment": r"attach \S+ to Node \S+: .*(it waits for|is attached to)|at the same time"},
    keeps=["storage/disks/block"],
)
def volumes_are_given_to_several_nodes(subject: Subject) -> Damage:
    """A volume for one node is given to whichever node asks."""
    both = '[JSONPatch{op: "add", path: "/spec/accessModes/-", value: "ReadWriteMany"}]'
    with subject.mutating("v1/persistentvolumes", both, patch="JSONPatch"):
        yield []
