"""Seccomp profiles of the OCI spec, compiled by libseccomp to BPF and kept in a cache by their content.

The engine compiles (`prepare`); the shim only reads a file (`program`), and starts another interpreter to compile when
the file is not there. Source: OCI runtime-spec config-linux.md "Seccomp".
"""

from __future__ import annotations

import os
import struct

from dockp.linux.jsonlite import dumps
from dockp.linux.seccomp import FLAGS
from dockp.spi.runtime import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_CACHE = "/var/cache/dockp/seccomp"
_FORMAT = 1  # raise it when the same profile compiles to something else for a reason of ours
_EPERM = 1
_ENOSYS = 38


def program(profile: dict[str, Any], path: str) -> bytes:
    """The BPF of a profile, whose `place` is ``path``. Raises RuntimeFailure."""
    code = _read(path)
    return _compile_elsewhere(profile, path) if code is None else code


def prepare(profile: dict[str, Any], cache: str) -> str:
    """Have the profile in the cache; its `place`. Raises RuntimeFailure for one that cannot be compiled, OSError."""
    path = place(profile, cache)
    if not os.path.exists(path):
        store(path, compile_profile(profile))
    return path


def flags(profile: dict[str, Any]) -> int:
    """The loading flags of a profile. Raises RuntimeFailure."""
    bits = 0
    for name in profile.get("flags") or []:
        if name not in FLAGS:
            raise RuntimeFailure(f"unknown seccomp flag {name!r}")
        # The filter is loaded by a process with one thread: there is nothing to synchronise.
        bits |= FLAGS[name] if name != "SECCOMP_FILTER_FLAG_TSYNC" else 0
    return bits


def place(profile: dict[str, Any], cache: str) -> str:
    """The file in the cache that has, or is to have, the BPF of a profile."""
    machine = os.uname().machine
    content = f"{_FORMAT}\n{machine}\n{dumps(profile, sort_keys=True)}".encode()
    return os.path.join(cache or DEFAULT_CACHE, f"{_sha256(content)}-{library_version()}.bpf")


def library_version() -> str:
    """Which libseccomp is installed, by the name of its file: an update makes the cache start anew."""
    for directory in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib"):
        try:
            return os.path.basename(os.readlink(f"{directory}/libseccomp.so.2")).removeprefix("libseccomp.so.")
        except OSError:
            continue
    return "0"


def _sha256(content: bytes) -> str:
    # hashlib pulls OpenSSL in, 4 MB for one hash.
    try:
        from _sha256 import sha256  # type: ignore[import-not-found]
    except ImportError:
        from hashlib import sha256
    return str(sha256(content).hexdigest())


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        code = os.read(fd, 1 << 20)
    finally:
        os.close(fd)
    return code or None


def store(path: str, code: bytes) -> None:
    """Write a cache entry at once or not at all."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.urandom(8).hex()}"  # other threads may be at it too
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, code)
    finally:
        os.close(fd)
    os.rename(temporary, path)


def _compile_elsewhere(profile: dict[str, Any], path: str) -> bytes:
    """Compile in another process: the shim must not grow by libseccomp and its binding."""
    import sys

    source = os.memfd_create("profile", os.MFD_CLOEXEC)
    result = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        os.write(source, dumps({"profile": profile, "path": path}).encode())
        os.lseek(source, 0, os.SEEK_SET)
        arguments = [sys.executable, "-m", "dockp_exec_libcontainer.seccomp"]
        actions = [(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, result, 1)]
        pid = os.posix_spawn(sys.executable, arguments, os.environ, file_actions=actions)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output = os.pread(result, 1 << 20, 0)
    finally:
        os.close(source)
        os.close(result)
    if code:
        raise RuntimeFailure(output.decode(errors="replace").strip() or "the seccomp profile could not be compiled")
    return output


def compile_profile(profile: dict[str, Any]) -> bytes:
    """BPF of a profile, by libseccomp. Raises RuntimeFailure."""
    try:
        import pyseccomp  # type: ignore[import-untyped]
    except (ImportError, OSError, RuntimeError) as failure:
        raise RuntimeFailure(f"seccomp profiles need libseccomp: {failure}") from failure

    def action(name: str, errno_value: int | None) -> int:
        plain = {
            "SCMP_ACT_KILL": pyseccomp.KILL,
            "SCMP_ACT_KILL_THREAD": pyseccomp.KILL,
            "SCMP_ACT_KILL_PROCESS": pyseccomp.KILL_PROCESS,
            "SCMP_ACT_TRAP": pyseccomp.TRAP,
            "SCMP_ACT_LOG": pyseccomp.LOG,
            "SCMP_ACT_ALLOW": pyseccomp.ALLOW,
        }
        number = _EPERM if errno_value is None else errno_value
        if name == "SCMP_ACT_ERRNO":
            return int(pyseccomp.ERRNO(number))
        if name == "SCMP_ACT_TRACE":
            return int(pyseccomp.TRACE(number))
        if name not in plain:
            raise RuntimeFailure(f"seccomp action {name!r} is not supported by this runtime")
        return int(plain[name])

    comparisons = {
        "SCMP_CMP_NE": pyseccomp.NE,
        "SCMP_CMP_LT": pyseccomp.LT,
        "SCMP_CMP_LE": pyseccomp.LE,
        "SCMP_CMP_EQ": pyseccomp.EQ,
        "SCMP_CMP_GE": pyseccomp.GE,
        "SCMP_CMP_GT": pyseccomp.GT,
        "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ,
    }
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    try:
        filter = pyseccomp.SyscallFilter(default)
        filter.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a binary tree: every system call of the container pays
        native = _native_architecture()
        for name in profile.get("architectures") or []:
            architecture = _architecture(pyseccomp, name)
            if architecture is not None and name != native and not filter.exist_arch(architecture):
                filter.add_arch(architecture)
        for rule in profile.get("syscalls") or []:
            wanted = action(rule["action"], rule.get("errnoRet"))
            if wanted == default:
                continue  # libseccomp refuses a rule that says what is true anyway
            conditions = [
                pyseccomp.Arg(
                    entry["index"],
                    comparisons[entry["op"]],
                    entry["value"],
                    entry.get("valueTwo") or 0,
                )
                for entry in rule.get("args") or []
            ]
            # Several conditions on one argument are alternatives in OCI profiles, which libseccomp takes one by one.
            indexes = [entry["index"] for entry in rule.get("args") or []]
            groups = [[one] for one in conditions] if len(set(indexes)) < len(indexes) else [conditions]
            for name in rule["names"]:
                for group in groups:
                    _add(filter, wanted, name, group)
        code = _export(filter)
        if profile["defaultAction"] in ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS"):
            newest = max(
                (_number(name) for rule in profile.get("syscalls") or [] for name in rule["names"]), default=-1
            )
            code = _unknown_calls(newest) + code
        return code
    except (OSError, RuntimeError, ValueError, KeyError) as failure:
        raise RuntimeFailure(f"the seccomp profile could not be compiled: {failure!r}") from failure


def _add(filter: Any, action: int, name: str, conditions: list[Any]) -> None:
    if _number(name) != -1:  # a system call this libseccomp has never heard of: nothing to allow or refuse
        filter.add_rule(action, name, *conditions)


def _number(name: str) -> int:
    import pyseccomp

    return int(pyseccomp.resolve_syscall(pyseccomp.system_arch(), name))


def _unknown_calls(newest: int) -> bytes:
    """Answer ENOSYS to system calls newer than any in the profile, before the filter proper.

    C libraries probe for new calls and fall back on ENOSYS alone; a profile of yesterday would answer EPERM and break
    them. Only for the machine's own system calls.
    """
    audit = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}.get(os.uname().machine)
    if newest < 0 or audit is None:
        return b""
    load, equal, at_least, greater, leave = 0x20, 0x15, 0x35, 0x25, 0x06
    code = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 0, 4, audit),
        (load, 0, 0, 0),  # seccomp_data.nr
        (at_least, 2, 0, 0x40000000),  # the x32 calls of x86_64
        (greater, 0, 1, newest),
        (leave, 0, 0, 0x00050000 | _ENOSYS),
    ]
    return b"".join(struct.pack("=HBBI", *one) for one in code)


def _export(filter: Any) -> bytes:
    fd = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            filter.export_bpf(file)
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


def _native_architecture() -> str:
    return {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}.get(os.uname().machine, "")


def _architecture(pyseccomp: Any, name: str) -> Any:
    return getattr(pyseccomp.Arch, name.removeprefix("SCMP_ARCH_"), None)


def main() -> int:
    """Compile what stdin says, store it, and write it to stdout (or, failing, the reason)."""
    import sys

    from dockp.linux.jsonlite import loads

    request = loads(sys.stdin.buffer.read())
    try:
        code = compile_profile(request["profile"])
    except RuntimeFailure as failure:
        sys.stdout.write(str(failure))
        return 1
    sys.stdout.buffer.write(code)
    sys.stdout.buffer.flush()
    try:
        store(request["path"], code)
    except OSError:
        return 0  # a cache that cannot be written costs time, nothing else
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
