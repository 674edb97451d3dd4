"""The image source contract: where images come from, and go to.

A source turns a reference into OCI documents and byte streams. It verifies nothing and stores nothing: the core checks
size and digest of every byte, keeps what it received unchanged, and decides what is fetched at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import BinaryIO, ClassVar

from attrs import field, frozen

from dockp.spi.errors import NotImplemented
from dockp.spi.values import Descriptor, Platform


@frozen(kw_only=True)
class SourceContext:
    """What a source may use while it works.

    Attributes:
        scratch: an empty directory, removed by the core afterwards.
        progress: called with (what, done, total or None) as work goes on; any thread.
        options: ``name=value`` pairs for this source.
    """

    scratch: str
    progress: Callable[[str, int, int | None], None]
    options: Mapping[str, str] = field(factory=dict)


class ImageSource(ABC):
    """One scheme of image references, such as ``oci:`` or ``docker://``.

    Since: SPI 1.
    """

    scheme: ClassVar[str]
    """The word before the colon."""
    summary: ClassVar[str] = ""

    @abstractmethod
    def __init__(self, context: SourceContext) -> None:
        """Called once for each pull or push."""

    @abstractmethod
    def resolve(self, reference: str, platform: Platform) -> Descriptor:
        """The manifest that ``reference`` (without the scheme) means for ``platform``.

        A source that makes images may do the whole work here. Raises: NotFound, InvalidArgument, Unauthorized,
        Unavailable.
        """

    @abstractmethod
    def fetch(self, descriptor: Descriptor, offset: int = 0) -> BinaryIO:
        """The bytes of a manifest, config or layer, from ``offset`` on; the caller closes it. Raises: NotFound."""

    def push(self, reference: str, descriptor: Descriptor, read: Callable[[Descriptor], BinaryIO]) -> None:
        """Store the image that ``descriptor`` heads under ``reference``."""
        raise NotImplemented(f"images cannot be pushed to {self.scheme}:")

    def close(self) -> None:
        """Called once at the end, also after an error."""
        return
