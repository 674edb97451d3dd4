"""A small world for network tests: a host of its own, sandboxes, and a machine outside, all network namespaces.

Needs the commands ``ip`` (package iproute2) and ``nft`` (nftables), an independent look at what a driver did.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from attrs import frozen

from dockp.linux import netns
from dockp.spi.network import Endpoint, Network, NetworkDriver, Pool

T = TypeVar("T")

PATIENCE = 4.0
"""How long, in seconds, an answer may take: the kernel sends a first packet that was lost again after one second."""
MOMENT = 0.4
"""How long, in seconds, there must be no answer where none is wanted."""
OUTSIDE = "198.51.100.2"
HOST_OUTSIDE = "198.51.100.1"
"""The host's address on the wire to the machine outside (TEST-NET-2, RFC 5737)."""


def in_private_namespace(function: Callable[..., T]) -> Callable[..., T]:
    """Run a test in a thread with a network namespace of its own, loopback up, which then vanishes."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **keywords: Any) -> T:
        if os.geteuid() != 0:
            raise PermissionError("network tests need root: they make network namespaces")
        host = netns.new()
        try:
            return netns.inside(host, lambda: _with_loopback(lambda: function(*arguments, **keywords)))
        finally:
            os.close(host)

    return wrapped


def _with_loopback(body: Callable[[], T]) -> T:
    command("ip link set lo up")
    return body()


def command(line: str) -> str:
    """Run a command in the calling thread's namespace. Raises RuntimeError with what it said."""
    done = subprocess.run(line.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{line}: {done.stderr.strip()}")
    return done.stdout


def set_kernel(path: str, value: str) -> None:
    """Write a file under /proc/sys/net, which shows the calling thread's namespace."""
    (Path("/proc/sys/net") / path).write_text(value)


@frozen(kw_only=True)
class Member:
    """An endpoint that joined, and its sandbox. ``address`` is its first, without prefix length."""

    network: Network
    endpoint: Endpoint
    sandbox: int

    @property
    def address(self) -> str:
        return self.endpoint.addresses[0].partition("/")[0]


class Lab:
    """The world of one test. Made and used in the host's namespace; `close` ends everything."""

    def __init__(self, driver: NetworkDriver) -> None:
        self.driver = driver
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def sandbox(self) -> int:
        """A new network namespace."""
        fd = netns.new()
        self._stack.callback(self._close, fd)
        return fd

    @staticmethod
    def _close(fd: int) -> None:
        with contextlib.suppress(OSError):
            os.close(fd)

    @staticmethod
    def network(
        number: int = 1, *, six: bool = False, internal: bool = False, options: Mapping[str, str] | None = None
    ) -> Network:
        """The value of a network with the subnet 10.<number>.0.0/24, and fd00:<number>::/64; ids are made up."""
        pools = [Pool(subnet=f"10.{number}.0.0/24", gateway=f"10.{number}.0.1")]
        if six:
            pools.append(Pool(subnet=f"fd00:{number}::/64", gateway=f"fd00:{number}::1"))
        return Network(
            id=f"{number:02x}" + "a5" * 31,
            name=f"net{number}",
            pools=tuple(pools),
            internal=internal,
            options=options or {},
        )

    @staticmethod
    def endpoint(network: Network, number: int, interface: str = "eth0") -> Endpoint:
        """The value of an endpoint with the address ``number`` of every pool."""
        subnets = [ipaddress.ip_network(pool.subnet) for pool in network.pools]
        second = subnets[0].network_address.packed[1]
        gateways = [pool.gateway for pool in network.pools]
        return Endpoint(
            id=f"{second:02x}{number:04x}" + "5a" * 29,
            interface=interface,
            mac=f"02:42:0a:{second:02x}:00:{number:02x}",
            addresses=tuple(f"{subnet[number]}/{subnet.prefixlen}" for subnet in subnets),
            gateway="" if network.internal else gateways[0],
            gateway6=gateways[1] if len(gateways) > 1 and not network.internal else "",
        )

    def join(self, network: Network, number: int) -> Member:
        """A new sandbox on the network."""
        member = Member(network=network, endpoint=self.endpoint(network, number), sandbox=self.sandbox())
        self.driver.join(network, member.endpoint, member.sandbox)
        return member

    def outside(self) -> int:
        """A machine on a wire to the host, with the host as its router."""
        fd = self.sandbox()
        path = f"/proc/{os.getpid()}/fd/{fd}"
        command("ip link add wire type veth peer name wire-far")
        command(f"ip link set wire-far netns {path}")
        command(f"ip addr add {HOST_OUTSIDE}/24 dev wire")
        command("ip -6 addr add 2001:db8:1::1/64 dev wire nodad")
        command("ip link set wire up")

        def far() -> None:
            command("ip link set lo up")
            command(f"ip addr add {OUTSIDE}/24 dev wire-far")
            command("ip -6 addr add 2001:db8:1::2/64 dev wire-far nodad")
            command("ip link set wire-far up")
            command(f"ip route add default via {HOST_OUTSIDE}")
            command("ip -6 route add default via 2001:db8:1::1")

        netns.inside(fd, far)
        return fd

    def serve(self, sandbox: int | None, port: int, *, protocol: str = "tcp", six: bool = False) -> None:
        """Answer every client on ``port`` with the client's address as seen there. None is the host."""
        family = socket.AF_INET6 if six else socket.AF_INET
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM

        def bind() -> socket.socket:
            sock = socket.socket(family, kind)
            sock.bind(("::" if six else "0.0.0.0", port))
            if protocol == "tcp":
                sock.listen(16)
            return sock

        sock = bind() if sandbox is None else netns.inside(sandbox, bind)
        thread = threading.Thread(target=self._answer, args=(sock, protocol), daemon=True)
        thread.start()

        def stop() -> None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
            thread.join(2)

        self._stack.callback(stop)

    @staticmethod
    def _answer(sock: socket.socket, protocol: str) -> None:
        with contextlib.suppress(OSError):  # closed at the end of the test, at whatever moment
            sock.settimeout(None)
            while True:
                if protocol == "tcp":
                    connection, peer = sock.accept()
                    with connection:
                        connection.sendall(peer[0].encode())
                else:
                    data, peer = sock.recvfrom(64)
                    if not data:
                        return
                    sock.sendto(peer[0].encode(), peer)

    def ask(
        self, sandbox: int | None, address: str, port: int, *, protocol: str = "tcp", patience: float = PATIENCE
    ) -> str | None:
        """What a server answers to a client in ``sandbox`` (None is the host), or None when it cannot be reached."""

        def attempt() -> str | None:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
            with socket.socket(family, kind) as sock:
                sock.settimeout(patience)
                try:
                    sock.connect((address, port))
                    if protocol != "tcp":
                        sock.send(b"?")
                    return sock.recv(64).decode() or None
                except OSError:
                    return None

        return attempt() if sandbox is None else netns.inside(sandbox, attempt)

    def silent(self, sandbox: int | None, address: str, port: int) -> bool:
        """Whether nobody answers a client in ``sandbox`` (None is the host)."""
        return self.ask(sandbox, address, port, patience=MOMENT) is None
