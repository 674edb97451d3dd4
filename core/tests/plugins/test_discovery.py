"""What is wrong with a plug-in is one line, and costs nobody else anything."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dockp.plugins import PluginRegistry

HEAD = "from dockp.spi import hookimpl, StorageDriver\nDOCKP_SPI = 1\n"


def names(registry: PluginRegistry) -> list[str]:
    return [info.name for info in registry.drivers("storage")]


def test_a_sound_plugin_is_found_described_and_loaded(site: Any) -> None:
    site.install_sound("fine", priority=7)
    registry = PluginRegistry.open()
    info = registry.info("storage", "fine")
    assert site.problems(registry, "fine") == []
    assert (info.distribution, info.version, info.plugin) == ("dist-fine", "1.0", "fine")
    assert (info.module, info.qualname, info.summary, info.priority) == ("fine", "Driver", "made by a test", 7)
    assert (info.builtin, info.spi) == (False, 1)
    assert registry.load("storage", "fine").name == "fine"


def test_the_drivers_of_this_repository_come_as_built_in_and_without_problems(site: Any) -> None:
    registry = PluginRegistry.open()
    assert [str(problem) for problem in registry.problems] == []
    found = {(info.kind, info.name) for info in registry.drivers() if info.builtin}
    assert found >= {
        ("storage", "overlay2"),
        ("storage", "vfs"),
        ("network", "bridge"),
        ("exec", "libcontainer"),
        ("volume", "local"),
        ("log", "json-file"),
        ("log", "none"),
        ("source", "oci"),
        ("source", "docker-archive"),
        ("source", "debootstrap"),
        ("ipam", "default"),
    }


BROKEN = {
    "imports_nothing": ("import no_such_module", "cannot be imported: ModuleNotFoundError: No module named 'no_such_"),
    "syntax": ("def", "cannot be imported: SyntaxError"),
    "exits_politely": ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    "states_nothing": ("x = 1", "does not state DOCKP_SPI"),
    "from_the_future": ("DOCKP_SPI = 99", "was written for SPI 99, this dockp has SPI 1: upgrade dockp"),
    "from_the_past": ("DOCKP_SPI = 0", "was written for SPI 0, this dockp has SPI 1: install a newer version"),
    "wrong_type": ("DOCKP_SPI = '1'", "DOCKP_SPI must be a whole number, not '1'"),
    "no_hook": ("DOCKP_SPI = 1\ndef dockp_storage_drivers(): return []", "implements no hook (is @hookimpl missing?)"),
    "typo": (
        HEAD + "@hookimpl\ndef dockp_storage_driver(): return []",
        'implements "dockp_storage_driver", which is no hook (did you mean dockp_storage_drivers?)',
    ),
    "signature": (HEAD + "@hookimpl\ndef dockp_storage_drivers(engine): return []", "dockp_storage_drivers: "),
    "wrapper": (
        HEAD + "@hookimpl(wrapper=True)\ndef dockp_container_died(container): return (yield)",
        "dockp_container_died: hook wrappers are not part of SPI 1",
    ),
    "raises": (HEAD + "@hookimpl\ndef dockp_storage_drivers(): 1 / 0", "failed: ZeroDivisionError: division by zero"),
    "exits_in_hook": (HEAD + "@hookimpl\ndef dockp_storage_drivers(): raise SystemExit", "failed: SystemExit"),
    "none": (HEAD + "@hookimpl\ndef dockp_storage_drivers(): pass", "returned NoneType, not a list of classes"),
    "text": (HEAD + "@hookimpl\ndef dockp_storage_drivers(): return 'vfs'", "returned str, not a list of classes"),
    "no_class": (HEAD + "@hookimpl\ndef dockp_storage_drivers(): return [42]", "42, which is not a class"),
    "no_subclass": (
        HEAD + "class D: pass\n@hookimpl\ndef dockp_storage_drivers(): return [D]",
        "D is not a subclass of dockp.spi.storage.StorageDriver",
    ),
    "abstract": (
        HEAD + "class D(StorageDriver): name = 'd'\n@hookimpl\ndef dockp_storage_drivers(): return [D]",
        "D does not implement __init__, create, inventory, mounts, probe, remove, seal, usage",
    ),
    "ends_the_process": ("import os; os._exit(0)", "ended the process while being imported"),
    "crashes": ("import os; os.abort()", "crashed the interpreter with SIGABRT"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_one_line_and_a_sound_one_beside_it_works(site: Any, name: str) -> None:
    source, expected = BROKEN[name]
    site.install(name, source)
    site.install_sound("zz_fine")
    registry = PluginRegistry.open()
    problems = site.problems(registry, name)
    assert len(problems) == 1
    assert expected in problems[0]
    assert "\n" not in problems[0]
    assert "zz_fine" in names(registry)
    assert "overlay2" in names(registry)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("name = 3", "Driver.name is 3, not a name"),
        ("name = 'Not A Name'", "Driver.name is 'Not A Name', not a name"),
        ("priority = 'high'", "Driver.priority is 'high', not int"),
        ("summary = None", "Driver.summary is None, not str"),
        ("__qualname__ = 'Elsewhere'", "cannot be found again"),
    ],
)
def test_a_class_with_rubbish_attributes_is_refused(site: Any, line: str, expected: str) -> None:
    file = site.install_sound("odd")
    # At the end of the class body, over what stands before.
    file.write_text(file.read_text().replace("    def inventory", f"    {line}\n    def inventory"))
    problems = site.problems(PluginRegistry.open(), "odd")
    assert len(problems) == 1
    assert expected in problems[0]


HANGS = {
    "at_import": "import time; time.sleep(600)",
    "in_hook": HEAD + "@hookimpl\ndef dockp_storage_drivers():\n    import time; time.sleep(600)",
    "deaf": "import signal, time\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: time.sleep(1)",
    "with_a_child": "import os, time\nif os.fork() == 0: time.sleep(600)\ntime.sleep(600)",
}


@pytest.mark.slow
def test_plugins_that_hang_are_set_aside_together_within_one_deadline(site: Any) -> None:
    for name, source in HANGS.items():
        site.install(name, source)
    site.install_sound("zz_fine")
    started = time.monotonic()
    registry = PluginRegistry.open(deadline=4)
    assert time.monotonic() - started < 4 * 2 + 2
    for name in HANGS:
        assert site.problems(registry, name) == ["did not finish importing and answering within 4 s; it is set aside"]
    assert "zz_fine" in names(registry)


def test_a_plugin_may_print_and_read_and_disturbs_nothing(site: Any) -> None:
    file = site.install_sound("chatty")
    file.write_text("import sys\nprint('{}' * 10000)\nsys.stderr.write('!')\nsys.stdin.read()\n" + file.read_text())
    registry = PluginRegistry.open()
    assert site.problems(registry, "chatty") == []
    assert "chatty" in names(registry)


def test_a_name_that_dockp_itself_has_stays_with_dockp_and_both_are_named(site: Any) -> None:
    site.install_sound("aaa", driver="overlay2", priority=1000)
    registry = PluginRegistry.open()
    assert registry.info("storage", "overlay2").distribution == "dockp-storage-overlay2"
    (problem,) = [str(problem) for problem in registry.problems if problem.plugin == "aaa"]
    assert problem.startswith('plug-in "aaa" (dist-aaa): storage driver "overlay2" is already provided by plug-in ')
    assert '"storage_overlay2" (dockp-storage-overlay2 ' in problem


def test_of_two_strangers_with_one_name_the_first_by_distribution_has_it(site: Any) -> None:
    site.install_sound("two", driver="same")
    site.install_sound("one", driver="same")
    registry = PluginRegistry.open()
    assert registry.info("storage", "same").distribution == "dist-one"
    assert len(site.problems(registry, "two")) == 1


def test_one_bad_hook_does_not_cost_a_plugin_its_good_ones(site: Any) -> None:
    file = site.install_sound("half")
    file.write_text(file.read_text() + "\n@hookimpl\ndef dockp_log_drivers(): raise OSError('no')\n")
    registry = PluginRegistry.open()
    assert site.problems(registry, "half") == ["dockp_log_drivers failed: OSError: no"]
    assert "half" in names(registry)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("[dockp]\nodd = odd:thing\n", 'the entry point names "odd:thing", which is not a module'),
        ("[dockp]\nodd\n", "unreadable metadata"),
    ],
)
def test_bad_metadata_is_one_line(site: Any, entry: str, expected: str) -> None:
    site.install("odd", "DOCKP_SPI = 1", entry=entry)
    site.install_sound("zz_fine")
    registry = PluginRegistry.open()
    assert any(expected in problem.message for problem in registry.problems)
    assert "zz_fine" in names(registry)


def test_discovery_that_fails_as_a_whole_is_one_problem_and_no_exception(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    registry = PluginRegistry.open()
    assert registry.drivers() == []
    assert len(registry.problems) == 1
    assert "/nonexistent/python" in str(registry.problems[0])
