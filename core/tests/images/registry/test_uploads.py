"""Uploads that go well, that break and go on, and that are taken from another repository."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pytest

from dockp.images.documents import OCI_LAYER, OCI_MANIFEST
from dockp.images.reference import parse
from dockp.images.registry import uploads
from dockp.images.registry.uploads import RegistryTarget
from dockp.spi.errors import DockpError, Forbidden, InvalidArgument, Unavailable
from dockp.spi.images import Credentials, RegistrySettings
from dockp.spi.values import Descriptor

DATA = bytes(range(256)) * 4
BLOB = Descriptor(media_type=OCI_LAYER, digest=f"sha256:{hashlib.sha256(DATA).hexdigest()}", size=len(DATA))


class FakeRegistry:
    """Takes uploads. ``faults`` are consulted first: (method, answer or how many bytes are kept before the cut)."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.faults: list[tuple[str, Any]] = []
        self.sessions: dict[str, bytearray] = {}
        self.blobs: dict[str, bytes] = {}
        self.forgetful = False

    def __call__(self, request: Any) -> Any:
        if request.path == "/v2/":
            return self.answer()
        if self.faults and self.faults[0][0] == request.method:
            fault = self.faults.pop(0)[1]
            if not isinstance(fault, int):
                return fault
            if self.forgetful:
                self.sessions.clear()
            else:
                self.sessions[request.path] += request.body[:fault]
            return b""
        return getattr(self, request.method.lower())(request)

    def head(self, request: Any) -> Any:
        return self.answer(status=200 if request.path.rpartition("/")[2] in self.blobs else 404)

    def post(self, request: Any) -> Any:
        path = f"/upload/{len(self.sessions) + 1}"
        self.sessions[path] = bytearray()
        return self.answer(status=202, headers={"Location": path})

    def get(self, request: Any) -> Any:
        if request.path not in self.sessions:
            return self.answer(status=404, body=b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}')
        size = len(self.sessions[request.path])
        return self.answer(status=204, headers={"Range": f"0-{max(size - 1, 0)}"})

    def patch(self, request: Any) -> Any:
        self._append(request)
        return self.answer(status=202, headers={"Location": request.path})

    def put(self, request: Any) -> Any:
        self._append(request)
        data = bytes(self.sessions.pop(request.path))
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert digest.replace(":", "%3A") in request.query
        self.blobs[digest] = data
        return self.answer(status=201)

    def _append(self, request: Any) -> None:
        kept = self.sessions[request.path]
        assert int(request.headers["content-length"]) == len(request.body)
        stated = request.headers.get("content-range")
        if stated is not None:
            assert stated == f"{len(kept)}-{len(kept) + len(request.body) - 1}"
        kept += request.body


@pytest.fixture
def registry(answer: Any, monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    monkeypatch.setattr(uploads, "_PIECE", 100)
    return FakeRegistry(answer)


@pytest.fixture
def target_at() -> Iterator[Callable[[str], RegistryTarget]]:
    made: list[RegistryTarget] = []

    def make(address: str) -> RegistryTarget:
        who = Credentials(username="me", password="secret")
        made.append(RegistryTarget(parse(f"{address}/a/b"), who, RegistrySettings(stall_timeout=5), pause=0.001))
        return made[-1]

    yield make
    for target in made:
        target.close()


def read(offset: int) -> BinaryIO:
    return io.BytesIO(DATA[offset:])


def test_a_blob_goes_whole(registry: FakeRegistry, serve: Any, target_at: Any) -> None:
    server, told = serve(registry), []
    target = target_at(server.address)
    assert not target.has(BLOB)
    assert target.put(BLOB, read, progress=told.append) == ""
    assert registry.blobs == {BLOB.digest: DATA}
    assert told[-1] == len(DATA)
    assert target.has(BLOB)
    assert [request.method for request in server.asked] == ["GET", "HEAD", "POST", "PUT", "HEAD"]


@pytest.mark.parametrize("kept", [0, 1, 2, 500, 1024])
def test_an_upload_goes_on_where_it_was_cut(kept: int, registry: FakeRegistry, serve: Any, target_at: Any) -> None:
    registry.faults = [("PUT", kept)]
    server = serve(registry)
    target_at(server.address).put(BLOB, read)
    assert registry.blobs == {BLOB.digest: DATA}
    pieces = [request for request in server.asked if request.method == "PATCH"]
    assert len(pieces) == {0: 10, 1: 10, 2: 10, 500: 5, 1024: 0}[kept]


def test_it_goes_on_in_pieces_that_may_be_cut_too(registry: FakeRegistry, serve: Any, target_at: Any) -> None:
    registry.faults = [("PUT", 300), ("PATCH", 50), ("PATCH", 99), ("PUT", 10)]
    server = serve(registry)
    target_at(server.address).put(BLOB, read)
    assert registry.blobs == {BLOB.digest: DATA}


def test_the_registry_says_from_where(registry: FakeRegistry, serve: Any, answer: Any, target_at: Any) -> None:
    registry.faults = [("PUT", 300), ("PATCH", answer(status=416)), ("PATCH", answer(status=503))]
    server = serve(registry)
    target_at(server.address).put(BLOB, read)
    assert registry.blobs == {BLOB.digest: DATA}


def test_a_forgotten_session_begins_anew(registry: FakeRegistry, serve: Any, target_at: Any) -> None:
    registry.faults, registry.forgetful = [("PUT", 300)], True
    server = serve(registry)
    target_at(server.address).put(BLOB, read)
    assert registry.blobs == {BLOB.digest: DATA}
    assert len([request for request in server.asked if request.method == "POST"]) == 2


def test_it_does_not_try_for_ever(registry: FakeRegistry, serve: Any, answer: Any, target_at: Any) -> None:
    registry.faults = [(method, answer(status=502)) for method in ("PUT", *("PATCH",) * 50)]
    server = serve(registry)
    with pytest.raises(Unavailable, match="502"):
        target_at(server.address).put(BLOB, read)
    assert len(server.asked) < 30


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(400, "DIGEST_INVALID", InvalidArgument), (403, "DENIED", Forbidden), (413, "SIZE_TOO_LARGE", InvalidArgument)],
)
def test_what_will_not_become_right_is_not_tried_again(
    status: int, code: str, kind: type[DockpError], registry: FakeRegistry, serve: Any, answer: Any, target_at: Any
) -> None:
    refusal = answer(status=status, body=f'{{"errors": [{{"code": "{code}", "message": "because"}}]}}'.encode())
    registry.faults = [("PUT", refusal)]
    server = serve(registry)
    with pytest.raises(kind, match="because"):
        target_at(server.address).put(BLOB, read)
    assert [request.method for request in server.asked] == ["GET", "POST", "PUT"]


def test_a_blob_comes_from_another_repository(registry: FakeRegistry, serve: Any, answer: Any, target_at: Any) -> None:
    registry.faults = [("POST", answer(status=201))]
    server = serve(registry)
    there, elsewhere = f"{server.address}/c/d", "registry.example/c/d"
    assert target_at(server.address).put(BLOB, read, mounts=[elsewhere, there]) == there
    (asked,) = [request for request in server.asked if request.method == "POST"]
    assert f"mount={BLOB.digest.replace(':', '%3A')}&from=c/d" in asked.query


def test_without_it_there_it_is_sent(registry: FakeRegistry, serve: Any, answer: Any, target_at: Any) -> None:
    denied = answer(status=403, body=b'{"errors": [{"code": "DENIED"}]}')
    registry.faults = [("POST", denied)]
    server = serve(registry)
    names = [f"{server.address}/secret", f"{server.address}/empty"]
    assert target_at(server.address).put(BLOB, read, mounts=names) == ""
    assert registry.blobs == {BLOB.digest: DATA}


def test_a_file_that_is_too_short_is_not_sent_as_something_else(
    registry: FakeRegistry, serve: Any, target_at: Any
) -> None:
    server = serve(registry)
    with pytest.raises(Unavailable, match="ends after 10 of 1024 bytes"):
        target_at(server.address).put(BLOB, lambda offset: io.BytesIO(DATA[:10]))
    assert registry.blobs == {}


def test_credentials_do_not_follow_to_another_host(
    registry: FakeRegistry, serve: Any, answer: Any, target_at: Any
) -> None:
    storage = serve(registry)

    def script(request: Any) -> Any:
        if not request.authorization:
            return answer(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        if request.method == "POST":
            registry.post(request)
            return answer(status=202, headers={"Location": f"http://{storage.address}/upload/1"})
        return answer()

    server = serve(script)
    target_at(server.address).put(BLOB, read)
    assert registry.blobs == {BLOB.digest: DATA}
    assert [request.authorization for request in storage.asked] == [""]


def test_a_manifest_must_arrive_as_it_is(registry: FakeRegistry, serve: Any, answer: Any, target_at: Any) -> None:
    data = b"{}"
    manifest = Descriptor(media_type=OCI_MANIFEST, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))
    registry.faults = [("PUT", answer(status=201, headers={"Docker-Content-Digest": BLOB.digest}))]
    server = serve(registry)
    with pytest.raises(InvalidArgument, match="stored manifest"):
        target_at(server.address).put_manifest(manifest, data, "1")
    (asked,) = [request for request in server.asked if request.method == "PUT"]
    assert (asked.path, asked.body, asked.headers["content-type"]) == ("/v2/a/b/manifests/1", data, OCI_MANIFEST)


def test_a_registry_without_an_upload_s_place(registry: FakeRegistry, serve: Any, answer: Any, target_at: Any) -> None:
    registry.faults = [("POST", answer(status=202))]
    server = serve(registry)
    with pytest.raises(Unavailable, match="does not say where to upload"):
        target_at(server.address).put(BLOB, read)
