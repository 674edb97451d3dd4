"""The conformance suite for storage drivers, for pytest.

A driver's whole test is::

    class TestMine(StorageConformance):
        limits = {"directories_of_a_lower_layer_can_be_renamed": "needs redirect_dir"}

        @pytest.fixture
        def open_driver(self):
            return lambda root: MyDriver(root, {})

Run it as root. Everything is mounted in a mount namespace of the test process. Checks are the functions of
`dockp.testkit.storage_checks`; each becomes a method ``test_<check>`` here. Without pytest use `run_checks`.

A *limit* is a rule that the driver cannot keep, with the reason. Its check must fail: a limit that is gone is reported.
A driver that cannot work on this host is skipped with its own reason, unless the environment variable ``DOCKP_REQUIRE``
(names separated by commas) has it: then that is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from dockp.linux.trees import remove_tree
from dockp.spi.values import Probe
from dockp.testkit._lab import OpenDriver, StorageLab
from dockp.testkit.storage_checks import CHECKS, Check

__all__ = ["OpenDriver", "StorageConformance", "StorageLab", "run_checks"]


def run_checks(
    open_driver: OpenDriver, base: Path, names: Iterable[str] = tuple(CHECKS), shrink: bool = True
) -> dict[str, BaseException]:
    """Run checks, by default all, each on its own root under ``base``; return the failures by check.

    ``base`` is left as it was. Args: shrink: see `StorageLab`.
    """
    failures: dict[str, BaseException] = {}
    for name in names:
        place = base / name
        try:
            lab = StorageLab(open_driver, place)
            lab.shrink = shrink
            CHECKS[name](lab)
        except Exception as error:
            failures[name] = error
        finally:
            remove_tree(str(place))
    return failures


class StorageConformance:
    """Subclass it, give the fixture ``open_driver`` (a function from root to driver), and state ``limits``."""

    limits: ClassVar[Mapping[str, str]] = {}
    """Checks that this driver cannot pass, with the reason. Each must name a check, and fail."""

    _probes: ClassVar[dict[type, Probe]] = {}

    @pytest.fixture
    def lab(self, open_driver: OpenDriver, tmp_path: Path) -> Iterator[StorageLab]:
        if os.geteuid() != 0:
            pytest.fail("storage drivers are tested with real mounts: run the tests as root")
        lab = StorageLab(open_driver, tmp_path / "lab")
        _require_support(lab, type(self)._probes)
        yield lab
        remove_tree(str(tmp_path / "lab"))

    def test_every_limit_names_a_check(self) -> None:
        unknown = sorted(self.limits.keys() - CHECKS.keys())
        assert not unknown, f"limits names {unknown}, which are no checks"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._probes = {}


def _require_support(lab: StorageLab, known: dict[type, Probe]) -> None:
    driver = type(lab.driver)
    if driver not in known:
        known[driver] = driver.probe(lab.root, {})
    answer = known[driver]
    if answer.supported:
        return
    required = os.environ.get("DOCKP_REQUIRE", "").split(",")
    say = pytest.fail if driver.name in required else pytest.skip
    say(f"storage driver {driver.name} cannot work here: {answer.reason}")


def _as_test(name: str, check: Check) -> object:
    def test(self: StorageConformance, lab: StorageLab) -> None:
        reason = self.limits.get(name)
        if reason is None:
            check(lab)
            return
        try:
            check(lab)
        except Exception:
            pytest.xfail(reason)
        pytest.fail(f"the limit {name!r} is gone: take it out of limits")

    test.__name__ = f"test_{name}"
    test.__qualname__ = f"StorageConformance.test_{name}"
    test.__doc__ = check.__doc__
    return test


for _name, _check in CHECKS.items():
    setattr(StorageConformance, f"test_{_name}", _as_test(_name, _check))
