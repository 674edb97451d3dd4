"""Filters of events match as Docker's do."""

from __future__ import annotations

from typing import Any

import pytest

from dockp.events.filters import check, passes
from dockp.spi.errors import InvalidArgument


def event(kind: str, action: str, actor: str, **attributes: str) -> dict[str, Any]:
    return {"Type": kind, "Action": action, "Actor": {"ID": actor, "Attributes": attributes}, "scope": "local"}


HEALTHY = event("container", "health_status: healthy", "abc123", image="nginx:1.27", name="web", tier="front")
EXEC = event("container", "exec_start: ls -l", "abc123", image="nginx:1.27", name="web")
TAGGED = event("image", "tag", "sha256:feed", name="docker.io/library/nginx:1.27")
JOINED = event("network", "connect", "net1", container="abc123", name="bridge", type="bridge")


@pytest.mark.parametrize(
    ("found", "filters", "wanted"),
    [
        (HEALTHY, {}, True),
        (HEALTHY, {"event": ["health_status"]}, True),
        (HEALTHY, {"event": ["health_status: healthy"]}, True),
        (HEALTHY, {"event": ["health_status: unhealthy"]}, False),
        (HEALTHY, {"event": ["die", "health_status"]}, True),
        (HEALTHY, {"event": ["health"]}, False),
        (EXEC, {"event": ["exec_start"]}, True),
        (EXEC, {"event": ["exec_create"]}, False),
        (HEALTHY, {"type": ["container", "image"]}, True),
        (HEALTHY, {"type": ["network"]}, False),
        (HEALTHY, {"scope": ["local"]}, True),
        (HEALTHY, {"scope": ["swarm"]}, False),
        (HEALTHY, {"container": ["web"]}, True),
        (HEALTHY, {"container": ["we"]}, True),
        (HEALTHY, {"container": ["abc"]}, True),
        (HEALTHY, {"container": ["eb"]}, False),
        (HEALTHY, {"container": ["db", "web"]}, True),
        (HEALTHY, {"image": ["nginx"]}, True),
        (HEALTHY, {"image": ["nginx:1.27"]}, True),
        (HEALTHY, {"image": ["nginx:1.26"]}, False),
        (TAGGED, {"image": ["sha256:feed"]}, True),
        (TAGGED, {"image": ["nginx"]}, True),
        (HEALTHY, {"label": ["tier"]}, True),
        (HEALTHY, {"label": ["tier=front"]}, True),
        (HEALTHY, {"label": ["tier=back"]}, False),
        (HEALTHY, {"label": ["tier", "other"]}, False),
        (HEALTHY, {"container": ["web"], "event": ["die"]}, False),
        (JOINED, {"network": ["bridge"]}, True),
        (JOINED, {"network": ["host"]}, False),
        (JOINED, {"container": ["abc123"]}, False),
    ],
)
def test_filter(found: dict[str, Any], filters: dict[str, list[str]], wanted: bool) -> None:
    check(filters)
    assert passes(found, filters) is wanted


def test_unknown_filters_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="invalid filter 'colour'"):
        check({"colour": ["red"]})
