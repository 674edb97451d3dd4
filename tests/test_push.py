"""Images to registries, and back: what dockp pushes others read, digest for digest."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from harness import Dockp
from registries import NAME, PASSWORD, Registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as started:
        yield started


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Registry]:
    """A registry that asks who one is."""
    with Registry(tmp_path / "guarded", login=True) as started:
        yield started


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A root file system of one file, as a tar."""
    (tmp_path / "hello").write_text("hello\n")
    with tarfile.open(tmp_path / "small.tar", "w") as archive:
        archive.add(tmp_path / "hello", "hello")
    return tmp_path / "small.tar"


def test_what_was_imported_is_pushed_compressed_and_stays_what_it_is(dockp: Dockp, registry: Registry) -> None:
    name = registry.name("box:1")
    dockp.ok("tag", "busybox", name)
    lines = dockp.ok("push", name).splitlines()
    assert lines[0] == f"The push refers to repository [{registry.name('box')}]"
    (layer,) = json.loads(dockp.ok("image", "inspect", "busybox"))[0]["RootFS"]["Layers"]
    short = layer[7:19]
    assert lines[1:-1] == [f"{short}: Preparing", f"{short}: Pushed"]
    found = re.fullmatch(r"1: digest: (sha256:[0-9a-f]{64}) size: (\d+)", lines[-1])
    assert found is not None
    assert registry.digest("box:1") == found[1]
    manifest = registry.manifest("box:1")
    assert manifest["layers"][0]["mediaType"].endswith("gzip")
    document = json.loads(dockp.ok("image", "inspect", name))[0]
    assert document["RepoDigests"] == [f"{registry.name('box')}@{found[1]}"]
    assert manifest["config"]["digest"] == document["Id"]
    # Once more, under another tag: nothing is sent, and it is the same.
    dockp.ok("tag", "busybox", registry.name("box:2"))
    again = dockp.ok("push", registry.name("box:2")).splitlines()
    assert again[1:] == [
        f"{short}: Preparing",
        f"{short}: Layer already exists",
        f"2: digest: {found[1]} size: {found[2]}",
    ]
    assert dockp.ok("run", "--rm", "--network", "none", name, "echo", "still there") == "still there"
    dockp.ok("rmi", name, registry.name("box:2"))


@pytest.mark.own
def test_what_was_pulled_keeps_its_digest_elsewhere(dockp: Dockp, registry: Registry, tmp_path: Path) -> None:
    source = registry.name("origin/app:1")
    for kind in ("v2s2", "oci"):
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            (tmp_path / "kind").write_text(kind)
            archive.add(tmp_path / "kind", "kind")
        dockp.add_image(f"made:{kind}", tmp_path / "x.tar")
        dockp.ok("save", "-o", str(tmp_path / f"{kind}.tar"), f"made:{kind}")
        registry.skopeo(
            *("copy", "-q", "--dest-tls-verify=false", "-f", kind),
            *(f"docker-archive:{tmp_path}/{kind}.tar", f"docker://{source}"),
        )
        dockp.ok("rmi", f"made:{kind}")
        dockp.ok("pull", "-q", source)
        target = registry.name(f"other/{kind}:1")
        dockp.ok("tag", source, target)
        said = dockp.ok("push", target)
        assert ": Mounted from origin/app" in said
        assert registry.digest(f"other/{kind}:1") == registry.digest("origin/app:1")
        assert registry.manifest(f"other/{kind}:1") == registry.manifest("origin/app:1")
        dockp.ok("rmi", source, target)


@pytest.mark.own
def test_an_index_goes_whole_when_all_of_it_is_here(dockp: Dockp, registry: Registry, small: Path) -> None:
    name = registry.name("both")
    for platform in ("amd64", "arm64"):
        with small.open("rb") as archive:
            dockp.ok("import", "--platform", f"linux/{platform}", "-", f"{name}:{platform}", input=archive.read())
        dockp.ok("push", "-q", f"{name}:{platform}")
    dockp.ok("manifest", "create", f"{name}:all", f"{name}:amd64", f"{name}:arm64")
    dockp.ok("manifest", "push", "-p", f"{name}:all")
    dockp.ok("rmi", f"{name}:amd64", f"{name}:arm64")
    dockp.ok("pull", "-q", "--platform", "linux/amd64", f"{name}:all")
    for tag, digest in (("one", registry.digest("both:amd64")), ("whole", registry.digest("both:all"))):
        target = registry.name(f"copies:{tag}")
        dockp.ok("tag", f"{name}:all", target)
        assert dockp.ok("push", target).splitlines()[-1].split()[2] == digest
        assert registry.digest(f"copies:{tag}") == digest
        dockp.ok("rmi", target)
        dockp.ok("pull", "-q", "--platform", "linux/arm64", f"{name}:all")
    dockp.ok("tag", f"{name}:all", registry.name("copies:arm"))
    dockp.ok("push", "-q", "--platform", "linux/arm64", registry.name("copies:arm"))
    assert registry.digest("copies:arm") == registry.digest("both:arm64")
    assert (
        "does not match the specified platform"
        in dockp("push", "--platform", "linux/s390x", registry.name("copies:arm")).stderr
    )
    dockp.ok("rmi", f"{name}:all", registry.name("copies:arm"))


def test_all_tags_and_few_words(dockp: Dockp, registry: Registry, small: Path) -> None:
    name = registry.name("many")
    dockp.add_image(f"{name}:a", small)
    dockp.ok("tag", f"{name}:a", f"{name}:latest")
    said = dockp.ok("push", "-a", name).splitlines()
    assert len([line for line in said if line.startswith("The push refers to")]) == 1
    assert [line.partition(": digest: ")[0] for line in said if ": digest: " in line] == ["a", "latest"]
    assert dockp.ok("push", "-q", name) == f"{name}:latest"
    assert dockp.ok("push", name).splitlines()[0] == "Using default tag: latest"
    assert dockp("push", "-a", f"{name}:a").stderr == "tag can't be used with --all-tags/-a\n"
    assert "tag does not exist: " in dockp("push", f"{name}:b").stderr
    missing = dockp("push", registry.name("missing"))
    assert missing.returncode == 1
    assert f"An image does not exist locally with the tag: {registry.name('missing')}" in missing.stderr
    assert "connection refused" in dockp("push", "127.0.0.1:1/x").stderr or "does not exist" in missing.stderr
    dockp.ok("rmi", f"{name}:a", f"{name}:latest")


def test_layers_from_the_top_each_once(dockp: Dockp, registry: Registry) -> None:
    name = registry.name("layers:1")
    box = dockp.ok("create", "busybox", "sh")
    for number in range(7):
        dockp.ok("cp", "-", f"{box}:/", input=_tar(f"file{number}"))
        image = dockp.ok("commit", box, name)
        dockp.ok("rm", box)
        box = dockp.ok("create", image, "sh")
    dockp.ok("rm", box)
    layers = json.loads(dockp.ok("image", "inspect", name))[0]["RootFS"]["Layers"]
    said = dockp.ok("push", name).splitlines()
    order = [line.partition(":")[0] for line in said if line.endswith(": Preparing")]
    assert order == [layer[7:19] for layer in reversed(layers)]
    assert [line.partition(":")[0] for line in said if line.endswith(": Waiting")] == order[5:]
    assert registry.digest("layers:1") == said[-1].split()[2]
    dockp.ok("rmi", name)


def _tar(name: str) -> bytes:
    import io

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(name)
        archive.addfile(entry, io.BytesIO(name.encode()))
    return out.getvalue()


@pytest.mark.embedded
def test_a_push_that_was_killed_is_done_again(fresh: Dockp, registry: Registry, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "large.tar", "w") as archive:
        for number in range(8):
            (tmp_path / "noise").write_bytes(os.urandom(1 << 22))
            archive.add(tmp_path / "noise", f"noise{number}")
    name = registry.name("killed:1")
    fresh.add_image(name, tmp_path / "large.tar")
    for milliseconds in (150, 250, 350, 450, 550):
        process = fresh.popen("push", name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(milliseconds / 1000)
        process.kill()
        process.wait()
    digest = fresh.ok("push", name).splitlines()[-1].split()[2]
    assert registry.digest("killed:1") == digest
    fresh.ok("rmi", name)
    fresh.ok("pull", "-q", name)
    assert fresh.ok("images", "--digests", "--format", "{{.Digest}}") == digest
    fresh.ok("rmi", name)
    assert list((fresh.data_root / "content" / "sha256").iterdir()) == []


def test_nobody_pushes_without_logging_in(dockp: Dockp, guarded: Registry, small: Path) -> None:
    name, address = guarded.name("app:1"), guarded.address
    dockp.add_image(name, small)
    denied = dockp("push", name)
    assert denied.returncode == 1
    assert "no basic auth credentials" in denied.stderr
    wrong = dockp("login", "-u", NAME, "--password-stdin", address, input="nonsense")
    assert wrong.returncode == 1
    assert "401 Unauthorized" in wrong.stderr
    done = dockp("login", "-u", NAME, "-p", PASSWORD, address)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Login Succeeded\n"
    assert "WARNING! Using --password via the CLI is insecure. Use --password-stdin." in done.stderr
    assert f"WARNING! Your credentials are stored unencrypted in '{dockp.base}/.docker/config.json'." in done.stderr
    assert (dockp.base / ".docker" / "config.json").stat().st_mode & 0o777 == 0o600
    assert dockp.ok("push", "-q", name) == name
    again = dockp.ok("login", address)
    assert f"Authenticating with existing credentials... [Username: {NAME}]" in again
    assert again.endswith("Login Succeeded")
    dockp.ok("rmi", name)
    dockp.ok("pull", "-q", name)
    assert dockp.ok("logout", f"https://{address}/v2/") == f"Removing login credentials for {address}"
    assert dockp.ok("logout", address) == f"Not logged in to {address}"
    assert "no basic auth credentials" in dockp("push", name).stderr
    dockp.ok("rmi", name)


def test_login_refuses_what_makes_no_sense(dockp: Dockp) -> None:
    both = dockp("login", "-u", "a", "-p", "b", "--password-stdin", "127.0.0.1:1", input="x")
    assert both.stderr == "conflicting options: cannot specify both --password and --password-stdin\n"
    assert "requires --username to be set" in dockp("login", "--password-stdin", "127.0.0.1:1", input="x").stderr
    silent = dockp("login", "-u", "a", "127.0.0.1:1")
    assert silent.stderr == "Error: Cannot perform an interactive login from a non TTY device\n"


def test_login_asks(dockp: Dockp, guarded: Registry) -> None:
    child = pexpect.spawn(
        dockp.command[0], ["login", guarded.address], env=dockp.environment, encoding="utf-8", timeout=20
    )
    child.expect_exact("Username: ")
    child.sendline(NAME)
    child.expect_exact("Password: ")
    child.sendline(PASSWORD)
    child.expect_exact("Login Succeeded")
    child.expect(pexpect.EOF)
    assert PASSWORD not in child.before
    child.close()
    assert child.exitstatus == 0
    dockp.ok("logout", guarded.address)


def test_credentials_are_kept_by_helpers(dockp: Dockp, guarded: Registry, tmp_path: Path) -> None:
    tools, kept = tmp_path / "bin", tmp_path / "kept"
    tools.mkdir()
    helper = tools / "docker-credential-drawer"
    helper.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        f"place, given = {str(kept)!r}, sys.stdin.read()\n"
        "if sys.argv[1] == 'store':\n    open(place, 'w').write(given)\n"
        "elif sys.argv[1] == 'erase':\n    os.unlink(place)\n"
        "elif os.path.exists(place):\n    print(open(place).read())\n"
        "else:\n    print('credentials not found in native keychain')\n    sys.exit(1)\n"
    )
    helper.chmod(0o755)
    folder = tmp_path / "docker"
    folder.mkdir()
    (folder / "config.json").write_text('{"credsStore": "drawer", "HttpHeaders": {"X-A": "b"}}')
    before = dockp.settings
    dockp.settings = {**before, "DOCKER_CONFIG": str(folder), "PATH": f"{tools}:{os.environ['PATH']}"}
    try:
        done = dockp("login", "-u", NAME, "--password-stdin", guarded.address, input=PASSWORD)
        assert (done.returncode, done.stdout, done.stderr) == (0, "Login Succeeded\n", "")
        assert json.loads(kept.read_text()) == {"ServerURL": guarded.address, "Username": NAME, "Secret": PASSWORD}
        config = json.loads((folder / "config.json").read_text())
        assert config["auths"] == {guarded.address: {}}
        assert config["HttpHeaders"] == {"X-A": "b"}
        dockp.ok("tag", "busybox", guarded.name("box"))
        dockp.ok("push", "-q", guarded.name("box"))
        dockp.ok("rmi", guarded.name("box"))
        assert dockp.ok("logout", guarded.address) == f"Removing login credentials for {guarded.address}"
        assert not kept.exists()
    finally:
        dockp.settings = before


@pytest.mark.own
def test_search_goes_through_a_catalogue(dockp: Dockp, registry: Registry, small: Path) -> None:
    name = registry.name("findable/thing:1")
    dockp.add_image(name, small)
    dockp.ok("push", "-q", name)
    rows = dockp.ok("search", "--format", "{{.Name}}|{{.StarCount}}", registry.name("findable")).splitlines()
    assert rows == [f"{registry.name('findable/thing')}|0"]
    assert dockp.ok("search", registry.name("findable")).split()[:4] == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert "limit 101 is outside the range of [1, 100]" in dockp("search", "--limit", "101", "x").stderr
    dockp.ok("rmi", name)


def _docker(dockp: Dockp, folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["docker", *words],
        env={**dockp.environment, "DOCKER_CONFIG": str(folder)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout + "".join(line for line in done.stderr.splitlines(True) if "level=" not in line)


@pytest.mark.own
def test_manifest_lists_are_dockers(dockp: Dockp, registry: Registry, small: Path, tmp_path: Path) -> None:
    """Every command, by us and by Docker's client: the same words, files and digests."""
    version = _docker(dockp, tmp_path, "version", "--format", "{{.Client.Version}}").split(".")[0]
    if int(version) < 23:
        pytest.skip(f"docker's client {version} cannot read OCI manifests")
    name = registry.name("listed")
    for tag, platform in (("amd64", "linux/amd64"), ("arm64", "linux/arm64")):
        with small.open("rb") as archive:
            dockp.ok("import", "--platform", platform, "-", f"{name}:{tag}", input=archive.read())
    dockp.ok("push", "-aq", name)
    dockp.ok("rmi", f"{name}:amd64", f"{name}:arm64")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    before = dockp.settings
    dockp.settings = {**before, "DOCKER_CONFIG": str(ours)}
    other = registry.name("elsewhere:all")
    try:
        for words in (
            ("inspect", "--insecure", f"{name}:amd64"),
            ("inspect", "--insecure", "-v", f"{name}:amd64"),
            ("create", "--insecure", f"{name}:all", f"{name}:amd64", f"{name}:arm64"),
            ("create", "--insecure", f"{name}:all", f"{name}:amd64"),
            ("annotate", "--variant", "v8", "--os-features", "a,b", f"{name}:all", f"{name}:arm64"),
            ("annotate", "--arch", "nonsense", f"{name}:all", f"{name}:arm64"),
            ("annotate", f"{name}:all", f"{name}:none"),
            ("inspect", f"{name}:all"),
            ("inspect", "-v", f"{name}:all"),
            ("inspect", f"{name}:all", f"{name}:arm64"),
            ("push", "--insecure", f"{name}:all"),
            ("create", "--insecure", other, f"{name}:amd64", f"{name}:arm64"),
            ("push", "--insecure", "--purge", other),
            ("push", "--insecure", other),
            ("rm", f"{name}:all", f"{name}:none"),
            ("inspect", "--insecure", f"{name}:all"),
            ("inspect", "--insecure", "-v", f"{name}:all"),
            ("inspect", "--insecure", f"{name}:none"),
            ("create", "--insecure", other, f"{name}:all"),
        ):
            done = dockp("manifest", *words)
            said = done.stdout + done.stderr.replace("Error: ", "")
            assert said == _docker(dockp, theirs, "manifest", *words), words
            assert _files(ours) == _files(theirs), words
    finally:
        dockp.settings = before
    assert {entry["platform"]["architecture"] for entry in registry.manifest("elsewhere:all")["manifests"]} == {
        "amd64",
        "arm64",
    }


def _files(folder: Path) -> dict[str, bytes]:
    found = (folder / "manifests").rglob("*")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.is_file()}
