"""``inspect``: documents as an indented JSON array, as compact JSON, or through a template, one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dockp.cli.format.evaluator import Kind
from dockp.cli.format.gojson import to_json
from dockp.cli.format.printer import Output
from dockp.spi.errors import DockpError

_KINDS: Mapping[Kind, str] = {
    "pointer": "Health Healthcheck UsageData SizeRw SizeRootFs StopTimeout Init OomKillDisable PidsLimit"
    " MemorySwappiness IPAMConfig ImageManifestDescriptor",
    "list": "Env Cmd Entrypoint Shell OnBuild Args Mounts Binds Links CapAdd CapDrop GroupAdd ExtraHosts"
    " SecurityOpt Dns DnsOptions DnsSearch VolumesFrom Devices DeviceRequests DeviceCgroupRules Ulimits"
    " BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps"
    " MaskedPaths ReadonlyPaths ExecIDs LinkLocalIPs RepoTags RepoDigests Layers Aliases DNSNames Test Log",
    "strings": "Labels Options DriverOpts Sysctls StorageOpt Tmpfs Annotations AuxiliaryAddresses Data",
    "lists": "Ports PortBindings",
    "pointers": "Networks",
    "structs": "Volumes ExposedPorts Containers",
}

SHAPE: Mapping[str, Kind] = {name: kind for kind, names in _KINDS.items() for name in names.split()}
"""What the fields of the Engine API's documents hold, as far as a template can tell it from their JSON.

An absent or null field of these is empty and no error: ``{{if .State.Health}}`` must work on a container
without a health check, and ``{{index .Config.Labels "x"}}`` on one without that label.
"""


def write_inspect(
    out: Output,
    err: Output,
    references: Iterable[str],
    fetch: Callable[[str], Mapping[str, Any]],
    *,
    format: str | None = None,
) -> int:
    """Print what ``references`` name, and a line on ``err`` for each that cannot be shown.

    Args: ``fetch`` gives the document of one reference or raises a DockpError; ``format`` as the user gave
    it: nothing for indented JSON, ``json`` for compact JSON, else a template.
    Returns: the exit code: 0, or 1 when something was not shown.
    Raises: TemplateError, before anything is fetched, for a malformed template (docker exits 64 then).
    """
    template = None
    if format and format != "json":
        from dockp.cli.format.gotemplate import compile

        template = compile(format)
    found: list[Mapping[str, Any]] = []
    lines: list[str] = []
    errors: list[str] = []
    for reference in references:
        try:
            document = fetch(reference)
        except DockpError as error:
            errors.append(f"Error: {error.message}")
            continue
        if template is None:
            found.append(document)
            continue
        try:
            lines.append(template.render(document, missing="error", shape=SHAPE) + "\n")
        except DockpError as error:
            errors.append(error.message)
    if template is not None:
        # An empty line where nothing could be shown is docker's habit, and scripts read a line.
        out.write("".join(lines) or "\n")
    else:
        out.write(to_json(found, indent="" if format == "json" else "    ") + "\n")
    for line in errors:
        err.write(line + "\n")
    return 1 if errors else 0
