"""One daemon for every client library; each test finds it without containers, volumes and images of others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import docker
import pytest
from harness import Daemon, Dockerd, Dockp, Leaks, chosen, image_tar, remove_cgroups

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Our daemon, or Docker's (`harness.chosen`), with busybox."""
    dockp = Dockp(tmp_path_factory.mktemp("clients"), name="dockp-clients")
    with (Dockerd if chosen() == "dockerd" else Daemon)(dockp) as running:
        with closing(docker.DockerClient(running.url)) as client:
            client.api.import_image_from_file(
                str(image_tar("busybox")), repository="busybox", tag="latest", changes=['CMD ["sh"]', f"ENV {PATH}"]
            )
        yield running
    remove_cgroups(dockp.cgroup_parent)


@pytest.fixture
def url(daemon: Daemon) -> Iterator[str]:
    """Where the daemon listens. What a test makes is removed, what stays beside it fails it."""
    leaks = Leaks(daemon.dockp.base, daemon.dockp.cgroup_parent, served=True)
    yield daemon.url
    with closing(docker.DockerClient(daemon.url)) as client:
        for container in client.containers.list(all=True, ignore_removed=True):
            container.remove(force=True, v=True)
        client.api.prune_volumes({"all": ["1"]})
        for image in client.images.list():
            for tag in image.tags:
                if tag != "busybox:latest":
                    client.images.remove(tag, force=True)
        client.images.prune()
    assert chosen() == "dockerd" or leaks.found() == []
