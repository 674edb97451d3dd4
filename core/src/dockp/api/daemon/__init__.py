"""The process ``dockpd``: `main` is the console script. What it is told is in `options`, what it does in `process`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

_EXAMPLES = """
Examples:
  dockpd
  dockpd -H unix:///run/dockp.sock -G docker
  dockpd -H tcp://0.0.0.0:2376 --tlsverify --tlscacert ca.pem --tlscert cert.pem --tlskey key.pem
  dockpd --config-file /etc/docker/daemon.json --validate
  dockpd -H unix:///run/second.sock --data-root /srv/second --exec-root /run/second --cgroup-parent second
"""


def main() -> NoReturn:
    """Run the daemon as ``sys.argv`` says and end the process with its exit code."""
    import os
    import sys

    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
    # Threads may still wait for drivers and clients; what they do is safe to cut off at any point.
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Be the daemon until it is told to stop; the exit code, dockerd's: 1 for whatever is wrong. Raises nothing."""
    import sys

    import dockp
    from dockp.api.daemon.settings import load, read_flags
    from dockp.cli.flags import UsageError
    from dockp.spi.errors import DockpError

    try:
        values = read_flags(arguments)
    except UsageError as error:
        return _refuse(f"{error}\nSee 'dockpd --help'.")
    if "help" in values.given:
        sys.stdout.write(_help())
        return 0
    if values["version"]:
        sys.stdout.write(f"dockpd version {dockp.__version__}\n")
        return 0
    if values.args:
        return _refuse("\"dockpd\" accepts no argument(s).\nSee 'dockpd --help'.")
    try:
        settings = load(values)
        if values["validate"]:
            sys.stderr.write("configuration OK\n")
            return 0
        from dockp.api.daemon.process import Daemon

        return Daemon(settings, values).run()
    except DockpError as error:
        return _refuse(f"failed to start daemon: {error}")
    except Exception as error:
        if values["debug"]:
            import traceback

            traceback.print_exc()
        return _refuse(f"failed to start daemon: {type(error).__name__}: {error} (run with --debug for the traceback)")


def _refuse(text: str) -> int:
    import sys

    sys.stderr.write(f"{text}\n")
    return 1


def _help() -> str:
    from dockp.api.daemon.options import COMMAND_FLAGS, OPTIONS

    flags = sorted(
        (flag for flag in (*COMMAND_FLAGS, *(option.flag for option in OPTIONS)) if flag.name and not flag.hidden),
        key=lambda flag: flag.name,
    )
    lines = ["Usage:  dockpd [OPTIONS]", "", "A container engine that speaks the Docker Engine API.", "", "Options:"]
    for flag in flags:
        letter = f"-{flag.short}, " if flag.short else "    "
        lines.append(f"  {letter}{f'--{flag.name} {flag.kind.word}'.rstrip():32} {flag.help}")
    lines += ["", "Other options of dockerd are accepted where they ask for what is so anyway, and refused where not."]
    return "\n".join(lines) + "\n" + _EXAMPLES
