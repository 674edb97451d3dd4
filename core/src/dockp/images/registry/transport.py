"""One request to a registry, and to where it leads: connections, redirects, retries, and Docker's words for failures.

Nobody here can keep a thread for ever: connecting, each read, and an answer's head as a whole have a time limit; waits
are bounded and end when the transport is closed. Credentials go to the host they were meant for and are dropped on the
way to another one.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import functools
import os
import random
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import urldefrag, urljoin, urlsplit

import urllib3
from urllib3 import exceptions as broken
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from dockp import __version__
from dockp.images.registry.endpoints import Endpoint, proxy_for, tls_context
from dockp.spi.errors import Unavailable
from dockp.spi.images import RegistrySettings

Response = urllib3.BaseHTTPResponse
Body = bytes | BinaryIO | None

PAUSE = 0.5
"""Seconds before the first retry; each further one waits twice as long."""

_REDIRECTS = 10
_TRIES = 4
_LONGEST_WAIT = 60.0
"""Seconds that are waited on a registry's word in all. When it asks for more, the caller hears of it instead."""
_CONNECTIONS = 8
_DRAINED = 64 << 10
"""Bytes of an unwanted body that are read to keep a connection; with more it is cheaper to make a new one."""
_MOVED = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({429, 500, 502, 503, 504})
_IDEMPOTENT = frozenset({"GET", "HEAD"})


class Unreachable(Unavailable):
    """No answer, or none that can be understood. ``connected``: it failed later than on connecting."""

    def __init__(self, message: str, *, connected: bool = False) -> None:
        super().__init__(message)
        self.connected = connected


class Transport:
    """Connections to one endpoint and to the hosts it leads to. Thread-safe. Close it at the end."""

    def __init__(self, endpoint: Endpoint, settings: RegistrySettings) -> None:
        self._endpoint = endpoint
        self._stall = settings.stall_timeout
        self._environ = {**os.environ, **settings.proxies}
        self._closed = threading.Event()
        self._guard = threading.Lock()
        self._managers: dict[tuple[str, str, bool], urllib3.PoolManager] = {}
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self._connections: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()

    def send(self, method: str, url: str, *, headers: Mapping[str, str], body: Body = None) -> Response:
        """Ask, and follow redirects; the answer's body is not read yet: end with `finish`, `read` or a `BlobStream`.

        Tried again, after a pause, when the connection breaks or the server is busy; not with a body that is a stream.
        Raises: Unreachable.
        """
        again, patience = method in _IDEMPOTENT, _LONGEST_WAIT
        for remaining in reversed(range(_TRIES)):
            pause = PAUSE * 2.0 ** (_TRIES - 1 - remaining) * (1 + random.random() / 4)
            try:
                response = self._follow(method, url, dict(headers), body)
            except Unreachable as error:
                if not (again and error.connected and remaining):
                    raise
            else:
                busy = response.status in _BUSY if again else response.status == 429 and not hasattr(body, "read")
                asked = retry_after(response)
                pause = pause if asked is None else asked
                if not busy or not remaining or pause > patience:
                    return response
                patience -= pause
                finish(response)
            self.wait(pause, method, url)
        raise AssertionError("the last attempt returns or raises")

    def wait(self, seconds: float, method: str, url: str) -> None:
        """Sleep, unless the transport is closed. Raises: Unreachable when it is."""
        if self._closed.wait(seconds):
            raise Unreachable(f"{spelled(method, url)}: context canceled")

    def close(self) -> None:
        """End waits, and reads that go on in other threads; close connections."""
        self._closed.set()
        with self._guard:
            for connection in list(self._connections):
                if connection.sock is not None:
                    _shut(connection.sock)
            for manager in self._managers.values():
                manager.clear()

    def _follow(self, method: str, url: str, headers: dict[str, str], body: Body) -> Response:
        first, origin = url, origin_of(url)
        for _ in range(_REDIRECTS + 1):
            response = self._once(method, url, headers, body)
            location = response.headers.get("Location")
            if response.status not in _MOVED or not location or not self._may_follow(method, response.status, body):
                return response
            finish(response)
            url = joined(url, location, spelled(method, first))
            if origin_of(url) != origin:
                headers.pop("Authorization", None)
                if body:
                    # It may be a secret itself.
                    raise Unreachable(f"{spelled(method, first)}: redirected to another host")
        raise Unreachable(f"{spelled(method, first)}: stopped after {_REDIRECTS} redirects")

    @staticmethod
    def _may_follow(method: str, status: int, body: Body) -> bool:
        return method in _IDEMPOTENT or (status in (307, 308) and not hasattr(body, "read"))

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: Body) -> Response:
        if self._closed.is_set():
            raise Unreachable(f"{spelled(method, url)}: context canceled")
        with translated(method, url):
            response = self._manager(url).request(
                method,
                url,
                # As they are: a blob's digest is of the bytes that were stored.
                headers={"Accept-Encoding": "identity", "User-Agent": _user_agent(), **headers},
                body=body,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=self._stall, read=self._stall),
            )
            response.url = url  # urllib3 leaves the path alone there
            return response

    def _manager(self, url: str) -> urllib3.PoolManager:
        """The connections for a URL: by its scheme, the proxy that leads there, and whether it is the registry's."""
        scheme = origin_of(url)[0]
        own = origin_of(url)[1:] == origin_of(self._endpoint.url)[1:]
        proxy = proxy_for(url, self._environ)
        with self._guard:
            manager = self._managers.get((scheme, proxy, own))
            if manager is None:
                options: dict[str, Any] = {"num_pools": 4, "maxsize": _CONNECTIONS, "block": False}
                if scheme == "https":
                    options["ssl_context"] = self._context(own)
                manager = _proxied(proxy, options) if proxy else urllib3.PoolManager(**options)
                manager.pool_classes_by_scheme = {
                    "http": self._limited(HTTPConnectionPool, HTTPConnection),
                    "https": self._limited(HTTPSConnectionPool, HTTPSConnection),
                }
                self._managers[scheme, proxy, own] = manager
            return manager

    def _limited(self, pool: Any, connection: Any) -> Any:
        """A kind of connection pool whose connections give up when an answer's head takes too long as a whole.

        The time limit of the socket is one of each read, and so never ends when a byte comes now and then.
        """
        seconds, keep = self._stall * 2, self._keep

        class Limited(connection):  # type: ignore[misc]
            def connect(self) -> None:
                super().connect()
                keep(self)
                # Where a certificate need not be good somebody has said so, and is not to be warned at each request.
                self.is_verified = True

            def getresponse(self) -> Any:
                late = threading.Event()

                def give_up(sock: socket.socket) -> None:
                    late.set()
                    _shut(sock)

                timer = threading.Timer(seconds, give_up, [self.sock])
                timer.daemon = True
                timer.start()
                try:
                    response = super().getresponse()
                finally:
                    timer.cancel()
                    if late.is_set():
                        self.close()
                        # What there is of the head would pass for the whole.
                        raise TimeoutError
                return response

        return type(pool.__name__, (pool,), {"ConnectionCls": Limited})

    def _keep(self, connection: HTTPConnection) -> None:
        """Know of a connection, to end it when the transport is closed."""
        with self._guard:
            self._connections.add(connection)
            if self._closed.is_set():
                _shut(connection.sock)

    def _context(self, own: bool) -> ssl.SSLContext:
        context = self._contexts.get(own)
        if context is None:
            # What the host trusts holds for hosts that it leads to; the client's certificate is not for them.
            context = tls_context(self._endpoint.folders, verified=self._endpoint.verified, client=own)
            self._contexts[own] = context
        return context


def read(response: Response, limit: int, method: str, url: str, seconds: float = 120.0) -> bytes:
    """A body that should be small; one byte more than ``limit`` when it is longer. Raises: Unreachable."""
    data, deadline = bytearray(), time.monotonic() + seconds
    with translated(method, url):
        while len(data) <= limit and (part := response.read1(min(limit + 1 - len(data), 1 << 18))):
            data += part
            if time.monotonic() > deadline:
                response.close()
                raise Unreachable(
                    f"{spelled(method, url)}: context deadline exceeded while reading body", connected=True
                )
    if len(data) > limit:
        response.close()
    else:
        response.release_conn()
    return bytes(data)


def finish(response: Response) -> None:
    """Let go of an answer whose body nobody wants."""
    with contextlib.suppress(broken.HTTPError, OSError):
        length = response.headers.get("Content-Length") or ""
        if length.isdigit() and int(length) <= _DRAINED:
            response.read(_DRAINED)
            response.release_conn()
            return
    response.close()


def joined(url: str, location: str, request: str) -> str:
    """Where an answer leads, seen from ``url``. ``request``: for messages. Raises: Unreachable for what is no URL."""
    try:
        target = urldefrag(urljoin(url, location))[0]
        scheme, host, _ = origin_of(target)
    except ValueError:
        raise Unreachable(f"{request}: failed to parse Location header {location[:200]!r}") from None
    if scheme not in ("http", "https") or not host:
        raise Unreachable(f'{request}: unsupported protocol scheme "{scheme}"')
    return target


def retry_after(response: Response) -> float | None:
    """Seconds that the answer asks to wait: RFC 9110, 10.2.3. None when it does not, or not in a way to understand."""
    text = (response.headers.get("Retry-After") or "")[:64].strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None


def spelled(method: str, url: str) -> str:
    """``Get "https://…"``, as Docker's messages begin. What a URL says after "?" may be a secret."""
    parts = urlsplit(url)
    shown = url.partition("?")[0].replace(f"{parts.username}:{parts.password}@", "")
    return f'{method.capitalize()} "{shown}"'


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: whom credentials are for."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


@contextlib.contextmanager
def translated(method: str, url: str) -> Iterator[None]:
    """What goes wrong underneath, as `Unreachable` in the words of Go's net/http, which people search for."""
    try:
        yield
    except (broken.HTTPError, OSError, ValueError) as error:
        connecting = isinstance(
            error,
            broken.NewConnectionError | broken.ConnectTimeoutError | broken.SSLError | broken.ProxyError | ssl.SSLError,
        ) or not isinstance(error, broken.HTTPError | OSError)
        # That nobody is there is said of the registry, whatever was wanted from it.
        base, registry, _ = url.partition("/v2/")
        shown = spelled("GET", base + registry) if connecting and registry else spelled(method, url)
        raise Unreachable(f"{shown}: {_words(error, url)}", connected=not connecting) from error


def _words(error: BaseException, url: str) -> str:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    cause = _root(error)
    if isinstance(error, broken.ProxyError):
        return f"proxyconnect tcp: {_system_words(cause) or cause}"
    if isinstance(error, broken.NameResolutionError) or isinstance(cause, socket.gaierror):
        return f"dial tcp: lookup {host}: no such host"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {_certificate_words(cause, host)}"
    if _speaks_plainly(error):
        return "http: server gave HTTP response to HTTPS client"
    if isinstance(cause, ssl.SSLError):
        return f"remote error: tls: {(cause.reason or str(cause)).lower().replace('_', ' ')}"
    if isinstance(error, broken.ConnectTimeoutError) and not isinstance(error, broken.NewConnectionError):
        return f"dial tcp {place}: i/o timeout"
    if isinstance(error, broken.NewConnectionError):
        return f"dial tcp {place}: connect: {_system_words(cause) or cause}"
    if isinstance(error, broken.ReadTimeoutError | TimeoutError):
        return "net/http: timeout awaiting response: the server sends nothing"
    if isinstance(error, broken.ProtocolError) and "IncompleteRead" in str(error):
        return "unexpected EOF"
    if isinstance(cause, ConnectionResetError | BrokenPipeError):
        return f"read tcp {place}: {_system_words(cause)}"
    if isinstance(error, broken.ProtocolError):
        return (
            "EOF" if "closed connection" in str(error) else f"net/http: malformed HTTP response: {str(cause)[:200]!r}"
        )
    if isinstance(error, broken.LocationParseError):
        return "invalid URL"
    return _system_words(cause) or str(error)[:200]


def _root(error: BaseException) -> BaseException:
    """The exception of the operating system, or of TLS, that others are wrapped around."""
    seen: list[BaseException] = [error]
    for found in seen:
        if isinstance(found, OSError) and not isinstance(found, broken.HTTPError):
            return found
        nested = [found.__cause__, found.__context__, getattr(found, "original_error", None), *found.args]
        seen += [item for item in nested if isinstance(item, BaseException) and item not in seen][:8]
    return error


def _system_words(error: BaseException) -> str:
    if not isinstance(error, OSError) or error.errno is None:
        return ""
    known = {errno.EHOSTUNREACH: "no route to host", errno.ENETUNREACH: "network is unreachable"}
    return known.get(error.errno) or os.strerror(error.errno).lower()


def _speaks_plainly(error: BaseException) -> bool:
    cause = _root(error)
    return isinstance(cause, ssl.SSLError) and cause.reason in (
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "RECORD_LAYER_FAILURE",
    )


def _certificate_words(error: ssl.SSLCertVerificationError, host: str) -> str:
    # X509_V_ERR_… of OpenSSL's x509_vfy.h.
    if error.verify_code in (9, 10):
        return "certificate has expired or is not yet valid"
    if error.verify_code in (2, 18, 19, 20, 21):
        return "certificate signed by unknown authority"
    if error.verify_code in (62, 64):
        return f"certificate is not valid for {host}"
    return error.verify_message or str(error)


def _proxied(proxy: str, options: dict[str, Any]) -> urllib3.PoolManager:
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Unavailable(
            f"proxyconnect tcp: a proxy of the kind {parts.scheme or proxy} cannot be used, only http and https"
        )
    headers = None
    if parts.username is not None:
        from urllib.parse import unquote

        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = urllib3.make_headers(proxy_basic_auth=pair)
    place = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    url = f"{parts.scheme}://{place}" + (f":{parts.port}" if parts.port else "")
    return urllib3.ProxyManager(url, proxy_headers=headers, **options)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not SSLSocket's, which would also forget the session under a thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


@functools.cache
def _user_agent() -> str:
    return f"dockp/{__version__} ({os.uname().sysname.lower()}; {os.uname().machine})"
