"""Requests and how their answers are read, as values. No sockets here: transports carry them out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, TypeVar

from attrs import field, frozen

from dockp.spi.errors import InvalidArgument, SystemFault

if TYPE_CHECKING:
    from dockp.interface import Progress

T = TypeVar("T")

NEWEST, OLDEST = (1, 50), (1, 24)
"""API versions that this client speaks."""


@frozen(kw_only=True)
class Answer:
    """A whole answer; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    def document(self) -> Any:
        """Raises: SystemFault for what is no JSON."""
        try:
            return json.loads(self.body) if self.body.strip() else None
        except ValueError as error:
            raise SystemFault(f"the server's answer is not JSON: {error}") from None


@frozen(kw_only=True)
class Request:
    """What all calls have in common.

    Attributes:
        path: without the version, quoted. query: values are texts, numbers, switches, or lists of texts.
        headers: beyond those of every request. document: JSON for the body. upload: a file to send as the body instead.
        starting: a refusal may be a `StartFailure`.
        timeless: asked before a version is agreed on.
    """

    method: str
    path: str
    query: Mapping[str, object] = field(factory=dict)
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    document: Any = None
    upload: BinaryIO | None = None
    starting: bool = False
    timeless: bool = False

    def target(self, version: tuple[int, int]) -> str:
        """Path and query as they go out. Switches that are off, None and "" are left out."""
        prefix = "" if self.timeless else f"/v{version[0]}.{version[1]}"
        parts = []
        for name, value in self.query.items():
            values = value if isinstance(value, list | tuple) else (value,)
            parts += [f"{name}={quoted(_text(item), safe='/:')}" for item in values if item not in (None, "", False)]
        return f"{prefix}{self.path}{'?' + '&'.join(parts) if parts else ''}"

    def body(self) -> bytes:
        return b"" if self.document is None else json.dumps(self.document, separators=(",", ":")).encode()


@frozen(kw_only=True)
class Call(Request, Generic[T]):
    """A request with one answer, which ``read`` makes the result of."""

    read: Callable[[Answer], T]


@frozen(kw_only=True)
class Items(Request, Generic[T]):
    """A request answered by a stream of items, taken apart by a decoder made for each answer."""

    decoder: Callable[[Answer], Decoder[T]]


@frozen(kw_only=True)
class Download(Request, Generic[T]):
    """A request answered by a file; ``about`` makes something of the headers."""

    about: Callable[[Answer], T]


@frozen(kw_only=True)
class Work(Request, Generic[T]):
    """Long work that tells of its progress, message by message; ``result`` gets what the messages said."""

    result: Callable[[Sequence[Mapping[str, Any]]], T]
    progress: Progress | None = None

    def hear(self, message: Mapping[str, Any], said: list[Mapping[str, Any]]) -> None:
        """Take one message. Raises: SystemFault or a finer class when it tells of failure."""
        if "error" in message or "errorDetail" in message:
            from dockp.remote.errors import CLASS_HEADER, error_of

            detail = message.get("errorDetail") or {}
            text = str(detail.get("message") or message.get("error"))
            kind = {name.lower(): str(value) for name, value in message.items() if name.lower() == CLASS_HEADER}
            raise error_of(int(detail.get("code") or 500), kind, text.encode())
        if message.get("progressDetail"):
            if self.progress is not None:
                self.progress(_what(message), *_amounts(message["progressDetail"]))
            return
        from dockp.interface import is_summary

        said.append(message)
        status = str(message.get("status") or "")
        told = message.get("id") or "progressDetail" in message or is_summary(status)
        if self.progress is not None and status and told:
            self.progress(_what(message), 0, None)


@frozen(kw_only=True)
class Hijack(Request):
    """A request that turns its connection into a stream.

    Attributes:
        ask_tty: how to learn whether it has a terminal, where the answer does not say; None when it does not matter.
        tty: known before. detach_keys: looked for in the input where there is a terminal; b"" for none.
    """

    detach_keys: bytes = b""
    tty: bool | None = None
    ask_tty: Call[bool] | None = None

    def told_tty(self, answer: Answer, version: tuple[int, int]) -> bool | None:
        """What the answer says about the terminal: since version 1.42 streams are named by their kind."""
        return None if version < (1, 42) else "multiplexed" not in answer.headers.get("content-type", "")


class Decoder(Generic[T]):
    """Takes a stream of bytes apart, however it is cut."""

    def feed(self, data: bytes) -> Iterable[T]:
        raise NotImplementedError

    def end(self) -> Iterable[T]:
        """What is left when the stream ends."""
        return ()


class JsonLines(Decoder[Any]):
    """JSON documents with line ends between; the record separators of RFC 7464 are passed over."""

    def __init__(self, answer: Answer) -> None:
        self._left = b""

    def feed(self, data: bytes) -> Iterable[Any]:
        *lines, self._left = (self._left + data).split(b"\n")
        return [self._read(line) for line in lines if line.strip(b" \r\t\x1e")]

    def end(self) -> Iterable[Any]:
        rest, self._left = self._left.strip(b" \r\t\x1e"), b""
        return [self._read(rest)] if rest else []

    @staticmethod
    def _read(line: bytes) -> Any:
        try:
            return json.loads(line.strip(b" \r\t\x1e"))
        except ValueError as error:
            raise SystemFault(f"the server's stream is not JSON: {error}") from None


_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quoted(text: str, safe: str = "") -> str:
    """Percent-encoded (RFC 3986). urllib.parse would do it too, after importing for milliseconds."""
    kept = _PLAIN | frozenset(safe.encode())
    return "".join(chr(byte) if byte in kept else f"%{byte:02X}" for byte in text.encode(errors="surrogateescape"))


def read_version(text: str) -> tuple[int, int]:
    """``"1.41"``. Raises: InvalidArgument."""
    major, _, minor = text.strip().removeprefix("v").partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise InvalidArgument(f'invalid API version "{text}"')
    return int(major), int(minor)


def agreed(headers: Mapping[str, str]) -> tuple[int, int]:
    """The API version to use with a server that answered a ping with ``headers``. Raises: InvalidArgument."""
    theirs = read_version(headers.get("api-version") or "1.24")
    if theirs < OLDEST:
        raise InvalidArgument(
            f"the server speaks API version {theirs[0]}.{theirs[1]}; the oldest supported is {OLDEST[0]}.{OLDEST[1]}"
        )
    return min(theirs, NEWEST)


def _text(value: object) -> str:
    return "1" if value is True else str(value)


def _what(message: Mapping[str, Any]) -> str:
    return f"{message['id']}: {message.get('status', '')}" if message.get("id") else str(message.get("status", ""))


def _amounts(detail: Mapping[str, Any]) -> tuple[int, int | None]:
    return int(detail.get("current") or 0), int(detail["total"]) if detail.get("total") else None
