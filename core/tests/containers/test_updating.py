"""Which limits an update may set, and what is left as it was."""

from __future__ import annotations

import pytest

from dockp.containers.model import HostConfig, RestartPolicy, UpdateRequest
from dockp.containers.updating import merged
from dockp.spi.errors import Conflict, InvalidArgument

MIB = 1 << 20


def test_what_is_not_named_stays() -> None:
    host = HostConfig(memory=64 * MIB, memory_swap=128 * MIB, cpu_shares=5, pids_limit=9)
    result = merged(host, UpdateRequest(memory=32 * MIB, pids_limit=-1))
    assert (result.memory, result.memory_swap, result.cpu_shares, result.pids_limit) == (32 * MIB, 128 * MIB, 5, -1)


@pytest.mark.parametrize(
    ("host", "request_", "message"),
    [
        (HostConfig(), UpdateRequest(memory=64 * MIB), "Memory limit should be smaller than already set memoryswap"),
        (HostConfig(cpu_period=5000), UpdateRequest(nano_cpus=10**9), "as CPU Period has already been set"),
        (HostConfig(cpu_quota=5000), UpdateRequest(nano_cpus=10**9), "as CPU Quota has already been set"),
        (HostConfig(nano_cpus=10**9), UpdateRequest(cpu_quota=5000), "as NanoCPUs has already been set"),
        (
            HostConfig(auto_remove=True),
            UpdateRequest(restart_policy=RestartPolicy(name="always")),
            "because AutoRemove is enabled",
        ),
    ],
)
def test_what_contradicts_the_container_is_refused(host: HostConfig, request_: UpdateRequest, message: str) -> None:
    with pytest.raises(Conflict, match=message):
        merged(host, request_)


def test_what_makes_no_sense_together_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="Minimum memoryswap limit should be larger than memory limit"):
        merged(HostConfig(memory=64 * MIB, memory_swap=128 * MIB), UpdateRequest(memory_swap=32 * MIB))
