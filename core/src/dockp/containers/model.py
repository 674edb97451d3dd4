"""What a container is asked to be: Docker's container, host and endpoint configurations as values.

Names, meanings and units follow the Docker Engine API (``ContainerCreate``): bytes for memory, billionths of a CPU for
``nano_cpus``, nanoseconds for health check times. `dockp.jsonmodel` turns them into Docker's JSON and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from dockp.jsonmodel import Model, key, nested, nested_list, nested_map, nested_map_list


@frozen(kw_only=True, eq=False, repr=False)
class Healthcheck(Model):
    """``test`` is ``()`` (inherit), ``("NONE",)``, ``("CMD", …)`` or ``("CMD-SHELL", line)``; times in nanoseconds."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


@frozen(kw_only=True, eq=False, repr=False)
class Config(Model):
    """The portable half: what runs. Also the ``config`` object of an image (OCI image-spec ``config.md``)."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: Mapping[str, Any] = field(factory=dict)
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    healthcheck: Healthcheck | None = nested(Healthcheck, default=None)
    image: str = ""
    volumes: Mapping[str, Any] = field(factory=dict)
    working_dir: str = ""
    entrypoint: tuple[str, ...] | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: tuple[str, ...] | None = None
    labels: Mapping[str, str] = field(factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: tuple[str, ...] | None = None


@frozen(kw_only=True, eq=False, repr=False)
class LogConfig(Model):
    type: str = ""
    config: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True, eq=False, repr=False)
class PortBinding(Model):
    host_ip: str = ""
    host_port: str = ""


@frozen(kw_only=True, eq=False, repr=False)
class RestartPolicy(Model):
    """``name`` is "", "no", "always", "unless-stopped" or "on-failure"; the count goes with the last only."""

    name: str = ""
    maximum_retry_count: int = 0


@frozen(kw_only=True, eq=False, repr=False)
class DeviceMapping(Model):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


@frozen(kw_only=True, eq=False, repr=False)
class Ulimit(Model):
    name: str = ""
    soft: int = 0
    hard: int = 0


@frozen(kw_only=True, eq=False, repr=False)
class WeightDevice(Model):
    path: str = ""
    weight: int = 0


@frozen(kw_only=True, eq=False, repr=False)
class ThrottleDevice(Model):
    path: str = ""
    rate: int = 0


@frozen(kw_only=True, eq=False, repr=False)
class BindOptions(Model):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


@frozen(kw_only=True, eq=False, repr=False)
class VolumeDriverConfig(Model):
    name: str = ""
    options: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True, eq=False, repr=False)
class VolumeOptions(Model):
    no_copy: bool = False
    labels: Mapping[str, str] = field(factory=dict)
    subpath: str = ""
    driver_config: VolumeDriverConfig | None = nested(VolumeDriverConfig, default=None)


@frozen(kw_only=True, eq=False, repr=False)
class TmpfsOptions(Model):
    """``size_bytes`` in bytes, ``mode`` as a number (0o1777 when 0)."""

    size_bytes: int = 0
    mode: int = 0
    options: tuple[Any, ...] = ()


@frozen(kw_only=True, eq=False, repr=False)
class MountPoint(Model):
    """One ``--mount``: type "bind", "volume" or "tmpfs"."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = nested(BindOptions, default=None)
    volume_options: VolumeOptions | None = nested(VolumeOptions, default=None)
    tmpfs_options: TmpfsOptions | None = nested(TmpfsOptions, default=None)


@frozen(kw_only=True, eq=False, repr=False)
class HostConfig(Model):
    """The half that depends on this host: limits, mounts, ports, isolation."""

    binds: tuple[str, ...] = ()
    container_id_file: str = key("ContainerIDFile", default="")
    log_config: LogConfig = nested(LogConfig, factory=LogConfig)
    network_mode: str = ""
    port_bindings: Mapping[str, tuple[PortBinding, ...]] = nested_map_list(PortBinding)
    restart_policy: RestartPolicy = nested(RestartPolicy, factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: tuple[str, ...] = ()
    console_size: tuple[int, int] = (0, 0)
    annotations: Mapping[str, str] = field(factory=dict)
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    cgroupns_mode: str = ""
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    ipc_mode: str = ""
    cgroup: str = ""
    links: tuple[str, ...] = ()
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: tuple[str, ...] = ()
    storage_opt: Mapping[str, str] = field(factory=dict)
    tmpfs: Mapping[str, str] = field(factory=dict)
    uts_mode: str = key("UTSMode", default="")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: Mapping[str, str] = field(factory=dict)
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: tuple[WeightDevice, ...] = nested_list(WeightDevice)
    blkio_device_read_bps: tuple[ThrottleDevice, ...] = nested_list(ThrottleDevice)
    blkio_device_write_bps: tuple[ThrottleDevice, ...] = nested_list(ThrottleDevice)
    blkio_device_read_iops: tuple[ThrottleDevice, ...] = nested_list(ThrottleDevice, "BlkioDeviceReadIOps")
    blkio_device_write_iops: tuple[ThrottleDevice, ...] = nested_list(ThrottleDevice, "BlkioDeviceWriteIOps")
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: tuple[DeviceMapping, ...] = nested_list(DeviceMapping)
    device_cgroup_rules: tuple[str, ...] = ()
    device_requests: tuple[Any, ...] = ()
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: tuple[Ulimit, ...] = nested_list(Ulimit)
    mounts: tuple[MountPoint, ...] = nested_list(MountPoint)
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    init: bool | None = None
    storage_driver: str = ""
    """dockp's own: the storage driver for this container; "" is the engine's default."""


@frozen(kw_only=True, eq=False, repr=False)
class EndpointIpam(Model):
    ipv4_address: str = key("IPv4Address", default="")
    ipv6_address: str = key("IPv6Address", default="")
    link_local_ips: tuple[str, ...] = key("LinkLocalIPs", default=())


@frozen(kw_only=True, eq=False, repr=False)
class EndpointSettings(Model):
    """What a container wants of one network."""

    ipam_config: EndpointIpam | None = nested(EndpointIpam, "IPAMConfig", default=None)
    links: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    mac_address: str = ""
    driver_opts: Mapping[str, str] = field(factory=dict)
    gw_priority: int = 0


@frozen(kw_only=True, eq=False, repr=False)
class CreateRequest(Model):
    """Everything `Containers.create` takes, as one value: the body of ``POST /containers/create`` plus its query."""

    config: Config = nested(Config, factory=Config)
    host: HostConfig = nested(HostConfig, factory=HostConfig)
    networks: Mapping[str, EndpointSettings] = nested_map(EndpointSettings)
    name: str = ""
    platform: str = ""


@frozen(kw_only=True, eq=False, repr=False)
class ExecConfig(Model):
    """Everything `Containers.exec_create` takes: the body of ``POST /containers/{id}/exec``."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    tty: bool = False
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    privileged: bool = False
    user: str = ""
    working_dir: str = ""
    console_size: tuple[int, int] = (0, 0)


@frozen(kw_only=True, eq=False, repr=False)
class UpdateRequest(Model):
    """What `Containers.update` changes: the body of ``POST /containers/{id}/update``. Zero and None leave as it is."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    blkio_weight: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory_reservation: int = 0
    memory_swap: int = 0
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    restart_policy: RestartPolicy | None = nested(RestartPolicy, default=None)
