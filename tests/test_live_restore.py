"""Whatever happens to the daemon, containers do not notice, and nothing that they said or did is lost.

``DOCKP_TEST_LIVE`` says how many containers run meanwhile (20, unless it is set).
"""

from __future__ import annotations

import calendar
import contextlib
import io
import json
import os
import random
import signal
import socket
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from apiclient import Client, shell
from harness import Daemon, Dockp, everything, processes_naming, remains, wait_for

pytestmark = pytest.mark.embedded  # each test has a daemon of its own

_CONTAINERS = int(os.environ.get("DOCKP_TEST_LIVE", "20"))
_DOWN = 1.5
"""Seconds without a daemon."""
_COUNT = "i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done"


@pytest.fixture
def daemon(dockp: Dockp) -> Iterator[Daemon]:
    assert remains(dockp) == []
    daemon = Daemon(dockp)
    daemon.log_path.unlink(missing_ok=True)
    daemon.start()
    yield daemon
    if daemon.process is None:
        daemon.start()
    dockp.clear()
    daemon.stop()
    assert "Traceback" not in daemon.log
    assert remains(dockp) == []


def ok(daemon: Daemon, method: str, target: str, body: Any = None, **query: Any) -> Any:
    with Client(daemon.socket) as client:
        return client.ok(method, target, body, **query)


def started(daemon: Daemon, name: str, wish: dict[str, Any]) -> str:
    """The id of a new container that runs."""
    container_id = str(ok(daemon, "POST", "/containers/create", wish, name=name)["Id"])
    ok(daemon, "POST", f"/containers/{container_id}/start")
    return container_id


def inspect(daemon: Daemon, name: str) -> dict[str, Any]:
    return dict(ok(daemon, "GET", f"/containers/{name}/json"))


def port_of(daemon: Daemon, name: str) -> int:
    return int(inspect(daemon, name)["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])


def served(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        return client.recv(16)


class Counts:
    """A stream of numbered lines, of which none may be missing and none come twice."""

    def __init__(self, daemon: Daemon, target: str, body: Any = None, **query: Any) -> None:
        self.client = Client(daemon.socket)
        self.client.hijack(target, body, **query)
        self.lines = 0
        self.first = 0
        self._rest = b""

    def read(self, until: int) -> None:
        """Until ``until`` lines have come in all."""
        while self.lines < until:
            data = self._rest + self.client.frame()
            *lines, self._rest = data.split(b"\n")
            for line in lines:
                self.first = self.first or int(line)
                assert int(line) == self.first + self.lines, f"line {line!r} after {self.first + self.lines - 1}"
                self.lines += 1

    def close(self) -> None:
        self.client.close()


def kill(daemon: Daemon) -> None:
    daemon.kill()


def stop(daemon: Daemon) -> None:
    assert daemon.stop() == 0


def upgrade(daemon: Daemon) -> None:
    """Another version of dockp takes over: what it executes for shims is not what the old ones were made from."""
    stop(daemon)
    daemon.dockp.settings["PYTHONPATH"] = str(another_version(daemon.dockp.base))


def another_version(base: Path) -> Path:
    """A copy of dockp, changed so that it is another one to zygotes and shims."""
    import shutil

    import dockp

    source = Path(dockp.__file__).parent
    place = base / "upgraded"
    shutil.copytree(source, place / "dockp", ignore=shutil.ignore_patterns("__pycache__"))
    for file in (place / "dockp" / "__init__.py", place / "dockp" / "shim" / "main.py"):
        file.write_text(file.read_text() + "\n# another version\n")
    return place


@pytest.mark.parametrize("end", [kill, stop, upgrade])
def test_no_container_notices(daemon: Daemon, end: Callable[[Daemon], None]) -> None:
    began = time.time()
    counting = [f"counts-{number}" for number in range(_CONTAINERS - 8)]
    ending = {"ends-0": 0, "ends-42": 42, "ends-137": 137}
    with ThreadPoolExecutor(4) as pool:
        ids = dict(zip(counting, pool.map(lambda name: started(daemon, name, shell(_COUNT)), counting), strict=True))
    ports = {"80/tcp": [{"HostPort": "", "HostIp": "127.0.0.1"}]}
    web = shell("while echo hello | nc -l -p 80; do :; done", NetworkMode="bridge", PortBindings=ports)
    ids["web"] = started(daemon, "web", web)
    ids["echoes"] = started(daemon, "echoes", shell("cat") | {"OpenStdin": True, "AttachStdin": True})
    health = {"Test": ["CMD-SHELL", "date +%s%N"], "Interval": 100_000_000, "Timeout": 10**10, "Retries": 3}
    ids["healthy"] = started(daemon, "healthy", shell("sleep 1000") | {"Healthcheck": health})
    again = shell("usleep 200000; exit 1", RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 0})
    started(daemon, "again", again)
    pids = {name: inspect(daemon, name)["State"] for name in (*counting, "web", "echoes", "healthy")}

    attached = [Counts(daemon, f"/containers/{name}/attach", stream=1, stdout=1) for name in counting[:3]]
    wish = {"Cmd": ["sh", "-c", _COUNT.replace("while :", "while [ $i -lt 150 ]") + "; exit 9"], "AttachStdout": True}
    exec_id = ok(daemon, "POST", f"/containers/{counting[0]}/exec", wish)["Id"]
    executed = Counts(daemon, f"/exec/{exec_id}/start", {})
    for counts in (*attached, executed):
        counts.read(10)
    port = port_of(daemon, "web")
    for name, code in ending.items():
        script = f"sleep 1.2; exit {code}" if code < 100 else "sleep 1000"
        ids[name] = started(daemon, name, shell(script))
    ids["vanishes"] = started(daemon, "vanishes", shell("sleep 1.2; exit 5", AutoRemove=True))

    killed = inspect(daemon, "ends-137")["State"]["Pid"]

    end(daemon)
    os.kill(killed, signal.SIGKILL)
    time.sleep(0.3)
    assert [name for name in processes_naming(str(daemon.dockp.base)).values() if "reaper" in name] == []
    assert served(port) == b"hello\n"
    for counts in attached:
        counts.read(counts.lines + 20)
    time.sleep(_DOWN)

    daemon.start()
    rows = {row["Names"][0][1:]: row["State"] for row in ok(daemon, "GET", "/containers/json", all=1)}
    again_state = rows.pop("again")
    assert again_state in ("running", "restarting")
    assert rows == dict.fromkeys(pids, "running") | dict.fromkeys(ending, "exited")
    for name, code in ending.items():
        assert ok(daemon, "POST", f"/containers/{name}/wait")["StatusCode"] == code
    now = {name: inspect(daemon, name)["State"] for name in pids}
    for name, state in now.items():
        for key in ("Pid", "StartedAt", "Status"):
            assert state[key] == pids[name][key], name
    assert inspect(daemon, "again")["RestartCount"] >= 2
    assert now["healthy"]["Health"]["Status"] == "healthy"
    assert len(now["healthy"]["Health"]["Log"]) == 5
    assert served(port) == b"hello\n"

    # Those who were attached still are; others can come.
    for counts in attached:
        counts.read(counts.lines + 20)
        counts.close()
    executed.read(150)
    assert executed.client.rest() == b""
    assert ok(daemon, "GET", f"/exec/{exec_id}/json")["ExitCode"] == 9
    echo = Counts(daemon, "/containers/echoes/attach", stream=1, stdout=1, stdin=1)
    echo.client.socket.sendall(b"1\n2\n")
    echo.read(2)
    echo.close()
    anew = Counts(daemon, f"/containers/{counting[0]}/attach", stream=1, stdout=1)
    anew.read(20)
    anew.close()
    assert started(daemon, "new", shell("true"))

    with Client(daemon.socket) as waiting:
        waiting.send("POST", f"/containers/{counting[0]}/wait", condition="next-exit")
        assert waiting.head()[0] == 200
        for name in counting:
            ok(daemon, "POST", f"/containers/{name}/kill")
        assert json.loads(b"".join(waiting.chunks()))["StatusCode"] == 137
    for name in counting:
        with Client(daemon.socket) as client:
            client.send("GET", f"/containers/{name}/logs", stdout=1)
            assert client.head()[0] == 200
            framed = b"".join(client.chunks())
        lines = [int(line) for line in unframed(framed).split()]
        assert lines == list(range(1, len(lines) + 1))
        assert len(lines) > 50
    once(daemon, began, ids, ended=[*counting, *ending, "vanishes"], gone=["vanishes"])


def unframed(data: bytes) -> bytes:
    pieces = []
    while data:
        end = 8 + int.from_bytes(data[4:8], "big")
        pieces.append(data[8:end])
        data = data[end:]
    return b"".join(pieces)


def once(daemon: Daemon, began: float, ids: dict[str, str], *, ended: list[str], gone: list[str]) -> None:
    """Everything that happened to these containers is told exactly once."""
    wait_for(lambda: [row for row in happened(daemon, began) if row["Action"] == "destroy"], "the removal is told")
    told = Counter((row["id"], row["Action"]) for row in happened(daemon, began) if row["Type"] == "container")
    for name, container_id in ids.items():
        for action, times in (("create", 1), ("start", 1), ("die", name in ended), ("destroy", name in gone)):
            assert told[container_id, action] == times, (name, action)


def happened(daemon: Daemon, began: float) -> list[dict[str, Any]]:
    with Client(daemon.socket) as client:
        client.send("GET", "/events", since=int(began), until=f"{time.time():.9f}")
        assert client.head()[0] == 200
        return [json.loads(line) for line in b"".join(client.chunks()).splitlines()]


def test_many_that_end_without_a_daemon(daemon: Daemon) -> None:
    """Their exit codes are right, those of ``--rm`` are gone, and the daemon answers at once when it is back."""
    began = time.time()
    with ThreadPoolExecutor(4) as pool:
        ids = list(
            pool.map(
                lambda number: started(
                    daemon, f"n{number}", shell(f"sleep 1; exit {number}", AutoRemove=number % 2 == 1)
                ),
                range(_CONTAINERS),
            )
        )
    daemon.kill()
    wait_for(lambda: not shims(daemon.dockp), "all have ended", 60)
    daemon.start()
    asked = time.monotonic()
    rows = {row["Id"]: row["Status"] for row in ok(daemon, "GET", "/containers/json", all=1)}
    assert time.monotonic() - asked < 2
    assert {key: status.partition(")")[0] for key, status in rows.items()} == {
        key: f"Exited ({number}" for number, key in enumerate(ids) if number % 2 == 0
    }
    names = {str(number): key for number, key in enumerate(ids)}
    once(daemon, began, names, ended=list(names), gone=[name for name in names if int(name) % 2])


def shims(dockp: Dockp) -> list[int]:
    """Shims that have a container, and reapers."""
    found = []
    for path in (dockp.exec_root / "containers").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(json.loads((path / "state.json").read_text())["shim_pid"])
            os.kill(pid, 0)
            found.append(pid)
    return found + [pid for pid, name in processes_naming(str(dockp.base)).items() if "reaper" in name]


def zygotes_of(daemon: Daemon) -> list[int]:
    """Without what they have forked."""
    pids = processes_naming(str(daemon.dockp.base))
    return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "dockp-zygote\n"]


def test_the_zygote_is_killed_too(daemon: Daemon) -> None:
    """By whoever cleans up after the daemon, or for want of memory; and later alone."""
    started(daemon, "before", shell("sleep 1000"))
    zygotes = zygotes_of(daemon)
    assert zygotes
    daemon.kill()
    for pid in zygotes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    daemon.start()
    started(daemon, "between", shell("sleep 1000"))
    for pid in zygotes_of(daemon):
        os.kill(pid, signal.SIGKILL)
    started(daemon, "after", shell("sleep 1000"))
    rows = ok(daemon, "GET", "/containers/json")
    assert {row["Names"][0] for row in rows} == {"/before", "/between", "/after"}


_ROUNDS = int(os.environ.get("DOCKP_TEST_KILLS", "10"))
"""How often the daemon is killed at a random moment."""


def test_killed_at_random_moments(daemon: Daemon) -> None:
    """While clients do everything at once: a container is whole or not there, all can be removed, nothing is left."""
    chosen = random.Random(_ROUNDS)
    for round_ in range(_ROUNDS):
        ended = threading.Event()
        with ThreadPoolExecutor(8) as pool:
            users = [pool.submit(use, daemon, random.Random(100 * round_ + n), ended) for n in range(8)]
            time.sleep(chosen.uniform(0.05, 0.8))
            daemon.kill()
            ended.set()
        done = sum(user.result() for user in users)
        daemon.start()
        rows = ok(daemon, "GET", "/containers/json", all=1)
        assert {row["State"] for row in rows} <= {"created", "running", "exited", "removing"}, (round_, rows)
        for row in rows:
            with Client(daemon.socket) as client:
                if row["State"] != "removing":
                    for method, target in (("GET", "json"), ("POST", "start"), ("GET", "logs?stdout=1")):
                        reply = client.ask(method, f"/containers/{row['Id']}/{target}")
                        assert reply.status < 400 or reply.status == 404, (round_, done, row, reply.body)
                reply = client.ask("DELETE", f"/containers/{row['Id']}", force=1, v=1)
                assert reply.status in (204, 404, 409), (round_, done, row, reply.body)
        for image in ok(daemon, "GET", "/images/json"):
            for name in image["RepoTags"]:
                if name.startswith("made"):
                    ok(daemon, "DELETE", f"/images/{name}")
        ok(daemon, "POST", "/images/prune")
        wait_for(lambda: left_with(daemon) == [], f"round {round_} leaves nothing: {left_with(daemon)}")


def left_with(daemon: Daemon) -> list[str]:
    return [line for line in everything(daemon.dockp) if "zygote" not in line and "bin/dockpd" not in line]


def use(daemon: Daemon, chosen: random.Random, ended: threading.Event) -> int:
    """Be a client until the daemon is gone; how much was done."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("copied"))
    done = 0
    with contextlib.suppress(OSError, EOFError), Client(daemon.socket, 5) as client:
        while not ended.is_set():
            name = f"victim{chosen.randrange(6)}"
            volumes = {"/anonymous": {}} if chosen.random() < 0.3 else {}
            network = chosen.choice(["none", "none", "bridge"])
            wish = shell("sleep 1000", NetworkMode=network, AutoRemove=chosen.random() < 0.3) | {"Volumes": volumes}
            steps: dict[str, tuple[str, str, Any]] = {
                "create": ("POST", f"/containers/create?name={name}", wish),
                "start": ("POST", f"/containers/{name}/start", None),
                "stop": ("POST", f"/containers/{name}/stop?t=0", None),
                "remove": ("DELETE", f"/containers/{name}?force=1&v=1", None),
                "exec": ("POST", f"/containers/{name}/exec", {"Cmd": ["sleep", "1000"]}),
                "copy": ("PUT", f"/containers/{name}/archive?path=/tmp", tar.getvalue()),
                "commit": ("POST", f"/commit?container={name}&repo=made{chosen.randrange(3)}", None),
                "rename": ("POST", f"/containers/{name}/rename?name=victim{chosen.randrange(6)}", None),
            }
            reply = client.ask(*steps[chosen.choice(list(steps))])
            if reply.status == 201 and "exec" not in name:
                identity = reply.document["Id"]
                client.ask("POST", f"/exec/{identity}/start", {"Detach": True})
                client.ask("POST", f"/containers/{identity}/start")
            assert reply.status < 500, reply.body
            done += 1
    return done


def test_followers_that_come_back(daemon: Daemon) -> None:
    """With ``since`` the time of the last that they saw: they miss nothing, and know what they see twice."""
    script = _COUNT.replace("while :", "while [ $i -lt 300 ]")
    began = f"{time.time():.9f}"
    box = started(daemon, "told", shell(script))
    target = f"/containers/{box}/logs?follow=1&stdout=1&timestamps=1"
    with ThreadPoolExecutor(2) as pool:
        over = threading.Event()
        lines = pool.submit(follow, daemon, target, over, log_entry, began)
        events = pool.submit(follow, daemon, "/events?", over, event_entry, began)
        brief = {}
        try:
            for number in range(3):
                for name in (f"before{number}", f"meanwhile{number}"):
                    wish = shell("true" if name.startswith("before") else "sleep 0.4", AutoRemove=True)
                    brief[name] = started(daemon, name, wish)
                time.sleep(0.3)
                daemon.kill()
                time.sleep(0.7)
                daemon.start()
            assert ok(daemon, "POST", f"/containers/{box}/wait")["StatusCode"] == 0
            ok(daemon, "POST", "/containers/create", shell("true"), name="last")
            time.sleep(1)
        finally:
            over.set()
            daemon.stop()
        assert [int(line) for line in lines.result()] == list(range(1, 301))
        told = Counter(
            row["id"] + row["Action"] for row in map(json.loads, events.result()) if row["Type"] == "container"
        )
    for name, identity in brief.items():
        for action in ("create", "start", "die", "destroy"):
            assert told[identity + action] == 1, (name, action)
    assert set(told.values()) == {1}


def log_entry(data: bytes) -> tuple[list[tuple[str, bytes]], bytes]:
    """Whole frames of a log: each the time, as ``since`` takes it, and the line; and what is left."""
    found = []
    while len(data) >= 8 and len(data) >= (end := 8 + int.from_bytes(data[4:8], "big")):
        moment, _, line = data[8:end].partition(b" ")
        seconds = calendar.timegm(time.strptime(moment[:19].decode(), "%Y-%m-%dT%H:%M:%S"))
        found.append((f"{seconds}.{moment[20:-1].decode():0<9}", line))
        data = data[end:]
    return found, data


def event_entry(data: bytes) -> tuple[list[tuple[str, bytes]], bytes]:
    *lines, rest = data.split(b"\n")
    moments = [json.loads(line)["timeNano"] for line in lines]
    return [(f"{at // 10**9}.{at % 10**9:09}", line) for at, line in zip(moments, lines, strict=True)], rest


def follow(
    daemon: Daemon,
    target: str,
    over: threading.Event,
    entries: Callable[[bytes], tuple[list[tuple[str, bytes]], bytes]],
    since: str,
) -> list[bytes]:
    """Everything that a stream tells, through all its interruptions, until ``over`` and its end."""
    seen: list[tuple[str, bytes]] = []
    while not over.is_set():
        with contextlib.suppress(OSError, EOFError), Client(daemon.socket, 10) as client:
            known = {entry for entry in seen if entry[0] == seen[-1][0]}
            client.send("GET", f"{target}&since={seen[-1][0] if seen else since}")
            assert client.head()[0] == 200
            rest = b""
            for piece in client.chunks():
                found, rest = entries(rest + piece)
                seen += [entry for entry in found if entry not in known]
            over.wait(0.1)
    return [said for _, said in seen]
