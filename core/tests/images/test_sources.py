"""Image sources: what umoci, skopeo and docker save wrote, and what nobody should have."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dockp.images.documents import host_platform, parse_platform
from dockp.images.sources.docker_archive import DockerArchiveSource
from dockp.images.sources.oci_layout import OciLayoutSource
from dockp.spi.errors import InvalidArgument, NotFound, SystemFault, Unavailable
from dockp.spi.values import Descriptor, Platform

Tar = Callable[[Mapping[str, bytes | None]], bytes]
ARCHITECTURE = host_platform().architecture


def run(*command: object) -> str:
    return subprocess.run(
        [str(word) for word in command], check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ).stdout


def files_of(store: Any, ref: str) -> dict[str, bytes]:
    layer = store.images.unpack(store.images.get(ref), "vfs")
    top = store.directory("vfs", layer.id)
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout that umoci made: one image of two layers, with two tags, and another one."""
    for tool in ("umoci", "skopeo"):
        assert shutil.which(tool), f"these tests compare with {tool}: install it"
    top = tmp_path_factory.mktemp("umoci")
    path = top / "layout"
    (top / "src" / "deep").mkdir(parents=True)
    (top / "src" / "deep" / "file").write_text("content")
    (top / "single").write_text("one")
    run("umoci", "init", "--layout", path)
    run("umoci", "new", "--image", f"{path}:first")
    run("umoci", "insert", "--image", f"{path}:first", top / "src", "/data")
    run("umoci", "insert", "--image", f"{path}:first", top / "single", "/single")
    run("umoci", "config", "--image", f"{path}:first", "--config.cmd=run", "--config.env=A=1", "--author=me")
    run("umoci", "tag", "--image", f"{path}:first", "same")
    run("umoci", "new", "--image", f"{path}:empty")
    return path


def test_an_image_that_umoci_made_arrives_byte_for_byte(store: Any, layout: Path) -> None:
    progress: list[str] = []
    image = store.images.add_from(
        OciLayoutSource,
        f"{layout}:first",
        tag="mine:1",
        driver="vfs",
        progress=lambda what, done, total: progress.append(what),
    )
    index = json.loads((layout / "index.json").read_text())
    (entry,) = [
        item for item in index["manifests"] if item["annotations"]["org.opencontainers.image.ref.name"] == "first"
    ]
    assert image.manifest.digest == entry["digest"]
    for digest, _ in store.content.walk():
        assert store.content.read(digest, 1 << 20) == (layout / "blobs/sha256" / digest[7:]).read_bytes()
    assert files_of(store, "mine:1") == {"data/deep/file": b"content", "single": b"one"}
    document = store.images.inspect("mine:1")
    assert document["Config"]["Cmd"] == ["run"]
    assert "A=1" in document["Config"]["Env"]
    assert document["Author"] == "me"
    assert document["RepoDigests"] == [f"mine@{entry['digest']}"]
    assert [step["Size"] for step in store.images.history("mine:1") if step["Size"]] == [3, 7]
    layers = {what.partition(": ")[0] for what in progress}
    assert len(layers) == 2
    for layer in layers:
        steps = [what.partition(": ")[2] for what in progress if what.startswith(layer)]
        assert list(dict.fromkeys(steps)) == [
            "Pulling fs layer",
            "Downloading",
            "Verifying Checksum",
            "Download complete",
            "Extracting",
            "Pull complete",
        ]


def test_what_is_stored_is_a_layout_that_skopeo_and_umoci_read(store: Any, make_tar: Tar, tmp_path: Path) -> None:
    image = store.images.import_(io.BytesIO(make_tar({"dir": None, "dir/a": b"1"})), changes=["CMD x"])
    ours = tmp_path / "ours"
    (ours / "blobs").mkdir(parents=True)
    (ours / "blobs/sha256").symlink_to(store.path / "content/sha256")
    (ours / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = {
        "mediaType": image.manifest.media_type,
        "digest": image.manifest.digest,
        "size": image.manifest.size,
        "annotations": {"org.opencontainers.image.ref.name": "x"},
    }
    (ours / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    assert json.loads(run("skopeo", "inspect", "--config", f"oci:{ours}:x"))["config"]["Cmd"] == ["/bin/sh", "-c", "x"]
    run("umoci", "unpack", "--image", f"{ours}:x", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/dir/a").read_bytes() == b"1"


@pytest.mark.parametrize("reference", ["first", "same"])
def test_tags_of_one_image_give_one_image(store: Any, layout: Path, reference: str) -> None:
    first = store.images.add_from(OciLayoutSource, f"{layout}:first")
    again = store.images.add_from(OciLayoutSource, f"{layout}:{reference}", tag=reference)
    assert first.id == again.id
    assert len(store.images.list(all=True)) == 1


def test_an_image_can_be_chosen_by_digest(store: Any, layout: Path) -> None:
    entry = json.loads((layout / "index.json").read_text())["manifests"][0]
    image = store.images.add_from(OciLayoutSource, f"{layout}@{entry['digest']}", tag="d")
    assert image.manifest.digest == entry["digest"]
    assert store.images.get(f"d@{entry['digest']}").id == image.id


@pytest.mark.parametrize(
    ("reference", "error", "complaint"),
    [
        ("{layout}", NotFound, "several images, choose one by its tag: empty, first, same"),
        ("{layout}:none", NotFound, "no image with the tag 'none'; it has: empty, first, same"),
        ("{layout}@sha256:" + "0" * 64, NotFound, "has no file blobs/sha256/0000"),
        ("{layout}@sha256:xyz", InvalidArgument, "invalid digest"),
        ("/does/not/exist:x", NotFound, "no such directory: /does/not/exist"),
        ("/etc", InvalidArgument, "/etc is not an OCI image layout"),
        (":x", InvalidArgument, "oci: needs a path"),
    ],
)
def test_a_bad_layout_reference_says_what_there_is(
    store: Any, layout: Path, reference: str, error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        store.images.add_from(OciLayoutSource, reference.format(layout=layout))
    assert list((store.path / "content/scratch").iterdir()) == []


@pytest.fixture
def broken(layout: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "broken"
    shutil.copytree(layout, copy)
    return copy


def damage(store: Any, path: Path, media: str, how: Callable[[bytes], bytes]) -> None:
    """Change the first blob of a kind that the image ``first`` names."""
    manifests = json.loads((path / "index.json").read_text())["manifests"]
    (entry,) = [m for m in manifests if m["annotations"]["org.opencontainers.image.ref.name"] == "first"]
    manifest = json.loads((path / "blobs/sha256" / entry["digest"][7:]).read_bytes())
    digest = {"manifest": entry, "config": manifest["config"], "layer": manifest["layers"][0]}[media]["digest"]
    blob = path / "blobs/sha256" / digest[7:]
    blob.write_bytes(how(blob.read_bytes()))


@pytest.mark.parametrize("media", ["manifest", "config", "layer"])
@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        (lambda data: data[:-1], "ended after"),
        (lambda data: data + b" ", "longer than"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "arrived with another digest"),
    ],
)
def test_damaged_bytes_are_refused_and_leave_nothing(
    store: Any, broken: Path, media: str, how: Callable[[bytes], bytes], complaint: str
) -> None:
    damage(store, broken, media, how)
    with pytest.raises(InvalidArgument, match=complaint):
        store.images.add_from(OciLayoutSource, f"{broken}:first", tag="bad", driver="vfs")
    with pytest.raises(NotFound):
        store.images.get("bad")
    store.collector.collect()
    assert list(store.content.walk()) == []
    assert store.snapshots.list() == []


def test_a_missing_layer_is_named(store: Any, broken: Path) -> None:
    damage(store, broken, "layer", lambda data: data)
    manifests = json.loads((broken / "index.json").read_text())["manifests"]
    (entry,) = [m for m in manifests if m["annotations"]["org.opencontainers.image.ref.name"] == "first"]
    manifest = json.loads((broken / "blobs/sha256" / entry["digest"][7:]).read_bytes())
    digest = manifest["layers"][1]["digest"]
    (broken / "blobs/sha256" / digest[7:]).unlink()
    with pytest.raises(NotFound, match=f"lacks the blob {digest}"):
        store.images.add_from(OciLayoutSource, f"{broken}:first")


def put(path: Path, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}


def build_image(path: Path, layer: bytes, **config: Any) -> dict[str, Any]:
    """Put a one-layer image into a layout's blobs; the descriptor of its manifest."""
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    document = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        **config,
    }
    manifest = {
        "schemaVersion": 2,
        "config": put(path, json.dumps(document).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [put(path, layer, "application/vnd.oci.image.layer.v1.tar")],
    }
    return put(path, json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")


def write_index(path: Path, *entries: dict[str, Any]) -> None:
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def test_the_platform_is_chosen_from_an_index_and_from_equal_tags(store: Any, make_tar: Tar, tmp_path: Path) -> None:
    amd = build_image(tmp_path, make_tar({"amd": b""}), architecture="amd64")
    arm = build_image(tmp_path, make_tar({"arm": b""}), architecture="arm64")
    amd["platform"] = {"os": "linux", "architecture": "amd64"}
    arm["platform"] = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    tag = {"org.opencontainers.image.ref.name": "flat"}
    nested = put(
        tmp_path,
        json.dumps({"schemaVersion": 2, "manifests": [amd, arm]}).encode(),
        "application/vnd.oci.image.index.v1+json",
        annotations={"org.opencontainers.image.ref.name": "nested"},
    )
    write_index(tmp_path, {**amd, "annotations": tag}, {**arm, "annotations": tag}, nested)
    for name in ("flat", "nested"):
        for architecture, manifest in (("amd64", amd), ("arm64", arm)):
            image = store.images.add_from(
                OciLayoutSource, f"{tmp_path}:{name}", tag="x", platform=parse_platform(f"linux/{architecture}")
            )
            assert image.manifest.digest == manifest["digest"]
            assert image.platform.architecture == architecture
        with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
            store.images.add_from(OciLayoutSource, f"{tmp_path}:{name}", platform=parse_platform("linux/s390x"))
    assert store.images.get(f"x@{nested['digest']}").platform.architecture == "arm64"


def test_a_single_image_for_another_platform_is_refused_when_one_was_asked_for(
    store: Any, make_tar: Tar, tmp_path: Path
) -> None:
    write_index(tmp_path, build_image(tmp_path, make_tar({"a": b""}), architecture="s390x"))
    with pytest.raises(NotFound, match=r"platform \(linux/s390x\) does not match the specified platform \(linux/arm64"):
        store.images.add_from(OciLayoutSource, str(tmp_path), platform=parse_platform("linux/arm64"))
    assert store.images.add_from(OciLayoutSource, str(tmp_path)).platform.architecture == "s390x"


def test_indexes_nested_without_end_are_refused(store: Any, make_tar: Tar, tmp_path: Path) -> None:
    entry = build_image(tmp_path, make_tar({"a": b""}))
    for _ in range(6):
        document = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
        entry = put(tmp_path, document, "application/vnd.oci.image.index.v1+json")
    write_index(tmp_path, entry)
    with pytest.raises(InvalidArgument, match="more than 3 indexes inside each other"):
        store.images.add_from(OciLayoutSource, str(tmp_path))


def test_a_fifo_in_the_place_of_a_blob_does_not_hang(store: Any, make_tar: Tar, tmp_path: Path) -> None:
    entry = build_image(tmp_path, make_tar({"a": b""}))
    blob = tmp_path / "blobs/sha256" / entry["digest"][7:]
    blob.unlink()
    os.mkfifo(blob)
    write_index(tmp_path, entry)
    with pytest.raises(NotFound, match="lacks the blob"):
        store.images.add_from(OciLayoutSource, str(tmp_path))
    (tmp_path / "index.json").unlink()
    (tmp_path / "index.json").mkdir()
    with pytest.raises(NotFound, match=r"has no file index\.json"):
        store.images.add_from(OciLayoutSource, str(tmp_path))


def test_a_source_that_cannot_read_is_one_line(store: Any) -> None:
    class Failing(OciLayoutSource):
        def resolve(self, reference: str, platform: Platform) -> Descriptor:
            raise PermissionError(13, "Permission denied", "/somewhere")

    with pytest.raises(SystemFault, match="getting image x: Permission denied: /somewhere"):
        store.images.add_from(Failing, "x")


def test_a_zstd_layer_arrives_or_says_what_is_missing(store: Any, layout: Path, tmp_path: Path) -> None:
    target = tmp_path / "zstd"
    run("skopeo", "copy", "--dest-compress-format", "zstd", "--dest-compress", f"oci:{layout}:first", f"oci:{target}:z")
    try:
        import zstandard  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        with pytest.raises(Unavailable, match="install the Python package zstandard"):
            store.images.add_from(OciLayoutSource, f"{target}:z", tag="z", driver="vfs")
        return
    store.images.add_from(OciLayoutSource, f"{target}:z", tag="z", driver="vfs")
    assert files_of(store, "z")["single"] == b"one"


# docker-archive:


@pytest.mark.parametrize("pack", ["plain", "gzip"])
def test_an_archive_that_skopeo_wrote_has_the_same_layers(store: Any, layout: Path, tmp_path: Path, pack: str) -> None:
    archive = tmp_path / "image.tar"
    run("skopeo", "copy", f"oci:{layout}:first", f"docker-archive:{archive}:some/name:1")
    if pack == "gzip":
        archive.write_bytes(gzip.compress(archive.read_bytes()))
    image = store.images.add_from(DockerArchiveSource, str(archive), driver="vfs")
    original = store.images.add_from(OciLayoutSource, f"{layout}:first", tag="original")
    assert store.images.get("some/name:1").id == image.id
    assert store.images.config(image).diff_ids == store.images.config(original).diff_ids
    assert files_of(store, "some/name:1") == {"data/deep/file": b"content", "single": b"one"}
    assert len(store.snapshots.list("vfs")) == 2, "layers with the same content are unpacked once"


def write_archive(path: Path, members: Mapping[str, bytes | str]) -> None:
    """A tar; a string is a symbolic link."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(data, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, data
                archive.addfile(entry)
            else:
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


def config_of(*layers: bytes) -> bytes:
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    return json.dumps(
        {"architecture": ARCHITECTURE, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()


def test_an_old_archive_with_several_images_that_share_a_layer_by_a_link(
    store: Any, make_tar: Tar, tmp_path: Path
) -> None:
    base, top = make_tar({"a": b"1"}), make_tar({"b": b"2"})
    path = tmp_path / "old.tar"
    write_archive(
        path,
        {
            "one.json": config_of(base),
            "two.json": config_of(base, top),
            "1/layer.tar": base,
            "2/layer.tar": "../1/layer.tar",
            "3/layer.tar": gzip.compress(top),
            "manifest.json": json.dumps(
                [
                    {"Config": "one.json", "RepoTags": ["one:1", "one:latest"], "Layers": ["1/layer.tar"]},
                    {"Config": "two.json", "RepoTags": None, "Layers": ["2/layer.tar"]},
                    {"Config": "two.json", "RepoTags": ["two:1"], "Layers": ["2/layer.tar", "3/layer.tar"]},
                ]
            ).encode(),
        },
    )
    with pytest.raises(NotFound, match="3 images, choose one by its name: one:1, one:latest, two:1"):
        store.images.add_from(DockerArchiveSource, str(path))
    with pytest.raises(NotFound, match="no image three; it has: one:1"):
        store.images.add_from(DockerArchiveSource, f"{path}:three")
    one = store.images.add_from(DockerArchiveSource, f"{path}:one")
    assert one.id == f"sha256:{hashlib.sha256(config_of(base)).hexdigest()}"
    store.images.add_from(DockerArchiveSource, f"{path}:two:1", driver="vfs")
    assert files_of(store, "one:latest") == {"a": b"1"}
    assert files_of(store, "two:1") == {"a": b"1", "b": b"2"}


def test_a_new_archive_keeps_the_digest_of_its_manifest(store: Any, make_tar: Tar, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    entry = build_image(layout, make_tar({"a": b"1"}))
    manifest = json.loads((layout / "blobs/sha256" / entry["digest"][7:]).read_bytes())
    write_index(layout, {**entry, "annotations": {"io.containerd.image.name": "docker.io/library/new:1"}})
    saved = [
        {
            "Config": f"blobs/sha256/{manifest['config']['digest'][7:]}",
            "RepoTags": ["new:1"],
            "Layers": [f"blobs/sha256/{layer['digest'][7:]}" for layer in manifest["layers"]],
        }
    ]
    (layout / "manifest.json").write_text(json.dumps(saved))
    path = tmp_path / "new.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(layout, ".")
    image = store.images.add_from(DockerArchiveSource, str(path))
    assert image.manifest.digest == entry["digest"]
    assert store.images.get("new:1").id == image.id


@pytest.mark.parametrize(
    ("members", "error", "complaint"),
    [
        ({}, InvalidArgument, "was not written by docker save: it has no manifest.json"),
        ({"manifest.json": b"{"}, InvalidArgument, "manifest.json is malformed"),
        ({"manifest.json": b"[1]"}, InvalidArgument, "manifest.json is malformed"),
        ({"manifest.json": b"[]"}, NotFound, "0 images"),
        ({"manifest.json": b'[{"Config": "x", "Layers": []}]'}, InvalidArgument, "lacks the config x"),
        (
            {"manifest.json": b'[{"Config": "c", "Layers": ["l"]}]', "c": config_of(b"")},
            InvalidArgument,
            "lacks the layer l",
        ),
        (
            {"manifest.json": b'[{"Config": "c", "Layers": []}]', "c": config_of(b"")},
            InvalidArgument,
            "has 0 layers, the config 1",
        ),
        (
            {"manifest.json": b'[{"Config": "c", "Layers": ["l"]}]', "c": config_of(b"x"), "l": "l"},
            InvalidArgument,
            "lacks the layer l",
        ),
        (
            {"manifest.json": b'[{"Config": "c", "Layers": ["l"]}]', "c": config_of(b"x"), "l": "/etc/passwd"},
            InvalidArgument,
            "lacks the layer l",
        ),
        (
            {"manifest.json": b'[{"Config": "c", "Layers": ["l"]}]', "c": config_of(b"x"), "l": b"y"},
            InvalidArgument,
            "arrived with another digest",
        ),
    ],
)
def test_a_bad_archive_gives_one_line(
    store: Any, tmp_path: Path, members: Mapping[str, bytes | str], error: type[Exception], complaint: str
) -> None:
    path = tmp_path / "bad.tar"
    write_archive(path, members)
    with pytest.raises(error, match=complaint):
        store.images.add_from(DockerArchiveSource, str(path))


def test_files_that_are_no_archive_give_one_line(store: Any, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"no archive" * 200)
    with pytest.raises(InvalidArgument, match="is not a tar archive"):
        store.images.add_from(DockerArchiveSource, str(path))
    with pytest.raises(NotFound, match="no such file: /does/not/exist:x"):
        store.images.add_from(DockerArchiveSource, "/does/not/exist:x")
    with pytest.raises(InvalidArgument, match="needs a file"):
        store.images.add_from(DockerArchiveSource, "")


@pytest.mark.parametrize("source", [OciLayoutSource, DockerArchiveSource])
def test_unknown_options_are_refused(store: Any, source: Any) -> None:
    with pytest.raises(InvalidArgument, match="has no option 'x'"):
        store.images.add_from(source, "/x", options={"x": "1"})
