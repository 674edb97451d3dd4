"""From a spec to what the child is told: everything that can be computed, opened or refused is, before it is born."""

from __future__ import annotations

import os

from dockp.linux import mounts, namespaces
from dockp.linux.cgroups import Cgroup
from dockp.spi.runtime import RuntimeFailure
from dockp_exec_libcontainer import rootfs
from dockp_exec_libcontainer.spec import check_sysctls, id_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Devices that every container may use whatever the spec says: its own default nodes, and making nodes as such
# (OCI runtime-spec config-linux.md "Default Devices"; runc adds the same).
ALWAYS_ALLOWED = (
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 7, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 8, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 9, "access": "rwm"},
    {"allow": True, "type": "c", "major": 5, "minor": 0, "access": "rwm"},
    {"allow": True, "type": "c", "major": 5, "minor": 1, "access": "rwm"},
    {"allow": True, "type": "c", "major": 5, "minor": 2, "access": "rwm"},
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},
)

# Kinds that a kernel may be built without and still run containers (namespaces(7); User-Mode Linux has no time ones).
_OPTIONAL_KINDS = ("time", "user")


class Plan:
    """What `Runtime.create` does for one spec.

    Attributes:
        flags: namespaces to make with the child. joins: (kind, descriptor) of namespaces to be born in.
        user_namespace: descriptor of a user namespace that the child joins first, or -1.
        new_cgroup_namespace: made by the child itself, once it is in its cgroups.
        separate: kinds of namespaces that are not the host's.
        enter: flags for those who join the container later.
    """

    def __init__(self, spec: dict[str, Any], bundle: str, netns: int | None) -> None:
        self.spec = spec
        self.bundle = bundle
        self.linux: dict[str, Any] = spec["linux"]
        self.flags = 0
        self.joins: list[tuple[str, int]] = []
        self.user_namespace = -1
        self.new_cgroup_namespace = False
        self.separate: set[str] = set()
        self.enter = 0
        self.root = -1
        self.steps: list[rootfs.Step] = []
        self.late: list[rootfs.Step] = []
        self._opened: list[int] = []
        try:
            self._namespaces(netns)
            check_sysctls(self.linux.get("sysctl") or {}, self.separate)
        except BaseException:
            self.close()
            raise

    @property
    def new_user_namespace(self) -> bool:
        return bool(self.flags & namespaces.CLONE_NEWUSER)

    @property
    def in_user_namespace(self) -> bool:
        return self.new_user_namespace or self.user_namespace >= 0

    def close(self) -> None:
        """Close the shim's copies of what was opened for the child. Idempotent."""
        opened, self._opened = self._opened, []
        for fd in opened:
            os.close(fd)

    def keep(self, fd: int) -> int:
        """Have `close` close ``fd``."""
        self._opened.append(fd)
        return fd

    # -- namespaces --

    def _namespaces(self, netns: int | None) -> None:
        for entry in self.linux.get("namespaces") or []:
            kind, path = entry["type"], entry.get("path") or ""
            if kind == "network" and netns is not None:
                continue
            self.separate.add(kind)
            flag = namespaces.KINDS[kind][0]
            if path:
                self._join(kind, path)
            elif kind == "cgroup":
                self.new_cgroup_namespace = True
                self.enter |= flag
            else:
                _check_made_here(kind)
                self.flags |= flag
                self.enter |= flag
        if self.linux.get("mountLabel"):
            raise RuntimeFailure("SELinux labels on mounts (linux.mountLabel) are not supported by this runtime")
        if netns is not None:
            self.separate.add("network")
            self.joins.append(("network", netns))
            self.enter |= namespaces.CLONE_NEWNET
        if self.new_user_namespace and not (self.linux.get("uidMappings") and self.linux.get("gidMappings")):
            raise RuntimeFailure("a new user namespace needs uidMappings and gidMappings")

    def _join(self, kind: str, path: str) -> None:
        if kind == "mount":
            raise RuntimeFailure(
                "joining a mount namespace by path is not supported: the container's root needs its own"
            )
        try:
            fd = self.keep(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as failure:
            raise RuntimeFailure(f"cannot join {kind} namespace {path}: {failure.strerror}") from failure
        own = os.stat(f"/proc/self/ns/{namespaces.KINDS[kind][1]}")
        found = os.fstat(fd)
        if (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino):
            self.separate.discard(kind)  # it is the host's, by another name
            return
        self.enter |= namespaces.KINDS[kind][0]
        if kind == "user":
            self.user_namespace = fd
        else:
            self.joins.append((kind, fd))

    # -- file tree --

    def prepare_tree(self, cgroup: Cgroup, terminal: bool) -> None:
        """Open the root and all bind sources, and list the steps. Raises RuntimeFailure."""
        path = os.path.join(self.bundle, self.spec["root"]["path"])
        try:
            self.root = self.keep(mounts.open_tree(path, recursive=True))
            # Else what is mounted in it would appear wherever this root is shared with.
            mounts.set_attributes(self.root, propagation=mounts.MS_SLAVE, recursive=True)
        except OSError as failure:
            raise RuntimeFailure(f"cannot use {path} as the root file system: {failure.strerror}") from failure
        for entry in self.spec.get("mounts") or []:
            self._mount(entry, cgroup)
        self.steps += rootfs.device_steps(self.spec, terminal)
        for key, value in (self.linux.get("sysctl") or {}).items():
            self.late.append(rootfs.SysctlStep(key, str(value)))
        self.late += [rootfs.ReadOnlyStep(path) for path in self.linux.get("readonlyPaths") or []]
        self.late += [rootfs.MaskStep(path) for path in self.linux.get("maskedPaths") or []]
        self.late.append(rootfs.LateReadOnlyStep(bool(self.spec["root"].get("readonly"))))

    def _mount(self, entry: dict[str, Any], cgroup: Cgroup) -> None:
        destination = entry.get("destination") or ""
        if not destination:
            raise RuntimeFailure("a mount without destination")
        type, source = entry.get("type") or "", entry.get("source") or ""
        options = list(entry.get("options") or [])
        idmap = [word for word in options if word in ("idmap", "ridmap")]
        words = mounts.Options(word for word in options if word not in ("idmap", "ridmap"))
        try:
            if words.bind or type == "bind":
                self._bind(destination, source, words, entry, idmap)
            elif type in ("cgroup", "cgroup2"):
                self._cgroup(destination, words, cgroup)
            elif type == "sysfs" and self.in_user_namespace and not self.flags & namespaces.CLONE_NEWNET:
                # sysfs can be mounted only by the owner of the network namespace
                words.bind = "rbind"
                words.data = []
                self._bind(destination, "/sys", words, {}, [])
            elif type:
                self.steps.append(rootfs.FilesystemStep(destination, type, source, words))
            else:
                raise RuntimeFailure(f"the mount on {destination} has no type")
        except OSError as failure:
            raise RuntimeFailure(f"cannot mount {source or type} on {destination}: {failure.strerror}") from failure

    def _bind(
        self, destination: str, source: str, words: mounts.Options, entry: dict[str, Any], idmap: list[str]
    ) -> None:
        path = os.path.join(self.bundle, source)
        if words.data:
            raise RuntimeFailure(f"the bind mount on {destination} has options no bind mount knows: {words.data}")
        words.bind = words.bind or "bind"
        try:
            fd = self.keep(mounts.build("bind", path, words))
        except FileNotFoundError:
            raise RuntimeFailure(f"cannot mount on {destination}: bind source path does not exist: {path}") from None
        if idmap or entry.get("uidMappings"):
            self._idmap(fd, entry, recursive="ridmap" in idmap)
        self.steps.append(rootfs.BindStep(destination, path, words, fd))

    def _idmap(self, fd: int, entry: dict[str, Any], recursive: bool) -> None:
        uids = id_map(entry.get("uidMappings") or self.linux.get("uidMappings"))
        gids = id_map(entry.get("gidMappings") or self.linux.get("gidMappings"))
        if not uids or not gids:
            raise RuntimeFailure("an idmapped mount needs uidMappings and gidMappings")
        userns = namespaces.user_namespace(uids, gids)
        try:
            mounts.set_attributes(fd, set=mounts.MOUNT_ATTR_IDMAP, recursive=recursive, userns=userns)
        finally:
            os.close(userns)

    def _cgroup(self, destination: str, words: mounts.Options, cgroup: Cgroup) -> None:
        attributes = words.set
        if not cgroup.directories:
            if cgroup.unified:
                words.data = []
                self.steps.append(
                    rootfs.BindStep(
                        destination, cgroup.unified, words, self._cgroup_directory(cgroup.unified, attributes)
                    )
                )
            return
        hierarchies: dict[str, int] = {}
        links: list[tuple[str, str]] = []
        for controller, directory in cgroup.directories.items():
            name = os.path.basename(cgroup.layout.v1[controller])
            if name not in hierarchies:
                hierarchies[name] = self._cgroup_directory(directory, attributes)
            if name != controller:
                links.append((controller, name))
        self.steps.append(rootfs.CgroupStep(destination, list(hierarchies.items()), links, words))

    def _cgroup_directory(self, path: str, attributes: int) -> int:
        fd = self.keep(mounts.open_tree(path))
        mounts.set_attributes(fd, set=attributes)
        return fd


def device_rules(linux: dict[str, Any]) -> list[dict[str, Any]]:
    """The device rules of a spec, nothing allowed but what it says and what every container needs."""
    given = (linux.get("resources") or {}).get("devices") or []
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}, *given]
    allow_all = [index for index, rule in enumerate(rules) if _allows_all(rule)]
    if allow_all and allow_all[-1] == len(rules) - 1:
        return rules
    rules += ALWAYS_ALLOWED
    for entry in linux.get("devices") or []:
        if entry["type"] != "p":
            kind = "c" if entry["type"] == "u" else entry["type"]
            rules.append({"allow": True, "type": kind, "major": entry["major"], "minor": entry["minor"], "access": "m"})
    return rules


def _allows_all(rule: dict[str, Any]) -> bool:
    from dockp.linux.devices import everything

    return bool(rule.get("allow")) and everything(rule)


def _check_made_here(kind: str) -> None:
    # clone3 and unshare would only say EINVAL.
    if kind in _OPTIONAL_KINDS and not os.path.exists(f"/proc/self/ns/{namespaces.KINDS[kind][1]}"):
        raise RuntimeFailure(f"this kernel has no {kind} namespaces")
