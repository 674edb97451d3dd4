"""Mounts: the kernel's file descriptor based mount calls, and serialized mounts turned into them.

A *serialized mount* is (type, source, options) with the words of mount(8). `build` turns one into a detached mount (a
descriptor that is attached nowhere yet), `attach` puts it on a path or, safe against symlink races, on a directory or
file opened before. `apply_mount` does both.

Sources: fsopen(2), fsconfig(2), fsmount(2), move_mount(2), open_tree(2), mount_setattr(2); kernel doc
filesystems/overlayfs.rst. Needs Linux 5.12.
"""

from __future__ import annotations

import errno
import os
import struct

from dockp.linux.libc import c_char_p, c_int, c_size_t, c_uint, c_ulong, c_void_p, check, error, function, system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

AT_EMPTY_PATH = 0x1000
AT_FDCWD = -100
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSMOUNT_CLOEXEC = 1
FSOPEN_CLOEXEC = 1

MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MS_NOATIME = 1 << 10
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_REC = 1 << 14

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

PROPAGATION = {
    "private": (MS_PRIVATE, False),
    "rprivate": (MS_PRIVATE, True),
    "shared": (MS_SHARED, False),
    "rshared": (MS_SHARED, True),
    "slave": (MS_SLAVE, False),
    "rslave": (MS_SLAVE, True),
    "unbindable": (MS_UNBINDABLE, False),
    "runbindable": (MS_UNBINDABLE, True),
}
"""Propagation words: (flag, whether it goes for the whole tree)."""

# word: (attributes to set, attributes to clear). With "r" in front of a word the whole tree is meant (OCI runtime-spec
# config.md, "Linux mount options"). The three access time modes are one field, which must be cleared to be set.
_ATTRIBUTES = {
    "ro": (MOUNT_ATTR_RDONLY, 0),
    "rw": (0, MOUNT_ATTR_RDONLY),
    "nosuid": (MOUNT_ATTR_NOSUID, 0),
    "suid": (0, MOUNT_ATTR_NOSUID),
    "nodev": (MOUNT_ATTR_NODEV, 0),
    "dev": (0, MOUNT_ATTR_NODEV),
    "noexec": (MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, MOUNT_ATTR_NOEXEC),
    "nodiratime": (MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, MOUNT_ATTR_NOSYMFOLLOW),
    "relatime": (0, MOUNT_ATTR_ATIME),
    "norelatime": (0, MOUNT_ATTR_ATIME),
    "noatime": (MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME),
    "atime": (0, MOUNT_ATTR_ATIME),
    "strictatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
    "nostrictatime": (0, MOUNT_ATTR_ATIME),
}
_IGNORED = frozenset({"", "defaults", "auto", "noauto", "nofail", "_netdev", "silent", "loud"})
# Read-only on the mount is enough for these, and their super block may be shared with other containers.
_SHARED_SUPER_BLOCKS = frozenset({"proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts", "tmpfs", "devtmpfs"})
_FSCONFIG_STRING_LIMIT = 255  # fsconfig(2) takes strings of 256 bytes, the final NUL included
_MOUNT_DATA_LIMIT = os.sysconf("SC_PAGE_SIZE") - 1

_mount = function("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = function("umount2", c_char_p, c_int)
_pivot_root = system_call("pivot_root", c_char_p, c_char_p)
_fsopen = system_call("fsopen", c_char_p, c_uint)
_fsconfig = system_call("fsconfig", c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = system_call("fsmount", c_int, c_uint, c_uint)
_move_mount = system_call("move_mount", c_int, c_char_p, c_int, c_char_p, c_uint)
_open_tree = system_call("open_tree", c_int, c_char_p, c_uint)
_mount_setattr = system_call("mount_setattr", c_int, c_char_p, c_uint, c_void_p, c_size_t)


class Options:
    """The words of a serialized mount, sorted by what has to be done with them.

    Attributes:
        set, clear: attributes of the mount itself. set_tree, clear_tree: of the whole tree under it.
        propagation: the words of `PROPAGATION`, in order. data: what the file system itself gets.
        bind: "" (a file system), "bind" or "rbind".
    """

    __slots__ = ("bind", "clear", "clear_tree", "data", "propagation", "set", "set_tree")

    def __init__(self, words: Iterable[str]) -> None:
        self.set = self.clear = self.set_tree = self.clear_tree = 0
        self.propagation: list[str] = []
        self.data: list[str] = []
        self.bind = ""
        for word in words:
            if word in _ATTRIBUTES:
                wanted, unwanted = _ATTRIBUTES[word]
                self.set, self.clear = self.set & ~unwanted | wanted, self.clear & ~wanted | unwanted
            elif word[:1] == "r" and word[1:] in _ATTRIBUTES:
                wanted, unwanted = _ATTRIBUTES[word[1:]]
                self.set_tree, self.clear_tree = (
                    self.set_tree & ~unwanted | wanted,
                    self.clear_tree & ~wanted | unwanted,
                )
            elif word in PROPAGATION:
                self.propagation.append(word)
            elif word in ("bind", "rbind"):
                self.bind = word
            elif word not in _IGNORED and not word.startswith("x-"):
                self.data.append(word)


def mount(source: str, target: str, type: str, flags: int = 0, data: str = "") -> None:
    """The classic mount(2)."""
    encode = os.fsencode
    check(
        _mount(encode(source), encode(target), type.encode(), flags, encode(data) if data else None),
        target,
    )


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    check(_umount2(os.fsencode(target), flags), target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    check(_pivot_root(os.fsencode(new), os.fsencode(old)), new)


def set_propagation(target: str, word: str) -> None:
    """Set one of `PROPAGATION` on a mount point given by path."""
    flag, recursive = PROPAGATION[word]
    check(_mount(b"none", os.fsencode(target), b"", flag | (MS_REC if recursive else 0), None), target)


def set_attributes(
    target: str | int, set: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False, userns: int = 0
) -> None:
    """mount_setattr(2) on a path (not followed) or on a mount's descriptor."""
    arguments = struct.pack("=QQQQ", set, clear, propagation, userns)
    flags = AT_RECURSIVE if recursive else 0
    if isinstance(target, int):
        result = _mount_setattr(target, b"", flags | AT_EMPTY_PATH, arguments, len(arguments))
    else:
        path = os.fsencode(target)
        result = _mount_setattr(AT_FDCWD, path, flags | AT_SYMLINK_NOFOLLOW, arguments, len(arguments))
    check(result, target)


def open_tree(source: str | int, recursive: bool = False) -> int:
    """A detached copy of the mount at ``source`` (a path, followed, or a descriptor): what a bind mount is made of."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    if isinstance(source, int):
        return check(_open_tree(source, b"", flags | AT_EMPTY_PATH), source)
    return check(_open_tree(AT_FDCWD, os.fsencode(source), flags), source)


def attach(mount_fd: int, target: str | int) -> None:
    """Put a detached mount on ``target``: a path (followed), or a descriptor of a directory or file."""
    if isinstance(target, int):
        flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
        check(_move_mount(mount_fd, b"", target, b"", flags), target)
    else:
        flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS
        check(_move_mount(mount_fd, b"", AT_FDCWD, os.fsencode(target), flags), target)


def new_filesystem(type: str, source: str, data: Sequence[str], attributes: int = 0, read_only: bool = False) -> int:
    """A detached mount of a new file system; ``data`` are its own options, one ``key`` or ``key=value`` each.

    Raises: OSError whose text is the file system's own complaint where it made one.
    """
    context = check(_fsopen(type.encode(), FSOPEN_CLOEXEC), type)
    try:
        if source:
            _configure(context, type, "source", source)
        for option in data:
            key, equals, value = option.partition("=")
            _configure(context, type, key, value if equals else None)
        if read_only:
            _configure(context, type, "ro", None)
        if _fsconfig(context, FSCONFIG_CMD_CREATE, None, None, 0) < 0:
            raise _explained(context, f"{type} file system")
        return check(_fsmount(context, FSMOUNT_CLOEXEC, attributes), type)
    finally:
        os.close(context)


def _configure(context: int, type: str, key: str, value: str | None) -> None:
    kind = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
    encoded = None if value is None else os.fsencode(value)
    if _fsconfig(context, kind, key.encode(), encoded, 0) < 0:
        raise _explained(context, f"{type} option {key}" + ("" if value is None else f"={value}"))


def _explained(context: int, subject: str) -> OSError:
    """The last error with the message the file system left in the context, if any (fsopen(2), "message log")."""
    failure = error(subject)
    try:
        message = os.read(context, 1024).decode(errors="replace").strip()
    except OSError:
        return failure
    text = message[2:] if message[1:2] == " " else message
    return OSError(failure.errno, f"{os.strerror(failure.errno or 0)} ({text})", subject)


def build(type: str, source: str, options: Sequence[str] | Options) -> int:
    """A detached mount from a serialized one; attributes are set, propagation words are not (see `propagate`)."""
    words = options if isinstance(options, Options) else Options(options)
    if words.bind or type == "bind":
        mount_fd = open_tree(source, recursive=words.bind == "rbind")
        attributes_done = False
    elif type == "overlay":
        mount_fd = _build_overlay(source, words)
        attributes_done = True
    else:
        read_only = bool(words.set & MOUNT_ATTR_RDONLY) and type not in _SHARED_SUPER_BLOCKS
        mount_fd = new_filesystem(type, source, words.data, words.set, read_only)
        attributes_done = True
    try:
        if not attributes_done and (words.set or words.clear):
            set_attributes(mount_fd, words.set, words.clear)
        if words.set_tree or words.clear_tree:
            set_attributes(mount_fd, words.set_tree, words.clear_tree, recursive=True)
    except OSError:
        os.close(mount_fd)
        raise
    return mount_fd


def propagate(mount_fd: int, words: Sequence[str]) -> None:
    """Apply propagation words to a mount, in order. After `attach`: a shared parent would undo them."""
    for word in words:
        flag, recursive = PROPAGATION[word]
        set_attributes(mount_fd, propagation=flag, recursive=recursive)


def apply_mount(type: str, source: str, options: Sequence[str], target: str | int) -> None:
    """Mount (type, source, options) on ``target``, a path (followed) or a descriptor.

    Raises: OSError; its filename says which part was refused.
    """
    words = Options(options)
    try:
        mount_fd = build(type, source, words)
    except OSError as failure:
        # EINVAL is what kernels before 6.5 say to "lowerdir+", but also the answer to any real mistake, which then
        # fails a second time below.
        if type != "overlay" or failure.errno != errno.EINVAL:
            raise
        _mount_overlay_in_one_page(source, words, target, failure)
        return
    try:
        attach(mount_fd, target)
        propagate(mount_fd, words.propagation)
    finally:
        os.close(mount_fd)


def _build_overlay(source: str, words: Options) -> int:
    """A detached overlay, whatever the number of its lower directories.

    mount(2) reads one page of options and cuts the rest off without an error, so lower directories are handed over one
    by one (``lowerdir+``, Linux 6.5).
    """
    lowers, others = _overlay_options(words.data)
    held: list[int] = []
    try:
        data = ["lowerdir+=" + _short_path(lower, held, raw=True) for lower in lowers]
        for option in others:
            key, equals, value = option.partition("=")
            if key in ("upperdir", "workdir"):
                value = _short_path(value, held, raw=False)
            data.append(key + equals + value)
        return new_filesystem("overlay", source, data, words.set, bool(words.set & MOUNT_ATTR_RDONLY))
    finally:
        for descriptor in held:
            os.close(descriptor)


def _mount_overlay_in_one_page(source: str, words: Options, target: str | int, first: OSError) -> None:
    """The way of kernels before 6.5: one ``lowerdir=a:b`` option, of paths short enough to fit into a page.

    Every directory is named by a descriptor's path when the names are too long or hold characters that the option
    parser would eat. Raises: ``first`` where this fails too, since it has the better explanation.
    """
    lowers, others = _overlay_options(words.data)
    held: list[int] = []
    try:
        data = _overlay_page(lowers, others, held, shorten=False)
        if len(os.fsencode(data)) > _MOUNT_DATA_LIMIT:
            data = _overlay_page(lowers, others, held, shorten=True)
        if len(os.fsencode(data)) > _MOUNT_DATA_LIMIT:
            raise OSError(errno.E2BIG, f"{len(lowers)} layers do not fit into one page of mount options", source)
        path = target if isinstance(target, str) else f"/proc/self/fd/{target}"
        try:
            mount(source or "overlay", path, "overlay", _classic_flags(words.set), data)
        except OSError:
            raise first from None
        for word in words.propagation:
            set_propagation(path, word)
    finally:
        for descriptor in held:
            os.close(descriptor)


def _overlay_options(data: Sequence[str]) -> tuple[list[str], list[str]]:
    lowers: list[str] = []
    others: list[str] = []
    for option in data:
        key, _, value = option.partition("=")
        if key == "lowerdir":
            lowers += split_lower_directories(value)
        elif key == "lowerdir+":
            lowers.append(value)
        else:
            others.append(option)
    return lowers, others


def _overlay_page(lowers: list[str], others: list[str], held: list[int], shorten: bool) -> str:
    limit = 0 if shorten else _MOUNT_DATA_LIMIT
    data = ["lowerdir=" + ":".join(_short_path(lower, held, False, limit) for lower in lowers)]
    for option in others:
        key, equals, value = option.partition("=")
        if key in ("upperdir", "workdir"):
            value = _short_path(value, held, False, limit)
        data.append(key + equals + value)
    return ",".join(data)


def _short_path(path: str, held: list[int], raw: bool, limit: int = _FSCONFIG_STRING_LIMIT) -> str:
    """``path``, or a descriptor's path that the kernel follows to it.

    The latter where ``path`` is longer than ``limit`` or, unless ``raw``, holds what the option parser would eat.
    """
    if len(os.fsencode(path)) <= limit and (raw or not any(letter in path for letter in "\\,:")):
        return path
    held.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
    return f"/proc/self/fd/{held[-1]}"


def _classic_flags(attributes: int) -> int:
    # The low attribute bits equal MS_RDONLY, MS_NOSUID, MS_NODEV and MS_NOEXEC; the times are spelled otherwise.
    flags = attributes & 0xF
    if attributes & MOUNT_ATTR_ATIME == MOUNT_ATTR_NOATIME:
        flags |= MS_NOATIME
    return flags


def split_lower_directories(value: str) -> list[str]:
    r"""The paths of a ``lowerdir=`` value: separated by ``:``, with ``\`` before one that belongs to a path."""
    paths = [""]
    letters = iter(value)
    for letter in letters:
        if letter == "\\":
            paths[-1] += next(letters, "")
        elif letter == ":":
            paths.append("")
        else:
            paths[-1] += letter
    return [path for path in paths if path]


def known_words() -> list[str]:
    """Every option word that is not a file system's own, sorted."""
    words = {*_ATTRIBUTES, *("r" + word for word in _ATTRIBUTES), *PROPAGATION, "bind", "rbind", "idmap", "ridmap"}
    return sorted(words)
