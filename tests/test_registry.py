"""What promises about pulling images have in theirs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from clusterproof import registry

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def test_its_program_sleeps_until_it_is_ended(tmp_path: Path) -> None:
    if os.uname().machine not in ARCHITECTURES:
        pytest.skip(f"there is no program for {os.uname().machine}")
    path = tmp_path / "sleep"
    path.write_bytes(registry._program(ARCHITECTURES[os.uname().machine]))
    path.chmod(0o755)
    with subprocess.Popen([path]) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        state = Path(f"/proc/{process.pid}/stat").read_text().split()[2]
        process.terminate()
    assert state == "S", "it waits, and uses no CPU"


def test_an_image_is_what_its_manifest_says() -> None:
    manifest, config, layer = registry._image("first", "arm64")
    told = json.loads(manifest)
    for part, blob in ((told["config"], config), (told["layers"][0], layer)):
        assert (part["size"], part["digest"]) == (len(blob), f"sha256:{hashlib.sha256(blob).hexdigest()}")
    assert registry._image("first", "arm64") == (manifest, config, layer), "the same image each time"
    assert registry._image("second", "arm64")[0] != manifest
