"""Manifests, indexes and configs, theirs and ours."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped,unused-ignore]
import pytest
import referencing
import referencing.jsonschema

from dockp.images.documents import (
    CONFIG_LIMIT,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Index,
    Manifest,
    chain_ids,
    check_match,
    descriptor_json,
    parse_config,
    parse_manifest,
    parse_platform,
    select,
)
from dockp.spi.errors import InvalidArgument, NotFound
from dockp.spi.values import Descriptor, Platform

SCHEMAS = Path(__file__).parent.parent / "specs" / "oci-image-spec"
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
Tar = Callable[[Mapping[str, bytes | None]], bytes]


def check(name: str, document: object) -> None:
    """Validate against the schema of the image specification."""

    def retrieve(uri: str) -> Any:
        contents = json.loads((SCHEMAS / uri.rpartition("/")[2]).read_text())
        return referencing.jsonschema.DRAFT4.create_resource(contents)

    schema = json.loads((SCHEMAS / name).read_text())
    registry: Any = referencing.Registry(retrieve=retrieve)  # type: ignore[call-arg]
    jsonschema.Draft4Validator(schema, registry=registry).validate(document)


def config(**more: Any) -> bytes:
    return json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, **more}
    ).encode()


def manifest(**more: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": A, "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": B, "size": 3}],
        **more,
    }
    return json.dumps({key: value for key, value in document.items() if value is not None}).encode()


def test_what_import_writes_is_valid_by_the_image_specification(store: Any, make_tar: Tar) -> None:
    image = store.images.import_(
        io.BytesIO(make_tar({"a": b"1"})),
        changes=["CMD x", "ENV A=1", "EXPOSE 80", "LABEL a=b", "USER u", "VOLUME /v", "WORKDIR /w", "STOPSIGNAL TERM"],
        platform=parse_platform("linux/arm/v7"),
    )
    check("config-schema.json", json.loads(store.content.read(image.id, CONFIG_LIMIT)))
    check("image-manifest-schema.json", json.loads(store.content.read(image.manifest.digest, CONFIG_LIMIT)))
    check("content-descriptor.json", descriptor_json(image.manifest))
    with pytest.raises(jsonschema.ValidationError):
        check("config-schema.json", {"os": 1})


def test_a_manifest_is_read_with_or_without_its_media_type() -> None:
    for data, announced in (
        (manifest(), OCI_MANIFEST),
        (manifest(mediaType=None), OCI_MANIFEST),
        (manifest(mediaType=None), ""),
        (manifest(mediaType=None), DOCKER_MANIFEST),
    ):
        found = parse_manifest(data, announced)
        assert isinstance(found, Manifest)
        assert (found.config.digest, [layer.digest for layer in found.layers]) == (A, [B])
    index = parse_manifest(b'{"schemaVersion": 2, "manifests": []}', "")
    assert isinstance(index, Index)
    assert index.media_type == OCI_INDEX


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"schemaVersion": 1}', "schema 1 manifest"),
        (manifest(schemaVersion=3), "schemaVersion 3"),
        (manifest(mediaType=OCI_INDEX), "announced as"),
        (manifest(manifests=[]), "ambiguous"),
        (manifest(layers={}), "'layers' must be a list"),
        (manifest(layers=[1]), "a descriptor must be an object"),
        (manifest(config=None), "a descriptor must be an object"),
        (manifest(layers=[{"mediaType": "x", "digest": B, "size": -1}]), "-1 is no size"),
        (manifest(layers=[{"mediaType": "x", "digest": B, "size": True}]), "True is no size"),
        (manifest(layers=[{"mediaType": "x", "digest": "sha256:../x", "size": 1}]), "invalid digest"),
        (manifest(layers=[{"mediaType": "text/x", "digest": B, "size": 1}]), "unknown media type 'text/x'"),
        (
            manifest(config={"mediaType": "application/x", "digest": A, "size": 1}),
            "not a container image but an artifact",
        ),
        (
            manifest(config={"mediaType": "application/vnd.oci.image.config.v1+json", "digest": A, "size": 1 << 40}),
            "larger than the allowed",
        ),
        (
            manifest(layers=[{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": B, "size": 1}] * 600),
            "600 layers",
        ),
    ],
)
def test_a_hostile_manifest_is_refused_in_one_line(data: bytes, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint) as caught:
        parse_manifest(data, OCI_MANIFEST)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"{}", "no 'rootfs'"),
        (config(rootfs={"type": "other"}), "no 'rootfs'"),
        (config(rootfs={"type": "layers", "diff_ids": [1]}), "invalid digest"),
        (config(rootfs={"type": "layers", "diff_ids": [A] * 600}), "600 layers"),
        (config(config=[1]), "'config' must be an object"),
        (config(history=[1]), "'history' a list"),
        (config(config={"Cmd": "x"}), "'Cmd' must be a list"),
        (config(config={"Env": [1]}), "'Env' must be a list"),
        (config(config={"User": 1}), "'User' must be a string"),
        (config(config={"Labels": {"a": 1}}), "'Labels' must be an object of strings"),
        (config(config={"Volumes": [1]}), "'Volumes' must be an object"),
        (config(os=1), "'os' must be a string"),
    ],
)
def test_a_hostile_config_is_refused_in_one_line(data: bytes, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        parse_config(data)


def test_a_manifest_and_a_config_of_different_length_are_refused() -> None:
    found = parse_manifest(manifest(), OCI_MANIFEST)
    assert isinstance(found, Manifest)
    with pytest.raises(InvalidArgument, match="has 1 layers, its config 0"):
        check_match(found, parse_config(config()))


def test_chain_ids_are_those_of_the_specification() -> None:
    import hashlib

    second = "sha256:" + hashlib.sha256(f"{A} {B}".encode()).hexdigest()
    third = "sha256:" + hashlib.sha256(f"{second} {A}".encode()).hexdigest()
    assert chain_ids([]) == []
    assert chain_ids([A, B, A]) == [A, second, third]


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform()),
        ("linux/x86_64", Platform()),
        ("arm64", Platform(architecture="arm64")),
        ("linux/aarch64", Platform(architecture="arm64")),
        ("linux/arm64/v8", Platform(architecture="arm64")),
        ("linux/armhf", Platform(architecture="arm", variant="v7")),
        ("linux/arm/6", Platform(architecture="arm", variant="v6")),
        ("linux/i386", Platform(architecture="386")),
        ("windows/amd64", Platform(os="windows")),
    ],
)
def test_platforms_have_one_spelling(text: str, platform: Platform) -> None:
    assert parse_platform(text) == platform


@pytest.mark.parametrize("text", ["", "/", "linux/", "a/b/c/d", "li nux/amd64", "linux/amd64;x"])
def test_a_bad_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is an invalid platform"):
        parse_platform(text)


def entry(digest: str, platform: Platform | None) -> Descriptor:
    return Descriptor(media_type=OCI_MANIFEST, digest=digest, size=1, platform=platform)


def test_the_closest_variant_that_runs_is_chosen() -> None:
    v5, v6, v7 = (Platform(architecture="arm", variant=v) for v in ("v5", "v6", "v7"))
    index = Index(media_type=OCI_INDEX, manifests=(entry(A, v5), entry(B, v7), entry("sha256:" + "c" * 64, v6)))
    assert select(index, v7, "x").digest == B
    assert select(index, v6, "x").digest == "sha256:" + "c" * 64
    assert select(index, v5, "x").digest == A
    with pytest.raises(NotFound, match="no matching manifest for linux/amd64 in the manifest list entries of x"):
        select(index, Platform(), "x")


def test_a_machine_does_not_get_a_newer_variant_than_it_runs() -> None:
    plain, newer = Platform(), Platform(variant="v3")
    index = Index(media_type=OCI_INDEX, manifests=(entry(A, newer), entry(B, plain)))
    assert select(index, plain, "x").digest == B
    assert select(index, newer, "x").digest == A


@pytest.mark.parametrize(
    ("wanted", "there", "taken"),
    [
        ("linux/amd64", ["linux/386", "linux/amd64"], "linux/amd64"),
        ("linux/amd64", ["linux/arm64", "linux/386"], "linux/386"),
        ("linux/386", ["linux/amd64"], None),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64/v2"], None),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v3", "linux/amd64/v2"], "linux/amd64/v3"),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7", "linux/arm/v5"], "linux/arm/v7"),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64", ["linux/arm64/v9"], None),
        ("linux/arm/v7", ["linux/arm64", "linux/arm/v5"], "linux/arm/v5"),
        ("linux/arm/v6", ["linux/arm/v7"], None),
        ("linux/amd64", ["windows/amd64", "unknown/unknown"], None),
    ],
)
def test_an_older_architecture_will_do_where_its_programs_run(wanted: str, there: list[str], taken: str | None) -> None:
    entries = []
    for number, text in enumerate(there):
        os, architecture, variant = [*text.split("/"), ""][:3]
        platform = Platform(os=os, architecture=architecture, variant=variant)
        entries.append(entry(f"sha256:{number:064}", platform))
    index = Index(media_type=OCI_INDEX, manifests=tuple(entries))
    if taken is None:
        with pytest.raises(NotFound, match=f"no matching manifest for {wanted} in the manifest list entries of x"):
            select(index, parse_platform(wanted), "x")
    else:
        assert select(index, parse_platform(wanted), "x").digest == f"sha256:{there.index(taken):064}"
