"""Discovery is done once; whatever could change its result makes it happen again."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from dockp.plugins import PluginRegistry, registry


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """One item for each discovery that really ran."""
    done: list[float] = []
    really = registry._ask

    def ask(deadline: float) -> dict[str, Any]:
        done.append(deadline)
        return really(deadline)

    monkeypatch.setattr(registry, "_ask", ask)
    return done


def drivers() -> set[str]:
    return {info.name for info in PluginRegistry.open().drivers("storage")}


def kept(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "cache").glob("plugins-*.json")
    return file


def test_the_second_look_runs_nothing(site: Any, looks: list[float]) -> None:
    site.install_sound("one")
    first = PluginRegistry.open()
    second = PluginRegistry.open()
    assert len(looks) == 1
    assert first.drivers() == second.drivers()
    assert first.problems == second.problems


def test_checking_the_cache_takes_less_than_two_milliseconds(site: Any, looks: list[float]) -> None:
    site.install_sound("one")
    PluginRegistry.open()
    times = []
    for _ in range(20):
        started = time.perf_counter()
        PluginRegistry.open()
        times.append(time.perf_counter() - started)
    assert len(looks) == 1
    assert min(times) < 0.002


def test_an_installed_distribution_is_seen_at_once(site: Any, looks: list[float]) -> None:
    assert "one" not in drivers()
    site.install_sound("one")
    assert "one" in drivers()
    assert len(looks) == 2


def test_a_removed_distribution_is_gone_at_once(site: Any) -> None:
    site.install_sound("one")
    assert "one" in drivers()
    for path in site.path.glob("dist_one-*/*"):
        path.unlink()
    for path in site.path.glob("dist_one-*"):
        path.rmdir()
    assert "one" not in drivers()


def test_an_upgrade_is_seen_at_once(site: Any) -> None:
    site.install_sound("one")
    drivers()
    (site.path / "dist_one-1.0.dist-info").rename(site.path / "dist_one-2.0.dist-info")
    (site.path / "dist_one-2.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: dist-one\nVersion: 2.0\n")
    assert PluginRegistry.open().info("storage", "one").version == "2.0"


def test_edited_entry_points_are_seen_at_once(site: Any) -> None:
    site.install_sound("one")
    drivers()
    (site.path / "dist_one-1.0.dist-info/entry_points.txt").write_text("[other]\nx = y\n")
    assert "one" not in drivers()


def test_an_edited_source_file_is_seen_at_once(site: Any) -> None:
    file = site.install_sound("one")
    drivers()
    file.write_text(file.read_text().replace("made by a test", "edited"))
    assert PluginRegistry.open().info("storage", "one").summary == "edited"


def test_a_mended_module_deep_in_a_broken_package_is_seen_at_once(site: Any) -> None:
    site.install("deep", "", entry="[dockp]\ndeep = deep.plugin\n").unlink()
    package = site.path / "deep"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text(
        "from dockp.spi import hookimpl\nDOCKP_SPI = 1\n@hookimpl\ndef dockp_storage_drivers():\n"
        "    from deep.inner.missing import drivers\n    return drivers\n"
    )
    site.settle()
    assert len(site.problems(PluginRegistry.open(), "deep")) == 1
    (package / "inner/missing.py").write_text("drivers = []\n")
    assert site.problems(PluginRegistry.open(), "deep") == []


def test_files_that_come_and_go_in_the_current_directory_do_not_matter(
    site: Any, looks: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    os.utime(folder, (1, 1))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend("")
    drivers()
    (folder / "notes.txt").write_text("x")
    drivers()
    assert len(looks) == 1


def test_another_search_path_has_a_cache_of_its_own(
    site: Any, looks: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install_sound("one")
    assert "one" in drivers()
    monkeypatch.setattr("sys.path", [entry for entry in __import__("sys").path if entry != str(site.path)])
    assert "one" not in drivers()
    assert len(list((tmp_path / "cache").glob("plugins-*.json"))) == 2


def test_what_changed_a_moment_ago_is_used_but_not_kept(site: Any, looks: list[float], tmp_path: Path) -> None:
    file = site.install_sound("one")
    future = time.time() + 60
    os.utime(file, (future, future))
    assert "one" in drivers()
    assert not list((tmp_path / "cache").glob("plugins-*.json"))


def test_the_file_is_private_and_nothing_is_left_beside_it(site: Any, tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        drivers()
    finally:
        os.umask(previous)
    assert kept(tmp_path).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert len(list((tmp_path / "cache").iterdir())) == 1


def _others_may_write(file: Path) -> None:
    file.chmod(0o666)


def _folder_is_open(file: Path) -> None:
    file.parent.chmod(0o777)


def _somebody_elses(file: Path) -> None:
    os.chown(file, 65534, 65534)


def _symbolic_link(file: Path) -> None:
    real = file.with_name("elsewhere.json")
    file.rename(real)
    file.symlink_to(real)


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def _damaged(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-50])


def _another_shape(file: Path) -> None:
    record = json.loads(file.read_text())
    record["findings"]["drivers"][0]["surprise"] = 1
    file.write_text(json.dumps(record))


@pytest.mark.skipif(os.geteuid() != 0, reason="a file of somebody else's can be made by root only")
@pytest.mark.parametrize(
    "spoil",
    [_others_may_write, _folder_is_open, _somebody_elses, _symbolic_link, _pipe, _damaged, _another_shape],
)
def test_a_cache_that_cannot_be_trusted_is_not_used(site: Any, looks: list[float], tmp_path: Path, spoil: Any) -> None:
    site.install_sound("one")
    drivers()
    file = kept(tmp_path)
    if spoil is not _damaged and spoil is not _pipe:
        # Forge it, so that use would show.
        file.write_text(file.read_text().replace("made by a test", "forged"))
    spoil(file)
    assert PluginRegistry.open().info("storage", "one").summary == "made by a test"
    assert len(looks) == 2


def test_without_a_place_for_the_cache_everything_still_works(
    site: Any, looks: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DOCKP_CACHE_DIR", str(tmp_path / "file" / "below"))
    site.install_sound("one")
    assert "one" in drivers()
    assert "one" in drivers()
    assert len(looks) == 2


def test_refresh_looks_again(site: Any, looks: list[float]) -> None:
    drivers()
    PluginRegistry.open(refresh=True)
    assert len(looks) == 2


def test_a_crashed_plugin_is_tried_again_later_and_ever_more_seldom(
    site: Any, looks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("crash", "import os; os._exit(1)")
    now = [time.time()]
    monkeypatch.setattr("dockp.plugins.cache.time.time", lambda: now[0])
    seen = []
    for _ in range(64):
        PluginRegistry.open()
        seen.append(len(looks))
        now[0] += 10
    # At 0, after 60 s, after 120 s more, after 240 s more.
    assert [seen.index(count) for count in sorted(set(seen))] == [0, 6, 18, 42]


def test_drivers_of_dockp_itself_that_were_too_slow_are_tried_again_at_once(site: Any, looks: list[float]) -> None:
    assert not PluginRegistry.open(deadline=0.0).drivers("storage")
    assert "overlay2" in drivers()
    assert len(looks) == 2


def test_old_files_of_other_interpreters_are_cleared_away(site: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    old, young, foreign = folder / "plugins-0.json", folder / "plugins-1.json", folder / "other.json"
    for file in (old, young, foreign):
        file.write_text("{}")
    for file in (old, foreign):
        os.utime(file, (1, 1))
    drivers()
    assert (old.exists(), young.exists(), foreign.exists()) == (False, True, True)
