"""Unpacking: each layer once, verified, in whichever driver."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from dockp.images.sources.oci_layout import OciLayoutSource
from dockp.spi.errors import InvalidArgument, NotFound, SystemFault
from dockp.spi.values import Mount

TESTS = Path(__file__).parent.parent
Tar = Callable[[Mapping[str, bytes | None]], bytes]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def write_layout(path: Path, layers: Sequence[bytes], *, diff_ids: Sequence[str] | None = None) -> None:
    """An OCI layout with one image, each layer gzipped."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        (blobs / digest_of(data)[7:]).write_bytes(data)
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    config = {
        "architecture": os.uname().machine,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids or [digest_of(layer) for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "config": put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [
            put(gzip.compress(layer, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers
        ],
    }
    entry = put(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def seen(store: Any, driver: str, layer: Any) -> dict[str, bytes]:
    """What a container sees: the names and contents of files, read in a mount namespace of its own."""
    mounts = store.snapshots.mounts(layer.id, read_only=True)
    target = store.path / "seen"
    target.mkdir(exist_ok=True)
    script = """
import json, os, sys
from dockp.linux.mounts import apply_mount, set_propagation
from dockp.linux.namespaces import CLONE_NEWNS, unshare
target, mounts = json.loads(sys.argv[1])
unshare(CLONE_NEWNS)
set_propagation("/", "rprivate")
for type, source, options in mounts:
    apply_mount(type, source, options, target)
found = {}
for folder, _, files in os.walk(target):
    for name in files:
        path = os.path.join(folder, name)
        found[os.path.relpath(path, target)] = open(path).read()
print(json.dumps(found))
"""
    request = json.dumps([str(target), [[m.type, m.source, list(m.options)] for m in mounts]])
    out = subprocess.run([sys.executable, "-c", script, request], check=True, capture_output=True).stdout
    return {name: text.encode() for name, text in json.loads(out).items()}


@pytest.mark.parametrize("driver", ["vfs", "overlay2"])
def test_layers_lie_on_each_other_with_their_deletions(store: Any, make_tar: Tar, tmp_path: Path, driver: str) -> None:
    write_layout(
        tmp_path / "layout",
        [
            make_tar({"a": b"1", "dir": None, "dir/x": b"x", "dir/y": b"y", "hidden": None, "hidden/z": b"z"}),
            make_tar({"a": b"2", "dir": None, "dir/.wh.x": b"", "hidden": None, "hidden/.wh..wh..opq": b""}),
            make_tar({"b": b"3"}),
        ],
    )
    image = store.images.add_from(OciLayoutSource, str(tmp_path / "layout"), driver=driver, tag="layers")
    top = store.images.unpack(image, driver)
    assert seen(store, driver, top) == {"a": b"2", "b": b"3", "dir/y": b"y"}
    assert len(store.snapshots.list(driver)) == 3
    assert store.images.unpack(image, driver).id == top.id


@pytest.mark.parametrize("driver", ["vfs", "overlay2"])
def test_a_layer_that_leans_on_the_one_below_is_unpacked_over_it(
    store: Any, make_tar: Tar, tmp_path: Path, driver: str
) -> None:
    """A hard link to a lower file needs the mounted parent; overlay2 then unpacks in a process of its own."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("dir/link")
        entry.type, entry.linkname = tarfile.LNKTYPE, "dir/x"
        archive.addfile(entry)
    write_layout(tmp_path / "layout", [make_tar({"dir": None, "dir/x": b"x"}), out.getvalue()])
    image = store.images.add_from(OciLayoutSource, str(tmp_path / "layout"), driver=driver)
    assert seen(store, driver, store.images.unpack(image, driver)) == {"dir/x": b"x", "dir/link": b"x"}
    assert str(store.path) not in Path("/proc/self/mountinfo").read_text()


def test_another_driver_needs_no_new_pull(store: Any, make_tar: Tar) -> None:
    image = store.images.import_(io.BytesIO(make_tar({"a": b"1"})), driver="vfs")
    other = store.images.unpack(image, "overlay2")
    assert seen(store, "overlay2", other) == {"a": b"1"}


@pytest.mark.parametrize("driver", ["", "vfs", "overlay2"])
def test_a_layer_that_is_not_what_the_config_promises_is_refused(
    store: Any, make_tar: Tar, tmp_path: Path, driver: str
) -> None:
    write_layout(tmp_path / "layout", [make_tar({"a": b"1"})], diff_ids=[digest_of(b"other")])
    with pytest.raises(InvalidArgument, match="but the image config promises"):
        store.images.add_from(OciLayoutSource, str(tmp_path / "layout"), driver=driver, tag="bad")
    with pytest.raises(NotFound):
        store.images.get("bad")
    store.collector.collect()
    assert list(store.content.walk()) == []
    assert store.snapshots.list() == []


@pytest.mark.parametrize("driver", ["vfs", "overlay2"])
def test_a_layer_that_reaches_out_is_confined(store: Any, tmp_path: Path, driver: str) -> None:
    target = tmp_path / "victim"
    target.mkdir()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, str(target)
        archive.addfile(link)
        for name in ("out/file", f"../../../../../../{target}/file", f"{target}/file"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            archive.addfile(entry, io.BytesIO(b"x"))
    with contextlib.suppress(InvalidArgument):  # refused or confined, both will do
        store.images.import_(io.BytesIO(out.getvalue()), driver=driver)
    assert list(target.iterdir()) == []


def test_an_image_without_layers_has_nothing_to_unpack(store: Any, tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", [])
    image = store.images.add_from(OciLayoutSource, str(tmp_path / "layout"), driver="vfs", tag="scratch")
    assert store.images.unpack(image, "vfs") is None
    assert store.images.inspect("scratch")["RootFS"]["Layers"] == []
    assert store.images.history("scratch") == []


def test_an_image_removed_meanwhile_is_not_found(store: Any, make_tar: Tar) -> None:
    image = store.images.import_(io.BytesIO(make_tar({"a": b"1"})), reference="gone")
    store.images.remove("gone")
    store.collector.collect()
    with pytest.raises(NotFound, match=f"No such image: {image.id}"):
        store.images.unpack(image, "vfs")


def test_many_processes_unpack_one_image_once(store: Any, make_tar: Tar, tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", [make_tar({str(n): b"x"}) for n in range(4)])
    image = store.images.add_from(OciLayoutSource, str(tmp_path / "layout"), tag="shared")
    script = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from conftest import open_store
store = open_store(Path({str(store.path)!r}))
print(store.images.unpack(store.images.get("shared"), "vfs").id)
"""
    children = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(6)]
    tops = {child.communicate()[0] for child in children}
    assert len(tops) == 1
    assert [snapshot.chain_id for snapshot in store.snapshots.list("vfs")][-1] == image.chain_id
    assert len(store.snapshots.list("vfs")) == 4
    assert store.snapshots.reconcile("vfs").removed == ()


def test_a_snapshot_that_must_be_mounted_is_unpacked_in_a_process_of_its_own(
    store: Any, make_tar: Tar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a driver on block devices; here a bind mount with an option that keeps it from being a plain directory."""
    from dockp_storage_vfs.driver import VfsDriver

    original = VfsDriver.mounts

    def with_option(self: VfsDriver, id: str, read_only: bool = False) -> Sequence[Mount]:
        return [evolve(mount, options=(*mount.options, "nosuid")) for mount in original(self, id, read_only)]

    monkeypatch.setattr(VfsDriver, "mounts", with_option)
    image = store.images.import_(io.BytesIO(make_tar({"a": b"12"})), driver="vfs", reference="mounted")
    assert (store.directory("vfs", store.images.unpack(image, "vfs").id) / "a").read_bytes() == b"12"
    assert store.images.list()[0]["Size"] == 2
    with pytest.raises(InvalidArgument, match="tar archive"):
        store.images.import_(io.BytesIO(b"no archive" * 100), driver="vfs")
    monkeypatch.setattr(VfsDriver, "mounts", lambda *_: [Mount(type="bind", source="/does/not/exist", options=("ro",))])
    with pytest.raises(SystemFault, match="No such file or directory"):
        store.images.import_(io.BytesIO(make_tar({"a": b"3"})), driver="vfs")
