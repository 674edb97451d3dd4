"""The files by which a container knows its own name, others, and its resolvers."""

from __future__ import annotations

import pytest

from dockp.networks import hosts
from dockp.spi.errors import InvalidArgument


def test_a_plain_container_knows_itself_and_localhost() -> None:
    text = hosts.hosts(addresses=["172.17.0.2"], hostname="web")
    lines = text.splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert "::1\tlocalhost ip6-localhost ip6-loopback" in lines
    assert lines[-1] == "172.17.0.2\tweb"
    assert text.endswith("\n")


@pytest.mark.parametrize(
    ("hostname", "domainname", "names"),
    [
        ("web", "example.org", "web.example.org web"),
        ("web.example.org", "", "web.example.org web"),
        ("web", "", "web"),
    ],
)
def test_a_full_name_has_its_short_one_beside_it(hostname: str, domainname: str, names: str) -> None:
    text = hosts.hosts(addresses=["10.0.0.2", "fd00::2"], hostname=hostname, domainname=domainname)
    assert text.splitlines()[-2:] == [f"10.0.0.2\t{names}", f"fd00::2\t{names}"]


def test_extra_hosts_are_added_and_the_gateway_is_filled_in() -> None:
    extra = ["db:10.0.0.9", "six:fd00::9", "six2:[fd00::a]", "new=10.0.0.8", "host.docker.internal:host-gateway"]
    text = hosts.hosts(addresses=[], hostname="", extra=extra, gateway="172.17.0.1")
    assert text.splitlines()[-5:] == [
        "10.0.0.9\tdb",
        "fd00::9\tsix",
        "fd00::a\tsix2",
        "10.0.0.8\tnew",
        "172.17.0.1\thost.docker.internal",
    ]


def test_in_the_hosts_network_the_hosts_file_is_the_base() -> None:
    text = hosts.hosts(addresses=[], hostname="web", base="127.0.0.1 localhost\n10.1.1.1 nas\n", extra=["a:10.0.0.1"])
    assert text == "127.0.0.1 localhost\n10.1.1.1 nas\n10.0.0.1\ta\n"


@pytest.mark.parametrize("text", ["nonsense", ":10.0.0.1", "a:", "a:300.0.0.1"])
def test_a_malformed_extra_host_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="add-host"):
        hosts.hosts(addresses=[], hostname="", extra=[text])


def test_without_a_gateway_host_gateway_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="host-gateway"):
        hosts.hosts(addresses=[], hostname="", extra=["h:host-gateway"])


HOST = """# made by hand
nameserver 127.0.0.53
nameserver 192.0.2.53 ; the real one
search example.org corp
options ndots:2 edns0
sortlist 10.0.0.0
"""


def test_a_resolver_on_the_hosts_loopback_is_left_out() -> None:
    assert hosts.resolv_conf(HOST).splitlines() == [
        "nameserver 192.0.2.53",
        "search example.org corp",
        "options ndots:2 edns0",
        "sortlist 10.0.0.0",
    ]


def test_in_the_hosts_network_it_stays() -> None:
    assert "nameserver 127.0.0.53\n" in hosts.resolv_conf(HOST, own_loopback=False)


def test_with_nothing_left_dockers_fallback_is_used() -> None:
    assert hosts.resolv_conf("nameserver 127.0.0.1\nnameserver ::1\n") == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_options_replace_what_the_host_says() -> None:
    text = hosts.resolv_conf(HOST, servers=["127.0.0.1", "10.0.0.53"], search=["."], options=["ndots:0"])
    assert text == "nameserver 127.0.0.1\nnameserver 10.0.0.53\noptions ndots:0\nsortlist 10.0.0.0\n"


def test_a_malformed_server_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="nameserver"):
        hosts.resolv_conf("", servers=["dns.example.org"])


def test_the_stub_of_systemd_is_recognised() -> None:
    assert hosts.is_stub("nameserver 127.0.0.53\noptions edns0\n")
    assert not hosts.is_stub(HOST)
