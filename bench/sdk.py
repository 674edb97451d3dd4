"""What is done through docker-py. Called in a `bench.worker`."""

from __future__ import annotations

import functools
import time
from typing import Any

import docker


@functools.cache
def _client(url: str) -> docker.DockerClient:
    return docker.DockerClient(base_url=url, version="auto", timeout=60)


def life(url: str) -> dict[str, Any]:
    """The seconds from a container's creation to its removal."""
    containers = _client(url).containers
    began = time.perf_counter()
    container = containers.create("busybox", "true")
    container.start()
    code = container.wait()["StatusCode"]
    container.remove()
    return {"seconds": time.perf_counter() - began, "code": code}


def create(url: str, count: int) -> dict[str, Any]:
    """Create so many containers; their names."""
    api = _client(url).api
    return {"ids": [api.create_container("busybox", "true")["Id"] for _ in range(count)]}
