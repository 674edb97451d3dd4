"""Images between dockp and others through a registry: docker's daemon, podman, skopeo; equal digests both ways."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import jsonschema
import pytest
import referencing
import referencing.jsonschema
from harness import REPOSITORY, Daemon, Dockerd, Dockp, image_tar, remove_cgroups
from registries import NAME, PASSWORD, Registry

import dockp.aio
from dockp.interface import Engine
from dockp.remote import connect
from dockp.spi.errors import NotFound, Unauthorized
from dockp.spi.images import Credentials

pytestmark = pytest.mark.own
SCHEMAS = REPOSITORY / "core" / "tests" / "specs" / "oci-image-spec"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as started:
        yield started


@pytest.fixture
def layered(dockp: Dockp, registry: Registry) -> Iterator[str]:
    """An image of two layers, a configuration and a history, pushed."""
    name = registry.name("layered:1")
    box = dockp.ok("create", "busybox", "sh", "-c", "echo made")
    dockp.ok("cp", __file__, f"{box}:/etc/peer")
    dockp.ok("commit", "-c", "ENV PEER=1", "-c", "LABEL a=b", "-c", "EXPOSE 80", "-a", "me", "-m", "why", box, name)
    dockp.ok("rm", box)
    dockp.ok("push", "-q", name)
    yield name
    dockp("rmi", "-f", name)


def check(schema: str, document: Any) -> None:
    def retrieve(uri: str) -> Any:
        contents = json.loads((SCHEMAS / uri.rpartition("/")[2]).read_text())
        return referencing.jsonschema.DRAFT4.create_resource(contents)

    registry: Any = referencing.Registry(retrieve=retrieve)  # type: ignore[call-arg]
    jsonschema.Draft4Validator(json.loads((SCHEMAS / schema).read_text()), registry=registry).validate(document)


def test_what_is_pushed_fits_the_schemas_of_oci(dockp: Dockp, registry: Registry, layered: str) -> None:
    manifest = registry.manifest("layered:1")
    check("image-manifest-schema.json", manifest)
    config = json.loads(registry.skopeo("inspect", "--tls-verify=false", "--config", "--raw", f"docker://{layered}"))
    check("config-schema.json", config)
    assert len(config["history"]) == len(manifest["layers"]) == 2


def test_skopeo_reads_what_was_saved(dockp: Dockp, registry: Registry, layered: str, tmp_path: Path) -> None:
    dockp.ok("save", "-o", str(tmp_path / "saved.tar"), layered)
    for number, source in enumerate((f"docker-archive:{tmp_path}/saved.tar", f"oci-archive:{tmp_path}/saved.tar:1")):
        registry.skopeo("copy", "-q", source, f"oci:{tmp_path}/layout{number}:x")
    index = json.loads((tmp_path / "layout1" / "index.json").read_text())
    assert index["manifests"][0]["digest"] == registry.digest("layered:1")
    with tarfile.open(tmp_path / "saved.tar") as archive:
        kept = json.load(archive.extractfile("index.json") or sys.stdin)
        check("image-index-schema.json", kept)
        check("image-layout-schema.json", json.load(archive.extractfile("oci-layout") or sys.stdin))


def test_what_was_loaded_plain_is_pushed_compressed(
    dockp: Dockp, registry: Registry, layered: str, tmp_path: Path
) -> None:
    name = registry.name("loaded:1")
    registry.skopeo(
        "copy", "-q", "--src-tls-verify=false", f"docker://{layered}", f"docker-archive:{tmp_path}/x.tar:{name}"
    )
    dockp.ok("load", "-q", "-i", str(tmp_path / "x.tar"))
    dockp.ok("push", "-q", name)
    manifest = registry.manifest("loaded:1")
    kinds = {layer["mediaType"] for layer in manifest["layers"]}
    assert kinds <= {
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip",
    }
    assert len(kinds) == 1
    assert registry.digest("loaded:1") in dockp.ok("image", "inspect", "-f", "{{.RepoDigests}}", name)
    registry.skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/layout:x")
    dockp.ok("rmi", name)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room for that of containerd's socket."""
    with tempfile.TemporaryDirectory(prefix="peer") as path:
        yield Path(path)


def test_podman_reads_it_and_pushes_it_back(dockp: Dockp, registry: Registry, layered: str, short_path: Path) -> None:
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed: apt-get install podman")

    def podman(*words: str) -> str:
        place = ["--root", str(short_path / "root"), "--runroot", str(short_path / "run"), "--storage-driver", "vfs"]
        done = subprocess.run(
            ["podman", *place, "--tmpdir", str(short_path / "tmp"), *words],
            env=dockp.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    podman("pull", "-q", "--tls-verify=false", layered)
    assert json.loads(podman("image", "inspect", layered))[0]["Digest"] == registry.digest("layered:1")
    back = registry.name("podmans:1")
    podman("push", "-q", "--tls-verify=false", layered, back)
    dockp.ok("pull", "-q", back)
    assert dockp.ok("image", "inspect", "-f", "{{.Id}}", back) == dockp.ok("image", "inspect", "-f", "{{.Id}}", layered)
    assert dockp.ok("run", "--rm", "--network", "none", back) == "made"
    dockp.ok("rmi", back)


def test_dockers_daemon_reads_it_and_pushes_it_back(
    dockp: Dockp, registry: Registry, layered: str, short_path: Path
) -> None:
    other = Dockp(short_path, name="dockp-peer")
    with Dockerd(other, "--bridge=none", "--iptables=false") as theirs:

        def run(*words: str) -> str:
            done = theirs.docker(*words, timeout=120)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        said = run("pull", layered)
        assert f"Digest: {registry.digest('layered:1')}" in said
        assert run("image", "inspect", "-f", "{{.Id}}", layered) == dockp.ok(
            "image", "inspect", "-f", "{{.Id}}", layered
        )
        assert run("image", "inspect", "-f", "{{.Config.Env}} {{.Author}}", layered).endswith("me")
        back = registry.name("dockers:1")
        run("tag", layered, back)
        run("push", "-q", back)
        dockp.ok("pull", "-q", back)
        assert dockp.ok("image", "inspect", "-f", "{{.Id}}", back) == run("image", "inspect", "-f", "{{.Id}}", back)
        # What Docker packed anew keeps Docker's digest when we push it somewhere else.
        again = registry.name("again:1")
        dockp.ok("tag", back, again)
        dockp.ok("push", "-q", again)
        assert registry.digest("again:1") == registry.digest("dockers:1")
        run("pull", again)
    subprocess.run(["umount", "-l", "/run"], check=True)  # the daemon's own, where containerd kept sockets
    remove_cgroups(other.cgroup_parent)
    dockp.ok("rmi", back, again)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "guarded", login=True) as started:
        yield started


def test_dockers_clients_push_through_our_daemon(fresh: Dockp, guarded: Registry, tmp_path: Path) -> None:
    with Daemon(fresh) as daemon:
        fresh.settings = {"DOCKP_HOST": daemon.url}
        fresh.add_image("busybox", image_tar("busybox"))
        name = guarded.name("box:1")
        assert daemon.docker("tag", "busybox", name).returncode == 0
        refused = daemon.docker("push", name)
        assert refused.returncode == 1
        assert "no basic auth credentials" in refused.stderr
        wrong = daemon.docker("login", "-u", NAME, "-p", "x", guarded.address)
        assert "401 Unauthorized" in wrong.stderr
        done = daemon.docker("login", "-u", NAME, "-p", PASSWORD, guarded.address)
        assert "Login Succeeded" in done.stdout, done.stderr
        pushed = daemon.docker("push", name)
        assert pushed.returncode == 0, pushed.stderr
        lines = pushed.stdout.splitlines()
        assert lines[0] == f"The push refers to repository [{guarded.name('box')}]"
        assert lines[-1].startswith("1: digest: sha256:")
        digest = lines[-1].split()[2]
        assert daemon.docker("search", guarded.name("box")).stdout.splitlines()[1].split()[0] == guarded.name("box")
        client = docker.DockerClient(base_url=daemon.url, version="auto")
        who = {"username": NAME, "password": PASSWORD}
        said = list(client.images.push(guarded.name("box"), tag="1", auth_config=who, stream=True, decode=True))
        assert {"Tag": "1", "Digest": digest, "Size": int(lines[-1].split()[-1])} in [one.get("aux") for one in said]
        assert any(one.get("status") == "Layer already exists" for one in said)
        data = client.images.get_registry_data(name, auth_config=who)
        assert data.id == digest
        assert data.has_platform("linux/amd64")
        assert client.login(NAME, PASSWORD, registry=guarded.address)["Status"] == "Login Succeeded"
        with pytest.raises(docker.errors.APIError, match="401 Unauthorized"):
            client.login(NAME, "nonsense", registry=guarded.address, reauth=True)
        assert daemon.docker("rmi", name).returncode == 0
        assert daemon.docker("pull", "-q", name).stdout.strip() == name
        assert daemon.docker("logout", guarded.address).returncode == 0
        client.close()


def test_programs_push_search_and_log_in(fresh: Dockp, guarded: Registry) -> None:
    """The library, by every way there is: in the process, through a daemon, with asyncio."""
    who, name = Credentials(username=NAME, password=PASSWORD), guarded.name("box:1")
    fresh.add_image(name, image_tar("busybox"))
    roots = {"data_root": str(fresh.data_root), "exec_root": str(fresh.exec_root), "cgroup_parent": fresh.cgroup_parent}

    def check(engine: Engine) -> str:
        assert engine.system.login(guarded.address, who)["Status"] == "Login Succeeded"
        with pytest.raises(Unauthorized):
            engine.system.login(guarded.address, Credentials(username=NAME, password="x"))
        said: list[str] = []
        (pushed,) = engine.images.push(name, credentials=who, progress=lambda what, done, total: said.append(what))
        assert said[0].startswith("The push refers to repository [")
        assert said[-1] == f"1: digest: {pushed['Digest']} size: {pushed['Size']}"
        with pytest.raises(Unauthorized, match="no basic auth credentials"):
            engine.images.push(name)
        with pytest.raises(NotFound):
            engine.images.push(guarded.name("none"), credentials=who)
        found = engine.images.distribution(name, credentials=who)
        assert found["Descriptor"]["digest"] == pushed["Digest"]
        assert found["Platforms"][0]["os"] == "linux"
        (row,) = engine.images.search(guarded.name("box"), credentials=who)
        assert row["name"] == guarded.name("box")
        with pytest.raises(NotFound, match="manifest unknown"):
            engine.images.distribution(guarded.name("box:none"), credentials=who)
        return str(pushed["Digest"])

    async def later(url: str) -> str:
        async with dockp.aio.connect(url) as engine:
            await engine.system.login(guarded.address, who)
            (pushed,) = await engine.images.push(name, credentials=who)
            found = await engine.images.distribution(name, credentials=who)
            assert len(await engine.images.search(guarded.name("box"), credentials=who)) == 1
            assert found["Descriptor"]["digest"] == pushed["Digest"]
            return str(pushed["Digest"])

    with dockp.Engine(**roots) as local:
        digest = check(local)
    with Daemon(fresh) as daemon:
        with connect(daemon.url) as remote:
            assert check(remote) == digest
        assert asyncio.run(later(daemon.url)) == digest
