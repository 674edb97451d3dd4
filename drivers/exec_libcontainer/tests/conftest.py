"""Fixtures: a root file system, and a `Box` of containers that is checked for what it leaves behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from libcontainer_box import Box, Container


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with busybox and little else."""
    assert os.geteuid() == 0, "these tests make containers: run them as root"
    busybox = shutil.which("busybox")
    assert busybox, "these tests need a static busybox: install Debian's busybox-static"
    root = tmp_path_factory.mktemp("image") / "rootfs"
    for name in ("bin", "etc", "tmp", "root", "home/user", "proc", "sys", "dev", "var"):
        (root / name).mkdir(parents=True)
    root.chmod(0o755)
    (root / "tmp").chmod(0o1777)
    os.chown(root / "home/user", 1000, 1000)
    shutil.copy(busybox, root / "bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in applets:
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    return root


@pytest.fixture
def box(tmp_path: Path, image: Path) -> Iterator[Box]:
    tmp_path.chmod(0o755)  # a user namespace's root must be able to reach it, as an engine's would
    opened = Box(tmp_path, image)
    try:
        yield opened
    finally:
        leaks = opened.close()
    assert not leaks


@pytest.fixture
def container(box: Box) -> Container:
    return box.container()
