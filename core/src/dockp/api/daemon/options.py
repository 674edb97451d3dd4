"""What dockpd can be told, as one table: each flag and key of dockerd's, and what it means here.

A row is a flag, its key in ``daemon.json``, and a rule. The names, letters and defaults are those of dockerd (its
``--help`` of version 28, and its documentation of ``daemon.json``), so that units and scripts for dockerd can start
dockpd. An option whose machinery is not here is refused: nothing is accepted and ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from dockp.cli.flags import HELP, INT, LIST, STRING, SWITCH, Flag, Kind


class Engine(NamedTuple):
    """A setting of the engine, see `dockp.config.Config`."""

    name: str


class Own(NamedTuple):
    """A setting of the daemon, see `dockp.api.daemon.settings.Settings`."""

    name: str


class Already(NamedTuple):
    """True here whatever is said: ``accepts`` is what may be said, ``because`` why nothing else may."""

    accepts: tuple[Any, ...]
    because: str


class Refused(NamedTuple):
    """Not here. ``harmless`` are values that ask for nothing."""

    because: str
    harmless: tuple[Any, ...] = ()


class Option(NamedTuple):
    """One row.

    Attributes:
        flag: as on the command line; its name is "" for what only the file can say.
        key: in ``daemon.json``.
        rule: what it means here.
        reload: SIGHUP takes a new value from the file.
    """

    flag: Flag
    key: str
    rule: Engine | Own | Already | Refused
    reload: bool = False


_NOTHING: Final[tuple[Any, ...]] = ("", 0, False, (), [], {}, None)
_BRIDGE: Final = "the default bridge is set up by bip, mtu and default-address-pools alone"
_NETFILTER: Final = "dockpd keeps its rules in one nftables table of its own, which published ports need"
_TLS: Final = "/root/.docker/"
MAP: Final = Kind("map", str, None, "list")
"""``name=value``, repeated; an object in the file."""


def _row(
    name: str,
    kind: Kind,
    rule: Engine | Own | Already | Refused,
    text: str,
    *,
    short: str = "",
    key: str = "",
    reload: bool = False,
    hidden: bool = False,
) -> Option:
    return Option(Flag(name, short, kind, text, hidden=hidden), key or name, rule, reload)


def _file_only(key: str, rule: Already | Refused, kind: Kind = MAP) -> Option:
    return Option(Flag("", "", kind, ""), key, rule)


# ruff: noqa: E501
OPTIONS: Final[tuple[Option, ...]] = (
    # The daemon
    _row("host", LIST, Own("hosts"), "Daemon socket(s) to connect to: unix://, tcp:// or fd:// (default unix:///run/dockp.sock)", short="H", key="hosts"),
    _row("group", STRING, Own("group"), "Group for the unix socket (default none: root only)", short="G"),
    _row("pidfile", STRING, Own("pidfile"), "Path to use for daemon PID file", short="p"),
    _row("debug", SWITCH, Engine("debug"), "Enable debug mode", short="D", reload=True),
    _row("log-level", STRING, Engine("log_level"), "Set the logging level: debug, info, warn, error or fatal (default info)", short="l", reload=True),
    _row("log-format", STRING, Own("log_format"), "Set the logging format: text or json (default text)"),
    _row("raw-logs", SWITCH, Already((True, False), "lines of the log have full timestamps and no colours"), "Full timestamps without ANSI coloring"),
    _row("label", LIST, Engine("labels"), "Set key=value labels to the daemon", key="labels", reload=True),
    _row("metrics-addr", STRING, Own("metrics_addr"), "Set default address and port to serve the metrics api on"),
    _row("shutdown-timeout", INT, Own("shutdown_timeout"), "Seconds that requests have to end when the daemon stops (default 15)", reload=True),
    _row("live-restore", SWITCH, Already((True,), "containers never depend on the daemon: they go on when it ends"), "Containers go on when the daemon ends (always)"),
    _row("oom-score-adjust", INT, Refused("the service manager sets it, see OOMScoreAdjust= in dockp.service", _NOTHING), "Set the oom_score_adj for the daemon", hidden=True),
    _row("experimental", SWITCH, Refused("there are no experimental features", _NOTHING), "Enable experimental features", hidden=True),
    # TLS
    _row("tls", SWITCH, Own("tls"), "Use TLS; implied by --tlsverify"),
    _row("tlsverify", SWITCH, Own("tlsverify"), "Use TLS and verify the remote"),
    _row("tlscacert", STRING, Own("tlscacert"), f"Trust certs signed only by this CA (default {_TLS}ca.pem)"),
    _row("tlscert", STRING, Own("tlscert"), f"Path to TLS certificate file (default {_TLS}cert.pem)"),
    _row("tlskey", STRING, Own("tlskey"), f"Path to TLS key file (default {_TLS}key.pem)"),
    _row("allow-insecure-tcp", SWITCH, Own("allow_insecure_tcp"), "Serve tcp:// to anybody who can connect, with no TLS or no client certificates"),
    _row("api-cors-header", STRING, Refused("browsers are not served", _NOTHING), "Set CORS headers in the Engine API", hidden=True),
    _row("authorization-plugin", LIST, Refused("plug-ins of dockp can refuse requests, Docker's cannot be used", _NOTHING), "Authorization plugins to load", key="authorization-plugins", hidden=True),
    # State
    _row("data-root", STRING, Engine("data_root"), "Root directory of persistent state (default /var/lib/dockp)"),
    _row("exec-root", STRING, Engine("exec_root"), "Root directory for execution state files (default /run/dockp)"),
    _row("storage-driver", STRING, Engine("storage_driver"), "Storage driver to use", short="s"),
    _row("storage-opt", LIST, Engine("storage_opts"), "Storage driver options", key="storage-opts"),
    # Running containers
    _row("exec-driver", STRING, Engine("exec_driver"), "Execution driver to use"),
    _row("exec-opt", LIST, Engine("exec_opts"), "Runtime execution options", key="exec-opts"),
    _row("add-runtime", MAP, Refused("execution drivers are installed as plug-ins, see dockp plugin ls", _NOTHING), "Register an additional OCI compatible runtime", key="runtimes", hidden=True),
    _row("default-runtime", STRING, Already(("", "runc", "libcontainer"), "use exec-driver to choose another execution driver"), "Default OCI runtime for containers", hidden=True),
    _row("cgroup-parent", STRING, Engine("cgroup_parent"), "Set parent cgroup for all containers (default dockp)"),
    _row("default-ulimit", LIST, Engine("default_ulimits"), "Default ulimits for containers", key="default-ulimits"),
    _row("default-shm-size", STRING, Engine("default_shm_size"), "Default shm size for containers (default 64MiB)"),
    _row("default-ipc-mode", STRING, Engine("default_ipc_mode"), "Default mode for containers ipc: private or shareable (default private)"),
    _row("default-cgroupns-mode", STRING, Engine("default_cgroupns_mode"), "Default mode for containers cgroup namespace: host or private"),
    _row("init", SWITCH, Refused("use --init for a container", _NOTHING), "Run an init in the container", hidden=True),
    _row("init-path", STRING, Refused("use --init for a container", _NOTHING), "Path to the docker-init binary", hidden=True),
    _row("no-new-privileges", SWITCH, Refused("use --security-opt no-new-privileges for a container", _NOTHING), "Set no-new-privileges by default for new containers", hidden=True),
    _row("seccomp-profile", STRING, Already(("", "builtin"), "the default profile is the built-in one; use --security-opt seccomp= for a container"), "Path to seccomp profile", hidden=True),
    _row("selinux-enabled", SWITCH, Refused("SELinux labels are not supported", _NOTHING), "Enable selinux support", hidden=True),
    _row("userns-remap", STRING, Refused("user namespaces for all containers are not supported", _NOTHING), "User/Group setting for user namespaces", hidden=True),
    _row("rootless", SWITCH, Refused("dockpd needs root", _NOTHING), "Enable rootless mode", hidden=True),
    _row("cpu-rt-period", INT, Refused("realtime groups are not supported", _NOTHING), "Limit the CPU real-time period", hidden=True),
    _row("cpu-rt-runtime", INT, Refused("realtime groups are not supported", _NOTHING), "Limit the CPU real-time runtime", hidden=True),
    _row("cdi-spec-dir", LIST, Refused("CDI devices are not supported", _NOTHING), "CDI specification directories to use", key="cdi-spec-dirs", hidden=True),
    # Logs of containers
    _row("log-driver", STRING, Engine("log_driver"), "Default driver for container logs (default json-file)"),
    _row("log-opt", MAP, Engine("log_opts"), "Default log driver options for containers", key="log-opts"),
    # Networks
    _row("bip", STRING, Engine("bip"), "Address of the default bridge, as 172.17.0.1/16"),
    _row("mtu", INT, Engine("mtu"), "Set the containers network MTU"),
    _row("dns", LIST, Engine("dns"), "DNS server to use"),
    _row("dns-opt", LIST, Engine("dns_opts"), "DNS options to use", key="dns-opts"),
    _row("dns-search", LIST, Engine("dns_search"), "DNS search domains to use"),
    _row("default-address-pool", LIST, Engine("default_address_pools"), "Default address pools, as base=10.10.0.0/16,size=24", key="default-address-pools"),
    _row("default-network-driver", STRING, Engine("default_network_driver"), "Network driver of networks that name none (default bridge)"),
    _row("network-opt", MAP, Engine("network_opts"), "Network driver options", key="network-opts"),
    _row("bridge", STRING, Refused(_BRIDGE, _NOTHING), "Attach containers to a network bridge", short="b", hidden=True),
    _row("default-gateway", STRING, Refused(_BRIDGE, _NOTHING), "Container default gateway IPv4 address", hidden=True),
    _row("default-gateway-v6", STRING, Refused(_BRIDGE, _NOTHING), "Container default gateway IPv6 address", hidden=True),
    _row("fixed-cidr", STRING, Refused(_BRIDGE, _NOTHING), "IPv4 subnet for fixed IPs", hidden=True),
    _row("fixed-cidr-v6", STRING, Refused(_BRIDGE, _NOTHING), "IPv6 subnet for fixed IPs", hidden=True),
    _row("bip6", STRING, Refused(_BRIDGE, _NOTHING), "IPv6 address of the default bridge", hidden=True),
    _row("default-network-opt", MAP, Refused("use network-opt", _NOTHING), "Default network options", key="default-network-opts", hidden=True),
    _row("icc", SWITCH, Already((True,), "containers on the default bridge can reach each other"), "Enable inter-container communication (always)", hidden=True),
    _row("ip", STRING, Already(("", "0.0.0.0"), "ports are published on all addresses unless -p names one"), "Default IP when binding container ports", hidden=True),
    _row("ip-forward", SWITCH, Already((True,), "published ports and the way out need it"), "Enable IP forwarding (always)", hidden=True),
    _row("ip-forward-no-drop", SWITCH, Already((True, False), "the host's forward policy is left as it is"), "Do not set the filter-FORWARD policy to DROP", hidden=True),
    _row("ip-masq", SWITCH, Already((True,), _NETFILTER), "Enable IP masquerading (always)", hidden=True),
    _row("iptables", SWITCH, Already((True,), _NETFILTER), "Enable addition of packet rules (always, with nftables)", hidden=True),
    _row("ip6tables", SWITCH, Already((True,), _NETFILTER), "Enable addition of IPv6 packet rules (always, with nftables)", hidden=True),
    _row("firewall-backend", STRING, Already(("", "nftables"), _NETFILTER), "Firewall backend to use", hidden=True),
    _row("allow-direct-routing", SWITCH, Refused("use a network with gateway_mode routed", _NOTHING), "Allow remote access to published ports on container IP addresses", hidden=True),
    _row("bridge-accept-fwmark", STRING, Refused(_NETFILTER, _NOTHING), "Accept packets with this firewall mark", hidden=True),
    _row("ipv6", SWITCH, Refused("the default bridge has IPv4 only", _NOTHING), "Enable IPv6 networking", hidden=True),
    _row("host-gateway-ip", LIST, Refused("host-gateway is the gateway of the container's first network", _NOTHING), "Addresses that host-gateway resolves to", key="host-gateway-ips", hidden=True),
    _row("userland-proxy", SWITCH, Already((False, True), "published ports answer on loopback too, with no process a port"), "Use userland proxy for loopback traffic", hidden=True),
    _row("userland-proxy-path", STRING, Refused("there is no userland proxy", _NOTHING), "Path to the userland proxy binary", hidden=True),
    _row("network-control-plane-mtu", INT, Refused("there is no cluster", (*_NOTHING, 1500)), "Network control plane MTU", hidden=True),
    # Registries
    _row("registry-mirror", LIST, Engine("registry_mirrors"), "Preferred registry mirror", key="registry-mirrors", reload=True),
    _row("insecure-registry", LIST, Engine("insecure_registries"), "Enable insecure registry communication", key="insecure-registries", reload=True),
    _row("allow-nondistributable-artifacts", LIST, Refused("a foreign layer stays where it is", _NOTHING), "Allow push of nondistributable artifacts to registry", hidden=True),
    _row("max-concurrent-downloads", INT, Engine("max_concurrent_downloads"), "Set the max concurrent downloads for each pull", reload=True),
    _row("max-concurrent-uploads", INT, Engine("max_concurrent_uploads"), "Set the max concurrent uploads for each push", reload=True),
    _row("max-download-attempts", INT, Engine("max_download_attempts"), "Set the max download attempts for each pull", reload=True),
    _row("http-proxy", STRING, Engine("http_proxy"), "HTTP proxy URL to use for outgoing traffic"),
    _row("https-proxy", STRING, Engine("https_proxy"), "HTTPS proxy URL to use for outgoing traffic"),
    _row("no-proxy", STRING, Engine("no_proxy"), "Hosts for which the proxy is not used"),
    # What else is part of dockerd
    _row("containerd", STRING, Refused("there is no containerd under dockpd", _NOTHING), "containerd grpc address", hidden=True),
    _row("containerd-namespace", STRING, Refused("there is no containerd under dockpd", (*_NOTHING, "moby")), "Containerd namespace to use", hidden=True),
    _row("containerd-plugins-namespace", STRING, Refused("there is no containerd under dockpd", (*_NOTHING, "plugins.moby")), "Containerd namespace to use for plugins", hidden=True),
    _row("cri-containerd", SWITCH, Refused("there is no containerd under dockpd", _NOTHING), "Start containerd with cri", hidden=True),
    _row("feature", MAP, Refused("there are no features to switch", _NOTHING), "Enable feature in the daemon", key="features", hidden=True),
    _row("node-generic-resource", LIST, Refused("swarm is not supported", _NOTHING), "Advertise user-defined resource", key="node-generic-resources", hidden=True),
    _row("swarm-default-advertise-addr", STRING, Refused("swarm is not supported", _NOTHING), "Set default address for swarm advertised address", hidden=True),
    _file_only("builder", Refused("images are not built", _NOTHING)),
    _row("registry-timeout", STRING, Engine("registry_timeout"), "Seconds without a byte after which a registry is given up (default 30)"),
    _row("driver-deadline", STRING, Engine("driver_deadline"), "Seconds for one call into a driver (default 60)"),
)  # fmt: skip

COMMAND_FLAGS: Final = (
    Flag("config-file", "", STRING, "Daemon configuration file (default /etc/dockp/daemon.json)"),
    Flag("validate", "", SWITCH, "Validate daemon configuration and exit"),
    Flag("version", "v", SWITCH, "Print version information and quit"),
    HELP,
)
"""Flags that are no settings."""

BY_FLAG: Final[Mapping[str, Option]] = {option.flag.name: option for option in OPTIONS if option.flag.name}
BY_KEY: Final[Mapping[str, Option]] = {option.key: option for option in OPTIONS}
