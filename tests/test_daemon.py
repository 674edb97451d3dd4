"""The process dockpd: how it starts and ends, what it listens on, and that containers do not notice."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Daemon, Dockp, image_tar, processes_naming, wait_for

pytestmark = pytest.mark.embedded  # each test has a daemon of its own


@pytest.fixture
def daemon(dockp: Dockp) -> Iterator[Daemon]:
    daemon = Daemon(dockp)
    daemon.log_path.unlink(missing_ok=True)
    yield daemon
    daemon.stop()


def refused(dockp: Dockp, *flags: str) -> str:
    """What dockpd says when it does not start."""
    command = [str(Path(sys.executable).parent / "dockpd"), *flags]
    done = subprocess.run(command, env=dockp.environment, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def ask(path: Path, request: str = "/_ping") -> bytes:
    """The body of the answer to a GET on a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(f"GET {request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
    return answer.partition(b"\r\n\r\n")[2]


def test_it_starts_answers_and_ends(daemon: Daemon) -> None:
    with daemon:
        assert ask(daemon.socket) == b"OK"
        mode = daemon.socket.stat()
        assert (mode.st_mode & 0o777, mode.st_uid, mode.st_gid) == (0o660, 0, 0)
        pidfile = daemon.dockp.exec_root / "dockpd.pid"
        assert pidfile.read_text() == f"{daemon.pid}\n"
        assert Path(f"/proc/{daemon.pid}/comm").read_text() == "dockpd\n"
    assert not daemon.socket.exists()
    assert not pidfile.exists()
    assert 'msg="daemon stopped"' in daemon.log
    wait_for(lambda: not processes_naming(str(daemon.dockp.base)), "the zygote ends with the daemon")


def test_a_group_may_use_the_socket(dockp: Dockp) -> None:
    with Daemon(dockp, "-G", "tty") as daemon:
        assert daemon.socket.stat().st_gid == 5
    assert refused(dockp, "-H", daemon.url, "--group", "nobody-here") == (
        "failed to start daemon: group nobody-here not found"
    )


def test_the_second_daemon_on_a_root_is_refused_and_names_the_first(daemon: Daemon) -> None:
    with daemon:
        line = refused(daemon.dockp, "-H", f"unix://{daemon.dockp.base}/second.sock")
        assert line == (
            f"failed to start daemon: another dockpd (pid {daemon.pid}) has the data root {daemon.dockp.data_root}"
        )
        assert daemon.answers()


def said(port: int) -> bytes:
    """What a server on a loopback port says first; nothing while there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            return client.recv(16)
    except OSError:
        return b""


def test_two_daemons_on_roots_of_their_own_live_side_by_side(daemon: Daemon, fresh: Dockp) -> None:
    with daemon, Daemon(fresh) as second:
        assert ask(second.socket) == ask(daemon.socket) == b"OK"
        ours = json.loads(ask(second.socket, "/info"))
        assert ours["DockerRootDir"] == str(fresh.data_root)
        fresh.add_image("busybox", image_tar("busybox"))
        serve = "while echo $WHO | nc -l -p 80; do :; done"
        for number, one in enumerate((daemon, second)):
            words = ("-d", "-p", f"127.0.0.1:{8081 + number}:80", "-e", f"WHO={number}", "busybox", "sh", "-c", serve)
            done = one.docker("run", *words)
            assert done.returncode == 0, done.stderr
        for number in range(2):
            wait_for(lambda at=8081 + number, who=number: said(at) == b"%d\n" % who, f"an answer of container {number}")
        daemon.dockp.clear()


def test_the_socket_of_a_living_daemon_is_not_taken(daemon: Daemon, fresh: Dockp) -> None:
    with daemon:
        assert refused(fresh, "-H", daemon.url) == (
            f"failed to start daemon: cannot listen on {daemon.url}: another daemon listens there"
        )
        assert daemon.answers()


def test_something_else_where_the_socket_should_be_is_left_alone(dockp: Dockp) -> None:
    path = dockp.base / "precious"
    path.write_text("data")
    assert "there is something else of this name" in refused(dockp, "-H", f"unix://{path}")
    assert path.read_text() == "data"
    path.unlink()


def test_after_a_kill_its_socket_and_pidfile_are_replaced(daemon: Daemon) -> None:
    daemon.start()
    daemon.kill()
    assert daemon.socket.exists()
    with daemon:
        assert daemon.answers()


def test_containers_do_not_notice_a_kill_of_the_daemon(daemon: Daemon) -> None:
    daemon.start()
    loop = "i=0; while sleep 0.02; do i=$((i+1)); echo $i; done"
    started = daemon.docker("run", "-d", "--name", "runs", "busybox", "sh", "-c", loop)
    ends = daemon.docker("run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 0.5; exit 7")
    assert started.returncode == ends.returncode == 0, started.stderr + ends.stderr
    pid = daemon.dockp.inspect("runs")["State"]["Pid"]
    daemon.kill()
    time.sleep(1)
    daemon.start()
    assert daemon.dockp.inspect("runs")["State"]["Pid"] == pid
    wait_for(lambda: daemon.dockp.state("ends") == "exited", "the end that nobody saw is settled")
    assert daemon.docker("wait", "ends").stdout == "7\n"
    assert daemon.docker("kill", "runs").returncode == 0
    lines = daemon.docker("logs", "runs").stdout.split()
    assert lines == [str(number) for number in range(1, len(lines) + 1)]
    assert len(lines) > 20


def test_sighup_takes_new_values_from_the_file(dockp: Dockp, tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"labels": ["a=1"]}')
    with Daemon(dockp, "--config-file", str(file)) as daemon:
        daemon.log_path.write_text("")
        assert b'"Labels":["a=1"]' in ask(daemon.socket, "/info")
        file.write_text('{"labels": ["a=2", "b=3"], "debug": true, "mtu": 1400}')
        os.kill(daemon.pid, signal.SIGHUP)
        wait_for(lambda: "configuration reloaded" in daemon.log, "the file is read again")
        info = json.loads(ask(daemon.socket, "/info"))
        assert info["Labels"] == ["a=2", "b=3"]
        assert info["Debug"] is True
        assert 'level=debug msg="GET /info: 200"' in daemon.log
        assert "mtu changes when the daemon starts again" in daemon.log
        time.sleep(1.1)  # the command line asks in whole seconds
        told = daemon.docker("events", "--since=1m", "--until=0s", "--filter=event=reload", "--format={{json .}}")
        assert told.stdout, told.stderr
        assert json.loads(told.stdout)["Actor"]["Attributes"]["labels"] == '["a=2", "b=3"]'
        file.write_text('{"nonsense": 1}')
        os.kill(daemon.pid, signal.SIGHUP)
        wait_for(lambda: "match any configuration option: nonsense" in daemon.log, "what is wrong is said")
        assert json.loads(ask(daemon.socket, "/info"))["Labels"] == ["a=2", "b=3"]


def test_sigusr1_writes_down_what_every_thread_does(daemon: Daemon) -> None:
    with daemon:
        os.kill(daemon.pid, signal.SIGUSR1)
        stacks = daemon.dockp.exec_root / "stacks.log"
        wait_for(lambda: "Current thread" in stacks.read_text() and "Stack for <Task" in stacks.read_text(), "stacks")


def test_the_log_can_be_json(dockp: Dockp) -> None:
    with Daemon(dockp, "--log-format=json", "-D") as daemon:
        daemon.log_path.write_text("")
        ask(daemon.socket)
    entries = [json.loads(line) for line in daemon.log.splitlines()]
    assert {"level", "msg", "time"} <= set(entries[0])
    assert {"debug", "info"} <= {entry["level"] for entry in entries}


def test_metrics(dockp: Dockp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Daemon(dockp, "--metrics-addr", f"127.0.0.1:{port}") as daemon:
        assert daemon.docker("create", "busybox").returncode == 0
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            lines = answer.read().decode().splitlines()
    assert 'engine_daemon_container_states_containers{state="stopped"} 1' in lines
    assert 'engine_daemon_container_actions_seconds_count{action="create"} 1' in lines
    assert 'dockp_api_requests_total{method="POST",status="201"} 1' in lines
    assert any(line.startswith('dockp_driver_calls_total{kind="storage"') for line in lines)
    declared = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert len(declared) == sum(1 for line in lines if line.startswith("# TYPE"))


def test_it_does_not_wait_for_clients_that_only_listen(daemon: Daemon) -> None:
    with daemon:
        daemon.docker("run", "-d", "--network=none", "--name=runs", "busybox", "sleep", "1000")
        commands = (["events"], ["logs", "-f", "runs"], ["wait", "runs"])
        clients = [
            subprocess.Popen(
                ["docker", *words], env=daemon.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            for words in commands
        ]
        wait_for(lambda: len(listening(daemon)) >= len(clients), "all clients are connected")
        time.sleep(0.3)
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 5
        for client in clients:
            client.communicate(timeout=10)


def listening(daemon: Daemon) -> list[str]:
    """The connections that clients have to the daemon's socket."""
    lines = Path(f"/proc/{daemon.pid}/net/unix").read_text().splitlines()
    return [line for line in lines if line.endswith(str(daemon.socket)) and line.split()[5] == "03"]


def test_a_second_interrupt_ends_it_at_once(daemon: Daemon) -> None:
    daemon.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket))
        client.sendall(b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        wait_for(lambda: listening(daemon), "the client is connected")
        time.sleep(0.2)
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGINT)
        wait_for(lambda: "containers go on" in daemon.log, "the first is heard")
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.process.wait(5) == 130


# Sockets over TCP, and from systemd


def test_tcp_without_tls_must_be_asked_for(dockp: Dockp) -> None:
    assert "TCP without TLS gives root to everybody who can connect" in refused(dockp, "-H", "tcp://127.0.0.1:0")
    for word in ("--allow-insecure-tcp", "--tls=false"):
        with Daemon(dockp, word, hosts=["tcp://127.0.0.1:0"]) as daemon:
            with urllib.request.urlopen(f"http://127.0.0.1:{daemon.tcp_port}/_ping", timeout=10) as answer:
                assert answer.read() == b"OK"
            assert "has root here" in daemon.log


def test_tls_lets_in_who_has_a_certificate_and_nobody_else(dockp: Dockp, certificates: Path) -> None:
    tls = [f"--tlscacert={certificates}/ca.pem", f"--tlscert={certificates}/server.pem"]
    tls.append(f"--tlskey={certificates}/server.key")
    assert "--tls without --tlsverify" in refused(dockp, "-H", "tcp://127.0.0.1:0", "--tls", *tls)
    assert "could not load X509 key pair" in refused(
        dockp, "-H", "tcp://127.0.0.1:0", "--tlsverify", *tls, "--tlskey=/nowhere"
    )
    with Daemon(dockp, "--tlsverify", *tls, hosts=["tcp://127.0.0.1:0"]) as daemon:
        port = daemon.tcp_port

        def ask_as(name: str) -> bytes:
            context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
            if name:
                context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
            with urllib.request.urlopen(f"https://127.0.0.1:{port}/_ping", context=context, timeout=10) as answer:
                return bytes(answer.read())

        assert ask_as("client") == b"OK"
        for name in ("", "stranger"):
            with pytest.raises(OSError):
                ask_as(name)
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_ping", timeout=10)
        client = ["--tlsverify", f"--tlscacert={certificates}/ca.pem", f"--tlscert={certificates}/client.pem"]
        client += [f"--tlskey={certificates}/client.key", "-H", f"tcp://127.0.0.1:{port}"]
        done = daemon.docker(*client, "run", "-i", "--rm", "--network=none", "busybox", "cat", input="over TLS\n")
        assert done.stdout == "over TLS\n", done.stderr
        much = "x" * 3_000_000
        done = daemon.docker(*client, "run", "-i", "--rm", "--network=none", "busybox", "cat", input=much)
        assert done.stdout == much, done.stderr


_LAUNCHER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="docker")
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_systemd_hands_over_a_socket_and_hears_how_it_goes(dockp: Dockp) -> None:
    given = dockp.base / "given.sock"
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(dockp.base / "notify"))
    told.settimeout(10)
    environment = dockp.environment | {"NOTIFY_SOCKET": str(dockp.base / "notify"), "WATCHDOG_USEC": "200000"}
    command = [sys.executable, "-c", _LAUNCHER, str(given), str(Path(sys.executable).parent / "dockpd"), "-H", "fd://"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert told.recv(4096).splitlines()[0] == b"READY=1"
        assert ask(given) == b"OK"
        assert {told.recv(4096) for _ in range(3)} == {b"WATCHDOG=1"}
        process.send_signal(signal.SIGHUP)
        seen = [told.recv(4096).splitlines()[0] for _ in range(6)]
        assert b"RELOADING=1" in seen
        assert b"READY=1" in seen[seen.index(b"RELOADING=1") :]
    finally:
        process.terminate()
        said = process.communicate(timeout=20)[1]
    assert process.returncode == 0, said
    last = [told.recv(4096).splitlines()[0] for _ in iter(lambda: select_now(told), False)]
    assert b"STOPPING=1" in last
    assert given.exists(), "the socket is systemd's"
    told.close()
    given.unlink()
    (dockp.base / "notify").unlink()


def select_now(sock: socket.socket) -> bool:
    import select

    return bool(select.select([sock], [], [], 0)[0])


def test_without_a_socket_from_systemd_fd_is_refused(dockp: Dockp) -> None:
    assert "no sockets found via socket activation" in refused(dockp, "-H", "fd://")


# What is started when the daemon starts


def test_restart_policies_count_when_the_daemon_starts(daemon: Daemon) -> None:
    dockp = daemon.dockp
    for name, policy, command in (
        ("always-stopped", "always", "sleep 1000"),
        ("unless-stopped", "unless-stopped", "sleep 1000"),
        ("unless-killed", "unless-stopped", "sleep 1000"),
        ("failed", "on-failure", "exit 0"),
        ("never", "no", "sleep 1000"),
    ):
        dockp.ok("run", "-d", "--network=none", "--restart", policy, "--name", name, "busybox", "sh", "-c", command)
    dockp.ok("create", "--restart=always", "--name", "not-started", "busybox", "sleep", "1000")
    dockp.ok("stop", "-t", "0", "always-stopped", "unless-stopped")
    for name in ("unless-killed", "never"):
        shim = json.loads((dockp.exec_root / "containers" / dockp.inspect(name)["Id"] / "state.json").read_text())
        os.kill(shim["shim_pid"], signal.SIGKILL)
    with daemon:
        wait_for(lambda: dockp.state("always-stopped") == "running", "a container with the policy always is started")
        wait_for(lambda: dockp.state("unless-killed") == "running", "a container whose shim was killed is started")
        for name in ("unless-stopped", "failed", "never"):
            assert dockp.state(name) == "exited", name
        assert dockp.state("not-started") == "created"


def test_it_is_ready_at_once_with_two_hundred_containers(daemon: Daemon) -> None:
    import docker

    with daemon:
        client = docker.DockerClient(base_url=daemon.url)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: client.containers.create("busybox"), range(200)))
        client.close()
    daemon.start()
    (line,) = [line for line in daemon.log.splitlines() if "completed initialization" in line][1:]
    # The bound of the bench is half of this; here other tests may run at the same time.
    assert float(line.rpartition("seconds=")[2]) < 1.0
    assert json.loads(ask(daemon.socket, "/info"))["Containers"] == 200


# Live restore: nothing that runs notices what happens to the daemon


class Attached:
    """A client of attach, by hand: what it has heard so far. Docker's own would also wait, and end with the daemon."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(daemon.socket))
        target = f"/v1.41/containers/{name}/attach?stream=1&stdout=1&stdin=1"
        upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0"
        self.socket.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 101 UPGRADED"), head

    def line(self) -> bytes:
        heard = b""
        while not heard.endswith(b"\n"):
            heard += self.socket.recv(1)
        return heard[8:]


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_live_restore(daemon: Daemon, end: str) -> None:
    count = "i=0; while sleep 0.01; do i=$((i+1)); echo $i; done"
    daemon.start()
    for number in range(8):
        name = f"counts-{number}"
        assert (
            daemon.docker("run", "-d", "--network=none", "--name", name, "busybox", "sh", "-c", count).returncode == 0
        )
    run = ("run", "-d", "--network=none")
    daemon.docker(*run, "--restart=always", "--name=again", "busybox", "sh", "-c", "sleep 0.3; exit 1")
    daemon.docker(*run, "--name=ends", "busybox", "sh", "-c", "sleep 0.5; exit 42")
    daemon.docker(*run, "--rm", "--name=vanishes", "busybox", "sleep", "0.5")
    daemon.docker(*run, "-i", "--name=echoes", "busybox", "cat")
    web = "while echo hello | nc -l -p 80; do :; done"
    daemon.docker("run", "-d", "-p", "127.0.0.1:8099:80", "--name=web", "busybox", "sh", "-c", web)
    pids = {name: daemon.dockp.inspect(name)["State"]["Pid"] for name in ("counts-0", "counts-7", "echoes", "web")}
    attached = Attached(daemon, "echoes")
    attached.socket.sendall(b"before\n")
    assert attached.line() == b"before\n"

    getattr(daemon, end)()
    attached.socket.sendall(b"between\n")
    assert attached.line() == b"between\n"
    with socket.create_connection(("127.0.0.1", 8099), 5) as client:
        assert client.recv(16) == b"hello\n"
    time.sleep(1)

    daemon.start()
    attached.socket.sendall(b"after\n")
    assert attached.line() == b"after\n"
    attached.socket.close()
    again = Attached(daemon, "echoes")
    again.socket.sendall(b"anew\n")
    assert again.line() == b"anew\n"
    again.socket.close()
    assert {name: daemon.dockp.inspect(name)["State"]["Pid"] for name in pids} == pids
    assert daemon.docker("wait", "ends").stdout == "42\n"
    wait_for(lambda: "vanishes" not in daemon.docker("ps", "-a", "--format", "{{.Names}}").stdout, "--rm is kept")
    assert daemon.dockp.inspect("again")["RestartCount"] > 0
    with socket.create_connection(("127.0.0.1", 8099), 5) as client:
        assert client.recv(16) == b"hello\n"
    daemon.docker("stop", "-t", "0", *(f"counts-{number}" for number in range(8)))
    for number in range(8):
        lines = daemon.docker("logs", f"counts-{number}").stdout.split()
        assert lines == [str(number) for number in range(1, len(lines) + 1)]
        assert len(lines) > 50
