"""The rules of `dockp.spi.storage`, one function each. None needs pytest: a check passes or raises AssertionError.

`CHECKS` has them all by name. Each takes a `StorageLab` with a fresh root. The first line of a check's docstring is the
rule; what follows says which mistake it guards against.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from dockp.archive.apply import NeedsParent, apply_layer
from dockp.archive.changes import between, in_directory
from dockp.archive.pack import pack_changes
from dockp.spi.errors import DockpError, InvalidArgument, NotFound
from dockp.testkit._lab import StorageLab
from dockp.testkit._mounts import mount_table
from dockp.testkit._trees import MAKING, VERBS, Edit, Node, difference, edit_tree, manifest

Check = Callable[[StorageLab], None]
CHECKS: dict[str, Check] = {}
"""Every check by its name, which reads as a sentence."""


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def write(*paths: str, content: str = "content") -> None:
    for path in paths:
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


@contextmanager
def raises(*kinds: type[BaseException]) -> Iterator[list[BaseException]]:
    """The block must raise one of ``kinds``; the list then holds it."""
    caught: list[BaseException] = []
    try:
        yield caught
    except kinds as error:
        caught.append(error)
        return
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} was raised, not {_names(kinds)}: {error}") from error
    raise AssertionError(f"{_names(kinds)} was not raised")


def _names(kinds: tuple[type[BaseException], ...]) -> str:
    return " or ".join(kind.__name__ for kind in kinds)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """The umask belongs to the whole process: no other thread may make files meanwhile."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _same(expected: object, actual: object) -> None:
    assert actual == expected, f"{actual!r}, should be {expected!r}"


# What a snapshot looks like


@check
def a_base_is_an_empty_directory_of_root_with_mode_0755(lab: StorageLab) -> None:
    """Without parent, a snapshot is empty, mode 0755, owned by root."""
    lab.snapshot("base")
    with lab.mounted("base") as path:
        info = os.stat(path)
        _same(([], 0o755, 0, 0), (os.listdir(path), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid))


@check
def a_child_looks_like_its_parent(lab: StorageLab) -> None:
    """A new child shows exactly what its parent showed, and so does its child."""

    def fill(path: str) -> None:
        edit_tree(path, [Edit(verb, number, number, number) for number, verb in enumerate(MAKING * 3)])

    lab.layer("1", None, fill)
    with lab.mounted("1") as path:
        expected = manifest(path)
    lab.layer("2", "1")
    lab.snapshot("3", "2")
    with lab.mounted("3") as path:
        found = difference(expected, manifest(path))
    assert not found, "\n".join(found)


@check
def a_snapshot_needs_no_mount_before_it_becomes_a_parent(lab: StorageLab) -> None:
    """create and seal suffice: an empty layer is legal."""
    lab.driver.create("1", None, {})
    lab.driver.seal("1")
    lab.driver.create("2", "1", {})
    with lab.mounted("2") as path:
        write(f"{path}/f")


@check
def a_child_begins_with_the_attributes_of_its_parents_root(lab: StorageLab) -> None:
    """Mode, owner and xattrs of the root directory are inherited: /tmp images have a root of mode 01777."""

    def fill(path: str) -> None:
        os.chown(path, 7, 8)
        os.chmod(path, 0o1775)
        os.setxattr(path, "trusted.dockp", b"x")

    lab.layer("1", None, fill)
    lab.layer("2", "1")
    lab.snapshot("3", "2")
    with lab.mounted("3") as path:
        info = os.stat(path)
        _same((7, 8, 0o1775), (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)))
        _same(b"x", os.getxattr(path, "trusted.dockp"))


# Copy on write


@check
def writes_stay_in_the_snapshot_that_made_them(lab: StorageLab) -> None:
    """Two children of one parent never see each other's writes, and the parent sees neither."""
    lab.layer("1", None, lambda path: write(f"{path}/changed", f"{path}/appended", content="parent"))

    def change(word: str) -> Callable[[str], None]:
        def edit(path: str) -> None:
            with open(f"{path}/changed", "r+", encoding="utf-8") as file:
                file.write(word)
            with open(f"{path}/appended", "a", encoding="utf-8") as file:
                file.write(word)
            write(f"{path}/only in {word}")

        return edit

    lab.snapshot("left", "1", change("lefty!"))
    lab.snapshot("right", "1", change("right!"))
    for id, word in (("left", "lefty!"), ("right", "right!")):
        with lab.mounted(id) as path:
            _same(["appended", "changed", f"only in {word}"], sorted(os.listdir(path)))
            _same((word, "parent" + word), (read(f"{path}/changed"), read(f"{path}/appended")))
    with lab.mounted("1") as path:
        _same(["appended", "changed"], sorted(os.listdir(path)))
        _same(("parent", "parent"), (read(f"{path}/changed"), read(f"{path}/appended")))


@check
def attributes_changed_in_a_child_stay_there(lab: StorageLab) -> None:
    """chmod, chown and utime in a child do not reach the parent: copies by hard link fail here."""
    lab.layer("1", None, lambda path: write(f"{path}/f"))

    def change(path: str) -> None:
        os.chmod(f"{path}/f", 0o600)
        os.chown(f"{path}/f", 5, 5)
        os.utime(f"{path}/f", ns=(1, 1))

    with lab.mounted("1") as path:
        before = manifest(path)
    lab.snapshot("2", "1", change)
    with lab.mounted("1") as path:
        found = difference(before, manifest(path))
    assert not found, "\n".join(found)


@check
def what_was_deleted_stays_deleted(lab: StorageLab) -> None:
    """Deleted files and directories are gone in the child and in its children, and still there in the parent."""

    def fill(path: str) -> None:
        os.makedirs(f"{path}/directory/inner")
        write(f"{path}/directory/inner/file")
        write(f"{path}/file")
        write(f"{path}/kept")

    def delete(path: str) -> None:
        os.unlink(f"{path}/file")
        os.unlink(f"{path}/directory/inner/file")
        os.rmdir(f"{path}/directory/inner")
        os.rmdir(f"{path}/directory")

    lab.layer("1", None, fill)
    lab.layer("2", "1", delete)
    lab.snapshot("3", "2")
    for id, expected in (("2", ["kept"]), ("3", ["kept"]), ("1", ["directory", "file", "kept"])):
        with lab.mounted(id) as path:
            _same(expected, sorted(os.listdir(path)))


@check
def a_directory_made_anew_does_not_show_what_the_old_one_held(lab: StorageLab) -> None:
    """Remove a directory of the parent, make one of the same name: it is empty, also for children (opaque)."""

    def fill(path: str) -> None:
        os.mkdir(f"{path}/d")
        write(f"{path}/d/old")

    def replace(path: str) -> None:
        os.unlink(f"{path}/d/old")
        os.rmdir(f"{path}/d")
        os.mkdir(f"{path}/d")
        write(f"{path}/d/new")

    lab.layer("1", None, fill)
    lab.layer("2", "1", replace)
    lab.snapshot("3", "2")
    for id in ("2", "3"):
        with lab.mounted(id) as path:
            _same(["new"], os.listdir(f"{path}/d"))


@check
def a_file_may_become_a_directory_and_back(lab: StorageLab) -> None:
    """The kind of a path may change from layer to layer."""
    lab.layer("1", None, lambda path: write(f"{path}/x", content="file"))

    def to_directory(path: str) -> None:
        os.unlink(f"{path}/x")
        os.mkdir(f"{path}/x")
        write(f"{path}/x/inner")

    def to_link(path: str) -> None:
        os.unlink(f"{path}/x/inner")
        os.rmdir(f"{path}/x")
        os.symlink("elsewhere", f"{path}/x")

    lab.layer("2", "1", to_directory)
    lab.layer("3", "2", to_link)
    lab.snapshot("4", "3")
    with lab.mounted("2") as path:
        _same(["inner"], os.listdir(f"{path}/x"))
    with lab.mounted("4") as path:
        _same("elsewhere", os.readlink(f"{path}/x"))


@check
def files_of_a_lower_layer_can_be_renamed_across_directories(lab: StorageLab) -> None:
    """rename(2) of a lower file works, within and across directories, over existing files too."""

    def fill(path: str) -> None:
        for name in ("from", "to"):
            os.mkdir(f"{path}/{name}")
        for name in ("from/a", "from/b", "to/b"):
            write(f"{path}/{name}", content=name)

    def rename(path: str) -> None:
        os.rename(f"{path}/from/a", f"{path}/to/a")
        os.rename(f"{path}/from/b", f"{path}/to/b")

    lab.layer("1", None, fill)
    lab.layer("2", "1", rename)
    lab.snapshot("3", "2")
    with lab.mounted("3") as path:
        _same(([], ["a", "b"]), (os.listdir(f"{path}/from"), sorted(os.listdir(f"{path}/to"))))
        _same(("from/a", "from/b"), (read(f"{path}/to/a"), read(f"{path}/to/b")))


@check
def directories_of_a_lower_layer_can_be_renamed(lab: StorageLab) -> None:
    """rename(2) of a lower directory works. Limit: overlay without redirect_dir says EXDEV, and programs copy."""

    def fill(path: str) -> None:
        os.mkdir(f"{path}/old")
        write(f"{path}/old/f")

    lab.layer("1", None, fill)
    lab.layer("2", "1", lambda path: os.rename(f"{path}/old", f"{path}/new"))
    lab.snapshot("3", "2")
    with lab.mounted("3") as path:
        _same((["new"], ["f"]), (os.listdir(path), os.listdir(f"{path}/new")))


# What files are made of


@check
def hard_links_are_kept(lab: StorageLab) -> None:
    """Names of one file in the parent are names of one file in the child."""

    def fill(path: str) -> None:
        os.mkdir(f"{path}/d")
        write(f"{path}/a")
        os.link(f"{path}/a", f"{path}/d/b")
        os.symlink("a", f"{path}/s")
        os.link(f"{path}/s", f"{path}/d/s", follow_symlinks=False)

    lab.layer("1", None, fill)
    lab.snapshot("2", "1")
    with lab.mounted("2") as path:
        for one, other in (("a", "d/b"), ("s", "d/s")):
            first, second = os.lstat(f"{path}/{one}"), os.lstat(f"{path}/{other}")
            _same((first.st_ino, 2, 2), (second.st_ino, first.st_nlink, second.st_nlink))


@check
def a_hard_link_to_a_lower_file_can_be_made(lab: StorageLab) -> None:
    """link(2) on a file of the parent makes two names of one file."""
    lab.layer("1", None, lambda path: write(f"{path}/a", content="old"))
    lab.layer("2", "1", lambda path: os.link(f"{path}/a", f"{path}/b"))
    lab.snapshot("3", "2")
    with lab.mounted("3") as path:
        _same(os.lstat(f"{path}/a").st_ino, os.lstat(f"{path}/b").st_ino)
        _same(("old", "old"), (read(f"{path}/a"), read(f"{path}/b")))


@check
def hard_links_of_a_lower_layer_stay_one_file_when_written(lab: StorageLab) -> None:
    """A write through one name shows under the other. Limit: overlay copies one name up alone."""

    def fill(path: str) -> None:
        write(f"{path}/a", content="old")
        os.link(f"{path}/a", f"{path}/b")

    lab.layer("1", None, fill)
    lab.snapshot("2", "1", lambda path: write(f"{path}/a", content="new"))
    with lab.mounted("2") as path:
        _same("new", read(f"{path}/b"))


@check
def a_change_to_a_hard_link_of_a_lower_layer_reaches_views_and_children(lab: StorageLab) -> None:
    """Change one of two names, the other deleted before: views, and children once sealed, show the change.

    Overlay with its index on keeps such a change in the work directory alone."""

    def fill(path: str) -> None:
        write(f"{path}/a", content="old")
        os.link(f"{path}/a", f"{path}/b")

    def change(path: str) -> None:
        os.unlink(f"{path}/a")
        os.chmod(f"{path}/b", 0o600)
        with open(f"{path}/b", "a", encoding="utf-8") as file:
            file.write(" and new")

    def expect(path: str) -> None:
        mode = stat.S_IMODE(os.stat(f"{path}/b").st_mode)
        _same((["b"], 0o600, "old and new"), (os.listdir(path), mode, read(f"{path}/b")))

    lab.layer("1", None, fill)
    lab.snapshot("2", "1", change)
    with lab.mounted("2", read_only=True) as path:
        expect(path)
    lab.driver.seal("2")
    lab.snapshot("3", "2")
    with lab.mounted("3") as path:
        expect(path)


@check
def xattrs_are_kept(lab: StorageLab) -> None:
    """Binary xattrs of every namespace a root file system uses, on files and directories."""

    def fill(path: str) -> None:
        write(f"{path}/f")
        os.mkdir(f"{path}/d")
        for name in ("f", "d"):
            os.setxattr(f"{path}/{name}", "trusted.dockp", b"\x00\xff")
            os.setxattr(f"{path}/{name}", "user.dockp", b"u" * 200)

    lab.layer("1", None, fill)
    lab.layer("2", "1", lambda path: os.removexattr(f"{path}/f", "user.dockp"))
    lab.snapshot("3", "2")
    with lab.mounted("3") as path:
        _same(["trusted.dockp"], _xattrs(f"{path}/f"))
        _same(["trusted.dockp", "user.dockp"], _xattrs(f"{path}/d"))
        _same(b"\x00\xff", os.getxattr(f"{path}/f", "trusted.dockp"))


def _xattrs(path: str) -> list[str]:
    return [name for name in sorted(os.listxattr(path)) if not name.startswith("trusted.overlay.")]


@check
def file_capabilities_are_kept(lab: StorageLab) -> None:
    """security.capability survives, on files with other owners too: chown after setting it loses it (ping)."""
    capability = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)

    def fill(path: str) -> None:
        write(f"{path}/ping")
        os.chown(f"{path}/ping", 5, 5)
        os.setxattr(f"{path}/ping", "security.capability", capability)

    lab.layer("1", None, fill)
    lab.snapshot("2", "1")
    with lab.mounted("2") as path:
        try:
            found = os.getxattr(f"{path}/ping", "security.capability")
        except OSError as error:
            raise AssertionError("the capability is gone") from error
        _same(capability, found)


@check
def devices_fifos_and_sockets_are_kept(lab: StorageLab) -> None:
    """Special files keep kind, number and mode."""

    def fill(path: str) -> None:
        for name, kind, device in _SPECIAL:
            os.mknod(f"{path}/{name}", kind | 0o600, device)
            os.chmod(f"{path}/{name}", 0o640)

    lab.layer("1", None, fill)
    lab.snapshot("2", "1")
    with lab.mounted("2") as path:
        for name, kind, device in _SPECIAL:
            info = os.lstat(f"{path}/{name}")
            _same((kind | 0o640, device), (info.st_mode, info.st_rdev))


_SPECIAL = (
    ("null", stat.S_IFCHR, os.makedev(1, 3)),
    ("loop0", stat.S_IFBLK, os.makedev(7, 0)),
    ("large", stat.S_IFCHR, os.makedev(511, 70_000)),
    ("fifo", stat.S_IFIFO, 0),
    ("socket", stat.S_IFSOCK, 0),
)


@check
def sparse_files_stay_sparse(lab: StorageLab) -> None:
    """A file of one hole costs (nearly) nothing in a child, and reads the same: a database's files, say."""
    length = 64 * 1024 * 1024

    def fill(path: str) -> None:
        with open(f"{path}/sparse", "wb") as file:
            file.truncate(length)
            file.seek(length // 2)
            file.write(b"middle")

    lab.layer("1", None, fill)
    lab.snapshot("2", "1")
    with lab.mounted("2") as path:
        info = os.stat(f"{path}/sparse")
        assert info.st_blocks * 512 < length // 8, f"the hole was filled: {info.st_blocks * 512} bytes"
        with open(f"{path}/sparse", "rb") as file:
            file.seek(length // 2 - 2)
            _same((length, b"\0\0middle\0\0"), (info.st_size, file.read(10)))


@check
def owners_and_modes_are_kept(lab: StorageLab) -> None:
    """Large ids, setuid, setgid, sticky and mode 0: chown after chmod loses setuid (sudo)."""
    kinds = {"su": (0, 0, 0o4755), "sg": (1000, 42, 0o2755), "t": (2**31, 2**32 - 2, 0o1777), "none": (65534, 65534, 0)}

    def fill(path: str) -> None:
        for name, (uid, gid, mode) in kinds.items():
            write(f"{path}/{name}")
            os.mkdir(f"{path}/{name}.d")
            for suffix in ("", ".d"):
                os.chown(f"{path}/{name}{suffix}", uid, gid)
                os.chmod(f"{path}/{name}{suffix}", mode)
        os.symlink("su", f"{path}/link")
        os.chown(f"{path}/link", 77, 78, follow_symlinks=False)

    lab.layer("1", None, fill)
    lab.snapshot("2", "1")
    with lab.mounted("2") as path:
        for name, expected in kinds.items():
            for suffix in ("", ".d"):
                info = os.lstat(f"{path}/{name}{suffix}")
                _same(expected, (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)))
        _same((77, 78), (os.lstat(f"{path}/link").st_uid, os.lstat(f"{path}/link").st_gid))


@check
def times_are_kept_to_the_nanosecond(lab: StorageLab) -> None:
    """Modification times of files, directories and links, before 1970 too. Build caches and make depend on it."""
    times = {
        "f": 1_234_567_890_123_456_789,
        "d": 1_000_000_000_000_000_001,
        "d/f": -5,
        "link": 1_600_000_000_999_999_999,
    }

    def fill(path: str) -> None:
        write(f"{path}/f")
        os.mkdir(f"{path}/d")
        write(f"{path}/d/f")
        os.symlink("f", f"{path}/link")
        for name in ("f", "d/f", "d", "link"):
            os.utime(f"{path}/{name}", ns=(times[name], times[name]), follow_symlinks=False)

    lab.layer("1", None, fill)
    lab.snapshot("2", "1")
    with lab.mounted("2") as path:
        for name, expected in times.items():
            _same((name, expected), (name, os.lstat(f"{path}/{name}").st_mtime_ns))


@check
def names_are_bytes(lab: StorageLab) -> None:
    """Names that are not UTF-8, of 255 bytes, with newlines, colons, commas and backslashes."""
    names = [b"\xff\xfe", b"n" * 255, b"new\nline", b"a:b,c\\d=e", b" ", b".wh", b"-rf"]

    def fill(path: str) -> None:
        for name in names:
            os.close(os.open(os.path.join(os.fsencode(path), name), os.O_CREAT | os.O_WRONLY, 0o644))

    lab.layer("1", None, fill)
    lab.snapshot("2", "1", lambda path: os.unlink(os.path.join(os.fsencode(path), names[0])))
    with lab.mounted("2") as path:
        _same(sorted(names[1:]), sorted(os.listdir(os.fsencode(path))))


# Chains


@check
def one_hundred_and_twenty_eight_layers_mount(lab: StorageLab) -> None:
    """Every layer of a chain of 128 shows, in order, and a child of it can be written to.

    mount(2) cuts its options at one page in silence: the mount then succeeds with layers missing."""
    parent: str | None = None
    for number in range(128):

        def fill(path: str, number: int = number) -> None:
            write(f"{path}/only.{number:03}")
            write(f"{path}/latest", content=str(number))

        # Long ids make long paths.
        parent = lab.layer(f"{number:03}.{'x' * 60}", parent, fill)
    lab.snapshot("top", parent, lambda path: write(f"{path}/top"))
    with lab.mounted("top") as path:
        _same(["latest", *(f"only.{number:03}" for number in range(128)), "top"], sorted(os.listdir(path)))
        _same("127", read(f"{path}/latest"))
    assert parent is not None
    with lab.mounted(parent) as path:
        _same(129, len(os.listdir(path)))


@check
def a_root_may_have_odd_characters_in_its_path(lab: StorageLab) -> None:
    """Data roots with spaces, commas, colons and backslashes work: all are special in mount options."""
    other = StorageLab(lab.open, lab.scratch / "with space,comma:colon\\backslash")
    other.layer("1", None, lambda path: write(f"{path}/f", content="1"))
    other.layer("2", "1", lambda path: write(f"{path}/g", content="2"))
    other.snapshot("3", "2", lambda path: write(f"{path}/h", content="3"))
    with other.mounted("3") as path:
        _same(["f", "g", "h"], sorted(os.listdir(path)))


@check
def ids_may_be_anything_the_contract_allows(lab: StorageLab) -> None:
    """``[A-Za-z0-9_.-]{1,64}``, also where ids differ by a suffix a driver might use for itself."""
    ids = [
        "a",
        "A",
        "a.tmp",
        "a-init",
        "a-removing",
        ".a",
        "-a",
        "_",
        "tmp",
        "diff",
        "work",
        "l",
        "0" * 64,
        "...",
        "a.new",
    ]
    for id in ids:
        lab.layer(id, None, lambda path, id=id: write(f"{path}/id", content=id))  # type: ignore[misc]
    _same(sorted(ids), sorted(lab.driver.inventory()))
    for id in ids:
        with lab.mounted(id) as path:
            _same(id, read(f"{path}/id"))
    lab.driver.remove("a")
    _same(sorted(set(ids) - {"a"}), sorted(lab.driver.inventory()))


# Sealing


@check
def a_sealed_snapshot_mounts_read_only(lab: StorageLab) -> None:
    """Once sealed, writing fails with EROFS even if nobody asked for read_only; with and without parent."""
    lab.layer("1", None, lambda path: write(f"{path}/f"))
    lab.layer("2", "1", lambda path: write(f"{path}/g"))
    lab.layer("3", "2")
    for id in ("1", "2", "3"):
        with lab.mounted(id) as path:
            _refuses_writes(path)


@check
def a_read_only_mount_refuses_writes(lab: StorageLab) -> None:
    """mounts(id, read_only=True) of a writable snapshot shows it and refuses writes."""
    lab.layer("1", None, lambda path: write(f"{path}/f"))
    lab.snapshot("2", "1", lambda path: write(f"{path}/g"))
    lab.snapshot("alone", None, lambda path: write(f"{path}/f", f"{path}/g"))
    for id in ("2", "alone"):
        with lab.mounted(id, read_only=True) as path:
            _same(["f", "g"], sorted(os.listdir(path)))
            _refuses_writes(path)
        with lab.mounted(id) as path:
            write(f"{path}/still writable")


def _refuses_writes(path: str) -> None:
    with raises(OSError) as caught:
        write(f"{path}/new")
    _same(errno.EROFS, caught[0].errno)  # type: ignore[attr-defined]


@check
def sealing_keeps_the_content(lab: StorageLab) -> None:
    """What was written before seal is there afterwards, attributes of the root included."""
    edits = [Edit(verb, number, number, number) for number, verb in enumerate(MAKING * 2)]
    lab.snapshot("1", None, lambda path: edit_tree(path, edits))
    with lab.mounted("1") as path:
        before = manifest(path)
    lab.driver.seal("1")
    with lab.mounted("1") as path:
        found = difference(before, manifest(path))
    assert not found, "\n".join(found)


# Verbs: what they refuse, and doing them again


@check
def every_verb_may_be_repeated(lab: StorageLab) -> None:
    """create, seal and remove of what is created, sealed or removed already succeed and change nothing."""
    lab.snapshot("1", None, lambda path: write(f"{path}/f", content="1"))
    lab.driver.create("1", None, {})
    with lab.mounted("1") as path:
        _same("1", read(f"{path}/f"))
    lab.driver.seal("1")
    lab.driver.seal("1")
    lab.driver.create("1", None, {})
    lab.snapshot("2", "1", lambda path: write(f"{path}/g", content="2"))
    lab.driver.create("2", "1", {})
    with lab.mounted("2") as path:
        _same(("1", "2"), (read(f"{path}/f"), read(f"{path}/g")))
    lab.driver.remove("2")
    lab.driver.remove("2")
    lab.driver.remove("never there")
    with lab.mounted("1") as path:
        _same("1", read(f"{path}/f"))
        _refuses_writes(path)


@check
def a_missing_snapshot_is_not_found(lab: StorageLab) -> None:
    """mounts, seal, usage and changes of an absent id raise NotFound."""
    verbs: list[Callable[[str], object]] = [lab.driver.mounts, lab.driver.seal, lab.driver.usage]
    if type(lab.driver).changes is not _base_changes():
        verbs.append(lab.driver.changes)
    for verb in verbs:
        with raises(NotFound):
            verb("missing")
    _same(frozenset(), lab.driver.inventory())


def _base_changes() -> object:
    from dockp.spi.storage import StorageDriver

    return StorageDriver.changes


@check
def a_missing_parent_is_not_found(lab: StorageLab) -> None:
    """create on an absent parent raises NotFound, and nothing mountable comes of it."""
    with raises(NotFound):
        lab.driver.create("1", "missing", {})
    with raises(NotFound):
        lab.driver.mounts("1")
    lab.driver.remove("1")
    _same(frozenset(), lab.driver.inventory())


@check
def an_unknown_option_is_an_invalid_argument(lab: StorageLab) -> None:
    """Neither the driver nor a snapshot takes an option it does not know: never accepted and ignored."""
    kind = type(lab.driver)
    option = {"dockp.no-such-option": "1"}
    with raises(InvalidArgument):
        kind(lab.scratch / "other", option)
    with raises(InvalidArgument):
        kind.probe(lab.scratch / "other", option)
    with raises(InvalidArgument):
        lab.driver.create("1", None, option)
    lab.driver.remove("1")
    _same(frozenset(), lab.driver.inventory())


@check
def messages_are_one_line_that_names_the_id(lab: StorageLab) -> None:
    """Errors are for a person: one line, with what was asked for."""
    with raises(DockpError) as caught:
        lab.driver.mounts("missing-4711")
    message = str(caught[0])
    assert "missing-4711" in message, message
    assert "\n" not in message, message


@check
def what_was_removed_is_gone(lab: StorageLab) -> None:
    """remove frees the id and the disk, of sealed and writable snapshots with any content."""

    def fill(path: str) -> None:
        os.makedirs(f"{path}/d/d")
        write(f"{path}/d/d/f", content="x" * 3_000_000)
        os.chmod(f"{path}/d/d", 0)
        os.symlink("/etc", f"{path}/link")

    before = _allocated(lab.root)
    lab.layer("1", None, fill)
    lab.snapshot("2", "1", lambda path: write(f"{path}/g", content="x" * 3_000_000))
    lab.driver.remove("2")
    lab.driver.remove("1")
    _same(frozenset(), lab.driver.inventory())
    for id in ("1", "2"):
        with raises(NotFound):
            lab.driver.mounts(id)
    left = _allocated(lab.root) - before
    assert left < 1_000_000, f"{left} bytes are left in {lab.root}"
    lab.snapshot("2", None)
    with lab.mounted("2") as path:
        _same([], os.listdir(path))


def _allocated(root: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in root.rglob("*"))


@check
def a_tree_deeper_than_any_path_is_removed(lab: StorageLab) -> None:
    """A process in a container can nest directories far beyond PATH_MAX; remove copes."""

    def fill(path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        for _ in range(2500):
            os.mkdir("deep", dir_fd=fd)
            inner = os.open("deep", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.close(fd)

    lab.snapshot("1", None, fill)
    lab.driver.usage("1")
    lab.driver.remove("1")
    _same(frozenset(), lab.driver.inventory())


@check
def the_inventory_lists_exactly_what_exists(lab: StorageLab) -> None:
    """Nothing before, each id once created, sealed or not, and nothing else."""
    _same(frozenset(), lab.driver.inventory())
    lab.layer("1")
    lab.snapshot("2", "1")
    lab.snapshot("3", None)
    _same(frozenset({"1", "2", "3"}), lab.driver.inventory())
    lab.driver.remove("2")
    _same(frozenset({"1", "3"}), lab.driver.inventory())


@check
def another_driver_object_knows_the_same(lab: StorageLab) -> None:
    """All state is on disk: an object opened later sees what an earlier one did, sealed marks included."""
    other = lab.open()
    lab.layer("1", None, lambda path: write(f"{path}/f"))
    lab.snapshot("2", "1", lambda path: write(f"{path}/g"))
    _same(frozenset({"1", "2"}), other.inventory())
    with lab.mount(other.mounts("2")) as path:
        _same(["f", "g"], sorted(os.listdir(path)))
    with lab.mount(lab.open().mounts("1")) as path:
        _refuses_writes(path)


@check
def verbs_mount_nothing_themselves(lab: StorageLab) -> None:
    """Drivers return mounts and make none: the mount table is the same after every verb."""
    from dockp.testkit._mounts import enter_private_namespace

    enter_private_namespace()
    before = mount_table()
    type(lab.driver).probe(lab.root, {})
    lab.driver.create("1", None, {})
    lab.driver.mounts("1")
    lab.driver.seal("1")
    lab.driver.create("2", "1", {})
    lab.driver.mounts("2", read_only=True)
    lab.driver.usage("2")
    lab.driver.status()
    lab.driver.remove("2")
    _same(before, mount_table())


@check
def probing_leaves_nothing_behind(lab: StorageLab) -> None:
    """probe works on a root that does not exist, does not make it, and leaves no trace in one that does."""
    absent = lab.scratch / "not" / "yet"
    answer = type(lab.driver).probe(absent, {})
    assert answer.supported, answer.reason
    _same([], sorted(os.listdir(lab.scratch)))
    before = sorted(os.listdir(lab.root))
    type(lab.driver).probe(lab.root, {})
    _same(before, sorted(os.listdir(lab.root)))
    _same(frozenset(), lab.driver.inventory())


@check
def the_status_is_pairs_of_text(lab: StorageLab) -> None:
    """status() gives (name, value) pairs, and leaves no trace either."""
    for name, value in lab.driver.status():
        assert isinstance(name, str), name
        assert isinstance(value, str), value
    _same(frozenset(), lab.driver.inventory())


@check
def usage_counts_the_snapshot_alone(lab: StorageLab) -> None:
    """usage grows by what was written, and a child that wrote nothing does not count its parent's data again.

    Limit: drivers that copy pay for the parent in every child."""
    size = 4_000_000
    lab.layer("1", None, lambda path: write(f"{path}/f", content="x" * size))
    lab.snapshot("2", "1")
    first, second = lab.driver.usage("1"), lab.driver.usage("2")
    assert size <= first.size < size * 1.5, f"the parent uses {first.size} bytes"
    assert second.size < size / 2, f"the child that wrote nothing uses {second.size} bytes"
    with lab.mounted("2") as path:
        write(f"{path}/g", content="x" * size)
        os.link(f"{path}/g", f"{path}/h")
    after = lab.driver.usage("2")
    assert size <= after.size - second.size < size * 1.5, f"usage grew by {after.size - second.size} bytes"
    assert after.inodes > second.inodes, "the number of inodes did not grow"


# The umask


@check
def nothing_depends_on_the_umask(lab: StorageLab) -> None:
    """Roots have mode 0710, bases 0755 and children their parent's modes, under umask 022, 077 and 0."""
    for mask in (0o022, 0o077, 0o000):
        with umask(mask):
            other = StorageLab(lab.open, lab.scratch / f"{mask:03o}")
            other.driver.create("1", None, {})
            with other.mounted("1") as path:
                os.mkdir(f"{path}/d")
                os.chmod(f"{path}/d", 0o777)
                write(f"{path}/d/f")
                os.chmod(f"{path}/d/f", 0o666)
            other.driver.seal("1")
            other.driver.create("2", "1", {})
            with other.mounted("2") as path:
                modes = [stat.S_IMODE(os.stat(f"{path}/{name}").st_mode) for name in ("", "d", "d/f")]
        _same([mask, 0o710], [mask, stat.S_IMODE(os.stat(other.root).st_mode)])
        _same([mask, 0o755, 0o777, 0o666], [mask, *modes])


# Many at once, and killed in the middle


@check
def verbs_on_different_ids_may_run_at_once(lab: StorageLab) -> None:
    """Threads create, seal and remove their own ids on one parent without disturbing each other."""
    lab.layer("parent", None, lambda path: write(*(f"{path}/{number}" for number in range(20))))
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            driver = lab.open()
            for number in range(6):
                id = f"{worker}.{number}"
                driver.create(id, "parent", {})
                driver.mounts(id)
                driver.usage(id)
                driver.inventory()
                driver.seal(id)
                if number % 2:
                    driver.remove(id)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    _same({"parent", *(f"{worker}.{number}" for worker in range(4) for number in (0, 2, 4))}, lab.driver.inventory())
    with lab.mounted("3.4") as path:
        _same(20, len(os.listdir(path)))


@check
def a_create_that_was_killed_can_be_repeated_or_removed(lab: StorageLab) -> None:
    """After kill -9 at any step, create again gives the whole snapshot, and remove leaves nothing.

    What the inventory does not list is never cleaned up; what create takes for complete must be."""

    def fill(path: str) -> None:
        os.mkdir(f"{path}/d")
        for number in range(3):
            write(f"{path}/d/{number}", content=str(number))

    lab.layer("parent", None, fill)
    with lab.mounted("parent") as path:
        expected = manifest(path, directory_times=True)
    pristine = _names_in(lab.root)
    for step in lab.killed_at_each_step(lambda driver: driver.create("x", "parent", {})):
        if _names_in(lab.root) != pristine:
            assert "x" in lab.driver.inventory(), f"killed at step {step}: the inventory misses what is half made"
        if step % 2:
            lab.driver.create("x", "parent", {})
            with lab.mounted("x") as path:
                found = difference(expected, manifest(path, directory_times=True))
            assert not found, f"killed at step {step}: " + "\n".join(found)
        lab.driver.remove("x")
        _same((step, frozenset({"parent"})), (step, lab.driver.inventory()))
        _same((step, pristine), (step, _names_in(lab.root)))
    lab.driver.remove("x")


@check
def a_half_made_snapshot_is_never_mounted(lab: StorageLab) -> None:
    """After kill -9 in create, mounts either raises NotFound or shows the whole parent."""
    lab.layer("parent", None, lambda path: write(*(f"{path}/{number}" for number in range(3))))
    for step in lab.killed_at_each_step(lambda driver: driver.create("x", "parent", {})):
        try:
            mounts = lab.driver.mounts("x")
        except NotFound:
            continue
        with lab.mount(mounts) as path:
            _same((step, ["0", "1", "2"]), (step, sorted(os.listdir(path))))
        lab.driver.remove("x")


@check
def a_seal_that_was_killed_can_be_repeated(lab: StorageLab) -> None:
    """After kill -9 in seal, sealing again gives a sealed snapshot with its content."""
    for step in lab.killed_at_each_step(lambda driver: _filled_and_sealed(lab, driver)):
        if "x" in lab.driver.inventory():
            lab.driver.create("x", None, {})
            lab.driver.seal("x")
            with lab.mounted("x") as path:
                _refuses_writes(path)
        lab.driver.remove("x")
        _same((step, frozenset()), (step, lab.driver.inventory()))


def _filled_and_sealed(lab: StorageLab, driver: object) -> None:
    lab.driver.create("x", None, {})
    lab.driver.seal("x")


@check
def a_remove_that_was_killed_can_be_repeated(lab: StorageLab) -> None:
    """After kill -9 in remove, the id is listed while anything is left, and a second remove leaves nothing."""
    lab.layer("parent", None, lambda path: write(f"{path}/f"))

    def fill(path: str) -> None:
        os.mkdir(f"{path}/d")
        for number in range(3):
            write(f"{path}/d/{number}")

    pristine = _names_in(lab.root)
    lab.snapshot("x", "parent", fill)
    for step in lab.killed_at_each_step(lambda driver: driver.remove("x")):
        if _names_in(lab.root) != pristine:
            assert "x" in lab.driver.inventory(), f"killed at step {step}: the inventory misses what is left"
        lab.driver.remove("x")
        _same((step, frozenset({"parent"})), (step, lab.driver.inventory()))
        _same((step, pristine), (step, _names_in(lab.root)))
        lab.snapshot("x", "parent", fill)
    with lab.mounted("parent") as path:
        _same(["f"], os.listdir(path))


def _names_in(root: Path) -> list[str]:
    return sorted(os.listdir(root))


# Changes


@check
def any_change_is_kept_and_told_exactly(lab: StorageLab) -> None:
    """Random trees with random edits: the snapshot looks like a flat directory edited alike, its parent does not
    change, and its changes, packed and applied to a copy of the parent, give the same tree."""
    import hypothesis
    from hypothesis import strategies

    # Hypothesis finds the odd corner and shrinks it, yet draws few edits in few runs; so crowded trees come first.
    for seed in range(15):
        generator = random.Random(seed)
        crowd = [_random_edits(generator, verbs) for verbs in (MAKING, VERBS, VERBS)]
        _apply_and_compare(lab, f"seed{seed}", crowd)

    number = strategies.integers(0, 200)

    def edits(verbs: tuple[str, ...]) -> strategies.SearchStrategy[list[Edit]]:
        drawn = strategies.builds(Edit, strategies.sampled_from(verbs), number, number, number)
        return strategies.lists(drawn, max_size=14)

    count = 0

    @hypothesis.settings(
        max_examples=30,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if lab.shrink else [])],
    )
    @hypothesis.given(edits(MAKING), edits(VERBS), edits(VERBS))
    def one(base: list[Edit], middle: list[Edit], top: list[Edit]) -> None:
        nonlocal count
        count += 1
        _apply_and_compare(lab, f"{count}", [base, middle, top])

    one()


def _random_edits(generator: random.Random, verbs: tuple[str, ...]) -> list[Edit]:
    return [Edit(generator.choice(verbs), *(generator.randrange(200) for _ in range(3))) for _ in range(25)]


def _apply_and_compare(lab: StorageLab, name: str, layers: list[list[Edit]]) -> None:
    flat, copy = str(lab.scratch / f"flat.{name}"), str(lab.scratch / f"copy.{name}")
    for directory in (flat, copy):
        os.mkdir(directory)
        os.chmod(directory, 0o755)
    parent: str | None = None
    before: dict[str, Node] = {}
    for step, edits in enumerate(layers):
        id = f"{name}.{step}"
        lab.snapshot(id, parent, lambda path, edits=edits, step=step: edit_tree(path, edits, step))  # type: ignore[misc]
        edit_tree(flat, edits, step)
        expected = manifest(flat)
        with lab.mounted(id) as path:
            _no_difference("the snapshot", expected, manifest(path))
        if parent is not None:
            with lab.mounted(parent) as path:
                _no_difference("the parent", before, manifest(path))
        layer = _pack(lab, id, parent)
        apply_layer(layer, copy)
        _no_difference("the parent with the changes applied", expected, manifest(copy))
        _unpack_again(lab, layer, parent, expected)
        _compare_lists(lab, id, parent)
        lab.driver.seal(id)
        parent, before = id, dict(expected)
    for step in reversed(range(len(layers))):
        lab.driver.remove(f"{name}.{step}")


def _no_difference(what: str, expected: dict[str, Node], actual: dict[str, Node]) -> None:
    lines = difference(expected, actual)
    assert not lines, f"{what} differs:\n" + "\n".join(lines)


def _pack(lab: StorageLab, id: str, parent: str | None) -> BytesIO:
    """The layer of ``id``, from the driver's directory of changes where there is one, else from both trees."""
    layer = BytesIO()
    changes = lab.driver.changes(id)
    if changes is not None:
        pack_changes(changes, layer)
    elif parent is None:
        with lab.mounted(id, read_only=True) as upper:
            pack_changes((None, upper), layer)
    else:
        with lab.mounted(parent) as lower, lab.mounted(id, read_only=True) as upper:
            pack_changes((lower, upper), layer)
    layer.seek(0)
    return layer


def _unpack_again(lab: StorageLab, layer: BytesIO, parent: str | None, expected: dict[str, Node]) -> None:
    """Unpacked into the directory of changes of a new snapshot, the layer shows the same tree."""
    lab.driver.create("again", parent, {})
    changes = lab.driver.changes("again")
    if changes is not None:
        layer.seek(0)
        apply_layer(layer, changes.path, "overlay" if changes.whiteouts == "overlay" else "delete")
        with lab.mounted("again") as path:
            _no_difference("the layer unpacked into the directory of changes", expected, manifest(path))
    lab.driver.remove("again")


def _compare_lists(lab: StorageLab, id: str, parent: str | None) -> None:
    """`in_directory` on the driver's own directory names every path that a walk of both trees finds changed."""
    changes = lab.driver.changes(id)
    if changes is None or parent is None:
        return
    with lab.mounted(parent) as lower, lab.mounted(id, read_only=True) as upper:
        walked = set(between(lower, upper))
        told = set(in_directory(changes, [lower]))
    # A file that was written and restored, or only opened for writing, is copied up: told, though nothing differs.
    missing, wrong = walked - told, {change for change in told - walked if change.kind != "C"}
    assert not missing, f"changes() does not tell {sorted(missing)}"
    assert not wrong, f"changes() tells {sorted(wrong)}, which did not happen"


@check
def layers_put_on_top_of_each_other_afterwards_are_as_if_made_in_order(lab: StorageLab) -> None:
    """Where the driver rebases, a layer made without a parent shows, put on one, what it would have shown."""
    from dockp.testkit.layers import DIRECTORY, entry, layer

    if not lab.driver.rebases:
        return
    for id in ("1", "2", "3"):
        lab.driver.create(id, None, {})
    base, middle, top = (lab.driver.changes(id) for id in ("1", "2", "3"))
    assert base is not None, "rebase needs changes()"
    assert middle is not None
    assert top is not None
    apply_layer(layer(entry("./", DIRECTORY, mode=0o711), entry("gone", data=b"g"), entry("a", data=b"1")), base.path)
    apply_layer(layer(entry(".wh.gone"), entry("b", data=b"2")), middle.path, "overlay")
    apply_layer(layer(entry("./", DIRECTORY, mode=0o700), entry("c", data=b"3")), top.path, "overlay")
    for id, parent, inherits in (("2", "1", True), ("3", "2", False), ("3", "2", False)):
        lab.driver.rebase(id, parent, inherits)
    lab.driver.seal_all(["1", "2", "3"])
    lab.driver.seal_all(["1", "2", "3"])
    for id, names, mode in (("1", ["a", "gone"], 0o711), ("2", ["a", "b"], 0o711), ("3", ["a", "b", "c"], 0o700)):
        with lab.mounted(id) as path:
            _same(names, sorted(os.listdir(path)))
            _same(mode, os.stat(path).st_mode & 0o7777)
    with raises(NotFound):
        lab.driver.rebase("3", "9", False)


@check
def a_layer_unpacked_into_the_changes_directory_shows_in_the_mount(lab: StorageLab) -> None:
    """Where changes() gives a directory, a layer written there as plain files is what the snapshot then shows."""
    from dockp.testkit.layers import DIRECTORY, entry, layer

    def fill(path: str) -> None:
        for name in ("merged", "opaque", "gone"):
            os.mkdir(f"{path}/{name}")
            write(f"{path}/{name}/old")

    lab.layer("1", None, fill)
    lab.driver.create("2", "1", {})
    changes = lab.driver.changes("2")
    if changes is None:
        return
    content = [
        entry("merged/", DIRECTORY),
        entry("merged/new", data=b"n"),
        entry("opaque/", DIRECTORY),
        entry("opaque/.wh..wh..opq"),
        entry("opaque/new", data=b"n"),
        entry(".wh.gone"),
    ]
    apply_layer(layer(*content), changes.path, "overlay" if changes.whiteouts == "overlay" else "delete")
    lab.driver.seal("2")
    lab.snapshot("3", "2")
    for id in ("2", "3"):
        with lab.mounted(id) as path:
            _same(["merged", "opaque"], sorted(os.listdir(path)))
            _same(["new", "old"], sorted(os.listdir(f"{path}/merged")))
            _same(["new"], os.listdir(f"{path}/opaque"))
    if changes.whiteouts == "overlay":
        lab.driver.create("4", "2", {})
        leaning = lab.driver.changes("4")
        assert leaning is not None
        with raises(NeedsParent):
            apply_layer(layer(entry("merged/sub", data=b"")), leaning.path, "overlay")
