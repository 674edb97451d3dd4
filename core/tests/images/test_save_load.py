"""Images out of one data root as a tar, and into another."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from dockp.spi.errors import InvalidArgument, NotFound
from dockp.spi.values import Platform

Tar = Callable[[Mapping[str, bytes | None]], bytes]
ARCHITECTURE = "amd64"


@pytest.fixture
def other(reopen: Callable[[Path], Any], tmp_path: Path) -> Any:
    """A second, empty data root."""
    path = tmp_path / "other"
    path.mkdir()
    opened = reopen(path)
    yield opened
    opened.journal.close()
    opened.database.close()


def imported(store: Any, data: bytes, *tags: str, **more: Any) -> Any:
    image = store.images.import_(io.BytesIO(data), reference=tags[0] if tags else "", **more)
    for tag in tags[1:]:
        store.images.tag(image.id, tag)
    return image


def saved(store: Any, *refs: str, **more: Any) -> bytes:
    with store.images.save(refs, **more) as stream:
        return bytes(stream.read())


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}  # type: ignore[union-attr]


def pack(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def nothing_is_left(store: Any) -> bool:
    store.collector.collect()
    return not store.images.list(all=True) and not list(store.content.walk()) and not store.snapshots.list("vfs")


def test_a_saved_image_is_the_same_elsewhere_to_the_byte(store: Any, other: Any, make_tar: Tar) -> None:
    image = imported(store, gzip.compress(make_tar({"file": b"content"})), "app:1", "team/app:latest", "alias")
    data = saved(store, "app:1", "alias")
    assert other.images.load(io.BytesIO(data), driver="vfs") == ["app:1", "alias:latest"]
    found = other.images.get("app:1")
    assert (found.id, found.manifest) == (image.id, image.manifest)
    assert other.images.get("alias").id == image.id
    with pytest.raises(NotFound):
        other.images.get("team/app")
    assert saved(other, "app:1", "alias") == data, "and it goes out again as it came"


def test_the_tar_has_what_both_formats_want(store: Any, make_tar: Tar) -> None:
    image = imported(store, make_tar({"a": b"1"}), "app:1", "app:2")
    files = members(saved(store, "app"))
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    heads = json.loads(files["index.json"])["manifests"]
    assert [head["annotations"] for head in heads] == [
        {
            "io.containerd.image.name": f"docker.io/library/app:{tag}",
            "org.opencontainers.image.ref.name": tag,
        }
        for tag in ("1", "2")
    ]
    assert {head["digest"] for head in heads} == {image.manifest.digest}
    (entry,) = json.loads(files["manifest.json"])
    assert entry["RepoTags"] == ["app:1", "app:2"]
    assert hashlib.sha256(files[entry["Config"]]).hexdigest() == image.id.removeprefix("sha256:")
    for name, data in files.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"


def test_an_image_saved_by_id_has_no_name_and_its_id_is_told(store: Any, other: Any, make_tar: Tar) -> None:
    image = imported(store, make_tar({"a": b"1"}), "app:1")
    for ref in (image.id, image.id[7:], image.id[7:19]):
        assert other.images.load(io.BytesIO(saved(store, ref))) == [image.id]
    assert other.images.list()[0]["RepoTags"] == []


def test_several_images_share_their_blobs_and_move_the_names_there_are(store: Any, other: Any, make_tar: Tar) -> None:
    one, two = imported(store, make_tar({"a": b"1"}), "one"), imported(store, make_tar({"a": b"2"}), "two")
    old = imported(other, make_tar({"old": b""}), "two")
    data = saved(store, "one", "two", "two:latest", one.id)
    assert len([name for name in members(data) if name.startswith("blobs/")]) == 6
    assert other.images.load(io.BytesIO(data)) == ["one:latest", "two:latest"]
    assert other.images.get("two").id == two.id
    assert other.images.references(other.images.get(old.id)) == []


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_stream_is_taken_too(store: Any, other: Any, make_tar: Tar, compress: Any) -> None:
    imported(store, make_tar({"a": b"1"}), "app")

    class Pipe(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self._data = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, target: Any) -> int:
            data = self._data.read(min(len(target), 777))
            target[: len(data)] = data
            return len(data)

    assert other.images.load(Pipe(compress(saved(store, "app")))) == ["app:latest"]


def test_a_plain_file_is_read_where_it_is(store: Any, other: Any, make_tar: Tar, tmp_path: Path) -> None:
    imported(store, make_tar({"a": b"1"}), "app")
    path = tmp_path / "app.tar"
    path.write_bytes(saved(store, "app"))
    with path.open("rb") as file:
        assert other.images.load(file) == ["app:latest"]
        assert file.tell() == 0


def test_what_is_saved_stays_while_it_is_read(store: Any, make_tar: Tar) -> None:
    image = imported(store, make_tar({"a": b"x" * 3_000_000}), "app")
    with store.images.save(["app"]) as stream:
        start = stream.read(1)
        store.images.remove("app")
        store.collector.collect()
        data = start + stream.read()
    assert f"blobs/sha256/{image.id[7:]}" in members(data)
    assert nothing_is_left(store)


@pytest.mark.parametrize(
    ("ref", "complaint"),
    [("nope", "No such image: nope"), ("nope:1", "reference does not exist"), ("NOPE", "must be lowercase")],
)
def test_what_cannot_be_saved_is_said_in_dockers_words(store: Any, ref: str, complaint: str) -> None:
    with pytest.raises((NotFound, InvalidArgument), match=complaint):
        store.images.save([ref])


def test_another_platform_is_not_found(store: Any, other: Any, make_tar: Tar) -> None:
    imported(store, make_tar({"a": b"1"}), "app", platform=Platform(os="linux", architecture="arm64"))
    wanted = Platform(os="linux", architecture="s390x")
    with pytest.raises(NotFound, match="does not provide the specified platform"):
        store.images.save(["app"], platform=wanted)
    data = saved(store, "app", platform=Platform(os="linux", architecture="arm64"))
    with pytest.raises(NotFound, match=r"its platform .* does not match"):
        other.images.load(io.BytesIO(data), platform=wanted)
    assert nothing_is_left(other)
    assert other.images.load(io.BytesIO(data)) == ["app:latest"], "nobody asked for a platform"


# Archives that others made


def config_of(*layers: bytes) -> bytes:
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    return json.dumps(
        {"architecture": ARCHITECTURE, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()


def test_an_old_archive_gives_all_of_its_images(store: Any, make_tar: Tar) -> None:
    base, top = make_tar({"a": b"1"}), make_tar({"b": b"2"})
    manifest = [
        {"Config": "one.json", "RepoTags": ["one:1", "one:2"], "Layers": ["1/layer.tar"]},
        {"Config": "two.json", "RepoTags": None, "Layers": ["1/layer.tar", "2/layer.tar"]},
    ]
    files = {
        "1/layer.tar": base,
        "2/layer.tar": gzip.compress(top),
        "one.json": config_of(base),
        "two.json": config_of(base, top),
        "manifest.json": json.dumps(manifest).encode(),
    }
    names = store.images.load(io.BytesIO(pack(files)), driver="vfs")
    assert names == ["one:1", "one:2", f"sha256:{hashlib.sha256(files['two.json']).hexdigest()}"]


def test_a_layout_in_a_tar_gives_images_under_their_whole_names(store: Any, other: Any, make_tar: Tar) -> None:
    imported(store, make_tar({"a": b"1"}), "app:1")
    imported(store, make_tar({"a": b"2"}), "tool:1")
    files = members(saved(store, "app:1", "tool:1"))
    del files["manifest.json"]
    index = json.loads(files["index.json"])
    index["manifests"][1]["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    files["index.json"] = json.dumps(index).encode()
    assert other.images.load(io.BytesIO(pack(files))) == ["app:1", store.images.get("tool:1").id]


LAYER = b"\0" * 1024
ENTRY: dict[str, Any] = {"Config": "c", "RepoTags": ["x:1"], "Layers": ["l"]}


def archive(*entries: Any, **files: bytes) -> bytes:
    return pack({"c": config_of(LAYER), "l": LAYER, "manifest.json": json.dumps(entries).encode(), **files})


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "the archive is not a tar archive: empty file"),
        (b"text" * 1000, "the archive is not a tar archive"),
        (archive(ENTRY)[:2000], "unexpected end of data"),
        (gzip.compress(archive(ENTRY))[:-100], "gzip"),
        (pack({"a": b"b"}), "the archive has no images: neither manifest.json"),
        (pack({"manifest.json": b"{}" * 2}), "manifest.json is malformed"),
        (pack({"manifest.json": b"[" * 100_000}), "manifest.json is malformed"),
        (pack({"manifest.json": b"null"}), "manifest.json is malformed"),
        (pack({"manifest.json": b" " * (5 << 20)}), "larger than the allowed"),
        (archive({**ENTRY, "Config": "../../etc/passwd"}), "lacks the config"),
        (archive({**ENTRY, "Config": "/etc/passwd"}), "lacks the config"),
        (archive({**ENTRY, "Layers": ["l", "l"]}), "has 2 layers, the config 1"),
        (archive({**ENTRY, "Layers": ["m"]}), "lacks the layer m"),
        (archive({**ENTRY, "RepoTags": ["Bad:1"]}), "must be lowercase"),
        (archive({**ENTRY, "RepoTags": ["x"]}), 'invalid tag "x"'),
        (archive({**ENTRY, "RepoTags": [1]}), 'invalid tag "1"'),
        (archive(ENTRY, l=b"other"), "arrived with another digest|ended after"),
        (archive(ENTRY, {**ENTRY, "Layers": ["m"]}), "lacks the layer m"),
        (pack({"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}), "has no file index.json"),
        (pack({"oci-layout": b'{"imageLayoutVersion": "2.0.0"}', "index.json": b"{}"}), "only 1.x can be read"),
    ],
)
def test_a_hostile_archive_gives_one_line_and_leaves_nothing(store: Any, data: bytes, complaint: str) -> None:
    with pytest.raises((InvalidArgument, NotFound), match=complaint) as caught:
        store.images.load(io.BytesIO(data), driver="vfs")
    assert "\n" not in str(caught.value)
    assert nothing_is_left(store)


def test_a_missing_blob_of_a_layout_is_named_and_leaves_nothing(store: Any, other: Any, make_tar: Tar) -> None:
    imported(store, make_tar({"a": b"1"}), "app:1")
    files = members(saved(store, "app:1"))
    layer = json.loads(files["manifest.json"])[0]["Layers"][0]
    del files[layer]
    with pytest.raises(InvalidArgument, match=f"the archive lacks the blob sha256:{layer.rpartition('/')[2]}"):
        other.images.load(io.BytesIO(pack(files)))
    assert nothing_is_left(other)


def test_an_input_that_breaks_is_one_line(store: Any) -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, target: Any) -> int:
            raise OSError(5, "Input/output error")

    from dockp.spi.errors import SystemFault

    broken: BinaryIO = io.BufferedReader(Broken())  # type: ignore[assignment]
    with pytest.raises(SystemFault, match="reading the archive: input/output error"):
        store.images.load(broken)


# Prune


def test_prune_takes_dangling_images_and_with_all_the_unused_ones(store: Any, make_tar: Tar) -> None:
    from dockp.images.removal import ImageUser

    loose = imported(store, make_tar({"a": b"1"}))
    tagged = imported(store, make_tar({"a": b"2"}), "tagged:1", "tagged:2")
    used = imported(store, make_tar({"a": b"3"}), "used")
    users = {used.id: [ImageUser(id="c" * 64, running=False)]}
    done = store.images.prune(used_by=lambda id: users.get(id, []))
    assert [row for row in done if "Untagged" in row or row["Deleted"] == loose.id] == [{"Deleted": loose.id}]
    done = store.images.prune({"dangling": ["false"]}, lambda id: users.get(id, []))
    assert {"Untagged": "tagged:1"} in done
    assert {"Untagged": "tagged:2"} in done
    assert {"Deleted": tagged.id} in done
    assert [row["Id"] for row in store.images.list()] == [used.id]


def test_prune_goes_by_labels_and_age(store: Any, make_tar: Tar) -> None:
    kept = imported(store, make_tar({"a": b"1"}), changes=["LABEL keep=yes"])
    gone = imported(store, make_tar({"a": b"2"}), changes=["LABEL keep=no"])
    assert store.images.prune({"until": ["24h"]}) == []
    assert store.images.prune({"label": ["other"]}) == []
    assert store.images.prune({"label!": ["keep"]}) == []
    assert {"Deleted": gone.id} in store.images.prune({"label!": ["keep=yes"]})
    assert {"Deleted": kept.id} in store.images.prune({"label": ["keep=yes"]})
    with pytest.raises(InvalidArgument, match="invalid filter 'reference'"):
        store.images.prune({"reference": ["x"]})
    with pytest.raises(InvalidArgument, match="more than one until filter specified"):
        store.images.prune({"until": ["1h", "2h"]})


def test_lists_can_say_what_is_shared_and_which_manifests_there_are(store: Any, make_tar: Tar) -> None:
    data = make_tar({"a": b"12345"})
    one = imported(store, data, "one")
    imported(store, data, "two", changes=["ENV A=b"])
    alone = imported(store, make_tar({"b": b"1"}), "three")
    rows = {row["Id"]: row for row in store.images.list(shared_size=True, manifests=True, used_by=lambda id: [])}
    assert rows[one.id]["SharedSize"] == 5
    assert rows[alone.id]["SharedSize"] == 0
    (manifest,) = rows[one.id]["Manifests"]
    assert (manifest["ID"], manifest["Kind"], manifest["Available"]) == (one.manifest.digest, "image", True)
    assert manifest["ImageData"]["Size"] == {"Unpacked": 5}
    assert rows[one.id]["Containers"] == 0
