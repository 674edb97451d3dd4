"""The driver under the core's network service: many processes start containers on one root at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from dockp.linux.locks import RangeLocks
from dockp.networks import store
from dockp.networks.ipam import DefaultIpam
from dockp.networks.service import NetworkService
from dockp.store.database import Database
from dockp.testkit.network import command, in_private_namespace
from dockp_net_bridge.driver import BridgeDriver

PROCESSES = 50


def open_service(root: Path) -> NetworkService:
    locks = RangeLocks(root / "locks")
    return NetworkService(
        Database(root / "state.db", [store.SCHEMA]),
        ipam_for=lambda name: DefaultIpam({}),
        driver_for=lambda name: BridgeDriver({}),
        locks=lambda name: locks.hold(hash(name) & 0xFFFF),
        living=lambda ids: ids,
    )


_STARTER = """
import os, socket, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_service import open_service
from dockp.containers.model import Config, CreateRequest, HostConfig, PortBinding

service = open_service(Path(sys.argv[2]))
number = int(sys.argv[3])
ports = {"80/tcp": (PortBinding(host_port=str(20000 + number)), PortBinding())}
request = CreateRequest(config=Config(), host=HostConfig(port_bindings=ports))
with service.sandbox(f"c{number}", f"c{number}", request) as sandbox:
    sandbox.wire()
    kept = [os.dup(fd) for fd in (sandbox.fileno(), *sandbox.reservations())]
print("ready", flush=True)
sys.stdin.read()
"""


@in_private_namespace
def test_fifty_processes_start_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", _STARTER, here, str(tmp_path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(PROCESSES)
    ]
    try:
        for starter in starters:
            assert starter.stdout is not None
            assert starter.stdout.readline() == "ready\n"
        service = open_service(tmp_path)
        places = [service.endpoints(f"c{number}") for number in range(PROCESSES)]
        assert len({endpoint.addresses for (endpoint,) in places}) == PROCESSES
        found = BridgeDriver({}).inventory()
        assert found.endpoints == {endpoint.id for (endpoint,) in places}
        assert len(found.publications) == 2 * PROCESSES
    finally:
        for starter in starters:
            starter.communicate()
    for number in range(PROCESSES):
        service.release(f"c{number}")
    assert not BridgeDriver({}).inventory().publications
    service.reconcile()
    assert not BridgeDriver({}).inventory().endpoints


@in_private_namespace
def test_a_restart_of_the_host_is_survived(tmp_path: Path) -> None:
    service = open_service(tmp_path)
    endpoint = service.allocate("c1", "n", "bridge")
    # Links and rules are gone, the records are not.
    command("nft flush ruleset")
    from dockp.linux import netns

    sandbox = netns.new()
    try:
        service.wire(endpoint, sandbox)
        shown = netns.inside(sandbox, lambda: command("ip -o -4 addr show dev eth0"))
        assert endpoint.addresses[0] in shown
        assert "dockp0" in command("ip -o link show type bridge")
    finally:
        os.close(sandbox)


@in_private_namespace
def test_the_network_part_of_a_start_takes_a_few_milliseconds(tmp_path: Path) -> None:
    from dockp.containers.model import Config, CreateRequest, HostConfig, PortBinding

    service = open_service(tmp_path)
    times = []
    for number in range(7):
        ports = {"80/tcp": (PortBinding(host_port=str(8000 + number)),)}
        request = CreateRequest(config=Config(), host=HostConfig(port_bindings=ports))
        started = time.perf_counter()
        with service.sandbox(f"c{number}", "n", request) as sandbox:
            sandbox.wire()
        times.append(time.perf_counter() - started)
    # Some five milliseconds on an idle machine; the margin is for a busy one.
    assert sorted(times)[len(times) // 2] < 0.05
