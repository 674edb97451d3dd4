"""The container's file tree: a list of steps, made in the shim and executed in the child.

Bind sources are opened in the shim, as detached mounts, since a child in a user namespace may not reach them; new file
systems are made in the child, since they belong to its namespaces. Every target is reached through a descriptor of the
root (`dockp.linux.paths`), so neither the image nor a neighbour that shares a volume can lead a mount outside by
symlinks. There is no undo: all of it lives in the child's mount namespace and ends with it.
"""

from __future__ import annotations

import errno
import os
import stat

from dockp.linux import mounts, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# OCI runtime-spec config-linux.md, "Default Devices"; /dev/console and /dev/ptmx are steps of their own.
DEFAULT_DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
DEFAULT_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
)
_KERNEL_TYPES = ("proc", "sysfs")


class Tree:
    """The root as the steps see it.

    Attributes:
        root: descriptor of the root mount. kernel: mount point of each proc and sysfs in it, by path, as descriptors.
        user_namespace: whether device nodes cannot be made, but must be bound.
    """

    __slots__ = ("_mask_directory", "kernel", "read_only_last", "root", "user_namespace")

    def __init__(self, root: int, user_namespace: bool) -> None:
        self.root = root
        self.user_namespace = user_namespace
        self.kernel: dict[str, int] = {}
        self.read_only_last: list[int] = []
        self._mask_directory = -1

    def base(self, path: str) -> tuple[int, str, int]:
        """Where to look up ``path`` so that nobody can swap it, as (descriptor, path below it, resolve flags).

        Inside proc and sysfs the mount itself is the starting point, and it has no symlinks that we want.
        """
        for point, fd in self.kernel.items():
            if path == point or path.startswith(point + "/"):
                rest = path[len(point) :].strip("/")
                return fd, rest, paths.RESOLVE_BENEATH | paths.RESOLVE_NO_SYMLINKS
        return self.root, path, paths.RESOLVE_IN_ROOT | paths.RESOLVE_NO_MAGICLINKS

    def find(self, path: str, flags: int = os.O_PATH) -> int:
        """Open what exists at ``path``. Raises OSError."""
        start, rest, resolve = self.base(path)
        return paths.open_in_root(start, rest or ".", flags, resolve=resolve)

    def mask_directory(self, target: int) -> None:
        """Cover the directory ``target`` with an empty read-only one."""
        if self._mask_directory < 0:
            # One empty tmpfs serves all masks.
            made = mounts.new_filesystem(
                "tmpfs", "tmpfs", ["size=0", "nr_inodes=1", "mode=0555"], mounts.MOUNT_ATTR_RDONLY
            )
            mounts.attach(made, target)
            self._mask_directory = made
            return
        copy = mounts.open_tree(self._mask_directory)
        try:
            mounts.attach(copy, target)
        finally:
            os.close(copy)


class Step:
    """One thing to do, in the child. `describe` says what, for errors and for debugging."""

    __slots__ = ()

    def describe(self) -> str:
        raise NotImplementedError

    def execute(self, tree: Tree) -> None:
        raise NotImplementedError


class BindStep(Step):
    """Attach a detached mount that the shim made."""

    __slots__ = ("destination", "directory", "mount_fd", "source", "words")

    def __init__(self, destination: str, source: str, words: mounts.Options, mount_fd: int) -> None:
        self.destination = destination
        self.source = source
        self.words = words
        self.mount_fd = mount_fd
        self.directory = stat.S_ISDIR(os.fstat(mount_fd).st_mode)

    def describe(self) -> str:
        return f"bind {self.source} on {self.destination}"

    def execute(self, tree: Tree) -> None:
        if self.directory:
            target = paths.make_directories(tree.root, self.destination)
        else:
            target = paths.open_or_make_file(tree.root, self.destination)
        try:
            _refuse_root(tree, target, self.destination)
            mounts.attach(self.mount_fd, target)
        finally:
            os.close(target)
        # As runc's, whose binds are made under a tree that does not propagate to the host. Then what was asked for.
        mounts.propagate(self.mount_fd, self.words.propagation or ["rslave"])


class FilesystemStep(Step):
    """Mount a new file system."""

    __slots__ = ("destination", "source", "type", "words")

    def __init__(self, destination: str, type: str, source: str, words: mounts.Options) -> None:
        self.destination = destination
        self.type = type
        self.source = source
        self.words = words

    def describe(self) -> str:
        return f"mount {self.type} on {self.destination}"

    def execute(self, tree: Tree) -> None:
        attach_filesystem(tree, self.destination, self.type, self.source, self.words)


def attach_filesystem(tree: Tree, destination: str, type: str, source: str, words: mounts.Options) -> int:
    """Mount a new file system and return its descriptor, which stays open in the child."""
    if type in _KERNEL_TYPES:
        target = _plain_directory(tree, destination)
        existed = True
    else:
        target, existed = _directory(tree, destination)
    late = type == "tmpfs" and words.set & mounts.MOUNT_ATTR_RDONLY
    if late:  # steps to come may have to make mount points in it
        words.set &= ~mounts.MOUNT_ATTR_RDONLY
    data_mode = [option for option in words.data if option.startswith("mode=")]
    if type == "tmpfs" and existed and not data_mode:
        # runc's habit, expected by images: a tmpfs over a directory has that directory's mode, else the kernel's, 1777.
        words.data.append(f"mode={stat.S_IMODE(os.fstat(target).st_mode):04o}")
    try:
        _refuse_root(tree, target, destination)
        mount_fd = mounts.build(type, source, words)
        mounts.attach(mount_fd, target)
    finally:
        os.close(target)
    if words.propagation:
        mounts.propagate(mount_fd, words.propagation)
    if type in _KERNEL_TYPES:
        tree.kernel[_normal(destination)] = mount_fd
    if late:
        tree.read_only_last.append(mount_fd)
    return mount_fd


def _directory(tree: Tree, destination: str) -> tuple[int, bool]:
    """A mount point, and whether it was there before."""
    try:
        return paths.open_in_root(tree.root, destination, os.O_PATH | os.O_DIRECTORY), True
    except OSError:  # the other way finds out what is wrong, if anything
        return paths.make_directories(tree.root, destination), False


def _plain_directory(tree: Tree, destination: str) -> int:
    """A mount point for proc or sysfs: no component may be a symlink, or masks and labels would go elsewhere."""
    os.close(paths.make_directories(tree.root, destination))
    try:
        return paths.open_in_root(
            tree.root,
            destination,
            os.O_PATH | os.O_DIRECTORY,
            resolve=paths.RESOLVE_IN_ROOT | paths.RESOLVE_NO_SYMLINKS,
        )
    except OSError as failure:
        if failure.errno != errno.ELOOP:
            raise
        text = "must be an ordinary directory in the image, not a symbolic link"
        raise OSError(errno.ELOOP, text, destination) from None


def _refuse_root(tree: Tree, target: int, destination: str) -> None:
    # A mount that a symlink or ".." lands on the root itself would hide the container's own files from later steps.
    here, root = os.fstat(target), os.fstat(tree.root)
    if (here.st_dev, here.st_ino) == (root.st_dev, root.st_ino):
        raise OSError(errno.EINVAL, "the destination is the container's root", destination)


def _normal(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


class CgroupStep(Step):
    """Show the container its own cgroups: a tmpfs with one directory a version 1 hierarchy."""

    __slots__ = ("destination", "hierarchies", "links", "words")

    def __init__(
        self, destination: str, hierarchies: list[tuple[str, int]], links: list[tuple[str, str]], words: mounts.Options
    ) -> None:
        self.destination = destination
        self.hierarchies = hierarchies
        self.links = links
        self.words = words

    def describe(self) -> str:
        return f"mount the cgroups on {self.destination}"

    def execute(self, tree: Tree) -> None:
        options = mounts.Options(["mode=0755"])
        options.set = self.words.set
        base = attach_filesystem(tree, self.destination, "tmpfs", "cgroup", options)
        for name, mount_fd in self.hierarchies:
            os.mkdir(name, 0o755, dir_fd=base)
            target = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base)
            try:
                mounts.attach(mount_fd, target)
            finally:
                os.close(target)
        for name, where in self.links:
            os.symlink(where, name, dir_fd=base)


class DeviceStep(Step):
    """Make a device node, or bind the host's where nodes cannot be made."""

    __slots__ = ("gid", "mode", "number", "path", "uid")

    def __init__(self, path: str, mode: int, number: int, uid: int = 0, gid: int = 0) -> None:
        self.path = path
        self.mode = mode
        self.number = number
        self.uid = uid
        self.gid = gid

    def describe(self) -> str:
        return f"make device {self.path}"

    def execute(self, tree: Tree) -> None:
        head, _, name = self.path.rstrip("/").rpartition("/")
        parent = paths.make_directories(tree.root, head or "/")
        try:
            if tree.user_namespace:
                self._bind(parent, name)
                return
            try:
                self._make(parent, name)
            except PermissionError:  # no CAP_MKNOD, or a file system that takes no nodes
                self._bind(parent, name)
        finally:
            os.close(parent)

    def _make(self, parent: int, name: str) -> None:
        try:
            os.mknod(name, self.mode, self.number, dir_fd=parent)
        except FileExistsError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_IFMT(found.st_mode) != stat.S_IFMT(self.mode) or (self.number and found.st_rdev != self.number):
                os.unlink(name, dir_fd=parent)
                os.mknod(name, self.mode, self.number, dir_fd=parent)
        if self.uid or self.gid:
            os.chown(name, self.uid, self.gid, dir_fd=parent, follow_symlinks=False)

    def _bind(self, parent: int, name: str) -> None:
        source = mounts.open_tree(self.path)  # still the host's /dev: the root is not changed yet
        try:
            if os.fstat(source).st_rdev != self.number:
                raise OSError(errno.ENODEV, "the host's device of that name has another number", self.path)
            made = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            found = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                target = os.open(name, made, 0o644, dir_fd=parent)
            except FileExistsError:
                target = os.open(name, found, dir_fd=parent)
            try:
                mounts.attach(source, target)
            finally:
                os.close(target)
        finally:
            os.close(source)


class LinkStep(Step):
    """Make a symlink in /dev, replacing what the image has there."""

    __slots__ = ("path", "target")

    def __init__(self, path: str, target: str) -> None:
        self.path = path
        self.target = target

    def describe(self) -> str:
        return f"link {self.path} to {self.target}"

    def execute(self, tree: Tree) -> None:
        head, _, name = self.path.rpartition("/")
        parent = paths.make_directories(tree.root, head)
        try:
            try:
                os.symlink(self.target, name, dir_fd=parent)
            except FileExistsError:
                try:
                    if os.readlink(name, dir_fd=parent) == self.target:
                        return
                except OSError:
                    pass  # not a link: replaced below
                os.unlink(name, dir_fd=parent)
                os.symlink(self.target, name, dir_fd=parent)
        finally:
            os.close(parent)


class ConsoleStep(Step):
    """Bind the terminal (descriptor 0) on /dev/console."""

    __slots__ = ()

    def describe(self) -> str:
        return "bind the terminal on /dev/console"

    def execute(self, tree: Tree) -> None:
        # The mount that descriptor 0 was opened through belongs to the shim's namespace and cannot be copied here; its
        # path in this namespace's copy can, once it is certain to be the same terminal.
        path = os.ttyname(0)
        source = mounts.open_tree(path)
        try:
            here, wanted = os.fstat(source), os.fstat(0)
            if (here.st_dev, here.st_ino, here.st_rdev) != (wanted.st_dev, wanted.st_ino, wanted.st_rdev):
                raise OSError(errno.ENODEV, "another terminal has this name", path)
            target = paths.open_or_make_file(tree.root, "/dev/console", 0o600)
            try:
                mounts.attach(source, target)
            finally:
                os.close(target)
        finally:
            os.close(source)


class SysctlStep(Step):
    """Write one /proc/sys file, through the container's own proc or else the host's."""

    __slots__ = ("key", "value")

    def __init__(self, key: str, value: str) -> None:
        self.key = key
        self.value = value

    def describe(self) -> str:
        return f"set sysctl {self.key}={self.value}"

    def execute(self, tree: Tree) -> None:
        # A key with slashes may have dots in a name (net/ipv4/conf/eth0.1/forwarding).
        path = "/proc/sys/" + (self.key if "/" in self.key else self.key.replace(".", "/"))
        if "/proc" in tree.kernel:
            fd = tree.find(path, os.O_WRONLY)
        else:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, self.value.encode())
        finally:
            os.close(fd)


class ReadOnlyStep(Step):
    """Make one path of the container read-only, with all below it; what does not exist needs no protection."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def describe(self) -> str:
        return f"make {self.path} read-only"

    def execute(self, tree: Tree) -> None:
        try:
            target = tree.find(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            copy = mounts.open_tree(target, recursive=True)
            try:
                mounts.set_attributes(copy, set=mounts.MOUNT_ATTR_RDONLY, recursive=True)
                mounts.attach(copy, target)
            finally:
                os.close(copy)
        finally:
            os.close(target)


class MaskStep(Step):
    """Hide one path: a directory behind an empty one, a file behind /dev/null."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def describe(self) -> str:
        return f"mask {self.path}"

    def execute(self, tree: Tree) -> None:
        try:
            target = tree.find(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if stat.S_ISDIR(os.fstat(target).st_mode):
                tree.mask_directory(target)
                return
            # The host's /dev/null, reached before the root changes, never the container's, which an image or a
            # neighbour could have replaced.
            nothing = mounts.open_tree("/dev/null")
            try:
                mounts.attach(nothing, target)
            finally:
                os.close(nothing)
        finally:
            os.close(target)


class LateReadOnlyStep(Step):
    """Make read-only what had to stay writable while it was furnished: tmpfs mounts, then the root."""

    __slots__ = ("root",)

    def __init__(self, root: bool) -> None:
        self.root = root

    def describe(self) -> str:
        return "make the root read-only" if self.root else "make tmpfs mounts read-only"

    def execute(self, tree: Tree) -> None:
        for mount_fd in tree.read_only_last:
            mounts.set_attributes(mount_fd, set=mounts.MOUNT_ATTR_RDONLY)
        if self.root:
            mounts.set_attributes(tree.root, set=mounts.MOUNT_ATTR_RDONLY)


def device_steps(spec: dict[str, Any], terminal: bool) -> list[Step]:
    """Nodes and links of /dev, unless the spec binds a /dev of its own."""
    for entry in spec.get("mounts") or []:
        words = mounts.Options(entry.get("options") or [])
        if _normal(entry.get("destination", "")) == "/dev" and (words.bind or entry.get("type") == "bind"):
            return []
    steps: list[Step] = []
    given = spec["linux"].get("devices") or []
    own = {entry["path"] for entry in given}
    for path, major, minor in DEFAULT_DEVICES:
        if path not in own:
            steps.append(DeviceStep(path, stat.S_IFCHR | 0o666, os.makedev(major, minor)))
    for entry in given:
        kinds = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
        kind = kinds[entry["type"]]
        number = 0 if entry["type"] == "p" else os.makedev(entry["major"], entry["minor"])
        mode = kind | (0o666 if entry.get("fileMode") is None else entry["fileMode"] & 0o7777)
        steps.append(DeviceStep(entry["path"], mode, number, entry.get("uid") or 0, entry.get("gid") or 0))
    steps += [LinkStep(path, target) for path, target in DEFAULT_LINKS]
    steps.append(LinkStep("/dev/ptmx", "pts/ptmx"))
    if terminal:
        steps.append(ConsoleStep())
    return steps
