"""What the core remembers of networks: records, their tables, and the queries on them.

Only what cannot be asked of the host is kept: a row is written before the thing it stands for is made and deleted
after it is gone, so after any crash the rows name everything that may be left.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from attrs import field, frozen

from dockp.spi.network import Endpoint, Network, Pool, Publication

SCHEMA = """
CREATE TABLE IF NOT EXISTS networks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    driver TEXT NOT NULL,
    ipam TEXT NOT NULL,
    ipam_options TEXT NOT NULL,
    options TEXT NOT NULL,
    labels TEXT NOT NULL,
    internal INTEGER NOT NULL,
    attachable INTEGER NOT NULL,
    ipv6 INTEGER NOT NULL,
    created INTEGER NOT NULL,
    removing INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS network_pools (
    network TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    subnet TEXT NOT NULL,
    gateway TEXT NOT NULL,
    ip_range TEXT NOT NULL,
    auxiliary TEXT NOT NULL,
    last_address TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (network, position)
);
CREATE TABLE IF NOT EXISTS endpoints (
    id TEXT PRIMARY KEY,
    network TEXT NOT NULL REFERENCES networks (id),
    container TEXT NOT NULL,
    name TEXT NOT NULL,
    interface TEXT NOT NULL,
    mac TEXT NOT NULL,
    gateway TEXT NOT NULL,
    gateway6 TEXT NOT NULL,
    aliases TEXT NOT NULL,
    options TEXT NOT NULL,
    created INTEGER NOT NULL,
    UNIQUE (network, container)
);
CREATE INDEX IF NOT EXISTS endpoints_by_container ON endpoints (container);
CREATE TABLE IF NOT EXISTS endpoint_addresses (
    network TEXT NOT NULL,
    address TEXT NOT NULL,
    prefix INTEGER NOT NULL,
    endpoint TEXT NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    PRIMARY KEY (network, address)
);
CREATE INDEX IF NOT EXISTS addresses_by_endpoint ON endpoint_addresses (endpoint);
CREATE TABLE IF NOT EXISTS published_ports (
    protocol TEXT NOT NULL,
    host_ip TEXT NOT NULL,
    host_port INTEGER NOT NULL,
    endpoint TEXT NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    address TEXT NOT NULL,
    container_port INTEGER NOT NULL,
    PRIMARY KEY (protocol, host_ip, host_port)
);
CREATE INDEX IF NOT EXISTS ports_by_endpoint ON published_ports (endpoint);
CREATE TABLE IF NOT EXISTS departed_endpoints (
    id TEXT PRIMARY KEY,
    network TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    since INTEGER NOT NULL
)
"""


class Database(Protocol):
    """What this package needs of the engine's database. ``write`` is one immediate transaction."""

    def read(self) -> AbstractContextManager[sqlite3.Connection]: ...

    def write(self) -> AbstractContextManager[sqlite3.Connection]: ...


@frozen(kw_only=True)
class PoolRecord:
    """One address pool. ``auxiliary`` are names and addresses that are never given out; ``last_address`` the one given
    out last."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    auxiliary: Mapping[str, str] = field(factory=dict)
    last_address: str = ""


@frozen(kw_only=True)
class NetworkRecord:
    """One network. ``created`` in nanoseconds since the epoch; ``removing`` while it is being taken away."""

    id: str
    name: str
    driver: str
    ipam: str = "default"
    ipam_options: Mapping[str, str] = field(factory=dict)
    options: Mapping[str, str] = field(factory=dict)
    labels: Mapping[str, str] = field(factory=dict)
    internal: bool = False
    attachable: bool = False
    ipv6: bool = False
    created: int = 0
    removing: bool = False
    pools: tuple[PoolRecord, ...] = ()

    def for_driver(self) -> Network:
        """The network as its driver sees it."""
        pools = tuple(Pool(subnet=pool.subnet, gateway=pool.gateway) for pool in self.pools)
        return Network(id=self.id, name=self.name, pools=pools, internal=self.internal, options=self.options)


@frozen(kw_only=True)
class EndpointRecord:
    """One container on one network, from the moment its address is taken. ``addresses`` in CIDR form; ``name`` is the
    container's."""

    id: str
    network: str
    container: str
    name: str
    interface: str
    mac: str = ""
    addresses: tuple[str, ...] = ()
    gateway: str = ""
    gateway6: str = ""
    aliases: tuple[str, ...] = ()
    options: Mapping[str, str] = field(factory=dict)
    created: int = 0

    def for_driver(self) -> Endpoint:
        """The endpoint as a driver sees it."""
        return Endpoint(
            id=self.id,
            interface=self.interface,
            mac=self.mac,
            addresses=self.addresses,
            gateway=self.gateway,
            gateway6=self.gateway6,
            options=self.options,
        )

    def address(self, version: int) -> tuple[str, int]:
        """The first address of an IP version, and its prefix length; ``("", 0)`` without one."""
        for cidr in self.addresses:
            if (":" in cidr) == (version == 6):
                host, _, prefix = cidr.partition("/")
                return host, int(prefix)
        return "", 0


def insert_network(connection: sqlite3.Connection, record: NetworkRecord) -> None:
    """Raises: sqlite3.IntegrityError when the name is taken."""
    connection.execute(
        "INSERT INTO networks (id, name, driver, ipam, ipam_options, options, labels, internal, attachable, ipv6,"
        " created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.id,
            record.name,
            record.driver,
            record.ipam,
            _dump(record.ipam_options),
            _dump(record.options),
            _dump(record.labels),
            record.internal,
            record.attachable,
            record.ipv6,
            record.created,
        ),
    )
    connection.executemany(
        "INSERT INTO network_pools (network, position, subnet, gateway, ip_range, auxiliary) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (record.id, position, pool.subnet, pool.gateway, pool.ip_range, _dump(pool.auxiliary))
            for position, pool in enumerate(record.pools)
        ],
    )


def networks(connection: sqlite3.Connection, where: str = "", values: Sequence[object] = ()) -> list[NetworkRecord]:
    """Networks in order of creation; ``where`` is a condition on their table."""
    condition = f" WHERE {where}" if where else ""
    rows = connection.execute(f"SELECT * FROM networks{condition} ORDER BY created, name", tuple(values)).fetchall()
    return [_network(connection, row) for row in rows]


def _network(connection: sqlite3.Connection, row: sqlite3.Row) -> NetworkRecord:
    pools = connection.execute(
        "SELECT * FROM network_pools WHERE network = ? ORDER BY position", (row["id"],)
    ).fetchall()
    return NetworkRecord(
        id=row["id"],
        name=row["name"],
        driver=row["driver"],
        ipam=row["ipam"],
        ipam_options=json.loads(row["ipam_options"]),
        options=json.loads(row["options"]),
        labels=json.loads(row["labels"]),
        internal=bool(row["internal"]),
        attachable=bool(row["attachable"]),
        ipv6=bool(row["ipv6"]),
        created=row["created"],
        removing=bool(row["removing"]),
        pools=tuple(
            PoolRecord(
                subnet=pool["subnet"],
                gateway=pool["gateway"],
                ip_range=pool["ip_range"],
                auxiliary=json.loads(pool["auxiliary"]),
                last_address=pool["last_address"],
            )
            for pool in pools
        ),
    )


def mark_removing(connection: sqlite3.Connection, network: str, going: bool = True) -> None:
    connection.execute("UPDATE networks SET removing = ? WHERE id = ?", (going, network))


def delete_network(connection: sqlite3.Connection, network: str) -> None:
    connection.execute("DELETE FROM networks WHERE id = ?", (network,))


def remember_last_address(connection: sqlite3.Connection, network: str, position: int, address: str) -> None:
    connection.execute(
        "UPDATE network_pools SET last_address = ? WHERE network = ? AND position = ?", (address, network, position)
    )


def insert_endpoint(connection: sqlite3.Connection, record: EndpointRecord) -> None:
    """Raises: sqlite3.IntegrityError when an address of it is taken."""
    connection.execute(
        "INSERT INTO endpoints (id, network, container, name, interface, mac, gateway, gateway6, aliases, options,"
        " created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.id,
            record.network,
            record.container,
            record.name,
            record.interface,
            record.mac,
            record.gateway,
            record.gateway6,
            _dump(record.aliases),
            _dump(record.options),
            record.created,
        ),
    )
    connection.executemany(
        "INSERT INTO endpoint_addresses (network, address, prefix, endpoint) VALUES (?, ?, ?, ?)",
        [(record.network, host, int(prefix), record.id) for host, prefix in map(_split, record.addresses)],
    )


def endpoints(
    connection: sqlite3.Connection, *, container: str | None = None, network: str | None = None
) -> list[EndpointRecord]:
    """Endpoints of a container, of a network, or all, in the order they were made."""
    conditions = [("container", container), ("network", network)]
    given = [(column, value) for column, value in conditions if value is not None]
    where = " WHERE " + " AND ".join(f"{column} = ?" for column, _ in given) if given else ""
    rows = connection.execute(
        f"SELECT * FROM endpoints{where} ORDER BY rowid", tuple(value for _, value in given)
    ).fetchall()
    return [_endpoint(connection, row) for row in rows]


def _endpoint(connection: sqlite3.Connection, row: sqlite3.Row) -> EndpointRecord:
    found = connection.execute(
        "SELECT address, prefix FROM endpoint_addresses WHERE endpoint = ? ORDER BY rowid", (row["id"],)
    ).fetchall()
    return EndpointRecord(
        id=row["id"],
        network=row["network"],
        container=row["container"],
        name=row["name"],
        interface=row["interface"],
        mac=row["mac"],
        addresses=tuple(f"{address}/{prefix}" for address, prefix in found),
        gateway=row["gateway"],
        gateway6=row["gateway6"],
        aliases=tuple(json.loads(row["aliases"])),
        options=json.loads(row["options"]),
        created=row["created"],
    )


def rename_endpoints(connection: sqlite3.Connection, container: str, name: str) -> None:
    connection.execute("UPDATE endpoints SET name = ? WHERE container = ?", (name, container))


def addresses_in_use(connection: sqlite3.Connection, network: str) -> list[str]:
    """Every address that endpoints of the network hold, the one given out last at the end."""
    rows = connection.execute("SELECT address FROM endpoint_addresses WHERE network = ? ORDER BY rowid", (network,))
    return [row[0] for row in rows.fetchall()]


def depart(connection: sqlite3.Connection, found: Iterable[EndpointRecord], now: int) -> None:
    """Delete endpoints with their addresses and ports; their ids stay until their links are known to be gone."""
    for endpoint in found:
        connection.execute("DELETE FROM endpoints WHERE id = ?", (endpoint.id,))
        connection.execute(
            "INSERT OR REPLACE INTO departed_endpoints (id, network, since) VALUES (?, ?, ?)",
            (endpoint.id, endpoint.network, now),
        )


def departed(connection: sqlite3.Connection, before: int) -> list[tuple[str, str]]:
    """Pairs of endpoint and network id that departed before a moment."""
    rows = connection.execute("SELECT id, network FROM departed_endpoints WHERE since < ?", (before,)).fetchall()
    return [(row[0], row[1]) for row in rows]


def forget_departed(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    connection.executemany("DELETE FROM departed_endpoints WHERE id = ?", [(id,) for id in ids])


def set_ports(connection: sqlite3.Connection, endpoint: str, publications: Iterable[Publication]) -> None:
    """Make these the published ports of an endpoint; rows of others on the same host ports are deleted, so call it
    only while holding the ports."""
    connection.execute("DELETE FROM published_ports WHERE endpoint = ?", (endpoint,))
    connection.executemany(
        "INSERT OR REPLACE INTO published_ports (protocol, host_ip, host_port, endpoint, address, container_port)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [(p.protocol, p.host_ip, p.host_port, endpoint, p.address, p.container_port) for p in publications],
    )


def ports(
    connection: sqlite3.Connection, *, container: str | None = None, network: str | None = None
) -> list[tuple[str, Publication]]:
    """Pairs of container id and publication: of one container, of one network, or all."""
    conditions = [("endpoints.container", container), ("endpoints.network", network)]
    given = [(column, value) for column, value in conditions if value is not None]
    where = " WHERE " + " AND ".join(f"{column} = ?" for column, _ in given) if given else ""
    rows = connection.execute(
        "SELECT endpoints.container AS container, published_ports.* FROM published_ports"
        f" JOIN endpoints ON endpoints.id = published_ports.endpoint{where} ORDER BY published_ports.rowid",
        tuple(value for _, value in given),
    ).fetchall()
    return [
        (
            row["container"],
            Publication(
                protocol=row["protocol"],
                host_ip=row["host_ip"],
                host_port=row["host_port"],
                address=row["address"],
                container_port=row["container_port"],
            ),
        )
        for row in rows
    ]


def _split(cidr: str) -> tuple[str, str]:
    host, _, prefix = cidr.partition("/")
    return host, prefix


def _dump(value: Any) -> str:
    return json.dumps(dict(value) if isinstance(value, Mapping) else list(value), sort_keys=True)
