"""Requests and replies as the handlers see them: no bytes of HTTP, no sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias, TypeVar

from attrs import field, frozen

from dockp.spi.errors import InvalidArgument

if TYPE_CHECKING:
    from dockp.api.changes import Changes
    from dockp.engine.local import LocalEngine

T = TypeVar("T")

Version: TypeAlias = tuple[int, int]
"""An API version: ``(1, 50)``."""

OLDEST: Version = (1, 24)
NEWEST: Version = (1, 50)

JSON_LIMIT = 16 << 20
"""Bytes of JSON that a request may bring."""

# Go's strconv.ParseBool would refuse "yes"; Docker's daemon takes everything but these for true.
_FALSE = frozenset(("", "0", "no", "false", "none"))


class Body(Protocol):
    """The body of a request, read at the pace of the handler."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def read(self, limit: int) -> bytes:
        """All of it. Raises: InvalidArgument when it has more than ``limit`` bytes."""

    def file(self) -> BinaryIO:
        """For a worker thread: a blocking file that ends with the body. Raises OSError there when the client leaves."""


class Services(Protocol):
    """What handlers work with.

    Attributes:
        engine: does everything.
        changes: wakes who waits for files to grow.
    """

    @property
    def engine(self) -> LocalEngine: ...
    @property
    def changes(self) -> Changes: ...
    def run(self, work: Callable[..., T], *arguments: Any, **named: Any) -> Awaitable[T]:
        """Do short blocking work in a thread; cancelling lets it finish unseen."""

    def run_long(self, work: Callable[..., T], *arguments: Any, **named: Any) -> Awaitable[T]:
        """The same for what may wait for a process, a client or a network: stop, restart, remove, pull, load…"""

    def chunks(self, file: BinaryIO) -> AsyncGenerator[bytes, None]:
        """What a blocking file has, for `Reply.content`; it is closed at the end, or when the client leaves."""

    def items(self, iterator: Iterator[T]) -> AsyncGenerator[T, None]:
        """What a blocking iterator gives. A thread is held while it is asked for its next item."""


@frozen
class Query:
    """The parameters after ``?``, as Docker reads them."""

    values: Mapping[str, Sequence[str]] = field(factory=dict)

    def text(self, name: str, default: str = "") -> str:
        found = self.values.get(name)
        return found[0] if found else default

    def texts(self, name: str) -> Sequence[str]:
        return self.values.get(name, ())

    def flag(self, name: str, default: bool = False) -> bool:
        if name not in self.values:
            return default
        return self.text(name).strip().lower() not in _FALSE

    def integer(self, name: str, default: int | None = None) -> int | None:
        """Raises: InvalidArgument for what is no whole number."""
        text = self.text(name)
        if not text:
            return default
        try:
            return int(text)
        except ValueError:
            raise InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax') from None

    def filters(self) -> dict[str, list[str]]:
        """The parameter ``filters``: ``{"name": ["a"]}``, or ``{"name": {"a": true}}`` as older clients have it.

        Raises: InvalidArgument.
        """
        text = self.text("filters")
        if not text:
            return {}
        try:
            given = json.loads(text)
            found = {}
            for key, values in given.items():
                if isinstance(values, dict):
                    values = [value for value, on in values.items() if on]
                if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                    raise TypeError
                found[key] = values
        except (ValueError, TypeError, AttributeError):
            raise InvalidArgument("invalid filter") from None
        return found


def moment(text: str, name: str) -> int:
    """Nanoseconds since the epoch of ``seconds[.fraction]``, 0 for "". Raises: InvalidArgument."""
    seconds, _, fraction = text.partition(".")
    try:
        return int(seconds or 0) * 1_000_000_000 + int((fraction or "0").ljust(9, "0")[:9])
    except ValueError:
        raise InvalidArgument(f'invalid {name}: strconv.ParseInt: parsing "{text}": invalid syntax') from None


@frozen(kw_only=True)
class Request:
    """One request.

    Attributes:
        path: without the version. version: what the client asked for, or the newest.
        parameters: the named parts of the path, decoded. headers: names in lower case.
    """

    method: str
    path: str
    version: Version
    parameters: Mapping[str, str]
    query: Query
    headers: Mapping[str, str]
    body: Body
    services: Services

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object; {} when there is none, or null. Raises: InvalidArgument with Docker's wording."""
        raw = await self.body.read(JSON_LIMIT)
        if not raw.strip():
            return {}
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind and kind != "application/json":
            raise InvalidArgument(
                f"unsupported Content-Type header ({self.headers['content-type']}): must be 'application/json'"
            )
        try:
            document = json.loads(raw)
        except ValueError as error:
            raise InvalidArgument(f"invalid JSON: {error}") from None
        except RecursionError:
            raise InvalidArgument("invalid JSON: nested too deeply") from None
        if document is None:
            return {}
        if not isinstance(document, dict):
            raise InvalidArgument("invalid JSON: the body must be an object")
        return document


@frozen(kw_only=True)
class Reply:
    """An answer: a document, or bytes, or a stream of them, or nothing.

    Attributes:
        document: anything JSON can say; None when ``content`` counts.
        content: bytes as they are, or a stream that is sent chunk by chunk, each as soon as it comes.
        endless: the stream goes on until something happens; a daemon that stops does not wait for that.
    """

    status: int = 200
    document: Any = None
    content: bytes | AsyncGenerator[bytes, None] = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(factory=dict)
    endless: bool = False


Handler: TypeAlias = "Callable[[Request], Awaitable[Reply | Hijack]]"


class RawConnection(Protocol):
    """A connection that stops to speak HTTP. The head of the reply has not been sent yet."""

    @property
    def head(self) -> bytes:
        """The status line and headers, which have to be sent before anything else."""

    async def receive(self) -> bytes:
        """Input; b"" at its end. Raises: ConnectionError when the client is gone."""

    async def send(self, data: bytes) -> None:
        """Output; returns when the client keeps up. Raises: ConnectionError when the client is gone."""

    async def send_head(self) -> None:
        """Send the head, and give the client a moment to read it alone (`dockp.shim.streams.head_time`).

        Raises: ConnectionError when the client is gone."""

    def handover(self) -> Handover:
        """Let somebody else talk to the client from now on. To be closed by the caller."""


@frozen(kw_only=True)
class Handover:
    """Attributes:
    descriptor: of the client's socket (over TLS: of a socket pair that is pumped to the client).
    early: input that was read already and comes before what the socket has.
    close: gives the descriptor back; a copy of it, sent to another process, is not affected.
    """

    descriptor: int
    early: bytes
    close: Callable[[], None]


@frozen(kw_only=True)
class Hijack:
    """The answer of attach and exec: headers, and from there on a stream of bytes both ways.

    Attributes:
        take: brings the head and everything after it to the client. What it raises before anything was sent becomes an
            ordinary reply; afterwards it closes the connection.
        content_type: ``application/vnd.docker.raw-stream`` or ``…multiplexed-stream``.
        head: instead of Docker's head for such streams, as the upgrade to a websocket needs.
    """

    take: Callable[[RawConnection], Awaitable[None]]
    content_type: str = "application/vnd.docker.raw-stream"
    head: bytes = b""
