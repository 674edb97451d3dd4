"""The settings of one dockpd: ``daemon.json`` and flags, checked, and sorted into the engine's and the daemon's own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import evolve, field, frozen

from dockp.api.daemon.options import BY_FLAG, BY_KEY, COMMAND_FLAGS, MAP, OPTIONS, Already, Engine, Option, Own
from dockp.cli.flags import INT, LIST, STRING, SWITCH, Kind, Values, parse
from dockp.config import Config
from dockp.images.registry.endpoints import settings_of
from dockp.spi.errors import InvalidArgument

DEFAULT_FILE: Final = "/etc/dockp/daemon.json"
DEFAULT_HOST: Final = "unix:///run/dockp.sock"

_TYPES: Final[Mapping[Kind, tuple[tuple[type, ...], str]]] = {
    SWITCH: ((bool,), "true or false"),
    INT: ((int,), "a whole number"),
    STRING: ((str, int, float), "a text"),
    LIST: ((list, dict), "a list"),
    MAP: ((dict,), "an object"),
}


@frozen(kw_only=True)
class Settings:
    """What dockpd was told.

    Attributes:
        config: the engine's part.
        config_file: where the daemon's file is, or would be.
        hosts: what to listen on: ``unix://``, ``tcp://``, ``fd://``.
        group: who may use unix sockets besides root; "" for nobody.
        pidfile: where to write the process id; "" for ``dockpd.pid`` in the exec root.
        log_format: "text" or "json".
        metrics_addr: ``address:port``, or "".
        shutdown_timeout: seconds that requests have to end; below 0 for no limit.
        tls, tlsverify: None when nothing was said.
        tlscacert, tlscert, tlskey: files in PEM format; "" for the usual place.
        allow_insecure_tcp: serve TCP to anybody who can connect.
        remarks: lines about what was said and changes nothing, for the log.
    """

    config: Config
    config_file: str = DEFAULT_FILE
    hosts: tuple[str, ...] = (DEFAULT_HOST,)
    group: str = ""
    pidfile: str = ""
    log_format: str = "text"
    metrics_addr: str = ""
    shutdown_timeout: int = 15
    tls: bool | None = None
    tlsverify: bool | None = None
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""
    allow_insecure_tcp: bool = False
    remarks: tuple[str, ...] = field(default=(), eq=False)

    @property
    def level(self) -> str:
        """The level of the log: ``debug`` wins, as in dockerd."""
        return "debug" if self.config.debug else self.config.log_level


def read_flags(arguments: Sequence[str]) -> Values:
    """The command line. Raises: `dockp.cli.flags.UsageError` in Docker's words."""
    return parse([*COMMAND_FLAGS, *(option.flag for option in OPTIONS if option.flag.name)], arguments)


def load(values: Values, env: Mapping[str, str] | None = None) -> Settings:
    """Put file, environment and flags together.

    Raises: InvalidArgument in one line that names the file or flag, with Docker's words for keys that nobody knows and
        for what is said both in the file and by a flag.
    """
    path = os.path.abspath(values["config-file"] or DEFAULT_FILE)
    try:
        document = _read(path, required="config-file" in values.given)
        given = {BY_FLAG[name].key: values[name] for name in values.given if name in BY_FLAG}
        _check_conflicts(given, document)
        from_file = _sort(document, str)
    except InvalidArgument as error:
        raise InvalidArgument(f"unable to configure the daemon with file {path}: {error}") from None
    from_flags = _sort(given, lambda key: f"--{_flag_of(key)}")
    config = Config.load(from_flags.engine, env, documents=[(path, from_file.engine)])
    settings_of(config)  # which says what is wrong with mirrors and insecure registries
    own = from_file.own | from_flags.own
    settings = Settings(
        config=config, config_file=path, remarks=(*from_file.remarks, *from_flags.remarks), **_own_values(own)
    )
    return evolve(settings, hosts=settings.hosts or (DEFAULT_HOST,))


@frozen
class _Sorted:
    """One place's values: the engine's, the daemon's own, and remarks about the rest."""

    engine: dict[str, Any]
    own: dict[str, Any]
    remarks: list[str]


def _sort(document: Mapping[str, Any], spelled: Any) -> _Sorted:
    found = _Sorted({}, {}, [])
    for key, value in document.items():
        option = BY_KEY[key]
        rule = option.rule
        if isinstance(rule, Engine):
            if value not in ("", None):
                found.engine[rule.name] = _exec_options(value) if rule.name == "exec_opts" else value
        elif isinstance(rule, Own):
            found.own[rule.name] = value
        elif isinstance(rule, Already):
            if value not in rule.accepts:
                raise InvalidArgument(f"{spelled(key)}={_shown(value)} is not supported: {rule.because}")
            found.remarks.append(f"{spelled(key)}={_shown(value)} changes nothing: {rule.because}")
        elif value not in rule.harmless:
            raise InvalidArgument(f"{spelled(key)} is not supported: {rule.because}")
    return found


def _own_values(own: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(own)
    if "hosts" in values:
        values["hosts"] = tuple(dict.fromkeys(map(_host, values["hosts"])))
    if values.get("metrics_addr"):
        split_address(values["metrics_addr"], 0)
    if values.get("log_format") == "":
        del values["log_format"]
    if values.get("log_format", "text") not in ("text", "json"):
        raise InvalidArgument(f"invalid log format: {values['log_format']}")
    for name in ("pidfile", "tlscacert", "tlscert", "tlskey"):
        if values.get(name):
            values[name] = os.path.abspath(values[name])
    return values


def _host(text: str) -> str:
    """``-H`` with its scheme: without one it is TCP, as in Docker."""
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        scheme, rest = "tcp", scheme
    if scheme not in ("unix", "tcp", "fd") or (not separator and "/" in rest):
        raise InvalidArgument(f"invalid bind address format: {text}: use unix:///path, tcp://address:port or fd://")
    if scheme == "tcp":
        split_address(rest, 0)
    elif scheme == "unix" and rest and not rest.startswith("/"):
        raise InvalidArgument(f"invalid bind address format: {text}: the path must be absolute")
    return f"{scheme}://{rest}"


def split_address(address: str, default_port: int) -> tuple[str, int]:
    """``host:port``, ``[v6]:port``, ``:port`` or ``host``, as a host ("" for all) and a port.

    Raises: InvalidArgument.
    """
    bare = address.rstrip("/")
    host, colon, port = bare.rpartition(":")
    if not colon or bare.endswith("]"):
        host, port = bare, ""
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if "/" in host or (":" in host and inner == host) or (port and not (port.isdigit() and int(port) < 65536)):
        raise InvalidArgument(f"invalid bind address ({address}): it must be address:port")
    return inner, int(port or default_port)


def _exec_options(value: Any) -> Any:
    """Docker's one option for all drivers: how cgroups are made. Others are for execution drivers."""
    left = []
    for item in value:
        name, _, text = item.partition("=")
        if name.strip() != "native.cgroupdriver":
            left.append(item)
        elif text.strip() not in ("cgroupfs", ""):
            raise InvalidArgument(f'native.cgroupdriver option "{text.strip()}" is not supported: use cgroupfs')
    return left


def _read(path: str, *, required: bool) -> dict[str, Any]:
    """The file as an object whose keys and types are known; {} when there is none and none was named."""
    try:
        with open(path, "rb") as source:
            raw = source.read()
    except FileNotFoundError:
        if required:
            raise InvalidArgument(f"open {path}: no such file or directory") from None
        return {}
    except OSError as error:
        raise InvalidArgument(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    if not raw.strip():
        return {}
    try:
        document = json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidArgument("invalid JSON: it must be an object")
    # What dockerd has as one object, its flags have one by one.
    proxies = document.pop("proxies", None) or {}
    if not isinstance(proxies, dict):
        raise InvalidArgument('"proxies" must be an object')
    document |= proxies
    unknown = sorted(set(document) - set(BY_KEY))
    if unknown:
        raise InvalidArgument(f"the following directives don't match any configuration option: {', '.join(unknown)}")
    for key, value in document.items():
        _check_type(BY_KEY[key], value)
    return {key: value for key, value in document.items() if value is not None}


def _check_type(option: Option, value: Any) -> None:
    types, word = _TYPES[option.flag.kind]
    fits = isinstance(value, types) and (not isinstance(value, bool) or bool in types)
    if isinstance(value, list) and option.key != "default-address-pools":
        fits = fits and all(isinstance(item, str) for item in value)
    elif isinstance(value, dict) and option.flag.kind is LIST:
        fits = option.key == "default-ulimits"
    if value is not None and not fits:
        raise InvalidArgument(f'"{option.key}" must be {word}')


def _check_conflicts(flags: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    both = [
        f"{key}: (from flag: {_shown(flags[key])}, from file: {_shown(document[key])})"
        for key in sorted(flags)
        if key in document
    ]
    if both:
        raise InvalidArgument(
            "the following directives are specified both as a flag and in the configuration file: " + ", ".join(both)
        )


def _flag_of(key: str) -> str:
    return BY_KEY[key].flag.name


def _shown(value: Any) -> str:
    """As Go's ``%v``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{' '.join(_shown(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{_shown(value[key])}' for key in sorted(value))}]"
    return str(value)
