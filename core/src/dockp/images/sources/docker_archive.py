"""``docker-archive:FILE[:NAME]``: one image out of what ``docker save`` writes."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, ClassVar

from attrs import evolve

from dockp.images.documents import NAME_ANNOTATION
from dockp.images.reference import parse
from dockp.images.sources.image_archive import Entry, ImageArchive
from dockp.images.sources.layout import Layout
from dockp.spi.errors import InvalidArgument, NotFound
from dockp.spi.images import ImageSource, SourceContext
from dockp.spi.values import Descriptor, Platform


class DockerArchiveSource(ImageSource):
    """Reads one ``docker save`` archive, plain or compressed."""

    scheme: ClassVar[str] = "docker-archive"
    summary: ClassVar[str] = "a file that docker save wrote: docker-archive:FILE[:NAME]"

    def __init__(self, context: SourceContext) -> None:
        if context.options:
            raise InvalidArgument(f"image source docker-archive: has no option {next(iter(context.options))!r}")
        self._scratch = Path(context.scratch)
        self._archive: ImageArchive | None = None

    def resolve(self, reference: str, platform: Platform) -> Descriptor:
        path, name = _split_reference(reference)
        try:
            with path.open("rb") as file:
                self._archive = archive = ImageArchive(file, str(path), self._scratch)
        except OSError as error:
            raise NotFound(f"cannot read {path}: {error.strerror}") from None
        if not archive.files.has("manifest.json"):
            if archive.files.has("oci-layout"):
                return Layout(archive.files).find(name, "", platform)
            raise InvalidArgument(f"{path} was not written by docker save: it has no manifest.json")
        entry, full_name = _choose(archive.entries(), name, archive.files.label)
        return evolve(archive.root(entry), annotations={NAME_ANNOTATION: full_name} if full_name else {})

    def fetch(self, descriptor: Descriptor, offset: int = 0) -> BinaryIO:
        assert self._archive is not None, "resolve comes first"
        return self._archive.fetch(descriptor, offset)

    def close(self) -> None:
        if self._archive is not None:
            self._archive.close()


def _choose(entries: list[Entry], wanted: str, label: str) -> tuple[Entry, str]:
    """The entry that has the name ``wanted``, or the only one there is; and the whole name it was chosen by."""
    if wanted:
        reference = parse(wanted).with_default_tag()
        for entry in entries:
            if any(parse(name).with_default_tag() == reference for name in entry.names):
                return entry, str(reference)
    elif len(entries) == 1:
        names = entries[0].names
        return entries[0], str(parse(names[0]).with_default_tag()) if names else ""
    known = ", ".join(name for entry in entries for name in entry.names) or "images without a name"
    if wanted:
        raise NotFound(f"{label} has no image {wanted}; it has: {known}")
    raise NotFound(f"{label} has {len(entries)} images, choose one by its name: {known}")


def _split_reference(reference: str) -> tuple[Path, str]:
    """The file and the name after it: the longest beginning that is a file. Raises: InvalidArgument, NotFound."""
    if not reference:
        raise InvalidArgument("docker-archive: needs a file: docker-archive:FILE[:NAME]")
    path = reference
    while True:
        if Path(path).is_file():
            return Path(path), reference[len(path) + 1 :]
        path, colon, _ = path.rpartition(":")
        if not colon:
            raise NotFound(f"no such file: {reference}")
