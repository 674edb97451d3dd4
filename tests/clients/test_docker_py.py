"""docker-py, unmodified, against the daemon."""

from __future__ import annotations

import io
import itertools
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import Healthcheck, LogConfig, Mount
from harness import wait_for

VERSIONS = ["1.24", "1.30", "1.35", "1.41", "1.44", "1.50"]


@pytest.fixture
def client(url: str) -> Iterator[docker.DockerClient]:
    with closing(docker.DockerClient(url, version="auto", timeout=30)) as client:
        yield client


@pytest.fixture(params=VERSIONS)
def old(url: str, request: pytest.FixtureRequest) -> Iterator[docker.DockerClient]:
    """A client of each version."""
    with closing(docker.DockerClient(url, version=request.param, timeout=30)) as client:
        yield client


def box(client: docker.DockerClient, command: str = "sleep 600", **options: Any) -> Container:
    """A running container without a network."""
    options = {"network_mode": "none", "stop_signal": "SIGKILL", **options}
    return client.containers.run("busybox", ["sh", "-c", command], detach=True, **options)


def tar_of(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), 0o640, 1_700_000_000
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def read(sock: Any) -> bytes:
    """Everything until the end of a hijacked connection."""
    sock = getattr(sock, "_sock", sock)
    sock.settimeout(10)
    return b"".join(iter(lambda: sock.recv(65536), b""))


# Life


def test_a_life(old: docker.DockerClient) -> None:
    container = old.containers.create("busybox", "sleep 600", name="life", labels={"a": "1"}, network_mode="none")
    assert container.status == "created"
    container.start()
    container.reload()
    assert (container.status, container.attrs["State"]["Running"]) == ("running", True)
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.rename("other")
    assert [found.name for found in old.containers.list(filters={"label": "a=1"})] == ["other"]
    container.restart(timeout=0)
    container.stop(timeout=0)
    container.reload()
    assert (container.status, container.attrs["State"]["ExitCode"]) == ("exited", 137)
    container.remove()
    with pytest.raises(NotFound, match="No such container: other"):
        old.containers.get("other")


def test_run_gives_output_or_the_failure(old: docker.DockerClient) -> None:
    command = ["sh", "-c", "echo out; echo err >&2"]
    assert old.containers.run("busybox", command, remove=True, stderr=True, network_mode="none") in (
        b"out\nerr\n",
        b"err\nout\n",
    )
    with pytest.raises(ContainerError) as failed:
        old.containers.run("busybox", ["sh", "-c", "echo no >&2; exit 3"], remove=True, network_mode="none")
    assert (failed.value.exit_status, failed.value.stderr) == (3, b"no\n")


def test_a_kill_is_over_when_it_returns(client: docker.DockerClient) -> None:
    container = box(client)
    container.kill()
    state = client.api.inspect_container(container.id)["State"]
    assert (state["Running"], state["ExitCode"]) == (False, 137)
    container.remove()


def test_signals(client: docker.DockerClient) -> None:
    container = box(client, "trap 'echo hup' HUP; echo ready; while :; do sleep 0.01; done")
    wait_for(lambda: b"ready" in container.logs(), "the trap")
    container.kill("SIGHUP")
    wait_for(lambda: b"hup" in container.logs(), "the signal")
    with pytest.raises(APIError) as refused:
        container.kill("SIGNONE")
    assert (refused.value.status_code, refused.value.explanation) == (400, "Invalid signal: SIGNONE")


@pytest.mark.parametrize("condition", ["not-running", "next-exit", "removed"])
def test_waiting(client: docker.DockerClient, condition: str) -> None:
    container = client.containers.create(
        "busybox", ["sh", "-c", "read x; exit 7"], stdin_open=True, network_mode="none", auto_remove=True
    )
    sock = client.api.attach_socket(container.id, {"stdin": 1, "stream": 1})
    container.start()
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(container.wait(condition=condition, timeout=20)))
    waiting.start()
    time.sleep(0.1)
    assert not found
    sock._sock.sendall(b"go\n")
    waiting.join(15)
    assert found[0]["StatusCode"] == 7
    sock.close()
    wait_for(lambda: not client.containers.list(all=True), "the removal")


def test_restart_policies(client: docker.DockerClient) -> None:
    policy = {"Name": "on-failure", "MaximumRetryCount": 2}
    container = box(client, "echo run; exit 4", restart_policy=policy)
    wait_for(lambda: container.logs() == b"run\n" * 3, "two restarts")
    wait_for(lambda: client.api.inspect_container(container.id)["State"]["Status"] == "exited", "the end")
    document = client.api.inspect_container(container.id)
    assert (document["RestartCount"], document["State"]["ExitCode"]) == (2, 4)
    assert document["HostConfig"]["RestartPolicy"] == policy
    container.update(restart_policy={"Name": "no"})
    assert client.api.inspect_container(container.id)["HostConfig"]["RestartPolicy"]["Name"] == "no"


def test_health(client: docker.DockerClient) -> None:
    check = Healthcheck(test=["CMD-SHELL", "echo looked; test -e /well"], interval=100_000_000, retries=2)
    container = box(client, healthcheck=check)

    def health() -> str:
        container.reload()
        return str(container.health)

    wait_for(lambda: health() == "unhealthy", "two failures")
    log = container.attrs["State"]["Health"]["Log"]
    assert (log[0]["ExitCode"], log[0]["Output"]) == (1, "looked\n")
    container.exec_run("touch /well")
    wait_for(lambda: health() == "healthy", "a success")
    assert client.containers.list(filters={"health": "healthy"}) == [container]


# Streams


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_attach_sees_what_comes(old: docker.DockerClient, stream: str) -> None:
    container = old.containers.create("busybox", ["sh", "-c", "echo out; echo err >&2"], network_mode="none")
    lines = container.attach(stream=True, stdout=stream == "stdout", stderr=stream == "stderr")
    container.start()
    assert b"".join(lines) == {"stdout": b"out\n", "stderr": b"err\n"}[stream]


def test_attach_both_ways_until_half_is_closed(client: docker.DockerClient) -> None:
    # Such a container ends with its input, which docker-py has no argument for: the first attach has it all.
    config = client.api.create_container_config("busybox", ["sort"], stdin_open=True)
    config |= {"StdinOnce": True, "HostConfig": {"NetworkMode": "none"}}
    made = client.api.create_container_from_config(config)["Id"]
    sock = client.api.attach_socket(made, {"stdin": 1, "stdout": 1, "stream": 1})
    client.api.start(made)
    sock._sock.sendall(b"b\na\n")
    sock._sock.shutdown(1)
    assert read(sock) == b"\1\0\0\0\0\0\0\4a\nb\n"
    assert client.api.wait(made)["StatusCode"] == 0


def test_attach_to_a_terminal(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "cat", stdin_open=True, tty=True, network_mode="none")
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1, "detachKeys": "ctrl-x,x"})
    container.start()
    container.resize(33, 99)
    sock._sock.sendall(b"hello\r")
    wait_for(lambda: b"hello\r\nhello" in container.logs(), "the echo")
    sock._sock.sendall(b"\x18x")
    assert read(sock).startswith(b"hello\r\nhello\r\n")
    assert container.exec_run("stty size -F /proc/1/fd/0").output.strip() == b"33 99"
    container.reload()
    assert container.status == "running"


def test_attach_with_what_was_before(client: docker.DockerClient) -> None:
    for _ in range(5):
        made = client.containers.create("busybox", "echo hello", network_mode="none")
        sock = client.api.attach_socket(made.id, {"stdout": 1, "stream": 1, "logs": 1})
        made.start()
        assert read(sock) == b"\1\0\0\0\0\0\0\6hello\n"
        sock.close()
        assert made.attach(logs=True, stream=False) == b"hello\n"


def test_exec(old: docker.DockerClient) -> None:
    container = box(old)
    script = ["sh", "-c", "echo out; echo err >&2; exit 5"]
    for _ in range(3):  # nothing may be lost between the head of the reply and the output
        done = container.exec_run(script, demux=True)
        assert (done.exit_code, done.output) == (5, (b"out\n", b"err\n"))
    assert b"".join(container.exec_run(["seq", "20000"], stream=True).output).endswith(b"\n20000\n")
    assert container.exec_run("tty", tty=True).output == b"/dev/pts/0\r\n"
    assert container.exec_run("id -u", user="user").output == b"1000\n"
    container.exec_run("true", detach=True)


def test_exec_with_environment_and_place(client: docker.DockerClient) -> None:
    container = box(client)
    done = container.exec_run(["sh", "-c", "echo $A; pwd"], environment={"A": "b c"}, workdir="/home")
    assert done.output == b"b c\n/home\n"
    made = client.api.exec_create(container.id, "sleep 5", tty=True)
    state = client.api.exec_inspect(made["Id"])
    assert (state["Running"], state["ExitCode"], state["ProcessConfig"]["tty"]) == (False, None, True)


@pytest.mark.parametrize("tty", [False, True])
def test_exec_with_input(client: docker.DockerClient, tty: bool) -> None:
    container = box(client)
    made = client.api.exec_create(container.id, ["sh", "-c", "read x; echo got $x"], stdin=True, tty=tty)
    sock = client.api.exec_start(made["Id"], tty=tty, socket=True)
    sock._sock.sendall(b"this\n")
    assert read(sock) == (b"this\r\ngot this\r\n" if tty else b"\1\0\0\0\0\0\0\x09got this\n")
    assert client.api.exec_inspect(made["Id"])["ExitCode"] == 0


@pytest.mark.parametrize(("command", "code"), [("nope", 127), ("/etc/passwd", 126)])
def test_exec_of_what_is_no_program(client: docker.DockerClient, command: str, code: int) -> None:
    done = box(client).exec_run(command)
    assert done.exit_code == code
    assert done.output.startswith(b"OCI runtime exec failed: ")


# Logs


def test_logs(old: docker.DockerClient) -> None:
    container = box(old, "echo one; sleep 1.2; echo two >&2; echo three")
    container.wait()
    assert container.logs(stderr=False) == b"one\nthree\n"
    assert container.logs(stdout=False) == b"two\n"
    assert sorted(container.logs(tail=2).split()) == [b"three", b"two"]
    stamped = container.logs(timestamps=True).splitlines()
    assert [line[30:31] for line in stamped] == [b" "] * 3
    # Whole seconds are what docker-py sends.
    ended = int(time.time())
    assert container.logs(since=ended + 5) == b""
    if tuple(map(int, old.api.api_version.split("."))) >= (1, 35):
        assert container.logs(until=ended - 600) == b""


def test_logs_are_followed_to_the_end(client: docker.DockerClient) -> None:
    container = box(client, "for i in 1 2 3; do echo $i; sleep 0.2; done")
    assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    container.reload()
    assert container.attrs["State"]["Status"] == "exited"


def test_following_can_be_given_up(client: docker.DockerClient) -> None:
    container = box(client, "echo once; sleep 600")
    lines = container.logs(stream=True, follow=True)
    assert next(lines) == b"once\n"
    threading.Timer(0.2, lines.close).start()
    assert list(lines) == []


def test_no_log(client: docker.DockerClient) -> None:
    container = box(client, "echo gone", log_config=LogConfig(type="none"))
    container.wait()
    with pytest.raises(APIError, match="configured logging driver does not support reading"):
        container.logs()
    with pytest.raises(APIError, match=r"no log driver named 'asdf' is registered|plugin \"asdf\" not found"):
        box(client, log_config=LogConfig(type="asdf"))


# Looking on


def test_events(old: docker.DockerClient) -> None:
    since = int(time.time()) - 1
    container = box(old, "exit 3", labels={"mine": "yes"})
    container.wait()
    container.remove()
    until = int(time.time()) + 1
    filters = {"container": container.id, "type": "container"}
    happened = list(old.events(since=since, until=until, filters=filters, decode=True))
    assert [event["Action"] for event in happened] == ["create", "start", "die", "destroy"]
    died = happened[2]
    assert (died["status"], died["id"], died["from"]) == ("die", container.id, "busybox")
    assert died["Actor"]["Attributes"] | {"execDuration": "0"} == {
        "exitCode": "3",
        "execDuration": "0",
        "image": "busybox",
        "mine": "yes",
        "name": container.name,
    }


def test_events_as_they_come(client: docker.DockerClient) -> None:
    stream = client.events(decode=True, filters={"event": ["start"]})
    container = box(client)
    assert next(stream)["id"] == container.id
    stream.close()


def test_stats(old: docker.DockerClient) -> None:
    container = box(old, "while :; do :; done", mem_limit="64m")
    once = container.stats(stream=False)
    assert once["memory_stats"]["limit"] == 64 << 20
    assert once["cpu_stats"]["cpu_usage"]["total_usage"] > once["precpu_stats"]["cpu_usage"]["total_usage"] > 0
    stream = container.stats(stream=True, decode=True)
    first, second = itertools.islice(stream, 2)
    assert second["precpu_stats"]["cpu_usage"] == first["cpu_stats"]["cpu_usage"]
    stream.close()


def test_top_and_changes(client: docker.DockerClient) -> None:
    container = box(client, "echo x > /tmp/new; rm /etc/group; sleep 600")
    wait_for(lambda: container.exec_run("test -e /etc/group").exit_code == 1, "the changes")
    rows = container.top(ps_args="-o pid,args")
    assert rows["Titles"] == ["PID", "COMMAND"]
    assert any("sleep 600" in row[1] for row in rows["Processes"])
    assert {(row["Kind"], row["Path"]) for row in container.diff()} == {
        (0, "/tmp"),
        (1, "/tmp/new"),
        (0, "/etc"),
        (2, "/etc/group"),
    }


def test_what_the_daemon_says_of_itself(old: docker.DockerClient) -> None:
    assert old.ping()
    assert old.api.api_version == old.api._version
    version = old.version()
    assert version["Os"] == "linux"
    assert version["ApiVersion"] >= "1.41"
    info = old.info()
    assert (info["OSType"], info["NCPU"] > 0, info["Images"] >= 1) == ("linux", True, True)
    assert "json-file" in info["Plugins"]["Log"]
    assert {network.name for network in old.networks.list()} == {"bridge", "host", "none"}


def test_disk_usage(client: docker.DockerClient) -> None:
    client.volumes.create("kept")
    box(client, "head -c 100000 /dev/zero > /file", name="sized").wait()
    usage = client.df()
    assert usage["LayersSize"] > 1_000_000
    assert [row["Names"] for row in usage["Containers"]] == [["/sized"]]
    assert 100_000 <= usage["Containers"][0]["SizeRw"] < 300_000
    assert [row["Name"] for row in usage["Volumes"]] == ["kept"]


# Files


def test_archives(old: docker.DockerClient) -> None:
    container = box(old)
    assert container.put_archive("/home", tar_of(a=b"first", b=b"second"))
    assert container.exec_run("cat /home/a /home/b").output == b"firstsecond"
    chunks, stat = container.get_archive("/home/a")
    assert (stat["name"], stat["size"], stat["mode"] & 0o777) == ("a", 5, 0o640)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        assert tar.extractfile("a").read() == b"first"  # type: ignore[union-attr]
    with pytest.raises(NotFound, match="Could not find the file /nowhere in container"):
        container.get_archive("/nowhere")
    with pytest.raises(NotFound):
        container.put_archive("/nowhere", tar_of(a=b""))


def test_export(client: docker.DockerClient) -> None:
    container = box(client, "echo data > /exported")
    container.wait()
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as tar:
        assert tar.extractfile("exported").read() == b"data\n"  # type: ignore[union-attr]


def test_mounts(client: docker.DockerClient, tmp_path: Any) -> None:
    (tmp_path / "file").write_text("host\n")
    mounts = [Mount("/host", str(tmp_path), type="bind", read_only=True), Mount("/fast", None, type="tmpfs")]
    container = box(client, mounts=mounts, volumes={"named": {"bind": "/data", "mode": "rw"}})
    assert container.exec_run("cat /host/file").output == b"host\n"
    assert b"Read-only file system" in container.exec_run("touch /host/no").output
    assert container.exec_run("sh -c 'touch /data/x /fast/x'").exit_code == 0
    found = {mount["Destination"]: mount["Type"] for mount in client.api.inspect_container(container.id)["Mounts"]}
    assert found == {"/host": "bind", "/fast": "tmpfs", "/data": "volume"}


# Images


def test_commit(client: docker.DockerClient) -> None:
    container = box(client, "echo kept > /kept")
    container.wait()
    image = container.commit("made", "1", message="why", author="me", changes=["ENV A=1", 'CMD ["cat", "/kept"]'])
    assert image.tags == ["made:1"]
    assert (image.attrs["Author"], image.attrs["Comment"]) == ("me", "why")
    assert client.containers.run("made:1", remove=True, network_mode="none") == b"kept\n"
    assert image.history()[0]["Comment"] == "why"


def test_images(old: docker.DockerClient) -> None:
    image = old.images.get("busybox")
    assert image.tag("example.org/deep/name", "2")
    assert [found.id for found in old.images.list("example.org/deep/name")] == [image.id]
    with pytest.raises(APIError) as refused:
        old.images.remove(image.id)
    assert refused.value.status_code == 409
    assert "must be forced" in refused.value.explanation
    old.images.remove("example.org/deep/name:2")
    with pytest.raises(ImageNotFound, match=r"No such image: example\.org/deep/name:2"):
        old.images.get("example.org/deep/name:2")


def test_save_and_load(client: docker.DockerClient) -> None:
    image = client.images.get("busybox")
    image.tag("carried", "1")
    saved = b"".join(client.images.get("carried:1").save(named="carried:1"))
    client.images.remove("carried:1")
    assert [found.id for found in client.images.load(saved)] == [image.id]
    assert "carried:1" in client.images.get(image.id).tags


def test_import_and_prune(client: docker.DockerClient) -> None:
    told = client.api.import_image_from_data(tar_of(only=b"x"), repository="tiny", tag="1")
    assert '"status":"sha256:' in told.replace(" ", "")
    tiny = client.images.get("tiny:1")
    client.images.get("busybox").tag("tiny", "1")
    assert tiny.id in [image.id for image in client.images.list(filters={"dangling": True})]
    pruned = client.images.prune({"dangling": True})
    assert tiny.id in [row.get("Deleted") for row in pruned["ImagesDeleted"]]


# Volumes


def test_volumes(old: docker.DockerClient) -> None:
    volume = old.volumes.create("cared-for", labels={"a": "1"})
    assert (volume.attrs["Driver"], volume.attrs["Scope"], volume.attrs["Labels"]) == ("local", "local", {"a": "1"})
    assert [found.name for found in old.volumes.list(filters={"label": "a=1"})] == ["cared-for"]
    container = box(old, volumes={"cared-for": {"bind": "/data", "mode": "rw"}})
    with pytest.raises(APIError, match="volume is in use") as refused:
        volume.remove()
    assert refused.value.status_code == 409
    container.remove(force=True)
    volume.remove()
    with pytest.raises(NotFound, match="no such volume"):
        old.volumes.get("cared-for")


def test_prunes(client: docker.DockerClient) -> None:
    assert client.containers.prune()["ContainersDeleted"] is None
    box(client, "true").wait()
    left = client.containers.list(all=True)[0].id
    assert client.containers.prune()["ContainersDeleted"] == [left]
    assert client.api.prune_volumes() == {"VolumesDeleted": [], "SpaceReclaimed": 0}
    client.volumes.create("unused")
    filters = {"all": ["1"]} if tuple(map(int, client.api.api_version.split("."))) >= (1, 42) else None
    assert client.api.prune_volumes(filters)["VolumesDeleted"] == ["unused"]


# Updates, limits, refusals


def test_update(client: docker.DockerClient) -> None:
    container = box(client, mem_limit="64m", cpu_shares=300)
    container.update(mem_limit="128m", memswap_limit="256m", cpu_shares=500)
    host = client.api.inspect_container(container.id)["HostConfig"]
    assert (host["Memory"], host["CpuShares"]) == (128 << 20, 500)


def test_environment_and_entrypoint(client: docker.DockerClient) -> None:
    container = client.containers.create(
        "busybox", ["-c", "echo $0 $A"], entrypoint=["sh"], environment=["A=1", "NONE"], network_mode="none"
    )
    assert client.api.inspect_container(container.id)["Config"]["Env"][:2] == ["A=1", "NONE"]
    container.start()
    container.wait()
    assert container.logs() == b"sh 1\n"


def test_refusals(old: docker.DockerClient) -> None:
    container = box(old, name="taken")
    for ask, status, words in (
        (lambda: old.containers.get("nobody"), 404, "No such container: nobody"),
        (lambda: old.containers.create("nothing/here"), 404, "No such image: nothing/here:latest"),
        (lambda: old.containers.create("busybox", name="taken"), 409, 'The container name "/taken" is already in use'),
        (lambda: old.containers.create("busybox", name="a b"), 400, "Invalid container name (a b), only "),
        (lambda: old.api.remove_container("taken"), 409, "remove"),
        (lambda: old.api.unpause("taken"), (409, 500), "is not paused"),
        (lambda: old.api.rename("taken", "taken"), (400, 409, 500), "Renaming a container with the same name"),
        (lambda: old.api.exec_start("0" * 64), 404, "No such exec instance"),
        (lambda: old.api.inspect_volume("nothing"), 404, "no such volume"),
        (lambda: old.api.inspect_network("nothing"), 404, "network nothing not found"),
        (lambda: old.containers.run("busybox", "nope", network_mode="none"), (400, 404), "executable file not found"),
    ):
        with pytest.raises(APIError) as refused:
            ask()
        assert refused.value.status_code in (status if isinstance(status, tuple) else (status,)), words
        assert words in refused.value.explanation
    container.kill()
    with pytest.raises(APIError, match="is not running"):
        container.exec_run("true")


@pytest.mark.own
def test_what_is_not_there_yet_says_so(client: docker.DockerClient) -> None:
    for ask in (
        lambda: client.networks.create("mine"),
        lambda: client.images.build(fileobj=io.BytesIO(b"FROM busybox")),
        lambda: client.swarm.init(),
    ):
        with pytest.raises(APIError) as refused:
            ask()
        assert refused.value.status_code == 501
        assert "\n" not in refused.value.explanation
