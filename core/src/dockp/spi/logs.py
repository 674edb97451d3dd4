"""The log contract. Like execution it has two halves: the driver answers the engine, the writer lives in the shim.

The writer is a class named by `LogDriver.writer` as ``"package.module:Class"``, imported by the shim, which must stay
tiny. Its interface::

    Writer(path: str, options: dict[str, str], info: dict[str, Any])    # info: container id, name, image, labels, env
    write(stream: str, time_ns: int, data: bytes, partial: bool) -> None  # one line without its newline, or a piece
    close() -> None

and, where it has them, for speed::

    write_block(stream: str, time_ns: int, data: bytes) -> None     # whole lines with their newlines, of one moment
    flush() -> None                                                 # after each portion of output, and on request
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Protocol

from attrs import frozen

from dockp.spi.errors import NotImplemented


@frozen(kw_only=True)
class LogEntry:
    """One record: ``time`` in nanoseconds since the epoch, ``stream`` is "stdout" or "stderr", ``data`` its bytes,
    with the newline unless the line was split."""

    time: int
    stream: str
    data: bytes


class LogFeed(Protocol):
    """A followed log, read in steps by somebody who follows many.

    Attributes:
        directory: when something is written here, there may be more.
        over: nothing of what comes is wanted: ``until`` is reached.
    """

    directory: str
    over: bool

    def take(self, most: int) -> list[LogEntry]:
        """Up to ``most`` entries of those that are there now and were not taken yet. Does not wait."""

    def close(self) -> None: ...


class LogDriver(ABC):
    """One way of keeping container output.

    Since: SPI 1.
    """

    name: ClassVar[str]
    """What ``--log-driver`` takes."""
    summary: ClassVar[str] = ""
    writer: ClassVar[str]
    """Where the shim finds the writer, ``"package.module:Class"``."""

    @classmethod
    @abstractmethod
    def validate(cls, options: Mapping[str, str]) -> Mapping[str, str]:
        """Check ``--log-opt`` pairs and fill in defaults. Raises: InvalidArgument (Docker's wording)."""

    @classmethod
    @abstractmethod
    def read(
        cls,
        path: str,
        options: Mapping[str, str],
        *,
        follow: Callable[[], bool] | None,
        since: int = 0,
        until: int = 0,
        tail: int | None = None,
    ) -> Iterator[LogEntry]:
        """Entries in order. ``follow`` is None, or is called now and then: False means no more will be written.
        ``since`` and ``until`` are nanoseconds (0: no bound); ``tail`` counts from the end.
        Raises: NotImplemented when the driver cannot read back (Docker's wording)."""

    @classmethod
    def feed(
        cls, path: str, options: Mapping[str, str], *, since: int = 0, until: int = 0, tail: int | None = None
    ) -> LogFeed:
        """As `read` with ``follow``, for somebody who follows many logs and has no thread for each.

        Raises: NotImplemented, as `read` does and as this default does.
        """
        raise NotImplemented("configured logging driver does not support reading")
