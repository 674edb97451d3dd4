"""The execution contract, the engine's half: what a driver can do here, and where its run-time half is.

An execution driver has two halves. The *driver* (this module) runs in the engine, and answers probes. The *runtime*
(`dockp.spi.runtime`) runs inside the container's shim, a process that must stay tiny; it is named here as
``"package.module:Class"`` and imported by the shim alone. Keep the runtime's imports few: ``os`` and ``dockp.linux``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from dockp.spi.values import Probe


class ExecDriver(ABC):
    """One way of executing OCI bundles.

    Since: SPI 1.
    """

    name: ClassVar[str]
    """What ``--exec-driver`` takes."""
    summary: ClassVar[str] = ""
    priority: ClassVar[int] = 0
    runtime: ClassVar[str]
    """Where the shim finds the run-time half, ``"package.module:Class"``. See `dockp.spi.runtime.Runtime`."""

    @classmethod
    @abstractmethod
    def probe(cls, options: Mapping[str, str]) -> Probe:
        """Say whether containers can run here, and which powers work: ``"cgroup-v1"``, ``"cgroup-v2"``,
        ``"memory"``, ``"pids"``, ``"seccomp"``, ``"userns"``, ``"apparmor"``, ``"checkpoint"`` ...
        Raises: InvalidArgument.
        """

    @abstractmethod
    def __init__(self, options: Mapping[str, str]) -> None:
        """Called once an engine; cheap. Raises: InvalidArgument."""

    def runtime_options(self) -> Mapping[str, str]:
        """What the runtime's constructor gets, as strings; by default nothing."""
        return {}

    def prepare(self, spec: Mapping[str, object]) -> None:
        """Called in the engine just before the bundle is written: a place for slow work that the shim should not do,
        such as compiling a seccomp profile into a cache. Must not change ``spec``."""
        return

    @abstractmethod
    def inventory(self, cgroup_parent: str) -> frozenset[str]:
        """Ids of containers of which something is left on this host (a cgroup, a state folder) under the parent.

        Called: by tests, and by a check of the whole system that is to come. Recovery calls `clean` for each container
        whose record says that it ran.
        """

    @abstractmethod
    def clean(self, id: str, cgroup_parent: str) -> None:
        """Kill and remove whatever is left of container ``id`` after its shim died. Absent is success."""
