"""Networks, endpoints and ports as the documents of Docker's API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dockp.networks.store import EndpointRecord, NetworkRecord
from dockp.networks.wanted import WantedEndpoint
from dockp.spi.network import Publication


def network(record: NetworkRecord, users: Sequence[EndpointRecord]) -> dict[str, Any]:
    """``GET /networks/{id}``."""
    configs = []
    for pool in record.pools:
        config: dict[str, Any] = {"Subnet": pool.subnet}
        if pool.ip_range:
            config["IPRange"] = pool.ip_range
        if pool.gateway:
            config["Gateway"] = pool.gateway
        if pool.auxiliary:
            config["AuxiliaryAddresses"] = dict(pool.auxiliary)
        configs.append(config)
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": _time(record.created),
        "Scope": "local",
        "Driver": record.driver,
        "EnableIPv4": True,
        "EnableIPv6": record.ipv6,
        "IPAM": {
            "Driver": record.ipam,
            "Options": dict(record.ipam_options) or None,
            "Config": configs,
        },
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {user.container: _user(user) for user in users},
        "Options": dict(record.options),
        "Labels": dict(record.labels),
    }


def _user(endpoint: EndpointRecord) -> dict[str, str]:
    four, six = endpoint.address(4), endpoint.address(6)
    return {
        "Name": endpoint.name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{four[0]}/{four[1]}" if four[0] else "",
        "IPv6Address": f"{six[0]}/{six[1]}" if six[0] else "",
    }


def endpoint(network: NetworkRecord | None, present: EndpointRecord | None, wanted: WantedEndpoint) -> dict[str, Any]:
    """One value of ``NetworkSettings.Networks``: of a place that is there, or one that is only wanted."""
    ipam = {key: value for key, value in (("IPv4Address", wanted.ipv4), ("IPv6Address", wanted.ipv6)) if value}
    four, six = (present.address(4), present.address(6)) if present else (("", 0), ("", 0))
    return {
        "IPAMConfig": ipam or None,
        "Links": None,
        "Aliases": list(wanted.aliases) or None,
        "MacAddress": present.mac if present else wanted.mac,
        "DriverOpts": dict(wanted.options) or None,
        "GwPriority": 0,
        "NetworkID": network.id if network else "",
        "EndpointID": present.id if present else "",
        "Gateway": _gateway(network, present, 4),
        "IPAddress": four[0],
        "IPPrefixLen": four[1],
        "IPv6Gateway": _gateway(network, present, 6),
        "GlobalIPv6Address": six[0],
        "GlobalIPv6PrefixLen": six[1],
        "DNSNames": None,
    }


def _gateway(network: NetworkRecord | None, present: EndpointRecord | None, version: int) -> str:
    if network is None or present is None or network.internal or not present.address(version)[0]:
        return ""
    for pool in network.pools:
        if (":" in pool.subnet) == (version == 6):
            return pool.gateway
    return ""


def ports(publications: Iterable[Publication]) -> dict[str, list[dict[str, str]]]:
    """``NetworkSettings.Ports``, the published ones."""
    found: dict[str, list[dict[str, str]]] = {}
    for publication in publications:
        key = f"{publication.container_port}/{publication.protocol}"
        binding = {"HostIp": publication.host_ip, "HostPort": str(publication.host_port)}
        found.setdefault(key, []).append(binding)
    return found


def settings(
    sandbox: str, networks: Mapping[str, Mapping[str, Any]], ports: Mapping[str, list[dict[str, str]] | None]
) -> dict[str, Any]:
    """``NetworkSettings``. The flat fields repeat those of the default bridge, as clients of old expect."""
    default = networks.get("bridge", {})
    flat = {
        key: default.get(key, empty)
        for key, empty in (
            ("EndpointID", ""),
            ("Gateway", ""),
            ("GlobalIPv6Address", ""),
            ("GlobalIPv6PrefixLen", 0),
            ("IPAddress", ""),
            ("IPPrefixLen", 0),
            ("IPv6Gateway", ""),
            ("MacAddress", ""),
        )
    }
    return {
        "Bridge": "",
        "SandboxID": sandbox,
        "SandboxKey": "",
        "Ports": dict(ports),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **flat,
        "Networks": dict(networks),
    }


def _time(nanoseconds: int) -> str:
    import datetime

    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
