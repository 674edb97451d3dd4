"""``cp``. The rules for names, trailing slashes and messages are Docker's."""

from __future__ import annotations

import io
import os
import posixpath
import stat
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from dockp.cli.app import App, Failure
from dockp.cli.command import Command
from dockp.cli.flags import SWITCH, Flag, Values

if TYPE_CHECKING:
    from dockp.interface import Document

_PIECE = 1 << 20
_REDRAW_SECONDS = 0.1
_GO_DIRECTORY, _GO_LINK, _GO_OTHERS = 1 << 31, 1 << 27, 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19
"""Bits of Go's ``os.FileMode``: a directory, a symbolic link, and whatever is no regular file either."""


def cp(app: App, values: Values) -> None:
    source, target = values.args
    if not source:
        raise Failure("source can not be empty")
    if not target:
        raise Failure("destination can not be empty")
    (from_container, from_path), (to_container, to_path) = _split(source), _split(target)
    if from_container and to_container:
        raise Failure("copying between containers is not supported")
    if not (from_container or to_container):
        raise Failure("must specify at least one container source")
    quiet = values["quiet"] if "quiet" in values.given else not sys.stdout.isatty()
    if from_container:
        _copy_out(app, from_container, from_path, to_path, values["follow-link"], quiet)
    else:
        _copy_in(app, from_path, to_container, to_path, values["follow-link"], values["archive"], quiet)


class _Target(NamedTuple):
    """What a destination is. ``path`` may end in a slash, which says that it is meant to be a directory."""

    path: str
    exists: bool
    is_directory: bool


def _copy_in(app: App, source: str, name: str, path: str, follow: bool, archive: bool, quiet: bool) -> None:
    containers = app.engine.containers
    target = _container_target(app, name, path)
    if source == "-":
        if not target.is_directory:
            raise Failure(f'destination "{name}:{path}" must be a directory')
        containers.archive_put(name, target.path, sys.stdin.buffer, no_overwrite_dir_non_dir=True, copy_uid_gid=archive)
        return
    from dockp.archive.pack import Packer, PackStream
    from dockp.archive.tree import Tree

    found = _local_source(source, follow)
    is_directory = os.path.isdir(found) and not os.path.islink(found)
    directory, entry = _placed(_base(source), is_directory, target)
    tree = Tree(found if is_directory else os.path.dirname(found))
    packer = Packer(tree, whole_seconds=True)
    pieces = packer.below(entry) if is_directory else packer.single(os.path.basename(found), entry)
    with _Counted(cast(BinaryIO, PackStream(pieces, tree.close)), "Copying to container", quiet) as stream:
        containers.archive_put(
            name, directory, cast(BinaryIO, stream), no_overwrite_dir_non_dir=True, copy_uid_gid=archive
        )
    stream.report(f"{name}:{target.path}")


def _copy_out(app: App, name: str, path: str, target_path: str, follow: bool, quiet: bool) -> None:
    from dockp.spi.errors import NotFound

    containers = app.engine.containers
    if target_path == "-":
        stream, _ = containers.archive_get(name, path)
        with stream:
            while piece := stream.read(_PIECE):
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    target_path = _absolute(target_path)
    target = _local_target(target_path)
    entry = _base(path)
    if follow:
        try:
            found = containers.archive_stat(name, path)
        except NotFound:
            found = {"mode": 0}
        if found["mode"] & _GO_LINK:
            path = found["linkTarget"]
    stream, found = containers.archive_get(name, path)
    with _Counted(stream, "Copying from container", quiet) as counted:
        is_directory = bool(found["mode"] & _GO_DIRECTORY)
        # The name in the archive is the container's; below, it is what it is to be here.
        inside = found["name"] if found["name"] not in (".", "/") else ""
        directory, entry = _placed(entry if inside else ".", is_directory, target)
        if not inside and entry != ".":
            directory, entry = posixpath.join(directory, entry), "."
            os.mkdir(directory, 0o700)
            os.chmod(directory, found["mode"] & 0o777)
        _unpack(cast(BinaryIO, counted), directory, (inside, entry) if inside else None)
    counted.report(target_path)


def _unpack(stream: BinaryIO, directory: str, rename: tuple[str, str] | None) -> None:
    """Into a local directory, which counts as root for links in the archive: a container's word leads nowhere else.

    What arrives belongs to whoever runs this.
    """
    from dockp.archive.apply import extract

    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        extract(stream, root, keep_kinds=True, owner=(os.geteuid(), os.getegid()), rename=rename)
    finally:
        os.close(root)


def _placed(base: str, is_directory: bool, target: _Target) -> tuple[str, str]:
    """The directory to unpack in, and the name there, for an entry called ``base`` ("." for the contents of a
    directory). Raises Failure."""
    if target.exists and target.is_directory:
        return target.path, base
    if target.exists and is_directory:
        raise Failure("cannot copy directory")
    if not target.exists and not is_directory and _asserts_directory(target.path):
        raise Failure("no such directory")
    head, tail = posixpath.split(posixpath.normpath(target.path))
    return head or "/", tail


def _container_target(app: App, name: str, path: str) -> _Target:
    """What is at ``path`` of a container; one link is followed."""
    from dockp.spi.errors import InvalidArgument, NotFound

    def look(path: str) -> Document | None:
        try:
            return app.engine.containers.archive_stat(name, path)
        except (NotFound, InvalidArgument):
            return None  # its directory may be there; or what is wrong is said when the copy begins

    found = look(path)
    if found is not None and found["mode"] & _GO_LINK:
        path = posixpath.join(posixpath.dirname(path), found["linkTarget"])
        found = look(path)
    if found is None:
        return _Target(path, False, False)
    if found["mode"] & _GO_OTHERS:
        raise Failure(f'destination "{name}:{path}" must be a directory or a regular file')
    return _Target(path, True, bool(found["mode"] & _GO_DIRECTORY))


def _local_source(path: str, follow: bool) -> str:
    """The absolute path of what is to be copied, links resolved but, unless ``follow``, its own. Raises Failure."""
    absolute = _absolute(path)
    head, base = os.path.split(absolute.rstrip("/") or "/")
    if follow or _asserts_directory(path) or not base:
        found = os.path.realpath(absolute)
    else:
        found = os.path.join(os.path.realpath(head), base)
    try:
        mode = os.lstat(found).st_mode
    except OSError as error:
        raise Failure(f"lstat {absolute}: {(error.strerror or '').lower()}") from None
    if _asserts_directory(path) and not stat.S_ISDIR(mode):
        raise Failure(f"lstat {absolute}: not a directory")
    return found


def _local_target(path: str) -> _Target:
    """What is at a local path, links followed. Raises Failure."""
    head = os.path.dirname(os.path.normpath(path))
    if not os.path.exists(head):
        raise Failure(f'invalid output path: directory "{head}" does not exist')
    if not os.path.isdir(head):
        raise Failure("not a directory")
    resolved = os.path.realpath(path) + ("/" if _asserts_directory(path) else "")
    try:
        mode = os.stat(resolved.rstrip("/") or "/").st_mode
    except FileNotFoundError:
        return _Target(resolved, False, False)
    except OSError as error:
        raise Failure(f"stat {path}: {(error.strerror or '').lower()}") from None
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        what = "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "an irregular file"
        raise Failure(f'invalid output path: "{path}" must be a directory or a regular file: got {what}')
    return _Target(resolved, True, stat.S_ISDIR(mode))


def _split(text: str) -> tuple[str, str]:
    """(container, path), the former "" for a local path: one that begins with a slash or a dot, or has no colon."""
    container, colon, path = text.partition(":")
    if text.startswith("/") or not colon or container.startswith("."):
        return "", text
    return container, path


def _asserts_directory(path: str) -> bool:
    return path.endswith(("/", "/.")) or path == "."


def _base(path: str) -> str:
    """What the last part of ``path`` calls it; "." for the contents of a directory."""
    if path == "." or path.endswith("/."):
        return "."
    return posixpath.basename(posixpath.normpath(path)) or "."


def _absolute(path: str) -> str:
    absolute = os.path.abspath(path)
    if path == "." or path.endswith("/."):
        return absolute.rstrip("/") + "/."
    return absolute.rstrip("/") + "/" if path.endswith("/") else absolute


class _Counted(io.RawIOBase):
    """A stream that counts what is read, and says so in a terminal now and then."""

    def __init__(self, stream: BinaryIO, what: str, quiet: bool) -> None:
        self._stream = stream
        self._what = what
        self._quiet = quiet
        self._done = 0
        self._draws = not quiet and sys.stderr.isatty()
        self._next = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        data = self._stream.read(len(target))
        target[: len(data)] = data
        self._done += len(data)
        if self._draws and time.monotonic() >= self._next:
            self._next = time.monotonic() + _REDRAW_SECONDS
            print(f"\r\x1b[K{self._what} - {_size(self._done)}", end="", file=sys.stderr, flush=True)
        return len(data)

    def close(self) -> None:
        super().close()
        close: Callable[[], None] = self._stream.close
        close()
        if self._draws:
            self._draws = False
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def report(self, where: str) -> None:
        """Say how much was copied."""
        if not self._quiet:
            print(f"Successfully copied {_size(self._done)} to {where}", file=sys.stderr)


def _size(count: int) -> str:
    from dockp.units import human_size

    return human_size(count, 3)


CP = Command(
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tdockp cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem",
    cp,
    (
        Flag("archive", "a", SWITCH, "Archive mode (copy all uid/gid information)"),
        Flag("follow-link", "L", SWITCH, "Always follow symbol link in SRC_PATH"),
        Flag("quiet", "q", SWITCH, "Suppress progress output, as is done without a terminal"),
    ),
    args=(2, 2),
    aliases="dockp container cp, dockp cp",
    examples=("dockp cp ./site web:/srv/", "dockp cp -L web:/etc/hosts .", "dockp cp web:/var/log -"),
    names="container",
)
