"""``stats``."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from dockp.cli.app import App, error_text, warn
from dockp.cli.command import Command
from dockp.cli.flags import SWITCH, Flag, Values
from dockp.cli.format.printer import Column, Listing
from dockp.cli.rendering import LIST_FORMAT

_TABLE = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
LISTING = Listing(
    "container.statsContext",
    [
        Column("BlockIO", "BLOCK I/O"),
        Column("CPUPerc", "CPU %"),
        Column("Container", "CONTAINER"),
        Column("ID", "CONTAINER ID"),
        Column("MemPerc", "MEM %"),
        Column("MemUsage", "MEM USAGE / LIMIT"),
        Column("Name", "NAME"),
        Column("NetIO", "NET I/O"),
        Column("PIDs", "PIDS"),
    ],
    default=_TABLE,
)
_INTERVAL = 0.5
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"


def stats(app: App, values: Values) -> int:
    board = _Board(app, not values["no-trunc"])
    follow_all = not values.args
    for name in values.args or _present(app, values["all"]):
        board.add(name, stream=not values["no-stream"])
    if values["no-stream"]:
        board.join()
        failed = board.complain()
        if not failed:
            board.write(values["format"])
        return failed
    board.wait_for_first()
    if not follow_all and board.complain():
        return 1
    tick = threading.Event()
    sys.stdout.write("\x1b[2J")
    while not board.over or follow_all:
        board.write(values["format"], redraw=True)
        tick.wait(_INTERVAL)
        if follow_all:
            for name in _present(app, values["all"]):
                board.add(name, stream=True)
    return 0


def _present(app: App, everything: bool) -> Sequence[str]:
    return [document["Id"] for document in reversed(app.engine.containers.list(all=everything))]


class _Board:
    """The latest sample of each container, kept by one thread each."""

    def __init__(self, app: App, short: bool) -> None:
        self._app = app
        self._short = short
        self._samples: dict[str, Mapping[str, Any] | None] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._failures: list[Exception] = []

    def add(self, name: str, *, stream: bool) -> None:
        """Watch a container, unless it is being watched."""
        if name not in self._threads:
            self._samples[name] = None
            self._threads[name] = threading.Thread(target=self._watch, args=(name, stream), daemon=True)
            self._threads[name].start()

    def _watch(self, name: str, stream: bool) -> None:
        from dockp.spi.errors import DockpError, NotFound

        try:
            for sample in self._app.engine.containers.stats(name, stream=stream):
                self._samples[name] = sample
        except DockpError as error:
            if not (isinstance(error, NotFound) and self._samples[name] is not None):
                self._failures.append(error)
        if stream:
            self._samples.pop(name, None)  # it is gone
            self._threads.pop(name, None)

    @property
    def over(self) -> bool:
        """Whether there is nothing left to watch."""
        return not self._threads

    def join(self) -> None:
        for thread in list(self._threads.values()):
            thread.join()

    def wait_for_first(self) -> None:
        """Until every container has a sample, or is known not to be there; 3 seconds at most."""
        pause = threading.Event()
        for _ in range(60):
            if all(sample is not None for sample in list(self._samples.values())):
                return
            pause.wait(0.05)

    def complain(self) -> int:
        """Print what went wrong; the exit code."""
        for failure in self._failures:
            warn(error_text(failure))
        return 1 if self._failures else 0

    def write(self, format: str, *, redraw: bool = False) -> None:
        import io

        rows = [row(name, sample, self._short) for name, sample in list(self._samples.items()) if sample is not None]
        if not redraw:
            LISTING.write(sys.stdout, rows, format=format or None)
            return
        text = io.StringIO()
        LISTING.write(text, rows, format=format or None)
        body = text.getvalue().replace("\n", f"{_CLEAR_LINE}\n")
        sys.stdout.write(f"{_HOME}{body}{_CLEAR_REST}")
        sys.stdout.flush()


def row(container: str, sample: Mapping[str, Any], short: bool) -> dict[str, Any]:
    """One line of the listing from a document of ``GET /containers/{id}/stats``. The arithmetic is Docker's."""
    from dockp.units import bytes_size, human_size

    memory = sample["memory_stats"]
    limit = memory.get("limit", 0)
    used = memory_used(memory)
    networks = (sample.get("networks") or {}).values()
    blocks = sample["blkio_stats"].get("io_service_bytes_recursive") or ()
    moved = [sum(entry["value"] for entry in blocks if entry["op"].lower()[:1] == op) for op in "rw"]
    received, sent = (sum(network[key] for network in networks) for key in ("rx_bytes", "tx_bytes"))
    return {
        "Container": container,
        "ID": sample["id"][:12] if short else sample["id"],
        "Name": sample["name"].removeprefix("/"),
        "CPUPerc": f"{cpu_percent(sample):.2f}%",
        "MemUsage": f"{bytes_size(used)} / {bytes_size(limit)}",
        "MemPerc": f"{used / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{human_size(received, 3)} / {human_size(sent, 3)}",
        "BlockIO": f"{human_size(moved[0], 3)} / {human_size(moved[1], 3)}",
        "PIDs": str(sample["pids_stats"].get("current", 0)),
    }


def cpu_percent(sample: Mapping[str, Any]) -> float:
    """Hundredths of one processor, used between a sample and the one before it."""
    now, before = sample["cpu_stats"], sample["precpu_stats"]
    used: int = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed: int = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    online: int = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or ())
    return used / passed * online * 100 if used > 0 and passed > 0 else 0.0


def memory_used(memory: Mapping[str, Any]) -> int:
    """Memory without what the kernel can take back at once: unused pages of files."""
    usage: int = memory.get("usage", 0)
    for name in ("total_inactive_file", "inactive_file"):  # cgroup version 1, version 2
        value = (memory.get("stats") or {}).get(name)
        if value is not None and value < usage:
            return usage - int(value)
    return usage


STATS = Command(
    "[OPTIONS] [CONTAINER...]",
    "Display a live stream of container(s) resource usage statistics",
    stats,
    (
        Flag("all", "a", SWITCH, "Show all containers (default shows just running)"),
        LIST_FORMAT,
        Flag("no-stream", "", SWITCH, "Disable streaming stats and only pull the first result"),
        Flag("no-trunc", "", SWITCH, "Do not truncate output"),
    ),
    args=(0, None),
    aliases="dockp container stats, dockp stats",
    examples=("dockp stats --no-stream", "dockp stats --format '{{.Name}}: {{.CPUPerc}}' web db"),
    names="running",
)
