"""The plug-in cache: what discovery found, and how to see in well under 2 ms that it still holds.

Validity. The file records an *identity* (interpreter, version of dockp, ``sys.path``) and *witnesses*: each directory
of ``sys.path`` with the names of the distributions in it, each distribution's metadata directory and entry points, and
each source file that a plug-in was loaded from, all with the times, sizes and inodes they had. Installing, upgrading,
removing or editing changes at least one of them.

Safety. The file says which modules to import, so it is taken only when it and its directory belong to this user and
nobody else may write to them; it is replaced by rename. A file that is absent, foreign or damaged is simply made again.
"""

from __future__ import annotations

import binascii
import contextlib
import json
import os
import stat
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dockp
from dockp.plugins.model import DriverInfo, Findings, MomentInfo, Problem

FORMAT = 1
MAX_BYTES = 4 << 20
RACY_NS = 20_000_000
"""A file changed this shortly before it was looked at may change again without a new time stamp (kernel ticks are up
to 10 ms); what was found then is used once and not kept."""
KEEP_DAYS = 30

Witness = list[Any]


def directories(data_root: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Where the cache may lie, best first."""
    if chosen := environ.get("DOCKP_CACHE_DIR"):
        return [os.path.abspath(chosen)]
    if os.geteuid() == 0:
        # Not the caller's XDG_CACHE_HOME: under sudo it is often somebody else's.
        return ["/var/cache/dockp", os.path.join(data_root, "cache")]
    home = environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return [os.path.join(home, "dockp"), os.path.join(data_root, "cache")]


def search_path() -> list[str]:
    """``sys.path`` with the empty entry, which means the current directory, spelled out."""
    return [os.path.abspath(entry) if entry else os.getcwd() for entry in sys.path if isinstance(entry, str)]


def identity(path: Sequence[str]) -> list[Any]:
    """What must be equal for a cache file to be looked at at all."""
    return [FORMAT, dockp.__version__, sys.executable or "", sys.version, list(path)]


def file_name(who: Sequence[Any]) -> str:
    # A checksum is enough for the name: the identity itself is compared inside.
    return f"plugins-{binascii.crc32(json.dumps(who).encode()):08x}.json"


def witness_path(entry: str) -> list[Witness]:
    """Witnesses for one entry of ``sys.path``: the directory, and each distribution's metadata in it."""
    names = _distributions(entry)
    found: list[Witness] = [[entry, _stamp(entry), names]]
    for name in names:
        found += witness_files([os.path.join(entry, name), os.path.join(entry, name, "entry_points.txt")])
    return found


def witness_files(paths: Iterable[str]) -> list[Witness]:
    """Witnesses for plain files, absent ones too."""
    return [[path, _stamp(path)] for path in paths]


def holds(witnesses: Iterable[Witness]) -> bool:
    """True when nothing that was recorded has changed."""
    for path, stamp, *names in witnesses:
        if _stamp(path) == stamp:
            continue
        # Anything at all may happen in a directory of the search path (it may be the current directory): only the
        # distributions in it matter.
        if not names or _distributions(path) != names[0]:
            return False
    return True


def is_racy(witnesses: Iterable[Witness], looked_at_ns: int) -> bool:
    """True when something was changed so shortly before it was looked at that a later change could go unseen."""
    return any(stamp is not None and stamp[0] > looked_at_ns - RACY_NS for _, stamp, *_ in witnesses)


def load(directory: str, who: Sequence[Any]) -> tuple[Findings, dict[str, Any]] | None:
    """The findings kept in ``directory`` and the raw record, or None when there are none, or none to be trusted."""
    try:
        with contextlib.closing(_Directory(directory)) as trusted:
            raw = trusted.read(file_name(who))
        record = json.loads(raw)
        if record["identity"] != list(who) or not holds(record["witnesses"]):
            return None
        return findings_from_json(record["findings"]), record
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def is_due(record: Mapping[str, Any]) -> bool:
    """True when a plug-in that hung or crashed is to be tried again."""
    return bool(record.get("retry_at")) and time.time() >= record["retry_at"]


def save(directory: str, who: Sequence[Any], record: Mapping[str, Any]) -> bool:
    """Write ``record`` atomically; False when this directory cannot be used."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with contextlib.closing(_Directory(directory)) as trusted:
            trusted.write(file_name(who), json.dumps({**record, "identity": list(who)}).encode())
            trusted.expire(KEEP_DAYS)
    except OSError:
        return False
    return True


def findings_from_json(data: Mapping[str, Any]) -> Findings:
    """Raises: TypeError or LookupError when ``data`` is not what `findings_to_json` makes."""
    return Findings(
        drivers=tuple(DriverInfo(**item) for item in data["drivers"]),
        moments=tuple(MomentInfo(**{**item, "hooks": tuple(item["hooks"])}) for item in data["moments"]),
        problems=tuple(Problem(**item) for item in data["problems"]),
    )


def findings_to_json(findings: Findings) -> dict[str, Any]:
    from attrs import asdict

    return asdict(findings)


def _stamp(path: str) -> list[int] | None:
    try:
        st = os.stat(path)
    except (OSError, ValueError):
        return None
    return [st.st_mtime_ns, st.st_size, st.st_ino]


def _distributions(directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith((".dist-info", ".egg-info")))
    except OSError:
        return []


class _Directory:
    """A directory of which this user alone is master. Raises: PermissionError when it is not."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._check(self._fd, path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, name: str) -> bytes:
        # O_NONBLOCK: a FIFO in place of the file must not stall the engine.
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._fd)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise PermissionError(f"{name} is not a regular file")
            self._check(fd, name)
            return file.read(MAX_BYTES)

    def write(self, name: str, data: bytes) -> None:
        temporary = f".{name}.{os.getpid()}.{time.monotonic_ns()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=self._fd)
        try:
            with open(fd, "wb") as file:
                file.write(data)
            # No fsync: after a power cut an empty or torn file is no valid JSON, and is made again.
            os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._fd)
            raise

    def expire(self, days: int) -> None:
        """Remove what other interpreters and search paths left long ago."""
        oldest = time.time() - days * 86400
        for name in os.listdir(self._fd):
            if name.startswith(("plugins-", ".plugins-")):
                with contextlib.suppress(OSError):
                    if os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mtime < oldest:
                        os.unlink(name, dir_fd=self._fd)

    @staticmethod
    def _check(fd: int, name: str) -> None:
        st = os.fstat(fd)
        if st.st_uid != os.geteuid() or st.st_mode & 0o022:
            raise PermissionError(f"{name} belongs to, or may be written by, somebody else")
