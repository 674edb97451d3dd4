"""What differs between API versions, seen through the tables alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any, BinaryIO, cast

import pytest
from specification import VERSIONS, load, operations

from dockp.api.messages import NEWEST, OLDEST, Query, Reply, Request, Services, Version
from dockp.api.operations import ROUTES
from dockp.api.routing import Router
from dockp.api.versions import CHANGES, adapted
from dockp.spi.errors import InvalidArgument

# Parameters that were there before the specification had them, and those of what is empty here.
HEARD_BY_ALL = {
    "BuildPrune": {"all", "filters", "keep-storage", "max-used-space", "min-free-space", "reserved-space"},
    "ContainerDelete": {"link"},
    "ImageCreate": {"changes", "message"},
    "PutContainerArchive": {"copyUIDGID"},
}


class GivenBody:
    def __init__(self, document: Any) -> None:
        self._data = b"" if document is None else json.dumps(document).encode()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._data

    async def read(self, limit: int) -> bytes:
        return self._data

    def file(self) -> BinaryIO:
        return BytesIO(self._data)


def seen(operation: str, version: Version, *, body: Any = None, **query: str) -> tuple[Any, Query]:
    """The body and the query that a handler of ``operation`` gets from a client of ``version``."""
    got: list[Any] = []

    async def handler(request: Request) -> Reply:
        got.extend((await request.json(), request.query))
        return Reply()

    _call(operation, version, handler, body, query)
    return got[0], got[1]


def shown(operation: str, version: Version, document: Any) -> Any:
    """What a client of ``version`` gets where the newest gets ``document``."""

    async def handler(request: Request) -> Reply:
        return Reply(document=json.loads(json.dumps(document)))

    return _call(operation, version, handler, None, {}).document


def _call(operation: str, version: Version, handler: Any, body: Any, query: dict[str, str]) -> Reply:
    request = Request(
        method="POST",
        path="/",
        version=version,
        parameters={},
        query=Query({name.replace("_", "-"): [value] for name, value in query.items()}),
        headers={},
        body=GivenBody(body),
        services=cast(Services, None),
    )
    return cast(Reply, asyncio.run(cast(Any, adapted(operation, handler)(request))))


# The tables


def test_every_change_names_an_operation_of_the_specification() -> None:
    assert {change.operation for change in CHANGES} <= set(operations("1.50"))


def test_changes_are_listed_from_the_newest_version_to_the_oldest() -> None:
    versions = [change.until for change in CHANGES]
    assert versions == sorted(versions, reverse=True)
    assert all(OLDEST <= version < NEWEST for version in versions)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_operation_of_a_version_has_a_route_in_it(version: str) -> None:
    router = Router(ROUTES)
    number = tuple(map(int, version.split(".")))
    for operation in operations(version).values():
        path = operation.path.replace("{id}", "any").replace("{name}", "any")
        assert router.find(operation.method, path, cast(Version, number)), operation.path


@pytest.mark.parametrize("version", VERSIONS)
def test_no_operation_answers_before_the_version_that_brought_it(version: str) -> None:
    router = Router(ROUTES)
    number = cast(Version, tuple(map(int, version.split("."))))
    present = {(operation.method, operation.path) for operation in operations(version).values()}
    # Asked for before any version is known, and the two whose first specification forgot them.
    unversioned = {"SystemPingHead", "SecretUpdate", "TaskLogs"}
    for operation in operations("1.50").values():
        if (operation.method, operation.path) in present or operation.name in unversioned:
            continue
        path = operation.path.replace("{id}", "any").replace("{name}", "any")
        assert router.find(operation.method, path, number) is None, operation.path


@pytest.mark.parametrize("version", VERSIONS)
def test_parameters_that_a_version_does_not_document_do_nothing_there(version: str) -> None:
    number = cast(Version, tuple(map(int, version.split("."))))
    newer = {
        (name, parameter["name"])
        for name, operation in operations("1.50").items()
        if name in operations(version)
        for parameter in operation.document.get("parameters", ())
        if parameter["in"] == "query"
        and parameter["name"]
        not in {one["name"] for one in operations(version)[name].document.get("parameters", ()) if "name" in one}
    }
    dropped = {
        (change.operation, parameter)
        for change in CHANGES
        if change.query is not None and number <= change.until
        for _, parameter in (pair for pair in newer if pair[0] == change.operation)
        if parameter not in change.query({parameter: ["1"]})
    }
    absent = ("Service", "Node", "Swarm", "Task", "Plugin", "GetPlugin", "ImageBuild")
    heard = {pair for pair in newer - dropped if not pair[0].startswith(absent)}
    assert {(name, one) for name, one in heard if one not in HEARD_BY_ALL.get(name, ())} == set()


# Single changes


def test_the_newest_version_is_left_alone() -> None:
    document = {"Size": 1, "Descriptor": {"size": 1}, "Config": {}}
    assert shown("ImageInspect", NEWEST, document) == document


def test_an_older_image_has_the_fields_that_went() -> None:
    old = shown("ImageInspect", (1, 41), {"Size": 7, "Descriptor": {}, "Config": {"Cmd": ["sh"]}})
    assert old["VirtualSize"] == 7
    assert old["Container"] == ""
    assert old["ContainerConfig"]["Cmd"] is None
    assert old["Config"]["Hostname"] == ""
    assert old["Config"]["Cmd"] == ["sh"]
    assert "Descriptor" not in old
    assert old["Created"] == "0001-01-01T00:00:00Z"


def test_untagged_images_were_named_none() -> None:
    rows = [{"RepoTags": [], "RepoDigests": [], "Size": 1}]
    assert shown("ImageList", (1, 42), rows)[0]["RepoTags"] == ["<none>:<none>"]
    assert shown("ImageList", (1, 43), rows)[0]["RepoTags"] == []


def test_containers_had_their_short_id_as_an_alias() -> None:
    document = {
        "Id": "0123456789abcdef",
        "Config": {"Hostname": "host"},
        "HostConfig": {},
        "NetworkSettings": {"Networks": {"net": {"Aliases": ["a"]}, "bridge": {"Aliases": None}}},
    }
    networks = shown("ContainerInspect", (1, 44), document)["NetworkSettings"]["Networks"]
    assert networks["net"]["Aliases"] == ["a", "0123456789ab", "host"]
    assert networks["bridge"]["Aliases"] is None


def test_pruning_volumes_meant_all_of_them() -> None:
    _, query = seen("VolumePrune", (1, 41), filters='{"label": ["a"]}')
    assert query.filters() == {"label": ["a"], "all": ["true"]}
    _, query = seen("VolumePrune", (1, 42))
    assert query.filters() == {}


def test_one_pattern_filtered_images() -> None:
    _, query = seen("ImageList", (1, 40), filter="busybox")
    assert query.filters() == {"reference": ["busybox"]}


def test_parameters_of_later_versions_are_not_heard() -> None:
    assert seen("ContainerStop", (1, 41), signal="KILL", t="1")[1].text("signal") == ""
    assert seen("ContainerStop", (1, 42), signal="KILL", t="1")[1].text("signal") == "KILL"


@pytest.mark.parametrize(
    ("version", "body", "line"),
    [
        ((1, 47), {"HostConfig": {"Mounts": [{"Type": "image"}]}}, 'Mount type "Image" needs API v1.48 or newer'),
        (
            (1, 44),
            {"HostConfig": {"Mounts": [{"Type": "volume", "VolumeOptions": {"Subpath": "a"}}]}},
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ),
        (
            (1, 43),
            {"HostConfig": {"Mounts": [{"Type": "bind", "BindOptions": {"ReadOnlyForceRecursive": True}}]}},
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ),
        (
            (1, 43),
            {"NetworkingConfig": {"EndpointsConfig": {"a": {}, "b": {}}}},
            "Container cannot be created with multiple network endpoints: a, b",
        ),
    ],
)
def test_what_an_older_version_refuses(version: Version, body: Any, line: str) -> None:
    with pytest.raises(InvalidArgument, match=line):
        seen("ContainerCreate", version, body=body)
    seen("ContainerCreate", (version[0], version[1] + 1), body=body)


def test_what_an_older_version_does_not_know_is_left_out() -> None:
    body = {
        "Healthcheck": {"StartInterval": 5, "Test": ["NONE"]},
        "HostConfig": {
            "Annotations": {"a": "b"},
            "ConsoleSize": [1, 2],
            "Mounts": [
                {"Type": "bind", "ReadOnly": True, "BindOptions": {"CreateMountpoint": True}, "TmpfsOptions": {}},
            ],
        },
    }
    old, _ = seen("ContainerCreate", (1, 41), body=body)
    assert old["Healthcheck"] == {"Test": ["NONE"]}
    assert old["HostConfig"] == {
        "Mounts": [{"Type": "bind", "ReadOnly": True, "BindOptions": {"ReadOnlyNonRecursive": True}}],
    }
    assert seen("ContainerCreate", (1, 39), body={"HostConfig": {}})[0]["HostConfig"]["IpcMode"] == "shareable"


@pytest.mark.parametrize(
    "junk", [[], "text", 5, None, {"Mounts": 5}, {"Mounts": [5, None]}, {"Mounts": [{"BindOptions": 5}]}]
)
@pytest.mark.parametrize("version", [(1, minor) for minor in range(24, 51)])
def test_malformed_requests_are_left_to_the_handler(junk: Any, version: Version) -> None:
    seen("ContainerCreate", version, body={"HostConfig": junk, "NetworkingConfig": junk, "Healthcheck": junk})


def test_the_specifications_are_there() -> None:
    for version in VERSIONS:
        assert load(version)["basePath"] == f"/v{version}"
