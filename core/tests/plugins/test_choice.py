"""Which driver is used where none is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockp.config import Config
from dockp.plugins import DriverInfo, PluginRegistry, Problem, choose_exec, choose_storage, remember_storage
from dockp.plugins.model import Findings
from dockp.spi.errors import InvalidArgument, Unavailable
from dockp.spi.values import Probe


def registry(kind: str = "storage", **priorities: int) -> PluginRegistry:
    found = [
        DriverInfo(
            kind=kind, name=name, plugin=name, distribution="d", version="1", module="m", qualname="C", priority=p
        )
        for name, p in sorted(priorities.items(), key=lambda item: -item[1])
    ]
    broken = Problem(plugin="storage_zfs", distribution="d", message="cannot be imported")
    return PluginRegistry(Findings(drivers=tuple(found), problems=(broken,)))


def works(*names: str) -> object:
    def probe(info: DriverInfo) -> Probe:
        return Probe(supported=info.name in names, reason="the kernel has no such thing")

    return probe


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "root")


def test_the_named_driver_is_taken_with_where_it_was_named(root: str) -> None:
    config = Config.load({"data_root": root}, {"DOCKP_STORAGE_DRIVER": "vfs"})
    assert choose_storage(registry(vfs=1, overlay2=9), config, works()) == (
        "vfs",
        "environment DOCKP_STORAGE_DRIVER",
    )


def test_a_named_driver_that_is_unknown_is_an_error_and_nothing_else_is_taken(root: str) -> None:
    config = Config.load({"data_root": root, "storage_driver": "nope"}, {})
    with pytest.raises(InvalidArgument, match="driver not supported: nope"):
        choose_storage(registry(vfs=1), config, works("vfs"))


def test_the_supported_one_with_the_highest_priority_is_taken(root: str) -> None:
    config = Config(data_root=root)
    assert choose_storage(registry(vfs=1, overlay2=9, btrfs=5), config, works("vfs", "btrfs"))[0] == "btrfs"


def test_below_priority_zero_nothing_is_taken_unasked(root: str) -> None:
    with pytest.raises(Unavailable):
        choose_storage(registry(toy=-1), Config(data_root=root), works("toy"))


def test_when_none_works_every_reason_is_said(root: str) -> None:
    with pytest.raises(Unavailable, match=r"no storage driver works here: vfs: the kernel has no.*storage_zfs.*cannot"):
        choose_storage(registry(vfs=1), Config(data_root=root), works())


def test_what_a_data_root_was_used_with_stays_its_default(root: str) -> None:
    config = Config(data_root=root)
    remember_storage(config, "vfs")
    remember_storage(config, "vfs")
    assert choose_storage(registry(vfs=1, overlay2=9), config, works("vfs", "overlay2")) == (
        "vfs",
        f"last used in {root}",
    )
    assert [path.name for path in Path(root).iterdir()] == ["storage-driver"]


def test_a_remembered_driver_that_is_gone_is_not_fatal(root: str) -> None:
    config = Config(data_root=root)
    remember_storage(config, "zfs")
    name, why = choose_storage(registry(vfs=1), config, works("vfs"))
    assert name == "vfs"
    assert '"zfs", last used, is not available' in why


def test_execution_drivers_are_chosen_alike(root: str) -> None:
    two = registry("exec", oci=1, libcontainer=9)
    assert choose_exec(two, Config(data_root=root), works("oci", "libcontainer"))[0] == "libcontainer"
    assert choose_exec(two, Config(data_root=root), works("oci"))[0] == "oci"
    assert choose_exec(two, Config(data_root=root, exec_driver="oci"), works())[0] == "oci"


def test_a_probe_that_fails_is_a_reason_like_others(root: str) -> None:
    def probe(info: DriverInfo) -> Probe:
        if info.name == "overlay2":
            raise OSError(5, "Input/output error")
        return Probe(supported=True)

    assert choose_storage(registry(vfs=1, overlay2=9), Config(data_root=root), probe)[0] == "vfs"
