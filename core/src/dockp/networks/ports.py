"""Published ports: the forms of ``-p`` and ``--expose``, and the reservation of host ports.

The forms, their order of checks and their messages are the Docker CLI's, since people and tools know them:
``[[HOST_IP:][HOST_PORT]:]CONTAINER_PORT[/PROTOCOL]``, ports as ``N`` or ``N-M``, and
``published=…,target=…,protocol=…``.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import TypeAlias

from dockp.spi.errors import Conflict, InvalidArgument, SystemFault

PortBindings: TypeAlias = dict[str, list[dict[str, str]]]
"""Docker's ``PortBindings``: ``{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}``. ``HostPort`` may be "" for any, or a
range to choose from."""

PROTOCOLS = ("tcp", "udp", "sctp")
_NUMBER = re.compile(r"[0-9]+")
_IPPROTO_SCTP = 132


def parse_publish(specs: Iterable[str]) -> tuple[set[str], PortBindings]:
    """What ``-p`` values mean: the ports to expose (``"80/tcp"``) and their bindings. Raises: InvalidArgument."""
    exposed: set[str] = set()
    bindings: PortBindings = {}
    for spec in [_standard_form(spec) for spec in specs]:
        for port, binding in _parse_spec(spec):
            exposed.add(port)
            bindings.setdefault(port, []).append(binding)
    return exposed, bindings


def parse_expose(specs: Iterable[str]) -> set[str]:
    """What ``--expose`` values mean. Raises: InvalidArgument."""
    exposed: set[str] = set()
    for spec in specs:
        if ":" in spec:
            raise InvalidArgument(f"invalid port format for --expose: {spec}")
        protocol, ports = _split_protocol(spec)
        try:
            first, last = port_range(ports)
        except ValueError as exc:
            raise InvalidArgument(f"invalid range format for --expose: {spec}, error: {exc}") from None
        if protocol.lower() not in PROTOCOLS:
            raise InvalidArgument(f"invalid proto: {protocol}")
        exposed.update(f"{number}/{protocol.lower()}" for number in range(first, last + 1))
    return exposed


def port_range(text: str) -> tuple[int, int]:
    """``"80"`` or ``"80-90"`` as first and last. Raises: ValueError."""
    if not text:
        raise ValueError("empty string specified for ports")
    first, dash, last = text.partition("-")
    start = _port_number(first)
    end = _port_number(last) if dash else start
    if end < start:
        raise ValueError(f"invalid range specified for port: {text}")
    return start, end


def split_port(port: str) -> tuple[int, str]:
    """``"80/tcp"`` as number and protocol. Raises: InvalidArgument."""
    protocol, number = _split_protocol(port)
    try:
        found = _port_number(number)
    except ValueError as exc:
        raise InvalidArgument(f"invalid port specification: {port!r} ({exc})") from None
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}")
    return found, protocol


def _port_number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"invalid port '{text}': invalid syntax")
    number = int(text)
    if number > 65535:
        raise ValueError(f"invalid port '{text}': value out of range")
    return number


def _standard_form(spec: str) -> str:
    if "=" not in spec:
        return spec
    values = {"protocol": "tcp", "published": "", "target": ""}
    for part in spec.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise InvalidArgument(f"invalid publish opts format (should be name=value but got '{part}')")
        values[key] = value
    return f"{values['published']}:{values['target']}/{values['protocol']}"


def _split_protocol(text: str) -> tuple[str, str]:
    port, _, protocol = text.partition("/")
    return (protocol or "tcp", port) if port else ("", "")


def _parse_spec(spec: str) -> list[tuple[str, dict[str, str]]]:
    *before, container = spec.split(":")
    host_port = before.pop() if before else ""
    host_ip = ":".join(before)
    protocol, container = _split_protocol(container)
    if not container:
        raise InvalidArgument(f"no port specified: {spec}<empty>")
    protocol = protocol.lower()
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}")
    host_ip = _host_address(host_ip)
    try:
        first, last = port_range(container)
    except ValueError:
        raise InvalidArgument(f"invalid containerPort: {container}") from None
    host_first = host_last = 0
    if host_port:
        try:
            host_first, host_last = port_range(host_port)
        except ValueError:
            raise InvalidArgument(f"invalid hostPort: {host_port}") from None
        if last - first != host_last - host_first and last != first:
            raise InvalidArgument(f"invalid ranges specified for container and host Ports: {container} and {host_port}")
    found = []
    for offset in range(last - first + 1):
        chosen = str(host_first + offset) if host_port else ""
        if host_port and first == last and host_first != host_last:
            chosen = f"{host_first}-{host_last}"
        found.append((f"{first + offset}/{protocol}", {"HostIp": host_ip, "HostPort": chosen}))
    return found


def _host_address(text: str) -> str:
    if text.startswith("["):
        if not text.endswith("]"):
            raise InvalidArgument(f"invalid IP address {text}: missing ']' in address")
        text = text[1:-1]
    if not text:
        return ""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None
    return text


def parse_host_port(text: str) -> tuple[int, int]:
    """``HostPort`` of a binding as first and last; ``(0, 0)`` for any. Raises: InvalidArgument."""
    if not text:
        return 0, 0
    try:
        return port_range(text)
    except ValueError:
        raise InvalidArgument(f"invalid hostPort: {text}") from None


class PortInUse(Conflict):
    """A host port could not be bound. ``host_ip``, ``host_port`` (0 when a range or any was asked for)."""

    def __init__(self, host_ip: str, host_port: int, protocol: str) -> None:
        super().__init__(f"host port {join_host(host_ip, host_port)}/{protocol} is in use")
        self.host_ip = host_ip
        self.host_port = host_port
        self.protocol = protocol


def join_host(host_ip: str, port: int | str) -> str:
    """``127.0.0.1:80``, ``[::1]:80``."""
    return f"[{host_ip}]:{port}" if ":" in host_ip else f"{host_ip}:{port}"


def reserve(host_ip: str, host_port: str, protocol: str) -> tuple[socket.socket, int]:
    """Hold a port of the host by a bound socket that nobody listens on, until it is closed.

    Nothing ever arrives there while the port is published, since packets are redirected before; the socket keeps
    other programs, and other engines, from taking the port, and goes with the process that holds it.

    Args: host_port: ``""`` for any, ``"8080"``, or a range ``"8000-8010"`` to choose from.
    Raises: PortInUse; InvalidArgument when the host has no such address; SystemFault.
    """
    first, last = parse_host_port(host_port)
    if first == last == 0:
        sock = _bind(host_ip, 0, protocol)
        return sock, sock.getsockname()[1]
    for number in range(first, last + 1):
        try:
            return _bind(host_ip, number, protocol), number
        except PortInUse:
            if first == last:
                raise
    raise PortInUse(host_ip, 0, protocol)


def _bind(host_ip: str, number: int, protocol: str) -> socket.socket:
    try:
        return _plain_bind(host_ip, number, protocol)
    except OSError as exc:
        if exc.errno == errno.EADDRNOTAVAIL:
            raise InvalidArgument(
                f"failed to bind host port for {join_host(host_ip, number)}/{protocol}:"
                " cannot assign requested address: this host has no such address"
            ) from None
        if exc.errno != errno.EADDRINUSE:
            raise SystemFault(
                f"failed to bind host port {join_host(host_ip, number)}/{protocol}: {exc.strerror}"
            ) from exc
    if protocol == "tcp":
        with contextlib.suppress(OSError):
            return _bind_over_finished_connections(host_ip, number)
    raise PortInUse(host_ip, number, protocol)


def _socket(host_ip: str, protocol: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
    kind, number = {
        "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
        "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
        "sctp": (socket.SOCK_STREAM, _IPPROTO_SCTP),
    }[protocol]
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, number)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def _plain_bind(host_ip: str, number: int, protocol: str) -> socket.socket:
    sock = _socket(host_ip, protocol)
    try:
        sock.bind((host_ip, number))
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_over_finished_connections(host_ip: str, number: int) -> socket.socket:
    """Bind a port whose only users are connections in TIME_WAIT, which a plain bind is refused over.

    SO_REUSEADDR passes them, but passes other reusing sockets that do not listen as well (socket(7)); so listen, which
    nobody else may then do, and take the permission back before ceasing to listen. The socket stays bound.
    """
    sock = _socket(host_ip, "tcp")
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host_ip, number))
        sock.listen(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        sock.shutdown(socket.SHUT_RDWR)
    except BaseException:
        sock.close()
        raise
    return sock
