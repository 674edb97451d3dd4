"""Connections to an engine by blocking sockets: unix, tcp, TLS, ssh."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from typing import TYPE_CHECKING

from dockp.remote.calls import Answer, Request
from dockp.remote.endpoint import Address, Endpoint, Tls
from dockp.remote.http import Conversation
from dockp.spi.errors import InvalidArgument, SystemFault, Unavailable

if TYPE_CHECKING:
    import ssl

_PIECE = 1 << 16
_CONNECT_SECONDS = 30.0
_SSH_FALLBACK = "dockp system dial-stdio 2>/dev/null || exec docker system dial-stdio"


class Link:
    """One connection, and the conversation on it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.socket = _connect(endpoint)
        self._conversation = Conversation(endpoint)

    def ask(self, request: Request, version: tuple[int, int]) -> Answer:
        """Send a request, and give status and headers of its answer. Raises: Unavailable, SystemFault; OSErrors of the
        file that is uploaded."""
        self._send(self._conversation.head(request, version))
        if request.upload is not None:
            self._upload(request)
        return self._answer()

    def hijack(self, request: Request, version: tuple[int, int]) -> Answer:
        """As `ask`, and read not a byte more than the headers when the connection becomes a stream (101)."""
        self._send(self._conversation.head(request, version))
        if not _is_plain(self.socket):
            return self._answer()
        while True:
            seen = self._receive(socket.MSG_PEEK)
            end = seen.find(b"\r\n\r\n")
            self._conversation.feed(self.socket.recv(end + 4 if end >= 0 else len(seen)) if seen else b"")
            answer = self._conversation.answer()
            if answer is not None:
                return answer

    def read(self) -> bytes:
        """A piece of the answer's body; b"" at its end. Raises: SystemFault when it was cut short."""
        while (piece := self._conversation.body()) is None:
            self._conversation.feed(self._receive())
        return piece

    def read_all(self) -> bytes:
        pieces = []
        while piece := self.read():
            pieces.append(piece)
        return b"".join(pieces)

    @property
    def rest(self) -> bytes:
        return self._conversation.rest

    def again(self) -> bool:
        """Whether it can carry another request."""
        return self._conversation.again()

    def usable(self) -> bool:
        """Whether it is still open: the server has nothing to say to us but that it closes."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _answer(self) -> Answer:
        while (answer := self._conversation.answer()) is None:
            self._conversation.feed(self._receive())
        return answer

    def _receive(self, flags: int = 0) -> bytes:
        try:
            return self.socket.recv(_PIECE, flags)
        except ConnectionError:
            return b""
        except OSError as error:
            raise SystemFault(f"error during connect: {self.endpoint.host}: {error}") from None

    def _upload(self, request: Request) -> None:
        assert request.upload is not None
        try:
            while piece := request.upload.read(_PIECE):
                self._send(self._conversation.upload(piece))
            self._send(self._conversation.upload_end())
        except Unavailable:
            return  # the server takes no more: its answer says why

    def _send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Unavailable(f"error during connect: {self.endpoint.host}: {error}") from None


def _is_plain(connection: socket.socket) -> bool:
    return type(connection) is socket.socket


def _connect(endpoint: Endpoint) -> socket.socket:
    address = endpoint.address
    try:
        if address.scheme == "unix":
            return _connect_unix(address.path)
        if address.scheme == "ssh":
            return _connect_ssh(endpoint, address)
        connection = socket.create_connection((address.name, address.port), _CONNECT_SECONDS)
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection if endpoint.tls is None else _secure(connection, endpoint.tls, address.name)
    except OSError as error:
        raise unreachable(endpoint, error) from None


def unreachable(endpoint: Endpoint, error: OSError) -> Unavailable:
    """What is said about a connection that could not be made; Docker's words, since tools match on them."""
    if isinstance(error, PermissionError):
        return Unavailable(f"permission denied while trying to connect to the Docker daemon socket at {endpoint.host}")
    if type(error).__module__ == "ssl":
        return Unavailable(f"error during connect: {endpoint.host}: {error}")
    if endpoint.address.scheme == "ssh":
        return Unavailable(f"error during connect: {endpoint.host}: cannot run ssh: {error.strerror}")
    return Unavailable(f"Cannot connect to the Docker daemon at {endpoint.host}. Is the docker daemon running?")


def _connect_unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def ssh_command(endpoint: Endpoint, address: Address) -> list[str]:
    """The command whose standard streams are the connection."""
    command = ["ssh", "-o", "ConnectTimeout=30", "-T", *endpoint.ssh_options]
    if address.user:
        command += ["-l", address.user]
    if address.port:
        command += ["-p", str(address.port)]
    remote = _SSH_FALLBACK
    if address.path:
        import shlex

        host = f"--host {shlex.quote(f'unix://{address.path}')}"
        remote = f"dockp {host} system dial-stdio 2>/dev/null || exec docker {host} system dial-stdio"
    return [*command, "--", address.name, remote]


def _connect_ssh(endpoint: Endpoint, address: Address) -> socket.socket:
    import subprocess

    ours, theirs = socket.socketpair()
    try:
        # In a session of its own: Ctrl-C is for the container, and not for the connection to it.
        process = subprocess.Popen(
            ssh_command(endpoint, address), stdin=theirs.fileno(), stdout=theirs.fileno(), start_new_session=True
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    # It ends with its connection; somebody has to take note of that.
    threading.Thread(target=process.wait, daemon=True).start()
    return ours


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Raises: InvalidArgument for files that cannot be used."""
    import ssl

    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Python 3.13 demands extensions that many hand-made authorities of Docker set-ups do not have.
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.cert or tls.key:
            context.load_cert_chain(tls.cert, tls.key or None)
    except FileNotFoundError as error:
        missing = next((path for path in (tls.ca, tls.cert, tls.key) if path and not os.path.exists(path)), "")
        raise InvalidArgument(f"unable to load TLS files: open {missing}: no such file or directory") from error
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"unable to load TLS files: {error}") from None
    return context


def _secure(connection: socket.socket, tls: Tls, name: str) -> socket.socket:
    try:
        return tls_context(tls).wrap_socket(connection, server_hostname=tls.server_name or name)
    except BaseException:
        connection.close()
        raise


def bridge(link: Link) -> socket.socket:
    """A plain socket whose other end is pumped to a TLS connection, so that it can be polled and half-closed."""
    import ssl

    secured = link.socket
    assert isinstance(secured, ssl.SSLSocket)
    ours, theirs = socket.socketpair()
    if link.rest:
        theirs.sendall(link.rest)
    thread = threading.Thread(target=_pump, args=(secured, theirs), daemon=True)
    thread.start()
    return ours


def _pump(secured: ssl.SSLSocket, plain: socket.socket) -> None:
    """Move bytes both ways until the server ends. One thread: OpenSSL's connections are not for two."""
    import ssl

    secured.setblocking(False)
    inward = outward = b""
    open_input = True
    poll = select.poll()
    try:
        while True:
            poll.register(secured, (0 if inward else select.POLLIN) | (select.POLLOUT if outward else 0))
            poll.register(
                plain, (select.POLLIN if open_input and not outward else 0) | (select.POLLOUT if inward else 0)
            )
            waiting = not inward and secured.pending()
            found = dict(poll.poll(0 if waiting else None))
            gone = found.get(plain.fileno(), 0) & select.POLLHUP
            if gone and not outward and not open_input:
                return
            if open_input and not outward and _readable(plain):
                outward = plain.recv(_PIECE)
                if not outward:
                    open_input = False
                    _close_write(secured)
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if outward:
                    outward = outward[secured.send(outward) :]
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if not inward:
                    inward = secured.recv(_PIECE)
                    if not inward:
                        return
            if inward:
                with contextlib.suppress(BlockingIOError):
                    inward = inward[plain.send(inward, socket.MSG_DONTWAIT) :]
    except (OSError, ValueError):
        return
    finally:
        plain.close()
        secured.close()


def _readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _close_write(secured: ssl.SSLSocket) -> None:
    """Say that no more comes (close_notify) and go on reading.

    OpenSSL writes the alert and then looks for the server's; data that it finds in its place it takes for an error. So
    for this moment the descriptor leads to a socket that has nothing to read.
    """
    import ssl

    decoy, alert = socket.socketpair()
    kept = os.dup(secured.fileno())
    try:
        os.dup2(decoy.fileno(), secured.fileno(), inheritable=False)
        decoy.setblocking(False)
        with contextlib.suppress(ssl.SSLError, OSError):
            secured.unwrap()
    finally:
        os.dup2(kept, secured.fileno(), inheritable=False)
        with socket.socket(fileno=kept) as connection, alert, decoy, contextlib.suppress(OSError):
            connection.setblocking(True)  # thirty bytes, which a full buffer must not lose
            connection.sendall(alert.recv(_PIECE, socket.MSG_DONTWAIT))
        secured.setblocking(False)  # they share the flag
