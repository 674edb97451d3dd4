"""The commands that do or show one thing: what they ask of an engine, what they print, how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clihelpers import Outcome
from fakeengine import FakeEngine, logged

from dockp.cli.app import run
from dockp.interface import WaitResult
from dockp.spi.errors import Forbidden, NotFound, NotModified
from dockp.spi.logs import LogEntry

DOCUMENT: dict[str, Any] = {
    "Id": "0" * 64,
    "Config": {"Tty": False, "Labels": {"a": "1", "b": "2"}, "Env": ["X=y", "Z=0"]},
    "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"labels": "a,c", "env": "X"}}},
}


def failing_for(name: str, error: Exception) -> Callable[..., None]:
    def act(given: str, *args: object, **more: object) -> None:
        if given == name:
            raise error

    return act


@pytest.mark.parametrize("command", ["stop", "restart", "kill", "pause", "unpause", "rm"])
def test_one_failure_does_not_stop_the_others(command: str, dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    verb = {"rm": "remove"}.get(command, command)
    engine.answers[f"containers.{verb}"] = failing_for("b", NotFound("No such container: b"))
    assert dockp(command, "a", "b", "c") == (1, "a\nc\n", "Error: No such container: b\n")


def test_stop_hands_on_time_and_signal(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    dockp("stop", "-t", "0", "-s", "INT", "a")
    dockp("stop", "--time=-1", "a")
    dockp("stop", "a")
    assert [args for args, _ in engine.arguments("containers.stop")] == [
        ("a", 0, "INT"),
        ("a", -1, ""),
        ("a", None, ""),
    ]


def test_stopping_what_is_stopped_is_no_failure(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.stop"] = NotModified("it is stopped")
    assert dockp("stop", "a") == (0, "a\n", "")


def test_rm_with_force_forgives_what_is_absent(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.remove"] = failing_for("b", NotFound("No such container: b"))
    assert dockp("rm", "-fv", "a", "b", "/c") == (0, "a\n/c\n", "Error: No such container: b\n")
    given = sorted(args[0] for args, _ in engine.arguments("containers.remove"))
    assert given == ["a", "b", "c"]
    assert all(more == {"force": True, "volumes": True} for _, more in engine.arguments("containers.remove"))


def test_wait_prints_codes(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.wait"] = lambda name, condition: WaitResult(exit_code=int(name))
    assert dockp("wait", "3", "0") == (0, "3\n0\n", "")


def test_rename_says_what_failed(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.rename"] = NotFound("No such container: a")
    outcome = dockp("rename", "a", "b")
    assert outcome == (1, "", "Error: No such container: a\nError: failed to rename container named a\n")
    assert dockp("rename", "a", " ").err == "Error: Neither old nor new names may be empty\n"


ENTRIES = [
    LogEntry(time=1_700_000_000_123_456_789, stream="stdout", data=b"one\n"),
    LogEntry(time=1_700_000_001_000_000_000, stream="stderr", data=b"t\xffo\n"),
]


def test_logs_keep_the_streams_apart(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers |= {"containers.inspect": DOCUMENT, "containers.logs": logged(ENTRIES[:1])}
    assert dockp("logs", "web") == (0, "one\n", "")
    engine.answers["containers.logs"] = logged(ENTRIES[1:])
    assert dockp("logs", "web").out == ""
    tty = DOCUMENT | {"Config": DOCUMENT["Config"] | {"Tty": True}}
    engine.answers |= {"containers.inspect": tty, "containers.logs": logged(ENTRIES)}
    assert dockp("logs", "web").err == ""


def test_logs_with_times_and_details(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers |= {"containers.inspect": DOCUMENT, "containers.logs": logged(ENTRIES[:1])}
    assert dockp("logs", "-t", "web").out == "2023-11-14T22:13:20.123456789Z one\n"
    assert dockp("logs", "-t", "--details", "web").out == "2023-11-14T22:13:20.123456789Z X=y,a=1 one\n"


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ((), {"follow": False, "since": 0, "until": 0, "tail": None}),
        (("-f", "-n", "5"), {"follow": True, "since": 0, "until": 0, "tail": 5}),
        (("--tail=x",), {"follow": False, "since": 0, "until": 0, "tail": None}),
        (("--since", "1700000000.5"), {"follow": False, "since": 1_700_000_000_500_000_000, "until": 0, "tail": None}),
    ],
)
def test_logs_hands_on_what_is_asked_for(
    flags: tuple[str, ...], wanted: dict[str, Any], dockp: Callable[..., Outcome], engine: FakeEngine
) -> None:
    engine.answers |= {"containers.inspect": DOCUMENT, "containers.logs": logged([])}
    assert dockp("logs", *flags, "web").code == 0
    assert engine.arguments("containers.logs") == [((DOCUMENT["Id"],), wanted)]


def test_ps_hands_on_what_is_asked_for(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.list"] = []
    for flags in (("-a",), ("-l",), ("-n", "3", "-l"), ("-s",), ("--format", "{{.Size}}"), ("-f", "a=b", "-f", "a=c")):
        assert dockp("ps", *flags).code == 0
    plain = {"all": False, "limit": 0, "size": False, "filters": {}}
    assert [more for _, more in engine.arguments("containers.list")] == [
        plain | {"all": True},
        plain | {"limit": 1},
        plain | {"limit": 3},
        plain | {"size": True},
        plain | {"size": True},
        plain | {"filters": {"a": ["b", "c"]}},
    ]


def test_import_reads_a_file_or_standard_input(
    dockp: Callable[..., Outcome], engine: FakeEngine, tmp_path: Path
) -> None:
    read: list[bytes] = []

    def import_(source: Any, **more: Any) -> str:
        read.append(source.read())
        return "sha256:1"

    engine.answers["images.import_"] = import_
    (tmp_path / "a.tar").write_bytes(b"tar")
    line = ("import", "-c", "CMD a", "-c", "ENV B=1", "-m", "why", "--platform", "linux/amd64")
    outcome = dockp(*line, str(tmp_path / "a.tar"), "app:1")
    assert outcome == (0, "sha256:1\n", "")
    assert read == [b"tar"]
    [(_, more)] = engine.arguments("images.import_")
    assert (more["reference"], more["changes"], more["message"]) == ("app:1", ["CMD a", "ENV B=1"], "why")
    assert dockp("import", str(tmp_path / "none.tar")).err == f"Error: No such file or directory: {tmp_path}/none.tar\n"
    assert "not supported" in dockp("import", "https://example.org/a.tar").err


def test_pull_names_the_image(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    def pull(reference: str, *, progress: Callable[[str, int, int | None], None] | None, **more: Any) -> str:
        if progress:
            progress("Unpacking", 0, None)
        return "sha256:1"

    engine.answers["images.pull"] = pull
    assert dockp("pull", "debootstrap:bookworm", "-t", "debian:12") == (0, "Unpacking\ndebian:12\n", "")
    assert dockp("pull", "-q", "oci:dir") == (0, "sha256:1\n", "")
    assert engine.arguments("images.pull")[0][1]["tag"] == "debian:12"


def test_rmi_prints_what_went(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    def remove(name: str, **more: Any) -> list[dict[str, str]]:
        if name == "b":
            raise NotFound("No such image: b")
        return [{"Untagged": name}, {"Deleted": "sha256:1"}]

    engine.answers["images.remove"] = remove
    assert dockp("rmi", "a", "b") == (1, "Untagged: a\nDeleted: sha256:1\n", "Error: No such image: b\n")
    assert dockp("rmi", "-f", "--no-prune", "b").code == 0
    assert engine.arguments("images.remove")[-1] == (("b",), {"force": True, "prune": False})


def test_images_with_a_commands_name_gives_a_hint(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["images.list"] = []
    assert 'did you mean "dockp image ls"?' in dockp("images", "ls").err
    assert engine.arguments("images.list")[0][1]["filters"] == {"reference": ["ls"]}


def test_volumes(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["volumes.create"] = lambda name, **more: {"Name": name or "generated"}
    assert dockp("volume", "create").out == "generated\n"
    assert dockp("volume", "create", "--label", "a=1", "-o", "type=tmpfs", "data").out == "data\n"
    assert engine.arguments("volumes.create")[1] == (
        ("data",),
        {"driver": "local", "options": {"type": "tmpfs"}, "labels": {"a": "1"}},
    )
    engine.answers["volumes.remove"] = failing_for("b", NotFound("get b: no such volume"))
    assert dockp("volume", "rm", "a", "b") == (1, "a\n", "Error: get b: no such volume\n")


def test_inspect_looks_everywhere(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    for noun in ("containers", "images", "networks"):
        engine.answers[f"{noun}.inspect"] = NotFound("nothing")
    engine.answers["volumes.inspect"] = lambda name: {"Name": name}
    outcome = dockp("inspect", "-s", "data")
    assert (json.loads(outcome.out), outcome.err) == ([{"Name": "data"}], "WARNING: --size ignored for volume\n")
    engine.answers["volumes.inspect"] = NotFound("nothing")
    assert dockp("inspect", "data") == (1, "[]\n", "Error: No such object: data\n")
    assert dockp("inspect", "--type", "image", "data") == (1, "[]\n", "Error: nothing\n")


PLUGINS = [
    {
        "Kind": "storage",
        "Name": "overlay2",
        "Summary": "",
        "Distribution": "dockp-storage-overlay2",
        "Version": "1",
        "Supported": True,
        "Reason": "",
        "Features": ["native-diff"],
        "Default": True,
    },
    {
        "Kind": "storage",
        "Name": "zfs",
        "Summary": "",
        "Distribution": "other",
        "Version": "2",
        "Supported": False,
        "Reason": "no zfs module",
        "Features": [],
        "Default": False,
    },
]


def test_plugins_are_listed_with_why_not(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers |= {"system.plugins": PLUGINS, "system.problems": ['plug-in "x": it hangs']}
    outcome = dockp("plugin", "ls")
    assert [line.split() for line in outcome.out.splitlines()] == [
        ["KIND", "NAME", "DISTRIBUTION", "VERSION", "DEFAULT", "WORKS", "HERE"],
        ["storage", "overlay2", "dockp-storage-overlay2", "1", "*", "yes"],
        ["storage", "zfs", "other", "2", "no:", "no", "zfs", "module"],
    ]
    assert outcome.err == 'WARNING: plug-in "x": it hangs\n'
    assert dockp("plugin", "ls", "-q").out == "storage/overlay2\nstorage/zfs\n"
    assert dockp("plugin", "ls", "--format", "{{.Name}} {{.Supported}}").out == "overlay2 yes\nzfs no\n"


def test_info_shows_every_driver_and_why_not(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers |= {
        "system.info": {
            "Containers": 3,
            "ContainersRunning": 1,
            "Driver": "overlay2",
            "DriverStatus": [["Backing Filesystem", "extfs"]],
            "MemTotal": 2 << 30,
            "SecurityOptions": ["name=seccomp,profile=builtin"],
            "DockpPlugins": PLUGINS,
            "Warnings": ["WARNING: No swap limit support"],
        },
        "system.problems": [],
    }
    outcome = dockp("info")
    for line in (
        " Containers: 3",
        "  Running: 1",
        " Storage Driver: overlay2",
        "  Backing Filesystem: extfs",
        "  storage/zfs        other 2                   not supported: no zfs module",
        " Total Memory: 2GiB",
        "   Profile: builtin",
    ):
        assert line in outcome.out.splitlines()
    assert outcome.err == "WARNING: No swap limit support\n"
    assert dockp("info", "-f", "{{.Driver}}").out == "overlay2\n"
    assert json.loads(dockp("info", "-f", "json").out)["Containers"] == 3
    assert dockp("info", "-f", "{{.Driver").code == 64


def test_version(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["system.version"] = {
        "Platform": {"Name": "dockp"},
        "Components": [{"Name": "Engine", "Version": "1", "Details": {"ApiVersion": "1.50"}}],
    }
    assert " Engine:\n  Version:          1\n  ApiVersion:       1.50\n" in dockp("version").out
    assert dockp("version", "-f", "{{.Server.Platform.Name}}").out == "dockp\n"


def test_an_engine_that_cannot_be_opened_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    def refuse(flags: object) -> Any:
        raise Forbidden("dockp needs root: run it as root or with sudo")

    assert run(["ps"], refuse) == 1
    assert capfd.readouterr().err == "Error: dockp needs root: run it as root or with sudo\n"
    assert run(["run", "busybox"], refuse) == 125
    assert capfd.readouterr().err.startswith("dockp: dockp needs root: run it as root or with sudo\n")


def test_a_bug_is_one_line_and_a_traceback_only_when_asked_for(
    dockp: Callable[..., Outcome], engine: FakeEngine
) -> None:
    engine.answers["containers.list"] = ZeroDivisionError("oops")
    outcome = dockp("ps")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "ZeroDivisionError: oops (run with --debug for the traceback)" in outcome.err
    assert "Traceback" in dockp("--debug", "ps").err


def test_global_flags_reach_the_engine(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []
    engine = FakeEngine()
    engine.answers["containers.list"] = []

    def open_engine(flags: object) -> Any:
        seen.append(flags)
        return engine

    line = ["--data-root", "/d", "--exec-root=/e", "--storage-driver", "vfs", "--storage-opt", "a=1"]
    line += ["--storage-opt", "b=2", "--exec-driver", "x", "-D", "-l", "warn", "--config-file", "/c", "ps"]
    assert run(line, open_engine) == 0
    assert seen == [
        {
            "data_root": "/d",
            "exec_root": "/e",
            "storage_driver": "vfs",
            "storage_opt": ["a=1", "b=2"],
            "exec_driver": "x",
            "log_level": "warn",
            "debug": True,
            "config_file": "/c",
        }
    ]


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -c 'from dockp.cli import main; main()' --help | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1, 141)
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str, dockp: Callable[..., Outcome]) -> None:
    assert "_DOCKP_COMPLETE" in dockp("completion", shell).out


@pytest.fixture
def complete(dockp: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> Callable[..., set[str]]:
    """What bash is offered for the last of the words."""

    def offered(*words: str) -> set[str]:
        monkeypatch.setenv("_DOCKP_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        return {line.partition(",")[2] for line in dockp().out.splitlines() if line}

    return offered


def test_commands_and_flags_are_completed(complete: Callable[..., set[str]]) -> None:
    assert complete("dockp", "re") == {"rename", "restart"}
    assert complete("dockp", "container", "un") == {"unpause"}
    assert {"--cap-add", "--cap-drop"} <= complete("dockp", "run", "--cap")


def test_names_are_completed(complete: Callable[..., set[str]], engine: FakeEngine) -> None:
    engine.answers |= {
        "containers.list": [{"Names": ["/web"]}, {"Names": ["/worker"]}, {"Names": ["/db"]}],
        "images.list": [{"RepoTags": ["docker.io/library/debian:12"]}, {"RepoTags": None}],
        "volumes.list": [{"Name": "data"}],
        "networks.list": NotFound("nothing"),
    }
    assert complete("dockp", "stop", "w") == {"web", "worker"}
    assert complete("dockp", "stop", "web", "w") == {"worker"}
    assert complete("dockp", "run", "--rm", "-p", "80:80", "deb") == {"debian:12"}
    assert complete("dockp", "run", "debian", "deb") == set()
    assert complete("dockp", "volume", "rm", "") == {"data"}
    assert complete("dockp", "network", "inspect", "") == set()
    assert engine.closed
