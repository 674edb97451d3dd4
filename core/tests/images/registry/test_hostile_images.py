"""Images that no honest registry has: each is refused in one line, and the store stays as it was."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from dockp.images.documents import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, host_platform
from dockp.images.registry.source import RegistrySource
from dockp.spi.errors import DockpError, InvalidArgument

PLATFORM = {"os": "linux", "architecture": host_platform().architecture}


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Shelf:
    """Blobs and manifests to serve: a script for a server."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}

    def blob(self, data: bytes, media_type: str, *, as_digest: str = "", size: int | None = None) -> dict[str, Any]:
        digest = as_digest or digest_of(data)
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data) if size is None else size}

    def manifest(self, document: Any, media_type: str = OCI_MANIFEST, tag: str = "1") -> dict[str, Any]:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.manifests[digest_of(data)] = self.manifests[tag] = (data, media_type)
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def image(self, tar: bytes, **config: Any) -> dict[str, Any]:
        """A sound image's manifest as a document."""
        layer = self.blob(gzip.compress(tar), OCI_LAYER + "+gzip")
        document = {**PLATFORM, "rootfs": {"type": "layers", "diff_ids": [digest_of(tar)]}, **config}
        found = self.blob(json.dumps(document).encode(), OCI_CONFIG)
        return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": found, "layers": [layer]}

    def __call__(self, request: Any) -> Any:
        name = request.path.rpartition("/")[2]
        if "/manifests/" in request.path and name in self.manifests:
            data, media_type = self.manifests[name]
            return self._answer(
                body=data, headers={"Content-Type": media_type, "Docker-Content-Digest": digest_of(data)}
            )
        if name in self.blobs:
            return self._answer(body=self.blobs[name])
        return self._answer(status=404)


@pytest.fixture
def shelf(answer: Any) -> Shelf:
    return Shelf(answer)


def endless(shelf: Shelf, tar: bytes) -> None:
    """Indexes in indexes."""
    inner = shelf.manifest(shelf.image(tar))
    for _ in range(20):
        inner = shelf.manifest({"schemaVersion": 2, "manifests": [{**inner, "platform": PLATFORM}]}, OCI_INDEX)


def many_layers(shelf: Shelf, tar: bytes) -> None:
    # As many as fit into a manifest of the largest size.
    layer = {"mediaType": OCI_LAYER, "digest": digest_of(b"x"), "size": 1}
    shelf.manifest({**shelf.image(tar), "layers": [layer] * 20_000})


def really_a_million(shelf: Shelf, tar: bytes) -> None:
    layer = {"mediaType": OCI_LAYER, "digest": digest_of(b"x"), "size": 1}
    shelf.manifest({**shelf.image(tar), "layers": [layer] * 1_000_000})


def many_platforms(shelf: Shelf, tar: bytes) -> None:
    entry = {
        "mediaType": OCI_MANIFEST,
        "digest": digest_of(b"x"),
        "size": 1,
        "platform": {"os": "x", "architecture": "y"},
    }
    shelf.manifest({"schemaVersion": 2, "manifests": [entry] * 15_000}, OCI_INDEX)


def deep_json(shelf: Shelf, tar: bytes) -> None:
    shelf.manifest(b'{"schemaVersion": 2, "layers": ' + b"[" * 1_000_000)


def other_config(shelf: Shelf, tar: bytes) -> None:
    document = shelf.image(tar)
    document["config"] = shelf.blob(b"{}", OCI_CONFIG, as_digest=document["config"]["digest"])
    shelf.manifest(document)


def other_layer(shelf: Shelf, tar: bytes) -> None:
    document = shelf.image(tar)
    layer = document["layers"][0]
    shelf.blobs[layer["digest"]] = b"\0" * layer["size"]
    shelf.manifest(document)


def other_content(shelf: Shelf, tar: bytes) -> None:
    # The compressed bytes are what they should be, what is in them is not.
    document = shelf.image(tar)
    document["layers"] = [shelf.blob(gzip.compress(tar + b"\0" * 512), OCI_LAYER + "+gzip")]
    shelf.manifest(document)


def huge_config(shelf: Shelf, tar: bytes) -> None:
    document = shelf.image(tar)
    document["config"]["size"] = 1 << 40
    shelf.manifest(document)


def huge_layer(shelf: Shelf, tar: bytes) -> None:
    document = shelf.image(tar)
    document["layers"][0]["size"] = 1 << 62
    shelf.manifest(document)


def fewer_layers(shelf: Shelf, tar: bytes) -> None:
    document = shelf.image(tar)
    shelf.manifest({**document, "layers": document["layers"] * 2})


def escaping_digest(shelf: Shelf, tar: bytes) -> None:
    document = shelf.image(tar)
    document["layers"][0]["digest"] = "sha256:../../../../etc/passwd"
    shelf.manifest(document)


def both_kinds(shelf: Shelf, tar: bytes) -> None:
    shelf.manifest({**shelf.image(tar), "manifests": []})


def an_artifact(shelf: Shelf, tar: bytes) -> None:
    document = shelf.image(tar)
    document["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
    shelf.manifest(document)


def no_layer(shelf: Shelf, tar: bytes) -> None:
    document = shelf.image(tar)
    shelf.blobs.pop(document["layers"][0]["digest"])
    shelf.manifest(document)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (endless, "has more than 3 indexes inside each other"),
        (many_layers, "image has 20000 layers, more than the possible"),
        (really_a_million, "is larger than the allowed 4194304 bytes"),
        (many_platforms, "no matching manifest for linux/"),
        (deep_json, "image manifest is not valid JSON"),
        (other_config, "sha256:"),
        (other_layer, "sha256:"),
        (other_content, "sha256:"),
        (huge_config, "is larger than the allowed"),
        (huge_layer, "bytes at the registry, but its manifest says"),
        (fewer_layers, "image manifest has 2 layers, its config 1"),
        (escaping_digest, "invalid digest"),
        (both_kinds, "image manifest is ambiguous"),
        (an_artifact, "this is not a container image but an artifact"),
        (no_layer, "404"),
    ],
)
@pytest.mark.parametrize("driver", ["vfs", "overlay2"])
def test_one_line_and_the_store_as_it_was(
    store: Any, serve: Any, shelf: Shelf, make_tar: Any, make: Callable[[Shelf, bytes], None], text: str, driver: str
) -> None:
    sound = Shelf(shelf._answer)
    sound.manifest(sound.image(make_tar({"sound": b"1"})))
    server = serve(sound)
    name = f"{server.address}/a:1"
    kept = store.images.add_from(RegistrySource, name, tag=name, driver=driver)
    before = sorted(digest for digest, _ in store.content.walk())

    make(shelf, make_tar({"file": b"content"}))
    server.script = shelf
    began = time.monotonic()
    with pytest.raises(DockpError) as error:
        store.images.add_from(RegistrySource, name, tag=name, driver=driver)
    assert time.monotonic() - began < 5
    assert text in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700

    assert store.images.get(name).id == kept.id
    store.collector.collect()
    assert sorted(digest for digest, _ in store.content.walk()) == before
    assert len(store.images.list(all=True)) == 1


def test_an_index_leads_to_what_runs_here(store: Any, serve: Any, shelf: Shelf, make_tar: Any) -> None:
    here = shelf.manifest(shelf.image(make_tar({"here": b"1"})), tag="here")
    there = shelf.manifest(shelf.image(make_tar({"there": b"1"}), architecture="s390x"), tag="there")
    attestation = {**there, "platform": {"os": "unknown", "architecture": "unknown"}}
    nested = shelf.manifest(
        {"schemaVersion": 2, "manifests": [{**here, "platform": PLATFORM}]}, OCI_INDEX, tag="nested"
    )
    entries = [
        attestation,
        {**there, "platform": {"os": "linux", "architecture": "s390x"}},
        {**nested, "platform": PLATFORM},
    ]
    shelf.manifest({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, OCI_INDEX)
    server = serve(shelf)
    name = f"{server.address}/a:1"
    image = store.images.add_from(RegistrySource, name, tag=name)
    assert image.manifest.digest == here["digest"]


def test_a_registry_that_says_another_digest_than_it_has(store: Any, serve: Any, shelf: Shelf, make_tar: Any) -> None:
    entry = shelf.manifest(shelf.image(make_tar({"a": b"1"})))
    shelf.manifests[entry["digest"]] = (b"{}", OCI_MANIFEST)
    server = serve(shelf)
    with pytest.raises(InvalidArgument, match="manifest verification failed for digest"):
        store.images.add_from(RegistrySource, f"{server.address}/a:1", tag="a")
    assert store.images.list(all=True) == []
