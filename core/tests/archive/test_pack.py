"""Packing: what goes in comes out, the same bytes every time, and other tools can read them."""

from __future__ import annotations

import io
import os
import random
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from dockp.archive.apply import apply_layer
from dockp.archive.changes import between, in_directory
from dockp.archive.pack import Packer, pack_changes, pack_tree
from dockp.archive.tree import Tree
from dockp.spi.errors import InvalidArgument
from dockp.spi.values import ChangesDirectory
from dockp.testkit._trees import MAKING, VERBS, Edit, difference, edit_tree, manifest


def packed(root: Path, include_root: bool = False) -> io.BytesIO:
    out = io.BytesIO()
    pack_tree(root, out, include_root)
    out.seek(0)
    return out


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    generator = random.Random(3)
    root = tmp_path / "tree"
    root.mkdir()
    verbs = MAKING * 3 + VERBS
    edits = [Edit(generator.choice(verbs), *(generator.randrange(200) for _ in range(3))) for _ in range(150)]
    edit_tree(str(root), edits)
    for name, kind in (("fifo", stat.S_IFIFO), ("block", stat.S_IFBLK)):
        os.mknod(root / name, kind | 0o640, os.makedev(7, 1) if name == "block" else 0)
    os.setxattr(root / "fifo", "trusted.x", b"\x00\xff")
    kinds = {node.kind for node in manifest(str(root)).values()}
    assert kinds == set("d-lpcb")
    return root


def test_what_was_packed_unpacks_to_the_same_tree(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.chmod(tree, 0o1751)
    apply_layer(packed(tree, include_root=True), tmp_path / "out")
    expected, actual = (manifest(str(root), directory_times=True) for root in (tree, tmp_path / "out"))
    assert difference(expected, actual) == []


def test_the_same_tree_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    first = packed(tree).getvalue()
    apply_layer(io.BytesIO(first), copy)
    os.utime(copy, (1, 1))
    assert packed(copy).getvalue() == first


def test_gnu_tar_reads_what_was_packed(tree: Path, tmp_path: Path) -> None:
    listing = subprocess.run(
        ["tar", "-tf", "-", "--quoting-style=literal"], input=packed(tree).getvalue(), check=True, capture_output=True
    )
    names = {os.fsdecode(line.rstrip(b"/")) for line in listing.stdout.splitlines()}
    assert names == manifest(str(tree)).keys() - {"."}
    assert listing.stderr == b""


def test_gnu_tar_and_dockp_unpack_alike(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "tar").mkdir()
    command = ["tar", "-xpf", "-", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", str(tmp_path / "tar")]
    subprocess.run(command, input=packed(tree).getvalue(), check=True)
    assert difference(manifest(str(tree), True), manifest(str(tmp_path / "tar"), True)) == []


def test_long_names_and_large_numbers_survive(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    deep = source / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    target.mkdir()
    (deep / "file").write_bytes(b"content")
    os.chown(deep / "file", 2**31, 2**32 - 2)
    os.utime(deep / "file", ns=(-5, -1_500_000_000))
    os.symlink("x" * 3000, source / "link")
    os.link(deep / "file", source / "hard")
    apply_layer(packed(source), target)
    assert difference(manifest(str(source), True), manifest(str(target), True)) == []


def test_a_file_that_shrinks_while_packed_keeps_the_archive_whole(tmp_path: Path) -> None:
    size = 600_000
    (tmp_path / "f").write_bytes(b"x" * size)
    with Tree(str(tmp_path)) as tree:
        pieces = Packer(tree).tree()
        out = next(pieces) + next(pieces)
        os.truncate(tmp_path / "f", 1000)
        out += b"".join(pieces)
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        member = archive.extractfile("f")
        assert member is not None
        content = member.read()
    assert len(content) == size
    assert content.rstrip(b"\0") == b"x" * (256 * 1024)


def test_what_becomes_a_link_while_packed_leads_nowhere(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for directory in (outside, inside / "d"):
        directory.mkdir(parents=True)
        (directory / "secret").write_text(directory.parent.name)
    with Tree(str(inside)) as tree:
        pieces = Packer(tree).tree()
        out = next(pieces)  # the header of d
        os.rename(inside / "d", inside / "e")
        os.symlink(outside, inside / "d")
        out += b"".join(pieces)
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        assert archive.getnames() == ["d"]


def test_sockets_are_left_out_and_whiteout_names_refused(tmp_path: Path) -> None:
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    with tarfile.open(fileobj=packed(tmp_path)) as archive:
        assert archive.getnames() == []
    (tmp_path / ".wh.f").touch()
    with pytest.raises(InvalidArgument, match="stands for a deletion"):
        packed(tmp_path)


def names(layer: io.BytesIO) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(layer.getvalue())) as archive:
        return archive.getnames()


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A lower tree and what became of it."""
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    lower.mkdir()
    (lower / "d" / "sub").mkdir(parents=True)
    for name in ("d/kept", "d/changed", "d/gone", "d/sub/f", "kind", "mode", "owner", "xattr", "time", "hard"):
        (lower / name).write_text(name)
    os.link(lower / "hard", lower / "d" / "hard too")
    (lower / "link").symlink_to("one")
    subprocess.run(["cp", "-a", lower, upper], check=True)
    (upper / "d/changed").write_text("something longer")
    (upper / "d/gone").unlink()
    (upper / "d/new").write_text("new")
    (upper / "d/sub/f").unlink()
    (upper / "d/sub").rmdir()
    (upper / "kind").unlink()
    (upper / "kind").mkdir()
    (upper / "kind/inner").touch()
    (upper / "mode").chmod(0o600)
    os.chown(upper / "owner", 5, 5)
    os.setxattr(upper / "xattr", "user.x", b"1")
    os.utime(upper / "time", ns=(1, 1))
    os.link(upper / "hard", upper / "hard three")
    (upper / "link").unlink()
    (upper / "link").symlink_to("two")
    return lower, upper


EXPECTED = [
    "C /d",
    "C /d/changed",
    "D /d/gone",
    "A /d/new",
    "D /d/sub",
    "A /hard three",
    "C /kind",
    "A /kind/inner",
    "C /link",
    "C /mode",
    "C /owner",
    "C /time",
    "C /xattr",
]


def test_changes_between_two_trees_are_listed_as_docker_does(two: tuple[Path, Path]) -> None:
    assert [" ".join(change) for change in between(str(two[0]), str(two[1]))] == EXPECTED
    assert between(str(two[0]), str(two[0])) == []
    assert {change.kind for change in between(None, str(two[0]))} == {"A"}


def test_changes_packed_and_applied_give_the_other_tree(two: tuple[Path, Path]) -> None:
    lower, upper = two
    out = io.BytesIO()
    pack_changes((str(lower), str(upper)), out)
    assert "d/.wh.gone" in names(out)
    assert "d/.wh.sub" in names(out)
    out.seek(0)
    apply_layer(out, lower)
    assert difference(manifest(str(upper)), manifest(str(lower))) == []


def test_a_file_linked_anew_brings_all_its_names(two: tuple[Path, Path]) -> None:
    out = io.BytesIO()
    pack_changes((str(two[0]), str(two[1])), out)
    assert {"hard", "d/hard too", "hard three"} <= set(names(out))


def test_changes_survive_the_way_through_overlays_whiteouts(two: tuple[Path, Path], tmp_path: Path) -> None:
    """tar -> directory with overlay's marks -> list and tar again, and the tar still says the same."""
    lower, upper = two
    first, second = io.BytesIO(), io.BytesIO()
    pack_changes((str(lower), str(upper)), first)
    first.seek(0)
    (tmp_path / "changes").mkdir()
    apply_layer(first, tmp_path / "changes", "overlay")
    changes = ChangesDirectory(path=str(tmp_path / "changes"), whiteouts="overlay")
    # Names that came along with a link, although unchanged, are told as changed here.
    extra = {"C /hard", "C /d/hard too"}
    assert {" ".join(change) for change in in_directory(changes, [str(lower)])} - extra == set(EXPECTED)
    pack_changes(changes, second)
    assert sorted(names(first)) == sorted(names(second))


def test_an_opaque_directory_tells_what_it_hides(tmp_path: Path) -> None:
    for name in ("bottom/d/old", "bottom/d/sub", "middle/d/more", "top/d"):
        (tmp_path / name).mkdir(parents=True)
    os.mknod(tmp_path / "middle/d/old", stat.S_IFCHR, 0)
    (tmp_path / "top/d/sub").mkdir()
    os.setxattr(tmp_path / "top/d", "trusted.overlay.opaque", b"y")
    changes = ChangesDirectory(path=str(tmp_path / "top"), whiteouts="overlay")
    lowers = [str(tmp_path / "middle"), str(tmp_path / "bottom")]
    found = [" ".join(change) for change in in_directory(changes, lowers)]
    assert found == ["C /d", "D /d/more", "C /d/sub"]
    out = io.BytesIO()
    pack_changes(changes, out)
    assert names(out) == ["d", "d/.wh..wh..opq", "d/sub"]


def test_a_whiteout_of_what_was_never_there_is_no_change(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    (tmp_path / "upper").mkdir()
    os.mknod(tmp_path / "upper/x", stat.S_IFCHR, 0)
    changes = ChangesDirectory(path=str(tmp_path / "upper"), whiteouts="overlay")
    assert in_directory(changes, [str(tmp_path / "lower")]) == []
