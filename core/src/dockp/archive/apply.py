"""Unpack one layer into a directory, from which nothing in the archive can lead out.

Confinement: the parent of every entry is opened with openat2(2) under RESOLVE_IN_ROOT, which treats the target as
``/`` for symbolic links, absolute ones too, and for ``..``; then only the last name is used, relative to that
descriptor, and never followed. So it does not matter what the archive says, nor who renames what at the same time.

Whiteouts (OCI image-spec layer.md) remove what *lower* layers brought, never what the same layer brings, wherever in
the archive they stand.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from attrs import frozen

from dockp.archive.reading import ArchiveReader
from dockp.linux.paths import make_directories, open_in_root
from dockp.linux.trees import remove_tree
from dockp.spi.errors import FailedPrecondition, InvalidArgument, SystemFault

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"
_XATTR = "SCHILY.xattr."
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
_UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EPERM})
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ZEROS = bytes(256 * 1024)
_SMALLEST_HOLE = 4096
"""Bytes of zeros that are worth not writing."""
_DESCRIPTORS = 64
_REPORTED = 20


class NeedsParent(FailedPrecondition):
    """The layer cannot be unpacked into a directory of changes, since it refers to what lies below without saying
    what that is: a file in a directory it does not list, a hard link to a lower file, an opaque root.

    Unpack it into the mounted snapshot instead, with ``whiteouts="delete"``, beginning with a fresh one.
    """


@frozen(kw_only=True)
class Applied:
    """What `apply_layer` did.

    Attributes:
        size: bytes of file data, holes included. entries: entries in the archive, whiteouts included.
        root: whether the archive said what the root directory is like.
        ignored: one line each for what this place cannot hold and was left out (the first 20).
    """

    size: int
    entries: int
    root: bool = False
    ignored: tuple[str, ...] = ()


def apply_layer(
    stream: BinaryIO,
    root: str | os.PathLike[str],
    whiteouts: str = "delete",
    progress: Callable[[int], None] | None = None,
) -> Applied:
    """Unpack the layer ``stream``, a plain tar, over the directory ``root``.

    Args:
        whiteouts: ``"delete"``: ``root`` shows the parent's content, or is empty; whiteouts delete. ``"overlay"``:
            ``root`` is the directory of a `ChangesDirectory` with those whiteouts, fresh, and they are written there.
        progress: called with the bytes of file data written so far, from time to time.
    The stream is read to its end and not closed. What was unpacked before an error stays.

    Raises: InvalidArgument: the archive is malformed or means harm. NeedsParent: see there; only with "overlay".
        SystemFault: the host failed (no space, I/O error).
    """
    if whiteouts not in ("delete", "overlay"):
        raise ValueError(f"whiteouts must be delete or overlay, not {whiteouts!r}")
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    layer = _Layer(descriptor, overlay=whiteouts == "overlay", progress=progress)
    try:
        reader = ArchiveReader(stream)
        for entry in reader.entries():
            _apply(layer, entry, reader)
        layer.finish()
    finally:
        layer.close()
        os.close(descriptor)
    return Applied(size=layer.size, entries=layer.entries, root=layer.describes_root, ignored=tuple(layer.ignored))


def _apply(target: _Layer, entry: tarfile.TarInfo, reader: ArchiveReader) -> None:
    try:
        target.apply(entry, reader)
    except OSError as error:
        raise _explained(entry, error) from error
    except (OverflowError, ValueError) as error:
        raise InvalidArgument(f"{entry.name!r} has an impossible attribute: {error}") from error
    except RecursionError:
        raise InvalidArgument(f"the archive nests directories too deeply at {entry.name!r}") from None


def extract(
    stream: BinaryIO,
    root: int,
    directory: str = "",
    *,
    keep_kinds: bool = False,
    owner: tuple[int, int] | None = None,
    rename: tuple[str, str] | None = None,
) -> None:
    """Unpack a plain tar that is no layer: whiteouts are files like others, and what is there stays or is replaced.

    Args:
        root: a descriptor of what counts as ``/`` for symbolic links. directory: where to unpack, inside of it.
        keep_kinds: refuse to replace a directory by something else, and the reverse.
        owner: uid and gid for all entries, instead of the archive's.
        rename: the first component of names in the archive, and what it becomes.
    Raises: as `apply_layer`.
    """
    target = _Files(root, directory.strip("/"), keep_kinds, owner, rename)
    try:
        reader = ArchiveReader(stream)
        for entry in reader.entries():
            _apply(target, entry, reader)
        target.finish()
    finally:
        target.close()


class _Layer:
    """The state of one unpacking."""

    def __init__(self, root: int, overlay: bool, progress: Callable[[int], None] | None) -> None:
        self.size = 0
        self.entries = 0
        self.describes_root = False
        self.ignored: list[str] = []
        self._root = root
        self._overlay = overlay
        self._progress = progress
        self._parents: dict[str, int] = {}
        self._retired: list[int] = []  # descriptors that left the cache while they may be in use
        self._has_lower = bool(os.listdir(f"/proc/self/fd/{root}"))
        self._made: set[str] = set()  # where whiteouts delete: what this layer brought, and the directories above it
        self._directory_times: dict[str, tuple[int, int]] = {}

    def apply(self, entry: tarfile.TarInfo, reader: ArchiveReader) -> None:
        self.entries += 1
        while self._retired:
            os.close(self._retired.pop())
        parts = _parts(entry.name)
        if not parts:
            self._apply_root(entry)
            return
        directory, name = "/".join(parts[:-1]), parts[-1]
        if name.startswith(WHITEOUT):
            self._whiteout(directory, name)
            return
        path = "/".join(parts)
        parent = self._open_parent(directory)
        if entry.isdir():
            self._make_directory(parent, directory, name, entry)
        elif entry.islnk():
            self._link(parent, path, name, entry)
        elif entry.ischr() and entry.devmajor == entry.devminor == 0:
            # That is overlay's own mark for a deletion; other file systems must not differ from it.
            self._ignore(f"{path}: character device 0:0")
            return
        else:
            self._remove(parent, name)
            self._make_file(parent, name, entry, reader)
        while self._has_lower and path and path not in self._made:
            self._made.add(path)
            path = path.rpartition("/")[0]

    def finish(self) -> None:
        """Set the times of directories, which change as they are filled. Deepest first, for the same reason."""
        for path in sorted(self._directory_times, key=lambda path: path.count("/"), reverse=True):
            try:
                fd = open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # replaced by a later entry
                raise
            try:
                os.utime(fd, ns=self._directory_times[path])
            finally:
                os.close(fd)

    def close(self) -> None:
        self._forget_parents()
        while self._retired:
            os.close(self._retired.pop())

    def _forget_parents(self) -> None:
        self._retired += self._parents.values()
        self._parents.clear()

    def _open_parent(self, directory: str) -> int:
        """A descriptor of ``directory``, which this object keeps and closes."""
        fd = self._parents.get(directory)
        if fd is not None:
            return fd
        try:
            fd = open_in_root(self._root, directory, os.O_PATH | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError) as error:
            if self._overlay:
                raise NeedsParent(f"the layer does not say what directory {directory!r} is like") from None
            if error.errno == errno.ENOTDIR:
                raise InvalidArgument(f"the layer puts files into {directory!r}, which is not a directory") from None
            fd = self._make_parents(directory)
        if len(self._parents) >= _DESCRIPTORS:
            self._forget_parents()
        self._parents[directory] = fd
        return fd

    def _make_parents(self, directory: str) -> int:
        return make_directories(self._root, directory, 0o755, (0, 0))

    def _apply_root(self, entry: tarfile.TarInfo) -> None:
        self.describes_root = True
        if not entry.isdir():
            raise InvalidArgument(f"the layer replaces its root directory by something else ({entry.name!r})")
        fd = open_in_root(self._root, ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._set_attributes(f"/proc/self/fd/{fd}", entry, "/")
        finally:
            os.close(fd)
        self._directory_times["."] = _times(entry)

    def _make_directory(self, parent: int, directory: str, name: str, entry: tarfile.TarInfo) -> None:
        path = f"{directory}/{name}" if directory else name
        existing = _look(parent, name)
        merges = existing is not None and stat.S_ISDIR(existing.st_mode)
        if not merges:
            self._remove(parent, name)
            os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            if merges:
                self._drop_attributes(fd)
            self._set_attributes(f"/proc/self/fd/{fd}", entry, path)
            if self._overlay and existing is not None and not merges:
                # A whiteout, or another kind of file, that this layer brought first: either hides what is below, and
                # a plain directory in its place would show it again.
                os.setxattr(fd, OPAQUE_XATTR, b"y")
        finally:
            os.close(fd)
        self._directory_times[path] = _times(entry)

    def _drop_attributes(self, directory: int) -> None:
        """Before a layer's description of a directory that is there already."""
        _drop_xattrs(directory)

    def _make_file(self, parent: int, name: str, entry: tarfile.TarInfo, reader: ArchiveReader) -> None:
        if entry.isreg():
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
            try:
                self._write(fd, entry, reader)
                self._set_attributes(f"/proc/self/fd/{fd}", entry, entry.name)
                os.utime(fd, ns=_times(entry))
            finally:
                os.close(fd)
            return
        if entry.issym():
            if not entry.linkname or "\0" in entry.linkname:
                raise InvalidArgument(f"the symbolic link {entry.name!r} leads nowhere")
            os.symlink(entry.linkname, name, dir_fd=parent)
            self._set_attributes(f"/proc/self/fd/{parent}/{name}", entry, entry.name)
        elif entry.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
            self._set_special_attributes(parent, name, entry)
        elif entry.ischr() or entry.isblk():
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            os.mknod(name, 0o600 | kind, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent)
            self._set_special_attributes(parent, name, entry)
        else:
            raise InvalidArgument(f"{entry.name!r} is of the unknown type {entry.type!r}")
        os.utime(name, ns=_times(entry), dir_fd=parent, follow_symlinks=False)

    def _set_special_attributes(self, parent: int, name: str, entry: tarfile.TarInfo) -> None:
        fd = os.open(name, _LOOK, dir_fd=parent)  # a device must not be opened for real
        try:
            self._set_attributes(f"/proc/self/fd/{fd}", entry, entry.name)
        finally:
            os.close(fd)

    def _write(self, fd: int, entry: tarfile.TarInfo, reader: ArchiveReader) -> None:
        os.ftruncate(fd, entry.size)
        for offset, data in reader.data(entry):
            if len(data) < _SMALLEST_HOLE or data != _ZEROS[: len(data)]:
                view = memoryview(data)
                while view:
                    written = os.pwrite(fd, view, offset)
                    offset += written
                    view = view[written:]
            self.size += len(data)
            if self._progress is not None:
                self._progress(self.size)

    def _link(self, parent: int, path: str, name: str, entry: tarfile.TarInfo) -> None:
        target = _parts(entry.linkname)
        if not target:
            raise InvalidArgument(f"the hard link {entry.name!r} leads to the root directory")
        if target == path.split("/"):
            return  # tar writes this for a file it was given twice
        try:
            source = open_in_root(self._root, "/".join(target[:-1]), os.O_PATH | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing_target(entry) from None
        try:
            found = _look(source, target[-1])
            if found is None or (self._overlay and _is_whiteout(found)):
                raise self._missing_target(entry)
            if stat.S_ISDIR(found.st_mode):
                raise InvalidArgument(f"the hard link {entry.name!r} leads to a directory")
            here, there = os.fstat(parent), os.fstat(source)
            if (here.st_dev, here.st_ino, name) == (there.st_dev, there.st_ino, target[-1]):
                return  # the same file by way of a symbolic link
            self._remove(parent, name)
            os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _missing_target(self, entry: tarfile.TarInfo) -> Exception:
        if self._overlay:
            return NeedsParent(f"the layer links {entry.name!r} to {entry.linkname!r}, which it does not contain")
        return InvalidArgument(f"the hard link {entry.name!r} leads to {entry.linkname!r}, which does not exist")

    def _whiteout(self, directory: str, name: str) -> None:
        if name == OPAQUE:
            self._make_opaque(directory)
            return
        hidden = name[len(WHITEOUT) :]
        if hidden in ("", ".", "..") or hidden.startswith(WHITEOUT):
            raise InvalidArgument(f"the whiteout {name!r} names nothing that can be removed")
        path = f"{directory}/{hidden}" if directory else hidden
        if self._overlay:
            parent = self._open_parent(directory)
            existing = _look(parent, hidden)
            if existing is None:
                os.mknod(hidden, stat.S_IFCHR | 0o600, 0, dir_fd=parent)
            elif stat.S_ISDIR(existing.st_mode):
                os.setxattr(f"/proc/self/fd/{parent}/{hidden}", OPAQUE_XATTR, b"y", follow_symlinks=False)
            return
        if not self._has_lower:
            return
        try:
            parent = open_in_root(self._root, directory, os.O_PATH | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return  # nothing there to remove
        try:
            self._remove_lower(parent, path, hidden)
        finally:
            os.close(parent)

    def _make_opaque(self, directory: str) -> None:
        if self._overlay:
            if not directory:
                raise NeedsParent("the layer hides everything below its root directory")
            fd = self._open_parent(directory)
            os.setxattr(f"/proc/self/fd/{fd}", OPAQUE_XATTR, b"y")
            return
        if not self._has_lower:
            return
        try:
            fd = open_in_root(self._root, directory, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            for name in os.listdir(fd):
                self._remove_lower(fd, f"{directory}/{name}" if directory else name, name)
        finally:
            os.close(fd)

    def _remove_lower(self, parent: int, path: str, name: str) -> None:
        """Remove ``path`` except for what this layer brought."""
        if path not in self._made:
            self._remove(parent, name)
            return
        found = _look(parent, name)
        if found is None or not stat.S_ISDIR(found.st_mode):
            return
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            for child in os.listdir(fd):
                self._remove_lower(fd, f"{path}/{child}", child)
        finally:
            os.close(fd)

    def _remove(self, parent: int, name: str) -> None:
        found = _look(parent, name)
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode):
            self._forget_parents()  # some may lead through what goes away now
        if stat.S_ISDIR(found.st_mode):
            remove_tree(f"/proc/self/fd/{parent}/{name}")
        else:
            os.unlink(name, dir_fd=parent)

    def _set_attributes(self, place: str, entry: tarfile.TarInfo, path: str) -> None:
        """Owner, then mode, then xattrs: chown clears setuid bits and file capabilities.

        Args: place: a path through /proc/self/fd, so that nothing is looked up again by name in between.
        """
        link = entry.issym()
        if not (0 <= entry.uid < 2**32 - 1 and 0 <= entry.gid < 2**32 - 1):
            raise InvalidArgument(f"{path!r} has the impossible owner {entry.uid}:{entry.gid}")
        os.chown(place, entry.uid, entry.gid, follow_symlinks=not link)
        if not link:
            os.chmod(place, stat.S_IMODE(entry.mode))
        for key, value in entry.pax_headers.items():
            if not key.startswith(_XATTR):
                continue
            name = key[len(_XATTR) :]
            if name.startswith(_OVERLAY_XATTRS):
                self._ignore(f"{path}: xattr {name}, which steers overlay")
                continue
            try:
                os.setxattr(place, name, value.encode("utf-8", "surrogateescape"), follow_symlinks=not link)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._ignore(f"{path}: xattr {name}: {error.strerror}")

    def _ignore(self, line: str) -> None:
        if len(self.ignored) < _REPORTED:
            self.ignored.append(line)


class _Files(_Layer):
    """Unpacking what is no layer, see `extract`."""

    def __init__(
        self,
        root: int,
        directory: str,
        keep_kinds: bool,
        owner: tuple[int, int] | None,
        rename: tuple[str, str] | None,
    ) -> None:
        super().__init__(root, overlay=False, progress=None)
        self._directory = _parts(directory)
        self._keep_kinds = keep_kinds
        self._owner = owner
        self._renamed = rename

    def apply(self, entry: tarfile.TarInfo, reader: ArchiveReader) -> None:
        parts = self._placed(entry.name)
        if len(parts) == len(self._directory):
            return  # the directory that is unpacked into stays as it is
        while self._retired:
            os.close(self._retired.pop())
        if self._owner is not None:
            entry.uid, entry.gid = self._owner
        directory, name = "/".join(parts[:-1]), parts[-1]
        parent = self._open_parent(directory)
        found = _look(parent, name)
        if self._keep_kinds and found is not None and stat.S_ISDIR(found.st_mode) != entry.isdir():
            path = "/" + "/".join(parts)
            if entry.isdir():
                raise InvalidArgument(f'cannot overwrite non-directory "{path}" with directory "{path}"')
            raise InvalidArgument(f'cannot overwrite directory "{path}" with non-directory "{path}"')
        if entry.isdir():
            self._make_directory(parent, directory, name, entry)
        elif entry.islnk():
            entry.linkname = "/".join(self._placed(entry.linkname))
            self._link(parent, "/".join(parts), name, entry)
        else:
            self._remove(parent, name)
            self._make_file(parent, name, entry, reader)

    def _make_parents(self, directory: str) -> int:
        # Below the directory that is unpacked into, never that one itself: it was there, and has just vanished.
        base = "/".join(self._directory)
        top = open_in_root(self._root, base, os.O_PATH | os.O_DIRECTORY)
        try:
            return make_directories(top, directory[len(base) :], 0o755, (0, 0))
        finally:
            os.close(top)

    def _placed(self, name: str) -> list[str]:
        parts = _parts(name)
        if self._renamed is not None and parts and parts[0] == self._renamed[0]:
            parts[0] = self._renamed[1]
        return self._directory + parts

    def _drop_attributes(self, directory: int) -> None:
        """What is merged keeps the xattrs that the archive does not name."""


def _parts(name: str) -> list[str]:
    """The components of a name in an archive, relative to the root. Raises: InvalidArgument."""
    if "\0" in name:
        raise InvalidArgument(f"the name {name!r} holds a NUL")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidArgument(f"the name {name!r} leads out of the layer")
    return parts


def _look(parent: int, name: str) -> os.stat_result | None:
    """What a directory's entry is, or None."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _drop_xattrs(fd: int) -> None:
    """Take all xattrs off a lower directory that a layer describes anew, save those that belong to overlay."""
    for name in os.listxattr(fd):
        if not name.startswith(_OVERLAY_XATTRS):
            with suppress(OSError):  # a label of the host's security module may refuse; it is not the layer's business
                os.removexattr(fd, name)


def _times(entry: tarfile.TarInfo) -> tuple[int, int]:
    """Access and modification time in nanoseconds, both the latter: layers hold no other."""
    text = entry.pax_headers.get("mtime")
    if text is None:
        seconds, nanoseconds = int(entry.mtime), 0
    else:
        # tarfile made a float of it, which keeps microseconds at best.
        whole, _, fraction = text.partition(".")
        try:
            seconds = int(whole or "0")
            nanoseconds = int((fraction + "000000000")[:9])
        except ValueError:
            raise InvalidArgument(f"{entry.name!r} has the malformed time {text!r}") from None
        if text.startswith("-"):
            nanoseconds = -nanoseconds
    time = seconds * 1_000_000_000 + nanoseconds
    return time, time


def _explained(entry: tarfile.TarInfo, error: OSError) -> Exception:
    """What a failed system call means: mostly it is the archive's fault, sometimes the host's."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SystemFault(f"cannot unpack {entry.name!r}: no space left on the device")
    if error.errno in (errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM):
        return SystemFault(f"cannot unpack {entry.name!r}: {error.strerror}")
    return InvalidArgument(f"cannot unpack {entry.name!r}: {error.strerror or error}")
