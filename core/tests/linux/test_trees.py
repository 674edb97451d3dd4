"""Removing, measuring and flushing whole trees."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from dockp.linux.mounts import apply_mount, unmount
from dockp.linux.trees import disk_usage, remove_tree, scatter, sync_directory, sync_file_system
from dockp.spi.errors import FailedPrecondition
from dockp.testkit._mounts import enter_private_namespace


def deep(top: Path, levels: int) -> None:
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


@pytest.mark.parametrize("levels", [0, 1, 63, 64, 65, 200, 3000])
def test_a_tree_of_any_depth_is_removed(tmp_path: Path, levels: int) -> None:
    deep(tmp_path / "top", levels)
    remove_tree(str(tmp_path / "top"))
    assert os.listdir(tmp_path) == []


def test_what_is_no_directory_is_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "f").touch()
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to("../kept")
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "tree", "file", "fifo", "absent"):
        remove_tree(str(tmp_path / name))
    assert os.listdir(tmp_path) == ["kept"]
    assert os.listdir(tmp_path / "kept") == ["f"]


def test_two_may_remove_the_same_tree(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / "top" / str(number)).mkdir(parents=True)
        for name in range(20):
            (tmp_path / "top" / str(number) / str(name)).touch()
    failures: list[BaseException] = []

    def remove() -> None:
        try:
            remove_tree(str(tmp_path / "top"))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=remove) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert os.listdir(tmp_path) == []


def test_a_mount_point_inside_is_named(tmp_path: Path) -> None:
    enter_private_namespace()
    (tmp_path / "top" / "busy").mkdir(parents=True)
    apply_mount("tmpfs", "tmpfs", (), str(tmp_path / "top" / "busy"))
    try:
        with pytest.raises(FailedPrecondition, match="busy: something is mounted on it"):
            remove_tree(str(tmp_path / "top"))
    finally:
        unmount(str(tmp_path / "top" / "busy"))
    remove_tree(str(tmp_path / "top"))


def test_usage_counts_a_hard_linked_file_once(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 1_000_000)
    once, inodes = disk_usage(str(tmp_path))
    os.link(tmp_path / "a", tmp_path / "d" / "b")
    assert disk_usage(str(tmp_path)) == (once, inodes)
    assert inodes == 3
    assert 1_000_000 <= once < 1_100_000


def test_usage_of_what_is_absent_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        disk_usage(str(tmp_path / "absent"))


def test_flushing_works_and_says_what_is_missing(tmp_path: Path) -> None:
    sync_file_system(str(tmp_path))
    sync_directory(str(tmp_path))
    for flush in (sync_file_system, sync_directory):
        with pytest.raises(FileNotFoundError, match="absent"):
            flush(str(tmp_path / "absent"))


def test_directories_are_scattered_where_the_file_system_can(tmp_path: Path) -> None:
    scatter(str(tmp_path))
    scatter("/proc/self")  # which has no such flags
    (tmp_path / "in").mkdir()
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True).stdout
    if kind.startswith("ext"):
        shown = subprocess.run(["lsattr", "-d", tmp_path], capture_output=True, text=True, check=True).stdout
        assert "T" in shown.split()[0]
