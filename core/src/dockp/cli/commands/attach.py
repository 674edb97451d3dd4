"""``attach``."""

from __future__ import annotations

from contextlib import closing

from dockp.cli.app import App, Failure
from dockp.cli.command import Command
from dockp.cli.flags import STRING, SWITCH, Flag, Values
from dockp.cli.session import check_terminal, pump, signals_sent_to, window_size


def attach(app: App, values: Values) -> int:
    containers = app.engine.containers
    document = containers.inspect(values.args[0])
    state, config, id = document["State"], document["Config"], document["Id"]
    if not state["Running"]:
        raise Failure("You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise Failure("You cannot attach to a paused container, unpause it first")
    if state.get("Restarting"):
        raise Failure("You cannot attach to a restarting container, wait until it is running")
    check_terminal(not values["no-stdin"], config["Tty"])
    stdin = not values["no-stdin"] and config["OpenStdin"]

    def resize(rows: int, columns: int) -> None:
        containers.resize(id, rows, columns)

    with signals_sent_to(lambda name: containers.kill(id, name), values["sig-proxy"] and not config["Tty"]):
        stream = containers.attach(id, stdin=stdin, stdout=True, stderr=True, detach_keys=values["detach-keys"])
        with closing(stream):
            rows, columns = window_size()
            if config["Tty"] and rows:
                # A program redraws its screen when the size changes, and only then: so it must change, if only briefly.
                resize(rows + 1, columns + 1)
                resize(rows, columns)
            ended = pump(stream, tty=config["Tty"], stdin=stdin, resize=resize)
        if ended == "detach":
            raise Failure("read escape sequence")
        result = containers.wait(id)
    if result.error:
        raise Failure(result.error)
    return result.exit_code


ATTACH = Command(
    "[OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    attach,
    (
        Flag("detach-keys", "", STRING, "Override the key sequence for detaching a container"),
        Flag("no-stdin", "", SWITCH, "Do not attach STDIN"),
        Flag("sig-proxy", "", SWITCH, "Proxy all received signals to the process", default=True),
    ),
    args=(1, 1),
    aliases="dockp container attach, dockp attach",
    examples=("dockp attach web", "dockp attach --no-stdin --sig-proxy=false web"),
    names="running",
)
