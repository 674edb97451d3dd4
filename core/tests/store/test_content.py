"""The content store: whole blobs or none."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dockp.spi.errors import InvalidArgument, NotFound, SystemFault
from dockp.spi.values import Descriptor

TESTS = Path(__file__).parent.parent


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def expect(data: bytes, size: int | None = None, digest: str = "") -> Descriptor:
    return Descriptor(
        media_type="text/plain", digest=digest or digest_of(data), size=len(data) if size is None else size
    )


def test_a_blob_comes_back_as_it_was_written(store: Any) -> None:
    with store.leases.hold() as lease, store.content.writer(expect(b"hello"), lease=lease) as writer:
        writer.write(b"hel")
        writer.write(b"lo")
        assert writer.commit() == expect(b"hello")
    digest = digest_of(b"hello")
    assert store.content.read(digest, 5) == b"hello"
    assert store.content.size(digest) == 5
    assert store.content.has(digest)
    assert store.content.verify(digest)
    assert list(store.content.walk()) == [(digest, 5)]
    with store.content.open(digest) as blob:
        blob.seek(2)
        assert blob.read() == b"llo"


@pytest.mark.parametrize(
    ("data", "expected", "complaint"),
    [
        (b"hello", expect(b"hello", size=6), "ended after 5 of 6 bytes"),
        (b"hello", expect(b"hello", size=4), "longer than the 4 bytes"),
        (b"hello", expect(b"hellO"), "arrived with another digest"),
    ],
)
def test_what_is_not_what_was_expected_is_not_kept(
    store: Any, data: bytes, expected: Descriptor, complaint: str
) -> None:
    with store.leases.hold() as lease:
        with store.content.writer(expected, lease=lease) as writer:

            def write() -> None:
                writer.write(data)
                writer.commit()

            with pytest.raises(InvalidArgument, match=complaint):
                write()
        assert list(store.content.walk()) == []
        assert list((store.path / "content/ingest").iterdir()) == []


def test_writing_what_is_there_already_keeps_the_old_file(store: Any) -> None:
    with store.leases.hold() as lease:
        first = store.content.add(b"x", "text/plain", lease=lease)
        inode = store.content.path(first.digest).stat().st_ino
        assert store.content.add(b"x", "text/plain", lease=lease) == first
        assert store.content.path(first.digest).stat().st_ino == inode


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "0" * 64, "", "sha256:"])
def test_a_malformed_digest_never_becomes_a_path(store: Any, digest: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid digest"):
        store.content.open(digest)
    with store.leases.hold() as lease, pytest.raises(InvalidArgument, match="invalid digest"):
        store.content.writer(Descriptor(media_type="", digest=digest, size=1), lease=lease)


def test_absent_and_oversized_blobs_are_refused_in_one_line(store: Any) -> None:
    absent = digest_of(b"absent")
    for verb in (store.content.open, store.content.size, lambda digest: store.content.read(digest, 9)):
        with pytest.raises(NotFound, match=f"blob {absent} is not in the content store"):
            verb(absent)
    store.content.delete(absent)
    with store.leases.hold() as lease:
        blob = store.content.add(b"12345", "text/plain", lease=lease)
    with pytest.raises(InvalidArgument, match="larger than the 4 bytes"):
        store.content.read(blob.digest, 4)


def test_a_damaged_blob_is_noticed(store: Any) -> None:
    with store.leases.hold() as lease:
        blob = store.content.add(b"12345", "text/plain", lease=lease)
    store.content.path(blob.digest).write_bytes(b"12346")
    assert not store.content.verify(blob.digest)


def test_a_full_disk_is_one_line_and_leaves_nothing(store: Any) -> None:
    """On a tmpfs of two pages in a mount namespace of its own."""
    script = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from conftest import open_store
from dockp.linux.mounts import apply_mount, set_propagation
from dockp.linux.namespaces import CLONE_NEWNS, unshare
from dockp.spi.errors import SystemFault
unshare(CLONE_NEWNS)
set_propagation("/", "rprivate")
root = Path({str(store.path)!r})
(root / "content").mkdir()
apply_mount("tmpfs", "tmpfs", ["size=8k"], str(root / "content"))
store = open_store(root)
with store.leases.hold() as lease:
    try:
        with store.content.writer(lease=lease) as writer:
            writer.write(bytes(1 << 20))
            writer.commit()
    except SystemFault as error:
        print(error)
    print(list((root / "content/ingest").iterdir()))
"""
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert out == f"writing a blob to {store.path}/content: No space left on device\n[]\n"


def test_a_store_that_cannot_be_written_is_one_line(store: Any) -> None:
    (store.path / "content").write_text("in the way")
    with store.leases.hold() as lease, pytest.raises(SystemFault, match=r"cannot make .*: Not a directory"):
        store.content.add(b"x", "text/plain", lease=lease)


def test_leftovers_of_a_killed_writer_are_swept_and_live_ones_are_not(store: Any) -> None:
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from conftest import open_store
store = open_store(Path({str(store.path)!r}))
with store.content.scratch() as scratch, store.leases.hold() as lease:
    (scratch / "deep").mkdir()
    writer = store.content.writer(lease=lease)
    writer.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    left = [*(store.path / "content/ingest").iterdir(), *(store.path / "content/scratch").iterdir()]
    assert len(left) == 2
    with store.leases.hold() as lease, store.content.scratch() as scratch, store.content.writer(lease=lease) as writer:
        writer.write(b"alive")
        assert store.content.sweep() == 2
        assert not any(path.exists() for path in left)
        assert scratch.is_dir()
        writer.commit()
    assert store.content.has(digest_of(b"alive"))
    assert not scratch.exists()


def test_a_lease_ends_with_its_process(store: Any) -> None:
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from conftest import open_store
store = open_store(Path({str(store.path)!r}))
with store.leases.hold() as lease:
    store.content.add(b"held", "text/plain", lease=lease)
    print("ready", flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert store.collector.collect().blobs == ()
        assert store.leases.expire() == 0
        child.communicate()
    assert store.collector.collect().blobs == (digest_of(b"held"),)
    with store.database.read() as connection:
        assert connection.execute("SELECT COUNT(*) FROM leases").fetchone()[0] == 0


def test_files_of_the_store_are_for_root_alone(store: Any) -> None:
    old = os.umask(0)
    try:
        with store.leases.hold() as lease:
            blob = store.content.add(b"secret", "text/plain", lease=lease)
    finally:
        os.umask(old)
    path = store.content.path(blob.digest)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
