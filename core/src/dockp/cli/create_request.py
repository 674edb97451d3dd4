"""From the parsed flags of ``run`` and ``create`` to a `CreateRequest`: the same request Docker's command line sends.

Values that the user did not give stay at "not set" (None), where Docker sends its neutral number (-1, 0, false).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dockp.cli.flags import Values, go_int, quote
from dockp.cli.mounts import volume_bind
from dockp.containers.model import (
    Config,
    CreateRequest,
    DeviceMapping,
    EndpointIpam,
    EndpointSettings,
    Healthcheck,
    HostConfig,
    LogConfig,
    PortBinding,
    RestartPolicy,
    ThrottleDevice,
    Ulimit,
    WeightDevice,
)

_WINDOWS = ("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops")
_PREDEFINED = frozenset(("", "default", "bridge", "host", "none"))


def build(values: Values) -> CreateRequest:
    """The request for ``values``: image and command are its arguments. Raises ValueError in Docker's words."""
    _refuse(values)
    image, command = values.args[0], tuple(values.args[1:])
    attached = values["attach"]
    stdin = "stdin" in attached or values["interactive"]
    binds, volumes = _volumes(values["volume"])
    exposed, bindings = _ports(values)
    networks, mode = _networks(values)
    entrypoint: tuple[str, ...] | None = None
    if "entrypoint" in values.given:
        entrypoint = (values["entrypoint"],)
    config = Config(
        hostname=values["hostname"],
        domainname=values["domainname"],
        user=values["user"],
        attach_stdin=stdin,
        attach_stdout=not attached or "stdout" in attached,
        attach_stderr=not attached or "stderr" in attached,
        exposed_ports=exposed,
        tty=values["tty"],
        open_stdin=values["interactive"],
        stdin_once=stdin and values["interactive"],
        env=tuple(read_pairs(values["env-file"], values["env"], os.environ.get)),
        cmd=command or None,
        healthcheck=_healthcheck(values),
        image=image,
        volumes=volumes,
        working_dir=values["workdir"],
        entrypoint=entrypoint,
        labels=_labels(values),
        stop_signal=values["stop-signal"],
        stop_timeout=values["stop-timeout"] if "stop-timeout" in values.given else None,
    )
    return CreateRequest(
        config=config,
        host=_host(values, binds, bindings, mode),
        networks=networks,
        name=values["name"],
        platform=values["platform"],
    )


def _refuse(values: Values) -> None:
    """Combinations that cannot be meant, and flags of other systems."""
    for name in _WINDOWS:
        if name in values.given:
            raise ValueError(f"--{name} is for Windows containers only")
    if "kernel-memory" in values.given:
        raise ValueError("--kernel-memory is not supported: kernels no longer have this limit")
    swappiness = values["memory-swappiness"]
    if swappiness != -1 and not 0 <= swappiness <= 100:
        raise ValueError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    if values["runtime"] and values["exec-driver"] and values["runtime"] != values["exec-driver"]:
        raise ValueError("conflicting options: --runtime and --exec-driver name different drivers")


def _host(values: Values, binds: Sequence[str], bindings: dict[str, tuple[PortBinding, ...]], mode: str) -> HostConfig:
    security, unmasked = _security(values["security-opt"])
    policy = restart_policy(values["restart"])
    if values["rm"] and policy.name not in ("", "no"):
        raise ValueError("conflicting options: cannot specify both --restart and --rm")

    def throttled(name: str) -> tuple[ThrottleDevice, ...]:
        return tuple(ThrottleDevice(path=path, rate=rate) for path, rate in values[name])

    def given(name: str) -> Any:
        return values[name] if name in values.given else None

    return HostConfig(
        binds=tuple(binds),
        container_id_file=values["cidfile"],
        log_config=_log_config(values),
        network_mode=mode,
        port_bindings=bindings,
        restart_policy=policy,
        auto_remove=values["rm"],
        volume_driver=values["volume-driver"],
        volumes_from=tuple(values["volumes-from"]),
        annotations=values["annotation"],
        cap_add=_capabilities(values["cap-add"]),
        cap_drop=_capabilities(values["cap-drop"]),
        cgroupns_mode=_one_of("--cgroupns: invalid CGROUP mode", values["cgroupns"], ("", "private", "host")),
        dns=tuple(values["dns"]),
        dns_options=tuple(values["dns-option"]),
        dns_search=tuple(values["dns-search"]),
        extra_hosts=tuple(values["add-host"]),
        group_add=tuple(values["group-add"]),
        ipc_mode=values["ipc"],
        links=tuple(values["link"]),
        oom_score_adj=values["oom-score-adj"],
        pid_mode=_pid_mode(values["pid"]),
        privileged=values["privileged"],
        publish_all_ports=values["publish-all"],
        readonly_rootfs=values["read-only"],
        security_opt=tuple(security),
        storage_opt=_storage_options(values["storage-opt"]),
        tmpfs={path: options for path, _, options in (text.partition(":") for text in values["tmpfs"])},
        uts_mode=_one_of("--uts: invalid UTS mode", values["uts"], ("", "host")),
        userns_mode=_one_of("--userns: invalid USER mode", values["userns"], ("", "host")),
        shm_size=values["shm-size"],
        sysctls=values["sysctl"],
        runtime=values["runtime"] or values["exec-driver"],
        isolation=values["isolation"],
        cpu_shares=values["cpu-shares"],
        memory=values["memory"],
        nano_cpus=values["cpus"],
        cgroup_parent=values["cgroup-parent"],
        blkio_weight=values["blkio-weight"],
        blkio_weight_device=tuple(WeightDevice(path=path, weight=n) for path, n in values["blkio-weight-device"]),
        blkio_device_read_bps=throttled("device-read-bps"),
        blkio_device_write_bps=throttled("device-write-bps"),
        blkio_device_read_iops=throttled("device-read-iops"),
        blkio_device_write_iops=throttled("device-write-iops"),
        cpu_period=values["cpu-period"],
        cpu_quota=values["cpu-quota"],
        cpu_realtime_period=values["cpu-rt-period"],
        cpu_realtime_runtime=values["cpu-rt-runtime"],
        cpuset_cpus=values["cpuset-cpus"],
        cpuset_mems=values["cpuset-mems"],
        devices=tuple(_device(text) for text in values["device"] if not _is_cdi(text)),
        device_cgroup_rules=tuple(values["device-cgroup-rule"]),
        device_requests=_device_requests(values),
        memory_reservation=values["memory-reservation"],
        memory_swap=values["memory-swap"],
        memory_swappiness=given("memory-swappiness"),
        oom_kill_disable=given("oom-kill-disable"),
        pids_limit=given("pids-limit"),
        ulimits=tuple(
            Ulimit(name=name, soft=soft, hard=hard) for name, (soft, hard) in sorted(values["ulimit"].items())
        ),
        mounts=tuple(values["mount"]),
        masked_paths=() if unmasked else None,
        readonly_paths=() if unmasked else None,
        init=given("init"),
        storage_driver=values["storage-driver"],
    )


def _capabilities(names: Iterable[str]) -> tuple[str, ...]:
    """Capabilities by their full names, each once, sorted, as Docker's client sends them."""
    upper = {name.upper() for name in names}
    return tuple(sorted(name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}" for name in upper))


def _one_of(complaint: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ValueError(complaint)
    return value


def _pid_mode(value: str) -> str:
    kind, colon, name = value.partition(":")
    if value in ("", "host") or (kind == "container" and colon and name):
        return value
    raise ValueError("--pid: invalid PID mode")


def _volumes(specs: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
    """``-v`` values as (binds, anonymous volumes); a value given twice counts once."""
    binds: list[str] = []
    volumes: dict[str, Any] = {}
    for spec in dict.fromkeys(specs):
        bind = volume_bind(spec)
        if bind:
            binds.append(bind)
        else:
            volumes[spec] = {}
    return binds, volumes


def _ports(values: Values) -> tuple[dict[str, Any], dict[str, tuple[PortBinding, ...]]]:
    """``-p`` and ``--expose`` as (ExposedPorts, PortBindings)."""
    if not values["publish"] and not values["expose"]:
        return {}, {}
    from dockp.networks.ports import parse_expose, parse_publish

    ports, bindings = parse_publish(values["publish"])
    exposed: dict[str, Any] = {port: {} for port in sorted(ports | parse_expose(values["expose"]))}
    return exposed, {
        port: tuple(PortBinding(host_ip=item["HostIp"], host_port=item["HostPort"]) for item in items)
        for port, items in bindings.items()
    }


def read_pairs(files: Iterable[str], extra: Iterable[str], look_up: Callable[[str], str | None] | None) -> list[str]:
    """The ``key=value`` lines of files, then ``extra``. A key without a value gets it from ``look_up``, else it is
    left out. Raises ValueError for a bad line, and when a file cannot be read."""
    lines: list[str] = []
    for name in files:
        try:
            with open(name, "rb") as file:
                data = file.read()
        except OSError as error:
            raise ValueError(f"open {name}: {(error.strerror or '').lower()}") from None
        try:
            lines.extend(_pairs_of(data, look_up))
        except ValueError as error:
            raise ValueError(f"invalid env file ({name}): {error}") from None
    return [*lines, *extra]


def _pairs_of(data: bytes, look_up: Callable[[str], str | None] | None) -> Iterable[str]:
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = raw.removesuffix(b"\r").decode().lstrip()
        except UnicodeDecodeError:
            shown = " ".join(str(byte) for byte in raw)
            raise ValueError(f"invalid utf8 bytes at line {number}: [{shown}]") from None
        if not line or line[0] == "#":
            continue
        key, equals, _ = line.partition("=")
        if not key:
            raise ValueError(f"no variable name on line '{line}'")
        if " " in key or "\t" in key:
            raise ValueError(f"variable '{key}' contains whitespaces")
        if equals:
            yield line
        elif look_up is not None:
            value = look_up(key)
            if value is not None:
                yield f"{key}={value}"


def _labels(values: Values) -> dict[str, str]:
    lines = read_pairs(values["label-file"], values["label"], None)
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def _log_config(values: Values) -> LogConfig:
    if values["log-driver"] == "none" and values["log-opt"]:
        raise ValueError("invalid logging opts for driver none")
    options = {key: value for key, _, value in (text.partition("=") for text in values["log-opt"])}
    return LogConfig(type=values["log-driver"], config=options)


def _storage_options(texts: Iterable[str]) -> dict[str, str]:
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError("invalid storage option")
        options[key] = value
    return options


def _security(texts: Iterable[str]) -> tuple[list[str], bool]:
    """(security options with seccomp profiles read in, whether system paths are to be unconfined)."""
    kept: list[str] = []
    unmasked = False
    for text in texts:
        key, found, value = text.partition("=")
        if not found and key != "no-new-privileges":
            key, found, value = text.partition(":")
        if (not found or not value) and key != "no-new-privileges":
            raise ValueError(f"invalid --security-opt: {quote(text)}")
        if text == "systempaths=unconfined":
            unmasked = True
        elif key == "seccomp" and value not in ("builtin", "unconfined"):
            kept.append(f"seccomp={_seccomp(value)}")
        else:
            kept.append(text)
    return kept, unmasked


def _seccomp(path: str) -> str:
    import json

    try:
        with open(path, "rb") as file:
            profile = json.load(file)
    except OSError as error:
        reason = f"open {path}: {(error.strerror or '').lower()}"
        raise ValueError(f"opening seccomp profile ({path}) failed: {reason}") from None
    except ValueError as error:
        raise ValueError(f"compacting json for seccomp profile ({path}) failed: {error}") from None
    return json.dumps(profile, separators=(",", ":"), ensure_ascii=False)


def restart_policy(text: str) -> RestartPolicy:
    """The value of ``--restart``. Raises ValueError."""
    name, colon, count = text.partition(":")
    if colon and not name:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    try:
        maximum = go_int(count, base=10) if count else 0
    except ValueError:
        raise ValueError("invalid restart policy format: maximum retry count must be an integer") from None
    return RestartPolicy(name=name, maximum_retry_count=maximum)


def _healthcheck(values: Values) -> Healthcheck | None:
    times = ("interval", "timeout", "start-period", "start-interval")
    set_up = values["health-cmd"] or any(values[f"health-{name}"] for name in (*times, "retries"))
    if values["no-healthcheck"]:
        if set_up:
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        return Healthcheck(test=("NONE",))
    if not set_up:
        return None
    for name in ("interval", "timeout", "retries", "start-period", "start-interval"):
        if values[f"health-{name}"] < 0:
            raise ValueError(f"--health-{name} cannot be negative")
    return Healthcheck(
        test=("CMD-SHELL", values["health-cmd"]) if values["health-cmd"] else (),
        interval=values["health-interval"],
        timeout=values["health-timeout"],
        retries=values["health-retries"],
        start_period=values["health-start-period"],
        start_interval=values["health-start-interval"],
    )


def _is_cdi(text: str) -> bool:
    """Whether ``text`` is a Container Device Interface name, ``vendor.com/class=device``."""
    if text.startswith("/") or "=" not in text:
        return False
    import re

    return bool(re.fullmatch(r"[A-Za-z][\w.-]*/[A-Za-z][\w-]*=[A-Za-z0-9][\w.:-]*", text, re.ASCII))


def _device_requests(values: Values) -> tuple[Any, ...]:
    names = [text for text in values["device"] if _is_cdi(text)]
    if not names:
        return tuple(values["gpus"])
    request = {"Driver": "cdi", "Count": 0, "DeviceIDs": names, "Capabilities": None, "Options": None}
    return (*values["gpus"], request)


def _is_mode(text: str) -> bool:
    return bool(text) and set(text) <= set("rwm") and len(set(text)) == len(text)


def _device(text: str) -> DeviceMapping:
    """``host[:container][:permissions]``. Raises ValueError."""
    import posixpath

    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise ValueError(f"bad format for path: {text}")
    permissions = "rwm"
    if len(parts) == 3:
        if not _is_mode(parts[2]):
            raise ValueError(f"bad mode specified: {parts[2]}")
        source, target, permissions = parts
    elif len(parts) == 2 and _is_mode(parts[1]):
        source = target = posixpath.normpath(parts[0])
        permissions = parts[1]
    elif len(parts) == 2:
        source, target = parts[0], posixpath.normpath(parts[1])
    else:
        source = target = posixpath.normpath(parts[0])
    if not target.startswith("/"):
        raise ValueError(f"{target} is not an absolute path")
    return DeviceMapping(path_on_host=source, path_in_container=target, cgroup_permissions=permissions)


def _user_defined(name: str) -> bool:
    return name not in _PREDEFINED and not name.startswith("container:")


def _networks(values: Values) -> tuple[dict[str, EndpointSettings], str]:
    """(endpoint settings by network, the network mode). The single-network flags belong to the first network."""
    wanted = values["network"] or [_no_network()]
    first = wanted[0]
    _apply_flags(first, values)
    endpoints: dict[str, EndpointSettings] = {}
    seen: set[str] = set()
    for item in wanted:
        settings = _endpoint(item)
        if item["target"] in seen:
            raise ValueError(f"network {quote(item['target'])} is specified multiple times")
        seen.add(item["target"])
        if len(wanted) > 1 or settings != EndpointSettings():
            endpoints[item["target"]] = settings
    if len({_user_defined(name) for name in seen}) > 1:
        raise ValueError("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    return endpoints, first["target"]


def _no_network() -> dict[str, Any]:
    from dockp.cli.readers import network

    return network("default")


def _apply_flags(network: dict[str, Any], values: Values) -> None:
    rows = (
        ("network-alias", "aliases", "--network-alias and per-network alias"),
        ("ip", "ip", "--ip and per-network IPv4 address"),
        ("ip6", "ip6", "--ip6 and per-network IPv6 address"),
        ("mac-address", "mac", "--mac-address and per-network MAC address"),
        ("link-local-ip", "link_local", "--link-local-ip and per-network link-local IP addresses"),
    )
    for flag, key, both in rows:
        if values[flag]:
            if network[key]:
                raise ValueError(f"conflicting options: cannot specify both {both}")
            network[key] = values[flag]
    # On a user-defined network --link is an alias of this endpoint; on the default bridge a link of the old kind.
    network["links"] = values["link"] if _user_defined(network["target"]) else []


def _endpoint(item: dict[str, Any]) -> EndpointSettings:
    if not item["target"].strip():
        raise ValueError("no name set for network")
    if not _user_defined(item["target"]) and item["aliases"]:
        raise ValueError("network-scoped aliases are only supported for user-defined networks")
    ipam = None
    if item["ip"] or item["ip6"] or item["link_local"]:
        ipam = EndpointIpam(ipv4_address=item["ip"], ipv6_address=item["ip6"], link_local_ips=tuple(item["link_local"]))
    return EndpointSettings(
        ipam_config=ipam,
        links=tuple(item.get("links", ())),
        aliases=tuple(item["aliases"]),
        mac_address=_mac(item["mac"]),
        driver_opts=item["driver_opts"],
        gw_priority=item["priority"],
    )


def _mac(text: str) -> str:
    if not text:
        return ""
    import re

    pair = "[0-9A-Fa-f]{2}"
    # Six, eight or twenty bytes, as Go's net.ParseMAC takes: with colons, with dashes, or as dotted groups of four.
    plain = re.fullmatch(rf"{pair}([:-])(?:{pair}\1)*{pair}", text.strip())
    dotted = re.fullmatch(rf"(?:{pair}{pair}\.)+{pair}{pair}", text.strip())
    size = len(re.findall(pair, text))
    if not (plain or dotted) or size not in (6, 8, 20):
        raise ValueError(f"{text} is not a valid mac address")
    return text
