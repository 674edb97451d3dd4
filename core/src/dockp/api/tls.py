"""TLS for connections whose two directions end one after the other.

asyncio's own TLS closes a connection altogether once the client has said that it sends no more (close_notify). Clients
of attach and exec say just that at the end of their input, and then wait for output: so here such a close is an end of
file, and writing goes on. Source: RFC 8446, 6.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from typing import Any

_HANDSHAKE_TIMEOUT = 30.0
"""Seconds for a client to prove who it is."""
_CHUNK = 1 << 16
_log = logging.getLogger(__name__)


class TlsProtocol(asyncio.Protocol):
    """Stands between a TCP transport and the protocol that ``make`` makes, which sees plain text.

    Nothing is made for a client whose handshake fails.
    """

    def __init__(self, context: ssl.SSLContext, make: Callable[[], asyncio.Protocol]) -> None:
        self._make = make
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._inner: asyncio.Protocol | None = None
        self._raw: asyncio.Transport = None  # type: ignore[assignment]
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._ended = False  # the client sends no more

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._raw = transport
        self._timer = asyncio.get_running_loop().call_later(_HANDSHAKE_TIMEOUT, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self._advance()

    def eof_received(self) -> bool:
        self._incoming.write_eof()
        self._advance()
        return self._inner is not None

    def connection_lost(self, failure: Exception | None) -> None:
        self._stop_timer()
        if self._inner is not None:
            self._inner.connection_lost(failure)

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def _advance(self) -> None:
        try:
            if self._inner is None:
                self._tls.do_handshake()
                self._stop_timer()
                self._inner = self._make()
                self._inner.connection_made(_TlsTransport(self, self._raw, self._tls))
            self._read(self._inner)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            # What is not TLS, a certificate that nobody signed, or bytes that somebody changed on the way.
            _log.debug("TLS with %s: %s", self._raw.get_extra_info("peername"), error.reason or error)
            self._flush()  # the alert that says so
            self._raw.close()
        self._flush()

    def _read(self, inner: asyncio.Protocol) -> None:
        while not (self._paused or self._ended or self._raw.is_closing()):
            try:
                data = self._tls.read(_CHUNK)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            if data:
                inner.data_received(data)
                continue
            self._ended = True
            if not inner.eof_received():
                self.close()

    # For the transport

    def write(self, data: bytes) -> None:
        if data and not self._raw.is_closing():
            try:
                self._tls.write(data)
            except ssl.SSLError:  # our own side has ended already
                self._raw.abort()
            self._flush()

    def write_eof(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()  # says close_notify; whether the client has said it too is its own affair
        self._flush()

    def close(self) -> None:
        if not self._raw.is_closing():
            self.write_eof()
            self._raw.close()

    def pause(self) -> None:
        self._paused = True
        self._raw.pause_reading()

    def resume(self) -> None:
        self._paused = False
        self._raw.resume_reading()
        # What was decrypted already makes no event of its own; nor may the caller be called within its own call.
        asyncio.get_running_loop().call_soon(self._advance)

    def _flush(self) -> None:
        if (data := self._outgoing.read()) and not self._raw.is_closing():
            self._raw.write(data)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _TlsTransport(asyncio.Transport):
    """What the inner protocol writes to."""

    def __init__(self, protocol: TlsProtocol, raw: asyncio.Transport, tls: ssl.SSLObject) -> None:
        super().__init__()
        self._protocol = protocol
        self._raw = raw
        self._tls = tls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tls if name == "ssl_object" else self._raw.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._protocol.write(bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._protocol.write_eof()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def is_reading(self) -> bool:
        return self._raw.is_reading()

    def pause_reading(self) -> None:
        self._protocol.pause()

    def resume_reading(self) -> None:
        self._protocol.resume()

    def close(self) -> None:
        self._protocol.close()

    def abort(self) -> None:
        self._raw.abort()
