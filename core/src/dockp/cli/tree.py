"""Every command's name and place, and the global flags."""

from __future__ import annotations

from typing import Any

import click

from dockp.cli.app import App
from dockp.cli.command import Group

_CONTAINER = {
    "attach": "attach:ATTACH",
    "create": "run:CREATE",
    "exec": "execute:EXEC",
    "inspect": "inspect:CONTAINER_INSPECT",
    "kill": "lifecycle:KILL",
    "logs": "logs:LOGS",
    "ls": "ps:PS",
    "pause": "lifecycle:PAUSE",
    "port": "details:PORT",
    "rename": "lifecycle:RENAME",
    "restart": "lifecycle:RESTART",
    "rm": "lifecycle:REMOVE",
    "run": "run:RUN",
    "start": "start:START",
    "stop": "lifecycle:STOP",
    "top": "details:TOP",
    "unpause": "lifecycle:UNPAUSE",
    "wait": "lifecycle:WAIT",
}
_IMAGE = {
    "history": "history:HISTORY",
    "import": "images:IMPORT",
    "inspect": "inspect:IMAGE_INSPECT",
    "ls": "images:IMAGES",
    "pull": "images:PULL",
    "rm": "images:REMOVE",
    "tag": "images:TAG",
}
_GROUPS = {
    "completion": Group(
        "Print a completion script for a shell",
        {shell: f"completion:{shell.upper()}" for shell in ("bash", "zsh", "fish")},
        epilog="Add it to a shell with: source <(dockp completion bash)",
    ),
    "container": Group("Manage containers", _CONTAINER, also={"list": "ls", "ps": "ls", "remove": "rm"}),
    "image": Group("Manage images", _IMAGE, also={"list": "ls", "remove": "rm"}),
    "network": Group("Look at networks", {"inspect": "networks:INSPECT", "ls": "networks:LIST"}, also={"list": "ls"}),
    "plugin": Group("Look at plug-ins (drivers)", {"ls": "plugins:LIST"}, also={"list": "ls"}),
    "system": Group("Look at the engine", {"info": "system:INFO"}),
    "volume": Group(
        "Manage volumes",
        {
            "create": "volumes:CREATE",
            "inspect": "volumes:INSPECT",
            "ls": "volumes:LIST",
            "rm": "volumes:REMOVE",
        },
        also={"list": "ls", "remove": "rm"},
    ),
}
_SHORT = {name: place for name, place in _CONTAINER.items() if name not in ("inspect", "ls")} | {
    "history": _IMAGE["history"],
    "images": _IMAGE["ls"],
    "import": _IMAGE["import"],
    "info": "system:INFO",
    "inspect": "inspect:INSPECT",
    "ps": _CONTAINER["ls"],
    "pull": _IMAGE["pull"],
    "rmi": _IMAGE["rm"],
    "tag": _IMAGE["tag"],
    "version": "system:VERSION",
}


def _global_flags(version: bool, **flags: Any) -> None:
    context = click.get_current_context()
    if version:
        from dockp import __version__

        click.echo(f"dockp version {__version__}")
        context.exit()
    app = context.find_object(App)
    if app is not None:
        app.configure(flags)


_LEVELS = ("debug", "info", "warn", "error", "fatal")
root = Group(
    "A container engine whose every layer is a plug-in",
    {**_GROUPS, **_SHORT},
    usage="[OPTIONS] COMMAND [ARG...]",
    sections={
        "Common Commands": ("run", "exec", "ps", "pull", "images", "info", "version"),
        "Management Commands": tuple(_GROUPS),
    },
    callback=_global_flags,
    params=[
        click.Option(["--config-file"], metavar="FILE", help="Configuration file"),
        click.Option(["--data-root"], metavar="DIR", help="Where images, containers and volumes are kept"),
        click.Option(["-D", "--debug"], is_flag=True, help="Log more, and show tracebacks"),
        click.Option(["--exec-driver"], metavar="NAME", help="How containers are executed"),
        click.Option(["--exec-opt"], metavar="KEY=VALUE", multiple=True, help="Option of the execution driver"),
        click.Option(["--exec-root"], metavar="DIR", help="Where the state of running containers is kept"),
        click.Option(["-l", "--log-level"], type=click.Choice(_LEVELS), help="Least level to log"),
        click.Option(["--storage-driver"], metavar="NAME", help="How layers of images and containers are stored"),
        click.Option(["--storage-opt"], metavar="KEY=VALUE", multiple=True, help="Option of the storage driver"),
        click.Option(["-v", "--version"], is_flag=True, help="Print version information and quit"),
    ],
    epilog="Run 'dockp COMMAND --help' for more information on a command.",
)
