"""``dockp create`` asks for what ``docker create`` asks for, given the same arguments; the answers are recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clicases import expand
from clihelpers import Outcome, recorded
from fakeengine import FakeEngine

from dockp.containers.model import CreateRequest, EndpointSettings
from dockp.jsonmodel import to_json

ROWS = recorded("create")

# What Docker sends for what was not given.
NEUTRAL: dict[str, Any] = {"MemorySwappiness": -1, "OomKillDisable": False, "PidsLimit": 0}
# Fields of other systems, which dockp refuses, and of ours, which Docker does not know.
FOREIGN = (
    "CpuCount",
    "CpuPercent",
    "IOMaximumIOps",
    "IOMaximumBandwidth",
    "KernelMemory",
    "ArgsEscaped",
    "StorageDriver",
)
# Rows where dockp means to do something else, and why.
OTHERWISE = {
    "--ip x": "Docker leaves it to the daemon; here it is refused at once",
    "--expose x": "the wording of newer Dockers, which names the port",
    "--security-opt foo": "newer Dockers no longer begin with a capital",
    "--security-opt seccomp=broken.json": "Python's words for what is wrong with the JSON",
}


def bare(value: Any) -> Any:
    """A document without what is empty, so that null, absent, [] and {} are one."""
    if isinstance(value, dict):
        kept = {key: bare(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, "", 0, False, [], {}, ())}
    if isinstance(value, list | tuple):
        return [bare(item) for item in value]
    return value


def comparable(config: dict[str, Any], host: dict[str, Any], networks: dict[str, Any]) -> dict[str, Any]:
    for document in (config, host):
        for name in FOREIGN:
            document.pop(name, None)
    for name, neutral in NEUTRAL.items():
        if host.get(name) == neutral:
            host[name] = None
    # Anonymous volumes and ports are keys with empty values: what matters is which keys there are.
    for name in ("Volumes", "ExposedPorts"):
        config[name] = sorted(config.get(name) or ())
    # Null and [] differ here: nothing masked is not the default.
    for name in ("MaskedPaths", "ReadonlyPaths"):
        host[name] = "unmasked" if host.get(name) == [] else None
    # Docker goes through a map: any order.
    host["Binds"] = sorted(host.get("Binds") or ())
    host["PortBindings"] = {
        port: [(item["HostIp"], item["HostPort"]) for item in items]
        for port, items in (host.get("PortBindings") or {}).items()
    }
    networks = {name: settings for name, settings in networks.items() if bare(settings)}
    entrypoint, command = config.pop("Entrypoint", None), config.pop("Cmd", None)
    return bare({"Config": config, "HostConfig": host, "Networks": networks}) | {
        "Entrypoint": entrypoint,
        "Cmd": command,
        "Init": host.get("Init"),
        "StopTimeout": config.get("StopTimeout"),
    }


def of_docker(body: dict[str, Any]) -> dict[str, Any]:
    config = dict(body)
    host = config.pop("HostConfig")
    networks = (config.pop("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    return comparable(config, host, networks)


def of_dockp(request: CreateRequest) -> dict[str, Any]:
    networks = {name: to_json(settings) for name, settings in request.networks.items()}
    parts = json.loads(json.dumps([to_json(request.config), to_json(request.host), networks]))
    return comparable(*parts)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if "body" in row and row["row"] not in OTHERWISE], ids=lambda row: row["row"]
)
def test_the_request_is_that_of_docker(
    row: dict[str, Any], dockp: Callable[..., Outcome], engine: FakeEngine, place: Path
) -> None:
    outcome = dockp("create", *expand(row["row"]))
    assert outcome == (0, "0" * 64 + "\n", ""), outcome
    [((request,), _)] = engine.arguments("containers.create")
    wanted = json.loads(json.dumps(row["body"]).replace("@DIR@", str(place)))
    if row["row"] == "-v ../x:/y:ro,z":  # beside a directory whose name is not known
        wanted["HostConfig"]["Binds"] = [f"{place.parent}/x:/y:ro,z"]
    assert of_dockp(request) == of_docker(wanted)
    assert request.name == row["query"].get("name", [""])[0]
    assert request.platform == row["query"].get("platform", [""])[0]


@pytest.mark.parametrize(
    "row", [row for row in ROWS if "err" in row and row["row"] not in OTHERWISE], ids=lambda row: row["row"]
)
def test_the_complaint_is_that_of_docker(
    row: dict[str, Any], dockp: Callable[..., Outcome], engine: FakeEngine, place: Path
) -> None:
    outcome = dockp("create", *expand(row["row"]))
    assert outcome.err.replace(str(place), "@DIR@") == row["err"].replace("docker", "dockp")
    assert outcome.code == row["code"]
    assert engine.calls == []


@pytest.mark.parametrize("row", OTHERWISE)
def test_what_is_worded_otherwise_fails_with_one_line_too(
    row: str, dockp: Callable[..., Outcome], engine: FakeEngine, place: Path
) -> None:
    outcome = dockp("create", *expand(row))
    assert outcome.code == 125
    assert "\n" not in outcome.err.split("\n\n")[0]
    assert engine.calls == []


def test_the_drivers_of_one_container_are_part_of_its_request(
    dockp: Callable[..., Outcome], engine: FakeEngine
) -> None:
    assert dockp("create", "--storage-driver", "vfs", "--exec-driver", "oci", "busybox").code == 0
    [((request,), _)] = engine.arguments("containers.create")
    assert (request.host.storage_driver, request.host.runtime) == ("vfs", "oci")
    assert request.networks == {}


def test_an_endpoint_without_settings_is_left_out(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    dockp("create", "--network", "a", "--network", "b", "busybox")
    [((request,), _)] = engine.arguments("containers.create")
    assert request.networks == {"a": EndpointSettings(), "b": EndpointSettings()}


@pytest.mark.parametrize(
    "flag", ["--cpu-count", "--cpu-percent", "--io-maxiops", "--io-maxbandwidth", "--kernel-memory"]
)
def test_flags_of_other_systems_are_refused_in_one_line(flag: str, dockp: Callable[..., Outcome]) -> None:
    outcome = dockp("create", flag, "1", "busybox")
    assert outcome.code == 125
    assert outcome.err.startswith(f"dockp: {flag} is ")
