"""The API versions, and what differs between them: small transformations of requests and replies, in tables.

Handlers speak the newest version alone. What an older client may not say is taken from its request, and what it
expects otherwise is put into the reply, by the rows below, newest first. They are drawn from moby's version history
(``api/docs/CHANGELOG.md``) and from the specification of each version; `docs/api.md` goes through it item by item.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any, BinaryIO, Final, TypeAlias

from attrs import evolve, frozen

from dockp.api.messages import Handler, Hijack, Query, Reply, Request, Version
from dockp.spi.errors import InvalidArgument

_Edit: TypeAlias = Callable[[Any], None]


def spelled(version: Version) -> str:
    """As clients write it: ``1.50``."""
    return ".".join(map(str, version))


@frozen(kw_only=True)
class Change:
    """What is otherwise for clients of version ``until`` and before. Documents are edited in place.

    Attributes:
        query: gives the parameters that the newest version would have had. body: edits the JSON of the request.
        reply: edits the document of the reply.
    """

    operation: str
    until: Version
    query: Callable[[Mapping[str, Sequence[str]]], Mapping[str, Sequence[str]]] | None = None
    body: _Edit | None = None
    reply: _Edit | None = None


# Helpers of the tables


def _part(document: Any, *path: str) -> dict[str, Any]:
    """The object at ``path``; an empty one where there is none, or something else."""
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def _parts(document: Any, *path: str) -> Iterator[dict[str, Any]]:
    """The objects of the list or the object at ``path``."""
    found = _part(document, *path[:-1]).get(path[-1]) if path else document
    rows = found.values() if isinstance(found, dict) else found if isinstance(found, list | tuple) else ()
    return (row for row in rows if isinstance(row, dict))


def _without(*names: str, at: Sequence[str] = ()) -> _Edit:
    def edit(document: Any) -> None:
        for name in names:
            _part(document, *at).pop(name, None)

    return edit


def _with(at: Sequence[str] = (), **values: Any) -> _Edit:
    """Add fields that the newest version has no more; those that are there stay."""

    def edit(document: Any) -> None:
        target = _part(document, *at)
        for name, value in values.items():
            target.setdefault(name, value)

    return edit


def _each(*edits: _Edit, at: Sequence[str] = ()) -> _Edit:
    def edit(document: Any) -> None:
        for row in _parts(document, *at):
            for one in edits:
                one(row)

    return edit


def _since(operation: str, version: Version, *parameters: str) -> Change:
    """Parameters that came with ``version``: older clients may send them, and they mean nothing."""
    return Change(
        operation=operation,
        until=_before(version),
        query=lambda given: {name: values for name, values in given.items() if name not in parameters},
    )


def _before(version: Version) -> Version:
    return version[0], version[1] - 1


# Images


def _virtual_size(image: Any) -> None:
    image["VirtualSize"] = image.get("Size", 0)


def _none_names(image: Any) -> None:
    if not image.get("RepoTags") and not image.get("RepoDigests"):
        image["RepoTags"], image["RepoDigests"] = ["<none>:<none>"], ["<none>@<none>"]


def _filter(given: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """The parameter ``filter`` (one pattern) became the filter ``reference``."""
    query = Query(given)
    if not query.text("filter"):
        return given
    filters = query.filters()
    filters.setdefault("reference", [query.text("filter")])
    return {**given, "filters": [json.dumps(filters)]}


_IMAGE_CONFIG: Final = {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}
# What the container was from which an image was committed; it is not kept, and was empty for most images.
_NO_CONTAINER_CONFIG: Final = {
    **_IMAGE_CONFIG,
    "User": "",
    "Env": None,
    "Cmd": None,
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}

# Containers


def _short_id_alias(document: Any) -> None:
    for name, endpoint in _part(document, "NetworkSettings", "Networks").items():
        if name not in ("bridge", "host", "none"):
            aliases = [*(endpoint.get("Aliases") or ()), document["Id"][:12], document["Config"]["Hostname"]]
            endpoint["Aliases"] = list(dict.fromkeys(alias for alias in aliases if alias))


def _no_priority(document: Any) -> None:
    for endpoint in _parts(document, "NetworkSettings", "Networks"):
        endpoint.pop("GwPriority", None)


def _mounts(document: Any) -> Iterator[dict[str, Any]]:
    return _parts(document, "HostConfig", "Mounts")


def _no_image_mounts(document: Any) -> None:
    for mount in _mounts(document):
        if mount.get("Type") == "image":
            raise InvalidArgument('Mount type "Image" needs API v1.48 or newer')
    for endpoint in _parts(document, "NetworkingConfig", "EndpointsConfig"):
        endpoint.pop("GwPriority", None)


def _no_subpath(document: Any) -> None:
    for mount in _mounts(document):
        if _part(mount, "VolumeOptions").get("Subpath"):
            raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")


def _before_1_44(document: Any) -> None:
    _part(document, "Healthcheck").pop("StartInterval", None)
    for mount in _mounts(document):
        if mount.get("Type") != "bind":
            continue
        options = mount.get("BindOptions") or {}
        if not isinstance(options, dict):
            continue
        if options.get("ReadOnlyForceRecursive"):
            raise InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
        if mount.get("ReadOnly"):  # before, such mounts left what is mounted below as it is
            mount["BindOptions"] = {**options, "ReadOnlyNonRecursive": True}
    endpoints = _part(document, "NetworkingConfig", "EndpointsConfig")
    if len(endpoints) > 1:
        raise InvalidArgument(
            f"Container cannot be created with multiple network endpoints: {', '.join(map(str, endpoints))}"
        )


def _before_1_42(document: Any) -> None:
    _part(document, "HostConfig").pop("ConsoleSize", None)
    for mount in _mounts(document):
        _part(mount, "BindOptions").pop("CreateMountpoint", None)
        # Options of another type of mount were not refused before.
        for name, kind in (("VolumeOptions", "volume"), ("TmpfsOptions", "tmpfs")):
            if mount.get("Type") != kind:
                mount.pop(name, None)


def _before_1_40(document: Any) -> None:
    host = document.get("HostConfig")
    if isinstance(host, dict) and not host.get("IpcMode"):
        host["IpcMode"] = "shareable"
    for mount in _mounts(document):
        _part(mount, "BindOptions").pop("NonRecursive", None)


def _all_volumes(given: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """Before 1.42 named volumes were pruned as well as anonymous ones."""
    filters = Query(given).filters()
    filters["all"] = ["true"]
    return {**given, "filters": [json.dumps(filters)]}


# The daemon


def _plain_security(document: Any) -> None:
    options = document.get("SecurityOptions") or []
    document["SecurityOptions"] = [option.split(",")[0].removeprefix("name=") for option in options]


def _expected_commits(document: Any) -> None:
    for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
        commit = _part(document, name)
        if commit:
            commit["Expected"] = commit.get("ID", "")
    registries = _part(document, "RegistryConfig")
    registries |= {"AllowNondistributableArtifactsCIDRs": [], "AllowNondistributableArtifactsHostnames": []}


CHANGES: Final[tuple[Change, ...]] = (
    # 1.50
    _since("ImageDelete", (1, 50), "platforms"),
    Change(operation="SystemInfo", until=(1, 49), reply=_without("DiscoveredDevices")),
    Change(operation="SystemInfo", until=(1, 49), reply=_with(BridgeNfIptables=False, BridgeNfIp6tables=False)),
    Change(operation="ImageInspect", until=(1, 49), reply=_with(at=("Config",), **_IMAGE_CONFIG)),
    # 1.49
    _since("ImageInspect", (1, 49), "platform"),
    Change(operation="SystemInfo", until=(1, 48), reply=_without("FirewallBackend")),
    Change(operation="SystemInfo", until=(1, 48), reply=_expected_commits),
    # 1.48
    _since("ImageHistory", (1, 48), "platform"),
    _since("ImageLoad", (1, 48), "platform"),
    _since("ImageGet", (1, 48), "platform"),
    _since("ImageGetAll", (1, 48), "platform"),
    _since("ImageInspect", (1, 48), "manifests"),
    Change(operation="ContainerCreate", until=(1, 47), body=_no_image_mounts),
    Change(operation="ImageInspect", until=(1, 47), reply=_without("Descriptor", "Manifests")),
    Change(operation="ImageList", until=(1, 47), reply=_each(_without("Descriptor"))),
    Change(operation="SystemDataUsage", until=(1, 47), reply=_each(_without("Descriptor"), at=("Images",))),
    Change(operation="ContainerInspect", until=(1, 47), reply=_without("ImageManifestDescriptor")),
    Change(operation="ContainerInspect", until=(1, 47), reply=_no_priority),
    Change(operation="ContainerList", until=(1, 47), reply=_each(_without("ImageManifestDescriptor"), _no_priority)),
    Change(operation="NetworkInspect", until=(1, 47), reply=_without("EnableIPv4")),
    Change(operation="NetworkList", until=(1, 47), reply=_each(_without("EnableIPv4"))),
    # 1.47
    _since("ImageList", (1, 47), "manifests"),
    # 1.46
    _since("ImagePush", (1, 46), "platform"),
    Change(operation="SystemInfo", until=(1, 45), reply=_without("Containerd")),
    Change(operation="ContainerList", until=(1, 45), reply=_each(_without("Annotations", at=("HostConfig",)))),
    # 1.45
    Change(operation="ContainerCreate", until=(1, 44), body=_no_subpath),
    Change(operation="ContainerInspect", until=(1, 44), reply=_short_id_alias),
    Change(operation="ImageInspect", until=(1, 44), reply=_with(Container="", ContainerConfig=_NO_CONTAINER_CONFIG)),
    # 1.44
    Change(operation="ContainerCreate", until=(1, 43), body=_before_1_44),
    Change(operation="ContainerInspect", until=(1, 43), reply=_without("StartInterval", at=("Config", "Healthcheck"))),
    Change(
        operation="ContainerInspect",
        until=(1, 43),
        reply=_each(_without("DNSNames"), at=("NetworkSettings", "Networks")),
    ),
    Change(
        operation="ContainerList",
        until=(1, 43),
        reply=_each(_each(_without("DNSNames"), at=("NetworkSettings", "Networks"))),
    ),
    Change(operation="ImageList", until=(1, 43), reply=_each(_virtual_size)),
    Change(operation="ImageInspect", until=(1, 43), reply=_virtual_size),
    Change(operation="ImageInspect", until=(1, 43), reply=_with(Created="0001-01-01T00:00:00Z")),
    Change(operation="SystemDataUsage", until=(1, 43), reply=_each(_virtual_size, at=("Images",))),
    Change(operation="SystemInfo", until=(1, 43), reply=_without("CDISpecDirs")),
    Change(operation="SystemInfo", until=(1, 43), reply=_each(_without("status"), at=("Runtimes",))),
    # 1.43
    Change(operation="ContainerCreate", until=(1, 42), body=_without("Annotations", at=("HostConfig",))),
    Change(operation="ContainerInspect", until=(1, 42), reply=_without("Annotations", at=("HostConfig",))),
    Change(operation="ImageList", until=(1, 42), reply=_each(_none_names)),
    Change(operation="SystemDataUsage", until=(1, 42), reply=_each(_none_names, at=("Images",))),
    # 1.42
    _since("ContainerStop", (1, 42), "signal"),
    _since("ContainerRestart", (1, 42), "signal"),
    _since("ContainerAttachWebsocket", (1, 42), "stdin", "stdout", "stderr"),
    _since("ImageList", (1, 42), "shared-size"),
    _since("SystemDataUsage", (1, 42), "type"),
    Change(operation="ContainerCreate", until=(1, 41), body=_before_1_42),
    Change(operation="ContainerExec", until=(1, 41), body=_without("ConsoleSize")),
    Change(
        operation="ContainerInspect", until=(1, 41), reply=_with(at=("HostConfig",), KernelMemory=0, KernelMemoryTCP=0)
    ),
    Change(operation="SystemDataUsage", until=(1, 41), reply=_with(BuilderSize=0)),
    Change(operation="SystemDataUsage", until=(1, 41), reply=_each(_without("Parents"), at=("BuildCache",))),
    Change(operation="SystemInfo", until=(1, 41), reply=_with(KernelMemory=False, KernelMemoryTCP=False)),
    Change(operation="VolumePrune", until=(1, 41), query=_all_volumes),
    # 1.41
    _since("ContainerCreate", (1, 41), "platform"),
    _since("ContainerStats", (1, 41), "one-shot"),
    Change(operation="ImageList", until=(1, 40), query=_filter),
    Change(operation="ContainerCreate", until=(1, 40), body=_without("CgroupnsMode", at=("HostConfig",))),
    Change(operation="SystemInfo", until=(1, 40), reply=_without("CgroupVersion", "DefaultAddressPools")),
    # 1.40
    Change(operation="ContainerCreate", until=(1, 39), body=_before_1_40),
    Change(operation="ContainerCreate", until=(1, 39), body=_without("DeviceRequests", at=("HostConfig",))),
    Change(operation="ContainerUpdate", until=(1, 39), body=_without("PidsLimit")),
    Change(operation="SystemInfo", until=(1, 39), reply=_without("PidsLimit")),
    # 1.39
    Change(operation="SystemInfo", until=(1, 38), reply=_without("Warnings")),
    # 1.35
    _since("ContainerLogs", (1, 35), "until"),
    Change(operation="ContainerExec", until=(1, 34), body=_without("WorkingDir")),
    Change(operation="SystemVersion", until=(1, 34), reply=_without("Platform", "Components")),
    # 1.32
    _since("ImageCreate", (1, 32), "platform"),
    # 1.31
    _since("NetworkInspect", (1, 31), "scope"),
    Change(operation="VolumeInspect", until=(1, 30), reply=_without("CreatedAt")),
    Change(operation="VolumeCreate", until=(1, 30), reply=_without("CreatedAt")),
    Change(operation="VolumeList", until=(1, 30), reply=_each(_without("CreatedAt"), at=("Volumes",))),
    Change(operation="SystemDataUsage", until=(1, 30), reply=_each(_without("CreatedAt"), at=("Volumes",))),
    # 1.30
    _since("ContainerWait", (1, 30), "condition"),
    _since("PutContainerArchive", (1, 30), "copyUIDGID"),
    # 1.29
    Change(operation="ContainerCreate", until=(1, 28), body=_without("StartPeriod", at=("Healthcheck",))),
    Change(operation="NetworkInspect", until=(1, 28), reply=_without("Ingress")),
    Change(operation="NetworkList", until=(1, 28), reply=_each(_without("Ingress"))),
    # 1.28
    _since("NetworkInspect", (1, 28), "verbose"),
    Change(operation="ContainerCreate", until=(1, 27), body=_without("DeviceCgroupRules", at=("HostConfig",))),
    Change(operation="ContainerUpdate", until=(1, 27), body=_without("NanoCpus")),
    # 1.25
    _since("VolumeDelete", (1, 25), "force"),
    Change(
        operation="ContainerCreate",
        until=(1, 24),
        body=_without("AutoRemove", "Mounts", "NanoCpus", "Init", at=("HostConfig",)),
    ),
    Change(operation="ContainerCreate", until=(1, 24), body=_without("StopTimeout")),
    Change(operation="ContainerExec", until=(1, 24), body=_without("Env")),
    Change(operation="ExecInspect", until=(1, 24), reply=_without("Pid")),
    Change(operation="NetworkInspect", until=(1, 24), reply=_without("Created")),
    Change(operation="SystemInfo", until=(1, 24), reply=_plain_security),
    Change(operation="SystemInfo", until=(1, 24), reply=_without("Isolation")),
    Change(operation="SystemVersion", until=(1, 24), reply=_without("MinAPIVersion")),
)


@frozen
class _Given:
    """A body that was read, and changed."""

    data: bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data

    async def read(self, limit: int) -> bytes:
        return self.data

    def file(self) -> BinaryIO:
        return BytesIO(self.data)


def adapted(operation: str, handler: Handler) -> Handler:
    """``handler`` for clients of every version; the same one where nothing differs."""
    rows = [row for row in CHANGES if row.operation == operation]
    if not rows:
        return handler

    async def adapt(request: Request) -> Reply | Hijack:
        due = [row for row in rows if request.version <= row.until]
        if not due:
            return await handler(request)
        answer = await handler(await _raised(request, due))
        if isinstance(answer, Reply) and answer.document is not None:
            for row in due:
                if row.reply is not None:
                    row.reply(answer.document)
        return answer

    return adapt


async def _raised(request: Request, due: Sequence[Change]) -> Request:
    """The request as a client of the newest version would have made it."""
    query = request.query.values
    for row in due:
        if row.query is not None:
            query = row.query(query)
    edits = [row.body for row in due if row.body is not None]
    if not edits:
        return evolve(request, query=Query(query))
    document = await request.json()
    for edit in edits:
        edit(document)
    return evolve(request, query=Query(query), body=_Given(json.dumps(document).encode() if document else b""))
