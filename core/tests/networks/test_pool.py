"""Network namespaces made ahead."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from dockp.linux import netns
from dockp.networks.pool import SandboxPool

_SIOCGIFFLAGS = 0x8913
_IFF_UP = 1


@pytest.fixture
def pool() -> Iterator[SandboxPool]:
    pool = SandboxPool()
    yield pool
    pool.close()


def take(pool: SandboxPool) -> int:
    deadline = time.monotonic() + 10
    while (found := pool.take()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def loopback_is_up(namespace: int) -> bool:
    with netns.socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock.fileno(), _SIOCGIFFLAGS, struct.pack("16sH22x", b"lo", 0))
    return bool(struct.unpack_from("H", answer, 16)[0] & _IFF_UP)


def test_nothing_is_made_unasked(pool: SandboxPool) -> None:
    assert pool.take() is None
    made = pool.take_or_make()
    assert os.fstat(made).st_ino != os.stat("/proc/self/ns/net").st_ino
    os.close(made)


def test_what_is_taken_is_new_has_its_loopback_up_and_is_replaced(pool: SandboxPool) -> None:
    here = os.stat("/proc/self/ns/net").st_ino
    pool.keep_filled()
    taken = [take(pool) for _ in range(20)]
    assert len({os.fstat(namespace).st_ino for namespace in taken} - {here}) == 20
    assert all(map(loopback_is_up, taken))
    assert os.stat("/proc/self/ns/net").st_ino == here
    for namespace in taken:
        os.close(namespace)


def test_closing_lets_everything_go(pool: SandboxPool) -> None:
    before = set(os.listdir("/proc/self/fd"))
    pool.keep_filled()
    os.close(take(pool))
    pool.close()
    assert pool.take() is None
    assert set(os.listdir("/proc/self/fd")) == before
