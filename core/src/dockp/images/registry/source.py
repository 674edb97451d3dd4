"""``docker://NAME[:TAG|@DIGEST]``: images in registries, the source that a reference without a scheme means."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO, ClassVar, TypeVar, cast
from urllib.parse import urlsplit

from dockp.images.documents import INDEX_TYPES, MANIFEST_TYPES
from dockp.images.reference import DEFAULT_TAG, Reference, parse
from dockp.images.registry.blobs import BlobStream
from dockp.images.registry.endpoints import endpoints
from dockp.images.registry.refusals import Refused
from dockp.images.registry.repository import Repository
from dockp.images.registry.transport import Response, Unreachable
from dockp.images.registry.uploads import RegistryTarget
from dockp.spi.errors import DockpError, InvalidArgument, NotFound, Unavailable
from dockp.spi.images import ImageSource, ImageTarget, SourceContext
from dockp.spi.values import Descriptor, Platform

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class RegistrySource(ImageSource):
    """Speaks to one repository: by its mirrors first, then the registry with TLS, then, where allowed, without."""

    scheme: ClassVar[str] = "docker"
    summary: ClassVar[str] = "registries: NAME[:TAG|@DIGEST], or docker://NAME[:TAG|@DIGEST]"

    def __init__(self, context: SourceContext) -> None:
        if context.options:
            raise InvalidArgument(f"image source docker: has no option {next(iter(context.options))!r}")
        self._context = context
        self._guard = threading.Lock()
        self._reference: Reference | None = None
        self._repositories: list[Repository] = []
        self._targets: list[RegistryTarget] = []
        self._current = 0
        self._known = False
        """Whether the current place has answered once: then no answer is not for want of TLS."""
        self._documents: dict[str, bytes] = {}

    def resolve(self, reference: str, platform: Platform) -> Descriptor:
        name = self._open(reference).with_default_tag()
        descriptor, data = self._attempt(lambda repository: repository.resolve(name.digest or name.tag or DEFAULT_TAG))
        if data is not None:
            self._documents[descriptor.digest] = data
        return descriptor

    def fetch(self, descriptor: Descriptor, offset: int = 0) -> BinaryIO:
        if descriptor.media_type in MANIFEST_TYPES | INDEX_TYPES:
            data = self._documents.pop(descriptor.digest, None)
            if data is None:
                data = self._attempt(lambda repository: self._manifest(repository, descriptor))
            return io.BytesIO(data[offset:])
        try:
            return self._blob(descriptor, offset)
        except NotFound:
            for url in descriptor.urls:
                found = self._foreign(url, descriptor, offset)
                if found is not None:
                    return found
            raise

    def tags(self, reference: str) -> Sequence[str]:
        self._open(reference)
        return self._attempt(lambda repository: repository.tags())

    def referrers(self, descriptor: Descriptor, artifact_type: str = "") -> Sequence[Descriptor]:
        return self._attempt(lambda repository: repository.referrers(descriptor.digest, artifact_type))

    def target(self, reference: str) -> ImageTarget:
        name = parse(reference.removeprefix("//"))
        self._targets.append(RegistryTarget(name, self._context.credentials, self._context.registries))
        return self._targets[-1]

    def close(self) -> None:
        self._leave()
        for target in self._targets:
            target.close()

    def _leave(self) -> None:
        for repository in self._repositories:
            repository.close()

    def _open(self, text: str) -> Reference:
        reference = parse(text.removeprefix("//"))
        if self._reference is None or reference.name != self._reference.name:
            self._leave()
            settings = self._context.registries
            self._repositories = [
                Repository(endpoint, reference.path, self._context.credentials, settings)
                for endpoint in endpoints(reference.domain, settings)
            ]
            self._current, self._known = 0, False
        self._reference = reference
        return reference

    def _attempt(self, verb: Callable[[Repository], _T]) -> _T:
        """Do it at the first place that can, and stay there. Raises: what the last place says."""
        assert self._reference is not None, "resolve comes first"
        start = self._current
        for number in range(start, len(self._repositories)):
            repository, last = self._repositories[number], number + 1 == len(self._repositories)
            try:
                done = verb(repository)
            except Refused as refused:
                error: DockpError = refused.pull_error(self._reference)
                # The registry has spoken; asking it again without TLS would bring the same, or a lie.
                final = last or not repository.endpoint.mirror
            except DockpError as other:
                error = other
                known = self._known and number == self._current
                final = last or not (repository.endpoint.mirror or (isinstance(other, Unreachable) and not known))
            else:
                with self._guard:
                    self._current, self._known = max(self._current, number), True
                return done
            if final:
                raise error
            _log.info("%s could not be asked, going on: %s", repository.endpoint.url, error)
        raise AssertionError("the last place returns or raises")

    @staticmethod
    def _manifest(repository: Repository, descriptor: Descriptor) -> bytes:
        data, media_type = repository.manifest(descriptor.digest)
        if media_type != descriptor.media_type:
            raise InvalidArgument(
                f"manifest {descriptor.digest} is of type {media_type!r} but was announced as {descriptor.media_type!r}"
            )
        return data

    def _blob(self, descriptor: Descriptor, offset: int) -> BinaryIO:
        def ask(position: int) -> Response:
            # When a mirror fails half-way, the next place goes on.
            return self._attempt(lambda repository: repository.open_blob(descriptor.digest, position))

        return self._stream(descriptor, offset, ask)

    def _foreign(self, url: str, descriptor: Descriptor, offset: int) -> BinaryIO | None:
        """A blob from where its descriptor says that it is; nobody there is told who asks."""
        repository = self._place
        if urlsplit(url).scheme not in ("http", "https"):
            return None

        def ask(position: int) -> Response:
            return repository.open_range(url, position)

        try:
            return self._stream(descriptor, offset, ask)
        except (Refused, Unavailable, InvalidArgument) as error:
            _log.info("blob %s cannot be had from %s: %s", descriptor.digest, url.partition("?")[0], error)
            return None

    @property
    def _place(self) -> Repository:
        return self._repositories[self._current]

    def _stream(self, descriptor: Descriptor, offset: int, ask: Callable[[int], Response]) -> BinaryIO:
        attempts = self._context.registries.attempts
        return cast(BinaryIO, BlobStream(descriptor, offset, ask, self._place.transport, attempts))
