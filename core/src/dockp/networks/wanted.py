"""What a container asks of its networks, as values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from dockp.containers.model import CreateRequest, EndpointSettings


@frozen(kw_only=True)
class WantedEndpoint:
    """A place on a network: "" and empty mean that it is chosen."""

    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
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
