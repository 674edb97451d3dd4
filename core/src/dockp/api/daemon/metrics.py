"""``/metrics``: what a daemon counted, as Prometheus reads it.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4). Names that dockerd has mean
what they mean there; dockp's own begin with ``dockp_``. Written out here, since prometheus_client would cost 30 ms at
the start and 4 MB of memory for a page of text.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import define, field

import dockp
from dockp.api.messages import Reply, Request
from dockp.api.routing import Route
from dockp.api.services import ApiServices

if TYPE_CHECKING:
    from dockp.api.server import ApiServer
    from dockp.engine.local import LocalEngine

T = TypeVar("T")

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; those of dockerd's histograms."""
_ACTIONS: Final = {"changes": "changes", "commit": "commit", "create": "create", "remove": "delete", "start": "start"}
"""Verb of `dockp.interface.Containers` → the label ``action``."""
_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@define
class Histogram:
    """How long something took. Used under the lock of its owner."""

    counts: list[int] = field(factory=lambda: [0] * len(_BUCKETS))
    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds
        for position, bound in enumerate(_BUCKETS):
            if seconds <= bound:
                self.counts[position] += 1


class MeasuredServices(ApiServices):
    """Services that know how long the verbs of containers took."""

    def __init__(self, engine: LocalEngine) -> None:
        super().__init__(engine)
        self._guard = threading.Lock()
        self._actions = {action: Histogram() for action in _ACTIONS.values()}

    def run(self, work: Callable[..., T], *arguments: Any, **named: Any) -> Awaitable[T]:
        return super().run(self._measured(work), *arguments, **named)

    def run_long(self, work: Callable[..., T], *arguments: Any, **named: Any) -> Awaitable[T]:
        return super().run_long(self._measured(work), *arguments, **named)

    def action_lines(self) -> Iterator[str]:
        with self._guard:
            for action, histogram in self._actions.items():
                labels = {"action": action}
                yield from _histogram("engine_daemon_container_actions_seconds", labels, histogram)

    def _measured(self, work: Callable[..., T]) -> Callable[..., T]:
        if getattr(work, "__self__", None) is not self.engine.containers:
            return work
        action = _ACTIONS.get(getattr(work, "__name__", ""))
        return work if action is None else functools.partial(self._measure, action, work)

    def _measure(self, action: str, work: Callable[..., T], *arguments: Any, **named: Any) -> T:
        began = time.monotonic()
        result = work(*arguments, **named)
        with self._guard:
            self._actions[action].add(time.monotonic() - began)
        return result


class Metrics:
    """The page ``/metrics`` of one daemon."""

    def __init__(self, engine: LocalEngine, server: ApiServer, services: MeasuredServices) -> None:
        self._engine = engine
        self._server = server
        self._services = services
        self.route = Route("GET", "/metrics", self._reply)

    async def _reply(self, request: Request) -> Reply:
        states = await request.services.run(self._engine.system.container_states)
        text = "\n".join((*self._lines(states), ""))
        return Reply(content=text.encode(), content_type=_CONTENT_TYPE)

    def _lines(self, states: Mapping[str, int]) -> Iterator[str]:
        uname = os.uname()
        yield from _family("engine_daemon_engine_info", "gauge", "The engine and its host")
        about = {
            "version": dockp.__version__,
            "architecture": uname.machine,
            "kernel": uname.release,
            "graphdriver": self._engine.config.storage_driver or "",
        }
        yield _sample("engine_daemon_engine_info", about, 1)
        yield from _one("engine_daemon_engine_cpus_cpus", "The number of cpus of the host", os.cpu_count() or 1)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        yield from _one("engine_daemon_engine_memory_bytes", "The bytes of memory of the host", memory)
        name = "engine_daemon_container_states_containers"
        yield from _family(name, "gauge", "The count of containers in various states")
        for state in ("paused", "running", "stopped"):
            yield _sample(name, {"state": state}, states.get(state, 0))
        yield from _family(
            "engine_daemon_container_actions_seconds", "histogram", "The seconds it takes to process each action"
        )
        yield from self._services.action_lines()
        yield from self._api_lines()
        yield from self._driver_lines()
        yield from _process_lines()

    def _api_lines(self) -> Iterator[str]:
        counters = self._server.counters
        yield from _one("dockp_api_connections", "Connections that are open", counters.open)
        yield from _one("dockp_api_connections_total", "Connections so far", counters.connections, "counter")
        yield from _family("dockp_api_requests_total", "counter", "Requests answered; status 0 for streams")
        for (method, status), count in sorted(counters.requests.items()):
            yield _sample("dockp_api_requests_total", {"method": method, "status": str(status)}, count)

    def _driver_lines(self) -> Iterator[str]:
        reports = self._engine.driver_reports()
        rows = [
            ({"kind": report.kind, "driver": report.name, "verb": verb}, counts)
            for report in reports
            for verb, counts in report.verbs.items()
        ]
        for name, what, text in (
            ("dockp_driver_calls_total", "calls", "Calls into drivers"),
            ("dockp_driver_refusals_total", "refused", "Calls that failed with an error of the contract"),
            ("dockp_driver_faults_total", "faults", "Calls that failed with any other error"),
            ("dockp_driver_timeouts_total", "timeouts", "Calls that missed their deadline"),
            ("dockp_driver_seconds_total", "seconds", "Seconds spent in calls that ended"),
        ):
            yield from _family(name, "counter", text)
            yield from (_sample(name, labels, getattr(counts, what)) for labels, counts in rows)
        yield from _family("dockp_driver_set_aside", "gauge", "Whether a driver is set aside since it hangs or fails")
        for report in reports:
            labels = {"kind": report.kind, "driver": report.name}
            yield _sample("dockp_driver_set_aside", labels, int(bool(report.set_aside)))


def _process_lines() -> Iterator[str]:
    """Prometheus' usual figures of a process. Source: proc_pid_stat(5), proc_pid_statm(5)."""
    with open("/proc/self/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    yield from _one(
        "process_cpu_seconds_total", "User and system time", (int(fields[11]) + int(fields[12])) / ticks, "counter"
    )
    yield from _one("process_resident_memory_bytes", "Resident memory", int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))
    yield from _one("process_open_fds", "Open descriptors", len(os.listdir("/proc/self/fd")))
    yield from _one("process_threads", "Threads", int(fields[17]))
    since = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[19]) / ticks
    yield from _one("process_start_time_seconds", "When it started, since the epoch", round(since, 2))


def _family(name: str, kind: str, text: str) -> Sequence[str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _one(name: str, text: str, value: float, kind: str = "gauge") -> Iterable[str]:
    return *_family(name, kind, text), _sample(name, {}, value)


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inner}}} {value}" if inner else f"{name} {value}"


def _histogram(name: str, labels: Mapping[str, str], histogram: Histogram) -> Iterator[str]:
    for bound, count in zip(_BUCKETS, histogram.counts, strict=True):
        yield _sample(f"{name}_bucket", {**labels, "le": f"{bound:g}"}, count)
    yield _sample(f"{name}_bucket", {**labels, "le": "+Inf"}, histogram.count)
    yield _sample(f"{name}_sum", labels, histogram.seconds)
    yield _sample(f"{name}_count", labels, histogram.count)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
