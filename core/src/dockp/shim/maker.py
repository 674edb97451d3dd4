"""Making a container: its files, its first process, the word that lets the command run.

That work reads a large spec and runs most of the runtime's code. A shim that did it itself would keep the pages it
wrote on, which are its own from then on and no longer its zygote's, for as long as the container runs. So a process
forked for the purpose does it, and ends; `MakerApart` is its face in the shim. A runtime that cannot be handed over
(`dockp.spi.runtime.Runtime.handover`) is driven by `Maker` in the shim itself::

    shim                                  maker
    ----                                  -----
    fork  ------------------------------->  own mount namespace, root file system, user, volumes
    enters that mount namespace  <--------
    create, stdio, network namespace ---->  the container's init, a child of the shim
    adopts the container  <---------------  pid, handover
    start  ------------------------------>  execve of the command
    closes the line  <--------------------
                                            ends

Each end notices by the end of the line, or by the death signal, that the other is gone.
"""

from __future__ import annotations

import _socket
import os
import sys

from dockp.linux import namespaces, process
from dockp.shim import rootfs, users, wire
from dockp.shim.streams import give
from dockp.spi import errors
from dockp.spi.errors import DockpError, SystemFault
from dockp.spi.runtime import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_SIGKILL = 9
_DIED = "the process that makes the container was killed"


def load_class(name: str) -> Any:
    """The class that ``"package.module:Class"`` names."""
    path, _, attribute = name.partition(":")
    # Looked up first: the import machinery writes to many pages that a forked shim shares with its zygote otherwise.
    module = sys.modules.get(path) or __import__(path, fromlist=(attribute,))
    return getattr(module, attribute)


def begin(
    config: dict[str, Any], report: Callable[[], None], first: str = "prepare", ahead: Ahead | None = None
) -> Maker | MakerApart:
    """A maker for the container of ``config``; one apart begins with its first call, "prepare" or "resume", already
    before that is made here. Raises what importing its runtime raises; OSError."""
    if hasattr(load_class(config["runtime"]["class"]), "handover"):
        return MakerApart(config, report, first, ahead)
    if ahead is not None:
        ahead.sock.close()
    return Maker(config)


class Ahead:
    """A maker's process forked before its container is known. It waits for `MakerApart`, and ends with its shim.

    Args: reporter: makes the function that writes to the log of a run folder.
    """

    def __init__(self, reporter: Callable[[str], Callable[[], None]]) -> None:
        self.sock, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            self.sock.close()
            process.set_parent_death_signal(_SIGKILL)
            receiver = wire.Receiver(theirs)
            messages = receiver.receive()
            while messages == []:
                messages = receiver.receive()
            if not messages:
                os._exit(0)
            message = messages[0][0]
            _serve(message["config"], theirs, reporter(message["config"]["bundle"]), message["call"])
        theirs.close()


def _runtime(config: dict[str, Any], more: dict[str, str]) -> Any:
    wanted = config["runtime"]
    return load_class(wanted["class"])(config["id"], config["bundle"], {**wanted["options"], **more})


class Maker:
    """Makes the container here, in the shim.

    Args: more: options for the runtime besides those of the configuration.
    """

    def __init__(self, config: dict[str, Any], more: dict[str, str] | None = None) -> None:
        self._config = config
        self._more = more or {}
        self._runtime: Any = None
        self._owner: tuple[int, int] | None = None

    def prepare(self) -> str:
        """Mount namespace, root file system, user, new volumes: everything that needs no network yet. Returns the path
        of the terminal multiplexer to use, or "".

        Raises: DockpError, OSError.
        """
        config = self._config
        bundle = config["bundle"]
        spec = wire.read_file(bundle + "/config.json")
        shared = rootfs.keep_shared(bundle, spec)
        rootfs.enter_private_namespace()
        rootfs.attach_shared(shared)
        path = rootfs.assemble(bundle, config["rootfs"])
        root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if config["rootfs"]["mounts"]:
                rootfs.mark(root)
            first = spec.get("process")
            user = config["user"]
            if first is not None and user is not None:
                identity = users.resolve(root, user["user"], user["groups"])
                users.apply(first, identity, config["env_home"])
            if config["volumes"]:
                from dockp.shim import volumes

                for volume in config["volumes"]:
                    volumes.stage(volume)
            if config["copy_up"]:
                from dockp.shim import copyup

                for volume in config["copy_up"]:
                    copyup.fill(volume["source"], root, volume["target"])
        finally:
            os.close(root)
        ptmx = rootfs.own_terminals(spec) if config["terminal"] else ""
        spec["root"] = {"path": path, "readonly": bool(config["rootfs"].get("read_only"))}
        if first is not None:
            # What a child inherits otherwise is the shim's own, which is meant for the shim.
            first.setdefault("oomScoreAdj", config.get("inherited_oom_score_adj", 0))
            first["terminal"] = config["terminal"]
        wire.write_file(bundle + "/config.json", spec)
        self._find_owner(spec)
        return ptmx

    def _find_owner(self, spec: dict[str, Any]) -> None:
        first = spec.get("process")
        self._owner = users.host_owner(first, spec) if first is not None else None

    def resume(self) -> None:
        """Instead of `prepare` for a container that was prepared by an earlier maker."""
        self._find_owner(wire.read_file(self._config["bundle"] + "/config.json"))

    def create(self, stdio: tuple[int, int, int], netns: int | None) -> tuple[Any, int]:
        """Build the container; returns its runtime and the pid of its init. Raises RuntimeFailure."""
        give(stdio, self._owner, self._config["open_stdin"])
        self._runtime = _runtime(self._config, self._more)
        try:
            pid: int = self._runtime.create(stdio, netns)
        except OSError as failure:
            raise RuntimeFailure(str(failure)) from failure
        return self._runtime, pid

    def start(self) -> None:
        """Let the command run. Raises RuntimeFailure."""
        try:
            self._runtime.start()
        except OSError as failure:
            raise RuntimeFailure(str(failure)) from failure

    def close(self) -> None:
        """Nothing of a maker in the shim itself has to go."""


class MakerApart:
    """The same in a process of its own, which ends with `close`."""

    def __init__(
        self, config: dict[str, Any], report: Callable[[], None], first: str, ahead: Ahead | None = None
    ) -> None:
        self._config = config
        if ahead is not None:
            self._sock, self._pid = ahead.sock, ahead.pid
            self._receiver = wire.Receiver(self._sock)
            wire.send_blocking(self._sock, {"config": config, "call": first})
            return
        self._sock, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            self._sock.close()
            _serve(config, theirs, report, first)
        theirs.close()
        self._receiver = wire.Receiver(self._sock)

    def _ask(self, message: dict[str, Any] | None, descriptors: tuple[int, ...] = ()) -> Any:
        answers = None
        try:
            if message is not None:
                wire.send_blocking(self._sock, message, descriptors)
            answers = self._receiver.receive()
            while answers == []:
                answers = self._receiver.receive()
        except OSError:
            pass  # it is gone
        if not answers:
            raise RuntimeFailure(_DIED)
        answer = answers[0][0]
        if "error" in answer:
            kind, text = answer["error"]
            if answer["runtime"]:
                raise RuntimeFailure(text, kind)
            raise getattr(errors, kind)(text)
        return answer["ok"]

    def prepare(self) -> str:
        """See `Maker.prepare`; the shim is in the container's mount namespace afterwards."""
        ptmx: str = self._ask(None)
        place = os.open(f"/proc/{self._pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.setns(place, namespaces.CLONE_NEWNS)
        finally:
            os.close(place)
        return ptmx

    def resume(self) -> None:
        """See `Maker.resume`."""
        self._ask(None)

    def create(self, stdio: tuple[int, int, int], netns: int | None) -> tuple[Any, int]:
        """See `Maker.create`."""
        runtime = _runtime(self._config, {})
        try:
            answer = self._ask({"call": "create"}, stdio if netns is None else (*stdio, netns))
        except RuntimeFailure as failure:
            if str(failure) == _DIED:  # then it has undone nothing
                runtime.adopt(0, {})
                runtime.remove()
            raise
        runtime.adopt(answer["pid"], answer["handover"])
        return runtime, answer["pid"]

    def start(self) -> None:
        """See `Maker.start`."""
        self._ask({"call": "start"})

    def close(self) -> None:
        """Let the process end. Idempotent."""
        self._sock.close()


def _serve(config: dict[str, Any], sock: _socket.socket, report: Callable[[], None], first: str) -> NoReturn:
    """Be the maker until the shim closes the line or dies."""
    code = 1
    try:
        process.set_parent_death_signal(_SIGKILL)
        maker = Maker(config, {"siblings": "yes"})
        wire.send_blocking(sock, _answer(maker, first, [], report))
        receiver = wire.Receiver(sock)
        while (messages := receiver.receive()) is not None:
            for message, descriptors in messages:
                wire.send_blocking(sock, _answer(maker, message["call"], descriptors, report))
                for descriptor in descriptors:
                    os.close(descriptor)
        code = 0
    except BaseException:
        report()
    os._exit(code)


def _answer(maker: Maker, call: str, descriptors: list[int], report: Callable[[], None]) -> dict[str, Any]:
    try:
        if call == "create":
            stdio = (descriptors[0], descriptors[1], descriptors[2])
            runtime, pid = maker.create(stdio, descriptors[3] if len(descriptors) > 3 else None)
            return {"ok": {"pid": pid, "handover": runtime.handover()}}
        return {"ok": getattr(maker, call)()}
    except RuntimeFailure as failure:
        return {"error": [failure.kind, str(failure)], "runtime": True}
    except DockpError as failure:
        return {"error": [type(failure).__name__, str(failure)], "runtime": False}
    except OSError as failure:
        return {"error": [SystemFault.__name__, str(failure)], "runtime": False}
    except Exception as failure:  # a bug; the shim must not wait for an answer for ever
        report()
        text = f"the shim failed: {type(failure).__name__}: {failure}"
        return {"error": [SystemFault.__name__, text], "runtime": False}
