"""``save`` and ``load``: between engines and tools, through pipes and files, and cut short."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from harness import Dockp


@pytest.fixture
def image(dockp: Dockp) -> str:
    """The id of the image that every test here saves, under the names app:1 and app:2 as well."""
    dockp.ok("tag", "busybox", "app:1")
    dockp.ok("tag", "busybox", "app:2")
    return dockp.ok("images", "-q", "--no-trunc", "busybox")


def save(dockp: Dockp, path: Path, *refs: str) -> Path:
    dockp.ok("save", "-o", str(path), *refs)
    return path


def test_an_image_comes_back_from_a_file_and_from_a_pipe(dockp: Dockp, image: str, tmp_path: Path) -> None:
    path = save(dockp, tmp_path / "app.tar", "app", "busybox")
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["app.tar"]
    dockp.ok("rmi", "app:1", "app:2", "busybox")
    loaded = dockp.ok("load", "-i", str(path)).splitlines()
    assert sorted(loaded) == [f"Loaded image: {name}" for name in ("app:1", "app:2", "busybox:latest")]
    assert dockp.ok("images", "-q", "--no-trunc", "app:1") == image
    dockp.ok("rmi", "app:1", "app:2")
    packed = subprocess.run(["gzip", "-c", path], capture_output=True, check=True).stdout
    assert "Loaded image: app:2" in dockp.ok("load", "-q", input=packed)
    assert dockp.ok("run", "--rm", "--network", "none", "app:2", "echo", "well") == "well"
    assert dockp.ok("save", image[7:19]) != ""
    dockp.ok("rmi", "app:1", "app:2")


def test_an_image_saved_by_id_is_loaded_by_id(dockp: Dockp, image: str, tmp_path: Path) -> None:
    path = save(dockp, tmp_path / "nameless.tar", image)
    assert dockp.ok("load", "-i", str(path)) == f"Loaded image ID: {image}"
    dockp.ok("rmi", "app:1", "app:2")


def test_a_terminal_is_spared(dockp: Dockp) -> None:
    for arguments, complaint in (
        (["save", "busybox"], "cowardly refusing to save to a terminal. Use the -o flag or redirect"),
        (["load"], "requested load from stdin, but stdin is empty"),
    ):
        ours, theirs = pty.openpty()
        try:
            process = dockp.popen(*arguments, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE)
            _, text = process.communicate(timeout=30)
        finally:
            os.close(ours)
            os.close(theirs)
        assert process.returncode == 1
        assert complaint in text.decode()


@pytest.mark.own
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["save", "nope"], "No such image: nope"),
        (["save", "busybox:nope"], "reference does not exist"),
        (["save", "-o", "/not/there/x.tar", "busybox"], "failed to save image: invalid output path: "),
        (["load", "-i", "/not/there"], "open /not/there: no such file or directory"),
        (["load", "-i", "/etc/passwd"], "is not a tar archive"),
        (["save"], "requires at least 1 argument"),
    ],
)
def test_mistakes_are_one_line(dockp: Dockp, arguments: list[str], complaint: str) -> None:
    done = dockp(*arguments)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.own
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_skopeo_and_dockp_understand_each_other(dockp: Dockp, image: str, tmp_path: Path, form: str) -> None:
    path = save(dockp, tmp_path / "app.tar", "app:1")
    wanted = "app:1" if form == "docker-archive" else "1"
    skopeo = ("skopeo", "copy", "-q")
    subprocess.run([*skopeo, f"{form}:{path}:{wanted}", f"oci:{tmp_path}/layout:x"], check=True)
    subprocess.run([*skopeo, f"oci:{tmp_path}/layout:x", f"{form}:{tmp_path}/back.tar:come/back:2"], check=True)
    assert dockp.ok("load", "-i", str(tmp_path / "back.tar")) == "Loaded image: come/back:2"
    assert dockp.ok("images", "-q", "--no-trunc", "come/back:2") == image
    dockp.ok("rmi", "come/back:2", "app:1", "app:2")


@pytest.mark.own
def test_podman_and_dockp_understand_each_other(
    dockp: Dockp, image: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed: apt-get install podman")
    path = save(dockp, tmp_path / "app.tar", "app:1")
    place = tempfile.mkdtemp(prefix="dockp-")  # podman wants its paths short
    request.addfinalizer(lambda: shutil.rmtree(place))
    podman = ["podman", "--storage-driver", "vfs"]
    podman += [f"--{name}={place}/{name}" for name in ("root", "runroot", "tmpdir")]

    def run(*arguments: str) -> str:
        return subprocess.run([*podman, *arguments], check=True, capture_output=True, text=True).stdout

    assert "/app:1" in run("load", "-i", str(path))
    run("tag", image[7:], "localhost/app:1", "localhost/other:1")
    run("save", "--multi-image-archive", "-o", str(tmp_path / "back.tar"), "localhost/app:1", "localhost/other:1")
    assert dockp.ok("load", "-i", str(tmp_path / "back.tar")).splitlines() == [
        "Loaded image: localhost/app:1",
        "Loaded image: localhost/other:1",
    ]
    assert dockp.ok("images", "-q", "--no-trunc", "localhost/other:1") == image
    dockp.ok("rmi", "localhost/app:1", "localhost/other:1", "app:1", "app:2")


@pytest.mark.embedded
@pytest.mark.parametrize("delay", [0.1, 0.16, 0.22])
def test_a_killed_load_leaves_no_image_and_nothing_that_prune_does_not_free(
    fresh: Dockp, dockp: Dockp, tmp_path: Path, delay: float
) -> None:
    path = save(dockp, tmp_path / "busybox.tar", "busybox")
    process = fresh.popen("load", "-i", str(path))
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    rows = fresh.ok("images", "-q").split()
    assert len(rows) in (0, 1)
    # The next one works, and once its image is gone nothing of either is left.
    assert fresh.ok("load", "-i", str(path)) == "Loaded image: busybox:latest"
    fresh.ok("rmi", "busybox")
    content = fresh.data_root / "content"
    assert [name for _, _, names in os.walk(content) for name in names] == []
