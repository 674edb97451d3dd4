"""``start``."""

from __future__ import annotations

from contextlib import closing

from dockp.cli.app import App, Failure, each, warn
from dockp.cli.command import Command
from dockp.cli.flags import STRING, SWITCH, Flag, Values
from dockp.cli.session import pump, signals_sent_to


def start(app: App, values: Values) -> int:
    if values["attach"] or values["interactive"]:
        if len(values.args) > 1:
            raise Failure("you cannot start and attach multiple containers at once")
        return _start_attached(app, values)
    from dockp.spi.errors import DockpError, NotModified

    failed: list[str] = []

    def start_one(name: str) -> None:
        try:
            app.engine.containers.start(name)
        except NotModified:
            return
        except DockpError:
            failed.append(name)
            raise

    code = each(values.args, start_one)
    if failed:
        warn(f"Error: failed to start containers: {', '.join(failed)}")
    return code


def _start_attached(app: App, values: Values) -> int:
    containers = app.engine.containers
    document = containers.inspect(values.args[0])
    id, config = document["Id"], document["Config"]
    stdin = values["interactive"] and config["OpenStdin"]
    condition = "removed" if document["HostConfig"].get("AutoRemove") else "next-exit"
    with signals_sent_to(lambda name: containers.kill(id, name), not config["Tty"]):
        stream = containers.attach(id, stdin=stdin, stdout=True, stderr=True, detach_keys=values["detach-keys"])
        with closing(stream):
            end = containers.begin_wait(id, condition)
            containers.start(id)
            ended = pump(
                stream,
                tty=config["Tty"],
                stdin=stdin,
                resize=lambda rows, columns: containers.resize(id, rows, columns),
            )
        if ended == "detach":
            return 0
        return end().exit_code


START = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    start,
    (
        Flag("attach", "a", SWITCH, "Attach STDOUT/STDERR and forward signals"),
        Flag("detach-keys", "", STRING, "Override the key sequence for detaching a container"),
        Flag("interactive", "i", SWITCH, "Attach container's STDIN"),
    ),
    args=(1, None),
    aliases="dockp container start, dockp start",
    examples=("dockp start web db", "dockp start -ai shell"),
    names="stopped",
)
