"""The options of one bridge network, under Docker's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address

from attrs import frozen

from dockp.spi.errors import InvalidArgument
from dockp.spi.network import Network

LINK_PREFIX = "dockp-"
_NAME = re.compile(r"[^\s/:\"\\]{1,15}")
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


def _boolean(value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ValueError("neither true nor false")


def _mtu(value: str) -> int:
    number = int(value)
    if not 68 <= number <= 65535:
        raise ValueError("not between 68 and 65535")
    return number


def _link_name(value: str) -> str:
    if not _NAME.fullmatch(value) or value in (".", "..") or value.startswith("-"):
        raise ValueError("not the name of a network interface")
    return value


@frozen(kw_only=True)
class BridgeOptions:
    """What ``-o`` pairs mean.

    Attributes:
        link: the bridge's name on the host. mtu: bytes, or None for the kernel's choice.
        inter_container: whether containers of the network reach each other.
        masquerade: whether what leaves the network takes the host's address.
        host_binding: the host address that ports are published on where none is named.
    """

    link: str
    mtu: int | None = None
    inter_container: bool = True
    masquerade: bool = True
    host_binding: str = "0.0.0.0"

    @classmethod
    def of(cls, network: Network) -> BridgeOptions:
        """Parse the options of ``network``. Raises: InvalidArgument naming the option."""
        values: dict[str, object] = {"link": LINK_PREFIX + network.id[:9]}
        for key, text in network.options.items():
            if key not in _OPTIONS:
                known = ", ".join(sorted(_OPTIONS))
                raise InvalidArgument(f"unknown option {key} for network driver bridge; it knows {known}")
            attribute, convert = _OPTIONS[key]
            try:
                value = convert(text)
            except ValueError as exc:
                raise InvalidArgument(f"invalid value {text!r} for network option {key}: {exc}") from None
            if attribute:
                values[attribute] = value
        return cls(**values)  # type: ignore[arg-type]


_OPTIONS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "com.docker.network.bridge.name": ("link", _link_name),
    # Marks the predefined network in listings; this driver treats all networks alike.
    "com.docker.network.bridge.default_bridge": ("", _boolean),
    "com.docker.network.bridge.enable_icc": ("inter_container", _boolean),
    "com.docker.network.bridge.enable_ip_masquerade": ("masquerade", _boolean),
    "com.docker.network.bridge.host_binding_ipv4": ("host_binding", lambda text: str(IPv4Address(text))),
    "com.docker.network.driver.mtu": ("mtu", _mtu),
}
