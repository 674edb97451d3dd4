"""What this host can do, found out by trying; leaves nothing behind."""

from __future__ import annotations

import os

from dockp.linux import capabilities, cgroups, namespaces, seccomp
from dockp_exec_libcontainer.identity import apparmor_enabled

_NEEDED = ("mount", "pid", "network", "ipc", "uts")
_FEATURE_OF_CONTROLLER = {
    "memory": "memory",
    "pids": "pids",
    "cpu": "cpu",
    "cpuset": "cpuset",
    "blkio": "blkio",
    "devices": "devices",
    "hugetlb": "hugetlb",
}


def unusable_namespaces() -> dict[str, str]:
    """OCI namespace types that cannot be made here, with the reason each.

    Tried in a process of its own that has one thread, by this interpreter without its site packages.
    """
    import subprocess
    import sys

    code = (
        f"import sys; sys.path[:0] = {sys_path()!r}\n"
        "from dockp_exec_libcontainer.probe import try_namespaces\n"
        "try_namespaces()"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    if result.returncode:
        return dict.fromkeys(_NEEDED, result.stderr.strip().rpartition("\n")[2] or "the trial process failed")
    return dict(line.split("\t", 1) for line in result.stdout.splitlines())


def sys_path() -> list[str]:
    """Where the two packages that the trial process imports are."""
    import dockp.linux
    import dockp_exec_libcontainer

    places = []
    for module, levels in ((dockp.linux, 3), (dockp_exec_libcontainer, 2)):
        path = os.path.abspath(module.__file__ or "")
        for _ in range(levels):
            path = os.path.dirname(path)
        places.append(path)
    return places


def try_namespaces() -> None:
    """Print ``type<TAB>reason`` for each namespace that cannot be made. Called in the trial process."""
    import sys

    for kind, (flag, _) in namespaces.KINDS.items():
        try:
            pid, _ = namespaces.clone(flag)
        except OSError as failure:
            sys.stdout.write(f"{kind}\t{failure.strerror}\n")
            continue
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)


def features(layout: cgroups.Layout, missing: dict[str, str]) -> frozenset[str]:
    """The optional powers that work here."""
    found = {_FEATURE_OF_CONTROLLER[name] for name in layout.controllers() if name in _FEATURE_OF_CONTROLLER}
    if layout.unified:
        found |= {"cgroup-v2", "freezer", "devices"}
    if any(not name.startswith("name=") for name in layout.v1):
        found.add("cgroup-v1")
    if "freezer" in layout.v1:
        found.add("freezer")
    if layout.unified or os.path.exists(f"{layout.v1.get('memory')}/memory.memsw.limit_in_bytes"):
        found.add("swap")
    if seccomp.available() and _can_compile():
        found.add("seccomp")
    if apparmor_enabled():
        found.add("apparmor")
    if os.path.exists("/sys/fs/selinux/enforce"):
        found.add("selinux")
    for kind, name in (("user", "userns"), ("cgroup", "cgroupns"), ("time", "timens")):
        if kind not in missing:
            found.add(name)
    return frozenset(found)


def _can_compile() -> bool:
    from dockp.spi.runtime import RuntimeFailure
    from dockp_exec_libcontainer.seccomp import compile_profile

    try:
        return bool(compile_profile({"defaultAction": "SCMP_ACT_ALLOW"}))
    except RuntimeFailure:
        return False


def missing_capabilities() -> list[str]:
    """Capabilities that this host withholds even from its administrator."""
    held = capabilities.get()[1]
    every = (1 << len(capabilities.NAMES)) - 1
    return capabilities.names(every & ~held)


def version(layout: cgroups.Layout) -> str:
    """``"1"``, ``"2"``, or ``"1 (hybrid)"`` where a version 2 tree is mounted beside."""
    v1 = any(not name.startswith("name=") for name in layout.v1)
    if v1:
        return "1 (hybrid)" if layout.unified else "1"
    return "2" if layout.unified else "none"
