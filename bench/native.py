"""Containers without the engine: the runtime alone in this process, and a shim forked by a warm zygote.

Called in a `bench.worker`. It must stay single-threaded, since it forks containers.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import socket
import time
from pathlib import Path
from typing import Any

from dockp.linux import mounts
from dockp.supervisor import ShimClient, Supervisor
from dockp_exec_libcontainer import seccomp
from dockp_exec_libcontainer.runtime import Runtime

_LOG = "dockp.logs.json_file_writer"
_LIMIT = 30.0
_bound: set[str] = set()


def runtime_once(bundle: str, cache: str) -> dict[str, Any]:
    """Bundle → process → exited and cleaned up, by `Runtime` in this warm process."""
    _compile(bundle, cache)
    rootfs = f"{bundle}/rootfs"
    if rootfs not in _bound:  # the shim has mounted it by the time a runtime is called
        mounts.apply_mount("bind", rootfs, ["rbind"], rootfs)
        _bound.add(rootfs)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        began = time.perf_counter()
        runtime = Runtime("alone", bundle, {"cache": cache})
        pid = runtime.create((null, null, null), None)
        runtime.start()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        runtime.remove()
        seconds = time.perf_counter() - began
    finally:
        os.close(null)
    return {"seconds": seconds, "code": code, "output": "; ".join(runtime.warnings())}


class _Shims:
    """Shims of one run root, forked by a zygote."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        (self._root / "containers").mkdir(parents=True)
        self._supervisor = Supervisor(self._root, _search_paths)
        self._zygote: socket.socket = self._supervisor.start_zygote([Runtime.__module__, _LOG])
        self._count = 0
        self.held: list[ShimClient] = []

    def write(self, bundle: str, cache: str, args: list[str] | None) -> str:
        """What an engine writes before it launches a shim; the id."""
        self._count += 1
        id = f"shim{self._count}"
        directory = self._supervisor.directory(id)
        (directory / "rootfs").mkdir(parents=True)
        spec = json.loads(Path(bundle, "config.json").read_text())
        spec["linux"]["cgroupsPath"] += f"-{id}"
        if args is not None:
            spec["process"]["args"] = args
        (directory / "config.json").write_text(json.dumps(spec))
        config = {
            "id": id,
            "bundle": str(directory),
            "rootfs": {
                "mounts": [{"type": "bind", "source": f"{bundle}/rootfs", "options": ["rbind"]}],
                "read_only": False,
            },
            "runtime": {"class": f"{Runtime.__module__}:{Runtime.__name__}", "options": {"cache": cache}},
            "log": {"class": f"{_LOG}:Writer", "path": str(directory / "json.log"), "options": {}, "info": {"id": id}},
            "terminal": False,
            "console_size": None,
            "open_stdin": False,
            "stdin_once": False,
            "stop_signal": 15,
            "stop_timeout": 10,
            "user": {"user": "", "groups": []},
            "env_home": True,
            "volumes": [],
            "copy_up": [],
            "restart": {"name": "no", "max": 0},
            "health": None,
            "on_exit": None,
        }
        (directory / "shim.json").write_text(json.dumps(config))
        return id

    def launch(self, id: str) -> ShimClient:
        return self._supervisor.launch(id)


_shims: _Shims | None = None


def start_zygote(root: str) -> dict[str, Any]:
    global _shims
    _shims = _Shims(root)
    return {}


def shim_once(bundle: str, cache: str) -> dict[str, Any]:
    """The same through a shim: launched, container created, started, ended, cleaned up, shim gone."""
    assert _shims is not None
    _compile(bundle, cache)
    id = _shims.write(bundle, cache, None)
    began = time.perf_counter()
    with _shims.launch(id) as client:
        shim = os.pidfd_open(client.claim().shim_pid)
        try:
            client.create()
            client.start()
            state = client.wait(timeout=_LIMIT)
            client.release()
            gone = bool(select.select([shim], [], [], _LIMIT)[0])
        finally:
            os.close(shim)
    seconds = time.perf_counter() - began
    if not gone:
        raise TimeoutError(f"shim {id} did not end in {_LIMIT} s")
    return {"seconds": seconds, "code": state.exit_code, "output": state.error}


def hold_shims(bundle: str, cache: str, count: int) -> dict[str, Any]:
    """Keep so many sleeping containers until called with 0; the pids of their shims."""
    assert _shims is not None
    pids = []
    for _ in range(count):
        client = _shims.launch(_shims.write(bundle, cache, ["sleep", "600"]))
        _shims.held.append(client)
        client.create()
        client.start()
        pids.append(client.state().shim_pid)
    if not count:
        while _shims.held:
            with _shims.held.pop() as client:
                client.stop(signal.SIGKILL, 0)
    return {"pids": pids}


def _compile(bundle: str, cache: str) -> None:
    """Have the seccomp profile in the cache, where the engine puts it once a profile and reboot."""
    profile = json.loads(Path(bundle, "config.json").read_text())["linux"].get("seccomp")
    if profile:
        seccomp.prepare(profile, cache)


def _search_paths() -> list[str]:
    found = []
    for package in ("dockp", "dockp_exec_libcontainer"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        found += [str(Path(place).parent) for place in spec.submodule_search_locations or ()]
    return found
