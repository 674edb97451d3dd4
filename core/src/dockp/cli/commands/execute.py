"""``exec``."""

from __future__ import annotations

import os
from contextlib import closing

from dockp.cli import readers
from dockp.cli.app import App, Failure
from dockp.cli.command import Command
from dockp.cli.flags import LIST, STRING, SWITCH, Flag, Values, listing
from dockp.cli.session import check_terminal, pump, window_size


def execute(app: App, values: Values) -> int:
    from dockp.cli.create_request import read_pairs
    from dockp.containers.model import ExecConfig
    from dockp.spi.errors import InvalidArgument, StartFailure

    try:
        env = read_pairs(values["env-file"], values["env"], os.environ.get)
    except ValueError as error:
        raise Failure(str(error)) from None
    attached, tty = not values["detach"], values["tty"]
    stdin = attached and values["interactive"]
    containers = app.engine.containers
    if attached:
        # A name that does not exist is worth more to the user than a complaint about the terminal.
        containers.inspect(values.args[0])
        check_terminal(stdin, tty)
    config = ExecConfig(
        attach_stdin=stdin,
        attach_stdout=attached,
        attach_stderr=attached,
        detach_keys=values["detach-keys"],
        tty=tty,
        env=tuple(env),
        cmd=tuple(values.args[1:]),
        privileged=values["privileged"],
        user=values["user"],
        working_dir=values["workdir"],
        console_size=window_size() if tty else (0, 0),
    )
    id = containers.exec_create(values.args[0], config)
    try:
        stream = containers.exec_start(id, detach=not attached, tty=tty)
    except StartFailure as error:
        raise Failure(f"Error: {error}", 127 if error.kind == "not-found" else 126) from None
    except InvalidArgument as error:  # no such user or group in the container
        raise Failure(f"Error: {error}", 126) from None
    if stream is None:
        return 0
    with closing(stream):
        ended = pump(
            stream, tty=tty, stdin=stdin, resize=lambda rows, columns: containers.exec_resize(id, rows, columns)
        )
    if ended == "detach":
        raise Failure("read escape sequence")
    return containers.exec_wait(id)


EXEC = Command(
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    execute,
    (
        Flag("detach", "d", SWITCH, "Detached mode: run command in the background"),
        Flag("detach-keys", "", STRING, "Override the key sequence for detaching a container"),
        Flag("env", "e", listing(readers.env), "Set environment variables"),
        Flag("env-file", "", LIST, "Read in a file of environment variables"),
        Flag("interactive", "i", SWITCH, "Keep STDIN open even if not attached"),
        Flag("privileged", "", SWITCH, "Give extended privileges to the command"),
        Flag("tty", "t", SWITCH, "Allocate a pseudo-TTY"),
        Flag("user", "u", STRING, 'Username or UID (format: "<name|uid>[:<group|gid>]")'),
        Flag("workdir", "w", STRING, "Working directory inside the container"),
    ),
    args=(2, None),
    interspersed=False,
    aliases="dockp container exec, dockp exec",
    examples=("dockp exec -it web bash", "dockp exec -u www-data -w /srv -e A=1 web ls -l"),
    names="running",
)
