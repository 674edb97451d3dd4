"""To a registry: one repository as the target of a push. Source: distribution-spec 1.1, "Push".

A blob goes whole in one request. When that breaks, it goes on from where the registry says it got to, in pieces from
then on, so that less is lost the next time; and from the start where the registry has forgotten it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO, cast
from urllib.parse import quote, urljoin

from dockp.images.documents import INDEX_TYPES, MANIFEST_TYPES
from dockp.images.reference import Reference, parse
from dockp.images.registry.endpoints import endpoints
from dockp.images.registry.refusals import Refused
from dockp.images.registry.repository import Repository
from dockp.images.registry.tokens import NoCredentials
from dockp.images.registry.transport import Body, Response, Unreachable, finish
from dockp.spi.errors import DockpError, InvalidArgument, Unauthorized, Unavailable
from dockp.spi.images import Credentials, ImageTarget, RegistrySettings
from dockp.spi.values import Descriptor

_PUSH = "pull,push"
_ATTEMPTS = 5
"""Times in a row that an upload may break without a byte more having arrived."""
_PIECE = 16 << 20
_MOUNTS = 3
"""Repositories that a blob is looked for in: each is a request, and sending may be quicker."""
# What a session may end with that a new one may not: RFC 9110, and the specification's codes.
_PASSING = frozenset({404, 408, 416, 429, 500, 502, 503, 504})
_SESSION_CODES = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "SIZE_INVALID"})


class RegistryTarget(ImageTarget):
    """A repository in a registry. Made by its source, which closes it."""

    def __init__(
        self, reference: Reference, credentials: Credentials, settings: RegistrySettings, *, pause: float = 0.5
    ) -> None:
        self._reference = reference
        self._pause = pause
        self._places = [
            Repository(endpoint, reference.path, credentials, settings)
            for endpoint in endpoints(reference.domain, settings, mirrors=False)
        ]
        self._guard = threading.Lock()
        self._chosen: Repository | None = None

    def close(self) -> None:
        for place in self._places:
            place.close()

    def has(self, descriptor: Descriptor) -> bool:
        place = self._place()
        url = f"/v2/{place.path}/blobs/{descriptor.digest}"
        if descriptor.media_type in MANIFEST_TYPES | INDEX_TYPES:
            url = place.manifest_url(descriptor.digest)
        headers = {"Accept": descriptor.media_type} if "manifests" in url else {}
        try:
            finish(place.request("HEAD", url, actions=_PUSH, headers=headers))
        except Refused:
            # What else is wrong, the request that stores it will hear, with a reason.
            return False
        except NoCredentials as error:
            raise Unauthorized(error.reason) from None
        return True

    def put(
        self,
        descriptor: Descriptor,
        read: Callable[[int], BinaryIO],
        *,
        mounts: Sequence[str] = (),
        progress: Callable[[int], None] = lambda done: None,
    ) -> str:
        place = self._place()
        try:
            mounted, location = self._begin(place, descriptor, mounts)
            if not mounted:
                _Upload(place, descriptor, read, progress, self._pause).send(location)
            return mounted
        except Refused as refused:
            raise refused.error() from None
        except NoCredentials as error:
            raise Unauthorized(error.reason) from None

    def put_manifest(self, descriptor: Descriptor, data: bytes, tag: str = "") -> None:
        place = self._place()
        try:
            response = place.request(
                "PUT",
                place.manifest_url(tag or descriptor.digest),
                actions=_PUSH,
                headers={"Content-Type": descriptor.media_type},
                body=data,
            )
        except Refused as refused:
            raise refused.error() from None
        except NoCredentials as error:
            raise Unauthorized(error.reason) from None
        finish(response)
        stored = response.headers.get("Docker-Content-Digest", descriptor.digest)
        if stored != descriptor.digest:
            raise InvalidArgument(f"the registry stored manifest {descriptor.digest} as {stored}")

    def _place(self) -> Repository:
        """The first place that answers: with TLS, then, where that is allowed, without."""
        with self._guard:
            for place in self._places:
                if self._chosen is not None:
                    break
                try:
                    place.ping()
                except Unreachable:
                    if place is self._places[-1]:
                        raise
                    continue
                except Refused as refused:
                    raise refused.error() from None
                except NoCredentials as error:
                    raise Unauthorized(error.reason) from None
                self._chosen = place
            assert self._chosen is not None
            return self._chosen

    def _begin(self, place: Repository, descriptor: Descriptor, mounts: Sequence[str]) -> tuple[str, str]:
        """The name of ``mounts`` that the registry took the blob from; or "", and where to send it."""
        location = ""
        for name in [name for name in mounts if parse(name).domain == self._reference.domain][:_MOUNTS]:
            if location:
                _give_up(place, location)
            origin = parse(name).path
            url = f"/v2/{place.path}/blobs/uploads/?mount={quote(descriptor.digest, safe='')}&from={quote(origin)}"
            try:
                response = place.request("POST", url, actions=_PUSH, scopes=[f"repository:{origin}:pull"], body=b"")
            except (Refused, Unauthorized):
                # Not ours to read: that says nothing about the repository that is pushed to.
                location = ""
                continue
            finish(response)
            if response.status == 201:
                return name, ""
            location = _location(place, response)
        return "", location


class _Upload:
    """One blob on its way."""

    def __init__(
        self,
        place: Repository,
        descriptor: Descriptor,
        read: Callable[[int], BinaryIO],
        progress: Callable[[int], None],
        pause: float,
    ) -> None:
        self._place = place
        self._descriptor = descriptor
        self._read = read
        self._progress = progress
        self._pause = pause

    def send(self, location: str) -> None:
        """Raises: Refused, Unreachable when it does not get on."""
        failures, furthest, offset = 0, 0, 0
        whole = True
        while True:
            try:
                if not location:
                    location, offset = self._session(), 0
                if whole:
                    self._finish(location, 0)
                    return
                while self._descriptor.size - offset > _PIECE:
                    location, offset = self._piece(location, offset)
                self._finish(location, offset)
                return
            except (Refused, Unreachable) as error:
                failure = error
            if isinstance(failure, Refused) and not _passing(failure):
                raise failure
            whole = False
            location, offset = self._position(location)
            failures = 0 if offset > furthest else failures + 1
            furthest = max(furthest, offset)
            if failures == _ATTEMPTS:
                raise failure
            self._place.transport.wait(self._pause * 2.0**failures, "PUT", self._url())

    def _url(self) -> str:
        return f"/v2/{self._place.path}/blobs/uploads/"

    def _session(self) -> str:
        response = self._place.request("POST", self._url(), actions=_PUSH, body=b"")
        finish(response)
        return _location(self._place, response)

    def _position(self, location: str) -> tuple[str, int]:
        """Where to go on, and from which byte; "" and 0 for a new session."""
        if not location:
            return "", 0
        try:
            response = self._place.request("GET", location, actions=_PUSH)
        except (Refused, DockpError):
            return "", 0
        finish(response)
        start, dash, last = response.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if response.status != 204 or not dash or start != "0" or not last.isdigit():
            return "", 0
        # "0-0" means one byte, or none: registries differ. Then it begins anew, since nothing much is lost.
        offset = int(last) + 1
        return (_location(self._place, response, location), offset) if 1 < offset <= self._descriptor.size else ("", 0)

    def _piece(self, location: str, offset: int) -> tuple[str, int]:
        end = offset + _PIECE
        response = self._request("PATCH", location, offset, end, {"Content-Range": f"{offset}-{end - 1}"})
        return _location(self._place, response, location), end

    def _finish(self, location: str, offset: int) -> None:
        url = f"{location}{'&' if '?' in location else '?'}digest={quote(self._descriptor.digest, safe='')}"
        size = self._descriptor.size
        headers = {"Content-Range": f"{offset}-{size - 1}"} if offset and offset < size else {}
        self._request("PUT", url, offset, size, headers)

    def _request(self, method: str, url: str, offset: int, end: int, headers: dict[str, str]) -> Response:
        opened: list[_Part] = []

        def body() -> Body:
            opened.append(_Part(self._read(offset), offset, end, self._progress))
            return cast(BinaryIO, opened[-1])

        headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(end - offset)}
        try:
            response = self._place.request(method, url, actions=_PUSH, headers=headers, body=body)
            finish(response)
            return response
        finally:
            for part in opened:
                part.close()


class _Part:
    """The bytes of a file up to ``end``, for one request."""

    def __init__(self, file: BinaryIO, start: int, end: int, progress: Callable[[int], None]) -> None:
        self._file = file
        self._done = start
        self._end = end
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        left = self._end - self._done
        data = self._file.read(min(size, left) if size >= 0 else left) if left else b""
        if left and not data:
            raise Unavailable(f"the blob to be pushed ends after {self._done} of {self._end} bytes")
        self._done += len(data)
        self._progress(self._done)
        return data

    def close(self) -> None:
        self._file.close()


def _passing(refused: Refused) -> bool:
    return refused.status in _PASSING or refused.code in _SESSION_CODES


def _location(place: Repository, response: Response, before: str = "") -> str:
    """Where an upload goes on. Raises: Unavailable when the registry does not say."""
    location = response.headers.get("Location") or before
    if not location:
        raise Unavailable(f"the registry at {place.endpoint.url} does not say where to upload to")
    return urljoin(f"{place.endpoint.url}/", location)


def _give_up(place: Repository, location: str) -> None:
    """End a session that nobody needs. Registries forget them anyway, in time."""
    try:
        finish(place.request("DELETE", location, actions=_PUSH))
    except (Refused, DockpError):
        return
