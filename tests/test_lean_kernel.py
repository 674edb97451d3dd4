"""What a kernel cannot do is told in one line, and the rest works. ``make test-vm`` has a guest that lacks much."""

from __future__ import annotations

import subprocess

import pytest
from harness import Dockp


def bridges() -> set[str]:
    listed = subprocess.run(["ip", "-o", "link", "show", "type", "bridge"], capture_output=True, text=True, check=True)
    return {line.split()[1] for line in listed.stdout.splitlines()}


@pytest.fixture(autouse=True)
def no_nftables() -> None:
    """Only where the kernel cannot make the table that the bridge driver needs."""
    commands = "add table inet t; add chain inet t c { type nat hook postrouting priority 100; }; delete table inet t"
    if subprocess.run(["nft", commands], capture_output=True, check=False).returncode == 0:
        pytest.skip("this kernel has nftables for inet (the guest of make test-vm has not)")


def test_a_bridge_without_nftables_fails_in_one_line_and_leaves_nothing(dockp: Dockp) -> None:
    before = bridges()
    done = dockp("run", "--rm", "busybox", "true")
    assert done.returncode == 125
    assert "this kernel lacks a part of nftables" in done.stderr
    # Docker's own line about --help comes after an empty one.
    assert len(done.stderr.partition("\n\n")[0].strip().splitlines()) == 1
    assert dockp.ok("ps", "-aq") == ""
    assert bridges() == before
    assert dockp.ok("run", "--rm", "--network", "none", "busybox", "echo", "works") == "works"


def test_the_bridge_driver_says_why_it_cannot_work_here(dockp: Dockp) -> None:
    (line,) = (line for line in dockp.ok("plugin", "ls").splitlines() if "bridge" in line)
    assert "nftables" in line
