"""The engine's half of the driver. See `dockp.spi.execution` for the contract."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from dockp.spi.errors import InvalidArgument, SystemFault
from dockp.spi.execution import ExecDriver
from dockp.spi.runtime import RuntimeFailure
from dockp.spi.values import Probe


class LibcontainerDriver(ExecDriver):
    """Containers by direct system calls, with no other runtime involved.

    Options: ``cache``: directory of compiled seccomp profiles (an engine gives ``<data-root>/cache/libcontainer``;
    by default ``/var/cache/dockp/seccomp``).
    """

    name: ClassVar[str] = "libcontainer"
    summary: ClassVar[str] = "containers by direct system calls: namespaces, cgroups, capabilities, seccomp"
    priority: ClassVar[int] = 100
    runtime: ClassVar[str] = "dockp_exec_libcontainer.runtime:Runtime"

    @classmethod
    def probe(cls, options: Mapping[str, str]) -> Probe:
        _check(options)
        from dockp.linux import cgroups
        from dockp_exec_libcontainer import probe

        if os.geteuid() != 0:
            return Probe(supported=False, reason="containers need root: run as root")
        try:
            missing = probe.unusable_namespaces()
        except OSError as failure:
            return Probe(supported=False, reason=f"cannot try namespaces: {failure}")
        layout = cgroups.detect()
        absent = probe.missing_capabilities()
        details = {"Cgroup Version": probe.version(layout)}
        if missing:
            details["Missing Namespaces"] = ", ".join(sorted(missing))
        if absent:
            details["Missing Capabilities"] = ", ".join(absent)
        for kind in ("mount", "pid", "network", "ipc", "uts"):
            if kind in missing:
                return Probe(supported=False, reason=f"no {kind} namespace: {missing[kind]}", details=details)
        found = probe.features(layout, missing)
        if not found & {"cgroup-v1", "cgroup-v2"}:
            # Namespaces, capabilities and seccomp isolate all the same; a start says which limits it could not set.
            details["Cgroups"] = "not mounted: no limits, no device rules, no pause and no stats"
        return Probe(supported=True, features=found, details=details)

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = _check(options)
        self._prepared: tuple[Any, str] = (None, "")

    def runtime_options(self) -> Mapping[str, str]:
        """The directory of compiled seccomp profiles, which the shim reads."""
        from dockp_exec_libcontainer.seccomp import DEFAULT_CACHE

        return {"cache": self._options.get("cache", DEFAULT_CACHE)}

    def prepare(self, spec: Mapping[str, object]) -> None:
        """Compile the spec's seccomp profile into the cache. Raises: InvalidArgument, SystemFault."""
        linux = cast("Mapping[str, Any]", spec.get("linux") or {})
        profile = linux.get("seccomp")
        if not profile:
            return
        known, place = self._prepared
        if profile is known and os.path.exists(place):  # most containers share one, which nobody changes
            return
        from dockp_exec_libcontainer import seccomp

        try:
            self._prepared = profile, seccomp.prepare(profile, self.runtime_options()["cache"])
        except RuntimeFailure as failure:
            raise InvalidArgument(str(failure)) from failure
        except OSError as failure:
            raise SystemFault(f"cannot keep the compiled seccomp profile: {failure}") from failure

    def inventory(self, cgroup_parent: str) -> frozenset[str]:
        from dockp.linux import cgroups

        return frozenset(cgroups.children(cgroup_parent))

    def clean(self, id: str, cgroup_parent: str) -> None:
        from dockp.linux import cgroups

        try:
            cgroups.Cgroup(cgroups.resolve_path(f"{cgroup_parent}/{id}", id)).remove()
        except OSError as failure:
            raise SystemFault(f"cannot remove what is left of container {id}: {failure}") from failure


def _check(options: Mapping[str, str]) -> dict[str, str]:
    for key, value in options.items():
        if key != "cache":
            raise InvalidArgument(f"exec driver libcontainer has no option {key!r}; it knows: cache")
        if not value.startswith("/"):
            raise InvalidArgument(f"exec driver libcontainer: cache {value!r} is not an absolute path")
    return dict(options)
