"""Which engine a command speaks to: one in this process, or one behind a socket. `docs/hosts.md` tells the rules."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from dockp.cli.app import Failure

if TYPE_CHECKING:
    from dockp.interface import Engine
    from dockp.remote.contexts import ContextStore
    from dockp.remote.endpoint import Endpoint, Tls

EMBEDDED = "embedded"
"""The host that is no host."""
DEFAULT_HOST = "unix:///run/dockp.sock"
CLIENT_FLAGS = frozenset(
    ("host", "context", "config", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey"),
)
_EMBEDDED_FLAGS = ("data_root", "exec_root", "config_file", "storage_opt", "exec_opt")
_EMBEDDED_VARIABLES = ("DOCKP_DATA_ROOT", "DOCKP_EXEC_ROOT", "DOCKP_CONFIG_FILE")


class Choice(NamedTuple):
    """``host`` is `EMBEDDED` or an address; ``context`` the name of the context it comes from, or "default"."""

    host: str
    context: str = "default"
    tls: Tls | None = None


def config_directory(flags: Mapping[str, object], environ: Mapping[str, str]) -> str:
    """Where the client's files are: ``--config``, ``$DOCKER_CONFIG``, ``~/.docker``."""
    given = flags.get("config") or environ.get("DOCKER_CONFIG")
    return str(given) if given else os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".docker")


def choose(flags: Mapping[str, object], environ: Mapping[str, str]) -> Choice:
    """The engine that flags, environment and contexts name. Raises: Failure; NotFound for an unknown context."""
    hosts = flags.get("host") or ()
    assert isinstance(hosts, list | tuple)
    if len(hosts) > 1:
        raise Failure("Failed to initialize: unable to resolve docker endpoint: Specify only one -H")
    name = str(flags.get("context") or "")
    if hosts and name:
        raise Failure("conflicting options: cannot specify both --host and --context")
    if hosts or name:
        _refuse_embedded(flags)
    if hosts:
        return _host(str(hosts[0]), flags, environ)
    if name:
        return _context(name, flags, environ)
    if environ.get("DOCKP_HOST"):
        return _host(environ["DOCKP_HOST"], flags, environ)
    if any(flags.get(flag) for flag in _EMBEDDED_FLAGS) or any(environ.get(name) for name in _EMBEDDED_VARIABLES):
        return Choice(EMBEDDED)
    if environ.get("DOCKER_HOST"):
        return _host(environ["DOCKER_HOST"], flags, environ)
    name = environ.get("DOCKER_CONTEXT") or _current(flags, environ)
    if name != "default":
        return _context(name, flags, environ)
    return Choice(DEFAULT_HOST if _daemon_listens(flags, environ) else EMBEDDED)


def open_engine(flags: Mapping[str, object]) -> Engine:
    """The chosen engine. Raises: Failure, any DockpError."""
    from dockp.cli.app import open_local_engine

    chosen = choose(flags, os.environ)
    if chosen.host == EMBEDDED:
        return open_local_engine({name: value for name, value in flags.items() if name not in CLIENT_FLAGS})
    from dockp.remote.engine import RemoteEngine

    return RemoteEngine(endpoint(chosen, flags))


def endpoint(chosen: Choice, flags: Mapping[str, object]) -> Endpoint:
    """How to reach a chosen host. Raises: Failure for an address that is none."""
    from dockp.remote.endpoint import Endpoint
    from dockp.spi.errors import InvalidArgument

    found = Endpoint(
        host=chosen.host if "://" in chosen.host else f"tcp://{chosen.host}",
        tls=chosen.tls,
        headers=_headers(flags, os.environ),
        api_version=os.environ.get("DOCKER_API_VERSION", ""),
    )
    try:
        found.address  # noqa: B018 - for its complaint
    except InvalidArgument as error:
        raise Failure(f"Failed to initialize: unable to resolve docker endpoint: {error}") from None
    return found


def store(flags: Mapping[str, object], environ: Mapping[str, str]) -> ContextStore:
    from dockp.remote.contexts import ContextStore

    return ContextStore(config_directory(flags, environ))


def _refuse_embedded(flags: Mapping[str, object]) -> None:
    for flag in _EMBEDDED_FLAGS:
        if flags.get(flag):
            raise Failure(
                f"conflicting options: --{flag.replace('_', '-')} is for an engine in this process, and a host is given"
            )


def _host(host: str, flags: Mapping[str, object], environ: Mapping[str, str]) -> Choice:
    return Choice(host.strip(), tls=None if host == EMBEDDED else _tls(flags, environ))


def _context(name: str, flags: Mapping[str, object], environ: Mapping[str, str]) -> Choice:
    if name == "default":
        return Choice(DEFAULT_HOST if _daemon_listens(flags, environ) else EMBEDDED)
    from dockp.spi.errors import NotFound

    try:
        found = store(flags, environ).get(name)
    except NotFound as error:
        raise Failure(f"Failed to initialize: unable to resolve docker endpoint: {error}") from None
    return Choice(found.host, name, found.tls)


def _current(flags: Mapping[str, object], environ: Mapping[str, str]) -> str:
    # Most people have no such file, and need not wait for the module that reads it.
    if not os.path.exists(os.path.join(config_directory(flags, environ), "config.json")):
        return "default"
    return store(flags, environ).current


def _tls(flags: Mapping[str, object], environ: Mapping[str, str]) -> Tls | None:
    verify = bool(flags.get("tlsverify") or environ.get("DOCKER_TLS_VERIFY"))
    if not (verify or flags.get("tls") or environ.get("DOCKER_TLS")):
        return None
    from dockp.remote.endpoint import Tls

    folder = environ.get("DOCKER_CERT_PATH") or config_directory(flags, environ)
    files = {}
    for kind, flag in (("ca", "tlscacert"), ("cert", "tlscert"), ("key", "tlskey")):
        path = os.path.join(folder, f"{kind}.pem")
        # A file that was named must be there; those in the usual place are used if they are.
        files[kind] = str(flags[flag]) if flags.get(flag) else path if os.path.exists(path) else ""
    return Tls(verify=verify, **files)


def _headers(flags: Mapping[str, object], environ: Mapping[str, str]) -> Mapping[str, str]:
    """``HttpHeaders`` of the configuration, or what ``DOCKER_CUSTOM_HEADERS`` has instead (CSV of name=value)."""
    text = environ.get("DOCKER_CUSTOM_HEADERS", "")
    if not text:
        if not os.path.exists(os.path.join(config_directory(flags, environ), "config.json")):
            return {}
        return {
            str(name): str(value) for name, value in (store(flags, environ).settings.get("HttpHeaders") or {}).items()
        }
    import csv

    found = {}
    for item in next(csv.reader([text])):
        name, equals, value = item.partition("=")
        if not (equals and name.strip()):
            raise Failure(f"failed to parse custom headers from DOCKER_CUSTOM_HEADERS: missing '=' in '{item}'")
        found[name.strip()] = value
    return found


def _daemon_listens(flags: Mapping[str, object], environ: Mapping[str, str]) -> bool:
    """Whether a daemon serves the roots that an engine in this process would use."""
    path = DEFAULT_HOST.removeprefix("unix://")
    if not os.path.exists(path):
        return False
    import socket

    from dockp.config import Config

    config = Config.load({name: value for name, value in flags.items() if name not in CLIENT_FLAGS}, environ)
    plain = Config()
    if (config.data_root, config.exec_root) != (plain.data_root, plain.exec_root):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except PermissionError:
            return True  # then it is for others: saying so helps more than an engine of one's own that needs root
        except OSError:
            return False
    return True
