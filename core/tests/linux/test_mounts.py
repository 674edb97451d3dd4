"""Serialized mounts, on the real kernel in a mount namespace of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dockp.linux import mounts

HELPERS = """
import os, sys
from dockp.linux import mounts
base = sys.argv[1]
os.chdir(base)
def shown(point):
    with open("/proc/self/mountinfo") as lines:
        return [line for line in lines if line.split()[4].startswith(base + "/" + point)]
def refused(action):
    try:
        action()
    except OSError as failure:
        return failure.strerror
    return "allowed"
"""


def in_namespace(tmp_path: Path, script: str) -> str:
    assert os.geteuid() == 0, "these tests mount file systems: run them as root"
    result = subprocess.run(
        ["unshare", "-m", "--propagation", "private", sys.executable, "-c", HELPERS + script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_words_are_sorted_into_attributes_propagation_and_data() -> None:
    words = mounts.Options(["rbind", "ro", "nosuid", "rnodev", "noatime", "rslave", "size=5", "newinstance", "x-mine"])
    assert words.bind == "rbind"
    assert words.set == mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NOATIME
    assert words.clear == mounts.MOUNT_ATTR_ATIME
    assert words.set_tree == mounts.MOUNT_ATTR_NODEV
    assert words.propagation == ["rslave"]
    assert words.data == ["size=5", "newinstance"]


def test_the_last_of_two_opposite_words_wins() -> None:
    assert mounts.Options(["ro", "rw"]).set == 0
    assert mounts.Options(["ro", "rw"]).clear == mounts.MOUNT_ATTR_RDONLY
    assert mounts.Options(["rw", "ro"]).set == mounts.MOUNT_ATTR_RDONLY


def test_lower_directories_are_split_where_overlay_splits_them() -> None:
    assert mounts.split_lower_directories(r"/a:/b\:c:/d\\e") == ["/a", "/b:c", "/d\\e"]


def test_a_file_system_gets_its_options(tmp_path: Path) -> None:
    out = in_namespace(
        tmp_path,
        """
os.mkdir("m")
mounts.apply_mount("tmpfs", "mine", ["size=16k", "mode=0700", "nosuid", "nodev", "noexec", "rprivate"], base + "/m")
print(shown("m")[0])
""",
    )
    assert "rw,nosuid,nodev,noexec,relatime" in out
    assert "tmpfs mine rw,size=16k,mode=700" in out


def test_a_bind_mount_of_a_file_read_only(tmp_path: Path) -> None:
    out = in_namespace(
        tmp_path,
        """
open("a", "w").write("hello"); open("b", "w").close()
mounts.apply_mount("bind", base + "/a", ["ro"], os.open("b", os.O_PATH))
print(open("b").read(), refused(lambda: open("b", "w")))
open("a", "w").write("source stays writable")
""",
    )
    assert out == "hello Read-only file system\n"


def test_an_fd_as_target_is_not_fooled_by_a_later_symlink(tmp_path: Path) -> None:
    out = in_namespace(
        tmp_path,
        """
os.mkdir("safe"); os.mkdir("other")
target = os.open("safe", os.O_PATH)
os.rename("safe", "moved"); os.symlink("other", "safe")
mounts.apply_mount("tmpfs", "x", [], target)
print(len(shown("moved")), len(shown("other")))
""",
    )
    assert out == "1 0\n"


@pytest.mark.parametrize("way", ["one by one", "one page"])
def test_128_layers_mount_and_all_are_there(tmp_path: Path, way: str) -> None:
    out = in_namespace(
        tmp_path,
        f"""
way = {way!r}
lowers = []
for number in range(128):
    path = f"layers/{{'x' * 60}}-{{number}}"
    os.makedirs(path); open(f"{{path}}/file{{number}}", "w").close()
    lowers.append(base + "/" + path)
os.mkdir("upper"); os.mkdir("work"); os.mkdir("m")
options = ["lowerdir=" + ":".join(lowers), f"upperdir={{base}}/upper", f"workdir={{base}}/work"]
if way == "one by one":
    mounts.apply_mount("overlay", "overlay", options, base + "/m")
else:
    mounts._mount_overlay_in_one_page("overlay", mounts.Options(options), base + "/m", OSError(5, "x"))
open("m/new", "w").close()
print(len(os.listdir("m")), os.listdir("upper"))
""",
    )
    assert out == "129 ['new']\n"


def test_overlay_directories_may_have_any_name(tmp_path: Path) -> None:
    out = in_namespace(
        tmp_path,
        r"""
names = ["low,er", "lo:wer", "lo\\wer", "up:p,e\\r", "wo,rk"]
for name in names: os.mkdir(name)
os.mkdir("m"); open("low,er/one", "w").close(); open("lo:wer/two", "w").close()
options = ["lowerdir+=" + base + "/" + name for name in names[:3]]
options += ["upperdir=" + base + "/" + names[3], "workdir=" + base + "/" + names[4]]
mounts.apply_mount("overlay", "overlay", options, base + "/m")
open("m/three", "w").close()
print(sorted(os.listdir("m")), os.listdir(names[3]))
""",
    )
    assert out == "['one', 'three', 'two'] ['three']\n"


def test_a_refused_option_is_explained_by_the_file_system(tmp_path: Path) -> None:
    out = in_namespace(tmp_path, "print(refused(lambda: mounts.apply_mount('tmpfs', 'x', ['colour=red'], base)))")
    assert "colour" in out


def test_a_missing_lower_directory_is_an_error_not_a_smaller_stack(tmp_path: Path) -> None:
    out = in_namespace(
        tmp_path,
        """
os.mkdir("a"); os.mkdir("m")
print(refused(lambda: mounts.apply_mount("overlay", "overlay", [f"lowerdir={base}/a:{base}/none"], base + "/m")))
""",
    )
    assert out.startswith("No such file or directory")


def test_recursive_words_reach_the_mounts_below(tmp_path: Path) -> None:
    out = in_namespace(
        tmp_path,
        """
os.mkdir("a"); os.mkdir("b")
mounts.apply_mount("tmpfs", "x", [], base + "/a"); os.mkdir("a/c"); mounts.apply_mount("tmpfs", "y", [], base + "/a/c")
mounts.apply_mount("bind", base + "/a", ["rbind", "rro"], base + "/b")
print(*(refused(lambda: open(path, "w")) for path in ("b/x", "b/c/x", "a/x")), sep=" | ")
""",
    )
    assert out == "Read-only file system | Read-only file system | allowed\n"
