"""TLS and ssh."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from peer import Peer, answer

from dockp.aio.remote import RemoteEngine as AsyncEngine
from dockp.remote.endpoint import Endpoint, Tls, parse_host
from dockp.remote.engine import RemoteEngine
from dockp.remote.links import ssh_command
from dockp.spi.errors import DockpError, InvalidArgument, Unavailable

UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl (package openssl)")


def _openssl(*arguments: str, input: bytes = b"") -> None:
    subprocess.run(["openssl", *arguments], input=input, check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates of a server and a client that it signed."""
    place = tmp_path_factory.mktemp("tls")
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl(*new, "-x509", "-subj", "/CN=authority", "-keyout", f"{place}/ca-key.pem", "-out", f"{place}/ca.pem")
    for name in ("server", "client"):
        _openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{place}/{name}-key.pem", "-out", f"{place}/{name}.csr")
        (place / "names").write_text("subjectAltName=IP:127.0.0.1")
        _openssl(
            "x509", "-req", "-in", f"{place}/{name}.csr", "-CA", f"{place}/ca.pem", "-CAkey", f"{place}/ca-key.pem",
            "-CAcreateserial", "-extfile", f"{place}/names", "-out", f"{place}/{name}.pem",
        )  # fmt: skip
    return place


@pytest.fixture
def secure(certificates: Path, tmp_path: Path) -> Peer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server-key.pem")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return Peer(tmp_path / "unused", context)


def _engine(peer: Peer, certificates: Path, **changes: object) -> RemoteEngine:
    files = {"ca": certificates / "ca.pem", "cert": certificates / "client.pem", "key": certificates / "client-key.pem"}
    tls = Tls(**{**{name: str(path) for name, path in files.items()}, **changes})  # type: ignore[arg-type]
    return RemoteEngine(Endpoint(host=peer.host, tls=tls))


def test_both_sides_show_their_certificates(secure: Peer, certificates: Path) -> None:
    secure.on("GET /info", answer(b'{"ID": "x"}'))
    with _engine(secure, certificates) as engine:
        assert engine.system.info() == {"ID": "x"}


def test_a_server_of_another_authority_is_refused_unless_any_will_do(secure: Peer, certificates: Path) -> None:
    with _engine(secure, certificates, ca=str(certificates / "client.pem")) as engine, pytest.raises(Unavailable):
        engine.system.info()
    secure.on("GET /info", answer(b"{}"))
    with _engine(secure, certificates, ca="", verify=False) as engine:
        assert engine.system.info() == {}


def test_a_client_without_a_certificate_is_refused(secure: Peer, certificates: Path) -> None:
    with (
        _engine(secure, certificates, cert="", key="") as engine,
        pytest.raises(DockpError),
    ):
        engine.system.info()


def test_a_missing_file_is_named(secure: Peer, certificates: Path) -> None:
    with (
        _engine(secure, certificates, ca="/no/ca.pem") as engine,
        pytest.raises(InvalidArgument, match=r"open /no/ca\.pem: no such file or directory"),
    ):
        engine.system.info()


def test_an_attached_stream_goes_both_ways_and_is_half_closed(secure: Peer, certificates: Path) -> None:
    size = 1 << 20

    def talk(connection: socket.socket) -> None:
        connection.sendall(UPGRADED + b"early")
        count = 0
        while piece := connection.recv(65536):
            count += len(piece)
        connection.sendall(b" %d" % count + b"." * size)

    secure.on("POST /containers/box/attach", talk)
    secure.on("GET /containers/box/json", answer(b'{"Config": {"Tty": false}}'))
    with _engine(secure, certificates) as engine:
        stream = engine.containers.attach("box", stdin=True, stdout=True, stderr=True)
        data = b"x" * size
        while data:
            data = data[stream.send(data) :]
        stream.close_stdin()
        out = bytearray()
        while piece := stream.recv(65536):
            out += piece
        assert bytes(out) == b"early %d" % size + b"." * size
        stream.close()


def test_an_asynchronous_stream_is_half_closed_too(secure: Peer, certificates: Path) -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(UPGRADED)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        connection.sendall(b"got " + received)

    secure.on("POST /exec/e/start", talk)

    async def main() -> bytes:
        with _engine(secure, certificates) as blocking:
            endpoint = blocking.endpoint
        async with AsyncEngine(endpoint) as engine:
            assert await engine.version() == (1, 44)
            stream = await engine.containers.exec_start("e", tty=False)
            assert stream is not None
            await stream.send(b"input")
            await stream.close_stdin()
            out = b""
            while piece := await stream.recv():
                out += piece
            await stream.close()
            return out

    assert asyncio.run(main()) == b"got input"


def test_ssh_runs_the_dialler_on_the_other_side() -> None:
    endpoint = Endpoint(host="ssh://me@far:2222/run/other.sock", ssh_options=("-i", "key"))
    command = ssh_command(endpoint, endpoint.address)
    assert command[:-1] == ["ssh", "-o", "ConnectTimeout=30", "-T", "-i", "key", "-l", "me", "-p", "2222", "--", "far"]
    assert "dockp --host unix:///run/other.sock system dial-stdio" in command[-1]
    assert "exec docker --host unix:///run/other.sock system dial-stdio" in command[-1]


def test_a_connection_by_ssh(peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An ssh that goes nowhere: what would run on the other side runs here, on a machine that has only "docker".
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh").write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    (programs / "dockp").write_text("#!/bin/sh\nexit 127\n")
    dial = Path(__file__).parent / "dial.py"
    (programs / "docker").write_text(f"#!/bin/sh\nexec python3 {dial} {peer.host.removeprefix('unix://')}\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    peer.on("GET /info", answer(b'{"ID": "far"}'))
    with RemoteEngine(Endpoint(host="ssh://far")) as engine:
        assert engine.system.info() == {"ID": "far"}


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("unix:///run/x.sock", "unix /run/x.sock  0 "),
        ("unix://", "unix /var/run/docker.sock  0 "),
        ("tcp://far", "tcp  far 2375 "),
        ("tcp://far:1", "tcp  far 1 "),
        ("far:1", "tcp  far 1 "),
        ("tcp://[::1]:1", "tcp  ::1 1 "),
        ("https://far", "tcp  far 2376 "),
        ("ssh://far", "ssh  far 0 "),
        ("ssh://me@far:22", "ssh  far 22 me"),
    ],
)
def test_hosts_are_read(host: str, shown: str) -> None:
    address = parse_host(host)
    assert f"{address.scheme} {address.path} {address.name} {address.port} {address.user}" == shown


@pytest.mark.parametrize(
    "host",
    [
        "foo://x",
        "tcp://x:99999",
        "tcp://x:no",
        "tcp://me@x",
        "tcp://x/path",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://a:b@c",
    ],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_host(host)
