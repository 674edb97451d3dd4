"""The sockets that a daemon listens on: made from ``-H``, or handed over by systemd."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from dockp.api.daemon.settings import DEFAULT_HOST, split_address
from dockp.spi.errors import InvalidArgument, SystemFault

if TYPE_CHECKING:
    from dockp.api.daemon.settings import Settings

BACKLOG: Final = 4096
_FIRST_HANDED = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
_TCP_PORT, _TLS_PORT = 2375, 2376
_MODE = 0o660
_LONGEST = 107  # bytes of a path in struct sockaddr_un, unix(7)


@frozen
class Listener:
    """One listening socket.

    Attributes:
        address: for the log, as ``unix:///run/dockp.sock``.
        path, inode: of a unix socket that this process made; "" and 0 for others.
    """

    socket: socket.socket
    address: str
    path: str = ""
    inode: int = 0

    @property
    def is_tcp(self) -> bool:
        return self.socket.family != socket.AF_UNIX

    def close(self) -> None:
        """Stop listening; take the name of a unix socket away unless somebody else has it by now."""
        self.socket.close()
        if self.path:
            with contextlib.suppress(OSError):
                if os.stat(self.path, follow_symlinks=False).st_ino == self.inode:
                    os.unlink(self.path)


def open_listeners(settings: Settings, environ: Mapping[str, str]) -> list[Listener]:
    """Listen on everything that ``settings`` name. On failure nothing is left.

    Raises: InvalidArgument, SystemFault: one line, naming the address.
    """
    secure = bool(settings.tls or settings.tlsverify)
    with contextlib.ExitStack() as undo:
        found: list[Listener] = []
        for host in settings.hosts:
            scheme, _, rest = host.partition("://")
            try:
                if scheme == "unix":
                    made = [_unix(rest or DEFAULT_HOST.partition("://")[2], settings.group)]
                elif scheme == "tcp":
                    made = [_tcp(rest, _TLS_PORT if secure else _TCP_PORT)]
                else:
                    made = _handed_over(rest, environ)
            except OSError as error:
                raise SystemFault(f"cannot listen on {host}: {(error.strerror or str(error)).lower()}") from error
            for listener in made:
                undo.callback(listener.close)
            found += made
        undo.pop_all()
    return found


def tls_context(settings: Settings, environ: Mapping[str, str]) -> ssl.SSLContext | None:
    """What clients over TCP must speak; None for plain text.

    TCP without client certificates gives root to whoever can connect, so it must be asked for: by
    ``allow-insecure-tcp``, or as dockerd has it, by ``tls`` or ``tlsverify`` that are false in so many words.

    Raises: InvalidArgument.
    """
    told_so = settings.allow_insecure_tcp or settings.tlsverify is False or settings.tls is False
    if not (settings.tls or settings.tlsverify):
        if not told_so:
            raise InvalidArgument(
                "TCP without TLS gives root to everybody who can connect: "
                "use --tlsverify with --tlscacert, --tlscert and --tlskey, or say --allow-insecure-tcp"
            )
        return None
    if not settings.tlsverify and not told_so:
        raise InvalidArgument(
            "--tls without --tlsverify gives root to everybody who can connect: "
            "use --tlsverify, or say --allow-insecure-tcp"
        )
    usual = environ.get("DOCKER_CERT_PATH") or os.path.join(environ.get("HOME") or "/root", ".docker")
    certificate = settings.tlscert or os.path.join(usual, "cert.pem")
    key = settings.tlskey or os.path.join(usual, "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(
            f'invalid TLS configuration: could not load X509 key pair (cert: "{certificate}", key: "{key}"): '
            f"{error.strerror or error}"
        ) from None
    if settings.tlsverify:
        authority = settings.tlscacert or os.path.join(usual, "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(authority)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(
                f'invalid TLS configuration: could not read CA certificate "{authority}": {error.strerror or error}'
            ) from None
    return context


def _unix(path: str, group: str) -> Listener:
    if not os.path.isabs(path):
        raise InvalidArgument(f"cannot listen on unix://{path}: it must be an absolute path")
    owner = _group_id(group) if group else 0
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody else may use it before it has its group: the mode of the descriptor is that of the name (unix(7)).
        os.fchmod(listener.fileno(), 0o600)
        _bind(listener, path)
        os.chown(path, 0, owner, follow_symlinks=False)
        os.chmod(path, _MODE)
        listener.listen(BACKLOG)
        return Listener(listener, f"unix://{path}", path, os.stat(path).st_ino)
    except BaseException:
        listener.close()
        raise


def _bind(listener: socket.socket, path: str) -> None:
    if len(os.fsencode(path)) <= _LONGEST:
        listener.bind(path)
        return
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.close(directory)


def _clear(path: str) -> None:
    """Take away the socket of a daemon that is dead."""
    try:
        kind = os.stat(path, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise InvalidArgument(f"cannot listen on unix://{path}: there is something else of this name")
    from dockp.supervisor.launch import connect_in

    answer = connect_in(Path(path).parent, os.path.basename(path))
    if answer is not None:
        answer.close()
        raise InvalidArgument(f"cannot listen on unix://{path}: another daemon listens there")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _group_id(name: str) -> int:
    import grp

    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise InvalidArgument(f"group {name} not found") from None


def _tcp(address: str, default_port: int) -> Listener:
    host, port = split_address(address, default_port)
    listener = listen_tcp(host, port)
    bound = listener.getsockname()
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    return Listener(listener, f"tcp://{shown}:{bound[1]}")


def listen_tcp(host: str, port: int) -> socket.socket:
    """Listen on one address, or with host "" on all of them, IPv4 and IPv6. Raises OSError."""
    if not host:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
        return socket.create_server(("", port), backlog=BACKLOG)
    # A name may have several addresses; the first IPv4 one is what Go's net.Listen takes.
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = min(found, key=lambda item: item[0] != socket.AF_INET)
    return socket.create_server(where[:2], family=family, backlog=BACKLOG)


def _handed_over(name: str, environ: Mapping[str, str]) -> list[Listener]:
    """Sockets from systemd: all of them for ``fd://``, or the one with that name or number."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit() or not int(count):
        raise InvalidArgument(
            "no sockets found via socket activation: make sure the service was started by systemd (fd://)"
        )
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    numbers = range(_FIRST_HANDED, _FIRST_HANDED + int(count))
    wanted = [
        number
        for position, number in enumerate(numbers)
        if name in ("", "*", str(number)) or (position < len(names) and name == names[position])
    ]
    if not wanted:
        raise InvalidArgument(f"could not find the socket {name} among those from systemd")
    found = []
    for number in wanted:
        os.set_inheritable(number, False)
        listener = socket.socket(fileno=number)
        listener.listen(BACKLOG)
        where = listener.getsockname()
        found.append(
            Listener(
                listener,
                f"fd://{where}" if listener.family == socket.AF_UNIX else f"fd://{where[0]}:{where[1]}",
            )
        )
    return found
