"""What dockpd is told by flags and ``daemon.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dockp.api.daemon import run
from dockp.api.daemon.options import BY_FLAG, BY_KEY, OPTIONS, Engine, Own
from dockp.api.daemon.settings import Settings, load, read_flags, split_address
from dockp.config import SETTINGS
from dockp.spi.errors import InvalidArgument

DOCKERD_FLAGS = """
add-runtime allow-nondistributable-artifacts api-cors-header authorization-plugin bip bridge cgroup-parent config-file
containerd containerd-namespace containerd-plugins-namespace cpu-rt-period cpu-rt-runtime cri-containerd data-root
debug default-address-pool default-cgroupns-mode default-gateway default-gateway-v6 default-ipc-mode default-runtime
default-shm-size default-ulimit dns dns-opt dns-search exec-opt exec-root experimental fixed-cidr fixed-cidr-v6 group
help host host-gateway-ip icc init init-path insecure-registry ip ip-forward ip-masq ip6tables iptables ipv6 label
live-restore log-driver log-level log-opt max-concurrent-downloads max-concurrent-uploads max-download-attempts
metrics-addr mtu network-control-plane-mtu no-new-privileges node-generic-resource oom-score-adjust pidfile raw-logs
registry-mirror rootless seccomp-profile selinux-enabled shutdown-timeout storage-driver storage-opt
swarm-default-advertise-addr tls tlscacert tlscert tlskey tlsverify userland-proxy userland-proxy-path userns-remap
version validate log-format http-proxy https-proxy no-proxy default-network-opt feature cdi-spec-dir firewall-backend
"""
"""Of dockerd 20.10; those after "version" of later ones."""


def told(*flags: str, file: Path | None = None, **document: Any) -> Settings:
    if file is not None:
        file.write_text(json.dumps({name.replace("_", "-"): value for name, value in document.items()}))
        flags = ("--config-file", str(file), *flags)
    return load(read_flags(flags), {})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "daemon.json"


@pytest.mark.parametrize("name", DOCKERD_FLAGS.split())
def test_every_flag_of_dockerd_is_known(name: str) -> None:
    assert name in BY_FLAG or name in ("config-file", "help", "version", "validate")


def test_names_and_keys_are_unique_and_lead_to_settings() -> None:
    assert len(BY_KEY) == len(OPTIONS)
    assert len(BY_FLAG) == sum(1 for option in OPTIONS if option.flag.name)
    own = {attribute.name for attribute in Settings.__attrs_attrs__}
    for option in OPTIONS:
        if isinstance(option.rule, Engine):
            assert option.rule.name in SETTINGS
        elif isinstance(option.rule, Own):
            assert option.rule.name in own


def test_every_setting_of_the_engine_has_a_flag() -> None:
    assert set(SETTINGS) == {option.rule.name for option in OPTIONS if isinstance(option.rule, Engine)}


def test_flags_become_settings() -> None:
    settings = told(
        *("-H", "fd://", "-H", "tcp://127.0.0.1:2376", "--tlsverify", "--tlscacert=/c", "-D", "-s", "vfs"),
        *("--label", "a=b", "--label=c=d", "--bip", "10.9.0.1/16", "--mtu=1400", "--dns", "9.9.9.9"),
        *("--default-ulimit", "nofile=10:20", "--log-opt", "max-size=1m", "--shutdown-timeout", "3", "-p", "/p"),
        *("--default-address-pool", "base=10.10.0.0/16,size=24", "--exec-opt", "native.cgroupdriver=cgroupfs"),
    )
    assert settings.hosts == ("fd://", "tcp://127.0.0.1:2376")
    assert settings.tlsverify is True
    assert settings.tls is None
    assert settings.level == "debug"
    assert settings.shutdown_timeout == 3
    assert settings.pidfile == "/p"
    config = settings.config
    assert (config.storage_driver, config.bip, config.mtu, config.dns) == ("vfs", "10.9.0.1/16", 1400, ("9.9.9.9",))
    assert config.labels == ("a=b", "c=d")
    assert config.default_ulimits["nofile"].hard == 20
    assert config.log_opts == {"max-size": "1m"}
    assert config.default_address_pools[0].size == 24
    assert config.exec_opts == {}


def test_a_file_as_docker_has_it(file: Path) -> None:
    settings = told(
        file=file,
        data_root="/srv/d",
        hosts=["unix:///run/x.sock"],
        labels=["a=b"],
        log_driver="json-file",
        log_opts={"max-size": "10m", "max-file": "3"},
        default_ulimits={"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 64000}},
        default_address_pools=[{"base": "10.10.0.0/16", "size": 24}],
        exec_opts=["native.cgroupdriver=cgroupfs"],
        storage_driver="overlay2",
        live_restore=True,
        userland_proxy=False,
        experimental=False,
        features={},
        registry_mirrors=["https://mirror.example"],
        shutdown_timeout=30,
    )
    config = settings.config
    assert settings.hosts == ("unix:///run/x.sock",)
    assert settings.shutdown_timeout == 30
    assert config.data_root == "/srv/d"
    assert config.origin("data_root") == str(file)
    assert config.log_opts == {"max-size": "10m", "max-file": "3"}
    assert config.default_ulimits["nofile"].soft == 64000
    assert config.registry_mirrors == ("https://mirror.example",)
    assert any("live-restore" in remark for remark in settings.remarks)


def test_proxies_are_one_object_in_the_file_as_docker_has_it(file: Path) -> None:
    config = told(file=file, proxies={"http-proxy": "http://p:1", "no-proxy": "a.example"}).config
    assert (config.http_proxy, config.https_proxy, config.no_proxy) == ("http://p:1", None, "a.example")
    assert told("--https-proxy", "http://p:2").config.https_proxy == "http://p:2"
    with pytest.raises(InvalidArgument, match="don't match any configuration option: ftp-proxy"):
        told(file=file, proxies={"ftp-proxy": "x"})
    with pytest.raises(InvalidArgument, match='"proxies" must be an object'):
        told(file=file, proxies=["x"])


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        ("--registry-mirror=mirror.example", "invalid mirror: no scheme specified for"),
        ("--registry-mirror=https://u:geheim@m.example", "invalid mirror: username/password not allowed in URI"),
        ("--insecure-registry=-a", "invalid index name"),
    ],
)
def test_registries_that_make_no_sense_are_refused_at_the_start(flag: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint) as caught:
        told(flag)
    assert "geheim" not in str(caught.value)


def test_the_environment_is_between_file_and_flags(file: Path) -> None:
    file.write_text('{"mtu": 1300, "cgroup-parent": "file"}')
    settings = load(
        read_flags(["--config-file", str(file), "--bip=10.0.0.1/8"]), {"DOCKP_MTU": "1200", "DOCKP_BIP": "11.0.0.1/8"}
    )
    assert (settings.config.mtu, settings.config.bip, settings.config.cgroup_parent) == (1200, "10.0.0.1/8", "file")


def test_unknown_keys_are_named_in_docker_s_words(file: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        told(file=file, foo=1, bar={})
    assert "the following directives don't match any configuration option: bar, foo" in str(caught.value)
    assert str(file) in str(caught.value)


def test_what_is_said_twice_is_a_conflict_in_docker_s_words(file: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        told("-D", "-H", "unix:///y", file=file, debug=True, hosts=["unix:///x"])
    assert (
        "the following directives are specified both as a flag and in the configuration file: "
        "debug: (from flag: true, from file: true), hosts: (from flag: [unix:///y], from file: [unix:///x])"
    ) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "invalid JSON"),
        ("[]", "must be an object"),
        ('{"debug": "yes"}', '"debug" must be true or false'),
        ('{"mtu": true}', '"mtu" must be a whole number'),
        ('{"hosts": "unix:///x"}', '"hosts" must be a list'),
        ('{"hosts": [1]}', '"hosts" must be a list'),
        ('{"labels": {"a": "b"}}', '"labels" must be a list'),
        ('{"userns-remap": "default"}', "userns-remap is not supported: "),
        ('{"live-restore": false}', "live-restore=false is not supported: "),
        ('{"builder": {"gc": {}}}', "builder is not supported: "),
        ('{"exec-opts": ["native.cgroupdriver=systemd"]}', 'native.cgroupdriver option "systemd" is not supported'),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(file: Path, content: str, said: str) -> None:
    file.write_text(content)
    with pytest.raises(InvalidArgument) as caught:
        load(read_flags(["--config-file", str(file)]), {})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--userns-remap=default"], "--userns-remap is not supported: "),
        (["--iptables=false"], "--iptables=false is not supported: "),
        (["--icc=false"], "--icc=false is not supported: "),
        (["--live-restore=false"], "--live-restore=false is not supported: "),
        (["-H", "foo://x"], "invalid bind address format: foo://x"),
        (["-H", "unix://x"], "the path must be absolute"),
        (["-H", "tcp://x:99999"], "invalid bind address"),
        (["--log-format=xml"], "invalid log format: xml"),
        (["-l", "loud"], "invalid logging level: loud"),
        (["--label", "x"], "bad attribute format: x"),
        (["--label", "x=1", "--label", "x=2"], "conflict labels for x=1 and x=2"),
        (["--default-cgroupns-mode=x"], "is invalid. Use 'host' or 'private'"),
    ],
)
def test_flags_that_cannot_be_used_are_refused_in_one_line(flags: list[str], said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        told(*flags)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_asks_for_nothing_is_accepted() -> None:
    told("--userns-remap=", "--selinux-enabled=false", "--max-concurrent-downloads=3", "--live-restore", "--iptables")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        (":80", ("", 80)),
        ("[::1]:80", ("::1", 80)),
        ("[::1]", ("::1", 2375)),
        ("host", ("host", 2375)),
        ("", ("", 2375)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert split_address(text, 2375) == address


def test_validate(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    file.write_text("{}")
    assert run(["--validate", "--config-file", str(file)]) == 0
    assert capsys.readouterr().err == "configuration OK\n"
    assert run(["--validate", "--config-file", str(file.with_name("none"))]) == 1
    assert "no such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nonsense"], "unknown flag: --nonsense\nSee 'dockpd --help'.\n"),
        (["x"], "\"dockpd\" accepts no argument(s).\nSee 'dockpd --help'.\n"),
        (["--mtu", "x"], 'invalid argument "x" for "--mtu" flag: strconv.ParseInt: parsing "x": invalid syntax\n'),
    ],
)
def test_mistakes_on_the_command_line(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert run(arguments) == 1
    assert capsys.readouterr().err.startswith(said)


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert "  -H, --host list" in text
    assert "Examples:" in text
    assert run(["-v"]) == 0
    assert capsys.readouterr().out.startswith("dockpd version ")
