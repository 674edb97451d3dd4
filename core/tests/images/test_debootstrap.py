"""The debootstrap source, short of downloading a Debian (which the end-to-end tests do)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dockp.images.sources import debootstrap
from dockp.images.sources.apt_sources import read_sources, sources_for
from dockp.images.sources.debootstrap import DebootstrapSource
from dockp.spi.errors import InvalidArgument, NotFound, Unavailable

TESTS = Path(__file__).parent.parent
DEB822 = """\
# the distribution's own
Types: deb deb-src
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
# a comment inside
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
Enabled: no
URIs: http://off.test/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://third.test/
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/third-archive-keyring.gpg
"""
ONE_LINE = """\
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/debian bookworm main # x
deb-src http://mirror.test/debian bookworm main
#deb http://off.test/debian bookworm main
deb http://flat.test/ ./
deb http://vendor.test/linux bookworm stable
deb http://mirror.test/debian-security bookworm-security main contrib
"""


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def summary(etc: Path, suite: str) -> list[tuple[str, str]]:
    chosen = sources_for(suite, read_sources(etc), "bookworm", "debian")
    return [(source.uris[0], " ".join(source.suites)) for source in chosen]


def test_the_distributions_own_mirrors_are_chosen_from_deb822(etc: Path) -> None:
    (etc / "sources.list.d/debian.sources").write_text(DEB822)
    assert summary(etc, "bookworm") == [
        ("http://mirror.test/debian", "bookworm bookworm-updates"),
        ("http://mirror.test/debian-security", "bookworm-security"),
    ]
    stanza = sources_for("bookworm", read_sources(etc), "bookworm", "debian")[1].stanza()
    assert stanza == (
        "Types: deb\nURIs: http://mirror.test/debian-security\nSuites: bookworm-security\nComponents: main\n"
        "Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n"
    )


def test_the_distributions_own_mirrors_are_chosen_from_one_line_lists(etc: Path) -> None:
    (etc / "sources.list").write_text(ONE_LINE)
    assert summary(etc, "bookworm") == [
        ("http://mirror.test/debian", "bookworm"),
        ("http://mirror.test/debian-security", "bookworm-security"),
    ]
    assert read_sources(etc)[0].signed_by == "/usr/share/keyrings/debian-archive-keyring.gpg"


def test_another_suite_comes_from_the_same_mirrors(etc: Path) -> None:
    (etc / "sources.list.d/debian.sources").write_text(DEB822)
    assert summary(etc, "trixie") == [
        ("http://mirror.test/debian", "trixie trixie-updates"),
        ("http://mirror.test/debian-security", "trixie-security"),
    ]
    assert summary(etc, "sid") == [("http://mirror.test/debian", "sid")]


def test_without_sources_there_is_nothing(etc: Path) -> None:
    assert summary(etc, "bookworm") == []


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("", "is no suite"),
        ("--help", "is no suite"),
        ("book/worm", "is no suite"),
        ("bookworm?variant=tiny", "no variant 'tiny'; there are minbase"),
        ("bookworm?size=1", "no option 'size'; there are variant, include, components"),
        ("bookworm?include=a,--b", "'--b' is not the name of a package"),
        ("bookworm?components=main,-x", "'-x' is not the name of a package or component"),
    ],
)
def test_a_bad_reference_is_refused_before_any_tool_runs(store: Any, reference: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        store.images.add_from(DebootstrapSource, reference)


def test_without_a_tool_the_package_to_install_is_named(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"debootstrap": False}
    monkeypatch.setattr(shutil, "which", lambda name, path: name if found.get(name) else None)
    with pytest.raises(Unavailable, match="run 'apt-get install mmdebstrap'"):
        store.images.add_from(DebootstrapSource, "bookworm")
    found["debootstrap"] = True
    with pytest.raises(Unavailable, match="the variant 'essential' needs mmdebstrap"):
        store.images.add_from(DebootstrapSource, "bookworm?variant=essential")


def test_a_machine_without_mirrors_is_told_so(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debootstrap, "_find_tool", lambda variant: "mmdebstrap")
    monkeypatch.setattr(debootstrap, "read_sources", lambda etc: [])
    with pytest.raises(NotFound, match=r"found no .* mirror in /etc/apt"):
        store.images.add_from(DebootstrapSource, "bookworm")


def put_tool(path: Path, script: str) -> None:
    """An mmdebstrap that does what the script says."""
    path.mkdir()
    (path / "mmdebstrap").write_text(f"#!/bin/sh\n{script}\n")
    (path / "mmdebstrap").chmod(0o755)


def prepared(monkeypatch: pytest.MonkeyPatch, etc: Path) -> None:
    (etc / "sources.list.d/debian.sources").write_text(DEB822)
    sources = read_sources(etc)
    monkeypatch.setattr(debootstrap, "read_sources", lambda _: sources)
    monkeypatch.setattr(debootstrap, "_os_release", lambda: {"ID": "debian", "VERSION_CODENAME": "bookworm"})


def test_the_tools_words_are_progress_and_its_archive_the_layer(
    store: Any, etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        'echo "I: working" >&2; mkdir -p "$TMPDIR/r/etc"; echo made > "$TMPDIR/r/etc/issue"; tar -C "$TMPDIR/r" -c .'
    )
    put_tool(etc / "bin", script)
    prepared(monkeypatch, etc)
    monkeypatch.setenv("PATH", f"{etc / 'bin'}:{os.environ['PATH']}")
    said: list[str] = []
    image = store.images.add_from(
        DebootstrapSource, "bookworm", driver="vfs", progress=lambda what, done, total: said.append(what)
    )
    assert store.images.get("debian:bookworm").id == image.id
    top = store.directory("vfs", store.images.unpack(image, "vfs").id)
    assert (top / "etc/issue").read_text() == "made\n"
    assert (top / "dev").is_dir()
    assert "working" in said
    document = store.images.inspect("debian:bookworm")
    assert document["Config"]["Cmd"] == ["bash"]
    assert document["Config"]["Env"][0].startswith("PATH=")
    assert store.images.history("debian:bookworm")[0]["CreatedBy"] == "debootstrap --variant=minbase bookworm"


def test_a_failing_tool_is_quoted_and_leaves_nothing(store: Any, etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_tool(etc / "bin", 'echo "I: working" >&2; echo "E: the mirror is gone" >&2; exit 25')
    prepared(monkeypatch, etc)
    monkeypatch.setenv("PATH", f"{etc / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(Unavailable, match=r"^debootstrap:bookworm: mmdebstrap failed: the mirror is gone$"):
        store.images.add_from(DebootstrapSource, "bookworm", tag="x")
    assert list((store.path / "content/scratch").iterdir()) == []
    assert list(store.content.walk()) == []


def test_the_tool_dies_with_its_caller(store: Any, etc: Path) -> None:
    """And all it started: they live in a pid namespace that ends with it."""
    put_tool(etc / "bin", f'sleep 1000 & echo "I: up" >&2; touch {etc}/up; wait')
    (etc / "sources.list.d/debian.sources").write_text(DEB822)
    script = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from conftest import open_store
from dockp.images.sources import debootstrap
from dockp.images.sources.apt_sources import read_sources
sources = read_sources(Path({str(etc)!r}))
debootstrap.read_sources = lambda etc: sources
open_store(Path({str(store.path)!r})).images.add_from(debootstrap.DebootstrapSource, "bookworm")
"""
    environment = {**os.environ, "PATH": f"{etc / 'bin'}:{os.environ['PATH']}", "DOCKP_TEST_MARK": str(etc)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as child:
        deadline = time.monotonic() + 20
        while not (etc / "up").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert marked(etc) > 2
        child.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while marked(etc) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert marked(etc) == 0
    assert store.content.sweep() == 1


def marked(path: Path) -> int:
    """How many processes carry this test's mark in their environment."""
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                count += f"DOCKP_TEST_MARK={path}\0".encode() in (entry / "environ").read_bytes()
            except OSError:
                continue
    return count
