"""Whether bridge networks can exist here: one is built, in a network namespace that vanishes with everything in it."""

from __future__ import annotations

import os

from dockp.linux import netns, nft, rtnl
from dockp.linux.netlink import Netlink
from dockp.spi.errors import DockpError
from dockp.spi.network import Network, Pool
from dockp.spi.values import Probe
from dockp_net_bridge import plan
from dockp_net_bridge.options import BridgeOptions

_TRIAL = Network(id="0" * 64, name="probe", pools=(Pool(subnet="192.0.2.0/24"), Pool(subnet="2001:db8::/64")))


def probe() -> Probe:
    """Try links and rules; say which of them the kernel refuses. Leaves nothing behind."""
    if os.geteuid() != 0:
        return Probe(supported=False, reason="bridge networks need root")
    try:
        near = netns.new()
    except OSError as exc:
        return Probe(supported=False, reason=f"no network namespaces ({exc.strerror})")
    try:
        far = netns.new()
        try:
            return netns.inside(near, lambda: _trial(far))
        finally:
            os.close(far)
    finally:
        os.close(near)


def _trial(far: int) -> Probe:
    features = {"publish", "internal", "masquerade"}
    try:
        with rtnl.open_here() as links:
            _links(links, far)
    except OSError as exc:
        return Probe(supported=False, reason=f"{exc.strerror}; kernel modules bridge and veth are needed")
    try:
        nft.run(plan.table_commands(_TRIAL, BridgeOptions.of(_TRIAL)))
    except (DockpError, OSError) as exc:
        return Probe(supported=False, reason=f"{exc}; a kernel with nf_tables (inet, nat, fib) is needed")
    if rtnl.has_ipv6():
        features.add("ipv6")
    return Probe(supported=True, features=frozenset(features), details={"Firewall": "nftables"})


def _links(links: Netlink, far: int) -> None:
    links.run(rtnl.add_bridge("probe", plan.bridge_mac(_TRIAL.id)))
    bridge = rtnl.find_link(links, "probe")
    links.run(
        rtnl.add_veth(
            "probe0",
            master=bridge.index if bridge else 0,
            mtu=None,
            peer="probe1",
            peer_mac="02:42:c0:00:02:02",
            peer_namespace=far,
        )
    )
