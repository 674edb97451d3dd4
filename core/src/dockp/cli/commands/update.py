"""``update``."""

from __future__ import annotations

from dockp.cli import readers
from dockp.cli.app import App, Failure, each
from dockp.cli.command import Command
from dockp.cli.flags import BYTES, INT, STRING, SWAP_BYTES, UINT16, Flag, Kind, Values

_LIMITS = {
    "blkio-weight": "blkio_weight",
    "cpu-period": "cpu_period",
    "cpu-quota": "cpu_quota",
    "cpu-rt-period": "cpu_realtime_period",
    "cpu-rt-runtime": "cpu_realtime_runtime",
    "cpu-shares": "cpu_shares",
    "cpus": "nano_cpus",
    "cpuset-cpus": "cpuset_cpus",
    "cpuset-mems": "cpuset_mems",
    "memory": "memory",
    "memory-reservation": "memory_reservation",
    "memory-swap": "memory_swap",
    "pids-limit": "pids_limit",
}
"""Flag: attribute of the request."""


def update(app: App, values: Values) -> int:
    from dockp.cli.create_request import restart_policy
    from dockp.containers.model import UpdateRequest

    if not values.given:
        raise Failure("you must provide one or more flags when using this command")
    try:
        policy = restart_policy(values["restart"]) if "restart" in values.given else None
    except ValueError as error:
        raise Failure(str(error)) from None
    request = UpdateRequest(
        restart_policy=policy,
        **{attribute: values[flag] for flag, attribute in _LIMITS.items() if flag in values.given},
    )
    warnings: list[str] = []
    code = each(values.args, lambda name: warnings.extend(app.engine.containers.update(name, request)))
    if warnings:
        print("\n".join(warnings))
    return code


UPDATE = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    update,
    (
        Flag("blkio-weight", "", UINT16, "Block IO (relative weight), between 10 and 1000, or 0 to disable"),
        Flag("cpu-period", "", INT, "Limit CPU CFS (Completely Fair Scheduler) period"),
        Flag("cpu-quota", "", INT, "Limit CPU CFS (Completely Fair Scheduler) quota"),
        Flag("cpu-rt-period", "", INT, "Limit the CPU real-time period in microseconds"),
        Flag("cpu-rt-runtime", "", INT, "Limit the CPU real-time runtime in microseconds"),
        Flag("cpu-shares", "c", INT, "CPU shares (relative weight)"),
        Flag("cpus", "", Kind("decimal", readers.cpus, 0), "Number of CPUs"),
        Flag("cpuset-cpus", "", STRING, "CPUs in which to allow execution (0-3, 0,1)"),
        Flag("cpuset-mems", "", STRING, "MEMs in which to allow execution (0-3, 0,1)"),
        Flag("memory", "m", BYTES, "Memory limit"),
        Flag("memory-reservation", "", BYTES, "Memory soft limit"),
        Flag("memory-swap", "", SWAP_BYTES, "Swap limit equal to memory plus swap: -1 to enable unlimited swap"),
        Flag("pids-limit", "", INT, "Tune container pids limit (set -1 for unlimited)"),
        Flag("restart", "", STRING, "Restart policy to apply when a container exits"),
    ),
    args=(1, None),
    aliases="dockp container update, dockp update",
    examples=("dockp update --memory 512m --memory-swap 1g web", "dockp update --restart=unless-stopped web db"),
    names="container",
)
