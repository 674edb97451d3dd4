"""Unpacking one layer: what comes out, and what cannot get out."""

from __future__ import annotations

import errno
import io
import os
import stat
import subprocess
import tarfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from dockp.archive.apply import Applied, NeedsParent, apply_layer
from dockp.spi.errors import InvalidArgument, SystemFault
from dockp.testkit.layers import entry, layer

DIR, SYM, LNK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "victim").write_text("untouched")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture(autouse=True)
def _nothing_escapes(tmp_path: Path, root: Path) -> object:
    yield
    assert sorted(os.listdir(tmp_path)) == ["outside", "root"]
    assert os.listdir(tmp_path / "outside") == ["victim"]
    assert (tmp_path / "outside" / "victim").read_text() == "untouched"


def test_a_layer_comes_out_as_it_was_described(root: Path) -> None:
    applied = apply_layer(
        layer(
            entry("./", DIR, mode=0o711, mtime=5),
            entry("etc/", DIR, uid=7, gid=8, mtime=1_500_000_000),
            entry("etc/passwd", data=b"root", uid=1, gid=2, mode=0o4751, mtime=1_400_000_000),
            entry("etc/link", SYM, linkname="passwd", uid=3, gid=4, mtime=77),
            entry("etc/hard", LNK, linkname="etc/passwd"),
            entry("dev/", DIR),
            entry("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            entry("dev/loop0", tarfile.BLKTYPE, devmajor=7, devminor=0, mode=0o660, gid=6),
            entry("fifo", tarfile.FIFOTYPE, mode=0o620, mtime=9),
        ),
        root,
    )
    assert applied == Applied(size=4, entries=9, root=True)
    passwd = os.lstat(root / "etc/passwd")
    assert (passwd.st_uid, passwd.st_gid, stat.S_IMODE(passwd.st_mode), passwd.st_mtime) == (1, 2, 0o4751, 1.4e9)
    assert os.path.samestat(passwd, os.lstat(root / "etc/hard"))
    link = os.lstat(root / "etc/link")
    assert (os.readlink(root / "etc/link"), link.st_uid, link.st_gid, link.st_mtime) == ("passwd", 3, 4, 77)
    etc = os.lstat(root / "etc")
    assert (etc.st_uid, etc.st_gid, etc.st_mtime) == (7, 8, 1.5e9)
    null, loop = os.lstat(root / "dev/null"), os.lstat(root / "dev/loop0")
    assert stat.filemode(null.st_mode) == "crw-rw-rw-"
    assert null.st_rdev == os.makedev(1, 3)
    assert stat.filemode(loop.st_mode) == "brw-rw----"
    assert loop.st_gid == 6
    assert stat.filemode(os.lstat(root / "fifo").st_mode) == "prw--w----"
    assert stat.S_IMODE(os.lstat(root).st_mode) == 0o711
    assert os.lstat(root).st_mtime == 5


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(root: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        apply_layer(
            layer(entry("d/", DIR, mode=0o777), entry("d/f", mode=0o666), entry("implied/f", mode=0o7777)), root
        )
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE(os.lstat(root / name).st_mode) for name in ("d", "d/f", "implied", "implied/f")}
    assert modes == {"d": 0o777, "d/f": 0o666, "implied": 0o755, "implied/f": 0o7777}


def test_xattrs_and_exact_times_come_out(root: Path) -> None:
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)
    headers = {
        "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.user.odd": b"\xff\n=\x00x".decode("utf-8", "surrogateescape"),
        "mtime": "1234567890.123456789",
    }
    apply_layer(layer(entry("f", uid=5, pax_headers=headers), entry("old", pax_headers={"mtime": "-1.25"})), root)
    assert os.getxattr(root / "f", "security.capability") == capability
    assert os.getxattr(root / "f", "user.odd") == b"\xff\n=\x00x"
    assert os.lstat(root / "f").st_mtime_ns == 1234567890123456789
    assert os.lstat(root / "old").st_mtime_ns == -1_250_000_000


def test_what_would_steer_overlay_is_left_out_and_named(root: Path) -> None:
    applied = apply_layer(
        layer(
            entry("d/", DIR, pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/elsewhere"}),
            entry("w", tarfile.CHRTYPE, devmajor=0, devminor=0),
        ),
        root,
    )
    assert os.listdir(root) == ["d"]
    assert os.listxattr(root / "d") == []
    assert applied.ignored == ("d: xattr trusted.overlay.redirect, which steers overlay", "w: character device 0:0")


def test_names_may_be_long_and_need_not_be_utf8(root: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    long = "/".join(["n" * 255] * 3) + "/" + "f" * 200
    apply_layer(layer(entry(odd, data=b"1"), entry(long, data=b"2"), entry("l", SYM, linkname=odd)), root)
    assert os.listdir(os.fsencode(root)).count(b"\xff\xfe") == 1
    assert (root / long).read_bytes() == b"2"
    assert (root / "l").read_bytes() == b"1"


def test_runs_of_zeros_become_holes(root: Path) -> None:
    data = b"x" * 4096 + bytes(8 * 1024 * 1024) + b"y"
    assert apply_layer(layer(entry("sparse", data=data)), root).size == len(data)
    assert (root / "sparse").read_bytes() == data
    assert os.lstat(root / "sparse").st_blocks * 512 < 1024 * 1024


@pytest.mark.parametrize("content", [b"middle", b""])
@pytest.mark.parametrize("form", ["0.0", "0.1", "1.0", "gnu"])
def test_sparse_files_of_gnu_tar_come_out_sparse(root: Path, form: str, content: bytes) -> None:
    holes = root / "made"
    with open(holes, "wb") as file:
        file.truncate(3_000_000)
        if content:
            file.seek(1_000_000)
            file.write(content)
    kind = ["--format=gnu"] if form == "gnu" else ["--format=posix", f"--sparse-version={form}"]
    tar = subprocess.run(
        ["tar", "-cS", *kind, "-C", str(root), "--transform=s/made/s/", "made"], check=True, capture_output=True
    ).stdout
    holes.unlink()
    apply_layer(io.BytesIO(tar), root)
    assert (root / "s").read_bytes() == bytes(1_000_000) + content + bytes(2_000_000 - len(content))
    assert os.lstat(root / "s").st_blocks * 512 < 100_000


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../victim", data=b"x")],
        [entry("a/../../outside/victim", data=b"x")],
        [entry("a", LNK, linkname="../outside/victim")],
        [entry("d/", DIR), entry("d/..", SYM, linkname="x")],
        [entry("..", DIR)],
        [entry(".", SYM, linkname="../outside")],
        [entry("/", data=b"root is a file")],
        [entry("a", LNK, linkname="missing")],
        [entry("d/", DIR), entry("a", LNK, linkname="d")],
        [entry("a", LNK, linkname="/")],
        [entry("l", SYM, linkname="")],
        [entry(".wh..", data=b"")],
        [entry(".wh.", data=b"")],
        [entry("d/", DIR), entry("d/.wh...", data=b"")],
        [entry("f", data=b""), entry("f/inner", data=b"")],
        [entry("n" * 256, data=b"")],
        [entry("a/" * 2100 + "f", data=b"")],
        [entry("x", b"Q", data=b"")],
        [entry("loop", SYM, linkname="loop"), entry("loop/f", data=b"")],
        [entry("f", uid=2**32 - 1)],
        [entry("f", pax_headers={"mtime": "soon"})],
        [entry("f", pax_headers={"size": "-5"})],
        [entry("f", pax_headers={"size": str(2**70)})],
        [entry("f", pax_headers={"uid": "99999999999999999999"})],
        [entry("dev", tarfile.CHRTYPE, pax_headers={"GNU.sparse.size": "x"})],
    ],
    ids=lambda entries: (entries[-1][0].name[:20] + str(entries[-1][0].pax_headers or "")).replace("/", "|"),
)
@pytest.mark.parametrize("whiteouts", ["delete", "overlay"])
def test_a_hostile_or_malformed_entry_is_refused_in_one_line(
    root: Path, entries: list[tuple[tarfile.TarInfo, bytes]], whiteouts: str
) -> None:
    with pytest.raises((InvalidArgument, NeedsParent)) as caught:
        apply_layer(layer(*entries), root, whiteouts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["../outside", "{tmp}/outside", "/../outside", "/"])
def test_a_symbolic_link_does_not_lead_out(root: Path, tmp_path: Path, target: str) -> None:
    link = target.format(tmp=tmp_path)
    apply_layer(
        layer(
            entry("escape", SYM, linkname=link),
            entry("escape/victim", data=b"inside"),
            entry("escape/sub/", DIR),
            entry("escape/.wh.victim2", data=b""),
        ),
        root,
    )
    inside = [path for path in root.rglob("victim") if not path.is_symlink()]
    assert [path.read_bytes() for path in inside] == [b"inside"]


def test_absolute_names_and_links_stay_inside(root: Path, tmp_path: Path) -> None:
    victim = str(tmp_path / "outside" / "victim")
    with pytest.raises(InvalidArgument, match="does not exist"):
        apply_layer(layer(entry("h", LNK, linkname=victim)), root)
    apply_layer(layer(entry(victim, data=b"mine"), entry("h", LNK, linkname=victim)), root)
    assert (root / "h").read_bytes() == b"mine"


def test_a_file_does_not_write_through_the_link_it_replaces(root: Path, tmp_path: Path) -> None:
    os.symlink(tmp_path / "outside" / "victim", root / "f")
    os.symlink(tmp_path / "outside", root / "d")
    apply_layer(layer(entry("f", data=b"new"), entry("d/", DIR), entry("d/victim", data=b"new")), root)
    assert not (root / "f").is_symlink()
    assert not (root / "d").is_symlink()
    assert (root / "d/victim").read_bytes() == b"new"


def test_who_swaps_directories_for_links_meanwhile_gets_nothing_out(root: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            try:
                os.rename(root / "d", root / "d2")
                os.symlink("../outside", root / "d")
                os.unlink(root / "d")
                os.rename(root / "d2", root / "d")
            except OSError:
                continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(20):
            entries = [entry("d/", DIR), *(entry(f"d/f{number}", data=b"x") for number in range(20))]
            try:
                apply_layer(layer(*entries), root)
            except (InvalidArgument, SystemFault):
                continue  # to fail is fine; `_nothing_escapes` says what is not
    finally:
        stop.set()
        thread.join()


def test_duplicates_are_replaced_by_the_last(root: Path) -> None:
    apply_layer(
        layer(
            entry("a", data=b"first"),
            entry("a/", DIR),
            entry("a/b", data=b"1"),
            entry("a", data=b"last"),
            entry("self", data=b"s"),
            entry("self", LNK, linkname="./self"),
        ),
        root,
    )
    assert (root / "a").read_bytes() == b"last"
    assert (root / "self").read_bytes() == b"s"


@pytest.fixture
def lower(root: Path) -> Path:
    apply_layer(
        layer(
            entry("d/", DIR),
            entry("d/old", data=b"old"),
            entry("d/sub/", DIR, pax_headers={"SCHILY.xattr.user.x": "1"}),
            entry("d/sub/old", data=b"old"),
            entry("f", data=b"old"),
        ),
        root,
    )
    return root


def paths(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_whiteout_removes_what_is_below(lower: Path) -> None:
    apply_layer(layer(entry(".wh.f"), entry("d/.wh.sub"), entry(".wh.missing"), entry("no/such/.wh.x")), lower)
    assert paths(lower) == ["d", "d/old"]


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_spares_what_its_own_layer_brings(lower: Path, first: bool) -> None:
    whiteouts = [entry("d/.wh.sub"), entry(".wh.f")]
    news = [entry("d/", DIR), entry("d/sub/", DIR), entry("d/sub/new", data=b"n"), entry("f", data=b"n")]
    apply_layer(layer(*(whiteouts + news if first else news + whiteouts)), lower)
    assert paths(lower) == ["d", "d/old", "d/sub", "d/sub/new", "f"]
    assert (lower / "f").read_bytes() == b"n"


@pytest.mark.parametrize("first", [True, False])
def test_an_opaque_directory_hides_what_is_below_and_shows_its_own(lower: Path, first: bool) -> None:
    mark, news = [entry("d/.wh..wh..opq")], [entry("d/", DIR), entry("d/new/", DIR), entry("d/new/n", data=b"n")]
    apply_layer(layer(*(mark + news if first else news + mark)), lower)
    assert paths(lower) == ["d", "d/new", "d/new/n", "f"]


def test_an_opaque_root_hides_all(lower: Path) -> None:
    apply_layer(layer(entry("new", data=b"n"), entry(".wh..wh..opq")), lower)
    assert paths(lower) == ["new"]


def test_a_directory_described_anew_keeps_content_and_loses_xattrs(lower: Path) -> None:
    apply_layer(layer(entry("d/sub/", DIR, mode=0o700)), lower)
    assert (lower / "d/sub/old").exists()
    assert os.listxattr(lower / "d/sub") == []


def is_whiteout(path: Path) -> bool:
    info = os.lstat(path)
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


def test_whiteouts_can_be_written_as_overlay_has_them(root: Path) -> None:
    apply_layer(
        layer(
            entry("d/", DIR, mtime=7),
            entry("d/.wh.gone"),
            entry("o/", DIR),
            entry("o/.wh..wh..opq"),
            entry("d/kept", data=b"k"),
            entry("d/.wh.kept"),
            entry("late/", DIR),
            entry(".wh.late"),
            entry(".wh.early"),
            entry("early/", DIR),
        ),
        root,
        "overlay",
    )
    assert is_whiteout(root / "d/gone")
    assert (root / "d/kept").read_bytes() == b"k"
    assert [name for name in ("d", "o", "late", "early") if is_opaque(root / name)] == ["o", "late", "early"]
    assert os.lstat(root / "d").st_mtime == 7


@pytest.mark.parametrize(
    "entries",
    [
        [entry("usr/bin/tool", data=b"x")],
        [entry("hard", LNK, linkname="lower")],
        [entry(".wh.t"), entry("hard", LNK, linkname="t")],
        [entry("l", SYM, linkname="lower"), entry("l/f", data=b"")],
        [entry(".wh..wh..opq")],
        [entry("usr/.wh.x")],
    ],
    ids=lambda entries: entries[-1][0].name.replace("/", "|"),
)
def test_a_layer_that_leans_on_its_parent_says_so(root: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(NeedsParent):
        apply_layer(layer(*entries), root, "overlay")


@pytest.mark.parametrize("cut", [1, 511, 513, 600, 1100, 1536])
def test_an_archive_cut_short_is_refused(root: Path, cut: int) -> None:
    whole = layer(entry("a", data=b"x" * 100), entry("b", data=b"y" * 600)).read()
    with pytest.raises(InvalidArgument):
        apply_layer(io.BytesIO(whole[:cut]), root)


def test_an_archive_may_end_without_its_empty_blocks(root: Path) -> None:
    whole = layer(entry("a", data=b"x" * 100)).read()
    assert apply_layer(io.BytesIO(whole[:1024]), root).entries == 1
    # umoci insert leaves out the padding of the last file as well
    assert apply_layer(io.BytesIO(whole[:612]), root).entries == 1
    assert apply_layer(io.BytesIO(whole[:700]), root).entries == 1
    assert (root / "a").read_bytes() == b"x" * 100
    assert apply_layer(io.BytesIO(b""), root).entries == 0


def test_garbage_in_the_middle_is_not_taken_for_the_end(root: Path) -> None:
    whole = layer(entry("a", data=b"x")).read()[:1024]
    with pytest.raises(InvalidArgument, match="malformed"):
        apply_layer(io.BytesIO(whole + b"garbage" * 100), root)


def test_the_stream_is_read_to_its_end(root: Path) -> None:
    stream = io.BytesIO(layer(entry("a")).read() + b"trailing" * 100_000)
    apply_layer(stream, root)
    assert stream.read() == b""


def test_a_header_without_end_is_not_taken_into_memory(root: Path) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 10 * 1024**3
    with pytest.raises(InvalidArgument, match="header"):
        apply_layer(io.BytesIO(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)), root)


def test_headers_that_describe_headers_do_not_exhaust_the_stack(root: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2
    with pytest.raises(InvalidArgument):
        apply_layer(io.BytesIO((info.tobuf(tarfile.GNU_FORMAT) + b"a\0" + bytes(510)) * 5000), root)


def test_random_damage_raises_nothing_but_what_is_promised(root: Path) -> None:
    import random

    generator = random.Random(7)
    whole = layer(
        entry("d/", DIR),
        entry("d/f", data=b"x" * 700, pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "1.5"}),
        entry("l", SYM, linkname="d/f"),
        entry("h", LNK, linkname="d/f"),
        entry("n" * 200, DIR),
    ).read()
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        # Repaired checksums let the damage through to the fields.
        for start in range(0, len(damaged) - 511, 512):
            header = bytes(damaged[start : start + 512])
            if header[257:262] == b"ustar":
                total = sum(header[:148]) + 8 * 32 + sum(header[156:])
                damaged[start + 148 : start + 156] = b"%06o\0 " % total
        with suppress(InvalidArgument, SystemFault):
            apply_layer(io.BytesIO(bytes(damaged)), root)


def test_a_full_disk_is_the_hosts_fault(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(SystemFault, match="no space left"):
        apply_layer(layer(entry("a", data=b"x")), root)


def test_no_descriptor_stays_open(root: Path) -> None:
    before = os.listdir("/proc/self/fd")
    apply_layer(layer(*(entry(f"d{number}/f", data=b"x") for number in range(200))), root)
    with pytest.raises(InvalidArgument):
        apply_layer(layer(*(entry(f"d{number}/f") for number in range(200)), entry("../x")), root)
    assert os.listdir("/proc/self/fd") == before


def test_progress_is_told(root: Path) -> None:
    seen: list[int] = []
    apply_layer(layer(entry("a", data=b"x" * 600_000), entry("b", data=b"y")), root, progress=seen.append)
    assert seen[-1] == 600_001
    assert seen == sorted(seen)
