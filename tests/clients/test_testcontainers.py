"""Testcontainers for Python, unmodified, against the daemon; on the default bridge, with published ports."""

from __future__ import annotations

import os
import time
import urllib.request
from pathlib import Path

import docker
import pytest
from harness import Daemon

PAGE = "<h1>served</h1>"


@pytest.fixture
def containers(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Testcontainers reads where the daemon is, and whether to start a cleaner of its own, from the environment."""
    for name in list(os.environ):
        if name.startswith(("DOCKER_", "TESTCONTAINERS_", "TC_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", url)
    from testcontainers.core.config import testcontainers_config

    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)


def test_a_server_on_a_published_port(containers: None) -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    server = DockerContainer("busybox").with_exposed_ports(8080).with_env("PAGE", PAGE)
    server.with_command(["sh", "-c", 'echo "$PAGE" > /tmp/index.html; echo ready; exec httpd -f -p 8080 -h /tmp'])
    with server as running:
        wait_for_logs(running, "ready", timeout=20)
        address = f"http://{running.get_container_host_ip()}:{running.get_exposed_port(8080)}/"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for attempt in range(50):  # the line comes just before the server listens
            try:
                with direct.open(address, timeout=5) as reply:
                    assert reply.read().decode().strip() == PAGE
                break
            except OSError:
                assert attempt < 49
                time.sleep(0.1)
        stdout, stderr = running.get_logs()
        assert (stdout, stderr) == (b"ready\n", b"")


def test_commands_in_it(containers: None) -> None:
    from testcontainers.core.container import DockerContainer

    with DockerContainer("busybox").with_command(["sleep", "600"]).with_kwargs(stop_signal="SIGKILL") as running:
        code, output = running.exec(["sh", "-c", "echo said; exit 6"])
        assert (code, output) == (6, b"said\n")
        assert running.get_wrapped_container().status in ("created", "running")


def test_files_go_in(containers: None, tmp_path: Path) -> None:
    from testcontainers.core.container import DockerContainer

    (tmp_path / "mounted").write_text("of the host\n")
    box = DockerContainer("busybox").with_command(["sleep", "600"]).with_kwargs(stop_signal="SIGKILL")
    box.with_volume_mapping(str(tmp_path), "/host", "ro")
    with box as running:
        assert running.exec(["cat", "/host/mounted"]).output == b"of the host\n"


def test_nothing_stays(containers: None, daemon: Daemon) -> None:
    from testcontainers.core.container import DockerContainer

    with DockerContainer("busybox").with_command(["sleep", "600"]).with_kwargs(stop_signal="SIGKILL") as running:
        name = running.get_wrapped_container().name
    client = docker.DockerClient(daemon.url)
    try:
        with pytest.raises(docker.errors.NotFound):
            client.containers.get(name)
    finally:
        client.close()


def test_waiting_for_a_port_and_for_health(containers: None) -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import HealthcheckWaitStrategy, PortWaitStrategy

    check = {"test": ["CMD", "true"], "interval": 200_000_000}
    box = DockerContainer("busybox").with_kwargs(healthcheck=check, stop_signal="SIGKILL").with_exposed_ports(9000)
    box.with_command(["sh", "-c", "while :; do echo hi | nc -l -p 9000; done"])
    with box.waiting_for(HealthcheckWaitStrategy().with_startup_timeout(20)) as running:
        PortWaitStrategy(9000).with_startup_timeout(20).wait_until_ready(running)
