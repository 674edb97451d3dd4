"""The storage suite itself: a simple right driver passes, and each broken one fails just the checks for its fault."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from dockp.linux.mounts import apply_mount, unmount
from dockp.linux.trees import remove_tree
from dockp.spi.errors import InvalidArgument, NotFound
from dockp.spi.storage import StorageDriver
from dockp.spi.values import ChangesDirectory, Mount, Probe, Usage
from dockp.testkit.storage import StorageConformance, StorageLab, run_checks
from dockp.testkit.storage_checks import CHECKS


class Reference(StorageDriver):
    """As simple as a right driver can be: ``cp`` does the work. One directory a snapshot, with a list of faults."""

    name = "reference"
    copy: Sequence[str] = ("cp", "-a", "--sparse=always")
    """What makes a child: called with source directory + "/." and target directory."""

    def __init__(self, root: Path, options: Mapping[str, str]) -> None:
        self.refuse(options)
        self.root = root
        if not root.exists():
            root.mkdir(parents=True)
            root.chmod(0o710)

    @classmethod
    def refuse(cls, options: Mapping[str, str]) -> None:
        if options:
            raise InvalidArgument(f"unknown option {next(iter(options))!r}")

    @classmethod
    def probe(cls, root: Path, options: Mapping[str, str]) -> Probe:
        cls.refuse(options)
        return Probe(supported=True)

    def find(self, id: str) -> Path:
        if not (self.root / id).is_dir():
            raise NotFound(f"no snapshot {id}")
        return self.root / id

    def create(self, id: str, parent: str | None, options: Mapping[str, str]) -> None:
        self.refuse(options)
        source = None if parent is None else self.find(parent)
        if (self.root / id).exists():
            return
        new = self.root / f"+{id}"
        remove_tree(str(new))
        new.mkdir()
        (new / "fs").mkdir()
        (new / "fs").chmod(0o755)
        if source is not None:
            subprocess.run([*self.copy, f"{source}/fs/.", f"{new}/fs"], check=True)
        new.rename(self.root / id)

    def mounts(self, id: str, read_only: bool = False) -> Sequence[Mount]:
        fixed = read_only or (self.find(id) / "sealed").exists()
        return [Mount(type="bind", source=f"{self.find(id)}/fs", options=("bind", "ro" if fixed else "rw"))]

    def seal(self, id: str) -> None:
        (self.find(id) / "sealed").touch()

    def remove(self, id: str) -> None:
        remove_tree(f"{self.root}/+{id}")
        if (self.root / id).exists():
            (self.root / id).rename(self.root / f"+{id}")
            remove_tree(f"{self.root}/+{id}")

    def usage(self, id: str) -> Usage:
        paths = [path.lstat() for path in self.find(id).rglob("*")]
        by_inode = {info.st_ino: info.st_blocks * 512 for info in paths}
        return Usage(size=sum(by_inode.values()), inodes=len(by_inode))

    def inventory(self) -> frozenset[str]:
        return frozenset(name.removeprefix("+") for name in os.listdir(self.root))


pytest_plugins = ["pytester"]

LIMITS = {
    "usage_counts_the_snapshot_alone": "every snapshot is a full copy",
    "a_tree_deeper_than_any_path_is_removed": "usage counts by path",
}


ANY_CHANGE = "any_change_is_kept_and_told_exactly"
SLOW = {"one_hundred_and_twenty_eight_layers_mount", "a_tree_deeper_than_any_path_is_removed", ANY_CHANGE}


class TestReference(StorageConformance):
    limits: ClassVar[dict[str, str]] = LIMITS

    @pytest.fixture
    def open_driver(self) -> object:
        return lambda root: Reference(root, {})


class Broken(Reference):
    """A driver with one fault.

    Attributes: caught_by: the checks that must fail, and no other may.
    """

    caught_by: frozenset[str]


class LosesHardLinks(Broken):
    copy = ("cp", "-a", "--no-preserve=links", "--sparse=always")
    caught_by = frozenset(
        {
            "hard_links_are_kept",
            "a_child_looks_like_its_parent",
            "a_hard_link_to_a_lower_file_can_be_made",
            "hard_links_of_a_lower_layer_stay_one_file_when_written",
            ANY_CHANGE,
        }
    )


class LosesXattrs(Broken):
    copy = ("cp", "-a", "--no-preserve=xattr", "--sparse=always")
    caught_by = frozenset(
        {
            "xattrs_are_kept",
            "file_capabilities_are_kept",
            "a_child_begins_with_the_attributes_of_its_parents_root",
            ANY_CHANGE,
        }
    )


class LosesTimes(Broken):
    copy = ("cp", "-a", "--no-preserve=timestamps", "--sparse=always")
    caught_by = frozenset(
        {
            "times_are_kept_to_the_nanosecond",
            "a_child_looks_like_its_parent",
            "a_create_that_was_killed_can_be_repeated_or_removed",
            ANY_CHANGE,
        }
    )


class FillsHoles(Broken):
    copy = ("cp", "-a", "--sparse=never")
    caught_by = frozenset({"sparse_files_stay_sparse"})


class SharesFilesWithTheParent(Broken):
    """Copies by hard link, as backup programs do."""

    copy = ("cp", "-al")
    caught_by = frozenset(
        {
            "writes_stay_in_the_snapshot_that_made_them",
            "attributes_changed_in_a_child_stay_there",
            "hard_links_are_kept",
            ANY_CHANGE,
        }
    )


class SealsNothing(Broken):
    caught_by = frozenset(
        {
            "a_sealed_snapshot_mounts_read_only",
            "a_seal_that_was_killed_can_be_repeated",
            "another_driver_object_knows_the_same",
            "every_verb_may_be_repeated",
        }
    )

    def mounts(self, id: str, read_only: bool = False) -> Sequence[Mount]:
        return [Mount(type="bind", source=f"{self.find(id)}/fs", options=("bind", "ro" if read_only else "rw"))]


class IgnoresReadOnly(Broken):
    caught_by = frozenset({"a_read_only_mount_refuses_writes"})

    def mounts(self, id: str, read_only: bool = False) -> Sequence[Mount]:
        return super().mounts(id, False)


class RemembersSealsInMemory(Broken):
    caught_by = frozenset({"another_driver_object_knows_the_same"})

    def __init__(self, root: Path, options: Mapping[str, str]) -> None:
        super().__init__(root, options)
        self.sealed: set[str] = set()

    def seal(self, id: str) -> None:
        self.find(id)
        self.sealed.add(id)

    def mounts(self, id: str, read_only: bool = False) -> Sequence[Mount]:
        return super().mounts(id, read_only or id in self.sealed)


class ObeysTheUmask(Broken):
    caught_by = frozenset({"nothing_depends_on_the_umask"})

    def create(self, id: str, parent: str | None, options: Mapping[str, str]) -> None:
        absent = not (self.root / id).exists()
        super().create(id, parent, options)
        if absent and parent is None:
            mask = os.umask(0o077)
            os.umask(mask)
            (self.root / id / "fs").chmod(0o777 & ~mask)


class TakesAnyOption(Broken):
    caught_by = frozenset({"an_unknown_option_is_an_invalid_argument"})

    @classmethod
    def refuse(cls, options: Mapping[str, str]) -> None:
        return


class RefusesToCreateAgain(Broken):
    caught_by = frozenset({"every_verb_may_be_repeated", "a_seal_that_was_killed_can_be_repeated"})

    def create(self, id: str, parent: str | None, options: Mapping[str, str]) -> None:
        if (self.root / id).exists():
            raise InvalidArgument(f"{id} exists")
        super().create(id, parent, options)


class RefusesToRemoveTheAbsent(Broken):
    caught_by = frozenset(
        {
            "every_verb_may_be_repeated",
            "a_missing_parent_is_not_found",
            "an_unknown_option_is_an_invalid_argument",
            "a_create_that_was_killed_can_be_repeated_or_removed",
            "a_remove_that_was_killed_can_be_repeated",
            "a_seal_that_was_killed_can_be_repeated",
        }
    )

    def remove(self, id: str) -> None:
        self.find(id)
        super().remove(id)


class TakesAMissingParentForNone(Broken):
    caught_by = frozenset({"a_missing_parent_is_not_found"})

    def create(self, id: str, parent: str | None, options: Mapping[str, str]) -> None:
        super().create(id, parent if parent and (self.root / parent).exists() else None, options)


class HidesTheHalfMade(Broken):
    caught_by = frozenset(
        {"a_create_that_was_killed_can_be_repeated_or_removed", "a_remove_that_was_killed_can_be_repeated"}
    )

    def inventory(self) -> frozenset[str]:
        return frozenset(name for name in os.listdir(self.root) if not name.startswith("+"))


class CopiesInPlace(Broken):
    """No temporary name: what was half copied looks complete."""

    caught_by = frozenset(
        {
            "a_create_that_was_killed_can_be_repeated_or_removed",
            "a_half_made_snapshot_is_never_mounted",
            "a_seal_that_was_killed_can_be_repeated",
        }
    )

    def create(self, id: str, parent: str | None, options: Mapping[str, str]) -> None:
        self.refuse(options)
        source = None if parent is None else self.find(parent)
        if (self.root / id).exists():
            return
        (self.root / id / "fs").mkdir(parents=True)
        (self.root / id / "fs").chmod(0o755)
        if source is not None:
            subprocess.run([*self.copy, f"{source}/fs/.", f"{self.root}/{id}/fs"], check=True)


class ShowsNoDeletions(Broken):
    """Its directory of changes is the whole tree: what was deleted is not told."""

    caught_by = frozenset({ANY_CHANGE})

    def changes(self, id: str) -> ChangesDirectory | None:
        return ChangesDirectory(path=f"{self.find(id)}/fs", whiteouts="none")


class MountsByItself(Broken):
    caught_by = frozenset({"verbs_mount_nothing_themselves"})

    mounted: ClassVar[list[str]] = []

    def status(self) -> Sequence[tuple[str, str]]:
        # On /mnt of the private namespace: a mount under the root would also keep the lab from being cleaned.
        apply_mount("tmpfs", "tmpfs", (), "/mnt")
        self.mounted.append("/mnt")
        return ()


@pytest.fixture(autouse=True)
def _nothing_stays_mounted() -> Iterator[None]:
    yield
    while MountsByItself.mounted:
        unmount(MountsByItself.mounted.pop())


@pytest.mark.parametrize("kind", Broken.__subclasses__())
def test_every_broken_driver_is_caught_by_exactly_the_checks_for_its_fault(kind: type[Broken], tmp_path: Path) -> None:
    # The slow checks run only where they are the ones to catch the fault.
    names = [name for name in CHECKS if name not in SLOW or name in kind.caught_by]
    failures = run_checks(lambda root: kind(root, {}), tmp_path / "lab", names, shrink=False)
    assert {name for name in failures if name not in LIMITS} == kind.caught_by, failures


def test_an_unsupported_driver_is_skipped_with_its_reason_unless_required(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from dockp.spi.values import Probe
        from dockp.testkit.storage import StorageConformance
        from dockp.spi.storage import StorageDriver

        class Nowhere(StorageDriver):
            name = "nowhere"
            @classmethod
            def probe(cls, root, options):
                return Probe(supported=False, reason="needs a moon")
            def __init__(self, root, options): pass
            def create(self, id, parent, options): pass
            def mounts(self, id, read_only=False): pass
            def seal(self, id): pass
            def remove(self, id): pass
            def usage(self, id): pass
            def inventory(self): pass

        class TestNowhere(StorageConformance):
            @pytest.fixture
            def open_driver(self):
                return lambda root: Nowhere(root, {})
        """
    )
    one = "-k=test_names_are_bytes"
    skipped = pytester.runpytest_subprocess(one, "-rs")
    skipped.assert_outcomes(skipped=1, deselected=len(CHECKS))
    skipped.stdout.fnmatch_lines(["*storage driver nowhere cannot work here: needs a moon*"])
    os.environ["DOCKP_REQUIRE"] = "other,nowhere"
    try:
        pytester.runpytest_subprocess(one).assert_outcomes(errors=1, deselected=len(CHECKS))
    finally:
        del os.environ["DOCKP_REQUIRE"]


def test_a_limit_that_is_gone_and_one_that_names_nothing_are_reported(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        import importlib.util, sys
        import pytest
        spec = importlib.util.spec_from_file_location("kit", {__file__!r})
        kit = importlib.util.module_from_spec(spec)
        sys.modules["kit"] = kit
        spec.loader.exec_module(kit)

        class TestLimits(kit.StorageConformance):
            limits = {{"names_are_bytes": "not true", "no_such_check": "?", "sparse_files_stay_sparse": "true"}}

            @pytest.fixture
            def open_driver(self):
                return lambda root: kit.FillsHoles(root, {{}})
        """
    )
    result = pytester.runpytest_subprocess("-k", "names_are_bytes or every_limit or sparse")
    result.assert_outcomes(failed=2, xfailed=1, deselected=len(CHECKS) - 2)
    result.stdout.fnmatch_lines(["*the limit 'names_are_bytes' is gone*"])


def test_a_check_states_its_rule() -> None:
    for name, check in CHECKS.items():
        assert check.__doc__, name
        assert "." in check.__doc__, f"{name} states no whole sentence"


def test_crashes_fall_at_every_step_of_a_verb(tmp_path: Path) -> None:
    """The crash checks would pass with a driver that is never killed."""
    lab = StorageLab(lambda root: Reference(root, {}), tmp_path / "lab")
    seen = set()
    for _ in lab.killed_at_each_step(lambda driver: driver.create("x", None, {})):
        seen.add(tuple(sorted(os.listdir(lab.root))))
        lab.driver.remove("x")
    assert seen == {(), ("+x",)}
    assert lab.driver.inventory() == {"x"}, "the last child gets through"
