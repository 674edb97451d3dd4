"""The process of a container: what the image says and what the user says, made one.

Source: Docker's merging rules (``docker run`` reference, "Overriding image defaults") and OCI image-spec ``config.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import evolve

from dockp.containers.model import Config, Healthcheck, HostConfig
from dockp.spi.errors import InvalidArgument

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def merge(config: Config, image: Config) -> Config:
    """``config`` with everything it leaves open taken from the image. Raises InvalidArgument."""
    entrypoint, command = config.entrypoint, config.cmd
    if entrypoint is None:
        entrypoint = image.entrypoint
        if command is None or not command:
            command = image.cmd
    elif entrypoint == ("",):
        entrypoint = None  # reset: the image's own is not used either
    exposed = {**image.exposed_ports, **config.exposed_ports}
    working_dir = config.working_dir or image.working_dir
    if working_dir and not working_dir.startswith("/"):
        raise InvalidArgument(f"the working directory '{working_dir}' is invalid, it needs to be an absolute path")
    return evolve(
        config,
        entrypoint=entrypoint,
        cmd=command,
        env=_env(config.env, image.env),
        user=config.user or image.user,
        working_dir=working_dir,
        labels={**image.labels, **config.labels},
        exposed_ports=exposed,
        volumes={**image.volumes, **config.volumes},
        stop_signal=config.stop_signal or image.stop_signal,
        stop_timeout=config.stop_timeout if config.stop_timeout is not None else image.stop_timeout,
        healthcheck=_health(config.healthcheck, image.healthcheck),
        shell=config.shell or image.shell,
        on_build=config.on_build or image.on_build,
    )


def _health(mine: Healthcheck | None, theirs: Healthcheck | None) -> Healthcheck | None:
    if mine is None or theirs is None:
        return mine or theirs
    given: dict[str, Any] = {
        name: getattr(mine, name) or getattr(theirs, name)
        for name in ("test", "interval", "timeout", "retries", "start_period", "start_interval")
    }
    return Healthcheck(**given)


def _env(mine: Iterable[str], theirs: Iterable[str]) -> tuple[str, ...]:
    """Ours first, as Docker lists them. A name alone stays, since it is what keeps the image's variable out."""
    given = tuple(mine)
    names = {entry.partition("=")[0] for entry in given}
    return (*given, *(entry for entry in theirs if entry.partition("=")[0] not in names))


def merge_env(lower: Iterable[str], upper: Iterable[str]) -> list[str]:
    """``upper`` over ``lower``; an entry without ``=`` removes that variable."""
    merged: dict[str, str] = {}
    for entry in [*lower, *upper]:
        name, separator, _ = entry.partition("=")
        if separator:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return list(merged.values())


def arguments(config: Config) -> list[str]:
    """The command line. Raises InvalidArgument when there is none."""
    args = [*(config.entrypoint or ()), *(config.cmd or ())]
    if not args:
        raise InvalidArgument("no command specified")
    return args


def environment(config: Config, host: HostConfig, hostname: str) -> list[str]:
    """What the process finds in its environment. ``HOME`` is added by the shim, which can read the image's passwd."""
    base = [DEFAULT_PATH]
    if hostname and host.uts_mode != "host":
        base.append(f"HOSTNAME={hostname}")
    if config.tty:
        base.append("TERM=xterm")
    return merge_env(base, config.env)
