"""``-p`` means what it means to Docker's command line; host ports are held."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockp.networks import ports
from dockp.spi.errors import InvalidArgument
from dockp.testkit.network import in_private_namespace


@pytest.mark.parametrize(
    ("spec", "port", "host_ip", "host_port"),
    [
        ("80", "80/tcp", "", ""),
        ("80/udp", "80/udp", "", ""),
        ("80/TCP", "80/tcp", "", ""),
        (":80", "80/tcp", "", ""),
        ("8080:80", "80/tcp", "", "8080"),
        ("8080:80/sctp", "80/sctp", "", "8080"),
        ("0:80", "80/tcp", "", "0"),
        ("127.0.0.1:8080:80", "80/tcp", "127.0.0.1", "8080"),
        ("127.0.0.1::80", "80/tcp", "127.0.0.1", ""),
        ("[::1]:8080:80", "80/tcp", "::1", "8080"),
        ("::1:8080:80", "80/tcp", "::1", "8080"),
        ("[::]::80/udp", "80/udp", "::", ""),
        ("8000-8010:80", "80/tcp", "", "8000-8010"),
        ("published=8080,target=80", "80/tcp", "", "8080"),
        ("target=53,protocol=udp", "53/udp", "", ""),
    ],
)
def test_one_port(spec: str, port: str, host_ip: str, host_port: str) -> None:
    assert ports.parse_publish([spec]) == ({port}, {port: [{"HostIp": host_ip, "HostPort": host_port}]})


def test_ranges_pair_up() -> None:
    exposed, bindings = ports.parse_publish(["8000-8002:80-82/udp"])
    assert exposed == {"80/udp", "81/udp", "82/udp"}
    assert [bindings[port][0]["HostPort"] for port in ("80/udp", "81/udp", "82/udp")] == ["8000", "8001", "8002"]
    _, bindings = ports.parse_publish(["80-81"])
    assert bindings == {port: [{"HostIp": "", "HostPort": ""}] for port in ("80/tcp", "81/tcp")}


def test_one_port_may_be_published_several_times() -> None:
    _, bindings = ports.parse_publish(["8080:80", "8081:80", "127.0.0.1:9:80"])
    assert [binding["HostPort"] for binding in bindings["80/tcp"]] == ["8080", "8081", "9"]


# As the Docker command line 28.2 answers, word for word.
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("abc", "invalid containerPort: abc"),
        ("80-79", "invalid containerPort: 80-79"),
        ("-1", "invalid containerPort: -1"),
        ("65536", "invalid containerPort: 65536"),
        ("99999:80", "invalid hostPort: 99999"),
        ("a:80", "invalid hostPort: a"),
        ("8080:", "no port specified: 8080:<empty>"),
        (":", "no port specified: :<empty>"),
        ("", "no port specified: <empty>"),
        ("80/foo", "invalid proto: foo"),
        ("1-2:80-85", "invalid ranges specified for container and host Ports: 80-85 and 1-2"),
        ("300.1.1.1:80:80", "invalid IP address: 300.1.1.1"),
        ("localhost:80:80", "invalid IP address: localhost"),
        ("1:2:3:4", "invalid IP address: 1:2"),
        ("published=1,c", "invalid publish opts format (should be name=value but got 'c')"),
    ],
)
def test_what_is_malformed_is_refused_in_dockers_words(spec: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        ports.parse_publish([spec])
    assert str(caught.value) == message


@given(st.text(alphabet="0123456789:-/[]=,.abctpud", max_size=24))
def test_anything_else_is_refused_too_and_never_breaks(spec: str) -> None:
    try:
        exposed, bindings = ports.parse_publish([spec])
    except InvalidArgument:
        return
    assert exposed == set(bindings)
    for port in exposed:
        number, protocol = ports.split_port(port)
        assert 0 <= number <= 65535
        assert protocol in ports.PROTOCOLS


def test_exposed_ports() -> None:
    assert ports.parse_expose(["80", "53/udp", "8000-8001"]) == {"80/tcp", "53/udp", "8000/tcp", "8001/tcp"}
    for spec, message in (
        ("80:80", "invalid port format for --expose: 80:80"),
        ("x", "invalid range format for --expose: x, error: invalid port 'x': invalid syntax"),
        ("80/foo", "invalid proto: foo"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            ports.parse_expose([spec])
        assert str(caught.value) == message


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("host_ip", ["0.0.0.0", "127.0.0.1", "::"])
@in_private_namespace
def test_a_reserved_port_cannot_be_taken_again(protocol: str, host_ip: str) -> None:
    with ExitStack() as stack:
        sock, port = ports.reserve(host_ip, "8080", protocol)
        stack.enter_context(sock)
        assert port == 8080
        with pytest.raises(ports.PortInUse):
            ports.reserve(host_ip, "8080", protocol)
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        server = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in host_ip else socket.AF_INET, kind))
        with pytest.raises(OSError, match="in use"):
            server.bind((host_ip, 8080))
    ports.reserve(host_ip, "8080", protocol)[0].close()


@in_private_namespace
def test_a_server_that_reuses_addresses_cannot_listen_on_a_reserved_port() -> None:
    sock, _ = ports.reserve("0.0.0.0", "8080", "tcp")
    with sock, socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            _serve(server)


def _serve(server: socket.socket) -> None:
    server.bind(("0.0.0.0", 8080))
    server.listen()


@in_private_namespace
def test_nobody_answers_on_a_reserved_port() -> None:
    sock, port = ports.reserve("0.0.0.0", "", "tcp")
    with sock, socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0


@in_private_namespace
def test_a_port_with_only_finished_connections_can_be_reserved_and_is_then_held() -> None:
    with socket.create_server(("127.0.0.1", 8080)) as server, socket.create_connection(("127.0.0.1", 8080)) as client:
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first keeps the port in TIME_WAIT
        assert client.recv(1) == b""
    plain = socket.socket()
    with plain, pytest.raises(OSError, match="in use"):
        plain.bind(("0.0.0.0", 8080))
    sock, _ = ports.reserve("0.0.0.0", "8080", "tcp")
    with sock:
        with pytest.raises(ports.PortInUse):
            ports.reserve("0.0.0.0", "8080", "tcp")
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", 8080)) != 0


@in_private_namespace
def test_a_range_gives_the_first_free_port() -> None:
    with ExitStack() as stack:
        found = []
        for _ in range(3):
            sock, port = ports.reserve("0.0.0.0", "8000-8002", "tcp")
            stack.enter_context(sock)
            found.append(port)
        assert found == [8000, 8001, 8002]
        with pytest.raises(ports.PortInUse):
            ports.reserve("0.0.0.0", "8000-8002", "tcp")


@in_private_namespace
def test_an_address_the_host_lacks_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"192\.0\.2\.1:80.*no such address"):
        ports.reserve("192.0.2.1", "80", "tcp")
