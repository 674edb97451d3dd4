"""``info`` and ``version``."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dockp.cli.app import App, warn
from dockp.cli.command import Command
from dockp.cli.flags import Values
from dockp.cli.rendering import INSPECT_FORMAT, write_document


def info(app: App, values: Values) -> None:
    document = app.engine.system.info()
    if values["format"]:
        write_document(document, values["format"])
        return
    print("Client:")
    for line in _client(app):
        print(f" {line}")
    print("\nServer:")
    for line in _server(document):
        print(f" {line}")
    print()
    sys.stdout.flush()
    for problem in [*(document.get("Warnings") or ()), *app.engine.system.problems()]:
        warn(problem if problem.startswith("WARNING") else f"WARNING: {problem}")


def _client(app: App) -> Iterable[str]:
    from dockp import __version__
    from dockp.cli.hosts import choose

    yield f"Version:    {__version__}"
    yield f"Context:    {choose(app.flags, os.environ).context}"
    yield f"Debug Mode: {_go_bool(app.debug)}"


def _go_bool(value: object) -> str:
    return "true" if value else "false"


def _server(document: Mapping[str, Any]) -> Iterable[str]:
    """The lines of Docker's ``info`` that mean something here, in Docker's order, and the table of drivers."""
    from dockp.units import bytes_size

    yield f"Containers: {document.get('Containers', 0)}"
    for state in ("Running", "Paused", "Stopped"):
        yield f" {state}: {document.get(f'Containers{state}', 0)}"
    yield f"Images: {document.get('Images', 0)}"
    yield from _given(document, {"ServerVersion": "Server Version", "Driver": "Storage Driver"})
    for name, value in document.get("DriverStatus") or ():
        yield f" {name}: {value}"
    names = {"LoggingDriver": "Logging Driver", "CgroupDriver": "Cgroup Driver", "CgroupVersion": "Cgroup Version"}
    yield from _given(document, names)
    plugins = document.get("Plugins") or {}
    yield "Plugins:"
    for kind in ("Volume", "Network", "Authorization", "Log"):
        if plugins.get(kind) or kind != "Authorization":
            yield f" {kind}: {' '.join(plugins.get(kind) or ())}"
    yield from _drivers(document.get("DockpPlugins") or ())
    runtimes = document.get("Runtimes")
    if runtimes:
        yield f"Runtimes: {' '.join(sorted(runtimes))}"
        yield f"Default Runtime: {document.get('DefaultRuntime', '')}"
    yield from _security(document.get("SecurityOptions") or ())
    yield from _given(
        document,
        {
            "KernelVersion": "Kernel Version",
            "OperatingSystem": "Operating System",
            "OSType": "OSType",
            "Architecture": "Architecture",
        },
    )
    yield f"CPUs: {document.get('NCPU', 0)}"
    yield f"Total Memory: {bytes_size(document.get('MemTotal', 0))}"
    yield from _given(document, {"Name": "Name", "ID": "ID"})
    yield f"Docker Root Dir: {document.get('DockerRootDir', '')}"
    yield f"Debug Mode: {_go_bool(document.get('Debug'))}"
    proxies = {"HttpProxy": "HTTP Proxy", "HttpsProxy": "HTTPS Proxy", "NoProxy": "No Proxy"}
    yield from _given(document, proxies)
    if document.get("Labels"):
        yield "Labels:"
        yield from (f" {label}" for label in document["Labels"])
    yield f"Experimental: {_go_bool(document.get('ExperimentalBuild'))}"
    yield from _registries(document.get("RegistryConfig") or {})
    yield f"Live Restore Enabled: {_go_bool(document.get('LiveRestoreEnabled'))}"
    pools = document.get("DefaultAddressPools") or ()
    if pools:
        yield "Default Address Pools:"
        yield from (f"  Base: {pool['Base']}, Size: {pool['Size']}" for pool in pools)


def _registries(document: Mapping[str, Any]) -> Iterable[str]:
    """Those of any registry: Docker shows the mirrors of its own."""
    indexes = document.get("IndexConfigs") or {}
    networks = document.get("InsecureRegistryCIDRs") or ()
    if networks or indexes:
        yield "Insecure Registries:"
        yield from (f" {name}" for name, index in indexes.items() if not index["Secure"])
        yield from (f" {network}" for network in networks)
    mirrors = [f" {mirror}" for mirror in document.get("Mirrors") or ()]
    for name, index in indexes.items():
        if not index.get("Official"):
            mirrors += [f" {mirror} (of {name})" for mirror in index.get("Mirrors") or ()]
    if mirrors:
        yield "Registry Mirrors:"
        yield from mirrors


def _given(document: Mapping[str, Any], names: Mapping[str, str]) -> Iterable[str]:
    return (f"{title}: {document[key]}" for key, title in names.items() if document.get(key))


def _security(options: Sequence[str]) -> Iterable[str]:
    if options:
        yield "Security Options:"
    for option in options:
        parts = dict(part.partition("=")[::2] for part in option.split(","))
        yield f" {parts.get('name', option)}"
        if "profile" in parts:
            yield f"  Profile: {parts['profile']}"


def _drivers(documents: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """dockp's own part: every driver, the default marked with a star, its features, or why it cannot work here."""
    if not documents:
        return
    from dockp.cli.format.printer import align

    lines = []
    for document in documents:
        name = f"{document['Kind']}/{document['Name']}{'*' if document.get('Default') else ''}"
        origin = f"{document['Distribution']} {document['Version']}"
        if document["Supported"]:
            state = " ".join(sorted(document.get("Features") or ())) or "-"
        else:
            state = f"not supported: {document.get('Reason') or 'no reason given'}"
        lines.append(f"{name}\t{origin}\t{state}")
    yield "Drivers:"
    yield from (f" {line}".rstrip() for line in align("\n".join(lines), 0, 2).split("\n"))


def version(app: App, values: Values) -> None:
    from dockp.spi.errors import DockpError

    server: Mapping[str, Any] | None = None
    failure: DockpError | None = None
    try:
        server = app.engine.system.version()
    except DockpError as error:
        failure = error  # what the client is can be told all the same
    client = _client_version(app, server or {})
    if values["format"]:
        write_document({"Client": client, "Server": server}, values["format"])
    else:
        _section("Client:", _rows(client))
        if server is not None:
            _print_server(server)
    if failure is not None:
        raise failure


def _client_version(app: App, server: Mapping[str, Any]) -> dict[str, str]:
    from dockp import __version__
    from dockp.cli.hosts import choose
    from dockp.remote.calls import NEWEST, read_version

    newest = f"{NEWEST[0]}.{NEWEST[1]}"
    used = os.environ.get("DOCKER_API_VERSION") or server.get("ApiVersion") or newest
    return {
        "Version": __version__,
        "ApiVersion": newest if read_version(used) >= NEWEST else used,
        "DefaultAPIVersion": newest,
        "PythonVersion": platform.python_version(),
        "Os": sys.platform,
        "Arch": _architecture(),
        "Context": choose(app.flags, os.environ).context,
    }


def _print_server(server: Mapping[str, Any]) -> None:
    print(f"\nServer: {(server.get('Platform') or {}).get('Name', '')}".rstrip())
    for component in server.get("Components") or ():
        details = {"Version": str(component["Version"]), **(component.get("Details") or {})}
        _section(f" {component['Name']}:", _rows(details), "  ")


_TITLES = {
    "Version": "Version",
    "ApiVersion": "API version",
    "GoVersion": "Go version",
    "PythonVersion": "Python version",
    "GitCommit": "Git commit",
    "BuildTime": "Built",
    "OS/Arch": "OS/Arch",
    "Experimental": "Experimental",
    "Context": "Context",
}
"""The rows of an engine or a client, in Docker's order; other components show their details by their own names."""


def _rows(details: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is known of a client or a component, as Docker shows it."""
    if "Os" not in details:
        version = [("Version", details["Version"])]
        return version + sorted((name, str(value)) for name, value in details.items() if name != "Version")
    shown = {**details, "OS/Arch": f"{details['Os']}/{details.get('Arch', '')}"}
    if details.get("MinAPIVersion"):
        shown["ApiVersion"] += f" (minimum version {details['MinAPIVersion']})"
    elif details.get("DefaultAPIVersion", details.get("ApiVersion")) != details.get("ApiVersion"):
        shown["ApiVersion"] += f" (downgraded from {details['DefaultAPIVersion']})"
    if details.get("BuildTime"):
        shown["BuildTime"] = _built(details["BuildTime"])
    return [(title, str(shown[name])) for name, title in _TITLES.items() if name in shown]


def _built(stamp: str) -> str:
    """``2026-05-07T21:09:36.000000000+00:00`` as C's asctime writes it; other texts as they are."""
    try:
        return time.asctime(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return stamp


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _section(title: str, rows: Sequence[tuple[str, str]], indent: str = " ") -> None:
    from dockp.cli.format.printer import align

    print(title)
    if rows:
        print(align("\n".join(f"{indent}{name}:\t{value}" for name, value in rows), 20, 1))


INFO = Command(
    "[OPTIONS]",
    "Display system-wide information",
    info,
    (INSPECT_FORMAT,),
    args=(0, 0),
    aliases="dockp system info, dockp info",
    examples=("dockp info", "dockp info -f '{{.Driver}}'"),
)
VERSION = Command(
    "[OPTIONS]",
    "Show the version information",
    version,
    (INSPECT_FORMAT,),
    args=(0, 0),
    examples=("dockp version", "dockp version -f '{{.Client.Version}}'"),
)
