"""``oci:PATH[:TAG|@DIGEST]``: images from an OCI image layout in a directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, ClassVar

from dockp.images.sources.layout import Layout
from dockp.spi.errors import InvalidArgument, NotFound
from dockp.spi.images import ImageSource, SourceContext
from dockp.spi.values import Descriptor, Platform


class OciLayoutSource(ImageSource):
    """Reads a layout as umoci, skopeo, buildah and ``docker buildx`` write it."""

    scheme: ClassVar[str] = "oci"
    summary: ClassVar[str] = "OCI image layout in a directory: oci:PATH[:TAG|@DIGEST]"

    def __init__(self, context: SourceContext) -> None:
        if context.options:
            raise InvalidArgument(f"image source oci: has no option {next(iter(context.options))!r}")
        self._layout: Layout | None = None

    def resolve(self, reference: str, platform: Platform) -> Descriptor:
        path, tag, digest = split_reference(reference)
        if not path.is_dir():
            raise NotFound(f"no such directory: {path}")
        self._layout = Layout(_Directory(path))
        return self._layout.find(tag, digest, platform)

    def fetch(self, descriptor: Descriptor, offset: int = 0) -> BinaryIO:
        assert self._layout is not None, "resolve comes first"
        blob = self._layout.fetch(descriptor)
        blob.seek(offset)
        return blob


class _Directory:
    def __init__(self, path: Path) -> None:
        self.label = str(path)
        self._path = path

    def open(self, name: str) -> BinaryIO:
        # Blobs are plain files; a fifo in their place must not hang the engine.
        descriptor = os.open(self._path / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return open(descriptor, "rb")
        os.close(descriptor)
        raise FileNotFoundError(name)


def split_reference(reference: str) -> tuple[Path, str, str]:
    """Path, tag, digest; what exists as a path as it stands is one. Raises: InvalidArgument."""
    path, at, digest = reference.rpartition("@")
    if at and digest.startswith("sha256:"):
        return Path(path), "", digest
    path, colon, tag = reference.rpartition(":")
    if not colon or Path(reference).exists():
        path, tag = reference, ""
    if not path:
        raise InvalidArgument("oci: needs a path: oci:PATH[:TAG|@DIGEST]")
    return Path(path), tag, ""
