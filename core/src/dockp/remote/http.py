"""One HTTP conversation as h11 keeps it, for both kinds of transport: bytes in, bytes out, no sockets."""

from __future__ import annotations

from collections.abc import Mapping

import h11

from dockp import __version__
from dockp.remote.calls import Answer, Hijack, Request
from dockp.remote.endpoint import Endpoint
from dockp.spi.errors import SystemFault

_HEADERS_LIMIT = 1 << 20
"""Bytes of an answer's headers; a long path statistic or warning may be larger than h11's own limit."""


class Conversation:
    """The client's side of one connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEADERS_LIMIT)
        self._headers = [
            ("Host", endpoint.address.authority),
            ("User-Agent", f"dockp/{__version__} ({endpoint.address.scheme})"),
            *endpoint.headers.items(),
        ]

    def head(self, request: Request, version: tuple[int, int]) -> bytes:
        """Start a request: everything that goes out but an upload."""
        body = request.body()
        headers = [*self._headers, *request.headers.items()]
        if isinstance(request, Hijack):
            headers += [("Connection", "Upgrade"), ("Upgrade", "tcp")]
        if request.upload is not None:
            headers += [("Content-Type", "application/x-tar"), ("Transfer-Encoding", "chunked")]
        elif body or request.method != "GET":
            headers.append(("Content-Length", str(len(body))))
        if body:
            headers.append(("Content-Type", "application/json"))
        event = h11.Request(method=request.method, target=request.target(version), headers=headers)
        data = self._h11.send(event) or b""
        if request.upload is not None:
            return data
        if body:
            data += self._h11.send(h11.Data(data=body)) or b""
        return data + self.upload_end()

    def upload(self, data: bytes) -> bytes:
        """A piece of the body as it goes out."""
        return self._h11.send(h11.Data(data=data)) or b""

    def upload_end(self) -> bytes:
        return self._h11.send(h11.EndOfMessage()) or b""

    def feed(self, data: bytes) -> None:
        """Take what arrived; b"" for the end of the connection."""
        self._h11.receive_data(data)

    def answer(self) -> Answer | None:
        """Status and headers when they are complete. Raises: SystemFault."""
        while True:
            event = self._next()
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.InformationalResponse) and event.status_code != 101:
                continue
            if isinstance(event, h11.Response | h11.InformationalResponse):
                return Answer(status=event.status_code, headers=_named(event))
            raise SystemFault("the server closed the connection without an answer")

    def body(self) -> bytes | None:
        """The next piece of the body; None when more has to be fed first, b"" at its end. Raises: SystemFault."""
        while True:
            event = self._next()
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.Data):
                if event.data:
                    return bytes(event.data)
                continue
            return b""

    def again(self) -> bool:
        """Whether another request may follow on this connection, for which it is made ready."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    @property
    def rest(self) -> bytes:
        """After a hijack: what came behind the headers."""
        return self._h11.trailing_data[0]

    def _next(self) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise SystemFault(f"the server's answer is no HTTP, or was cut short: {error}") from None


def _named(event: h11.Response | h11.InformationalResponse) -> Mapping[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
