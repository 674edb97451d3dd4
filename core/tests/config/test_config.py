"""Settings come from a file, the environment and flags, and know it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dockp.config import AddressPool, Config, Ulimit
from dockp.spi.errors import InvalidArgument


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> dict[str, str]:
        file = tmp_path / "config.toml"
        file.write_text(text)
        return {"DOCKP_CONFIG_FILE": str(file)}

    return write


def test_with_nothing_configured_everything_is_default(tmp_path: Path) -> None:
    config = Config.load({}, {"XDG_CONFIG_HOME": str(tmp_path)})
    assert (config.data_root, config.exec_root) == ("/var/lib/dockp", "/run/dockp")
    assert (config.storage_driver, config.exec_driver, config.log_driver) == (None, None, "json-file")
    assert (config.default_network_driver, config.cgroup_parent, config.log_level) == ("bridge", "dockp", "info")
    assert config == Config()
    assert config.origin("data-root") == "default"


def test_flags_win_over_environment_and_environment_over_the_file(write: Any, tmp_path: Path) -> None:
    env = write('storage-driver = "btrfs"\nlog_driver = "none"\nmtu = 1400\n')
    env |= {"DOCKP_LOG_DRIVER": "json-file", "DOCKP_MTU": "9000", "DOCKP_BIP": ""}
    config = Config.load({"mtu": 1280, "dns": None, "dns_search": ()}, env)
    assert (config.storage_driver, config.log_driver, config.mtu, config.bip) == ("btrfs", "json-file", 1280, None)
    assert config.origin("storage_driver") == f"{tmp_path}/config.toml:1"
    assert config.origin("log_driver") == "environment DOCKP_LOG_DRIVER"
    assert config.origin("mtu") == "flag --mtu"
    assert config.origin("dns") == "default"


def test_the_users_file_is_read_over_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = tmp_path / "etc.toml"
    system.write_text("mtu = 1400\ndebug = true\n")
    monkeypatch.setattr("dockp.config.SYSTEM_FILE", str(system))
    (tmp_path / "xdg/dockp").mkdir(parents=True)
    (tmp_path / "xdg/dockp/config.toml").write_text("mtu = 1300\n")
    config = Config.load({}, {"XDG_CONFIG_HOME": str(tmp_path / "xdg")})
    assert (config.mtu, config.debug) == (1300, True)
    (tmp_path / "only.toml").write_text("")
    assert Config.load({"config_file": str(tmp_path / "only.toml")}, {}).mtu is None


def test_every_kind_of_value_is_understood_as_docker_has_it(write: Any) -> None:
    env = write(
        """
        data-root = "/srv/dockp/"
        dns = ["1.1.1.1", "2001:db8::1"]
        dns-opts = ["ndots:1"]
        bip = "172.20.0.1/16"
        default-shm-size = "128M"
        storage-opts = ["size=10G", "btrfs.quota=true"]
        log-opts = { max-size = "10m", max-file = 3, compress = true }
        default-address-pools = [{ base = "10.10.0.0/16", size = 24 }]
        driver-deadline = 5
        cgroup-parent = "/machine/dockp"
        [default-ulimits.nofile]
        Name = "nofile"
        Soft = 1024
        Hard = 2048
        [default-ulimits.core]
        Hard = -1
        """
    )
    config = Config.load({}, env)
    assert config.data_root == "/srv/dockp"
    assert config.dns == ("1.1.1.1", "2001:db8::1")
    assert config.bip == "172.20.0.1/16"
    assert config.default_shm_size == 128 << 20
    assert config.storage_opts == {"size": "10G", "btrfs.quota": "true"}
    assert config.log_opts == {"max-size": "10m", "max-file": "3", "compress": "true"}
    assert config.default_address_pools == (AddressPool(base="10.10.0.0/16", size=24),)
    assert config.default_ulimits == {"nofile": Ulimit(soft=1024, hard=2048), "core": Ulimit(soft=-1, hard=-1)}
    assert config.driver_deadline == 5.0


def test_flags_and_environment_take_the_forms_of_dockers_flags() -> None:
    flags = {
        "storage-opt": ("size=1G", "a=b=c"),
        "default_address_pool": ["base=10.0.0.0/8,size=16"],
        "default_ulimit": ("nofile=1024:2048", "nproc=5"),
        "config_file": "/dev/null",
    }
    env = {"DOCKP_LOG_OPTS": "max-size=1m,max-file=2", "DOCKP_DNS": "8.8.8.8, 9.9.9.9", "DOCKP_DEBUG": "1"}
    config = Config.load(flags, env)
    assert config.storage_opts == {"size": "1G", "a": "b=c"}
    assert config.default_address_pools == (AddressPool(base="10.0.0.0/8", size=16),)
    assert config.default_ulimits == {"nofile": Ulimit(soft=1024, hard=2048), "nproc": Ulimit(soft=5, hard=5)}
    assert config.log_opts == {"max-size": "1m", "max-file": "2"}
    assert config.dns == ("8.8.8.8", "9.9.9.9")
    assert (config.debug, config.log_level) == (True, "debug")
    assert config.origin("log_level") == "environment DOCKP_DEBUG"


def test_a_relative_path_is_from_here_in_flags_and_an_error_in_a_file(write: Any) -> None:
    assert Config.load({"data_root": "here"}, {"DOCKP_CONFIG_FILE": "/dev/null"}).data_root == os.path.abspath("here")
    with pytest.raises(InvalidArgument, match='invalid value "here" for "data-root": must be an absolute path'):
        Config.load({}, write('data-root = "here"'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("debug = true\nmtu = x\n", r"config.toml is not valid TOML: .*line 2"),
        ("\n\nmtu = 10", r'config.toml:3: invalid value "10" for "mtu": must be from 68 to 65535'),
        ("mtu = true", "must be a whole number"),
        ("storage-drivre = 'x'", r'config.toml:1: unknown setting "storage-drivre", did you mean "storage-driver"\?'),
        ("zzzz = 1", r'config.toml:1: unknown setting "zzzz"$'),
        ("[storage_drivers]\nx = 1", r'config.toml:1: unknown setting "storage_drivers", did you mean'),
        ("dns = ['1.2.3']", "1.2.3 is not an ip address"),
        ("dns = 3", "must be a list"),
        ("bip = '10.0.0.0/8'", "must be the bridge's own address"),
        ("bip = '10.0.0.1'", "must be the bridge's own address"),
        ("bip = 'x/y'", "invalid CIDR address: x/y"),
        ("debug = 'maybe'", "must be true or false"),
        ("log-level = 'loud'", "invalid logging level: loud"),
        ("storage-driver = 'over lay'", "is not a driver name"),
        ("storage-driver = ''", "must be a text that is not empty"),
        ("storage-opts = ['size']", 'option "size" must be name=value'),
        ("storage-opts = { x = [1] }", 'option "x" must be a text'),
        ("default-shm-size = '1Q'", "invalid size: '1Q'"),
        ("default-shm-size = 0", "must be more than 0 bytes"),
        ("driver-deadline = 'soon'", "must be a number of seconds"),
        ("driver-deadline = -1", "must be more than 0 seconds"),
        ("data-root = '/'", "must be a directory of its own"),
        ("cgroup-parent = '../up'", "must name a cgroup below the root"),
        ("default-ulimits = ['nofiles=3']", "invalid ulimit type: nofiles"),
        ("default-ulimits = ['nofile=3:2']", "soft limit must be less than or equal to hard limit: 3 > 2"),
        ("default-address-pools = [{ base = '10.0.0.0/16', size = 8 }]", "size 8 does not fit into 10.0.0.0/16"),
        ("default-address-pools = [{ base = '10.0.0.0/16' }]", "each pool must have base and size"),
        ("default-address-pools = [3]", "each pool must have base and size"),
        ("mtu = 1400\nstorage-driver = 'a'\nstorage_driver = 'b'", r':3: "storage_driver" is set twice in this file'),
        ("data-root = '/x'\nexec-root = '/x'", "data-root and exec-root must differ, both are /x"),
    ],
)
def test_what_is_wrong_is_one_line_with_place_and_setting(write: Any, text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        Config.load({}, write(text))
    assert "\n" not in str(caught.value)


def test_errors_in_flags_and_environment_name_them() -> None:
    with pytest.raises(InvalidArgument, match=r'^flag --mtu: invalid value "x" for "--mtu": must be a whole number$'):
        Config.load({"mtu": "x"}, {"DOCKP_CONFIG_FILE": "/dev/null"})
    with pytest.raises(InvalidArgument, match=r'^environment DOCKP_MTU: invalid value "x" for "DOCKP_MTU"'):
        Config.load({}, {"DOCKP_MTU": "x", "DOCKP_CONFIG_FILE": "/dev/null"})


def test_a_named_file_must_exist_and_be_readable(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"cannot read configuration file .*: No such file"):
        Config.load({"config_file": str(tmp_path / "none")}, {})
    with pytest.raises(InvalidArgument, match=r"cannot read configuration file .*: Is a directory"):
        Config.load({}, {"DOCKP_CONFIG_FILE": str(tmp_path)})
    (tmp_path / "latin").write_bytes(b"debug = '\xff'")
    with pytest.raises(InvalidArgument, match="is not valid TOML"):
        Config.load({"config_file": str(tmp_path / "latin")}, {})


def test_a_drivers_options_are_its_own() -> None:
    flags = {"storage_opts": ["size=1G", "btrfs.quota=on", "dm.basesize=20G", "vfs.x=1"], "config_file": "/dev/null"}
    config = Config.load(flags, {})
    known = ["overlay2", "btrfs", "vfs", "devicemapper"]

    def options(name: str, default: str) -> dict[str, str]:
        return config.driver_options("storage", name, default=default, known=known)

    assert options("btrfs", "overlay2") == {"btrfs.quota": "on"}
    assert options("overlay2", "overlay2") == {"size": "1G", "dm.basesize": "20G"}
    assert options("devicemapper", "devicemapper") == {"size": "1G", "dm.basesize": "20G"}
    assert options("vfs", "vfs") == {"size": "1G", "dm.basesize": "20G", "vfs.x": "1"}


def test_options_in_the_file_stay_with_the_files_driver_when_a_flag_takes_another(write: Any) -> None:
    env = write('storage-driver = "overlay2"\nstorage-opts = ["size=1G"]\n[log-opts]\nmax-size = "1m"\n')
    config = Config.load({"storage_driver": "vfs", "storage_opts": ["y=2"], "log_driver": "none"}, env)
    assert config.driver_options("storage", "vfs", default="vfs") == {"y": "2"}
    assert config.driver_options("storage", "overlay2", default="vfs") == {"size": "1G"}
    assert config.driver_options("log", "none", default="none") == {}
    assert config.driver_options("log", "json-file", default="none") == {"max-size": "1m"}


def test_other_drivers_than_those_of_storage_get_their_options_without_their_name() -> None:
    config = Config.load({"log_opts": ["max-size=1m", "fluentd.tag=x"], "config_file": "/dev/null"}, {})
    assert config.driver_options("log", "fluentd", default=None) == {"tag": "x"}
    assert config.driver_options("log", "json-file", default=None, known=["fluentd"]) == {"max-size": "1m"}


def test_a_table_of_tables_is_options_by_driver(write: Any) -> None:
    config = Config.load({}, write("[storage-opts.btrfs]\nquota = true\n"))
    assert config.storage_opts == {"btrfs.quota": "true"}
    assert config.origin("storage_opts").endswith("config.toml:1")


def test_without_a_file_no_toml_parser_is_imported() -> None:
    program = (
        "import sys; from dockp import config; config.SYSTEM_FILE = '/nonexistent'\n"
        "config.Config.load({}, {'XDG_CONFIG_HOME': '/nonexistent'})\n"
        "print({'tomllib', 'ipaddress', 'difflib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_what_was_given_makes_the_same_config_elsewhere() -> None:
    flags = {
        "default_address_pool": ["base=10.1.0.0/16,size=24"],
        "storage_opt": ["a=1"],
        "bip": "10.9.0.1/24",
        "default_ulimit": ["nofile=1:2"],
        "dns": ["10.0.0.1"],
        "debug": True,
        "data_root": "/x",
    }
    config = Config.load(flags, {})
    assert Config.load(json.loads(json.dumps(config.given())), {}) == config
    assert Config.load({}, {"DOCKP_CONFIG_FILE": "/dev/null"}).given() == {}
