"""What ``run``, ``start``, ``attach`` and ``exec`` ask of an engine, in which order, and what comes of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clihelpers import Outcome
from fakeengine import FakeEngine, FakeStream

from dockp.cli.app import Failure
from dockp.cli.session import signals_sent_to
from dockp.interface import Created, WaitResult
from dockp.spi.errors import Conflict, NotFound, StartFailure

ID = "0" * 64
DOCUMENT = {
    "Id": ID,
    "State": {"Running": True, "Paused": False, "Restarting": False},
    "Config": {"Tty": False, "OpenStdin": True},
    "HostConfig": {"AutoRemove": False},
}
HELP = "\n\nRun 'dockp run --help' for more information\n"


@pytest.fixture(autouse=True)
def pumped(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Streams are not moved; how each was to be moved is kept."""
    calls: list[dict[str, Any]] = []

    def pump(stream: FakeStream, **more: Any) -> str:
        calls.append(more)
        return stream.wait_end()

    module = types.ModuleType("dockp.supervisor.stdio")
    module.pump = pump  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dockp.supervisor.stdio", module)
    monkeypatch.setattr("dockp.supervisor.stdio", module, raising=False)
    return calls


def test_run_creates_attaches_starts_and_waits_in_this_order(
    dockp: Callable[..., Outcome], engine: FakeEngine, pumped: list[dict[str, Any]]
) -> None:
    engine.answers["containers.wait"] = WaitResult(exit_code=7)
    assert dockp("run", "busybox", "false") == (7, "", "")
    assert engine.verbs() == [f"containers.{verb}" for verb in ("create", "attach", "start", "wait")]
    assert engine.closed
    assert (pumped[0]["stdin"], pumped[0]["stdout"], pumped[0]["stderr"]) == (None, 1, 2)


def test_only_the_streams_asked_for_are_attached(
    dockp: Callable[..., Outcome], engine: FakeEngine, pumped: list[dict[str, Any]]
) -> None:
    dockp("run", "-i", "-a", "stderr", "busybox")
    assert (pumped[0]["stdin"], pumped[0]["stdout"], pumped[0]["stderr"]) == (0, None, 2)
    [(_, more)] = engine.arguments("containers.attach")
    assert more == {"stdin": True, "stdout": False, "stderr": True, "detach_keys": ""}


def test_run_detached_prints_the_id_and_attaches_nothing(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    assert dockp("run", "-d", "-i", "busybox") == (0, ID + "\n", "")
    assert engine.verbs() == ["containers.create", "containers.start"]
    [((request,), _)] = engine.arguments("containers.create")
    assert (request.config.open_stdin, request.config.attach_stdin, request.config.stdin_once) == (True, False, False)


def test_a_removed_container_is_waited_for_until_it_is_removed(
    dockp: Callable[..., Outcome], engine: FakeEngine
) -> None:
    dockp("run", "--rm", "busybox")
    assert engine.arguments("containers.wait") == [((ID, "removed"), {})]
    assert "containers.remove" not in engine.verbs()


def test_the_first_exit_of_a_restarted_container_ends_run(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.wait"] = WaitResult(exit_code=3)
    assert dockp("run", "--restart", "always", "busybox").code == 3
    assert engine.arguments("containers.wait") == [((ID, "next-exit"), {})]


@pytest.mark.parametrize(("kind", "code"), [("not-found", 127), ("not-executable", 126), ("failed", 125)])
@pytest.mark.parametrize(("flag", "verb"), [("--rm=false", "start"), ("-d", "start"), ("--rm=false", "attach")])
def test_a_start_that_fails_has_the_code_of_its_kind(
    kind: str, code: int, flag: str, verb: str, dockp: Callable[..., Outcome], engine: FakeEngine
) -> None:
    engine.answers[f"containers.{verb}"] = StartFailure("it does not start", kind)
    outcome = dockp("run", flag, "busybox", "nothing")
    assert (outcome.code, outcome.err) == (code, "dockp: it does not start" + HELP)
    assert "containers.remove" not in engine.verbs()


def test_a_removed_container_that_does_not_start_is_removed(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.start"] = StartFailure("it does not start")
    assert dockp("run", "--rm", "busybox").code == 125
    assert engine.arguments("containers.remove") == [((ID,), {"force": True, "volumes": True})]


def test_ctrl_c_before_the_start_removes_a_removed_container(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    def interrupted(id: str) -> None:
        raise KeyboardInterrupt

    engine.answers["containers.start"] = interrupted
    assert dockp("run", "--rm", "busybox").code == 130
    assert "containers.remove" in engine.verbs()


def test_an_engines_refusal_is_one_line_and_125(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.create"] = Conflict('The container name "/a" is already in use')
    outcome = dockp("run", "--name", "a", "busybox")
    assert outcome == (125, "", 'dockp: The container name "/a" is already in use' + HELP)


def test_the_detach_keys_end_run_well_and_in_silence(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.attach"] = lambda *args, **more: FakeStream("detach")
    assert dockp("run", "busybox") == (0, "", "")
    assert "containers.wait" not in engine.verbs()


def test_warnings_go_to_standard_error(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.create"] = Created(id=ID, warnings=("no swap limit here",))
    assert dockp("create", "busybox") == (0, ID + "\n", "WARNING: no swap limit here\n")


def test_a_missing_image_is_pulled_once(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.create"] = [NotFound("No such image: debootstrap:bookworm"), Created(id=ID)]

    engine.answers["images.pull"] = "sha256:" + "1" * 64
    outcome = dockp("run", "-d", "debootstrap:bookworm")
    assert (outcome.code, outcome.out) == (0, ID + "\n")
    assert outcome.err == "Unable to find image 'debootstrap:bookworm' locally\n"
    assert engine.verbs() == [
        "containers.create",
        "images.pull",
        "images.inspect",
        "containers.create",
        "containers.start",
    ]


def test_a_missing_image_is_not_pulled_when_told_so(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.create"] = NotFound("No such image: busybox:latest")
    outcome = dockp("run", "--pull", "never", "busybox")
    assert outcome == (125, "", "dockp: No such image: busybox:latest" + HELP)
    assert "images.pull" not in engine.verbs()


def test_the_image_is_always_pulled_when_told_so(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    dockp("run", "--pull", "always", "-q", "oci:dir")
    assert engine.verbs()[:2] == ["images.pull", "containers.create"]


def test_another_missing_object_is_no_reason_to_pull(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.create"] = NotFound("No such container: db")
    assert dockp("run", "--volumes-from", "db", "busybox").code == 125
    assert "images.pull" not in engine.verbs()


def test_the_cidfile_holds_the_id(dockp: Callable[..., Outcome], engine: FakeEngine, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    dockp("create", "--cidfile", str(file), "busybox")
    assert file.read_text() == ID
    outcome = dockp("run", "--cidfile", str(file), "busybox")
    assert outcome.code == 125
    assert outcome.err.startswith("container ID file found, make sure the other container isn't running or delete")
    assert len(engine.arguments("containers.create")) == 1


def test_the_cidfile_goes_again_when_nothing_was_created(
    dockp: Callable[..., Outcome], engine: FakeEngine, tmp_path: Path
) -> None:
    engine.answers["containers.create"] = Conflict("no")
    assert dockp("run", "--cidfile", str(tmp_path / "cid"), "busybox").code == 125
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("run", "-it", "busybox"), ("exec", "-it", "web", "sh"), ("attach", "web")])
def test_a_terminal_needs_a_terminal(
    command: tuple[str, ...], dockp: Callable[..., Outcome], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.answers["containers.inspect"] = DOCUMENT | {"Config": {"Tty": True, "OpenStdin": True}}
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)
    outcome = dockp(*command)
    assert outcome == (1, "", "the input device is not a TTY\n")


def test_start_prints_names_and_errors(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    def start(name: str) -> None:
        if name == "b":
            raise NotFound("No such container: b")

    engine.answers["containers.start"] = start
    outcome = dockp("start", "a", "b", "c")
    assert outcome.out == "a\nc\n"
    assert outcome.err == "Error: No such container: b\nError: failed to start containers: b\n"
    assert outcome.code == 1


def test_start_attached_ends_with_the_containers_code(
    dockp: Callable[..., Outcome], engine: FakeEngine, pumped: list[dict[str, Any]]
) -> None:
    engine.answers["containers.inspect"] = DOCUMENT
    engine.answers["containers.wait"] = WaitResult(exit_code=9)
    assert dockp("start", "-ai", "web").code == 9
    assert engine.verbs() == [f"containers.{verb}" for verb in ("inspect", "attach", "start", "wait")]
    assert pumped[0]["stdin"] == 0
    assert dockp("start", "-a", "a", "b") == (1, "", "you cannot start and attach multiple containers at once\n")


def test_attach_ends_with_the_containers_code(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.inspect"] = DOCUMENT
    engine.answers["containers.wait"] = WaitResult(exit_code=4)
    assert dockp("attach", "web") == (4, "", "")


def test_detaching_from_attach_is_told(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.inspect"] = DOCUMENT
    engine.answers["containers.attach"] = lambda *args, **more: FakeStream("detach")
    assert dockp("attach", "web") == (1, "", "read escape sequence\n")


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        ({"Running": False}, "You cannot attach to a stopped container, start it first"),
        ({"Paused": True}, "You cannot attach to a paused container, unpause it first"),
        ({"Restarting": True}, "You cannot attach to a restarting container, wait until it is running"),
    ],
)
def test_attach_needs_a_running_container(
    state: dict[str, bool], complaint: str, dockp: Callable[..., Outcome], engine: FakeEngine
) -> None:
    engine.answers["containers.inspect"] = DOCUMENT | {"State": DOCUMENT["State"] | state}  # type: ignore[operator]
    assert dockp("attach", "web") == (1, "", complaint + "\n")


def test_exec_ends_with_the_commands_code(
    dockp: Callable[..., Outcome], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", "1")
    engine.answers |= {
        "containers.inspect": DOCUMENT,
        "containers.exec_create": "e1",
        "containers.exec_start": lambda *args, **more: FakeStream(),
        "containers.exec_wait": 5,
    }
    outcome = dockp("exec", "-i", "-e", "HERE", "-e", "A=1", "-u", "me", "-w", "/x", "web", "ls", "-l", "-u")
    assert outcome.code == 5
    [((name, config), _)] = engine.arguments("containers.exec_create")
    assert (name, config.cmd, config.env, config.user, config.working_dir) == (
        "web",
        ("ls", "-l", "-u"),
        ("HERE=1", "A=1"),
        "me",
        "/x",
    )
    assert (config.attach_stdin, config.attach_stdout, config.attach_stderr, config.tty) == (True, True, True, False)


def test_exec_detached_waits_for_nothing(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers |= {"containers.exec_create": "e1", "containers.exec_start": None}
    assert dockp("exec", "-d", "web", "true") == (0, "", "")
    assert engine.verbs() == ["containers.exec_create", "containers.exec_start"]


@pytest.mark.parametrize(("kind", "code"), [("not-found", 127), ("not-executable", 126), ("failed", 126)])
def test_a_command_that_cannot_be_executed_has_the_code_of_its_kind(
    kind: str, code: int, dockp: Callable[..., Outcome], engine: FakeEngine
) -> None:
    engine.answers |= {
        "containers.inspect": DOCUMENT,
        "containers.exec_create": "e1",
        "containers.exec_start": StartFailure("no", kind),
    }
    assert dockp("exec", "web", "nothing") == (code, "", "Error: no\n")


def test_signals_are_sent_on_and_the_old_handlers_come_back() -> None:
    sent: list[str] = []
    arrived = threading.Event()

    def kill(name: str) -> None:
        sent.append(name)
        if len(sent) == 2:
            arrived.set()

    before = signal.getsignal(signal.SIGINT)
    with signals_sent_to(kill):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGRTMIN + 3)
        os.kill(os.getpid(), signal.SIGWINCH)
        assert arrived.wait(5)
    assert sorted(sent) == ["INT", "RTMIN+3"]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_third_interrupt_ends_this_process() -> None:
    sent: list[str] = []
    with signals_sent_to(sent.append), pytest.raises(Failure, match="got 3 SIGTERM/SIGINTs, forcefully exiting"):  # noqa: PT012 - it comes in between
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            os.kill(os.getpid(), number)
            time.sleep(0.01)


def test_a_failure_to_send_a_signal_on_is_no_failure() -> None:
    def kill(name: str) -> None:
        raise Conflict("it is not running")

    with signals_sent_to(kill):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.05)
