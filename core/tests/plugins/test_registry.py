"""What the engine asks the registry."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from typing import Any

import pytest

from dockp.plugins import PluginRegistry, registry
from dockp.spi.errors import Forbidden, InvalidArgument, SystemFault, Unavailable

MOMENTS = """
    import sys
    from dockp.spi import Forbidden, hookimpl
    DOCKP_SPI = 1
"""


def moments(*hooks: str) -> str:
    return MOMENTS + "".join(f"\n    @hookimpl\n    def {hook}\n" for hook in hooks)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("storage", r"^driver not supported: nope \(storage drivers here: .*overlay2"),
        ("network", r'plugin "nope" not found'),
        ("exec", r"^unknown or invalid runtime name: nope"),
        ("volume", r'^error looking up volume plugin nope: plugin "nope" not found'),
        ("log", r"^logger: no log driver named 'nope' is registered"),
        ("source", r'^unknown image source "nope:"'),
        ("ipam", r'plugin "nope" not found'),
    ],
)
def test_an_unknown_name_is_refused_in_dockers_words_with_those_there_are(site: Any, kind: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        PluginRegistry.open().load(kind, "nope")


def test_an_unknown_name_whose_plugin_is_broken_says_so(site: Any) -> None:
    site.install("storage_zfs", "import libzfs_that_is_not_here")
    with pytest.raises(InvalidArgument, match=r'^driver not supported: zfs; plug-in "storage_zfs" .*libzfs_that_is'):
        PluginRegistry.open().load("storage", "zfs")


def test_a_driver_that_breaks_after_discovery_is_unavailable(site: Any) -> None:
    file = site.install_sound("later")
    found = PluginRegistry.open()
    file.write_text("import no_such_module")
    with pytest.raises(
        Unavailable, match=r'storage driver "later" of plug-in "later" .* ModuleNotFoundError: No module'
    ):
        found.load("storage", "later")


def test_a_driver_that_is_another_thing_now_is_unavailable(site: Any) -> None:
    file = site.install_sound("later")
    found = PluginRegistry.open()
    file.write_text("class Driver: pass")
    with pytest.raises(Unavailable, match="later:Driver is no storage driver"):
        found.load("storage", "later")


def test_drivers_are_listed_by_kind_with_the_highest_priority_first(site: Any) -> None:
    site.install_sound("low", priority=-5)
    site.install_sound("high", priority=10_000)
    found = PluginRegistry.open().drivers("storage")
    assert found[0].name == "high"
    assert found[-1].name == "low"
    assert all(info.kind == "storage" for info in found)


def test_a_moment_that_nobody_takes_part_in_imports_nothing(site: Any) -> None:
    PluginRegistry.open()
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from dockp.plugins import PluginRegistry\n"
        "found = PluginRegistry.open()\n"
        "found.moment('dockp_container_died', container={})\n"
        "print(sorted({'pluggy', 'threading', 'subprocess', 'tomllib'} & set(sys.modules)))\n"
    )
    PluginRegistry.open()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pluggy" not in done.stdout
    assert "subprocess" not in done.stdout


def test_a_moment_reaches_every_plugin_in_the_order_of_their_distributions(site: Any) -> None:
    for name in ("two", "one"):
        site.install(name, moments(f"dockp_container_spec(spec): spec.setdefault('seen', []).append('{name}')"))
    spec: dict[str, Any] = {}
    found = PluginRegistry.open()
    found.moment("dockp_container_spec", container={"Id": "1"}, spec=spec)
    assert spec == {"seen": ["one", "two"]}
    assert [info.plugin for info in found.moments] == ["one", "two"]


def test_a_plugin_may_refuse(site: Any) -> None:
    site.install("strict", moments("dockp_image_verify(image): raise Forbidden('not signed: ' + image['id'])"))
    with pytest.raises(Forbidden, match=r"^not signed: sha256:1$"):
        PluginRegistry.open().moment("dockp_image_verify", image={"id": "sha256:1"})


def test_a_verifier_that_fails_refuses(site: Any) -> None:
    site.install("weak", moments("dockp_image_verify(image): return image['missing']"))
    with pytest.raises(SystemFault, match=r'^plug-in "weak" failed in "dockp_image_verify": KeyError'):
        PluginRegistry.open().moment("dockp_image_verify", image={})


def test_a_verifier_that_meets_a_host_error_refuses(site: Any) -> None:
    site.install("weak", moments("dockp_image_verify(image): open('/nonexistent')"))
    with pytest.raises(SystemFault, match=r'^plug-in "weak" failed in "dockp_image_verify": .*No such file'):
        PluginRegistry.open().moment("dockp_image_verify", image={})


def test_a_verifier_that_hangs_refuses(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MOMENT_DEADLINE", 0.05)
    site.install(
        "slow",
        "import time\n" + "from dockp.spi import hookimpl\nDOCKP_SPI = 1\n"
        "@hookimpl\ndef dockp_image_verify(image): time.sleep(0.5)\n",
    )
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r'^plug-in "slow" did not answer "dockp_image_verify" within 0.05 s$'):
        PluginRegistry.open().moment("dockp_image_verify", image={})
    assert time.monotonic() - started < 10


def test_a_verifier_that_can_no_longer_be_imported_refuses(site: Any) -> None:
    file = site.install("gone", moments("dockp_image_verify(image): pass"))
    found = PluginRegistry.open()
    file.write_text("import no_such_module")
    with pytest.raises(Unavailable, match=r'^plug-in "gone" \(dist-gone\) cannot be imported: .*refused$'):
        found.moment("dockp_image_verify", image={})


def test_an_observer_that_fails_is_logged_and_stops_nobody(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    site.install("bad", moments("dockp_container_died(container): 1 / 0"))
    site.install("good", moments("dockp_container_died(container): container['seen'] = True"))
    container: dict[str, Any] = {}
    PluginRegistry.open().moment("dockp_container_died", container=container)
    assert container == {"seen": True}
    assert 'plug-in "bad" (dist-bad), dockp_container_died: ' in caplog.text


def test_an_observer_that_can_no_longer_be_imported_is_logged(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    file = site.install("gone", moments("dockp_image_pulled(image): pass"))
    found = PluginRegistry.open()
    file.write_text("import no_such_module")
    found.moment("dockp_image_pulled", image={})
    assert "cannot be imported" in caplog.text


def test_the_trace_switch_logs_each_hook_call(
    site: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DOCKP_TRACE_HOOKS", "1")
    caplog.set_level(logging.INFO, "dockp.hooks")
    file = site.install_sound("one")
    file.write_text(file.read_text() + "\n@hookimpl\ndef dockp_container_died(container): pass\n")
    PluginRegistry.open().moment("dockp_container_died", container={})
    assert "dockp_storage_drivers() of plug-in one" in caplog.messages
    assert "dockp_container_died() of plug-in one" in caplog.messages
