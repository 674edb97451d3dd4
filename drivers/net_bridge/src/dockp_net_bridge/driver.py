"""The driver ``bridge``: one Linux bridge a network, one veth pair an endpoint, one nftables table for all."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_interface, ip_network

from dockp.linux import conntrack, nft, rtnl
from dockp.linux.netlink import Netlink, Request
from dockp.spi.errors import Conflict, FailedPrecondition, InvalidArgument, NotFound, NotImplemented, SystemFault
from dockp.spi.network import Endpoint, Network, NetworkDriver, NetworkInventory, Publication
from dockp.spi.values import Probe
from dockp_net_bridge import host, plan
from dockp_net_bridge.options import LINK_PREFIX, BridgeOptions

_ATTEMPTS = 20
_LINK_LOCAL = "fe80::1/64"


class BridgeDriver(NetworkDriver):
    """Networks on this host. Marks: links ``dockp-…``/``dk…`` with the full id as alias; comments in the nft table."""

    name = "bridge"
    summary = "Linux bridge with address translation and published ports"

    @classmethod
    def probe(cls, options: Mapping[str, str]) -> Probe:
        cls(options)
        from dockp_net_bridge.probe import probe

        return probe()

    def __init__(self, options: Mapping[str, str]) -> None:
        for key in options:
            raise InvalidArgument(f"network driver bridge has no option {key}; options belong to its networks (-o)")

    # Networks.

    def create_network(self, network: Network) -> None:
        options = BridgeOptions.of(network)
        with rtnl.open_here() as links:
            bridge = self._bridge(links, network, options)
            self._give_addresses(links, bridge, network)
        if not network.internal:
            host.forward({ip_network(pool.subnet).version for pool in network.pools})
        elements, chains = plan.present(network, options)
        with nft.open_here() as rules:
            if nft.holds(rules, plan.TABLE, elements=elements, chains=chains):
                return
        nft.run(plan.table_commands(network, options))

    @staticmethod
    def _bridge(links: Netlink, network: Network, options: BridgeOptions) -> rtnl.Link:
        links.run(rtnl.add_bridge(options.link, plan.bridge_mac(network.id)))
        found = rtnl.find_link(links, options.link)
        if found is None:
            raise SystemFault(f"the bridge {options.link} vanished while it was being made")
        if found.kind != "bridge" or found.alias not in ("", network.id):
            raise Conflict(
                f"network {network.name} needs a bridge {options.link}, but the host has such a link already"
            )
        if not found.alias and any(index == found.index for index, _ in rtnl.addresses(links)):
            # One that we were killed over while making it has no address yet; this one is somebody else's.
            raise Conflict(f"the bridge {options.link} exists already and was not made for network {network.name}")
        links.run(rtnl.change_link(options.link, up=True, mtu=options.mtu, alias=network.id, link_local=False))
        return found

    @staticmethod
    def _give_addresses(links: Netlink, bridge: rtnl.Link, network: Network) -> None:
        wanted = [f"{pool.gateway}/{ip_network(pool.subnet).prefixlen}" for pool in network.pools if pool.gateway]
        present = {(index, ip_interface(text)) for index, text in rtnl.addresses(links)}
        for text in wanted:
            address = ip_interface(text)
            if (bridge.index, address) in present:
                continue
            if any(address.ip == other.ip for _, other in present):
                raise Conflict(f"the gateway {address.ip} of network {network.name} is an address of this host already")
            links.run(rtnl.add_address(bridge.index, text))
        if any(":" in text for text in wanted):
            # Neighbours are asked for from a link-local address. One that the kernel makes itself is checked for
            # duplicates first, and for that second packets to containers would be lost.
            links.run(rtnl.add_address(bridge.index, _LINK_LOCAL))

    def remove_network(self, network: Network) -> None:
        options = BridgeOptions.of(network)
        with rtnl.open_here() as links:
            found = rtnl.find_link(links, options.link)
            half_made = found is not None and not found.alias and options.link.startswith(LINK_PREFIX)
            if found is not None and (found.alias == network.id or half_made):
                # Before the rules, which must not go while there is still something to protect.
                links.run(rtnl.delete_link(options.link))
        with nft.open_here() as rules:
            _settle(rules, lambda: _removal(rules, network.id))
            nft.delete_table_if_empty(rules, plan.TABLE, "bridges")

    # Endpoints.

    def join(self, network: Network, endpoint: Endpoint, sandbox: int) -> None:
        options = BridgeOptions.of(network)
        link = plan.endpoint_link(endpoint.id)
        with rtnl.open_here() as links:
            bridge = rtnl.find_link(links, options.link)
            if bridge is None:
                raise NotFound(f"the bridge {options.link} of network {network.name} does not exist on this host")
            requests = (
                rtnl.add_veth(
                    link,
                    master=bridge.index,
                    mtu=options.mtu,
                    peer=endpoint.interface,
                    peer_mac=endpoint.mac,
                    peer_namespace=sandbox,
                ),
                rtnl.change_link(
                    link,
                    alias=endpoint.id,
                    link_local=False,
                    isolated=not options.inter_container or None,
                    hairpin=host.frames_are_filtered() or None,
                ),
            )
            self._make_link(links, link, requests, endpoint)
            try:
                self._configure(endpoint, sandbox)
                # Let the bridge forward by its new port now, not when the kernel finds the time.
                links.run(rtnl.get_link(link), rtnl.get_link(options.link))
            except BaseException:
                links.exchange((rtnl.delete_link(link),))
                raise

    @staticmethod
    def _make_link(links: Netlink, link: str, requests: Sequence[Request], endpoint: Endpoint) -> None:
        try:
            links.run(*requests)
        except OSError as exc:
            if exc.errno == errno.EXFULL:
                raise FailedPrecondition("the network is full: a Linux bridge takes 1023 containers") from None
            if exc.errno != errno.EEXIST:
                raise
            # Left by an attempt that was killed, or a join done twice: start over. When the name inside the sandbox is
            # what is taken, the second attempt says so.
            links.run(rtnl.delete_link(link))
            try:
                links.run(*requests)
            except OSError as again:
                if again.errno != errno.EEXIST:
                    raise
                raise Conflict(f"the sandbox has an interface {endpoint.interface} already") from None

    @staticmethod
    def _configure(endpoint: Endpoint, sandbox: int) -> None:
        six = any(":" in address for address in endpoint.addresses)
        with rtnl.open_in(sandbox) as links:
            found = rtnl.find_link(links, endpoint.interface)
            if found is None:
                raise SystemFault(f"the interface {endpoint.interface} vanished from its sandbox")
            taken = {address.partition("/")[0] for _, address in rtnl.addresses(links)}
            for address in endpoint.addresses:
                if address.partition("/")[0] in taken:
                    raise Conflict(f"the sandbox has the address {address} already")
            links.run(
                rtnl.change_link("lo", up=True),
                rtnl.change_link(endpoint.interface, up=True, link_local=six),
                *(rtnl.add_address(found.index, address) for address in endpoint.addresses),
                *(
                    rtnl.add_default_route(found.index, gateway)
                    for gateway in (endpoint.gateway, endpoint.gateway6)
                    if gateway
                ),
                rtnl.get_link(endpoint.interface),
            )

    def leave(self, network: Network, endpoint: Endpoint, sandbox: int | None) -> None:
        # Removing one end of a veth pair removes the other, so the sandbox need not be entered.
        with rtnl.open_here() as links:
            links.run(rtnl.delete_link(plan.endpoint_link(endpoint.id)))

    # Ports.

    def publish(self, network: Network, publications: Sequence[Publication]) -> None:
        options = BridgeOptions.of(network)
        if publications and network.internal:
            raise InvalidArgument(f"network {network.name} is internal: its ports cannot be published")
        if any(p.host_ip == "::1" for p in publications):
            raise NotImplemented("ports cannot be published on ::1: IPv6 packets from there cannot leave the host")
        try:
            keys = [(name, element.key) for name, element in (plan.publication_element(p, "") for p in publications)]
        except (OSError, ValueError, KeyError) as exc:
            raise InvalidArgument(f"malformed publication on network {network.name}: {exc}") from None
        if len(set(keys)) != len(keys):
            raise Conflict(f"network {network.name} is to publish one port twice")
        if plan.needs_loopback_routing(publications):
            host.route_loopback(options.link)
        with nft.open_here() as rules:

            def changes() -> list[nft.Change]:
                present = _publications(rules)
                _refuse_foreign(present, keys, network)
                mine = [pair for pair in present if pair[1].comment == network.id]
                before.update(plan.publication_of(name, element) for name, element in mine)
                return plan.publication_changes(mine, publications, network.id)

            before: set[Publication] = set()
            _settle(rules, changes)
        _forget_flows(before - set(publications), set(publications) - before)

    # What there is.

    def inventory(self) -> NetworkInventory:
        with rtnl.open_here() as sock:
            found = rtnl.links(sock)
        bridges = {link.index for link in found if link.kind == "bridge" and _is_id(link.alias)}
        networks = {link.alias for link in found if link.index in bridges}
        networks |= {
            link.name.removeprefix(LINK_PREFIX)
            for link in found
            if link.kind == "bridge" and link.name.startswith(LINK_PREFIX) and not link.alias
        }
        endpoints = {
            link.alias or link.name.removeprefix("dk")
            for link in found
            if link.kind == "veth" and (link.alias == "" or plan.endpoint_link(link.alias) == link.name)
            if _is_endpoint_link(link.name)
        }
        with nft.open_here() as rules:
            publications = frozenset(plan.publication_of(name, element) for name, element in _publications(rules))
            for name in plan.SETS:
                networks |= {e.comment for e in nft.elements(rules, plan.TABLE, name) if e.comment}
            networks |= {element.comment for _, element in _publications(rules) if element.comment}
        return NetworkInventory(networks=frozenset(networks), endpoints=frozenset(endpoints), publications=publications)


def _is_id(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def _is_endpoint_link(name: str) -> bool:
    rest = name.removeprefix("dk")
    return len(name) == 13 and len(rest) == 11 and all(c in "0123456789abcdef" for c in rest)


def _publications(rules: Netlink) -> list[tuple[str, nft.Element]]:
    return [(name, element) for name in plan.MAPS for element in nft.elements(rules, plan.TABLE, name)]


def _refuse_foreign(
    present: Sequence[tuple[str, nft.Element]], wanted: Sequence[tuple[str, bytes]], network: Network
) -> None:
    keys = set(wanted)
    for name, element in present:
        if element.comment != network.id and (name, element.key) in keys:
            taken = plan.publication_of(name, element)
            raise Conflict(
                f"Bind for {taken.host_ip}:{taken.host_port} failed: port is already allocated"
                f" (by network {element.comment[:12]}, for {taken.address}:{taken.container_port})"
            )


def _forget_flows(removed: set[Publication], added: set[Publication]) -> None:
    """Clients that go on sending by UDP must notice what changed (moby/moby#8795)."""
    if not any(publication.protocol == "udp" for publication in removed | added):
        return
    with rtnl.open_here() as links:
        local = {address.partition("/")[0] for _, address in rtnl.addresses(links)}
    conntrack.forget(lambda flow: plan.outdated(flow, removed, added, local))


def _removal(rules: Netlink, network: str) -> list[nft.Change]:
    changes = []
    for name in (*plan.SETS, *plan.MAPS):
        mine = [element for element in nft.elements(rules, plan.TABLE, name) if element.comment == network]
        if mine:
            changes.append(nft.Change(name, delete=mine))
    return changes


def _settle(rules: Netlink, changes: Callable[[], list[nft.Change]]) -> None:
    """Look, decide, change; again when what was looked at changed meanwhile."""
    for attempt in range(_ATTEMPTS):
        decided = changes()
        try:
            nft.change(rules, plan.TABLE, decided)
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.EEXIST, errno.EBUSY) or attempt == _ATTEMPTS - 1:
                raise
        else:
            return
