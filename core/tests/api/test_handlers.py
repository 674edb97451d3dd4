"""What handlers make of requests and of the engine's answers, beyond what the specification can say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import pytest
from serving import BUSYBOX, Served

from dockp.api.handlers.containers import create_request
from dockp.api.handlers.images import named, platform_of
from dockp.api.handlers.progress import progress_line, told
from dockp.api.messages import Reply, Services
from dockp.interface import Document, Progress
from dockp.spi.errors import InvalidArgument, NotFound


class Threads:
    """Services without an engine."""

    def run_long(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return asyncio.get_running_loop().run_in_executor(None, work, *arguments)


def lines(work: Callable[[Progress, Callable[[Document], None]], None], **options: bool) -> list[Any]:
    async def read() -> list[Any]:
        reply: Reply = await told(cast(Services, Threads()), work, **options)
        assert not isinstance(reply.content, bytes)
        return [json.loads(line) async for line in reply.content]

    return asyncio.run(read())


# Requests


def test_a_create_request_is_a_configuration_with_two_parts_beside_it() -> None:
    body = {
        "Image": "busybox",
        "Cmd": "sh",
        "HostConfig": {"Memory": 1 << 30},
        "NetworkingConfig": {"EndpointsConfig": {"bridge": {"Aliases": ["a"]}, "none": None}},
    }
    request = create_request(body, "/name", "linux/amd64")
    assert request.config.cmd == ("sh",)
    assert request.host.memory == 1 << 30
    assert request.networks["bridge"].aliases == ("a",)
    assert request.networks["none"].aliases == ()
    assert (request.name, request.platform) == ("name", "linux/amd64")


@pytest.mark.parametrize("body", [{}, {"HostConfig": {}}])
def test_a_create_request_without_a_configuration_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="config cannot be empty in order to create a container"):
        create_request(body, "", "")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"Image": 5}, "Image"),
        ({"Image": "a\0"}, "Image"),
        ({"Image": "a\ud800"}, "Image"),
        ({"Image": "a", "Cmd": [1]}, "Cmd"),
        ({"Image": "a", "Labels": {"a": 5}}, "Labels"),
        ({"Image": "a", "HostConfig": {"Memory": 1 << 70}}, "HostConfig.Memory"),
        ({"Image": "a", "HostConfig": {"Memory": True}}, "HostConfig.Memory"),
        ({"Image": "a", "HostConfig": {"PidsLimit": "1"}}, "HostConfig.PidsLimit"),
        ({"Image": "a", "HostConfig": {"ConsoleSize": [1]}}, "HostConfig.ConsoleSize"),
        ({"Image": "a", "NetworkingConfig": {"EndpointsConfig": 5}}, "NetworkingConfig.EndpointsConfig"),
    ],
)
def test_a_wrong_type_is_named(body: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidArgument, match=f"invalid JSON: {place} "):
        create_request(body, "", "")


@pytest.mark.parametrize(
    ("repository", "tag", "name"),
    [
        ("busybox", "", "busybox"),
        ("busybox", "1", "busybox:1"),
        ("host:5000/busybox", "1", "host:5000/busybox:1"),
        ("busybox:2", "1", "busybox:1"),
        ("busybox", "sha256:abc", "busybox@sha256:abc"),
        ("oci:/a/b", "1", "oci:/a/b:1"),
        ("", "1", ""),
    ],
)
def test_a_name_in_two_parts(repository: str, tag: str, name: str) -> None:
    assert named(repository, tag) == name


def test_a_platform_as_an_object() -> None:
    assert platform_of('{"os": "linux", "architecture": "arm", "variant": "v7"}') == "linux/arm/v7"
    assert platform_of("") == ""
    for wrong in ("linux/arm64", "5", "{}", "[]", '{"os": 5, "architecture": 5}'):
        with pytest.raises(InvalidArgument, match="failed to parse platform"):
            platform_of(wrong)


# Progress


def test_progress_is_told_as_docker_does() -> None:
    line = progress_line("4abcf2066143: Extracting", 1_000_000, 2_000_000)
    assert (line["status"], line["id"]) == ("Extracting", "4abcf2066143")
    assert line["progressDetail"] == {"current": 1_000_000, "total": 2_000_000}
    assert line["progress"] == f"[{'=' * 25 + '>':<50}]      1MB/2MB"
    assert progress_line("latest: Pulling from library/x", 0, None) == {
        "id": "latest",
        "status": "Pulling from library/x",
    }
    assert progress_line("Digest: sha256:12", 0, None) == {"status": "Digest: sha256:12"}
    assert progress_line("Retrieving Packages", 0, None) == {"status": "Retrieving Packages", "progressDetail": {}}


def test_what_fails_at_once_fails_as_any_request() -> None:
    def work(progress: Progress, write: Callable[[Document], None]) -> None:
        raise NotFound("nothing there")

    with pytest.raises(NotFound):
        lines(work)
    assert lines(work, begun=True) == [
        {"errorDetail": {"message": "nothing there"}, "error": "nothing there", "X-Dockp-Error": "NotFound"}
    ]


def test_what_fails_later_is_the_last_line() -> None:
    def work(progress: Progress, write: Callable[[Document], None]) -> None:
        write({"status": "begun"})
        raise NotFound("gone")

    assert lines(work) == [
        {"status": "begun"},
        {"errorDetail": {"message": "gone"}, "error": "gone", "X-Dockp-Error": "NotFound"},
    ]


def test_progress_comes_in_bearable_numbers() -> None:
    def work(progress: Progress, write: Callable[[Document], None]) -> None:
        for done in range(1000):
            progress("4abcf2066143: Extracting", done + 1, 1000)
        write({"status": "done"})

    told_lines = lines(work)
    assert len(told_lines) < 20
    assert told_lines[-2]["progressDetail"] == {"current": 1000, "total": 1000}
    assert lines(work, quiet=True) == [{"status": "done"}]


# Images, for real


def test_an_import_says_the_id(served: Served) -> None:
    answer = served.api("POST", "/images/create?fromSrc=-&repo=imported&tag=1&changes=CMD+sh", BUSYBOX.read_bytes())
    assert answer.lines[-1]["status"].startswith("sha256:")
    assert served.api("GET", "/images/imported:1/json").document["Id"] == answer.lines[-1]["status"]


def test_what_was_saved_can_be_loaded(served: Served) -> None:
    saved = served.api("GET", "/images/get?names=busybox").body
    answer = served.api("POST", "/images/load?quiet=1", saved)
    assert answer.lines == [{"stream": "Loaded image: busybox:latest\n"}]
    broken = served.api("POST", "/images/load", b"no archive")
    assert broken.status == 200
    assert "not a tar archive" in broken.lines[-1]["errorDetail"]["message"]


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("fromImage=127.0.0.1:1/busybox&tag=latest", 503, "connection refused"),
        ("fromImage=docker.io/library/scratch", 403, "'scratch' is a reserved name"),
        ("fromImage=UPPER", 400, "must be lowercase"),
        ("", 400, "fromImage or fromSrc"),
        ("fromSrc=http://localhost/x.tar", 501, "cannot import from http://localhost/x.tar"),
    ],
)
def test_what_cannot_be_pulled_says_why(served: Served, query: str, status: int, text: str) -> None:
    answer = served.api("POST", f"/images/create?{query}")
    assert answer.status == status
    assert text in answer.document["message"]


# The daemon


def test_the_version_is_what_clients_look_for(served: Served) -> None:
    document = served.api("GET", "/version").document
    first = document["Components"][0]
    assert first["Name"] == "Engine"
    for name in ("ApiVersion", "MinAPIVersion", "GitCommit", "GoVersion", "Os", "Arch", "KernelVersion", "BuildTime"):
        assert first["Details"][name] == document[name]
    assert (document["ApiVersion"], document["MinAPIVersion"]) == ("1.50", "1.24")


def test_the_engine_keeps_its_id(served: Served) -> None:
    first, second = (served.api("GET", "/info").document["ID"] for _ in range(2))
    assert first == second
    assert len(first) == 36


def test_a_ping_is_not_cached(served: Served) -> None:
    for method, body in (("GET", b"OK"), ("HEAD", b"")):
        answer = served.api(method, "/_ping")
        assert answer.body == body
        assert answer.headers["api-version"] == "1.50"
        assert answer.headers["swarm"] == "inactive"
        assert answer.headers["cache-control"] == "no-cache, no-store, must-revalidate"


def test_a_swarm_is_missed_in_docker_s_words(served: Served) -> None:
    answer = served.api("GET", "/services")
    assert answer.status == 503
    assert answer.document["message"].startswith("This node is not a swarm manager. Use ")


def test_names_of_fields_in_any_case(served: Served) -> None:
    document = {
        "image": "busybox",
        "CMD": ["sleep", "60"],
        "hostconfig": {"networkmode": "none"},
        "labels": {"Aa": "1"},
    }
    made = served.api("POST", "/containers/create", document)
    assert made.status == 201, made
    found = served.api("GET", f"/containers/{made.document['Id']}/json").document
    assert found["Config"]["Cmd"] == ["sleep", "60"]
    assert found["Config"]["Labels"] == {"Aa": "1"}
    assert found["HostConfig"]["NetworkMode"] == "none"
    served.api("DELETE", f"/containers/{made.document['Id']}")


def test_a_kill_returns_when_it_is_over(served: Served) -> None:
    document = {"Image": "busybox", "Cmd": ["sleep", "60"], "HostConfig": {"NetworkMode": "none"}}
    made = served.api("POST", "/containers/create", document).document["Id"]
    served.api("POST", f"/containers/{made}/start")
    assert served.api("POST", f"/containers/{made}/kill").status == 204
    state = served.api("GET", f"/containers/{made}/json").document["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    assert served.api("DELETE", f"/containers/{made}").status == 204


def test_a_container_without_a_log(served: Served) -> None:
    document = {
        "Image": "busybox",
        "Cmd": ["true"],
        "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}},
    }
    made = served.api("POST", "/containers/create", document).document["Id"]
    assert served.api("POST", f"/containers/{made}/start").status == 204
    refused = served.api("GET", f"/containers/{made}/logs?stdout=1")
    assert (refused.status, refused.document) == (
        501,
        {"message": "configured logging driver does not support reading"},
    )
    served.api("DELETE", f"/containers/{made}?force=1")


def test_the_environment_as_it_was_asked_for(served: Served) -> None:
    document = {"Image": "busybox", "Env": ["A=1", "NAME"], "HostConfig": {"NetworkMode": "none"}}
    made = served.api("POST", "/containers/create", document).document["Id"]
    assert served.api("GET", f"/containers/{made}/json").document["Config"]["Env"][:2] == ["A=1", "NAME"]
    served.api("DELETE", f"/containers/{made}")


def test_a_platform_that_is_none(served: Served) -> None:
    answer = served.api("POST", "/images/create?fromImage=busybox&tag=latest&platform=foo")
    assert (answer.status, answer.document) == (
        400,
        {"message": '"foo": unknown operating system or architecture: invalid argument'},
    )
