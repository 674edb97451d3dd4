"""``top`` and ``port``."""

from __future__ import annotations

from dockp.cli.app import App, Failure
from dockp.cli.command import Command
from dockp.cli.flags import Values, go_int
from dockp.cli.rendering import natural


def top(app: App, values: Values) -> None:
    from dockp.cli.format.printer import align

    table = app.engine.containers.top(values.args[0], " ".join(values.args[1:]))
    lines = ["\t".join(row) for row in (table.titles, *table.processes)]
    print(align("\n".join(lines), min_width=20))


def port(app: App, values: Values) -> None:
    name = values.args[0]
    ports = app.engine.containers.inspect(name)["NetworkSettings"].get("Ports") or {}
    lines = []
    if len(values.args) > 1:
        wanted = values.args[1]
        number, _, protocol = wanted.partition("/")
        try:
            go_int(number, 16, base=10, signed=False)
        except ValueError as error:
            raise Failure(f"Error: invalid port ({number}): {error}") from None
        for binding in ports.get(f"{number}/{protocol or 'tcp'}") or ():
            lines.append(_address(binding))
        if not lines:
            raise Failure(f"Error: No public port '{wanted}' published for {name}")
    else:
        for inside, bindings in ports.items():
            lines += [f"{inside} -> {_address(binding)}" for binding in bindings or ()]
    for line in sorted(lines, key=natural):
        print(line)


def _address(binding: dict[str, str]) -> str:
    host = binding["HostIp"]
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"


TOP = Command(
    "CONTAINER [ps OPTIONS]",
    "Display the running processes of a container",
    top,
    args=(1, None),
    interspersed=False,
    aliases="dockp container top, dockp top",
    examples=("dockp top web", "dockp top web -eo pid,comm"),
    names="running",
)
PORT = Command(
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List port mappings or a specific mapping for the container",
    port,
    args=(1, 2),
    aliases="dockp container port, dockp port",
    examples=("dockp port web", "dockp port web 80/tcp"),
    names="container",
)
