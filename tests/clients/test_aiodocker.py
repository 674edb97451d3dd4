"""aiodocker, unmodified, against the daemon."""

from __future__ import annotations

import asyncio
import io
import tarfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiodocker
import pytest
from aiodocker.containers import DockerContainer
from aiodocker.stream import Stream


@pytest.fixture
def work(url: str) -> Callable[[Callable[[aiodocker.Docker], Awaitable[None]]], None]:
    """Runs a coroutine function with a client."""

    def run(scenario: Callable[[aiodocker.Docker], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with asyncio.timeout(30), aiodocker.Docker(url=url) as client:
                await scenario(client)

        asyncio.run(whole())

    return run


async def started(client: aiodocker.Docker, command: str = "sleep 600", **config: Any) -> DockerContainer:
    host = {"NetworkMode": "none", **config.pop("HostConfig", {})}
    document = {"Image": "busybox", "Cmd": ["sh", "-c", command], "HostConfig": host, "StopSignal": "KILL", **config}
    container = await client.containers.create(document)
    await container.start()
    return container


async def everything(stream: Stream) -> list[tuple[int, bytes]]:
    found = []
    while (message := await stream.read_out()) is not None:
        found.append((message.stream, message.data))
    return found


def test_a_life(work: Any) -> None:
    async def scenario(client: aiodocker.Docker) -> None:
        container = await started(client)
        assert (await container.show())["State"]["Running"]
        await container.pause()
        await container.unpause()
        await container.rename("renamed")
        assert [row["Names"] async for row in _each(client.containers.list())] == [["/renamed"]]
        await container.restart(timeout=0)
        await container.kill()
        assert (await container.wait())["StatusCode"] == 137
        await container.delete()
        with pytest.raises(aiodocker.DockerError) as missing:
            await client.containers.get("renamed")
        assert (missing.value.status, missing.value.message) == (404, "No such container: renamed")

    work(scenario)


async def _each(listing: Awaitable[list[DockerContainer]]) -> Any:
    for row in await listing:
        yield row._container


@pytest.mark.parametrize("tty", [False, True])
def test_attach_both_ways(work: Any, tty: bool) -> None:
    async def scenario(client: aiodocker.Docker) -> None:
        config = {"Tty": tty, "OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
        document = {"Image": "busybox", "Cmd": ["sh", "-c", "read x; echo got $x"], **config}
        container = await client.containers.create(document | {"HostConfig": {"NetworkMode": "none"}})
        stream = container.attach(stdin=True, stdout=True, stderr=True, logs=True)
        async with stream:
            await container.start()
            await stream.write_in(b"this\n")
            found = b"".join(data for _, data in await everything(stream))
        assert found.replace(b"\r\n", b"\n").endswith(b"got this\n")
        assert (await container.wait())["StatusCode"] == 0

    work(scenario)


def test_websocket(work: Any) -> None:
    async def scenario(client: aiodocker.Docker) -> None:
        container = await started(client, "cat", OpenStdin=True)
        socket = await container.websocket(stdin=True, stdout=True, stderr=True, stream=True)
        await socket.send_bytes(b"over and back\n")
        assert (await socket.receive()).data in (b"over and back\n", "over and back\n")
        await socket.close()

    work(scenario)


@pytest.mark.parametrize("tty", [False, True])
def test_exec(work: Any, tty: bool) -> None:
    async def scenario(client: aiodocker.Docker) -> None:
        container = await started(client)
        run = await container.exec(["sh", "-c", "read x; echo got $x; exit 9"], stdin=True, tty=tty)
        async with run.start() as stream:
            await stream.write_in(b"this\n")
            found = await everything(stream)
        assert b"".join(data for _, data in found) == (b"this\r\ngot this\r\n" if tty else b"got this\n")
        assert {number for number, _ in found} == {1}
        assert (await run.inspect())["ExitCode"] == 9
        detached = await container.exec(["touch", "/made"])
        assert await detached.start(detach=True) == b""

    work(scenario)


def test_logs_and_counters(work: Any) -> None:
    async def scenario(client: aiodocker.Docker) -> None:
        container = await started(client, "echo one; echo two >&2; sleep 0.3; echo three")
        followed = [line async for line in container.log(stdout=True, stderr=True, follow=True)]
        assert sorted(followed) == ["one\n", "three\n", "two\n"]
        assert await container.log(stderr=True) == ["two\n"]
        assert await container.log(stdout=True, tail=1) == ["three\n"]
        looping = await started(client, "while :; do :; done")
        assert (await looping.stats(stream=False))[0]["cpu_stats"]["online_cpus"] > 0
        async for sample in looping.stats():
            assert sample["pids_stats"]["current"] == 1
            break

    work(scenario)


def test_events(work: Any) -> None:
    async def scenario(client: aiodocker.Docker) -> None:
        subscriber = client.events.subscribe()
        container = await started(client, "exit 4")
        actions: list[str] = []
        while "die" not in actions:
            event = await subscriber.get()
            assert event is not None
            if event["Actor"]["ID"] == container.id:
                assert isinstance(event["time"].timestamp(), float)
                actions.append(event["Action"])
        assert actions[-1] == "die"
        assert event["Actor"]["Attributes"]["exitCode"] == "4"

    work(scenario)


def test_archives(work: Any) -> None:
    async def scenario(client: aiodocker.Docker) -> None:
        container = await started(client)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            entry = tarfile.TarInfo("file")
            entry.size = 4
            tar.addfile(entry, io.BytesIO(b"data"))
        await container.put_archive("/home", out.getvalue())
        with await container.get_archive("/home/file") as tar:
            assert tar.extractfile("file").read() == b"data"  # type: ignore[union-attr]

    work(scenario)


def test_images_and_volumes(work: Any) -> None:
    async def scenario(client: aiodocker.Docker) -> None:
        container = await started(client, "echo kept > /kept")
        await container.wait()
        await container.commit(repository="made", tag="1", changes="ENV A=1")
        assert "A=1" in (await client.images.inspect("made:1"))["Config"]["Env"]
        assert len(await client.images.history("made:1")) == 2
        async with client.images.export_image("made:1") as exported:
            saved = await exported.read()
        await client.images.delete("made:1", force=True)
        loaded = await client.images.import_image(saved)
        assert any("Loaded image: made:1" in line.get("stream", "") for line in loaded)
        volume = await client.volumes.create({"Name": "mine", "Labels": {"a": "1"}})
        assert (await volume.show())["Labels"] == {"a": "1"}
        await volume.delete()
        assert await client.volumes.list() == {"Volumes": [], "Warnings": None}

    work(scenario)


def test_waiting_holds_nobody_up(work: Any) -> None:
    async def scenario(client: aiodocker.Docker) -> None:
        containers = [await started(client, "sleep 1; exit 3") for _ in range(4)]
        began = time.monotonic()
        ends = await asyncio.gather(*(container.wait(timeout=20) for container in containers))
        assert [end["StatusCode"] for end in ends] == [3] * 4
        assert time.monotonic() - began < 10

    work(scenario)


def test_what_the_daemon_says_of_itself(work: Any) -> None:
    async def scenario(client: aiodocker.Docker) -> None:
        assert (await client.version())["Os"] == "linux"
        assert (await client.system.info())["OSType"] == "linux"
        with pytest.raises(aiodocker.DockerError) as refused:
            await client.containers.create({"Cmd": ["true"]})
        assert refused.value.status == 400

    work(scenario)
