"""One client of the API: bytes of HTTP/1.1 in, bytes out.

An idle connection is a socket and a small object; while a request is answered it has a task. h11 parses, and holds what
was received and not asked for yet; when that is much, the socket is not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import posixpath
import re
import select
import socket
import time
from collections import deque
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import parse_qs, quote, unquote

import h11

from dockp.api import errors
from dockp.api.hijack import HijackedConnection, head
from dockp.api.messages import NEWEST, OLDEST, Hijack, Query, Reply, Request, Version
from dockp.api.versions import spelled
from dockp.spi.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from dockp.api.server import ApiServer

HEAD_LIMIT = 1 << 20
"""Bytes that request line and headers may have, as in Go's server."""
HEAD_TIMEOUT = 60.0
"""Seconds that a client may take to send request line and headers, once it has begun."""
LINGER = 1.0
"""Seconds in which a client may read a last reply although it sends what nobody reads."""
_AHEAD = 1 << 16
"""Bytes that are received before they are asked for."""

_VERSIONED = re.compile(r"/v([0-9]{1,9}(?:\.[0-9]{1,9})*)(/.*)")
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_log = logging.getLogger(__name__)


class ClientGone(ConnectionError):
    """Nobody is there to answer to."""


class Connection(asyncio.Protocol):
    """See the module. Made by `dockp.api.server.ApiServer` for each client."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._task: asyncio.Task[None] | None = None
        self._ahead = 0
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._full = False
        self._gone = False
        self._ended = False  # the client sends no more
        self._streaming = False
        self._endless = False  # what is sent ends when something happens, or never
        self._hijacked: HijackedConnection | None = None
        self._closing = False
        self._raw: deque[bytes] | None = None  # input, once HTTP is over
        self._timer: asyncio.TimerHandle | None = None

    # --- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            # So that a client whose host is gone is noticed, even by a shim that only has something to read from it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._server.joined(self)

    def connection_lost(self, failure: Exception | None) -> None:
        self._gone = True
        self._stop_timer()
        self._server.left(self)
        self._wake(self._arrival)
        self._wake(self._room)
        if self._task is not None and self._raw is None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._ahead += len(data)
        if self._raw is not None:
            self._raw.append(data)
        else:
            self._http.receive_data(data)
        if self._task is None:
            self._advance()
        elif self._arrival is not None:
            self._wake(self._arrival)
        elif self._ahead > _AHEAD:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        if self._closing:
            return False
        if self._raw is None:
            self._http.receive_data(b"")
        self._wake(self._arrival)
        if self._task is None:
            self._advance()
        elif self._raw is None and (self._streaming or self._hung_up()):
            # Who only stopped to send may wait for a reply, but an endless one would never notice that nobody is there.
            self._task.cancel()
        # A client over TLS that takes part in a stream may still read; any other has closed.
        return self._raw is not None or self.plain_socket() is not None

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake(self._room)

    def _hung_up(self) -> bool:
        plain = self.plain_socket()
        if plain is None:
            return True
        poll = select.poll()
        poll.register(plain.fileno(), 0)
        return bool(poll.poll(0))  # POLLHUP and POLLERR are always reported

    @staticmethod
    def _wake(future: asyncio.Future[None] | None) -> None:
        if future is not None and not future.done():
            future.set_result(None)

    def plain_socket(self) -> socket.socket | None:
        """The client's socket; None when the bytes in it are not the client's, but TLS's."""
        if self._transport.get_extra_info("ssl_object") is not None:
            return None
        found: socket.socket = self._transport.get_extra_info("socket")
        return found

    # --- between requests

    def _advance(self) -> None:
        """Start to answer the next request, if its head is here."""
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            self._task = asyncio.ensure_future(self._refuse(error))
            return
        if isinstance(event, h11.Request):
            self._stop_timer()
            self._task = asyncio.ensure_future(self._serve(event))
        elif isinstance(event, h11.ConnectionClosed):
            self._transport.close()
        elif self._timer is None and self._ahead:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._server.head_timeout, self._transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Answer what is no HTTP, if it still can be, and close."""
        with contextlib.suppress(ConnectionError, h11.LocalProtocolError):
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._send("GET", Reply(status=error.error_status_hint, document={"message": str(error)}))
        await self._leave()

    async def _serve(self, head: h11.Request) -> None:
        method = head.method.decode("ascii")
        target = head.target.decode("latin-1")
        status = 0
        try:
            answer = await self._answer(method, target, head)
            reply = await self._hijack(answer, head) if isinstance(answer, Hijack) else answer
            status = 101 if reply is None else reply.status
            if reply is not None:
                await self._send(method, reply)
        except ConnectionError:
            self._transport.abort()
        except asyncio.CancelledError:
            self._transport.abort()
        except Exception:
            _log.exception("%s %s: cannot send the reply", method, target)
            self._transport.abort()
        finally:
            self._server.counters.answered(method, status)
            self._task = None
        _log.debug("%s %s: %d", method, target, status)
        if self._gone or self._raw is not None or self._transport.is_closing():
            return
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE and not self._server.closing:
            self._http.start_next_cycle()
            self._transport.resume_reading()
            self._ahead = len(self._http.trailing_data[0])
            self._advance()
        else:
            await self._leave()

    async def _leave(self) -> None:
        """Close so that the last reply arrives: closing a socket with unread input would reset the connection."""
        self._closing = True
        if self._transport.can_write_eof() and not self._ended:
            with contextlib.suppress(OSError):
                self._transport.write_eof()
            self._transport.resume_reading()
            deadline = asyncio.get_running_loop().time() + LINGER
            while not self._ended and not self._gone and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.02)
        self._transport.close()

    def stop(self) -> None:
        """End now, or after the present reply if that has an end."""
        hijacked = self._hijacked is not None and (self._hijacked.used or self._hijacked.pump is not None)
        if self._task is None:
            self._transport.close()
        elif self._endless or hijacked:
            self.abort()

    def abort(self) -> None:
        """End now."""
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()

    # --- a request

    async def _answer(self, method: str, target: str, head: h11.Request) -> Reply | Hijack:
        """What the handler says, or what its error means."""
        try:
            if place := _moved(target):
                return Reply(status=301, headers={"Location": place})
            path, version, query = _parse(target)
            found = self._server.router.find(method, path, version)
            if found is None:
                raise NotFound("page not found")
            route, parameters = found
            request = Request(
                method=method,
                path=path,
                version=version,
                parameters=parameters,
                query=query,
                headers={name.decode("ascii"): value.decode("latin-1") for name, value in head.headers},
                body=RequestBody(self),
                services=self._server.services,
            )
            return await route.handler(request)
        except ConnectionError:
            raise
        except Exception as error:
            return errors.reply(error)

    async def read_body(self) -> bytes:
        """The next piece of the request's body; b"" at its end. Raises: ConnectionError; InvalidArgument."""
        while True:
            try:
                if self._http.they_are_waiting_for_100_continue:
                    await self.write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
                event = self._http.next_event() if self._http.their_state is h11.SEND_BODY else None
            except h11.RemoteProtocolError as error:
                if self._ended:
                    raise ClientGone("the client left in the middle of its request") from None
                raise InvalidArgument(f"malformed body of the request: {error}") from None
            if isinstance(event, h11.Data):
                if event.data:
                    return bytes(event.data)
            elif event is h11.NEED_DATA:
                await self._more()
            else:
                return b""

    async def _more(self) -> None:
        """Wait for input."""
        if self._gone:
            raise ClientGone("the client is gone")
        self._ahead = 0
        self._arrival = asyncio.get_running_loop().create_future()
        self._transport.resume_reading()
        try:
            await self._arrival
        finally:
            self._arrival = None

    def _skip_body(self) -> bool:
        """Pass over what has come of a body that nobody wanted. Whether that was all of it."""
        with contextlib.suppress(h11.RemoteProtocolError):
            while self._http.their_state is h11.SEND_BODY and not self._http.they_are_waiting_for_100_continue:
                if self._http.next_event() is h11.NEED_DATA:
                    break
        return self._http.their_state is not h11.SEND_BODY

    # --- the reply

    async def write(self, data: bytes) -> None:
        """Send, and wait until the client keeps up. Raises: ClientGone."""
        if self._gone or self._transport.is_closing():
            raise ClientGone("the client is gone")
        if data:
            self._transport.write(data)
        while self._full:
            if self._gone:
                raise ClientGone("the client is gone")
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None

    async def _send(self, method: str, reply: Reply) -> None:
        content = reply.content
        if reply.document is not None:
            text = json.dumps(reply.document, ensure_ascii=False, separators=(",", ":"))
            content = text.encode(errors="replace") + b"\n"
        bare = reply.status in (204, 304)
        headers = [
            *self._server.headers,
            ("Date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())),
            *reply.headers.items(),
        ]
        if not bare and (content != b"" or reply.document is not None):
            headers.append(("Content-Type", reply.content_type))
        if isinstance(content, bytes) and not bare and not (method == "HEAD" and "Content-Length" in reply.headers):
            headers.append(("Content-Length", str(len(content))))
        if not self._skip_body() or self._server.closing:
            headers.append(("Connection", "close"))
        reason = _REASONS.get(reply.status, "")
        out = self._http.send(h11.Response(status_code=reply.status, headers=headers, reason=reason)) or b""
        if isinstance(content, bytes):
            if content and method != "HEAD" and not bare:
                out += self._http.send(h11.Data(data=content)) or b""
            await self.write(out + (self._http.send(h11.EndOfMessage()) or b""))
            return
        async with contextlib.aclosing(content) as chunks:
            await self.write(out)
            if method != "HEAD" and not bare:
                self._streaming, self._endless = True, reply.endless
                try:
                    if self._ended:
                        raise ClientGone("the client is gone")
                    async for chunk in chunks:
                        if chunk:
                            await self.write(self._http.send(h11.Data(data=chunk)) or b"")
                finally:
                    self._streaming = self._endless = False
        await self.write(self._http.send(h11.EndOfMessage()) or b"")

    # --- after HTTP

    async def _hijack(self, wish: Hijack, request: h11.Request) -> Reply | None:
        """Let ``wish`` have the connection. A reply when it could not begin."""
        while await self.read_body():
            pass
        early = self._http.trailing_data[0]
        upgrade = any(name == b"upgrade" for name, _ in request.headers)
        self._raw = deque()
        self._transport.pause_reading()
        raw = self._hijacked = HijackedConnection(self, early, wish.head or head(wish.content_type, upgrade=upgrade))
        try:
            await wish.take(raw)
            if raw.pump is not None:
                await raw.pump
        except Exception as error:
            if raw.used or isinstance(error, ConnectionError):
                raise
            self._raw = None
            return errors.reply(error)
        # What was handed over goes on; this only closes our own descriptor.
        await self._flushed()
        self._transport.abort()
        return None

    async def _flushed(self) -> None:
        self._transport.set_write_buffer_limits(0)
        await self.write(b"")

    async def receive_raw(self) -> bytes:
        """Input after HTTP; b"" at its end. Raises: ClientGone."""
        assert self._raw is not None
        while not self._raw:
            if self._ended:
                return b""
            await self._more()
        data = b"".join(self._raw)
        self._raw.clear()
        self._ahead = 0
        return data


class RequestBody:
    """See `dockp.api.messages.Body`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self._connection.read_body():
            yield data

    async def read(self, limit: int) -> bytes:
        collected = bytearray()
        async for data in self:
            collected += data
            if len(collected) > limit:
                raise InvalidArgument(f"request body too large: more than {limit} bytes")
        return bytes(collected)

    def file(self) -> BinaryIO:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        source = _BodySource(theirs)
        source.feeding = asyncio.ensure_future(self._feed(ours, source))
        return io.BufferedReader(source, 1 << 16)

    async def _feed(self, sock: socket.socket, source: _BodySource) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for data in self:
                await loop.sock_sendall(sock, data)
            source.complete = True
        except (OSError, InvalidArgument):  # the client left, or the reader wants no more
            pass
        finally:
            sock.close()


class _BodySource(io.RawIOBase):
    """A body as a thread reads it. ``complete`` when all of it was sent."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.complete = False
        self.feeding: asyncio.Future[None] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        got = self._sock.recv_into(buffer)
        if not got and not self.complete:
            raise ConnectionResetError("the client left in the middle of its request")
        return got

    def close(self) -> None:
        self._sock.close()
        super().close()


def _moved(target: str) -> str:
    """Where a path with ``//``, ``.`` or ``..`` in it leads to, as Docker's router has it; "" for any other."""
    path, mark, query = target.partition("?")
    path = unquote(path)
    if not path.startswith("/"):
        return ""
    clean = "/" + posixpath.normpath(path).strip("/")
    if path.endswith("/") and clean != "/":
        clean += "/"
    return "" if clean == path else quote(clean) + mark + query


def _parse(target: str) -> tuple[str, Version, Query]:
    """Path without version, version, query. Raises: InvalidArgument, also for a version that is not served."""
    if not target.startswith("/") and "://" in target:  # the absolute form that proxies use
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("?")
    path = unquote(path)
    if "\0" in path or "%00" in query:  # no name and no argument can have one
        raise InvalidArgument("invalid URL: it has a zero byte")
    version = NEWEST
    if match := _VERSIONED.fullmatch(path):
        text, path = match.groups()
        numbers = [int(part) for part in text.split(".")]
        version = (numbers[0], numbers[1] if len(numbers) > 1 else 0)
        if version > NEWEST:
            raise InvalidArgument(
                f"client version {text} is too new. Maximum supported API version is {spelled(NEWEST)}"
            )
        if version < OLDEST:
            raise InvalidArgument(
                f"client version {text} is too old. Minimum supported API version is {spelled(OLDEST)}, "
                "please upgrade your client to a newer version"
            )
    return path, version, Query(parse_qs(query, keep_blank_values=True))
