"""Configuration: a TOML file, then the environment, then flags; each value knows where it came from.

Keys are those of Docker's ``daemon.json`` where they mean the same, with ``-`` or ``_``. The file is
``$DOCKP_CONFIG_FILE`` (or ``--config-file``) alone, else ``/etc/dockp/config.toml`` and over it
``$XDG_CONFIG_HOME/dockp/config.toml``. Single values of a later place replace those of an earlier one; options
(``storage-opts`` and its like) are merged name by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from attrs import field, fields, frozen

from dockp.spi.errors import InvalidArgument

SYSTEM_FILE: Final = "/etc/dockp/config.toml"


@frozen(kw_only=True)
class AddressPool:
    """Where automatic subnets come from: ``base`` in CIDR form is cut into networks of prefix length ``size``."""

    base: str
    size: int


@frozen(kw_only=True)
class Ulimit:
    """One resource limit; -1 is unlimited."""

    soft: int
    hard: int


def _setting(parse: Callable[[Any], Any], default: Any = None, *, docker: str = "", driver: str = "") -> Any:
    """A field of `Config`: ``parse`` turns what a file, variable or flag holds into the value or raises ValueError
    with the reason; ``docker`` is another accepted spelling; ``driver`` names the setting that options belong to."""
    metadata = {"parse": parse, "alias": docker, "driver": driver}
    return field(factory=default, metadata=metadata) if callable(default) else field(default=default, metadata=metadata)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text that is not empty")
    return value.strip()


def _path(value: Any) -> str:
    path = _text(value)
    if not os.path.isabs(path):
        raise ValueError("must be an absolute path")
    path = os.path.normpath(path)
    if path in ("/", "//") or "\0" in path:
        raise ValueError("must be a directory of its own")
    return path


def _name(value: Any) -> str:
    name = _text(value)
    if not all(char.isascii() and (char.isalnum() or char in "_.+-") for char in name):
        raise ValueError("is not a driver name")
    return name


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    # The words of Go's strconv.ParseBool, which Docker's flags take.
    if isinstance(value, str) and value.lower() in ("1", "t", "true", "0", "f", "false"):
        return value.lower() in ("1", "t", "true")
    raise ValueError("must be true or false")


def _level(value: Any) -> str:
    if value not in ("debug", "info", "warn", "error", "fatal"):
        raise ValueError(f"invalid logging level: {value} (one of debug, info, warn, error, fatal)")
    return str(value)


def _integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return int(value) if isinstance(value, str) else int("")
    except ValueError:
        raise ValueError("must be a whole number") from None


def _count(value: Any) -> int:
    count = _integer(value)
    if not 1 <= count <= 1000:
        raise ValueError("must be from 1 to 1000")
    return count


def _mtu(value: Any) -> int:
    # 68 is the least that IPv4 allows (RFC 791), 65535 the most that a packet can be.
    mtu = _integer(value)
    if not 68 <= mtu <= 65535:
        raise ValueError("must be from 68 to 65535")
    return mtu


def _seconds(value: Any) -> float:
    try:
        seconds = float("" if isinstance(value, bool) else value)
    except (ValueError, TypeError):
        raise ValueError("must be a number of seconds") from None
    if not 0 < seconds < 1e6:
        raise ValueError("must be more than 0 seconds and less than 1000000")
    return seconds


def _bytes(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        from dockp.units import parse_size  # here, since the defaults need no parsing

        try:
            size = parse_size(value.strip() if isinstance(value, str) else "")
        except InvalidArgument:
            raise ValueError(f"invalid size: '{value}'") from None
    if size <= 0:
        raise ValueError("must be more than 0 bytes")
    return size


def _items(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    if isinstance(value, list | tuple):
        return list(value)
    raise ValueError("must be a list")


def _addresses(value: Any) -> tuple[str, ...]:
    import ipaddress

    found = []
    for item in _items(value):
        try:
            found.append(str(ipaddress.ip_address(item if isinstance(item, str) else "")))
        except ValueError:
            raise ValueError(f"{item} is not an ip address") from None
    return tuple(found)


def _words(value: Any) -> tuple[str, ...]:
    items = _items(value)
    if not all(isinstance(item, str) and item and not any(char.isspace() for char in item) for item in items):
        raise ValueError("must be a list of words")
    return tuple(items)


def _interface(value: Any) -> str:
    import ipaddress

    try:
        interface = ipaddress.ip_interface(_text(value))
    except ValueError:
        raise ValueError(f"invalid CIDR address: {value}") from None
    network = interface.network
    if "/" not in value or interface.ip in (network.network_address, network.broadcast_address):
        raise ValueError("must be the bridge's own address with a prefix length, like 172.17.0.1/16")
    return str(interface)


def _ipc_mode(value: Any) -> str:
    if value not in ("private", "shareable"):
        raise ValueError(f"IPC mode {value} cannot be the default: use private or shareable")
    return str(value)


def _cgroupns_mode(value: Any) -> str:
    if value not in ("private", "host"):
        raise ValueError(f"default cgroup namespace mode ({value}) is invalid. Use 'host' or 'private'")
    return str(value)


def _labels(value: Any) -> tuple[str, ...]:
    """As Docker's, a value for a key must be unique; the same label twice is one."""
    found: dict[str, str] = {}
    for item in _items(value):
        key, equals, text = item.partition("=") if isinstance(item, str) else ("", "", "")
        if not equals or not key:
            raise ValueError(f"bad attribute format: {item}")
        if found.setdefault(key, text) != text:
            raise ValueError(f"conflict labels for {key}={found[key]} and {key}={text}")
    return tuple(f"{key}={text}" for key, text in found.items())


def _cgroup(value: Any) -> str:
    parent = _text(value).rstrip("/")
    if not parent.strip("/") or any(part in (".", "..") for part in parent.split("/")) or "\0" in parent:
        raise ValueError("must name a cgroup below the root")
    return parent


def _options(value: Any) -> dict[str, str]:
    """``{"name": "value"}``, ``["name=value"]`` or ``"name=value,name=value"``; a table in a table is a driver's."""
    if isinstance(value, Mapping):
        found: dict[str, str] = {}
        for key, item in value.items():
            if isinstance(item, Mapping):
                found |= {f"{key}.{name}": text for name, text in _options(item).items()}
            elif isinstance(item, bool):
                found[str(key)] = "true" if item else "false"
            elif isinstance(item, str | int | float):
                found[str(key)] = str(item)
            else:
                raise ValueError(f'option "{key}" must be a text, a number or true or false')
        return found
    found = {}
    for item in _items(value):
        name, equals, text = item.partition("=") if isinstance(item, str) else ("", "", "")
        if not equals or not name.strip():
            raise ValueError(f'option "{item}" must be name=value')
        found[name.strip()] = text.strip()
    return found


def _pools(value: Any) -> tuple[AddressPool, ...]:
    """``[{base=, size=}]``, ``["base=…,size=…"]`` or one text of those with ``;`` between."""
    import ipaddress

    found = []
    for item in [part for part in value.split(";") if part] if isinstance(value, str) else _items(value):
        pair = _options(item) if isinstance(item, str | Mapping) else {}
        if set(pair) != {"base", "size"}:
            raise ValueError("each pool must have base and size, like base=10.10.0.0/16,size=24")
        try:
            base = ipaddress.ip_network(pair["base"])
        except ValueError:
            raise ValueError(f"invalid CIDR address: {pair['base']}") from None
        size = _integer(pair["size"])
        if not base.prefixlen <= size <= base.max_prefixlen:
            raise ValueError(f"size {size} does not fit into {base}")
        found.append(AddressPool(base=str(base), size=size))
    return tuple(found)


ULIMITS: Final = frozenset(
    {
        *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile"),
        *("nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
    }
)


def _ulimits(value: Any) -> dict[str, Ulimit]:
    """``{nofile = {Soft=, Hard=}}``, ``{nofile = "1024:2048"}`` or ``["nofile=1024:2048"]``."""
    pairs = value.items() if isinstance(value, Mapping) else _options(value).items()
    found = {}
    for name, item in pairs:
        if name not in ULIMITS:
            raise ValueError(f"invalid ulimit type: {name}")
        if isinstance(item, Mapping):
            low = {str(key).lower(): number for key, number in item.items()}
            if set(low) - {"name", "soft", "hard"} or not set(low) & {"soft", "hard"}:
                raise ValueError(f"ulimit {name} must have Soft and Hard")
            soft, hard = low.get("soft", low.get("hard")), low.get("hard", low.get("soft"))
        else:
            soft, _, hard = str(item).partition(":")
        first = _integer(soft)
        last = _integer(hard) if hard not in ("", None) else first
        if last != -1 and (first == -1 or first > last):
            raise ValueError(
                f"ulimit {name}: ulimit soft limit must be less than or equal to hard limit: {first} > {last}"
            )
        found[name] = Ulimit(soft=first, hard=last)
    return found


@frozen(kw_only=True)
class Config:
    """Every setting of one engine. ``Config()`` is all defaults; `load` reads what is configured.

    Attributes:
        data_root: images, layers, volumes and the database. exec_root: what lives until the next boot.
        storage_driver, exec_driver: None chooses by probe.
        storage_opts, exec_opts, network_opts, log_opts: options as given; see `driver_options`.
        bip: the default bridge's own address in CIDR form. mtu: of new networks. Both None: the driver's choice.
        dns, dns_opts, dns_search: for containers that name none; empty takes the host's.
        cgroup_parent: the cgroup below which all containers' are.
        default_address_pools: empty takes the IPAM driver's own.
        default_shm_size: bytes. driver_deadline: seconds for one call into a driver (see `dockp.guard`).
        default_ipc_mode, default_cgroupns_mode: of containers that name none; None for cgroups is Docker's default,
            private with cgroup v2 and the host's with v1.
        labels: of the engine, ``name=value``.
        registry_mirrors, insecure_registries: see `dockp.images.registry.endpoints`, which checks them.
        http_proxy, https_proxy, no_proxy: on the way to registries; None takes the environment's.
        registry_timeout: seconds without a byte after which a registry is given up. max_download_attempts: times that
            a layer's connection may break.
        max_concurrent_downloads, max_concurrent_uploads: layers that a pull downloads, or a push uploads, at the
            same time.
        log_level: of the engine; ``debug`` sets it to "debug".
    """

    data_root: str = _setting(_path, "/var/lib/dockp")
    exec_root: str = _setting(_path, "/run/dockp")
    storage_driver: str | None = _setting(_name)
    storage_opts: Mapping[str, str] = _setting(_options, dict, docker="storage_opt", driver="storage_driver")
    exec_driver: str | None = _setting(_name)
    exec_opts: Mapping[str, str] = _setting(_options, dict, docker="exec_opt", driver="exec_driver")
    log_driver: str = _setting(_name, "json-file")
    log_opts: Mapping[str, str] = _setting(_options, dict, docker="log_opt", driver="log_driver")
    default_network_driver: str = _setting(_name, "bridge", docker="network_driver")
    network_opts: Mapping[str, str] = _setting(_options, dict, docker="network_opt", driver="default_network_driver")
    bip: str | None = _setting(_interface)
    mtu: int | None = _setting(_mtu)
    dns: tuple[str, ...] = _setting(_addresses, ())
    dns_opts: tuple[str, ...] = _setting(_words, (), docker="dns_opt")
    dns_search: tuple[str, ...] = _setting(_words, ())
    cgroup_parent: str = _setting(_cgroup, "dockp")
    default_address_pools: tuple[AddressPool, ...] = _setting(_pools, (), docker="default_address_pool")
    default_ulimits: Mapping[str, Ulimit] = _setting(_ulimits, dict, docker="default_ulimit")
    default_shm_size: int = _setting(_bytes, 64 << 20)
    driver_deadline: float = _setting(_seconds, 60.0)
    default_ipc_mode: str = _setting(_ipc_mode, "private")
    default_cgroupns_mode: str | None = _setting(_cgroupns_mode)
    labels: tuple[str, ...] = _setting(_labels, (), docker="label")
    registry_mirrors: tuple[str, ...] = _setting(_words, (), docker="registry_mirror")
    insecure_registries: tuple[str, ...] = _setting(_words, (), docker="insecure_registry")
    http_proxy: str | None = _setting(_text)
    https_proxy: str | None = _setting(_text)
    no_proxy: str | None = _setting(_text)
    registry_timeout: float = _setting(_seconds, 30.0)
    max_download_attempts: int = _setting(_count, 5)
    max_concurrent_downloads: int = _setting(_count, 3)
    max_concurrent_uploads: int = _setting(_count, 5)
    debug: bool = _setting(_boolean, False)
    log_level: str = _setting(_level, "info")
    _origins: Mapping[str, str] = field(factory=dict, repr=False, eq=False)
    _owners: Mapping[tuple[str, str], str | None] = field(factory=dict, repr=False, eq=False)

    @classmethod
    def load(
        cls,
        flags: Mapping[str, object] | None = None,
        env: Mapping[str, str] | None = None,
        *,
        documents: Iterable[tuple[str, Mapping[str, object]]] = (),
    ) -> Config:
        """Read file, environment and flags.

        Args:
            flags: settings by name, with ``-`` or ``_``; None means not given; ``config_file`` names the file.
                Relative paths are taken from the current directory, here and in the environment.
            env: by default the process's.
            documents: settings that were read elsewhere, between file and environment: each with its place.
        Raises: InvalidArgument naming the place, the setting and what is wrong with it.
        """
        environ = os.environ if env is None else env
        given = {_field_name(name): value for name, value in (flags or {}).items() if value is not None}
        loader = _Loader()
        chosen = given.pop("config_file", None) or environ.get("DOCKP_CONFIG_FILE")
        if chosen:
            loader.file(os.path.abspath(str(chosen)), required=True)
        else:
            loader.file(SYSTEM_FILE)
            home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or "/", ".config")
            loader.file(os.path.join(home, "dockp", "config.toml"))
        for place, settings in documents:
            loader.layer({_field_name(name): (value, place, name) for name, value in settings.items()})
        layer: dict[str, tuple[Any, str, str]] = {}
        for name, setting in SETTINGS.items():
            variable = f"DOCKP_{name.upper()}"
            # An empty variable is the usual way to say "not set" where one cannot unset.
            if environ.get(variable, "") != "":
                layer[name] = (_rooted(setting, environ[variable]), f"environment {variable}", variable)
        loader.layer(layer)
        layer = {}
        for name, value in given.items():
            flag = f"--{name.replace('_', '-')}"
            known = _known(name, f"flag {flag}", flag)
            if value not in ((), [], {}):
                layer[known] = (_rooted(SETTINGS[known], value), f"flag {flag}", flag)
        loader.layer(layer)
        return loader.config()

    def origin(self, name: str) -> str:
        """Where a setting comes from: ``"default"``, ``"/etc/dockp/config.toml:3"``, ``"environment DOCKP_…"`` or
        ``"flag --…"``. Raises: InvalidArgument for a name that is no setting."""
        return self._origins.get(_known(_field_name(name), "configuration", name), "default")

    def given(self) -> dict[str, Any]:
        """What is not left to its default, as flags for `load`, ready for JSON: so another process has this config."""
        found: dict[str, Any] = {}
        for name in SETTINGS:
            if self.origin(name) != "default":
                value = getattr(self, name)
                if name == "default_address_pools":
                    value = [f"base={pool.base},size={pool.size}" for pool in value]
                elif name == "default_ulimits":
                    value = [f"{limit}={bound.soft}:{bound.hard}" for limit, bound in value.items()]
                elif isinstance(value, Mapping):
                    value = [f"{key}={item}" for key, item in value.items()]
                elif isinstance(value, tuple):
                    value = list(value)
                found[name] = value
        return found

    def driver_options(self, kind: str, name: str, *, default: str | None, known: Iterable[str] = ()) -> dict[str, str]:
        """The options meant for one driver, as its constructor takes them.

        ``overlay2.size=1G`` is for overlay2 whatever is in use. Without such a prefix an option is for the driver that
        was the default where the option was given: ``storage-driver = "btrfs"`` and its options in the file do not
        reach vfs in ``dockp --storage-driver=vfs``. Storage drivers get names whole, since Docker's have the driver
        in them (``overlay2.size``, ``zfs.fsname``); for other kinds a driver's own prefix is taken off.

        Args: kind: "storage", "exec", "network" or "log". default: the driver in use where none is configured.
            known: names of all drivers of the kind, since an option's own name may have dots.
        """
        setting = {
            "storage": "storage_opts",
            "exec": "exec_opts",
            "network": "network_opts",
            "log": "log_opts",
        }[kind]
        names = {*known, name}
        found = {}
        prefixed = {}
        for key, value in getattr(self, setting).items():
            prefix, dot, rest = key.partition(".")
            if dot and prefix in names:
                if prefix == name:
                    prefixed[key if kind == "storage" else rest] = value
            elif (self._owners.get((setting, key)) or default) == name:
                found[key] = value
        return found | prefixed


SETTINGS: Final[dict[str, Any]] = {
    attribute.name: attribute for attribute in fields(Config) if not attribute.name.startswith("_")
}
_ALIASES: Final = {
    attribute.metadata["alias"]: name for name, attribute in SETTINGS.items() if attribute.metadata["alias"]
}


class _Loader:
    """Collects layers, the weakest first."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._origins: dict[str, str] = {}
        self._owners: dict[tuple[str, str], str | None] = {}

    def file(self, path: str, required: bool = False) -> None:
        """Add a TOML file. Raises: InvalidArgument when it cannot be read (absence is fine unless ``required``)."""
        try:
            with open(path, "rb") as source:
                raw = source.read()
        except OSError as exc:
            if not required and isinstance(exc, FileNotFoundError | NotADirectoryError | PermissionError):
                return
            raise InvalidArgument(f"cannot read configuration file {path}: {exc.strerror}") from None
        import tomllib

        try:
            text = raw.decode()
            table = tomllib.loads(text)
        except ValueError as exc:  # also UnicodeDecodeError
            raise InvalidArgument(f"{path} is not valid TOML: {exc}") from None
        layer: dict[str, tuple[Any, str, str]] = {}
        for key, value in table.items():
            line = _line_of(text, key)
            where = f"{path}:{line}" if line else path
            name = _known(_field_name(key), where, key)
            if name in layer:
                raise InvalidArgument(f'{where}: "{key}" is set twice in this file')
            layer[name] = (value, where, key)
        self.layer(layer)

    def layer(self, layer: Mapping[str, tuple[Any, str, str]]) -> None:
        """Add one layer: for each setting its raw value, where it stands, and how it is spelled there."""
        parsed = {}
        for name, (raw, where, spelled) in layer.items():
            try:
                parsed[name] = SETTINGS[name].metadata["parse"](raw)
            except ValueError as exc:
                shown = raw if isinstance(raw, str) else repr(raw)
                raise InvalidArgument(f'{where}: invalid value "{shown:.80}" for "{spelled}": {exc}') from None
            self._origins[name] = where
        for name, value in parsed.items():
            driver = SETTINGS[name].metadata["driver"]
            if not driver:
                self._values[name] = value
                continue
            owner = parsed.get(driver, self._values.get(driver, SETTINGS[driver].default))
            self._values[name] = {**self._values.get(name, {}), **value}
            self._owners.update({(name, key): owner for key in value})

    def config(self) -> Config:
        if self._values.get("debug") and "log_level" not in self._values:
            self._values["log_level"] = "debug"
            self._origins["log_level"] = self._origins["debug"]
        config = Config(**self._values, origins=self._origins, owners=self._owners)
        if config.data_root == config.exec_root:
            raise InvalidArgument(
                f"data-root and exec-root must differ, both are {config.data_root} "
                f"({config.origin('data_root')}, {config.origin('exec_root')})"
            )
        return config


def _field_name(spelled: str) -> str:
    name = spelled.strip().removeprefix("--").replace("-", "_")
    return _ALIASES.get(name, name)


def _known(name: str, where: str, spelled: str) -> str:
    if name in SETTINGS:
        return name
    import difflib

    words = [known.replace("_", "-") for known in SETTINGS]
    close = difflib.get_close_matches(name.replace("_", "-"), words, 1)
    hint = f', did you mean "{close[0]}"?' if close else ""
    raise InvalidArgument(f'{where}: unknown setting "{spelled}"{hint}')


def _rooted(setting: Any, value: Any) -> Any:
    """Paths typed at a shell are relative to where it is."""
    if setting.metadata["parse"] is _path and isinstance(value, str | os.PathLike) and os.fspath(value):
        return os.path.abspath(value)
    return value


def _line_of(text: str, key: str) -> int:
    """The line on which a top-level ``key`` is set, or 0; tomllib does not tell."""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip().lstrip("[").lstrip()
        for spelled in (key, f'"{key}"', f"'{key}'"):
            if stripped.startswith(spelled) and stripped[len(spelled) :].lstrip()[:1] in ("=", ".", "]"):
                return number
    return 0
