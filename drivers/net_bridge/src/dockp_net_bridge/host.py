"""The few switches under /proc/sys/net that a bridge network needs. Each is only ever turned on, and only where off.

Documented in the kernel's networking/ip-sysctl. The files show the network namespace of the thread that opens them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dockp.spi.errors import SystemFault

_NET = Path("/proc/sys/net")
_BRIDGE_FILTER = _NET / "bridge/bridge-nf-call-iptables"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _set(path: Path, value: str, why: str) -> None:
    if _read(path) == value:
        return
    try:
        path.write_text(value)
    except OSError as exc:
        raise SystemFault(f"cannot set {path} to {value} ({exc.strerror}), {why}") from exc


def forward(families: Iterable[int]) -> None:
    """Let the host pass packets between its interfaces, for each IP version in ``families``."""
    if 4 in families:
        _set(_NET / "ipv4/ip_forward", "1", "without which containers reach nothing beyond this host")
    if 6 in families and _read(_NET / "ipv6/conf/all/forwarding") != "1":
        # A host that forwards ignores router advertisements unless told not to (accept_ra = 2), and would lose the
        # default route that it has from one.
        for entry in os.scandir(_NET / "ipv6/conf"):
            accept = Path(entry.path) / "accept_ra"
            if entry.name != "all" and _read(accept) == "1":
                _set(accept, "2", "without which this host would lose its own IPv6 routes")
        _set(_NET / "ipv6/conf/all/forwarding", "1", "without which containers reach nothing beyond this host by IPv6")


def route_loopback(link: str) -> None:
    """Let packets from the host's 127/8 leave through ``link``; rules keep others from using that."""
    _set(_NET / "ipv4/conf" / link / "route_localnet", "1", "without which published ports do not answer on localhost")


def frames_are_filtered() -> bool:
    """True when the host passes bridged frames to its IP packet rules, as Docker makes it do. A destination rewritten
    there to a container on the same bridge port needs the port's hairpin flag."""
    return _read(_BRIDGE_FILTER) == "1"
