"""Pulls by whole commands, from Debian's docker-registry on loopback, filled by skopeo."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen
from harness import Daemon, Dockp, image_tar, wait_for

REGISTRY = "127.0.0.1:5000"
APP = f"{REGISTRY}/team/app"


@frozen
class Hub:
    """A registry with ``team/app``: tags 1 and latest, two layers; and ``team/app:old`` of one."""

    layout: Path

    def digest(self, tag: str) -> str:
        """As skopeo sees it."""
        out = subprocess.run(
            ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{APP}:{tag}"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return out.strip()

    def put(self, tag: str, as_tag: str, *more: str) -> None:
        subprocess.run(
            [
                "skopeo",
                "copy",
                "-q",
                *more,
                "--dest-tls-verify=false",
                f"oci:{self.layout}:{tag}",
                f"docker://{APP}:{as_tag}",
            ],
            check=True,
        )


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    top = tmp_path_factory.mktemp("hub")
    root = top / "rootfs"
    root.mkdir()
    subprocess.run(["tar", "-C", str(root), "-xf", str(image_tar("busybox"))], check=True)
    (top / "big").write_bytes(hashlib.shake_256(b"big").digest(3_000_000))
    layout = top / "layout"
    for words in (
        ("init", "--layout", layout),
        ("new", "--image", f"{layout}:app"),
        ("insert", "--image", f"{layout}:app", root, "/"),
        ("config", "--image", f"{layout}:app", "--config.cmd=sh"),
        ("tag", "--image", f"{layout}:app", "old"),
        ("insert", "--image", f"{layout}:app", top / "big", "/big"),
    ):
        subprocess.run(["umoci", *map(str, words)], check=True, capture_output=True)
    config = top / "config.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {top}/blobs}}}}\nhttp: {{addr: '{REGISTRY}'}}\n"
    )
    with (top / "log").open("w") as log:
        registry = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        wait_for(lambda: _listens(5000), "the registry")
        one = Hub(layout)
        one.put("app", "1")
        one.put("app", "latest")
        one.put("old", "old", "--format", "v2s2")
        yield one
    finally:
        registry.terminate()
        registry.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def empty(fresh: Dockp) -> Dockp:
    """Without images."""
    return fresh


def test_a_pull_says_what_docker_says(empty: Dockp, hub: Hub) -> None:
    lines = empty.ok("pull", APP).splitlines()
    assert lines[:2] == ["Using default tag: latest", "latest: Pulling from team/app"]
    assert lines[-3:] == [
        f"Digest: {hub.digest('latest')}",
        f"Status: Downloaded newer image for {APP}:latest",
        f"{APP}:latest",
    ]
    steps = [line.partition(": ")[2] for line in lines[2:-3]]
    for step in ("Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"):
        assert steps.count(step) == 2
    document = empty.inspect(f"{APP}:latest")
    assert document["RepoDigests"] == [f"{APP}@{hub.digest('latest')}"]
    assert hub.digest("latest") in empty.ok("images", "--digests")
    assert empty.ok("pull", f"{APP}:latest").splitlines() == [
        "latest: Pulling from team/app",
        f"Digest: {hub.digest('latest')}",
        f"Status: Image is up to date for {APP}:latest",
        f"{APP}:latest",
    ]
    assert empty.ok("pull", "-q", f"{APP}:1") == f"{APP}:1"
    assert empty.ok("run", "--rm", f"{APP}:1", "wc", "-c", "/big").split() == ["3000000", "/big"]


def test_all_tags_come_and_digests_stay(empty: Dockp, hub: Hub) -> None:
    lines = empty.ok("pull", "-a", APP).splitlines()
    assert sorted(line for line in lines if "Pulling from" in line) == [
        f"{tag}: Pulling from team/app" for tag in ("1", "latest", "old")
    ]
    assert lines[-2:] == [f"Status: Downloaded newer image for {APP}", APP]
    assert sorted(empty.inspect(f"{APP}:1")["RepoTags"]) == [f"{APP}:1", f"{APP}:latest"]
    old = f"{APP}@{hub.digest('old')}"
    assert empty.ok("pull", "-q", old) == old
    assert empty.inspect(old)["Id"] == empty.inspect(f"{APP}:old")["Id"]
    assert empty("pull", "-a", f"{APP}:1").stderr == "tag can't be used with --all-tags/-a\n"


def test_what_is_not_there_is_said_in_dockers_words(empty: Dockp, hub: Hub) -> None:
    done = empty("pull", f"{APP}:none")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"manifest for {APP}:none not found: manifest unknown" in done.stderr
    done = empty("run", "--rm", f"{APP}:none", "true")
    assert done.returncode == 125
    assert f"Unable to find image '{APP}:none' locally" in done.stderr
    assert empty("run", "--rm", "--pull", "never", f"{APP}:1", "true").returncode == 125
    assert empty("image", "inspect", f"{APP}:1").returncode == 1
    assert empty.ok("run", "--rm", "--quiet", f"{APP}:old", "echo", "here") == "here"
    assert "up to date" in empty("run", "--rm", "--pull", "always", f"{APP}:old", "true").stderr


@pytest.mark.embedded
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_pull_that_was_ended_goes_on(empty: Dockp, hub: Hub, how: signal.Signals) -> None:
    """The second attempt asks a registry that is slow in the middle only for what is missing."""
    with Slow(REGISTRY) as slow:
        name = f"{slow.address}/team/app:1"
        pulling = empty.popen("pull", "-q", name)
        ingest = empty.data_root / "content/ingest"
        wait_for(lambda: any((ingest / name).stat().st_size > 100_000 for name in _names(ingest)), "a download")
        pulling.send_signal(how)
        assert pulling.wait(5) == (130 if how == signal.SIGINT else -how)
        partial = [entry for entry in ingest.iterdir() if len(entry.name) == 64 and entry.stat().st_size]
        assert partial
        slow.hurry()
        empty.ok("image", "prune", "-f")
        empty.ok("pull", "-q", name)
        ranges = [line for request in slow.asked for line in request.splitlines() if line.lower().startswith(b"range:")]
        assert ranges, "it asked for the rest only"
    assert empty.ok("run", "--rm", name, "wc", "-c", "/big").split() == ["3000000", "/big"]


@pytest.mark.own
def test_dockers_own_command_line_pulls_through_dockpd(empty: Dockp, hub: Hub) -> None:
    with Daemon(empty) as daemon:
        done = daemon.docker("pull", APP)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[:2] == ["Using default tag: latest", "latest: Pulling from team/app"]
        assert lines[-3:] == [
            f"Digest: {hub.digest('latest')}",
            f"Status: Downloaded newer image for {APP}:latest",
            f"{APP}:latest",
        ]
        done = daemon.docker("run", "--rm", f"{APP}:old", "echo", "here")
        assert (done.returncode, done.stdout) == (0, "here\n")
        assert f"Status: Downloaded newer image for {APP}:old" in done.stderr
        missing = daemon.docker("pull", f"{APP}:none")
        assert "manifest unknown" in missing.stderr
        assert missing.stderr.startswith("Error response from daemon: manifest for")
        done = daemon.docker("pull", "-a", APP)
        assert done.stdout.splitlines()[-2:] == [f"Status: Downloaded newer image for {APP}", APP]
        document = json.loads(daemon.docker("image", "inspect", f"{APP}:1").stdout)[0]
        assert document["RepoDigests"] == [f"{APP}@{hub.digest('1')}"]


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


class Slow:
    """A way to a registry on which large answers trickle, until `hurry`. ``asked``: what went through, as it was."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._target = host, int(port)
        self._fast = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.asked: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def hurry(self) -> None:
        self.asked.clear()
        self._fast.set()

    def __enter__(self) -> Slow:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client = self._server.accept()[0]
            except OSError:
                return
            registry = socket.create_connection(self._target)
            threading.Thread(target=self._up, args=(client, registry), daemon=True).start()
            threading.Thread(target=self._down, args=(registry, client), daemon=True).start()

    def _up(self, client: socket.socket, registry: socket.socket) -> None:
        try:
            while data := client.recv(65536):
                self.asked.append(data)
                registry.sendall(data)
            registry.shutdown(socket.SHUT_WR)
        except OSError:
            registry.close()

    def _down(self, registry: socket.socket, client: socket.socket) -> None:
        passed = 0
        try:
            while data := registry.recv(16384):
                client.sendall(data)
                passed += len(data)
                if passed > 300_000 and not self._fast.is_set():
                    time.sleep(0.5)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            client.close()


@pytest.mark.own
def test_one_name_for_several_platforms_is_a_tree(empty: Dockp, hub: Hub, tmp_path: Path) -> None:
    indexed = f"{REGISTRY}/team/multi:1"
    for architecture in ("amd64", "arm64"):
        copy = [
            "umoci",
            "config",
            "--image",
            f"{hub.layout}:old",
            "--tag",
            architecture,
            "--architecture",
            architecture,
        ]
        subprocess.run(copy, check=True, capture_output=True)
    write_index(hub.layout, "multi", ["amd64", "arm64"])
    copy = [
        "skopeo",
        "copy",
        "-q",
        "--all",
        "--dest-tls-verify=false",
        f"oci:{hub.layout}:multi",
        f"docker://{indexed}",
    ]
    subprocess.run(copy, check=True)
    for architecture in ("arm64", "amd64"):
        empty.ok("pull", "-q", "--platform", f"linux/{architecture}", indexed)
    lines = empty.ok("image", "ls", "--tree").splitlines()
    assert lines[0].endswith("Info ->  U In Use ")
    assert lines[2].split() == ["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE", "EXTRA"]
    assert lines[3].startswith(f"{indexed}   ")
    assert [line.split()[:2] for line in lines[4:6]] == [["├─", "linux/amd64"], ["└─", "linux/arm64"]]
    assert len(empty.ok("images", "-q").splitlines()) == 1
    assert empty("images", "--tree", "-q").stderr == "--quiet is not yet supported with --tree\n"
    for architecture in ("amd64", "arm64"):
        id = empty.ok("create", "--platform", f"linux/{architecture}", indexed)
        assert empty.inspect(empty.inspect(id)["Image"])["Architecture"] == architecture
        empty.ok("rm", id)
    missing = empty("create", "--platform", "linux/s390x", "--pull", "never", indexed).stderr
    assert "does not match the specified platform (linux/s390x)" in missing


def write_index(layout: Path, tag: str, tags: list[str]) -> None:
    """Give a layout an index of images that it has."""
    index = json.loads((layout / "index.json").read_text())
    named = {entry["annotations"]["org.opencontainers.image.ref.name"]: entry for entry in index["manifests"]}
    entries = [
        {key: named[one][key] for key in ("mediaType", "digest", "size")}
        | {"platform": {"os": "linux", "architecture": one}}
        for one in tags
    ]
    data = json.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries}).encode()
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(data)
    entry = {"mediaType": _INDEX, "digest": f"sha256:{digest}", "size": len(data)}
    index["manifests"].append(entry | {"annotations": {"org.opencontainers.image.ref.name": tag}})
    (layout / "index.json").write_text(json.dumps(index))


_INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.mark.own
def test_a_pull_ends_with_its_client_and_is_gone_on_with(empty: Dockp, hub: Hub) -> None:
    with Daemon(empty) as daemon, Slow(REGISTRY) as slow:
        name = f"{slow.address}/team/app:1"
        ingest = empty.data_root / "content/ingest"
        client = subprocess.Popen(
            ["docker", "pull", name], env=daemon.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(lambda: any((ingest / one).stat().st_size > 50_000 for one in _names(ingest)), "bytes")
        client.terminate()
        client.wait()
        sizes = wait_for(lambda: _still(ingest), "the end of the download")
        assert any(sizes.values())
        slow.hurry()
        done = daemon.docker("pull", "-q", name)
        assert (done.returncode, done.stdout) == (0, f"{name}\n")
        assert b"range: bytes=" in b"".join(slow.asked).lower()


def _still(ingest: Path) -> dict[str, int]:
    """The sizes of what was downloaded, when nobody holds it any more."""
    sizes = {}
    for name in _names(ingest):
        with (ingest / name).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return {}
            sizes[name] = os.fstat(file.fileno()).st_size
    return sizes
