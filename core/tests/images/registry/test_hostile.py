"""Registries that stall, lie, redirect in circles, close at every byte: each ends in one line and in bounded time."""

from __future__ import annotations

import gc
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dockp.images.documents import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    DOCUMENT_LIMIT,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
)
from dockp.images.registry import repository, transport
from dockp.images.registry.source import RegistrySource
from dockp.spi.errors import DockpError, InvalidArgument, NotFound, Unavailable
from dockp.spi.images import Credentials, RegistrySettings, SourceContext
from dockp.spi.values import Descriptor, Platform

SETTINGS = RegistrySettings(stall_timeout=0.3)
DATA = bytes(range(256)) * 12_000
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
LAYER = Descriptor(media_type=OCI_LAYER, digest=DIGEST, size=len(DATA))
CONFIG = {"mediaType": OCI_CONFIG, "digest": "sha256:" + "c" * 64, "size": 2}
MANIFEST = json.dumps({"schemaVersion": 2, "config": CONFIG, "layers": []}).encode()
MANIFEST_DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
HERE = Platform(architecture="amd64")


@pytest.fixture
def source() -> Iterator[Callable[..., RegistrySource]]:
    made = []

    def make(settings: RegistrySettings = SETTINGS, credentials: Credentials = Credentials()) -> RegistrySource:  # noqa: B008
        context = SourceContext(
            scratch="/nonexistent", progress=lambda *words: None, registries=settings, credentials=credentials
        )
        made.append(RegistrySource(context))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(autouse=True)
def within_seconds() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 8, "a registry kept us for too long"


def manifest_of(answer: Any, **more: Any) -> Any:
    """A script that has one manifest, and any blob."""

    def script(request: Any) -> Any:
        if "/blobs/" in request.path:
            return answer(body=DATA, **more)
        return answer(body=MANIFEST, headers={"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": MANIFEST_DIGEST})

    return script


def opened(source: Any, server: Any, path: str = "a") -> Any:
    """A source that knows where it is, its manifest resolved."""
    found = source()
    script, server.script = server.script, manifest_of(type(server).answer)
    found.resolve(f"{server.address}/{path}:1", HERE)
    server.script = script
    server.asked.clear()
    return found


@pytest.fixture
def fake(serve: Any) -> Any:
    return serve


# Manifests


def resolved(source: Any, server: Any, reference: str = "a:1") -> Any:
    return source().resolve(f"{server.address}/{reference}", HERE)


def test_a_sound_registry_is_asked_once(source: Any, fake: Any, answer: Any) -> None:
    server = fake(manifest_of(answer))
    found = source()
    descriptor = found.resolve(f"{server.address}/a:1", HERE)
    assert descriptor == Descriptor(media_type=OCI_MANIFEST, digest=MANIFEST_DIGEST, size=len(MANIFEST))
    assert [(request.method, request.path) for request in server.asked] == [("HEAD", "/v2/a/manifests/1")]
    assert found.fetch(descriptor).read() == MANIFEST
    assert found.fetch(LAYER).read() == DATA
    # One connection for TLS that was not there, one for all the rest.
    assert server.connections <= 2


@pytest.mark.parametrize("missing", ["Docker-Content-Digest", "Content-Type", "Content-Length"])
def test_a_registry_that_does_not_say_all_is_asked_for_the_manifest_itself(
    source: Any, fake: Any, answer: Any, missing: str
) -> None:
    headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": MANIFEST_DIGEST}
    headers.pop(missing, None)
    length = -1 if missing == "Content-Length" else None
    server = fake(lambda request: answer(body=MANIFEST, headers=headers, length=length))
    found = source()
    descriptor = found.resolve(f"{server.address}/a:1", HERE)
    assert descriptor == Descriptor(media_type=OCI_MANIFEST, digest=MANIFEST_DIGEST, size=len(MANIFEST))
    asked = len(server.asked)
    assert found.fetch(descriptor).read() == MANIFEST
    assert len(server.asked) == asked


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_manifest_that_is_not_what_its_digest_says_is_refused(
    source: Any, fake: Any, answer: Any, method: str
) -> None:
    other = "sha256:" + "1" * 64

    def script(request: Any) -> Any:
        digest = {} if method == "GET" and request.method == "HEAD" else {"Docker-Content-Digest": other}
        return answer(body=MANIFEST, headers={"Content-Type": OCI_MANIFEST, **digest})

    with pytest.raises(InvalidArgument, match=r"^manifest verification failed for digest sha256:"):
        resolved(source, fake(script), f"a@{MANIFEST_DIGEST}")


def test_bytes_of_another_digest_are_refused(source: Any, fake: Any, answer: Any) -> None:
    server = fake(lambda request: answer(body=MANIFEST + b" ", headers={"Content-Type": OCI_MANIFEST}))
    with pytest.raises(InvalidArgument, match=r"^manifest verification failed for digest sha256:"):
        resolved(source, server, f"a@{MANIFEST_DIGEST}")


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_a_reference_by_another_kind_of_digest_is_held_to_it(
    source: Any, fake: Any, answer: Any, algorithm: str
) -> None:
    server = fake(manifest_of(answer))
    pinned = hashlib.new(algorithm, MANIFEST).hexdigest()
    assert resolved(source, server, f"a@{algorithm}:{pinned}").digest == MANIFEST_DIGEST
    with pytest.raises(InvalidArgument, match=rf"^manifest verification failed for digest {algorithm}:"):
        resolved(source, server, f"a@{algorithm}:{pinned[::-1]}")


@pytest.mark.parametrize("length", [None, -1, 10 * DOCUMENT_LIMIT])
def test_a_huge_manifest_is_not_read(source: Any, fake: Any, answer: Any, length: int | None) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 64 * DOCUMENT_LIMIT:
            sent += 1 << 16
            yield b" " * (1 << 16)

    def script(request: Any) -> Any:
        body = endless() if length == -1 else b" " * (DOCUMENT_LIMIT + 1)
        return answer(body=body, headers={"Content-Type": OCI_MANIFEST}, length=length)

    with pytest.raises(InvalidArgument, match=f"^manifest 1 is larger than the allowed {DOCUMENT_LIMIT} bytes$"):
        resolved(source, fake(script))
    assert sent < 8 * DOCUMENT_LIMIT


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.v1+json",
    ],
)
def test_schema_1_is_refused_clearly(source: Any, fake: Any, answer: Any, kind: str) -> None:
    server = fake(lambda request: answer(body=b'{"schemaVersion": 1}', headers={"Content-Type": kind}))
    with pytest.raises(InvalidArgument, match=r"^this image has a Docker schema 1 manifest"):
        resolved(source, server)


def test_a_type_other_than_announced_is_refused(source: Any, fake: Any, answer: Any) -> None:
    server = fake(manifest_of(answer))
    found = source()
    found.resolve(f"{server.address}/a:1", HERE)
    wrong = Descriptor(media_type=DOCKER_MANIFEST, digest=MANIFEST_DIGEST, size=len(MANIFEST))
    with pytest.raises(InvalidArgument, match=r"but was announced as 'application/vnd\.docker\."):
        found.fetch(wrong)


def test_json_by_any_other_name_is_a_manifest_when_it_says_so(source: Any, fake: Any, answer: Any) -> None:
    server = fake(lambda request: answer(body=b'{"mediaType": "%s", "manifests": []}' % DOCKER_INDEX.encode()))
    assert resolved(source, server).media_type == DOCKER_INDEX
    server.script = lambda request: answer(body=b"<html>hello</html>", headers={"Content-Type": "text/html"})
    with pytest.raises(InvalidArgument, match=r"^image manifest is not valid JSON"):
        resolved(source, server)


# Connections


def message(error: pytest.ExceptionInfo[DockpError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def test_nobody_there(source: Any, fake: Any) -> None:
    server = fake(None)
    with pytest.raises(Unavailable) as error:
        source().resolve("127.0.0.1:1/a", HERE)
    assert message(error) == 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'
    with pytest.raises(Unavailable) as error:
        source().resolve("no.such.host.invalid/a", HERE)
    assert message(error) == (
        'Get "https://no.such.host.invalid/v2/": dial tcp: lookup no.such.host.invalid: no such host'
    )
    assert not server.asked


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_registry_that_stalls_is_given_up(source: Any, fake: Any, answer: Any, method: str) -> None:
    server = fake(lambda request: None if request.method == method else answer(status=404))
    with pytest.raises(Unavailable, match="net/http: timeout awaiting response: the server sends nothing"):
        resolved(source, server)


def test_a_registry_that_sends_its_answer_by_the_byte_is_given_up(source: Any, fake: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(transport, "_TRIES", 1)
    ended = threading.Event()

    def drip(conn_bytes: bytes = b"HTTP/1.1 200 OK\r\nX: ") -> Iterator[bytes]:
        yield conn_bytes
        while not ended.is_set():
            yield b"x"

    import socket

    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while not ended.is_set():
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            with conn:
                try:
                    if conn.recv(4096)[:1] == b"\x16":  # TLS
                        conn.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                        continue
                    for piece in drip():
                        conn.sendall(piece)
                        ended.wait(0.05)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    try:
        with pytest.raises(Unavailable) as error:
            source().resolve(f"{address}/a", HERE)
        assert message(error).startswith(f'Head "http://{address}/v2/a/manifests/latest": ')
    finally:
        ended.set()
        listener.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\0" * 100,
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[bad/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://exa mple/\r\n\r\n",
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: \xff\xfe, =,,\r\n\r\n",
        b"HTTP/1.1 206 Partial\r\n\r\n",
        b"HTTP/1.1 600 What\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
    ],
)
def test_garbage_is_one_line(source: Any, fake: Any, garbage: bytes) -> None:
    server = fake(lambda request: garbage)
    with pytest.raises(DockpError) as error:
        resolved(source, server)
    message(error)
    found = opened(source, server)
    with pytest.raises(DockpError) as error:
        found.fetch(LAYER).read()
    message(error)


@pytest.mark.parametrize("circle", [1, 2, 30])
def test_redirects_in_circles_end(source: Any, fake: Any, answer: Any, circle: int) -> None:
    def script(request: Any) -> Any:
        number = int(request.query or 0)
        return answer(status=307, headers={"Location": f"{request.path}?{(number + 1) % circle}"})

    server = fake(script)
    with pytest.raises(Unavailable, match=r'^Head "http://.*/v2/a/manifests/1": stopped after 10 redirects$'):
        resolved(source, server)
    assert len(server.asked) == 11


def test_a_busy_registry_is_asked_again_when_it_said_so(source: Any, fake: Any, answer: Any) -> None:
    answers = [answer(status=429, headers={"Retry-After": "0"}), answer(status=503), answer(status=502)]
    sound = manifest_of(answer)
    server = fake(lambda request: answers.pop() if answers else sound(request))
    assert resolved(source, server).digest == MANIFEST_DIGEST
    assert len(server.asked) == 4


def test_a_registry_that_wants_us_to_wait_for_hours_is_believed(source: Any, fake: Any, answer: Any) -> None:
    text = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your pull rate limit."}]}'
    server = fake(lambda request: answer(status=429, headers={"Retry-After": "21600"}, body=text))
    with pytest.raises(Unavailable, match=r"^toomanyrequests: You have reached your pull rate limit.$"):
        resolved(source, server)
    assert len(server.asked) == 2


def test_a_registry_that_is_always_busy_is_given_up(source: Any, fake: Any, answer: Any) -> None:
    server = fake(lambda request: answer(status=503))
    with pytest.raises(Unavailable, match=r"^received unexpected HTTP status: 503 Service Unavailable$"):
        resolved(source, server)
    assert len(server.asked) == 8


# Blobs


def test_a_blob_goes_on_where_the_connection_broke(source: Any, fake: Any, answer: Any) -> None:
    offsets = []

    def script(request: Any) -> Any:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        offsets.append(start)
        headers = {"Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"} if start else {}
        return answer(
            status=206 if start else 200,
            headers=headers,
            body=DATA[start : start + (1 << 20) + 100],
            length=len(DATA) - start,
            cut=True,
        )

    server = fake(script)
    assert opened(source, server).fetch(LAYER).read() == DATA
    assert offsets == [0, (1 << 20) + 100, (2 << 20) + 200]
    offsets.clear()
    assert opened(source, server).fetch(LAYER, 1000).read() == DATA[1000:]
    assert offsets[0] == 1000
    offsets.clear()
    assert opened(source, server).fetch(LAYER, len(DATA)).read() == b""
    assert offsets == []


def test_a_server_that_knows_no_ranges_serves_too(source: Any, fake: Any, answer: Any) -> None:
    server = fake(lambda request: answer(body=DATA))
    assert opened(source, server).fetch(LAYER, 2_000_000).read() == DATA[2_000_000:]


@pytest.mark.parametrize("each", [0, 1, 1000])
def test_a_registry_that_closes_at_every_byte_is_given_up_and_what_came_is_kept(
    source: Any, fake: Any, answer: Any, each: int
) -> None:
    def script(request: Any) -> Any:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        headers = {"Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"} if start else {}
        length = len(DATA) - start
        return answer(
            status=206 if start else 200, headers=headers, body=DATA[start : start + each], length=length, cut=True
        )

    server = fake(script)
    stream = opened(source, server).fetch(LAYER)
    got: list[bytes] = []
    with pytest.raises(Unavailable, match=r"unexpected EOF$"):
        got.extend(iter(lambda: stream.read(1 << 20), b""))
    assert b"".join(got) == DATA[: 5 * each]
    assert len(server.asked) == 5


def test_a_blob_that_stalls_is_asked_for_again(source: Any, fake: Any, answer: Any) -> None:
    stalled = []

    def script(request: Any) -> Any:
        if stalled:
            return answer(body=DATA)
        stalled.append(1)
        return answer(body=[DATA[:5000], b"", b""], length=len(DATA), pace=5)

    server = fake(script)
    assert opened(source, server).fetch(LAYER).read() == DATA
    assert len(server.asked) == 2


@pytest.mark.parametrize("length", [len(DATA) - 1, len(DATA) + 1, 1 << 62])
def test_a_length_that_is_not_the_manifests_is_refused_at_once(
    source: Any, fake: Any, answer: Any, length: int
) -> None:
    server = fake(lambda request: answer(body=DATA, length=length, cut=True))
    with pytest.raises(
        InvalidArgument, match=rf"^blob {DIGEST} has {length} bytes at the registry, but its manifest says"
    ):
        opened(source, server).fetch(LAYER)
    assert len(server.asked) == 1


def test_no_more_than_the_stated_bytes_are_taken(source: Any, fake: Any, answer: Any) -> None:
    server = fake(lambda request: answer(body=iter([DATA, DATA]), length=-1))
    assert opened(source, server).fetch(LAYER).read() == DATA


@pytest.mark.parametrize("said", ["bytes 0-9/10", "", "rubbish", f"bytes 5-{len(DATA) - 1}/{len(DATA)}"])
def test_another_part_than_was_asked_for_is_refused(source: Any, fake: Any, answer: Any, said: str) -> None:
    server = fake(lambda request: answer(status=206, headers={"Content-Range": said}, body=DATA[10:]))
    with pytest.raises(InvalidArgument, match=r"the registry sent another part than was asked for$"):
        opened(source, server).fetch(LAYER, 10)


def test_a_blob_that_is_not_there(source: Any, fake: Any, answer: Any) -> None:
    body = b'{"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown to registry"}]}'
    server = fake(lambda request: answer(status=404, body=body))
    with pytest.raises(NotFound, match=r"^blob unknown: blob unknown to registry$"):
        opened(source, server).fetch(LAYER)


def test_a_foreign_layer_comes_from_its_urls(source: Any, fake: Any, answer: Any) -> None:
    server = fake(lambda request: answer(status=404))
    absent, elsewhere = fake(lambda request: answer(status=404)), fake(lambda request: answer(body=DATA))
    urls = ("ftp://x/y", f"http://{absent.address}/l", f"http://{elsewhere.address}/l?s=1")
    layer = Descriptor(media_type=OCI_LAYER, digest=DIGEST, size=len(DATA), urls=urls)
    assert opened(source, server).fetch(layer, 5).read() == DATA[5:]
    assert server.paths() == [f"/v2/a/blobs/{DIGEST}"]
    assert elsewhere.paths() == ["/l"]


def test_closing_ends_waits(source: Any, fake: Any, answer: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(transport, "PAUSE", 20.0)
    server = fake(lambda request: answer(status=503))
    found = source()
    threading.Timer(0.3, found.close).start()
    with pytest.raises(Unavailable, match="context canceled"):
        found.resolve(f"{server.address}/a", HERE)


def test_closing_ends_reads(source: Any, fake: Any, answer: Any) -> None:
    server = fake(lambda request: answer(body=[DATA[:5000], b"", b""], length=len(DATA), pace=30))
    found = source(RegistrySettings(stall_timeout=30.0))
    server.script, script = manifest_of(answer), server.script
    found.resolve(f"{server.address}/a:1", HERE)
    server.script = script
    stream = found.fetch(LAYER)
    threading.Timer(0.3, found.close).start()
    with pytest.raises(Unavailable, match="context canceled"):
        stream.read(-1)


def test_a_registry_that_had_tls_is_not_asked_without(source: Any, fake: Any, answer: Any, authority: Any) -> None:
    server = fake(manifest_of(answer), authority.server_context())
    found = source()
    found.resolve(f"{server.address}/a:1", HERE)
    server.script = lambda request: b""
    with pytest.raises(Unavailable, match=r'^Get "https://'):
        found.fetch(LAYER)


def test_threads_read_side_by_side(source: Any, fake: Any, answer: Any) -> None:
    found = opened(source, fake(lambda request: answer(body=DATA)))
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(found.fetch(LAYER).read())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert results == [DATA] * 6


def test_nothing_stays_open(source: Any, fake: Any, answer: Any) -> None:
    import os

    server = fake(lambda request: answer(body=DATA))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        found = opened(source, server)
        with found.fetch(LAYER) as stream:
            stream.read(10)
        found.fetch(LAYER).close()
        found.close()
        del found, stream
    gc.collect()
    deadline = time.monotonic() + 3
    while len(os.listdir("/proc/self/fd")) > before + 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= before + 4


# Lists


def test_tags_come_page_by_page(source: Any, fake: Any, answer: Any) -> None:
    def script(request: Any) -> Any:
        if "last=b" in request.query:
            return answer(body=b'{"name": "a", "tags": ["c", "a"]}')
        link = {"Link": '</v2/a/tags/list?n=2&last=b>; rel="next"'}
        return answer(body=b'{"name": "a", "tags": ["a", "b"]}', headers=link)

    server = fake(script)
    assert source().tags(f"{server.address}/a") == ["a", "b", "c"]


@pytest.mark.parametrize("body", [b"[]", b"<html>", b'{"tags": "x"}', b'{"tags": [1]}', b" " * (DOCUMENT_LIMIT + 1)])
def test_a_list_that_is_none_is_refused(source: Any, fake: Any, answer: Any, body: bytes) -> None:
    server = fake(lambda request: answer(body=body))
    with pytest.raises(Unavailable):
        source().tags(f"{server.address}/a")


def test_a_list_without_end_is_refused(source: Any, fake: Any, answer: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(repository, "_PAGES", 20)
    server = fake(lambda request: answer(body=b'{"tags": []}', headers={"Link": '<?x>; rel="next"'}))
    with pytest.raises(Unavailable, match=r"the registry's list has no end$"):
        source().tags(f"{server.address}/a")
    began = time.monotonic()
    server.script = lambda request: answer(body=b'{"tags": []}', headers={"Link": "<" * 60_000})
    assert source().tags(f"{server.address}/a") == []
    assert time.monotonic() - began < 2
    server.script = lambda request: answer(
        body=b'{"tags": []}', headers={"Link": f'</v2/a/tags/list?{len(server.asked)}>; rel="next"'}
    )
    with pytest.raises(Unavailable, match=r"the registry's list has no end$"):
        source().tags(f"{server.address}/a")


def test_referrers_are_listed_and_chosen_by_type(source: Any, fake: Any, answer: Any) -> None:
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": "sha256:" + digit * 64, "size": 5, "artifactType": kind}
        for digit, kind in (("1", "a/sig"), ("2", "a/sbom"))
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()

    def with_api(request: Any) -> Any:
        return answer(body=index, headers={"Content-Type": OCI_INDEX})

    def by_tag(request: Any) -> Any:
        if request.path.endswith(f"/manifests/{MANIFEST_DIGEST.replace(':', '-')}"):
            return with_api(request)
        return answer(status=404)

    subject = Descriptor(media_type=OCI_MANIFEST, digest=MANIFEST_DIGEST, size=1)
    for script in (with_api, by_tag):
        found = opened(source, fake(script))
        assert [entry.digest[7] for entry in found.referrers(subject)] == ["1", "2"]
        assert [entry.digest[7] for entry in found.referrers(subject, "a/sbom")] == ["2"]
    assert opened(source, fake(lambda request: answer(status=404))).referrers(subject) == []


# Mirrors


def test_a_mirror_is_asked_first_and_the_registry_when_it_fails(source: Any, fake: Any, answer: Any) -> None:
    sound = manifest_of(answer)
    mirror, registry = fake(sound), fake(sound)
    settings = RegistrySettings(stall_timeout=0.3, mirrors={registry.address: [f"http://{mirror.address}/cache"]})

    def pull() -> bytes:
        found = source(settings, Credentials(username="me", password="geheim"))
        found.resolve(f"{registry.address}/a:1", HERE)
        return bytes(found.fetch(LAYER).read())

    assert pull() == DATA
    assert [request.path for request in mirror.asked] == ["/cache/v2/a/manifests/1", f"/cache/v2/a/blobs/{DIGEST}"]
    assert not registry.asked
    for broken in (
        lambda request: answer(status=404),
        lambda request: answer(status=401, headers={"WWW-Authenticate": "Basic"}),
        lambda request: answer(status=500),
        lambda request: b"",
        lambda request: answer(body=b"", headers={"Content-Type": "text/html"}),
    ):
        mirror.script = broken
        assert pull() == DATA
    assert "Basic" not in str([request.authorization for request in mirror.asked])


def test_a_mirror_that_fails_half_way_is_followed_by_the_registry(source: Any, fake: Any, answer: Any) -> None:
    sound = manifest_of(answer)
    registry = fake(sound)

    def failing(request: Any) -> Any:
        if "/blobs/" not in request.path:
            return sound(request)
        return (
            answer(status=404) if "range" in request.headers else answer(body=DATA[:5000], length=len(DATA), cut=True)
        )

    mirror = fake(failing)
    settings = RegistrySettings(stall_timeout=0.3, mirrors={registry.address: [f"http://{mirror.address}"]})
    found = source(settings)
    found.resolve(f"{registry.address}/a:1", HERE)
    assert found.fetch(LAYER).read() == DATA
    assert registry.paths() == [f"/v2/a/blobs/{DIGEST}"]


# Proxies


def test_a_proxy_is_used_and_told_its_password(source: Any, fake: Any, answer: Any, monkeypatch: Any) -> None:
    proxy = fake(manifest_of(answer))
    monkeypatch.setenv("HTTP_PROXY", f"http://user:pass%20word@{proxy.address}")
    settings = RegistrySettings(
        stall_timeout=0.3, mirrors={"r.example": ["http://mirror.example"]}, insecure=["mirror.example"]
    )
    source(settings).resolve("r.example/a:1", HERE)
    assert proxy.paths("HEAD") == ["http://mirror.example/v2/a/manifests/1"]
    assert proxy.asked[0].headers["proxy-authorization"] == "Basic dXNlcjpwYXNzIHdvcmQ="


def test_a_configured_proxy_wins_over_the_environments(source: Any, fake: Any, answer: Any, monkeypatch: Any) -> None:
    proxy = fake(manifest_of(answer))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    settings = RegistrySettings(
        stall_timeout=0.3,
        mirrors={"r.example": ["http://mirror.example"]},
        proxies={"HTTP_PROXY": f"http://{proxy.address}"},
    )
    source(settings).resolve("r.example/a:1", HERE)
    assert proxy.paths("HEAD") == ["http://mirror.example/v2/a/manifests/1"]


def test_a_proxy_that_is_not_there(source: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with pytest.raises(Unavailable) as error:
        source().resolve("r.example/a:1", HERE)
    assert message(error) == 'Get "https://r.example/v2/": proxyconnect tcp: connection refused'
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(Unavailable, match="a proxy of the kind socks5 cannot be used, only http and https"):
        source().resolve("r.example/a:1", HERE)
