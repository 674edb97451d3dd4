"""``context``."""

from __future__ import annotations

import os
import sys
from typing import Any

from dockp.cli import hosts
from dockp.cli.app import App, Failure, each, warn
from dockp.cli.command import Command
from dockp.cli.flags import STRING, SWITCH, Flag, Kind, Values
from dockp.cli.format.printer import Column, Listing
from dockp.cli.rendering import INSPECT_FORMAT, LIST_FORMAT, write_documents
from dockp.remote.contexts import DEFAULT, Context, ContextStore

LISTING = Listing(
    "formatter.clientContextContext",
    [
        Column("Name", "NAME"),
        Column("Description", "DESCRIPTION"),
        Column("DockerEndpoint", "DOCKER ENDPOINT"),
        Column("Error", "ERROR"),
        Column("Current", ""),
    ],
    default="table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
    quiet="{{.Name}}",
)
_IN_MEMORY = "<IN MEMORY>"


def _store(app: App) -> ContextStore:
    return hosts.store(app.flags, os.environ)


def _default(app: App) -> Context:
    without = {name: value for name, value in app.flags.items() if name != "context"}
    environ = {name: value for name, value in os.environ.items() if name != "DOCKER_CONTEXT"}
    environ["DOCKER_CONFIG"] = os.devnull  # what is used when no context is: so none may be current
    return Context(name=DEFAULT, host=hosts.choose(without, environ).host)


def _active(app: App) -> str:
    """The name of the context in use; an address given by hand is the default's."""
    if app.flags.get("context"):
        return str(app.flags["context"])
    if app.flags.get("host") or os.environ.get("DOCKP_HOST") or os.environ.get("DOCKER_HOST"):
        return DEFAULT
    return os.environ.get("DOCKER_CONTEXT") or _store(app).current


def _warn_of_host(to_use: str) -> None:
    for variable in ("DOCKP_HOST", "DOCKER_HOST"):
        if os.environ.get(variable):
            warn(
                f"Warning: {variable} environment variable overrides the active context. To use {to_use}, either set "
                f"the global --context flag, or unset {variable} environment variable."
            )
            return


def list_(app: App, values: Values) -> None:
    active = _active(app)
    default = _default(app)
    rows: list[dict[str, Any]] = []
    for context in sorted((default, *_store(app).all()), key=lambda context: context.name):
        described = "Current DOCKER_HOST based configuration" if context is default else context.description
        rows.append(
            {
                "Name": context.name,
                "Description": described,
                "DockerEndpoint": context.host,
                "Error": "",
                "Current": context.name == active,
            }
        )
    format = values["format"] or None
    LISTING.write(sys.stdout, rows, format=format, quiet=values["quiet"] and format in (None, "table"))
    if not values["quiet"]:
        _warn_of_host("a context")


def show(app: App, values: Values) -> None:
    print(_active(app))


def use(app: App, values: Values) -> None:
    name = values.args[0]
    _store(app).use(name)
    print(name)
    warn(f'Current context is now "{name}"')
    if name != DEFAULT:
        _warn_of_host(f'"{name}"')


def inspect(app: App, values: Values) -> int:
    if not values.args:
        values.args.append(_active(app))
    kept = _store(app)

    def fetch(name: str) -> dict[str, Any]:
        if name == DEFAULT:
            storage = {"MetadataPath": _IN_MEMORY, "TLSPath": _IN_MEMORY}
            return {**_default(app).document(), "TLSMaterial": {}, "Storage": storage}
        context, files = kept.get(name), kept.tls_files(name)
        storage = {"MetadataPath": kept.metadata_path(name), "TLSPath": kept.tls_path(name)}
        return {**context.document(), "TLSMaterial": {"docker": files} if files else {}, "Storage": storage}

    return write_documents(values, fetch)


def create(app: App, values: Values) -> None:
    kept, name = _store(app), values.args[0]
    source = values["from"]
    endpoint = values["docker"]
    if source and endpoint:
        raise Failure("cannot use --docker flag when --from is set")
    # Without an address it is the one that is in use now, as Docker does it.
    base = _named(app, source or ("" if endpoint else _active(app)))
    context, files = _with_endpoint(app, base, endpoint)
    description = values["description"] or (base.description if source else "")
    kept.add(_evolve(context, name=name, description=description), files)
    print(name)
    warn(f'Successfully created context "{name}"')


def update(app: App, values: Values) -> None:
    kept, name = _store(app), values.args[0]
    if name == DEFAULT:
        raise Failure('"default" is a reserved context name')
    before = kept.get(name)
    context, files = _with_endpoint(app, before, values["docker"])
    if "description" in values.given:
        context = _evolve(context, description=values["description"])
    kept.add(_evolve(context, name=name), files, replace=True)
    print(name)
    warn(f'Successfully updated context "{name}"')


def remove(app: App, values: Values) -> int:
    kept = _store(app)
    return each(values.args, lambda name: kept.remove(name, force=values["force"]))


def _named(app: App, name: str) -> Context:
    if not name:
        return Context(name="", host="")
    return _default(app) if name == DEFAULT else _store(app).get(name)


def _evolve(context: Context, **changes: Any) -> Context:
    from attrs import evolve

    return evolve(context, **changes)


_ENDPOINT_KEYS = ("from", "host", "ca", "cert", "key", "skip-tls-verify")


def _with_endpoint(app: App, base: Context, given: dict[str, str]) -> tuple[Context, dict[str, bytes]]:
    """``base`` with the endpoint that ``--docker`` describes, and the contents of its TLS files."""
    unknown = next((key for key in given if key not in _ENDPOINT_KEYS), None)
    if unknown is not None:
        raise Failure(f"unrecognized config key: {unknown}")
    if given.get("from"):
        base = _evolve(_named(app, given["from"]), description=base.description)
        given = {}
    files = {}
    if not given:
        tls = base.tls
        named = {"ca": tls.ca, "cert": tls.cert, "key": tls.key} if tls else {}
    else:
        from dockp.remote.endpoint import parse_host

        skip = given.get("skip-tls-verify", "").lower() in ("1", "t", "true")
        host = given.get("host") or hosts.DEFAULT_HOST
        parse_host(host)
        base = _evolve(base, host=host, skip_verify=skip)
        named = {kind: given[kind] for kind in ("ca", "cert", "key") if given.get(kind)}
    for kind, path in named.items():
        if path:
            with open(path, "rb") as file:
                files[kind] = file.read()
    return base, files


def _pairs(text: str) -> dict[str, str]:
    found = {}
    for item in text.split(","):
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"{item} must be formatted as key=value")
        found[key.strip()] = value
    return found


_PAIRS = Kind("stringToString", _pairs, {})
_DOCKER = Flag("docker", "", _PAIRS, "Set the docker endpoint: host=, ca=, cert=, key=, skip-tls-verify=, from=")
_DESCRIPTION = Flag("description", "", STRING, "Description of the context")

LIST = Command(
    "[OPTIONS]",
    "List contexts",
    list_,
    (LIST_FORMAT, Flag("quiet", "q", SWITCH, "Only show context names")),
    args=(0, 0),
    aliases="dockp context ls, dockp context list",
    examples=("dockp context ls",),
)
SHOW = Command("", "Print the name of the current context", show, args=(0, 0), examples=("dockp context show",))
USE = Command(
    "CONTEXT",
    "Set the current docker context",
    use,
    args=(1, 1),
    examples=("dockp context use far", "dockp context use default"),
)
INSPECT = Command(
    "[OPTIONS] [CONTEXT] [CONTEXT...]",
    "Display detailed information on one or more contexts",
    inspect,
    (INSPECT_FORMAT,),
    examples=("dockp context inspect far",),
)
CREATE = Command(
    "[OPTIONS] CONTEXT",
    "Create a context",
    create,
    (_DESCRIPTION, _DOCKER, Flag("from", "", STRING, "Create context from a named context")),
    args=(1, 1),
    examples=(
        "dockp context create far --docker host=ssh://me@far.example",
        "dockp context create safe --docker host=tcp://far.example:2376,ca=ca.pem,cert=cert.pem,key=key.pem",
    ),
)
UPDATE = Command(
    "[OPTIONS] CONTEXT",
    "Update a context",
    update,
    (_DESCRIPTION, _DOCKER),
    args=(1, 1),
    examples=("dockp context update far --description 'the big one'",),
)
REMOVE = Command(
    "CONTEXT [CONTEXT...]",
    "Remove one or more contexts",
    remove,
    (Flag("force", "f", SWITCH, "Force the removal of a context in use"),),
    args=(1, None),
    aliases="dockp context rm, dockp context remove",
    examples=("dockp context rm far",),
)
