"""The log driver "none": output goes to whoever is attached, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from dockp.spi.errors import InvalidArgument, NotImplemented
from dockp.spi.logs import LogDriver, LogEntry


class NoLog(LogDriver):
    """Keeps nothing. Its ``writer`` is "": the engine writes ``"log": null`` for the shim."""

    name: ClassVar[str] = "none"
    summary: ClassVar[str] = "keeps no output"
    writer: ClassVar[str] = ""

    @classmethod
    def validate(cls, options: Mapping[str, str]) -> Mapping[str, str]:
        for name in options:
            raise InvalidArgument(f"unknown log opt '{name}' for none log driver")
        return {}

    @classmethod
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
        raise NotImplemented("configured logging driver does not support reading")
