"""``image import``: a tar becomes an image of one layer."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from dockp.images.documents import CONFIG_LIMIT, parse_platform
from dockp.spi.errors import InvalidArgument, NotFound, SystemFault

Tar = Callable[[Mapping[str, bytes | None]], bytes]
FILES: Mapping[str, bytes | None] = {"etc": None, "etc/os-release": b"ID=test\n", "bin": None, "bin/sh": b"#!"}


@pytest.mark.parametrize("driver", ["", "vfs", "overlay2"])
def test_an_imported_tar_is_an_image_whose_files_are_in_its_layer(store: Any, make_tar: Tar, driver: str) -> None:
    image = store.images.import_(io.BytesIO(make_tar(FILES)), reference="mine:1", driver=driver)
    assert store.images.get("mine:1").id == image.id
    layer = store.images.unpack(image, driver or "vfs")
    assert (store.directory(driver, layer.id) / "etc/os-release").read_bytes() == b"ID=test\n"
    assert store.images.list()[0]["Size"] == len(b"ID=test\n#!")
    assert store.images.list()[0]["RepoTags"] == ["mine:1"]


@pytest.mark.parametrize(
    ("pack", "media_type"),
    [
        (lambda data: data, "application/vnd.oci.image.layer.v1.tar"),
        (gzip.compress, "application/vnd.oci.image.layer.v1.tar+gzip"),
        (bz2.compress, "application/vnd.oci.image.layer.v1.tar"),
        (lzma.compress, "application/vnd.oci.image.layer.v1.tar"),
    ],
)
@pytest.mark.parametrize("driver", ["", "vfs"])
def test_compressed_archives_give_the_same_layer_and_are_kept_as_they_came_where_images_may_have_them(
    store: Any, make_tar: Tar, pack: Callable[[bytes], bytes], media_type: str, driver: str
) -> None:
    import hashlib

    plain = make_tar(FILES)
    packed = pack(plain)  # once: gzip notes the second at which it was done
    image = store.images.import_(io.BytesIO(packed), driver=driver)
    assert image.chain_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    manifest = json.loads(store.content.read(image.manifest.digest, CONFIG_LIMIT))
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == media_type
    kept = packed if media_type.endswith("gzip") else plain
    assert store.content.read(layer["digest"], 1 << 20) == kept
    assert store.images.unpack(image, "vfs") is not None


def test_changes_and_message_end_up_in_inspect_and_history(store: Any, make_tar: Tar) -> None:
    store.images.import_(
        io.BytesIO(make_tar(FILES)),
        reference="mine",
        message="from a test",
        changes=['CMD ["/bin/sh"]', "ENV A=1 B='two words'", "LABEL role=test", "EXPOSE 80"],
        platform=parse_platform("linux/arm64"),
    )
    document = store.images.inspect("mine:latest")
    assert document["Config"]["Cmd"] == ["/bin/sh"]
    assert document["Config"]["Env"] == ["A=1", "B=two words"]
    assert document["Config"]["Labels"] == {"role": "test"}
    assert document["Config"]["ExposedPorts"] == {"80/tcp": {}}
    assert (document["Os"], document["Architecture"]) == ("linux", "arm64")
    assert document["Comment"] == "from a test"
    (step,) = store.images.history("mine")
    assert step["Comment"] == "from a test"
    assert step["Id"] == document["Id"]
    assert step["Tags"] == ["mine:latest"]
    assert step["Size"] == len(b"ID=test\n#!")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "the archive is empty"),
        (b"this is no archive at all, but it is long enough to look at" * 20, "tar archive"),
        (gzip.compress(bytes(10240))[:-9], "corrupt or cut short"),
    ],
    ids=["empty", "text", "cut"],
)
@pytest.mark.parametrize("driver", ["", "vfs", "overlay2"])
def test_what_is_no_archive_gives_one_line_and_leaves_nothing(
    store: Any, data: bytes, complaint: str, driver: str
) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        store.images.import_(io.BytesIO(data), reference="bad", driver=driver)
    with pytest.raises(NotFound, match="No such image: bad:latest"):
        store.images.get("bad")
    store.collector.collect()
    assert list(store.content.walk()) == []
    assert store.snapshots.list() == []


def test_a_bad_name_or_instruction_is_refused_before_anything_is_read(store: Any) -> None:
    class Unread(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise AssertionError("read")

    with pytest.raises(InvalidArgument, match="must be lowercase"):
        store.images.import_(Unread(b""), reference="Bad")
    with pytest.raises(InvalidArgument, match="from is not a valid change command"):
        store.images.import_(Unread(b""), changes=["FROM scratch"])


def test_an_archive_that_leans_on_directories_it_does_not_list_is_unpacked(store: Any, make_tar: Tar) -> None:
    image = store.images.import_(io.BytesIO(make_tar({"opt/deep/file": b"x"})), driver="overlay2")
    layer = store.images.unpack(image, "overlay2")
    assert (store.directory("overlay2", layer.id) / "opt/deep/file").read_bytes() == b"x"


def test_a_stream_that_fails_is_one_line(store: Any, make_tar: Tar) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= 1024:
                raise OSError(5, "Input/output error")
            return super().read(min(size or 0, 512))

    for data in (b"", make_tar(FILES)):
        stream = Failing(data)
        stream.seek(0 if data else 2048)
        with pytest.raises(SystemFault, match="reading the archive: Input/output error"):
            store.images.import_(stream)
