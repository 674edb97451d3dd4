"""One repository at one endpoint: the verbs of the distribution specification as a client says them.

Answers are a stranger's: sizes are limited, digests and types looked at, lists end.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, urljoin

from dockp.images.documents import (
    DOCUMENT_LIMIT,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    Index,
    parse_manifest,
    refuse_schema_1,
)
from dockp.images.reference import is_digest
from dockp.images.registry.endpoints import Endpoint
from dockp.images.registry.refusals import Refused, refusal
from dockp.images.registry.tokens import Authorizer, challenges
from dockp.images.registry.transport import (
    Body,
    Response,
    Transport,
    finish,
    joined,
    origin_of,
    read,
    retry_after,
    spelled,
)
from dockp.spi.errors import InvalidArgument, Unavailable
from dockp.spi.images import Credentials, RegistrySettings
from dockp.spi.values import Descriptor

ACCEPT = ", ".join(sorted(MANIFEST_TYPES | INDEX_TYPES))

_ALGORITHMS = frozenset({"sha256", "sha384", "sha512"})
_REFUSAL_LIMIT = 64 << 10
_PAGE = 1000
_PAGES = 1000
_NEXT_PAGE = re.compile(r'<([^>]*)>\s*;[^,]*\brel\s*=\s*"?next\b', re.I)
_LONGEST_LINK = 4096


class Repository:
    """A name at an endpoint. Thread-safe. Close it at the end.

    Methods raise `Refused` for what the registry refuses, `Unreachable` when there is no answer, and Unauthorized.
    Args: path: the name within the registry, ``library/debian``.
    """

    def __init__(self, endpoint: Endpoint, path: str, credentials: Credentials, settings: RegistrySettings) -> None:
        self.endpoint = endpoint
        self.path = path
        self.transport = Transport(endpoint, settings)
        self.authorizer = Authorizer(endpoint, credentials, self.transport)

    def close(self) -> None:
        self.transport.close()

    # Asking

    def request(
        self,
        method: str,
        url: str,
        *,
        actions: str = "pull",
        scopes: Iterable[str] = (),
        headers: Mapping[str, str] | None = None,
        body: Body | Callable[[], Body] = None,
        offline: bool = False,
    ) -> Response:
        """Ask with credentials, as far as the URL is the registry's own; an answer below 400, its body not yet read.

        Args: url: whole, or from ``/v2/`` on. actions: on this repository, ``pull`` or ``pull,push``; "" for none.
            scopes: others that are needed as well. body: a function is called for each attempt. offline: see
            `Authorizer.answer`.
        """
        url = urljoin(f"{self.endpoint.url}/v2/", url.removeprefix("/v2/")) if url.startswith("/v2/") else url
        shown, own = spelled(method, url), origin_of(url) == origin_of(self.endpoint.url)
        wanted = [*([f"repository:{self.path}:{actions}"] if actions else []), *scopes]
        used = self.authorizer.header(wanted) if own else None
        response = self._send(method, url, headers, body, used)
        if response.status == 401 and own:
            found = challenges(response)
            header = self.authorizer.answer(found, wanted, used, shown, offline=offline) if found else None
            if header is not None:
                finish(response)
                response = self._send(method, url, headers, body, header)
        if response.status < 400:
            return response
        found, wait = challenges(response), retry_after(response)
        text = b"" if method == "HEAD" else read(response, _REFUSAL_LIMIT, method, url)
        response.close()
        refused = refusal(response.status, response.reason or "", text, shown, found)
        refused.retry_after = wait
        raise refused

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        body: Body | Callable[[], Body],
        authorization: str | None,
    ) -> Response:
        all_headers = dict(headers or {})
        if authorization:
            all_headers["Authorization"] = authorization
        return self.transport.send(method, url, headers=all_headers, body=body() if callable(body) else body)

    def ping(self, *, offline: bool = False) -> None:
        """Whether a registry is there that takes the credentials: ``GET /v2/``. ``offline``: get a refresh token."""
        finish(self.request("GET", "/v2/", actions="", offline=offline))

    # Manifests

    def manifest_url(self, reference: str) -> str:
        return f"/v2/{self.path}/manifests/{quote(reference, safe=':')}"

    def resolve(self, reference: str) -> tuple[Descriptor, bytes | None]:
        """What a tag or digest means, and the manifest's bytes where they had to be fetched to know.

        Raises: InvalidArgument when the registry contradicts itself, or for schema 1.
        """
        # What is pinned by another kind of digest has to be read to be believed.
        described = self._describe(reference) if ":" not in reference or is_digest(reference) else None
        if described is not None:
            return described, None
        data, media_type = self.manifest(reference)
        return Descriptor(media_type=media_type, digest=_digest(data), size=len(data)), data

    def _describe(self, reference: str) -> Descriptor | None:
        """By ``HEAD``, which rate limits do not count; None when the answer leaves something open."""
        try:
            response = self.request("HEAD", self.manifest_url(reference), headers={"Accept": ACCEPT})
        except Refused:
            # Such an answer has no body that would say why; the one to GET has.
            return None
        finish(response)
        media_type, digest = _media_type(response), response.headers.get("Docker-Content-Digest", "")
        size = response.headers.get("Content-Length", "")
        refuse_schema_1(media_type)
        if (
            not is_digest(digest)
            or media_type not in MANIFEST_TYPES | INDEX_TYPES
            or not size.isdigit()
            or int(size) <= 0
        ):
            return None
        if is_digest(reference) and reference != digest:
            raise InvalidArgument(f"manifest verification failed for digest {reference}: the registry has {digest}")
        _check_size(reference, int(size))
        return Descriptor(media_type=media_type, digest=digest, size=int(size))

    def manifest(self, reference: str) -> tuple[bytes, str]:
        """The bytes of a manifest or index, and its media type. Raises: InvalidArgument as `resolve`."""
        url = self.manifest_url(reference)
        response = self.request("GET", url, headers={"Accept": ACCEPT})
        size = response.headers.get("Content-Length", "")
        if size.isdigit():
            _check_size(reference, int(size))
        data = read(response, DOCUMENT_LIMIT, "GET", self.endpoint.url + url)
        _check_size(reference, len(data))
        media_type = _media_type(response)
        refuse_schema_1(media_type)
        if media_type not in MANIFEST_TYPES | INDEX_TYPES:
            # Some registries say only that it is JSON; the document itself knows better.
            media_type = parse_manifest(data, "").media_type
        for wanted in (reference, response.headers.get("Docker-Content-Digest", "")):
            algorithm, colon, _ = wanted.partition(":")
            if colon and algorithm in _ALGORITHMS and wanted != (found := _digest(data, algorithm)):
                raise InvalidArgument(f"manifest verification failed for digest {wanted}: its bytes have {found}")
        return data, media_type

    # Blobs

    def open_blob(self, digest: str, offset: int) -> Response:
        """The answer with a blob's bytes: status 206 and from ``offset`` on, or 200 and from the start."""
        return self.open_range(f"/v2/{self.path}/blobs/{digest}", offset)

    def open_range(self, url: str, offset: int) -> Response:
        """As `open_blob`, from any URL."""
        return self.request("GET", url, headers={"Range": f"bytes={offset}-"} if offset else {})

    # Lists

    def tags(self) -> list[str]:
        """All tags, page after page."""
        found: dict[str, None] = {}
        for page in self._pages(f"/v2/{self.path}/tags/list?n={_PAGE}"):
            tags = page.get("tags") or []
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise Unavailable(f"the registry's list of tags of {self.path} is malformed")
            found.update(dict.fromkeys(tags))
        return list(found)

    def referrers(self, digest: str, artifact_type: str = "") -> list[Descriptor]:
        """What refers to a manifest; of registries that know no referrers, what the tag in their place lists."""
        query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
        found: list[Descriptor] = []
        try:
            for page in self._pages(f"/v2/{self.path}/referrers/{digest}{query}"):
                found += _entries(json.dumps(page).encode(), artifact_type)
        except Refused as refused:
            if refused.status not in (400, 404, 405):
                raise
            try:
                data, media_type = self.manifest(digest.replace(":", "-"))
            except Refused as absent:
                if absent.status != 404:
                    raise
                return []
            found = _entries(data, artifact_type) if media_type in INDEX_TYPES else []
        return found

    def _pages(self, url: str) -> Iterable[dict[str, Any]]:
        seen: set[str] = set()
        while url:
            if url in seen or len(seen) == _PAGES:
                raise Unavailable(f"{spelled('GET', url)}: the registry's list has no end")
            seen.add(url)
            response = self.request("GET", url, headers={"Accept": f"application/json, {OCI_INDEX}"})
            whole = self.endpoint.url + url if url.startswith("/v2/") else url
            data = read(response, DOCUMENT_LIMIT, "GET", whole)
            try:
                page = json.loads(data) if len(data) <= DOCUMENT_LIMIT else None
            except (ValueError, RecursionError):
                page = None
            if not isinstance(page, dict):
                raise Unavailable(f"{spelled('GET', whole)}: the answer is not a JSON object")
            yield page
            url = next_page(response, whole)


def next_page(response: Response, url: str) -> str:
    """Where the list of which ``url`` is a page goes on, or "": RFC 8288. Raises: Unreachable for what is no URL."""
    link = _NEXT_PAGE.search((response.headers.get("Link") or "")[:_LONGEST_LINK])
    return joined(url, link[1], spelled("GET", url)) if link else ""


def _digest(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def _media_type(response: Response) -> str:
    return (response.headers.get("Content-Type") or "").partition(";")[0].strip().lower()


def _check_size(reference: str, size: int) -> None:
    if size > DOCUMENT_LIMIT:
        raise InvalidArgument(f"manifest {reference} is larger than the allowed {DOCUMENT_LIMIT} bytes")


def _entries(data: bytes, artifact_type: str) -> list[Descriptor]:
    """The manifests that an index of referrers lists; registries may leave the choice by type to the client."""
    index = parse_manifest(data, "")
    if not isinstance(index, Index):
        raise InvalidArgument("the registry's list of referrers is not an image index")
    if not artifact_type:
        return list(index.manifests)
    stated = [entry.get("artifactType") for entry in json.loads(data)["manifests"]]
    return [entry for entry, kind in zip(index.manifests, stated, strict=True) if kind == artifact_type]
