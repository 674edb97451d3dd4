"""Paths inside a root that somebody else controls."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockp.linux import paths


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    place = tmp_path / "root"
    place.mkdir()
    fd = os.open(place, os.O_PATH)
    yield fd, place
    os.close(fd)


def real(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.mark.parametrize("target", ["/a", "../../../../a", "/../a", "./x/../../a"])
def test_symlinks_are_followed_inside_the_root(root: tuple[int, Path], target: str) -> None:
    fd, place = root
    (place / "a").mkdir()
    (place / "x").mkdir()
    (place / "link").symlink_to(target)
    assert real(paths.open_in_root(fd, "/link")) == str(place / "a")


def test_what_is_missing_is_an_error(root: tuple[int, Path]) -> None:
    with pytest.raises(FileNotFoundError):
        paths.open_in_root(root[0], "/nothing")


def test_magic_links_are_refused(root: tuple[int, Path]) -> None:
    proc = os.open("/proc", os.O_PATH)
    try:
        with pytest.raises(OSError, match="symbolic links") as caught:
            paths.open_in_root(proc, "/self/root/etc")
    finally:
        os.close(proc)
    assert caught.value.errno == errno.ELOOP


def test_directories_are_made_with_their_mode_whatever_the_umask(root: tuple[int, Path]) -> None:
    fd, place = root
    before = os.umask(0o077)
    try:
        assert real(paths.make_directories(fd, "/a/b/./c", 0o751)) == str(place / "a/b/c")
    finally:
        os.umask(before)
    assert [(place / name).stat().st_mode & 0o777 for name in ("a", "a/b", "a/b/c")] == [0o751] * 3


@pytest.mark.parametrize(
    ("target", "made"),
    [("/new/deep", "new/deep"), ("../../../out", "out"), ("/../../out", "out"), ("sub/../other", "other")],
)
def test_dangling_symlinks_are_made_good_inside_the_root(root: tuple[int, Path], target: str, made: str) -> None:
    fd, place = root
    (place / "link").symlink_to(target)
    assert real(paths.make_directories(fd, "/link/leaf")) == str(place / made / "leaf")


def test_a_file_in_the_way_is_an_error(root: tuple[int, Path]) -> None:
    (root[1] / "file").touch()
    with pytest.raises(NotADirectoryError):
        paths.make_directories(root[0], "/file/below")


def test_a_circle_of_symlinks_is_an_error(root: tuple[int, Path]) -> None:
    (root[1] / "one").symlink_to("two")
    (root[1] / "two").symlink_to("one")
    for make in (paths.make_directories, paths.open_or_make_file):
        with pytest.raises(OSError, match="symbolic links") as caught:
            make(root[0], "/one")
        assert caught.value.errno == errno.ELOOP


def test_files_are_made_with_their_directories(root: tuple[int, Path]) -> None:
    assert real(paths.open_or_make_file(root[0], "etc/deep/resolv.conf")) == str(root[1] / "etc/deep/resolv.conf")


def test_a_dangling_symlink_to_a_file_stays_inside(root: tuple[int, Path], tmp_path: Path) -> None:
    (root[1] / "conf").symlink_to(f"../../{tmp_path.name}-outside/file")
    found = real(paths.open_or_make_file(root[0], "/conf"))
    assert found.startswith(str(root[1]) + "/")


def test_a_race_of_symlink_and_directory_never_leads_outside(root: tuple[int, Path], tmp_path: Path) -> None:
    fd, place = root
    outside = tmp_path / "outside"
    outside.mkdir()
    (place / "dir").mkdir()
    (place / "evil").symlink_to("../outside")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for one, other in (("dir", "kept"), ("evil", "dir"), ("dir", "evil"), ("kept", "dir")):
                try:
                    os.rename(place / one, place / other)
                except OSError:
                    continue

    attacker = threading.Thread(target=swap)
    attacker.start()
    try:
        for number in range(400):
            try:
                os.close(paths.make_directories(fd, f"/dir/{number}/x"))
                os.close(paths.open_or_make_file(fd, f"/dir/file{number}"))
            except OSError:
                continue
    finally:
        done.set()
        attacker.join()
    assert not list(outside.iterdir())
