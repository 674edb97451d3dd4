"""Commands that do one thing to each named container: stop, restart, kill, pause, unpause, rm, wait, rename."""

from __future__ import annotations

from dockp.cli.app import App, Failure, each, error_text, warn
from dockp.cli.command import Command
from dockp.cli.flags import INT, STRING, SWITCH, Flag, Values

_MANY = "CONTAINER [CONTAINER...]"


def _timeout(values: Values) -> int | None:
    if "time" in values.given and "timeout" in values.given:
        raise Failure("conflicting options: cannot specify both --timeout and --time")
    for name in ("timeout", "time"):
        if name in values.given:
            seconds: int = values[name]
            return seconds
    return None


def stop(app: App, values: Values) -> int:
    from dockp.spi.errors import NotModified

    timeout = _timeout(values)
    containers = app.engine.containers

    def stop_one(name: str) -> None:
        try:
            containers.stop(name, timeout, values["signal"])
        except NotModified:
            return

    return each(values.args, stop_one, parallel=True)


def restart(app: App, values: Values) -> int:
    timeout = _timeout(values)
    containers = app.engine.containers
    return each(values.args, lambda name: containers.restart(name, timeout, values["signal"]), parallel=True)


def kill(app: App, values: Values) -> int:
    containers = app.engine.containers
    return each(values.args, lambda name: containers.kill(name, values["signal"] or "KILL"), parallel=True)


def pause(app: App, values: Values) -> int:
    return each(values.args, app.engine.containers.pause, parallel=True)


def unpause(app: App, values: Values) -> int:
    return each(values.args, app.engine.containers.unpause, parallel=True)


def remove(app: App, values: Values) -> int:
    from dockp.spi.errors import InvalidArgument, NotFound

    if values["link"]:
        raise Failure("Error: removing links of containers is not supported")
    containers = app.engine.containers

    def remove_one(name: str) -> None:
        if not name.strip("/"):
            raise InvalidArgument("container name cannot be empty")
        containers.remove(name.strip("/"), force=values["force"], volumes=values["volumes"])

    # With --force an absent container is as good as removed.
    return each(values.args, remove_one, parallel=True, forgive=(NotFound,) if values["force"] else ())


def wait(app: App, values: Values) -> int:
    from dockp.spi.errors import DockpError

    code = 0
    for name in values.args:
        try:
            print(app.engine.containers.wait(name, values["condition"]).exit_code, flush=True)
        except DockpError as error:
            warn(error_text(error))
            code = 1
    return code


def rename(app: App, values: Values) -> int:
    from dockp.spi.errors import DockpError

    old, new = (text.strip() for text in values.args)
    if not old or not new:
        raise Failure("Error: Neither old nor new names may be empty")
    try:
        app.engine.containers.rename(old, new)
    except DockpError as error:
        warn(error_text(error))
        raise Failure(f"Error: failed to rename container named {old}") from None
    return 0


_SIGNAL = Flag("signal", "s", STRING, "Signal to send to the container")
_STOPPING = (
    _SIGNAL,
    Flag("time", "", INT, "Seconds to wait before killing the container", hidden=True),
    Flag("timeout", "t", INT, "Seconds to wait before killing the container"),
)

STOP = Command(
    f"[OPTIONS] {_MANY}",
    "Stop one or more running containers",
    stop,
    _STOPPING,
    args=(1, None),
    aliases="dockp container stop, dockp stop",
    examples=("dockp stop web", "dockp stop -t 30 web db"),
    names="running",
)
RESTART = Command(
    f"[OPTIONS] {_MANY}",
    "Restart one or more containers",
    restart,
    _STOPPING,
    args=(1, None),
    aliases="dockp container restart, dockp restart",
    examples=("dockp restart web", "dockp restart -s SIGINT -t 5 web"),
    names="container",
)
KILL = Command(
    f"[OPTIONS] {_MANY}",
    "Kill one or more running containers",
    kill,
    (_SIGNAL,),
    args=(1, None),
    aliases="dockp container kill, dockp kill",
    examples=("dockp kill web", "dockp kill -s HUP web"),
    names="running",
)
PAUSE = Command(
    _MANY,
    "Pause all processes within one or more containers",
    pause,
    args=(1, None),
    aliases="dockp container pause, dockp pause",
    examples=("dockp pause web", "dockp pause web db"),
    names="running",
)
UNPAUSE = Command(
    _MANY,
    "Unpause all processes within one or more containers",
    unpause,
    args=(1, None),
    aliases="dockp container unpause, dockp unpause",
    examples=("dockp unpause web", "dockp unpause web db"),
    names="paused",
)
REMOVE = Command(
    f"[OPTIONS] {_MANY}",
    "Remove one or more containers",
    remove,
    (
        Flag("force", "f", SWITCH, "Force the removal of a running container (uses SIGKILL)"),
        Flag("link", "l", SWITCH, "Remove the specified link"),
        Flag("volumes", "v", SWITCH, "Remove anonymous volumes associated with the container"),
    ),
    args=(1, None),
    aliases="dockp container rm, dockp container remove, dockp rm",
    examples=("dockp rm web", "dockp rm -fv web db"),
    names="container",
)
WAIT = Command(
    _MANY,  # without [OPTIONS], as Docker's, which has none: --condition is ours
    "Block until one or more containers stop, then print their exit codes",
    wait,
    (
        Flag(
            "condition",
            "",
            STRING,
            "What to wait for",
            default="not-running",
            choices=("not-running", "next-exit", "removed"),
        ),
    ),
    args=(1, None),
    aliases="dockp container wait, dockp wait",
    examples=("dockp wait job", "dockp wait --condition removed job other"),
    names="container",
)
RENAME = Command(
    "CONTAINER NEW_NAME",
    "Rename a container",
    rename,
    args=(2, 2),
    aliases="dockp container rename, dockp rename",
    examples=("dockp rename web old-web", "dockp container rename web www"),
    names="container",
)
