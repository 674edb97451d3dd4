"""Where whole commands find registries: mirrors, certificates, insecure ones, proxies, passwords."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Daemon, Dockp, image_tar
from registries import NAME, PASSWORD, Registry

ELSEWHERE = "10.66.0.1"
"""An address of this machine that is not on loopback."""


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busybox, by umoci."""
    top = tmp_path_factory.mktemp("layout")
    (top / "rootfs").mkdir()
    subprocess.run(["tar", "-C", str(top / "rootfs"), "-xf", str(image_tar("busybox"))], check=True)
    path = top / "layout"
    for words in (
        ("init", "--layout", path),
        ("new", "--image", f"{path}:box"),
        ("insert", "--image", f"{path}:box", top / "rootfs", "/"),
        ("config", "--image", f"{path}:box", "--config.cmd=true"),
    ):
        subprocess.run(["umoci", *map(str, words)], check=True, capture_output=True)
    return path


def put(registry: Registry, layout: Path, name: str, *more: str) -> None:
    registry.skopeo(
        "copy", "-q", "--dest-tls-verify=false", *more, f"oci:{layout}:box", f"docker://{registry.name(name)}"
    )


@pytest.fixture
def registry(tmp_path: Path, layout: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry") as started:
        put(started, layout, "library/box:1")
        yield started


@pytest.fixture(scope="module")
def elsewhere() -> str:
    subprocess.run(["ip", "address", "replace", f"{ELSEWHERE}/32", "dev", "lo"], check=True)
    return ELSEWHERE


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    pair = tmp_path / "server.pem", tmp_path / "server.key"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ),
            *("-out", str(pair[0]), "-keyout", str(pair[1])),
            *("-subj", "/CN=registry", "-addext", f"subjectAltName=IP:{ELSEWHERE}"),
        ],
        check=True,
        capture_output=True,
    )
    return pair


@pytest.fixture
def certs_d() -> Iterator[Path]:
    """``/etc/docker/certs.d``, empty, in this process's mount namespace."""
    path = Path("/etc/docker")
    made = not path.exists()
    if made:
        path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(path)], check=True)
    yield path / "certs.d"
    subprocess.run(["umount", "-l", str(path)], check=True)
    if made:
        path.rmdir()


@pytest.mark.embedded
def test_mirrors_come_first_and_the_name_stays(fresh: Dockp, registry: Registry) -> None:
    fresh.settings = {"DOCKP_REGISTRY_MIRRORS": f"http://{registry.address},far.example=http://{registry.address}"}
    assert fresh.ok("pull", "-q", "box:1") == "docker.io/library/box:1"
    assert fresh.ok("run", "--rm", "box:1", "echo", "mirrored") == "mirrored"
    assert fresh.ok("pull", "-q", "far.example/library/box:1") == "far.example/library/box:1"
    digest = registry.digest("library/box:1")
    assert fresh.inspect("box:1")["RepoDigests"] == [f"box@{digest}", f"far.example/library/box@{digest}"]
    mirrors = json.loads(fresh.ok("info", "-f", "{{json .RegistryConfig}}"))
    assert mirrors["Mirrors"] == [f"http://{registry.address}/"]
    assert mirrors["IndexConfigs"]["far.example"]["Mirrors"] == [f"http://{registry.address}/"]
    lines = [line.strip() for line in fresh.ok("info").splitlines()]
    at = lines.index("Registry Mirrors:")
    mirror = f"http://{registry.address}/"
    assert lines[at - 3 : at] == ["Insecure Registries:", "::1/128", "127.0.0.0/8"]
    assert lines[at + 1 : at + 3] == [mirror, f"{mirror} (of far.example)"]
    fresh.settings = {"DOCKP_REGISTRY_MIRRORS": "mirror.example"}
    refused = fresh("pull", "box:2")
    assert refused.returncode == 1
    assert "invalid mirror: no scheme specified" in refused.stderr


@pytest.mark.embedded
def test_a_registry_elsewhere_has_to_have_tls_that_is_trusted(
    fresh: Dockp, layout: Path, elsewhere: str, certificate: tuple[Path, Path], certs_d: Path, tmp_path: Path
) -> None:
    with Registry(tmp_path / "registry", host=elsewhere, certificate=certificate) as registry:
        put(registry, layout, "box:1")
        refused = fresh("pull", registry.name("box:1"))
        assert refused.returncode == 1
        assert refused.stderr.strip() == (
            f'Error: Get "https://{registry.address}/v2/": '
            "tls: failed to verify certificate: x509: certificate signed by unknown authority"
        )
        fresh.settings = {"DOCKP_INSECURE_REGISTRIES": f"{elsewhere}/31"}
        assert fresh.ok("pull", "-q", registry.name("box:1")) == registry.name("box:1")
        assert fresh("pull", registry.name("box:1")).stderr == ""
        fresh.ok("rmi", registry.name("box:1"))
        fresh.settings = {}
        (certs_d / registry.address).mkdir(parents=True)
        (certs_d / registry.address / "ca.crt").write_bytes(certificate[0].read_bytes())
        assert fresh.ok("pull", "-q", registry.name("box:1")) == registry.name("box:1")
        assert fresh.ok("push", "-q", registry.name("box:1")) == registry.name("box:1")


@pytest.mark.embedded
def test_a_registry_elsewhere_without_tls_has_to_be_named(
    fresh: Dockp, layout: Path, elsewhere: str, tmp_path: Path
) -> None:
    with Registry(tmp_path / "registry", host=elsewhere) as registry:
        put(registry, layout, "box:1")
        assert fresh("pull", registry.name("box:1")).stderr.strip() == (
            f'Error: Get "https://{registry.address}/v2/": http: server gave HTTP response to HTTPS client'
        )
        fresh.settings = {"DOCKP_INSECURE_REGISTRIES": registry.address}
        assert fresh.ok("pull", "-q", registry.name("box:1")) == registry.name("box:1")


def test_dockers_command_line_is_told_and_not_asked(fresh: Dockp, layout: Path, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry", login=True) as registry, Daemon(fresh) as daemon:
        put(registry, layout, "box:1", "--dest-creds", f"{NAME}:{PASSWORD}")
        name = registry.name("box:1")
        refused = daemon.docker("pull", name)
        assert refused.returncode == 1
        assert "Username" not in refused.stdout
        url = f"http://{registry.address}/v2/box/manifests/1"
        assert refused.stderr.strip() == f'Error response from daemon: Head "{url}": no basic auth credentials'
        assert daemon.docker("login", "-u", NAME, "-p", PASSWORD, registry.address).returncode == 0
        assert daemon.docker("pull", "-q", name).stdout.strip() == name
        assert PASSWORD not in daemon.log
