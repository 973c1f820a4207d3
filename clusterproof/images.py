"""The one image map: every image that the suites use, by a name of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

IMAGES: dict[str, str] = {
    "agnhost": "registry.k8s.io/e2e-test-images/agnhost:2.66.1",
    "agnhost_old": "registry.k8s.io/e2e-test-images/agnhost:2.55",
}
"""Default references. Every image is the upstream e2e one; nothing else is ever pulled."""


@dataclass(frozen=True, slots=True)
class Images:
    """The images under the names that this cluster has them by."""

    agnhost: str
    """Upstream's test program: web server, DNS and network tools, a shell."""
    agnhost_old: str
    """The same program under another reference: what a rolling update starts from."""

    @property
    def all(self) -> tuple[str, ...]:
        """Every reference."""
        return self.agnhost, self.agnhost_old


def resolve(registry: str = "", overrides: Mapping[str, str] | None = None) -> Images:
    """The image map, its registry host replaced by `registry` where given; `overrides` (by name) win."""
    found = {
        name: f"{registry.rstrip('/')}/{ref.partition('/')[2]}" if registry else ref for name, ref in IMAGES.items()
    }
    return Images(**{**found, **{name: ref for name, ref in (overrides or {}).items() if name in IMAGES}})
