"""``dockp-runtime``: this runtime as a command that speaks runc's language, for those who drive OCI runtimes.

A created container waits for ``start`` in the hands of a *keeper*: a process that holds the line to init, answers on a
socket in the container's state directory, and ends once the command runs; init's new parent is then whoever is the
sub-reaper of the caller, which is what conmon and containerd's shims expect of a runtime.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import select
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from dockp.linux import fds
from dockp.spi.runtime import RuntimeFailure
from dockp_exec_libcontainer import terminal
from dockp_exec_libcontainer.runtime import Runtime
from dockp_exec_libcontainer.templates import default_spec, features

DEFAULT_ROOT = "/run/dockp-runtime"
VERSION = "1.2.0"
_FORWARDED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGALRM", "SIGWINCH")


class State:
    """What is kept of one container, in ``<root>/<id>``: ``state.json`` and, before it is started, ``start.sock``."""

    def __init__(self, root: str, id: str) -> None:
        if not id or id in (".", "..") or any(not (c.isalnum() or c in "_+-.") for c in id):
            raise RuntimeFailure(f"invalid container id {id!r}: letters, digits and _ + - . only")
        self.id = id
        self.directory = Path(root) / id
        self.socket = self.directory / "start.sock"
        self.values: dict[str, Any] = {}

    def make(self) -> None:
        self.directory.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            self.directory.mkdir(mode=0o700)
        except FileExistsError:
            raise RuntimeFailure(f"container with given ID already exists: {self.id}") from None

    def load(self) -> State:
        try:
            self.values = json.loads((self.directory / "state.json").read_text())
        except FileNotFoundError:
            raise RuntimeFailure(f"container does not exist: {self.id}") from None
        return self

    def save(self, **values: Any) -> None:
        self.values.update(values)
        temporary = self.directory / "state.new"
        temporary.write_text(json.dumps(self.values))
        temporary.rename(self.directory / "state.json")

    def forget(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def alive(self) -> bool:
        pid = self.values.get("pid") or 0
        return bool(pid) and start_time(pid) == self.values["start_time"]

    def runtime(self, **options: str) -> Runtime:
        """The runtime, holding the container. With init gone only its cgroups are left to act on."""
        runtime = Runtime(self.id, self.values["bundle"], {"outlive": "yes", **options})
        runtime.adopt(self.values["pid"] if self.alive() else 0, {"enter": self.values["enter"]})
        return runtime

    def status(self) -> str:
        """``created``, ``running``, ``paused`` or ``stopped``: asked of the kernel, not remembered."""
        if not self.alive():
            return "stopped"
        if self.socket.exists():
            return "created"
        return "paused" if self.runtime().paused() else "running"

    def document(self) -> dict[str, Any]:
        status = self.status()
        return {
            "ociVersion": self.values["ociVersion"],
            "id": self.id,
            "pid": self.values["pid"] if status != "stopped" else 0,
            "status": status,
            "bundle": self.values["bundle"],
            "rootfs": self.values["rootfs"],
            "created": self.values["created"],
            "owner": "",
            "annotations": self.values["annotations"],
        }


def start_time(pid: int) -> int:
    """When a process started, in clock ticks after boot; 0 for one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


# -- create, start, run --


def create(arguments: argparse.Namespace) -> int:
    state = State(arguments.root, arguments.id)
    bundle = os.path.abspath(arguments.bundle)
    state.make()
    try:
        _create(state, bundle, arguments)
    except BaseException:
        state.forget()
        raise
    return 0


def _create(state: State, bundle: str, arguments: argparse.Namespace) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        try:
            _keep(state, bundle, arguments, theirs)
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        answer = json.loads(ours.recv(65536) or b'{"failure": "the keeper died", "kind": "failed"}')
    if "failure" in answer:
        raise RuntimeFailure(answer["failure"], answer["kind"])
    for warning in answer["warnings"]:
        log(arguments, "warning", warning)
    if arguments.pid_file:
        _write_pid(arguments.pid_file, answer["pid"])


def _keep(state: State, bundle: str, arguments: argparse.Namespace, line: socket.socket) -> None:
    """The keeper: makes the container, tells how that went, and waits for the word to start it."""
    try:
        runtime = _new_runtime(state.id, bundle, arguments)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = _with_stdio(arguments, bundle, lambda stdio: runtime.create(stdio, None))
        _record(state, bundle, pid, runtime)
        # Bound by way of a descriptor: the path may be longer than an address can be.
        directory = os.open(state.directory, os.O_PATH)
        listener.bind(f"/proc/self/fd/{directory}/start.sock")
        os.close(directory)
        listener.listen(1)
    except (RuntimeFailure, OSError) as failure:
        kind = failure.kind if isinstance(failure, RuntimeFailure) else "failed"
        line.send(json.dumps({"failure": str(failure), "kind": kind}).encode())
        return
    line.send(json.dumps({"pid": pid, "warnings": runtime.warnings()}).encode())
    line.close()
    _let_go_of_stdio()
    poll = select.poll()
    pidfd = os.pidfd_open(pid)
    poll.register(listener, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    if all(fd == pidfd for fd, _ in poll.poll()):
        return
    caller, _ = listener.accept()
    state.socket.unlink(missing_ok=True)
    try:
        runtime.start()
        answer: dict[str, Any] = {}
    except RuntimeFailure as failure:
        answer = {"failure": str(failure), "kind": failure.kind}
    caller.send(json.dumps(answer).encode())


def _new_runtime(id: str, bundle: str, arguments: argparse.Namespace, **more: str) -> Runtime:
    options = {"outlive": "yes", "preserve-fds": str(arguments.preserve_fds), **more}
    if arguments.no_new_keyring:
        options["keyring"] = "no"
    return Runtime(id, bundle, options)


def _record(state: State, bundle: str, pid: int, runtime: Runtime) -> None:
    spec = _read_spec(bundle)
    state.save(
        pid=pid,
        start_time=start_time(pid),
        bundle=bundle,
        enter=runtime.handover()["enter"],
        created=datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z"),
        ociVersion=spec["ociVersion"],
        rootfs=os.path.join(bundle, spec["root"]["path"]),
        annotations=spec.get("annotations") or {},
        process=spec["process"],
    )


def _read_spec(bundle: str) -> dict[str, Any]:
    from dockp_exec_libcontainer.spec import read

    return read(bundle)


def _with_stdio(arguments: argparse.Namespace, bundle: str, make: Any) -> int:
    """Call ``make`` with the descriptors of a new process: our own, or a terminal whose master goes to the socket."""
    spec = _read_spec(bundle)
    if not (spec.get("process") or {}).get("terminal"):
        return int(make((0, 1, 2)))
    if not arguments.console_socket:
        raise RuntimeFailure("cannot allocate tty if runc will detach without setting console socket")
    return _with_console(arguments.console_socket, make)


def _with_console(path: str, make: Any) -> int:
    master, replica = os.openpty()
    try:
        pid = int(make((replica, replica, replica)))
        with socket.socket(socket.AF_UNIX) as console:
            console.connect(path)
            fds.send_fds(console, b"/dev/ptmx", [master])
        return pid
    finally:
        os.close(master)
        os.close(replica)


def _let_go_of_stdio() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


def _write_pid(path: str, pid: int) -> None:
    temporary = f"{path}.{os.getpid()}"
    Path(temporary).write_text(str(pid))
    os.rename(temporary, path)


def start(arguments: argparse.Namespace) -> int:
    state = State(arguments.root, arguments.id).load()
    status = state.status()
    if status != "created":
        raise RuntimeFailure(f"cannot start a container in the {status} state")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        directory = os.open(state.directory, os.O_PATH)
        try:
            line.connect(f"/proc/self/fd/{directory}/start.sock")
        finally:
            os.close(directory)
        answer = json.loads(line.recv(65536) or b'{"failure": "the keeper died", "kind": "failed"}')
    if "failure" in answer:
        raise RuntimeFailure(answer["failure"], answer["kind"])
    return 0


def run(arguments: argparse.Namespace) -> int:
    """create and start; in the foreground also wait and delete."""
    if arguments.detach:
        create(arguments)
        return start(arguments)
    state = State(arguments.root, arguments.id)
    bundle = os.path.abspath(arguments.bundle)
    state.make()
    runtime = _new_runtime(state.id, bundle, arguments, outlive="no")
    try:
        wants_terminal = bool((_read_spec(bundle).get("process") or {}).get("terminal"))

        def begin(stdio: tuple[int, int, int]) -> int:
            pid = runtime.create(stdio, None)
            _record(state, bundle, pid, runtime)
            for warning in runtime.warnings():
                log(arguments, "warning", warning)
            if arguments.pid_file:
                _write_pid(arguments.pid_file, pid)
            runtime.start()
            return pid

        return _in_foreground(begin, runtime.signal, wants_terminal, arguments.console_socket)
    finally:
        if not arguments.keep:
            runtime.remove()
            state.forget()


def _in_foreground(begin: Any, forward: Any, wants_terminal: bool, console_socket: str) -> int:
    if wants_terminal and not console_socket:
        return terminal.run(begin)
    for name in _FORWARDED:
        signal.signal(getattr(signal, name), lambda number, _: forward(number))
    pid = _with_console(console_socket, begin) if wants_terminal else begin((0, 1, 2))
    return terminal.exit_status(os.waitpid(pid, 0)[1])


# -- the others --


def exec_process(arguments: argparse.Namespace) -> int:
    state = State(arguments.root, arguments.id).load()
    status = state.status()
    if status == "stopped":
        raise RuntimeFailure("cannot exec in a stopped container")
    process = _exec_process_object(state, arguments)
    options = {"preserve-fds": str(arguments.preserve_fds)}
    if not arguments.detach:
        options["outlive"] = "no"
    runtime = state.runtime(**options)

    def begin(stdio: tuple[int, int, int]) -> int:
        pid = runtime.exec(process, stdio)
        if arguments.pid_file:
            _write_pid(arguments.pid_file, pid)
        return pid

    if not arguments.detach:
        return _in_foreground(begin, lambda number: None, bool(process.get("terminal")), arguments.console_socket)
    if process.get("terminal"):
        if not arguments.console_socket:
            raise RuntimeFailure("cannot allocate tty if runc will detach without setting console socket")
        _with_console(arguments.console_socket, begin)
    else:
        begin((0, 1, 2))
    return 0


def _exec_process_object(state: State, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.process:
        loaded: dict[str, Any] = json.loads(Path(arguments.process).read_text())
        return loaded
    if not arguments.args:
        raise RuntimeFailure("exec needs a command, or --process with a file")
    process: dict[str, Any] = dict(state.values["process"])
    process["args"] = arguments.args
    process["terminal"] = arguments.tty
    if arguments.cwd:
        process["cwd"] = arguments.cwd
    process["env"] = [*(process.get("env") or []), *arguments.env]
    user = dict(process.get("user") or {"uid": 0, "gid": 0})
    if arguments.user:
        uid, _, gid = arguments.user.partition(":")
        user["uid"] = int(uid)
        if gid:
            user["gid"] = int(gid)
    if arguments.additional_gids:
        user["additionalGids"] = [*(user.get("additionalGids") or []), *arguments.additional_gids]
    process["user"] = user
    if arguments.cap:
        sets = dict(process.get("capabilities") or {})
        for name in ("bounding", "effective", "permitted"):
            sets[name] = [*(sets.get(name) or []), *arguments.cap]
        process["capabilities"] = sets
    if arguments.no_new_privs:
        process["noNewPrivileges"] = True
    if arguments.apparmor:
        process["apparmorProfile"] = arguments.apparmor
    if arguments.process_label:
        process["selinuxLabel"] = arguments.process_label
    return process


def show_state(arguments: argparse.Namespace) -> int:
    say(json.dumps(State(arguments.root, arguments.id).load().document(), indent=2))
    return 0


def kill(arguments: argparse.Namespace) -> int:
    state = State(arguments.root, arguments.id).load()
    number = _signal_number(arguments.signal)
    if not state.alive() and not arguments.all:
        raise RuntimeFailure("container not running")
    state.runtime().signal(number, arguments.all)
    return 0


def _signal_number(text: str) -> int:
    if text.isdigit():
        return int(text)
    name = text.upper().removeprefix("SIG")
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise RuntimeFailure(f"unknown signal {text!r}") from None


def delete(arguments: argparse.Namespace) -> int:
    state = State(arguments.root, arguments.id)
    try:
        state.load()
    except RuntimeFailure:
        if arguments.force:
            state.forget()
            return 0
        raise
    status = state.status()
    if status not in ("stopped", "created") and not arguments.force:
        raise RuntimeFailure(f"cannot delete container {state.id} that is not stopped: {status}")
    runtime = state.runtime()
    if status != "stopped":
        runtime.signal(signal.SIGKILL, all=True)
    runtime.remove()
    state.forget()
    for warning in runtime.warnings():
        log(arguments, "warning", warning)
    return 0


def pause(arguments: argparse.Namespace) -> int:
    State(arguments.root, arguments.id).load().runtime().pause()
    return 0


def resume(arguments: argparse.Namespace) -> int:
    State(arguments.root, arguments.id).load().runtime().resume()
    return 0


def update(arguments: argparse.Namespace) -> int:
    if arguments.resources:
        text = sys.stdin.read() if arguments.resources == "-" else Path(arguments.resources).read_text()
        resources = json.loads(text)
    else:
        memory = {"limit": arguments.memory, "swap": arguments.memory_swap, "reservation": arguments.memory_reservation}
        cpu = {
            "shares": arguments.cpu_share,
            "quota": arguments.cpu_quota,
            "period": arguments.cpu_period,
            "cpus": arguments.cpuset_cpus,
            "mems": arguments.cpuset_mems,
        }
        resources = {
            "memory": {key: value for key, value in memory.items() if value is not None},
            "cpu": {key: value for key, value in cpu.items() if value is not None},
            "pids": {"limit": arguments.pids_limit} if arguments.pids_limit is not None else {},
            "blockIO": {"weight": arguments.blkio_weight} if arguments.blkio_weight is not None else {},
        }
    notes = State(arguments.root, arguments.id).load().runtime().update(resources)
    if notes:
        raise RuntimeFailure("; ".join(notes))
    return 0


def processes(arguments: argparse.Namespace) -> int:
    pids = State(arguments.root, arguments.id).load().runtime().processes()
    if arguments.format == "json":
        say(json.dumps(pids))
        return 0
    import subprocess

    if pids:
        return subprocess.run(["ps", "-f", "-p", ",".join(map(str, pids))], check=False).returncode
    return 0


def list_containers(arguments: argparse.Namespace) -> int:
    try:
        names = sorted(entry.name for entry in Path(arguments.root).iterdir())
    except FileNotFoundError:
        names = []
    found = []
    for name in names:
        try:
            found.append(State(arguments.root, name).load().document())
        except RuntimeFailure:
            continue  # deleted meanwhile, or being made
    if arguments.quiet:
        for entry in found:
            say(entry["id"])
    elif arguments.format == "json":
        say(json.dumps(found))
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED")]
        rows += [(one["id"], str(one["pid"]), one["status"], one["bundle"], one["created"]) for one in found]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            say("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def write_spec(arguments: argparse.Namespace) -> int:
    path = Path(arguments.bundle) / "config.json"
    if path.exists():
        raise RuntimeFailure(f"file {path} exists. Remove it first")
    path.write_text(json.dumps(default_spec(), indent=4) + "\n")
    return 0


def show_features(arguments: argparse.Namespace) -> int:
    say(json.dumps(features(), indent=4))
    return 0


# -- the command line --


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def log(arguments: argparse.Namespace, level: str, message: str) -> None:
    """One line into the log file, in the format asked for; warnings without a log file go to stderr."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if arguments.log_format == "json":
        line = json.dumps({"level": level, "msg": message, "time": now})
    else:
        line = f'time="{now}" level={level} msg={json.dumps(message)}'
    if arguments.log:
        with open(arguments.log, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    elif level == "warning":
        sys.stderr.write(line + "\n")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="dockp-runtime", description="Run containers from OCI bundles.")
    top.add_argument("--root", default=DEFAULT_ROOT, help="where the state of containers is kept")
    top.add_argument("--log", default="", help="file for errors and warnings")
    top.add_argument("--log-format", choices=("text", "json"), default="text")
    top.add_argument("--debug", action="store_true", help="show where an internal error comes from")
    top.add_argument("--version", "-v", action="version", version=f"dockp-runtime 0.1.0\nspec: {VERSION}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="command")

    def verb(name: str, action: Any, help: str, id: bool = True) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=help)
        made.set_defaults(action=action)
        if id:
            made.add_argument("id")
        return made

    for name, action, help in (
        ("create", create, "make a container that waits for start"),
        ("run", run, "create and start a container"),
    ):
        made = verb(name, action, help)
        made.add_argument("--bundle", "-b", default=".")
        made.add_argument("--console-socket", default="")
        made.add_argument("--pid-file", default="")
        made.add_argument("--no-new-keyring", action="store_true")
        made.add_argument("--preserve-fds", type=int, default=0)
        if name == "run":
            made.add_argument("--detach", "-d", action="store_true")
            made.add_argument("--keep", action="store_true")
    verb("start", start, "run the command of a created container")
    verb("state", show_state, "print the state of a container")
    made = verb("kill", kill, "send a signal (SIGTERM) to a container")
    made.add_argument("signal", nargs="?", default="SIGTERM")
    made.add_argument("--all", "-a", action="store_true")
    made = verb("delete", delete, "remove what is left of a container")
    made.add_argument("--force", "-f", action="store_true")
    made = verb("exec", exec_process, "run one more process in a container")
    made.add_argument("args", nargs=argparse.REMAINDER)
    made.add_argument("--process", "-p", default="")
    made.add_argument("--detach", "-d", action="store_true")
    made.add_argument("--tty", "-t", action="store_true")
    made.add_argument("--console-socket", default="")
    made.add_argument("--pid-file", default="")
    made.add_argument("--cwd", default="")
    made.add_argument("--env", "-e", action="append", default=[])
    made.add_argument("--user", "-u", default="")
    made.add_argument("--additional-gids", "-g", type=int, action="append", default=[])
    made.add_argument("--cap", "-c", action="append", default=[])
    made.add_argument("--no-new-privs", action="store_true")
    made.add_argument("--apparmor", default="")
    made.add_argument("--process-label", default="")
    made.add_argument("--preserve-fds", type=int, default=0)
    verb("pause", pause, "stop every process of a container")
    verb("resume", resume, "let them go on")
    made = verb("update", update, "change limits")
    made.add_argument("--resources", "-r", default="")
    for flag in ("memory", "memory-swap", "memory-reservation", "cpu-share", "cpu-quota", "cpu-period"):
        made.add_argument(f"--{flag}", type=int)
    made.add_argument("--pids-limit", type=int)
    made.add_argument("--blkio-weight", type=int)
    made.add_argument("--cpuset-cpus")
    made.add_argument("--cpuset-mems")
    made = verb("ps", processes, "show the processes of a container")
    made.add_argument("--format", "-f", choices=("table", "json"), default="table")
    made = verb("list", list_containers, "list containers", id=False)
    made.add_argument("--format", "-f", choices=("table", "json"), default="table")
    made.add_argument("--quiet", "-q", action="store_true")
    made = verb("spec", write_spec, "write a config.json to begin with", id=False)
    made.add_argument("--bundle", "-b", default=".")
    verb("features", show_features, "print what this runtime can do", id=False)
    return top


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.action(arguments))
    except (RuntimeFailure, OSError, ValueError) as failure:
        if arguments.debug:
            raise
        log(arguments, "error", str(failure))
        sys.stderr.write(f"dockp-runtime: {failure}\n")
        return 1
