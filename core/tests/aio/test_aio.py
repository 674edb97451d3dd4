"""The engine for asyncio: in threads over an engine of this process, and by asyncio over a socket."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "remote"))

from peer import Peer, answer, chunks

import dockp.aio
from dockp.aio.local import Engine, iterate
from dockp.spi.errors import NotFound, SystemFault


class Nouns:
    """An engine of which only what a test needs is there."""

    def __init__(self, **verbs: Any) -> None:
        self.containers = self.images = self.volumes = self.networks = self.system = self
        self.closed = False
        for name, verb in verbs.items():
            setattr(self, name, verb)

    def close(self) -> None:
        self.closed = True


def local(**verbs: Any) -> Engine:
    return Engine(Nouns(**verbs))  # type: ignore[arg-type]


def test_calls_run_beside_each_other_and_not_in_the_loops_thread() -> None:
    threads: list[threading.Thread] = []

    def inspect(ref: str) -> dict[str, str]:
        threads.append(threading.current_thread())
        time.sleep(0.1)
        return {"Id": ref}

    async def main() -> None:
        async with local(inspect=inspect) as engine:
            before = time.monotonic()
            found = await asyncio.gather(*(engine.containers.inspect(str(number)) for number in range(20)))
            assert time.monotonic() - before < 1
            assert [document["Id"] for document in found] == [str(number) for number in range(20)]

    asyncio.run(main())
    assert threading.main_thread() not in threads


def test_errors_are_raised_where_it_is_awaited() -> None:
    def inspect(ref: str) -> dict[str, str]:
        raise NotFound(f"No such container: {ref}")

    async def main() -> None:
        async with local(inspect=inspect) as engine:
            with pytest.raises(NotFound, match="No such container: x"):
                await engine.containers.inspect("x")

    asyncio.run(main())


def test_leaving_closes_the_engine() -> None:
    nouns = Nouns()

    async def main() -> None:
        async with Engine(nouns):  # type: ignore[arg-type]
            assert not nouns.closed

    asyncio.run(main())
    assert nouns.closed


def test_progress_is_told_in_the_loop() -> None:
    told: list[tuple[threading.Thread, str]] = []

    def pull(reference: str, *, progress: Any) -> str:
        progress("Extracting", 1, 2)
        return "id"

    async def main() -> None:
        async with local(pull=pull) as engine:
            await engine.images.pull("x", progress=lambda what, *_: told.append((threading.current_thread(), what)))
            await asyncio.sleep(0)

    asyncio.run(main())
    assert told == [(threading.main_thread(), "Extracting")]


def test_an_iterator_keeps_the_pace_of_its_reader_and_ends_when_left() -> None:
    made: list[int] = []
    ended = threading.Event()

    def count() -> Iterator[int]:
        try:
            for number in range(1000):
                made.append(number)
                yield number
        finally:
            ended.set()

    async def main() -> list[int]:
        numbers: AsyncIterator[int] = iterate(count)
        found = [await anext(numbers) for _ in range(3)]
        await asyncio.sleep(0.1)
        await numbers.aclose()  # type: ignore[attr-defined]
        return found

    assert asyncio.run(main()) == [0, 1, 2]
    assert ended.wait(5)
    assert len(made) < 50


def test_the_failure_of_an_iterator_is_raised() -> None:
    def fail() -> Iterator[int]:
        yield 1
        raise SystemFault("no more")

    async def main() -> None:
        numbers = iterate(fail)
        assert await anext(numbers) == 1
        with pytest.raises(SystemFault, match="no more"):
            await anext(numbers)

    asyncio.run(main())


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    peer = Peer(tmp_path / "socket")
    yield peer
    peer.close()


def test_against_a_daemon_no_thread_is_started(peer: Peer) -> None:
    peer.on("GET /info", answer(b'{"ID": "x"}'), answer(b'{"ID": "y"}'))
    peer.on("GET /events", chunks(b'{"Action": "sta', b'rt"}\n{"Action": "die"}\n'))

    async def main() -> None:
        async with dockp.aio.connect(peer.host) as engine:
            before = threading.active_count()
            assert (await engine.system.info())["ID"] == "x"
            assert (await engine.system.info())["ID"] == "y"
            assert peer.connections == 1
            assert [event["Action"] async for event in engine.system.events()] == ["start", "die"]
            assert threading.active_count() - before <= peer.connections  # the peer's own
            with pytest.raises(NotFound):
                await engine.containers.inspect("nosuch")

    asyncio.run(main())


def test_a_call_that_is_cancelled_gives_its_connection_up(peer: Peer) -> None:
    peer.on("POST /containers/box/wait", lambda connection: time.sleep(1))
    peer.on("GET /info", answer(b"{}"))

    async def main() -> None:
        async with dockp.aio.connect(peer.host) as engine:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(engine.containers.wait("box"), 0.1)
            assert await engine.system.info() == {}

    asyncio.run(main())


def test_a_stream_of_a_daemon(peer: Peer) -> None:
    def talk(connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly")
        received = b""
        while piece := connection.recv(100):
            received += piece
        connection.sendall(b" got " + received)

    peer.on("POST /exec/e/start", talk)

    async def main() -> bytes:
        async with dockp.aio.connect(peer.host) as engine:
            stream = await engine.containers.exec_start("e", tty=False)
            assert stream is not None
            await stream.send(b"input")
            await stream.close_stdin()
            out = b""
            while piece := await stream.recv():
                out += piece
            assert await stream.wait_end() == "exit"
            await stream.close()
            return out

    assert asyncio.run(main()) == b"early got input"
