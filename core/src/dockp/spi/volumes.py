"""The volume contract: directories that outlive containers. The core keeps names, labels and references."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from dockp.spi.values import Mount


class VolumeDriver(ABC):
    """One kind of volume. Verbs are idempotent; names match ``[a-zA-Z0-9][a-zA-Z0-9_.-]*``.

    Since: SPI 1.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""

    @abstractmethod
    def __init__(self, root: Path, options: Mapping[str, str]) -> None:
        """``root`` is a directory for this driver alone. Called once an engine; cheap."""

    @abstractmethod
    def create(self, name: str, options: Mapping[str, str]) -> None:
        """Make the volume, empty. Raises: InvalidArgument for an unknown option. Existing is success."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Free the volume and its data. Absent is success."""

    @abstractmethod
    def mounts(self, name: str) -> Sequence[Mount]:
        """How to mount it. Raises: NotFound."""

    @abstractmethod
    def mountpoint(self, name: str) -> str:
        """The path shown by ``volume inspect``, or "" when there is none on the host."""

    @abstractmethod
    def inventory(self) -> frozenset[str]:
        """Names of every volume found.

        Called: by tests, and by a check of the whole system that is to come. Recovery goes by the core's records.
        """
