"""Every verb of `dockp.interface` as a request: method, path, parameters, and how the answer is read.

Source: the Docker Engine API, versions 1.24 to 1.50.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from dockp.interface import Created, Document, Filters, Progress, Top, WaitResult
from dockp.jsonmodel import to_json
from dockp.keys import parse_detach_keys
from dockp.remote.calls import Answer, Call, Download, Hijack, Items, JsonLines, Work, quoted
from dockp.spi.errors import InvalidArgument, NotImplemented, SystemFault

if TYPE_CHECKING:
    from dockp.containers.model import Config, CreateRequest, ExecConfig, UpdateRequest
    from dockp.spi.images import Credentials
    from dockp.spi.logs import LogEntry

T = TypeVar("T")

_NO_TOKEN = {"IdentityToken": ""}


def _nothing(answer: Answer) -> None:
    return None


def _object(answer: Answer) -> Document:
    document = answer.document()
    if not isinstance(document, dict):
        raise SystemFault("the server's answer is not a JSON object")
    return document


def _list(answer: Answer) -> Sequence[Document]:
    return answer.document() or []


def _at(*keys: str) -> Callable[[Answer], Any]:
    """Reads one value out of a document; None when it is not there."""

    def read(answer: Answer) -> Any:
        value: Any = _object(answer)
        for key in keys:
            value = (value or {}).get(key)
        return value

    return read


def _container(ref: str, rest: str = "") -> str:
    return f"/containers/{quoted(ref)}{rest}"


def _image(ref: str, rest: str = "") -> str:
    return f"/images/{quoted(ref, safe='/:@')}{rest}"


def _filters(filters: Filters | None) -> str:
    if not filters:
        return ""
    return json.dumps({key: dict.fromkeys(values, True) for key, values in filters.items()})


def _moment(nanoseconds: int | None) -> str:
    return "" if not nanoseconds else f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


# The server itself


def ping() -> Call[Mapping[str, str]]:
    return Call(method="HEAD", path="/_ping", timeless=True, read=lambda answer: answer.headers)


def check_own(version: Document, what: str) -> None:
    """Raises: NotImplemented when the server of ``GET /version`` is another, which would pass over it in silence."""
    name = (version.get("Platform") or {}).get("Name") or "the server"
    if not name.startswith("dockp"):
        raise NotImplemented(f"{what} is dockp's own, and {name} does not know it")


# Containers


def create(request: CreateRequest) -> Call[Created]:
    body = _without_empty(to_json(request.config))
    body["HostConfig"] = _without_empty(to_json(request.host))
    if request.networks:
        endpoints = {name: to_json(endpoint) for name, endpoint in request.networks.items()}
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}

    def read(answer: Answer) -> Created:
        document = _object(answer)
        return Created(id=document["Id"], warnings=tuple(document.get("Warnings") or ()))

    query = {"name": request.name, "platform": request.platform}
    return Call(method="POST", path="/containers/create", query=query, document=body, read=read)


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    """Without what is unset, so that old servers see nothing that they do not know."""
    return {key: value for key, value in document.items() if value not in (None, "", 0, [], {}) or value is False}


def start(ref: str) -> Call[None]:
    return Call(method="POST", path=_container(ref, "/start"), starting=True, read=_nothing)


def attach(ref: str, *, stdin: bool, stdout: bool, stderr: bool, detach_keys: str = "", logs: bool = False) -> Hijack:
    query = {
        "stream": True,
        "stdin": stdin,
        "stdout": stdout,
        "stderr": stderr,
        "detachKeys": detach_keys,
        "logs": logs,
    }
    return Hijack(
        method="POST",
        path=_container(ref, "/attach"),
        query=query,
        detach_keys=parse_detach_keys(detach_keys) if stdin else b"",
        ask_tty=Call(method="GET", path=_container(ref, "/json"), read=_at("Config", "Tty")) if stdin else None,
    )


def resize(ref: str, rows: int, columns: int) -> Call[None]:
    query = {"h": str(rows), "w": str(columns)}
    return Call(method="POST", path=_container(ref, "/resize"), query=query, read=_nothing)


def wait(ref: str, condition: str = "not-running") -> Call[WaitResult]:
    def read(answer: Answer) -> WaitResult:
        document = _object(answer)
        error = (document.get("Error") or {}).get("Message", "")
        return WaitResult(exit_code=document.get("StatusCode", 0), error=error)

    return Call(method="POST", path=_container(ref, "/wait"), query={"condition": condition}, read=read)


def stop(ref: str, timeout: int | None = None, signal: str = "") -> Call[None]:
    return _ending(ref, "/stop", timeout, signal)


def restart(ref: str, timeout: int | None = None, signal: str = "") -> Call[None]:
    return _ending(ref, "/restart", timeout, signal)


def _ending(ref: str, verb: str, timeout: int | None, signal: str) -> Call[None]:
    query = {"t": None if timeout is None else str(timeout), "signal": signal}
    return Call(method="POST", path=_container(ref, verb), query=query, read=_nothing)


def kill(ref: str, signal: str = "KILL") -> Call[None]:
    return Call(method="POST", path=_container(ref, "/kill"), query={"signal": signal}, read=_nothing)


def pause(ref: str) -> Call[None]:
    return Call(method="POST", path=_container(ref, "/pause"), read=_nothing)


def unpause(ref: str) -> Call[None]:
    return Call(method="POST", path=_container(ref, "/unpause"), read=_nothing)


def remove(ref: str, *, force: bool = False, volumes: bool = False) -> Call[None]:
    return Call(method="DELETE", path=_container(ref), query={"force": force, "v": volumes}, read=_nothing)


def rename(ref: str, name: str) -> Call[None]:
    return Call(method="POST", path=_container(ref, "/rename"), query={"name": name}, read=_nothing)


def list_containers(
    *, all: bool = False, limit: int = 0, size: bool = False, filters: Filters | None = None
) -> Call[Sequence[Document]]:
    query = {"all": all, "limit": str(limit) if limit > 0 else "", "size": size, "filters": _filters(filters)}
    return Call(method="GET", path="/containers/json", query=query, read=_list)


def inspect(ref: str, *, size: bool = False) -> Call[Document]:
    return Call(method="GET", path=_container(ref, "/json"), query={"size": size}, read=_object)


def has_terminal(ref: str) -> Call[bool]:
    return Call(method="GET", path=_container(ref, "/json"), read=_at("Config", "Tty"))


def logs(
    ref: str,
    *,
    stdout: bool = True,
    stderr: bool = True,
    follow: bool = False,
    since: int = 0,
    until: int = 0,
    tail: int | None = None,
    tty: bool,
) -> Items[LogEntry]:
    """``tty``: whether the container has a terminal, which old servers do not tell."""
    from dockp.remote.logs import Framed, Plain

    query = {
        "stdout": stdout,
        "stderr": stderr,
        "follow": follow,
        "since": _moment(since),
        "until": _moment(until),
        "tail": "all" if tail is None or tail < 0 else str(tail),
        "timestamps": True,
    }
    decoder = Plain if tty else Framed
    return Items(method="GET", path=_container(ref, "/logs"), query=query, decoder=lambda answer: decoder())


def top(ref: str, ps_args: str = "") -> Call[Top]:
    def read(answer: Answer) -> Top:
        document = _object(answer)
        rows = tuple(tuple(row) for row in document.get("Processes") or ())
        return Top(titles=tuple(document.get("Titles") or ()), processes=rows)

    return Call(method="GET", path=_container(ref, "/top"), query={"ps_args": ps_args}, read=read)


def exec_create(ref: str, config: ExecConfig) -> Call[str]:
    body = _without_empty(to_json(config))
    return Call(method="POST", path=_container(ref, "/exec"), document=body, read=_at("Id"))


def exec_detached(exec_id: str, *, tty: bool | None = None) -> Call[None]:
    body = {"Detach": True, "Tty": bool(tty)}
    path = f"/exec/{quoted(exec_id)}/start"
    return Call(method="POST", path=path, document=body, starting=True, read=_nothing)


def exec_attached(exec_id: str, *, tty: bool, keys: str = "") -> Hijack:
    return Hijack(
        method="POST",
        path=f"/exec/{quoted(exec_id)}/start",
        document={"Detach": False, "Tty": tty},
        starting=True,
        tty=tty,
        detach_keys=parse_detach_keys(keys),
    )


def exec_inspect(exec_id: str) -> Call[Document]:
    return Call(method="GET", path=f"/exec/{quoted(exec_id)}/json", read=_object)


def exec_resize(exec_id: str, rows: int, columns: int) -> Call[None]:
    query = {"h": str(rows), "w": str(columns)}
    return Call(method="POST", path=f"/exec/{quoted(exec_id)}/resize", query=query, read=_nothing)


def stats(ref: str, *, stream: bool = True, one_shot: bool = False) -> Items[Document]:
    query = {"stream": "1" if stream else "0", "one-shot": one_shot}
    return Items(method="GET", path=_container(ref, "/stats"), query=query, decoder=JsonLines)


def changes(ref: str) -> Call[Sequence[Document]]:
    return Call(method="GET", path=_container(ref, "/changes"), read=_list)


def export(ref: str) -> Download[None]:
    return Download(method="GET", path=_container(ref, "/export"), about=_nothing)


def _path_stat(answer: Answer) -> Document:
    header = answer.headers.get("x-docker-container-path-stat", "")
    try:
        document: Document = json.loads(base64.b64decode(header))
    except ValueError:
        raise SystemFault("the server did not say what it found at the path") from None
    return document


def archive_stat(ref: str, path: str) -> Call[Document]:
    return Call(method="HEAD", path=_container(ref, "/archive"), query={"path": path}, read=_path_stat)


def archive_get(ref: str, path: str) -> Download[Document]:
    return Download(method="GET", path=_container(ref, "/archive"), query={"path": path}, about=_path_stat)


def archive_put(
    ref: str,
    path: str,
    source: BinaryIO,
    *,
    no_overwrite_dir_non_dir: bool = False,
    copy_uid_gid: bool = False,
) -> Call[None]:
    query = {"path": path, "noOverwriteDirNonDir": no_overwrite_dir_non_dir, "copyUIDGID": copy_uid_gid}
    return Call(method="PUT", path=_container(ref, "/archive"), query=query, upload=source, read=_nothing)


def commit(
    ref: str,
    *,
    repository: str = "",
    tag: str = "",
    message: str = "",
    author: str = "",
    changes: Sequence[str] = (),
    pause: bool = True,
    config: Config | None = None,
) -> Call[str]:
    query = {
        "container": ref,
        "repo": repository,
        "tag": tag,
        "comment": message,
        "author": author,
        "changes": list(changes),
        "pause": "1" if pause else "0",
    }
    body = {} if config is None else _without_empty(to_json(config))
    return Call(method="POST", path="/commit", query=query, document=body, read=_at("Id"))


def update(ref: str, request: UpdateRequest) -> Call[Sequence[str]]:
    body = _without_empty(to_json(request))

    def read(answer: Answer) -> Sequence[str]:
        return _object(answer).get("Warnings") or []

    return Call(method="POST", path=_container(ref, "/update"), document=body, read=read)


def prune_containers(filters: Filters | None = None) -> Call[Document]:
    return _prune("containers", filters)


def prune_images(filters: Filters | None = None) -> Call[Document]:
    return _prune("images", filters)


def prune_volumes(filters: Filters | None = None) -> Call[Document]:
    return _prune("volumes", filters)


def _prune(noun: str, filters: Filters | None) -> Call[Document]:
    def read(answer: Answer) -> Document:
        return {key: [] if value is None else value for key, value in _object(answer).items()}

    return Call(method="POST", path=f"/{noun}/prune", query={"filters": _filters(filters)}, read=read)


# Images


def list_images(
    *, all: bool = False, filters: Filters | None = None, shared_size: bool = False, manifests: bool = False
) -> Call[Sequence[Document]]:
    query = {"all": all, "filters": _filters(filters), "shared-size": shared_size, "manifests": manifests}
    return Call(method="GET", path="/images/json", query=query, read=_list)


def inspect_image(ref: str) -> Call[Document]:
    return Call(method="GET", path=_image(ref, "/json"), read=_object)


def history(ref: str) -> Call[Sequence[Document]]:
    return Call(method="GET", path=_image(ref, "/history"), read=_list)


def tag(ref: str, target: str) -> Call[None]:
    name, label = split_tag(target)
    return Call(method="POST", path=_image(ref, "/tag"), query={"repo": name, "tag": label}, read=_nothing)


def remove_image(ref: str, *, force: bool = False, prune: bool = True) -> Call[Sequence[Document]]:
    return Call(method="DELETE", path=_image(ref), query={"force": force, "noprune": not prune}, read=_list)


def import_image(
    source: BinaryIO,
    *,
    reference: str = "",
    changes: Sequence[str] = (),
    message: str = "",
    platform: str = "",
    progress: Progress | None = None,
) -> Work[str]:
    query = {
        "fromSrc": "-",
        "repo": reference,
        "message": message,
        "changes": list(changes),
        "platform": platform,
    }

    def result(said: Sequence[Mapping[str, Any]]) -> str:
        return str(said[-1].get("status", "")) if said else ""

    return Work(method="POST", path="/images/create", query=query, upload=source, progress=progress, result=result)


def pull(
    reference: str,
    *,
    tag: str = "",
    platform: str = "",
    all_tags: bool = False,
    credentials: Credentials | None = None,
    progress: Progress | None = None,
) -> Work[tuple[str, str]]:
    """The result is the name of the image, and its id where the server says that, as dockpd does."""
    name, label = (reference, "") if _has_scheme(reference) else split_tag(reference)
    if all_tags and label:
        raise InvalidArgument("tag can't be used with --all-tags/-a")
    label = tag or label or ("" if _has_scheme(reference) or all_tags else "latest")

    def result(said: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
        ids = [str(message["aux"]["ID"]) for message in said if "ID" in (message.get("aux") or {})]
        tags = [str(message["id"]) for message in said if str(message.get("status")).startswith("Pulling from ")]
        seen = label or (tags[-1] if tags else "")
        full = f"{name}{'@' if ':' in seen else ':'}{seen}" if seen else name
        return full, ids[-1] if ids else ""

    query = {"fromImage": name, "tag": label, "platform": platform}
    return Work(
        method="POST",
        path="/images/create",
        query=query,
        headers=registry_auth(credentials),
        progress=progress,
        result=result,
    )


def registry_auth(credentials: Credentials | None) -> Mapping[str, str]:
    """The header in which credentials for a registry go to the server: Docker's ``AuthConfig``."""
    if credentials is None:
        return {}
    text = json.dumps(_auth_config(credentials))
    return {"X-Registry-Auth": base64.urlsafe_b64encode(text.encode()).decode()}


def _auth_config(credentials: Credentials) -> dict[str, str]:
    document = {
        "username": credentials.username,
        "password": credentials.password,
        "identitytoken": credentials.identity_token,
        "registrytoken": credentials.registry_token,
    }
    return {name: value for name, value in document.items() if value}


def push(
    reference: str, *, platform: str = "", credentials: Credentials | None = None, progress: Progress | None = None
) -> Work[Sequence[Document]]:
    from dockp.spi.images import Credentials

    name, label = split_tag(reference)
    if "@" in reference:
        raise InvalidArgument("cannot push a digest reference")

    def result(said: Sequence[Mapping[str, Any]]) -> Sequence[Document]:
        return [dict(message["aux"]) for message in said if "Digest" in (message.get("aux") or {})]

    return Work(
        method="POST",
        path=_image(name, "/push"),
        query={"tag": label, "platform": _platform(platform)},
        headers=registry_auth(credentials or Credentials()),
        progress=progress,
        result=result,
    )


def search(
    term: str, *, limit: int = 0, filters: Filters | None = None, credentials: Credentials | None = None
) -> Call[Sequence[Document]]:
    query = {"term": term, "limit": str(limit) if limit else "", "filters": _filters(filters)}
    return Call(method="GET", path="/images/search", query=query, headers=registry_auth(credentials), read=_list)


def distribution(reference: str, *, credentials: Credentials | None = None) -> Call[Document]:
    path = f"/distribution/{quoted(reference, safe='/:@')}/json"
    return Call(method="GET", path=path, headers=registry_auth(credentials), read=_object)


def save(refs: Sequence[str], *, platform: str = "") -> Download[None]:
    query = {"names": list(refs), "platform": _platform(platform)}
    return Download(method="GET", path="/images/get", query=query, about=_nothing)


def load(source: BinaryIO, *, platform: str = "", progress: Progress | None = None) -> Work[Sequence[str]]:
    query = {"quiet": progress is None, "platform": _platform(platform)}

    def result(said: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        lines = "".join(str(message.get("stream", "")) for message in said).splitlines()
        return [line.partition(": ")[2] for line in lines if line.startswith(("Loaded image: ", "Loaded image ID: "))]

    return Work(method="POST", path="/images/load", query=query, upload=source, progress=progress, result=result)


def _platform(text: str) -> str:
    """As the API wants it in queries: ``{"os": "linux", "architecture": "arm64", "variant": "v8"}``."""
    parts = dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False)) if text else {}
    return json.dumps(parts) if parts else ""


def _has_scheme(reference: str) -> bool:
    """Whether it names one of dockp's image sources (``oci:dir:tag``) and no repository with a tag."""
    scheme, found, rest = reference.partition(":")
    return bool(found) and scheme in ("oci", "docker-archive", "debootstrap") and bool(rest)


def split_tag(reference: str) -> tuple[str, str]:
    """``name:tag`` or ``name@digest`` in two; the second is "" when there is none."""
    name, found, digest = reference.partition("@")
    if found:
        return name, digest
    name, found, label = reference.rpartition(":")
    return (name, label) if found and "/" not in label else (reference, "")


# Volumes


def create_volume(
    name: str = "",
    *,
    driver: str = "local",
    options: Mapping[str, str] = {},
    labels: Mapping[str, str] = {},
) -> Call[Document]:
    body = {"Name": name, "Driver": driver, "DriverOpts": dict(options), "Labels": dict(labels)}
    return Call(method="POST", path="/volumes/create", document=body, read=_object)


def list_volumes(filters: Filters | None = None) -> Call[Sequence[Document]]:
    def read(answer: Answer) -> Sequence[Document]:
        return _object(answer).get("Volumes") or []

    return Call(method="GET", path="/volumes", query={"filters": _filters(filters)}, read=read)


def inspect_volume(name: str) -> Call[Document]:
    return Call(method="GET", path=f"/volumes/{quoted(name)}", read=_object)


def remove_volume(name: str, *, force: bool = False) -> Call[None]:
    return Call(method="DELETE", path=f"/volumes/{quoted(name)}", query={"force": force}, read=_nothing)


# Networks


def list_networks(filters: Filters | None = None) -> Call[Sequence[Document]]:
    return Call(method="GET", path="/networks", query={"filters": _filters(filters)}, read=_list)


def inspect_network(ref: str) -> Call[Document]:
    return Call(method="GET", path=f"/networks/{quoted(ref)}", read=_object)


# The system


def info() -> Call[Document]:
    return Call(method="GET", path="/info", read=_object)


def version() -> Call[Document]:
    return Call(method="GET", path="/version", read=_object)


def events(*, since: int | None = None, until: int | None = None, filters: Filters | None = None) -> Items[Document]:
    query = {"since": _moment(since), "until": _moment(until), "filters": _filters(filters)}
    return Items(method="GET", path="/events", query=query, decoder=JsonLines)


def disk_usage(types: Sequence[str] = ()) -> Call[Document]:
    return Call(method="GET", path="/system/df", query={"type": list(types)}, read=_object)


def login(server: str, credentials: Credentials) -> Call[Document]:
    body = {**_auth_config(credentials), "serveraddress": server}
    return Call(method="POST", path="/auth", document=body, read=lambda answer: {**_NO_TOKEN, **_object(answer)})


def plugins() -> Call[Sequence[Document]]:
    def read(answer: Answer) -> Sequence[Document]:
        return _object(answer).get("DockpPlugins") or []

    return Call(method="GET", path="/info", read=read)


def problems() -> Call[Sequence[str]]:
    def read(answer: Answer) -> Sequence[str]:
        return _object(answer).get("DockpProblems") or []

    return Call(method="GET", path="/info", read=read)
