"""The page on configuration lists every setting, in order, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from dockp.config import SETTINGS, Config

PAGE = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"


def test_every_setting_is_listed_in_the_order_of_the_code() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(), re.M)
    assert listed == [name.replace("_", "-") for name in SETTINGS]


def test_the_example_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.S)
    tomllib.loads(example)
    (tmp_path / "config.toml").write_text(example)
    assert Config.load({"config_file": str(tmp_path / "config.toml")}, {}).storage_driver == "btrfs"


@pytest.mark.parametrize("name", ["data_root", "exec_root", "log_driver", "default_network_driver", "cgroup_parent"])
def test_stated_defaults_are_the_defaults(name: str) -> None:
    assert f"| `{name.replace('_', '-')}` | `{getattr(Config(), name)}` |" in PAGE.read_text()
