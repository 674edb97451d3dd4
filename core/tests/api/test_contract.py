"""Every operation of the specification, of several versions, against a real engine: the status of each reply is a
documented one, and its body fits the schema."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest
from attrs import field, frozen
from serving import Answer, Api, Served
from specification import VERSIONS, Operation, operations

OPERATIONS = [operation for version in VERSIONS for operation in operations(version).values()]

# What the engine cannot do yet says so, which no version documents.
NOT_YET = {
    "GetPluginPrivileges",
    "ImageBuild",
    "NetworkConnect",
    "NetworkCreate",
    "NetworkDisconnect",
    "PluginCreate",
    "PluginPull",
    "Session",
    "SwarmInit",
    "SwarmJoin",
}

_NOBODY = "127.0.0.1:1"
"""A registry that is not there."""

# Replies that dockerd gives and the specification of some versions forgot.
UNDOCUMENTED = {
    "ContainerExec": {400},
    "ContainerKill": {409},
    "ContainerPause": {409},
    "ContainerRename": {400},
    "ContainerRestart": {400},
    "ContainerStop": {400},
    "ContainerTop": {409},
    "ContainerUnpause": {409},
    "ContainerUpdate": {400},
    "DistributionInspect": {503},
    "ExecStart": {400},
    "ImageDelete": {400},
    "ImageInspect": {400},
    "ImagePush": {400},
    "ImageSearch": {400, 503},
    "NetworkConnect": {400},
    "NetworkCreate": {400},
    "NetworkDisconnect": {400},
    "SystemAuth": {503},
    "VolumeCreate": {400, 409},
    "VolumeUpdate": {503},
}

# Fields that dockerd gives as null where they are empty, whatever the specification says (20.10 and 28 compared).
NULLS = {
    "Aliases",
    "Authorization",
    "Binds",
    "CachesDeleted",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "ContainersDeleted",
    "Data",
    "DNSNames",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "DriverOpts",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExitCode",
    "ExtraHosts",
    "GenericResources",
    "GroupAdd",
    "IPAMConfig",
    "ImagesDeleted",
    "Init",
    "Labels",
    "Links",
    "MemorySwappiness",
    "NetworksDeleted",
    "OnBuild",
    "OomKillDisable",
    "PidsLimit",
    "Options",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
    "SecurityOpt",
    "Tags",
    "Ulimits",
    "Volumes",
    "VolumesDeleted",
    "VolumesFrom",
    "Warnings",
}


@frozen(kw_only=True)
class Call:
    """One request: the named parts of the path, the query, a body, and what status is expected."""

    status: int
    at: Mapping[str, str] = field(factory=dict)
    query: Mapping[str, Any] = field(factory=dict)
    body: Any = None


class World:
    """What the calls need: things are made through the newest version, each call has new ones."""

    _numbers = itertools.count()

    def __init__(self, api: Api, version: str) -> None:
        self.api = api
        self.version = version

    def name(self) -> str:
        return f"thing-{next(self._numbers)}"

    def container(self, *command: str, start: bool = False, **host: Any) -> str:
        body = {
            "Image": "busybox",
            "Cmd": list(command or ("sleep", "1000")),
            "StopSignal": "SIGKILL",
            "Labels": {"a": "b"},
            "Healthcheck": {"Test": ["NONE"]},
            "HostConfig": {"NetworkMode": "none", **host},
        }
        id = self._made("POST", f"/containers/create?name={self.name()}", body)["Id"]
        if start:
            self._made("POST", f"/containers/{id}/start")
        return str(id)

    def running(self) -> str:
        return self.container(start=True)

    def exec(self) -> str:
        return str(self._made("POST", f"/containers/{self.running()}/exec", {"Cmd": ["true"]})["Id"])

    def volume(self) -> str:
        return str(self._made("POST", "/volumes/create", {"Name": self.name(), "Labels": {"a": "b"}})["Name"])

    def image(self) -> str:
        name = self.name()
        self._made("POST", f"/images/busybox/tag?repo={name}&tag=1")
        return f"{name}:1"

    def used_image(self) -> str:
        name = self.name()
        self._made("POST", f"/images/create?fromSrc=-&repo={name}&tag=1", tar())
        self._made("POST", "/containers/create", {"Image": f"{name}:1", "Cmd": ["true"]})
        return f"{name}:1"

    def saved(self) -> bytes:
        answer = self.api("GET", "/images/busybox/get")
        assert answer.status == 200, answer
        return answer.body

    def _made(self, method: str, target: str, body: Any = None) -> dict[str, Any]:
        answer = self.api(method, target, body)
        assert answer.status < 300, answer
        return dict(answer.lines[0]) if answer.body else {}


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("file"))
    return out.getvalue()


def of_container(status: int, **more: Any) -> Callable[[World], Iterator[Call]]:
    """A call about a running container, and the same about one that is not there."""

    def calls(world: World) -> Iterator[Call]:
        yield Call(status=status, at={"id": world.running()}, **more)
        yield Call(status=404, at={"id": "missing"}, **more)

    return calls


def one(status: int, **more: Any) -> Callable[[World], Iterator[Call]]:
    return lambda world: iter([Call(status=status, **more)])


def container_list(world: World) -> Iterable[Call]:
    id = world.running()
    yield Call(status=200)
    yield Call(status=200, query={"all": 1, "size": 1, "limit": 2})
    yield Call(status=200, query={"filters": json.dumps({"id": [id]})})
    yield Call(status=400, query={"filters": json.dumps({"nonsense": ["1"]})})
    yield Call(status=400, query={"filters": "{"})


def container_create(world: World) -> Iterable[Call]:
    name = world.name()
    host = {"NetworkMode": "none", "Memory": 64 << 20, "Binds": ["/tmp:/tmp"], "Init": True}
    body = {"Image": "busybox", "Cmd": "true", "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": {}}}
    yield Call(status=201, query={"name": name}, body=body)
    yield Call(status=409, query={"name": name}, body=body)
    yield Call(status=404, body={"Image": "missing"})
    if world.version >= "1.41":
        yield Call(status=404, query={"platform": "linux/s390x"}, body=body)
    yield Call(status=400, query={"name": "?"}, body=body)
    yield Call(status=400, body={**body, "HostConfig": {"Memory": "much"}})
    yield Call(status=400, body={})


def container_start(world: World) -> Iterable[Call]:
    id = world.container()
    yield Call(status=204, at={"id": id})
    yield Call(status=304, at={"id": id})
    yield Call(status=400, at={"id": world.container("no-such-command")})
    yield Call(status=404, at={"id": "missing"})


def container_stop(world: World) -> Iterable[Call]:
    id = world.running()
    yield Call(status=204, at={"id": id}, query={"t": 1, "signal": "SIGKILL"})
    yield Call(status=304, at={"id": id})
    yield Call(status=404, at={"id": "missing"})


def container_kill(world: World) -> Iterable[Call]:
    yield Call(status=204, at={"id": world.running()}, query={"signal": "SIGKILL"})
    yield Call(status=409, at={"id": world.container()})
    yield Call(status=404, at={"id": "missing"})


def container_rename(world: World) -> Iterable[Call]:
    taken, id = world.name(), world.container()
    yield Call(status=204, at={"id": id}, query={"name": taken})
    yield Call(status=409, at={"id": world.container()}, query={"name": taken})
    yield Call(status=400, at={"id": id})
    yield Call(status=404, at={"id": "missing"}, query={"name": world.name()})


def container_unpause(world: World) -> Iterable[Call]:
    id = world.running()
    yield Call(status=409, at={"id": id})
    assert world.api("POST", f"/containers/{id}/pause").status == 204
    yield Call(status=204, at={"id": id})
    yield Call(status=404, at={"id": "missing"})


def container_delete(world: World) -> Iterable[Call]:
    id = world.running()
    yield Call(status=409, at={"id": id})
    yield Call(status=204, at={"id": id}, query={"force": 1, "v": 1})
    yield Call(status=404, at={"id": id})


def container_wait(world: World) -> Iterable[Call]:
    yield Call(status=200, at={"id": world.container("true", start=True)})
    yield Call(status=404, at={"id": "missing"})


def container_prune(world: World) -> Iterable[Call]:
    world.container()
    yield Call(status=200, query={"filters": json.dumps({"label": ["a=b"]})})


def archive_get(world: World) -> Iterable[Call]:
    id = world.container()
    yield Call(status=200, at={"id": id}, query={"path": "/etc/passwd"})
    yield Call(status=404, at={"id": id}, query={"path": "/missing"})
    yield Call(status=400, at={"id": id})
    yield Call(status=404, at={"id": "missing"}, query={"path": "/"})


def archive_put(world: World) -> Iterable[Call]:
    id = world.container()
    yield Call(status=200, at={"id": id}, query={"path": "/tmp"}, body=tar())
    yield Call(status=400, at={"id": id}, query={"path": "/etc/passwd"}, body=tar())
    yield Call(status=404, at={"id": id}, query={"path": "/missing"}, body=tar())
    yield Call(status=404, at={"id": "missing"}, query={"path": "/"}, body=tar())


def exec_create(world: World) -> Iterable[Call]:
    yield Call(status=201, at={"id": world.running()}, body={"Cmd": ["true"], "AttachStdout": True})
    yield Call(status=409, at={"id": world.container()}, body={"Cmd": ["true"]})
    yield Call(status=404, at={"id": "missing"}, body={"Cmd": ["true"]})
    yield Call(status=400, at={"id": world.running()}, body={})


def exec_start(world: World) -> Iterable[Call]:
    id = world.exec()
    yield Call(status=200, at={"id": id}, body={"Detach": True})
    yield Call(status=409, at={"id": id}, body={"Detach": True})
    yield Call(status=404, at={"id": "missing"}, body={"Detach": True})


def image_create(world: World) -> Iterable[Call]:
    yield Call(status=200, query={"fromSrc": "-", "repo": world.name(), "changes": "CMD sh"}, body=tar())


def image_tag(world: World) -> Iterable[Call]:
    yield Call(status=201, at={"name": "busybox"}, query={"repo": world.name(), "tag": "1"})
    yield Call(status=400, at={"name": "busybox"}, query={"repo": "UPPER"})
    yield Call(status=404, at={"name": "missing"}, query={"repo": world.name()})


def image_delete(world: World) -> Iterable[Call]:
    name = world.image()
    yield Call(status=200, at={"name": name})
    yield Call(status=404, at={"name": name})
    yield Call(status=409, at={"name": world.used_image()})


def image_commit(world: World) -> Iterable[Call]:
    yield Call(status=201, query={"container": world.container(), "repo": world.name(), "comment": "x"}, body={})
    yield Call(status=404, query={"container": "missing"}, body={})


def volume_create(world: World) -> Iterable[Call]:
    yield Call(status=201, body={"Name": world.name(), "Labels": {"a": "b"}})
    yield Call(status=201, body={})
    yield Call(status=400, body={"Name": "/"})


def volume_delete(world: World) -> Iterable[Call]:
    name = world.volume()
    yield Call(status=204, at={"name": name})
    yield Call(status=404, at={"name": name})
    used = world.volume()
    world.container(Binds=[f"{used}:/data"])
    yield Call(status=409, at={"name": used})


def volume_prune(world: World) -> Iterable[Call]:
    world.volume()
    yield Call(status=200)


def volume_list(world: World) -> Iterable[Call]:
    world.volume()
    yield Call(status=200)
    yield Call(status=200, query={"filters": json.dumps({"dangling": ["true"]})})


def disk_usage(world: World) -> Iterable[Call]:
    world.container()
    world.volume()
    yield Call(status=200)


def network_delete(world: World) -> Iterable[Call]:
    yield Call(status=403, at={"id": "bridge"})
    yield Call(status=404, at={"id": "missing"})


def network_connect(world: World) -> Iterable[Call]:
    yield Call(status=404, at={"id": "missing"}, body={"Container": world.container()})
    yield Call(status=404, at={"id": "bridge"}, body={"Container": "missing"})
    yield Call(status=501, at={"id": "bridge"}, body={"Container": world.container()})


def of_images(status: int, **more: Any) -> Callable[[World], Iterator[Call]]:
    def calls(world: World) -> Iterator[Call]:
        yield Call(status=status, at={"name": "busybox"}, **more)
        yield Call(status=status, at={"name": "docker.io/library/busybox:latest"}, **more)
        yield Call(status=404, at={"name": "missing"}, **more)

    return calls


def image_push(world: World) -> Iterable[Call]:
    yield Call(status=400, at={"name": "busybox"})  # who pushes it?
    yield Call(status=404, at={"name": f"{_NOBODY}/missing"}, body={})
    world.api("POST", f"/images/busybox/tag?repo={_NOBODY}/busybox&tag=1")
    # From the first line on the status has gone out, and the error is the last one.
    yield Call(status=200, at={"name": f"{_NOBODY}/busybox"}, query={"tag": "1"}, body={})


SCENARIOS: dict[str, Callable[[World], Iterable[Call]]] = {
    "ContainerList": container_list,
    "ContainerCreate": container_create,
    "ContainerInspect": of_container(200, query={"size": 1}),
    "ContainerTop": of_container(200, query={"ps_args": "aux"}),
    "ContainerLogs": of_container(200, query={"stdout": 1}),
    "ContainerChanges": of_container(200),
    "ContainerExport": of_container(200),
    "ContainerStats": of_container(200, query={"stream": 0, "one-shot": 1}),
    "ContainerResize": lambda world: [Call(status=404, at={"id": "missing"}, query={"h": 10, "w": 10})],
    "ContainerStart": container_start,
    "ContainerStop": container_stop,
    "ContainerRestart": of_container(204, query={"t": 0}),
    "ContainerKill": container_kill,
    "ContainerUpdate": of_container(200, body={"Memory": 128 << 20, "MemorySwap": 256 << 20}),
    "ContainerRename": container_rename,
    "ContainerPause": of_container(204),
    "ContainerUnpause": container_unpause,
    "ContainerAttach": one(404, at={"id": "missing"}, query={"stream": 1}),
    "ContainerAttachWebsocket": one(404, at={"id": "missing"}, query={"stream": 1}),
    "ContainerWait": container_wait,
    "ContainerDelete": container_delete,
    "ContainerArchiveInfo": archive_get,
    "ContainerArchiveHead": archive_get,
    "ContainerArchive": archive_get,
    "ContainerGetArchive": archive_get,
    "PutContainerArchive": archive_put,
    "ContainerPutArchive": archive_put,
    "ContainerPrune": container_prune,
    "ImageList": lambda world: [Call(status=200), Call(status=200, query={"all": 1, "shared-size": 1, "manifests": 1})],
    "ImageBuild": one(501, body=tar()),
    "BuildPrune": one(200),
    "ImageCreate": image_create,
    "ImageInspect": of_images(200),
    "ImageHistory": of_images(200),
    "ImagePush": image_push,
    "ImageTag": image_tag,
    "ImageDelete": image_delete,
    "ImageSearch": lambda world: [
        Call(status=503, query={"term": f"{_NOBODY}/busybox"}),
        Call(status=400, query={"term": "busybox", "limit": 101}),
    ],
    "ImagePrune": one(200, query={"filters": json.dumps({"dangling": ["true"]})}),
    "SystemAuth": one(503, body={"username": "a", "password": "b", "serveraddress": _NOBODY}),
    "SystemInfo": one(200),
    "SystemVersion": one(200),
    "SystemPing": one(200),
    "SystemPingHead": one(200),
    "ImageCommit": image_commit,
    "SystemEvents": one(200, query={"since": 1, "until": 2}),
    "SystemDataUsage": disk_usage,
    "ImageGet": one(200, at={"name": "busybox"}),
    "ImageGetAll": one(200, query={"names": "busybox"}),
    "ImageLoad": lambda world: [Call(status=200, body=world.saved())],
    "ContainerExec": exec_create,
    "ExecStart": exec_start,
    "ExecResize": one(404, at={"id": "missing"}, query={"h": 10, "w": 10}),
    "ExecInspect": lambda world: [Call(status=200, at={"id": world.exec()}), Call(status=404, at={"id": "missing"})],
    "VolumeList": volume_list,
    "VolumeCreate": volume_create,
    "VolumeInspect": lambda world: [
        Call(status=200, at={"name": world.volume()}),
        Call(status=404, at={"name": "missing"}),
    ],
    "VolumeUpdate": one(503, at={"name": "any"}, query={"version": 1}, body={}),
    "VolumeDelete": volume_delete,
    "VolumePrune": volume_prune,
    "NetworkList": lambda world: [Call(status=200), Call(status=200, query={"filters": '{"driver": ["bridge"]}'})],
    "NetworkInspect": lambda world: [Call(status=200, at={"id": "bridge"}), Call(status=404, at={"id": "missing"})],
    "NetworkDelete": network_delete,
    "NetworkCreate": one(501, body={"Name": "net"}),
    "NetworkConnect": network_connect,
    "NetworkDisconnect": network_connect,
    "NetworkPrune": one(200),
    "PluginList": one(200),
    "GetPluginPrivileges": one(501, query={"remote": "any"}),
    "PluginPull": one(501, query={"remote": "any"}, body={}),
    "PluginCreate": one(501, query={"name": "any"}, body=tar()),
    "SwarmInit": one(501, body={}),
    "SwarmJoin": one(501, body={}),
    "DistributionInspect": one(503, at={"name": f"{_NOBODY}/busybox"}),
    "Session": one(501),
}
_PARTS = {"id": "any", "name": "any"}
for _name in operations("1.50"):
    if _name.startswith("Plugin"):
        SCENARIOS.setdefault(_name, one(404, at=_PARTS, body={}))
    elif _name.startswith(("Node", "Swarm", "Service", "Task", "Secret", "Config")):
        SCENARIOS.setdefault(_name, one(503, at=_PARTS))


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_replies_as_documented(operation: Operation, served: Served) -> None:
    api = served.api.at(operation.version)
    for call in SCENARIOS[operation.name](World(served.api, operation.version)):
        answer = api(operation.method, _target(operation, call), call.body)
        assert answer.status == call.status, (call, answer)
        allowed = operation.statuses | UNDOCUMENTED.get(operation.name, set())
        allowed |= {501} if operation.name in NOT_YET else set()
        # Few refusals were documented at first, and "not a manager" was 406; dockerd of today has one status for all.
        allowed |= {403, 404, 409, 503} if operation.version == "1.25" else set()
        assert answer.status in allowed, f"{answer.status} is not documented: {answer}"
        _check_body(operation, answer)


def _target(operation: Operation, call: Call) -> str:
    path = operation.path
    for name, value in call.at.items():
        path = path.replace(f"{{{name}}}", urllib.parse.quote(value, safe="/:@"))
    return f"{path}?{urllib.parse.urlencode(call.query)}"


def _check_body(operation: Operation, answer: Answer) -> None:
    if operation.method == "HEAD" or answer.status in (204, 304):
        assert answer.body == b""
    elif answer.status >= 400:
        document = answer.document
        assert set(document) == {"message"}
        assert document["message"].strip()
        assert "\n" not in document["message"]
        assert "Traceback" not in document["message"]
    elif answer.headers.get("content-type", "").startswith("application/json") and operation.schema(answer.status):
        for document in answer.lines:
            mistakes = operation.mistakes(answer.status, document)
            assert [line for line in mistakes if not _is_dockerds(line, operation.version)] == []


def _is_dockerds(mistake: str, version: str) -> bool:
    """Whether dockerd's replies have this mistake too, or the specification has it."""
    place, _, reason = mistake.partition(": ")
    if version <= "1.35" and place.startswith(
        ("Containers.", "HostConfig.RestartPolicy.Name", "NetworkSettings.Ports")
    ):
        return True  # a list in the list, by a wrong reference; no policy called "no"; ports were a list in words only
    if place.endswith(".ImageData"):
        return True  # "UnpackedSize" is required, and defined nowhere
    return reason.startswith("None is not") and place.rpartition(".")[2] in NULLS


def test_every_operation_has_a_scenario() -> None:
    assert {operation.name for operation in OPERATIONS} <= set(SCENARIOS)
