"""The shim's smaller parts by themselves."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import shimlab

from dockp.shim import copyup, users, wire
from dockp.spi.errors import InvalidArgument


def resolve(root: Path, user: str, groups=()):
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        found = users.resolve(descriptor, user, list(groups))
        return found.uid, found.gid, found.groups, found.home
    finally:
        os.close(descriptor)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(
        "# comment\nroot:x:0:0:root:/root:/bin/sh\nbroken:x:nan:0::/:\nwww:x:33:33:w:/var/www:/bin/sh\nshort:x:5\n"
        "12345:x:77:78::/odd:\n"
    )
    (tmp_path / "etc/group").write_text("root:x:0:\nwww:x:33:\nvideo:x:44:www,other\ntape:x:26:www\nbad:x::\n")
    return tmp_path


@pytest.mark.parametrize(
    ("user", "groups", "expected"),
    [
        ("", (), (0, 0, [0], "/root")),
        ("www", (), (33, 33, [33, 44, 26], "/var/www")),
        ("33", (), (33, 33, [33, 44, 26], "/var/www")),
        ("www:video", (), (33, 44, [44], "/var/www")),
        ("www:7", (), (33, 7, [7], "/var/www")),
        ("999", (), (999, 0, [0], "/")),
        ("999:998", (), (999, 998, [998], "/")),
        ("999", ("tape", "55"), (999, 0, [0, 26, 55], "/")),
        ("www", ("tape",), (33, 33, [33, 44, 26], "/var/www")),
        (":video", (), (0, 44, [44], "/root")),
        ("12345", (), (12345, 0, [0], "/")),
    ],
)
def test_users_resolve_as_with_docker(root, user, groups, expected):
    assert resolve(root, user, groups) == expected


@pytest.mark.parametrize(
    ("user", "groups", "text"),
    [
        ("nobody", (), "unable to find user nobody: no matching entries in passwd file"),
        ("www:nogroup", (), "unable to find group nogroup: no matching entries in group file"),
        ("www", ("nogroup",), "unable to find group nogroup: no matching entries in group file"),
        ("4294967296", (), "uids and gids must be in range 0-2147483647"),
        ("1:4294967296", (), "uids and gids must be in range 0-2147483647"),
    ],
)
def test_users_that_do_not_exist_are_named(root, user, groups, text):
    with pytest.raises(InvalidArgument, match=text):
        resolve(root, user, groups)


def test_passwd_files_cannot_lead_outside_nor_block(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("evil:x:0:0::/evil:\n")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").symlink_to(outside)
    with pytest.raises(InvalidArgument):
        resolve(root, "evil")
    (root / "etc/passwd").unlink()
    os.mkfifo(root / "etc/passwd")
    assert resolve(root, "5") == (5, 0, [0], "/")


# --- copy-up


def fill(volume, root, target):
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        copyup.fill(str(volume), descriptor, target)
    finally:
        os.close(descriptor)


def test_a_new_volume_gets_what_the_image_has_there(tmp_path):
    data = tmp_path / "root/var/data"
    (data / "sub").mkdir(parents=True)
    (data / "file").write_bytes(b"x" * 3_000_000)
    os.setxattr(data / "file", "user.note", b"hi")
    os.chown(data / "file", 12, 34)
    os.chmod(data / "file", 0o4751)
    os.utime(data / "file", ns=(5, 7_000_000_001))
    os.link(data / "file", data / "sub/hard")
    (data / "soft").symlink_to("/etc/passwd")
    os.mkfifo(data / "fifo", 0o600)
    os.mknod(data / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chown(data, 55, 66)
    os.chmod(data, 0o1770)
    volume = tmp_path / "volume"
    volume.mkdir()
    fill(volume, tmp_path / "root", "/var/data")
    info = (volume / "file").stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode), info.st_size) == (12, 34, 0o4751, 3_000_000)
    assert info.st_mtime_ns == 7_000_000_001
    assert os.getxattr(volume / "file", "user.note") == b"hi"
    assert (volume / "sub/hard").stat().st_ino == info.st_ino
    assert os.readlink(volume / "soft") == "/etc/passwd"
    assert stat.S_ISFIFO((volume / "fifo").stat().st_mode)
    assert (volume / "null").stat().st_rdev == os.makedev(1, 3)
    info = volume.stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (55, 66, 0o1770)


def test_a_volume_with_content_and_a_missing_target_stay_as_they_are(tmp_path):
    (tmp_path / "root/data").mkdir(parents=True)
    (tmp_path / "root/data/new").touch()
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "old").touch()
    fill(volume, tmp_path / "root", "/data")
    assert os.listdir(volume) == ["old"]
    (volume / "old").unlink()
    fill(volume, tmp_path / "root", "/nothing/here")
    assert os.listdir(volume) == []


def test_copying_up_never_leaves_the_image(tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root/data").symlink_to(secret)
    volume = tmp_path / "volume"
    volume.mkdir()
    fill(volume, tmp_path / "root", "/data")
    assert os.listdir(volume) == []


def test_a_container_sees_its_new_volume_filled(real, tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    client = real.run("c", ["true"], copy_up=[{"source": str(volume), "target": "/etc"}])
    assert client.wait(timeout=10).exit_code == 0
    assert sorted(os.listdir(volume)) == ["group", "passwd"]


def test_a_shared_volume_shares_with_the_host_again(tmp_path, tree):
    """-v source:target:rshared: a mount made in the container's tree appears on the host. The host, here, is a
    namespace of this test's own."""
    script = f"""
import sys, os, pathlib
sys.path[:0] = {[*shimlab.search_paths()]!r}
import shimlab
from dockp.linux import mounts, namespaces
namespaces.unshare(namespaces.CLONE_NEWNS)
mounts.set_propagation("/", "rprivate")
base = pathlib.Path({str(tmp_path)!r})
source = base / "source"
source.mkdir()
mounts.mount(str(source), str(source), "", 4096)
mounts.set_propagation(str(source), "shared")
root = base / "run"
(root / "containers").mkdir(parents=True)
lab = shimlab.Lab(root, shimlab.LIBCONTAINER, pathlib.Path({str(tree)!r}))
lab.write("c", "mkdir /data/m && mount -t tmpfs none /data/m && touch /data/m/seen && sleep 600")
path = root / "containers/c/bundle/config.json"
import json
spec = json.loads(path.read_text())
mount = {{"destination": "/data", "type": "bind", "source": str(source), "options": ["rbind", "rshared"]}}
spec["mounts"].append(mount)
for kind in spec["process"]["capabilities"].values():
    kind.append("CAP_SYS_ADMIN")
path.write_text(json.dumps(spec))
client = lab.supervisor.launch("c")
lab.clients.append(client)
try:
    client.create()
    client.claim()
    client.start()
    shimlab.eventually(lambda: (source / "m/seen").exists())
finally:
    lab.close()
print("shared")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "shared\n", done.stderr


# --- wire


def test_messages_arrive_in_order_with_their_descriptors():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        receiver = wire.Receiver(theirs)
        pipes = [os.pipe() for _ in range(2)]
        wire.send_blocking(ours, {"n": 0})
        wire.send_blocking(ours, {"n": 1}, pipes[0])
        wire.send_blocking(ours, {"n": 2, "text": "é\n" * 10})
        wire.send_blocking(ours, {"n": 3}, pipes[1])
        messages = []
        while len(messages) < 4:
            messages += receiver.receive()
        assert [(message["n"], len(descriptors)) for message, descriptors in messages] == [
            (0, 0),
            (1, 2),
            (2, 0),
            (3, 2),
        ]
        for (_, descriptors), pair in zip(messages[1::2], pipes, strict=True):
            assert [os.fstat(fd).st_ino for fd in descriptors] == [os.fstat(fd).st_ino for fd in pair]
            for descriptor in (*descriptors, *pair):
                os.close(descriptor)


@pytest.mark.parametrize("data", [b"nonsense\n", b"[]\n", b'{"fds":3}\n', b'{"fds":"x"}\n', b"\xff\n"])
def test_what_is_no_message_is_refused(data):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(data)
        with pytest.raises(ValueError):
            wire.Receiver(theirs).receive()


def test_a_message_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr(wire, "LARGEST_MESSAGE", 1000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"x" * 2000)
        with pytest.raises(ValueError):
            wire.Receiver(theirs).receive()


def test_a_shim_loads_no_heavy_module():
    heavy = {
        "socket",
        "json",
        "re",
        "enum",
        "typing",
        "subprocess",
        "contextlib",
        "selectors",
        "signal",
        "attr",
        "asyncio",
    }
    script = (
        f"import sys; sys.path[:0] = {shimlab.search_paths()!r}\n"
        "import dockp.shim.zygote, dockp.shim.health, dockp.shim.copyup, dockp.logs.json_file_writer\n"
        "import dockp_exec_libcontainer.runtime\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
