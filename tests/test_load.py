"""A known load: what a container was told counts, whenever it was told."""

from __future__ import annotations

import subprocess

from clusterproof import load

# A mount namespace of its own stands for the container's file system.
CONTAINER = """
mount -t tmpfs none /tmp && mount -t tmpfs none /dev/shm || exit
{told}
timeout 1 "$@" > /dev/null
cat /tmp/share; stat -c %s /dev/shm/held
"""


def run(told: str, millicores: int, megabytes: int) -> list[str]:
    """What a load burns and holds after a second, when `told` ran before its script did anything."""
    command = ["unshare", "--mount", "sh", "-c", CONTAINER.format(told=told), "sh"]
    done = subprocess.run(
        [*command, *load.command(millicores, megabytes=megabytes)], capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return done.stdout.split()


def test_begins_with_what_its_command_says() -> None:
    assert run("", 20, 3) == ["20", str(3 << 20)]


def test_does_not_undo_what_it_was_told_before_its_script_ran() -> None:
    told = "echo 120 > /tmp/share; dd if=/dev/zero of=/dev/shm/held bs=1M count=2 status=none"
    assert run(told, 0, 0) == ["120", str(2 << 20)]
