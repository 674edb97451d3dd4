"""What is asked of this package, as values: a new network, a place on one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

from dockp.networks.store import PoolRecord
from dockp.spi.errors import InvalidArgument

if TYPE_CHECKING:
    from dockp.containers.model import CreateRequest, EndpointSettings

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@frozen(kw_only=True)
class WantedNetwork:
    """A network to make. Pools may lack subnet or gateway: they are then chosen."""

    name: str = field()
    driver: str = "bridge"
    ipam: str = "default"
    ipam_options: Mapping[str, str] = field(factory=dict)
    options: Mapping[str, str] = field(factory=dict)
    labels: Mapping[str, str] = field(factory=dict)
    internal: bool = False
    attachable: bool = False
    ipv6: bool = False
    pools: tuple[PoolRecord, ...] = ()

    @name.validator
    def _check_name(self, _: object, value: str) -> None:
        if not _NAME.fullmatch(value):
            raise InvalidArgument(f"invalid network name: {value!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")


def _mac(value: str) -> str:
    text = value.lower().replace("-", ":")
    if text and not _MAC.fullmatch(text):
        raise InvalidArgument(f"invalid MAC address: {value}")
    return text


@frozen(kw_only=True)
class WantedEndpoint:
    """A place on a network: "" and empty mean that it is chosen."""

    ipv4: str = ""
    ipv6: str = ""
    mac: str = field(default="", converter=_mac)
    aliases: tuple[str, ...] = ()
    options: Mapping[str, str] = field(factory=dict)

    @classmethod
    def of(cls, settings: EndpointSettings | None, mac: str = "") -> WantedEndpoint:
        """From a container's settings for the network; ``mac`` is the container-wide wish."""
        if settings is None:
            return cls(mac=mac)
        ipam = settings.ipam_config
        return cls(
            ipv4=ipam.ipv4_address if ipam else "",
            ipv6=ipam.ipv6_address if ipam else "",
            mac=settings.mac_address or mac,
            aliases=settings.aliases,
            options=settings.driver_opts,
        )


def network_mode(request: CreateRequest) -> str:
    """The first network a container wants: ``"bridge"`` by default; also ``"none"``, ``"host"``, ``"container:…"``."""
    if request.config.network_disabled:
        return "none"
    mode = request.host.network_mode
    return "bridge" if mode in ("", "default") else mode


def has_sandbox(mode: str) -> bool:
    """True when the container gets a network namespace of its own that this package wires."""
    return mode not in ("none", "host") and not mode.startswith("container:")


def wanted_endpoints(request: CreateRequest) -> dict[str, WantedEndpoint]:
    """What a container wants of each network, by name or id, the one of its network mode first."""
    mode = network_mode(request)
    if not has_sandbox(mode):
        return {}
    settings = {("bridge" if name == "default" else name): value for name, value in request.networks.items()}
    first = WantedEndpoint.of(settings.pop(mode, None), request.config.mac_address)
    return {mode: first, **{name: WantedEndpoint.of(value) for name, value in settings.items()}}
