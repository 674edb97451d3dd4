"""What is peculiar to this driver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dockp.linux.trees import remove_tree
from dockp.spi.errors import InvalidArgument
from dockp.testkit.storage import StorageLab
from dockp_storage_overlay2.driver import Overlay2Driver
from dockp_storage_overlay2.options import Overlay2Options
from dockp_storage_overlay2.probe import file_system


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[StorageLab]:
    if os.geteuid() != 0:
        pytest.fail("overlay is mounted for real: run these tests as root")
    yield StorageLab(lambda root: Overlay2Driver(root, {}), tmp_path / "lab")
    remove_tree(str(tmp_path / "lab"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlay2.metacpy": "true"}, "it knows overlay2.metacopy, overlay2.volatile"),
        ({"metacopy": "true"}, "unknown option 'metacopy'"),
        ({"overlay2.volatile": "maybe"}, "option overlay2.volatile takes true or false, not 'maybe'"),
        ({"overlay2.index": "true"}, "changes to hard links would stay outside of the layer"),
        ({"overlay2.size": "10G"}, "cannot limit the size"),
        ({"size": "10G"}, "cannot limit the size"),
    ],
)
def test_a_wrong_option_is_refused_with_what_would_be_right(options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Overlay2Options.parse(options)


@pytest.mark.parametrize("word", ["true", "1", "on", "yes", "TRUE"])
def test_booleans_may_be_written_in_every_usual_way(word: str) -> None:
    assert Overlay2Options.parse({"overlay2.volatile": word}) == Overlay2Options(volatile=True)


def test_a_size_for_a_snapshot_is_refused(lab: StorageLab) -> None:
    with pytest.raises(InvalidArgument, match="size is not supported"):
        lab.driver.create("1", None, {"size": "10G"})
    assert lab.driver.inventory() == frozenset()


def test_overlay_on_overlay_is_refused_by_name_with_what_to_do(lab: StorageLab) -> None:
    lab.layer("1")
    lab.snapshot("2", "1")
    with lab.mounted("2") as path:
        answer = Overlay2Driver.probe(Path(path) / "inner" / "root", {})
        assert os.listdir(path) == []
    assert not answer.supported
    assert f"{path} is on overlay" in answer.reason
    assert "ext4, xfs, btrfs" in answer.reason


def test_a_probe_says_what_works_and_what_info_prints(lab: StorageLab) -> None:
    answer = Overlay2Driver.probe(lab.root, {})
    assert answer.supported, answer.reason
    assert answer.features == {"native-diff"}
    assert list(answer.details) == [
        "Backing Filesystem",
        "Supports d_type",
        "Using metacopy",
        "Native Overlay Diff",
        "userxattr",
    ]
    assert tuple(answer.details.items()) == tuple(lab.driver.status())
    metacopy = Overlay2Driver.probe(lab.root, {"overlay2.metacopy": "on"})
    assert metacopy.supported, metacopy.reason
    assert metacopy.features == frozenset()
    assert metacopy.details["Native Overlay Diff"] == "false"


def test_a_probe_where_nothing_can_be_written_says_so() -> None:
    answer = Overlay2Driver.probe(Path("/proc/dockp"), {})
    assert not answer.supported
    assert "/proc" in answer.reason


def test_the_file_system_of_a_path_is_found_by_its_mount() -> None:
    assert file_system("/proc/self") == "proc"
    assert file_system("/sys/kernel") == "sysfs"


def test_a_volatile_snapshot_can_be_mounted_again(lab: StorageLab) -> None:
    """The kernel refuses an upper directory with the mark of a volatile mount (kernel doc, "Volatile mount")."""
    lab.layer("1")
    lab.driver.create("2", "1", {})
    volatile = Overlay2Driver(lab.root, {"overlay2.volatile": "true"})
    for number in range(2):
        with lab.mount(volatile.mounts("2")) as path:
            assert len(os.listdir(path)) == number
            Path(path, str(number)).touch()


def test_changes_say_which_whiteouts_to_expect(lab: StorageLab) -> None:
    lab.layer("1")
    lab.snapshot("2", "1")
    base, child = lab.driver.changes("1"), lab.driver.changes("2")
    assert base is not None
    assert child is not None
    assert (base.path, base.whiteouts) == (f"{lab.root}/1/diff", "none")
    assert (child.path, child.whiteouts) == (f"{lab.root}/2/diff", "overlay")
    assert Overlay2Driver(lab.root, {"overlay2.metacopy": "true"}).changes("2") is None


def test_a_redirect_in_a_layer_leads_nowhere(lab: StorageLab) -> None:
    """A directory of an upper layer cannot show one from elsewhere below: layers come from strangers."""

    def fill(path: str) -> None:
        os.mkdir(f"{path}/secret")
        Path(path, "secret/f").touch()

    lab.layer("1", None, fill)
    lab.driver.create("2", "1", {})
    os.mkdir(lab.root / "2/diff/open")
    os.setxattr(lab.root / "2/diff/open", "trusted.overlay.redirect", b"/secret")
    lab.driver.seal("2")
    lab.snapshot("3", "2")
    # The kernel may also refuse the directory altogether: just as good.
    with lab.mounted("3") as path, suppress(PermissionError):
        assert os.listdir(f"{path}/open") == []
