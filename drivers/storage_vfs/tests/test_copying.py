"""The copier's own corners; what a copy must keep is in the conformance suite."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dockp.linux.mounts import apply_mount, unmount
from dockp.testkit._mounts import enter_private_namespace
from dockp_storage_vfs import copying


def test_data_are_shared_where_the_file_system_can(tmp_path: Path) -> None:
    """On btrfs a copy of 100 MB costs no 100 MB."""
    if "btrfs" not in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has no btrfs")
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("mkfs.btrfs is missing: install btrfs-progs")
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(300_000_000)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True)
    enter_private_namespace()
    place = tmp_path / "btrfs"
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        source, target = place / "source", place / "target"
        source.mkdir()
        target.mkdir()
        (source / "large").write_bytes(os.urandom(1_000_000) * 100)
        copying.copy_tree(str(source), str(target))
        subprocess.run(["sync", "-f", str(place)], check=True)
        assert (target / "large").read_bytes() == (source / "large").read_bytes()
        used = os.statvfs(place)
        assert (used.f_blocks - used.f_bfree) * used.f_frsize < 150_000_000
    finally:
        unmount(str(place))


def test_a_copy_works_where_nothing_can_be_shared(tmp_path: Path) -> None:
    enter_private_namespace()
    place = tmp_path / "tmpfs"
    place.mkdir()
    apply_mount("tmpfs", "tmpfs", (), str(place))
    try:
        (place / "source").mkdir()
        (place / "target").mkdir()
        with open(place / "source" / "sparse", "wb") as file:
            file.truncate(50_000_000)
            file.seek(20_000_000)
            file.write(b"x" * 5000)
        copying.copy_tree(str(place / "source"), str(place / "target"))
        assert (place / "target/sparse").read_bytes() == (place / "source/sparse").read_bytes()
        assert (place / "target/sparse").stat().st_blocks * 512 < 1_000_000
    finally:
        unmount(str(place))


def test_a_file_that_cannot_be_read_stops_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "source" / "f").write_text("content")
    monkeypatch.setattr(copying, "_share_data", lambda reader, writer: False)
    monkeypatch.setattr(os, "copy_file_range", lambda *arguments: 0)
    with pytest.raises(OSError, match="shorter"):
        copying.copy_tree(str(tmp_path / "source"), str(tmp_path / "target"))
