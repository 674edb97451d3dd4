"""Namespaces, root, mounts, devices, identity: what a process in a container sees and may do."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from libcontainer_box import DOCKER_CAPABILITIES, Box, Container

from dockp.linux import capabilities
from dockp.spi.runtime import RuntimeFailure

needs_time_namespaces = pytest.mark.skipif(
    not os.path.exists("/proc/self/ns/time"), reason="this kernel has no time namespaces"
)


def status_of(container: Container) -> dict[str, str]:
    text = container.output("cat /proc/self/status")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_is_the_commands(container: Container, code: int) -> None:
    assert container.shell(f"exit {code}").run() == code


def test_a_signal_that_kills_init_is_its_status(container: Container) -> None:
    container.process["args"] = ["sleep", "100"]
    container.create()
    container.start()
    container.ask("signal", number=9)
    assert container.wait() == -9


def test_a_signal_init_handles_is_delivered(container: Container) -> None:
    container.shell("trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")
    container.create()
    container.start()
    while "up" not in container.stdout.read_text():
        pass
    container.ask("signal", number=15)
    assert container.wait() == 7


def test_signalling_a_container_that_ended_is_no_error(container: Container) -> None:
    container.run()
    container.ask("signal", number=15)


def test_every_namespace_is_the_containers_own(container: Container) -> None:
    if os.path.exists("/proc/self/ns/time"):
        container.linux["namespaces"].append({"type": "time"})
    container.process["args"] = ["sleep", "100"]
    pid = container.create()
    container.start()
    host = container.box.ask("namespaces", pid="self")
    inside = container.box.ask("namespaces", pid=pid)
    same = {name for name in host if host[name] == inside[name]}
    assert same == {"user"}


def test_namespaces_left_out_are_the_hosts(container: Container) -> None:
    del container.spec["hostname"]
    container.without("pid", "ipc", "uts", "network", "cgroup")
    container.spec["mounts"] = [entry for entry in container.spec["mounts"] if entry["type"] != "mqueue"]
    container.process["args"] = ["sleep", "100"]
    pid = container.create()
    container.start()
    host = container.box.ask("namespaces", pid="self")
    inside = container.box.ask("namespaces", pid=pid)
    assert {name for name in host if host[name] != inside[name]} == {"mnt"}


def test_the_command_is_pid_1_and_sees_only_its_own_processes(container: Container) -> None:
    assert container.output("echo $$; ls /proc | grep -c '^[0-9]'").split()[0] == "1"


def test_hostname_and_domainname_are_set(container: Container) -> None:
    container.spec["domainname"] = "example"
    assert container.output("hostname; cat /proc/sys/kernel/domainname") == "box\nexample\n"


def test_the_cgroup_namespace_shows_the_container_at_the_root(container: Container) -> None:
    lines = container.output("cat /proc/self/cgroup").splitlines()
    assert any(line.endswith(":memory:/") or line.startswith("0::") for line in lines)
    assert container.id not in "".join(lines)


def test_a_network_namespace_given_as_a_descriptor_is_used(container: Container) -> None:
    helper = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link add marker type bridge && echo ok && exec sleep 100"],
        stdout=subprocess.PIPE,
    )
    try:
        assert helper.stdout is not None
        assert helper.stdout.readline() == b"ok\n"
        assert "marker" in container.output("ls /sys/class/net", netns=f"/proc/{helper.pid}/ns/net")
    finally:
        helper.kill()
        helper.communicate()


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid", "cgroup"])
def test_a_namespace_is_joined_by_path(box: Box, kind: str) -> None:
    first, second = box.container(), box.container()
    first.process["args"] = ["sleep", "100"]
    pid = first.create()
    first.start()
    name = {"network": "net"}.get(kind, kind)
    for entry in second.linux["namespaces"]:
        if entry["type"] == kind:
            entry["path"] = f"/proc/{pid}/ns/{name}"
    if kind == "uts":
        del second.spec["hostname"]
    second.process["args"] = ["sleep", "100"]
    other = second.create()
    second.start()
    one, two = box.ask("namespaces", pid=pid), box.ask("namespaces", pid=other)
    assert one[name] == two[name]
    assert one["mnt"] != two["mnt"]
    # The shim itself must have come back from there.
    assert box.ask("namespaces", pid="self")[name] != one[name]


@needs_time_namespaces
def test_time_offsets_move_the_clocks(container: Container) -> None:
    container.linux["namespaces"].append({"type": "time"})
    container.linux["timeOffsets"] = {"boottime": {"secs": 1_000_000}}
    assert float(container.output("cat /proc/uptime").split()[0]) > 1_000_000
    with open("/proc/uptime", encoding="ascii") as file:
        assert float(file.read().split()[0]) < 1_000_000


@pytest.mark.skipif(
    os.path.exists("/proc/self/ns/time"), reason="this kernel has time namespaces (the guest of make test-vm has none)"
)
def test_a_namespace_this_kernel_lacks_is_named(container: Container) -> None:
    container.linux["namespaces"].append({"type": "time"})
    with pytest.raises(RuntimeFailure, match="this kernel has no time namespaces"):
        container.create()
    assert container.box.ask("children") is False


def test_a_user_namespace_maps_ids(container: Container) -> None:
    container.linux["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        container.linux[key] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    subprocess.run(["chown", "-R", "100000:100000", str(container.rootfs)], check=True)
    container.shell("id -u; cat /proc/self/uid_map; echo x > /dev/null; touch /tmp/new; sleep 100")
    pid = container.create()
    container.start()
    while not (container.rootfs / "tmp/new").exists():
        pass
    assert container.stdout.read_text().split() == ["0", "0", "100000", "65536"]
    assert os.stat(f"/proc/{pid}").st_uid == 100000
    assert (container.rootfs / "tmp/new").stat().st_uid == 100000
    assert container.exec("sh", "-c", "id -u; cat /proc/self/uid_map") == (0, "0\n         0     100000      65536\n")


def test_a_user_namespace_without_maps_is_refused(container: Container) -> None:
    container.linux["namespaces"].append({"type": "user"})
    with pytest.raises(RuntimeFailure, match="uidMappings"):
        container.create()


def test_an_idmapped_bind_shows_other_owners(container: Container, tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    (source / "file").touch()
    os.chown(source / "file", 5, 6)
    container.mount("/mnt", "bind", str(source), "bind")
    container.spec["mounts"][-1].update(
        uidMappings=[{"containerID": 5, "hostID": 1005, "size": 1}],
        gidMappings=[{"containerID": 6, "hostID": 1006, "size": 1}],
    )
    assert container.output("stat -c '%u %g' /mnt/file") == "1005 1006\n"


# -- mounts --


def test_nothing_of_the_host_stays_mounted(container: Container) -> None:
    text = container.output("cat /proc/self/mountinfo")
    points = [line.split()[4] for line in text.splitlines()]
    assert points[0] == "/"
    known = ("/proc", "/sys", "/dev")
    assert all(point == "/" or point.startswith(known) for point in points), points


def test_the_host_sees_none_of_the_containers_mounts(container: Container) -> None:
    before = container.box.ask("mounts")
    container.process["args"] = ["sleep", "100"]
    container.create()
    container.start()
    assert container.box.ask("mounts") == before


def test_missing_mount_points_are_made(container: Container, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    (tmp_path / "dir").mkdir()
    container.mount("/a/b/c", "bind", str(tmp_path / "dir"), "rbind")
    container.mount("/x/y.conf", "bind", str(tmp_path / "file"), "bind", "ro")
    assert container.output("test -d /a/b/c && cat /x/y.conf") == "hello"


def test_a_read_only_bind_cannot_be_written(container: Container, tmp_path: Path) -> None:
    container.mount("/mnt", "bind", str(tmp_path), "rbind", "ro")
    assert container.shell("touch /mnt/x").run() == 1
    assert "Read-only" in container.stderr.read_text()


def test_rro_reaches_the_mounts_below(container: Container) -> None:
    container.mount("/mnt", "bind", "/dev", "rbind", "rro")
    text = container.output("cat /proc/self/mountinfo")
    below = [line.split() for line in text.splitlines() if line.split()[4].startswith("/mnt")]
    assert len(below) > 1
    assert all(words[5].startswith("ro") for words in below)


def test_a_plain_ro_does_not_reach_the_mounts_below(container: Container) -> None:
    container.mount("/mnt", "bind", "/dev", "rbind", "ro")
    text = container.output("cat /proc/self/mountinfo")
    below = [line.split() for line in text.splitlines() if line.split()[4].startswith("/mnt")]
    assert below[0][5].startswith("ro")
    assert any(words[5].startswith("rw") for words in below[1:])


@pytest.mark.parametrize(("word", "shown"), [("rprivate", False), ("rslave", True), ("rshared", True)])
def test_bind_propagation_is_what_was_asked_for(container: Container, tmp_path: Path, word: str, shown: bool) -> None:
    source = tmp_path / "shared"
    source.mkdir()
    nsenter = ["nsenter", "--mount", "--target", str(container.box.process.pid), "--"]
    subprocess.run([*nsenter, "mount", "-t", "tmpfs", "shared", str(source)], check=True)
    subprocess.run([*nsenter, "mount", "--make-shared", str(source)], check=True)
    (source / "below").mkdir(exist_ok=True)
    container.mount("/mnt", "bind", str(source), "rbind", word)
    container.process["args"] = ["sleep", "100"]
    container.create()
    container.start()
    subprocess.run([*nsenter, "mkdir", str(source / "below")], check=True)
    subprocess.run([*nsenter, "mount", "-t", "tmpfs", "late", str(source / "below")], check=True)
    assert ("late" in container.exec("cat", "/proc/self/mountinfo")[1]) is shown


@pytest.mark.parametrize(("word", "shown"), [("shared", "shared:"), ("slave", ""), ("private", ""), ("", "")])
def test_the_roots_propagation_is_what_was_asked_for(container: Container, word: str, shown: str) -> None:
    container.linux["rootfsPropagation"] = word
    root = container.output("cat /proc/self/mountinfo").splitlines()[0]
    assert "unbindable" not in root
    assert ("shared:" in root) is bool(shown)


def test_tmpfs_options_reach_the_file_system(container: Container) -> None:
    container.mount("/scratch", "tmpfs", "tmpfs", "size=4k", "mode=1777", "noexec")
    out = container.output("stat -c %a /scratch; dd if=/dev/zero of=/scratch/x bs=1k count=9 2>&1 || echo full")
    assert out.startswith("1777\n")
    assert "full" in out


def test_a_read_only_tmpfs_takes_later_mounts_below_it(container: Container, tmp_path: Path) -> None:
    container.mount("/run", "tmpfs", "tmpfs", "ro", "mode=755")
    container.mount("/run/secrets", "bind", str(tmp_path), "bind")
    assert container.output("test -d /run/secrets; touch /run/x 2>/dev/null || echo refused") == "refused\n"


def test_a_read_only_root_is_read_only_but_its_mounts_are_not(container: Container) -> None:
    container.spec["root"]["readonly"] = True
    out = container.output("touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo shm")
    assert out == "refused\nshm\n"


def test_an_unknown_mount_option_is_told_in_one_line(container: Container) -> None:
    container.mount("/scratch", "tmpfs", "tmpfs", "nonsense=1")
    with pytest.raises(RuntimeFailure, match=r"cannot mount tmpfs on /scratch: .*nonsense") as caught:
        container.create()
    assert "\n" not in str(caught.value)


def test_a_missing_bind_source_is_told_with_its_path(container: Container) -> None:
    container.mount("/mnt", "bind", "/no/such/source", "bind")
    with pytest.raises(RuntimeFailure, match="bind source path does not exist: /no/such/source"):
        container.create()


@pytest.mark.parametrize("target", ["/etc", "../../../../../../etc", "/proc/self/root/etc"])
def test_a_symlink_in_the_image_leads_no_mount_outside(container: Container, tmp_path: Path, target: str) -> None:
    source = tmp_path / "evil"
    source.mkdir()
    (source / "mark").touch()
    (container.rootfs / "link").symlink_to(target)
    container.mount("/link/place", "bind", str(source), "bind")
    with contextlib.suppress(RuntimeFailure):
        container.run()
    assert not Path("/etc/place").exists()
    nsenter = ["nsenter", "--mount", "--target", str(container.box.process.pid), "--"]
    subprocess.run([*nsenter, "test", "!", "-e", "/etc/place"], check=True)


def test_a_mount_point_swapped_for_a_symlink_leads_nowhere_outside(box: Box, tmp_path: Path) -> None:
    """Somebody with write access to a shared volume renames while the container is made (CVE-2021-30465)."""
    volume, evil, outside = tmp_path / "volume", tmp_path / "evil", tmp_path / "outside"
    for directory in (volume, evil, outside, volume / "place"):
        directory.mkdir()
    (evil / "mark").touch()
    (volume / "link").symlink_to(outside)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for one, other in (("place", "kept"), ("link", "place"), ("place", "link"), ("kept", "place")):
                with contextlib.suppress(OSError):
                    os.rename(volume / one, volume / other)

    attacker = threading.Thread(target=swap)
    attacker.start()
    try:
        for _ in range(25):
            container = box.container()
            container.mount("/volume", "bind", str(volume), "bind")
            container.mount("/volume/place/below", "bind", str(evil), "bind")
            with contextlib.suppress(RuntimeFailure):
                container.run()
    finally:
        done.set()
        attacker.join()
    assert not list(outside.iterdir())


def test_a_dangling_symlink_as_mount_point_is_resolved_inside(container: Container, tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("inside")
    (container.rootfs / "etc/resolv.conf").symlink_to("/run/elsewhere/../stub/resolv.conf")
    container.mount("/etc/resolv.conf", "bind", str(tmp_path / "conf"), "bind")
    assert container.output("cat /run/stub/resolv.conf") == "inside"
    assert not Path("/run/stub").exists()


@pytest.mark.parametrize("path", ["/proc", "/sys"])
def test_proc_and_sys_as_symlinks_are_refused(container: Container, path: str) -> None:
    (container.rootfs / path[1:]).rmdir()
    (container.rootfs / path[1:]).symlink_to("/tmp")
    with pytest.raises(RuntimeFailure, match="must be an ordinary directory"):
        container.create()


@pytest.mark.parametrize("destination", ["/", "/tmp/..", "/.."])
def test_a_mount_over_the_root_is_refused(container: Container, tmp_path: Path, destination: str) -> None:
    container.mount(destination, "bind", str(tmp_path), "bind")
    with pytest.raises(RuntimeFailure, match="container's root"):
        container.create()


# -- kernel file systems --


def test_masked_files_are_empty_and_masked_directories_too(container: Container) -> None:
    out = container.output("wc -c < /proc/timer_list; ls /sys/firmware | wc -l; ls -A /proc/acpi | wc -l")
    assert out.split() == ["0", "0", "0"]


def test_masks_that_the_kernel_lacks_are_no_error(container: Container) -> None:
    container.linux["maskedPaths"] = ["/proc/no/such", "/nowhere"]
    container.linux["readonlyPaths"] = ["/proc/none", "/nowhere"]
    assert container.run() == 0


def test_read_only_paths_refuse_writes(container: Container) -> None:
    assert container.shell("echo x > /proc/sys/kernel/domainname").run() == 1
    assert "Read-only" in container.stderr.read_text()


def test_sysctls_are_set_inside_only(container: Container) -> None:
    def on_host() -> str:
        with open("/proc/sys/kernel/shmmax", encoding="ascii") as file:
            return file.read()

    before = on_host()
    container.linux["sysctl"] = {"kernel.shmmax": "12345678", "net.ipv4.ip_forward": "1", "net/core/somaxconn": "77"}
    files = "/proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_forward /proc/sys/net/core/somaxconn"
    assert container.output(f"cat {files}") == "12345678\n1\n77\n"
    assert on_host() == before


@pytest.mark.parametrize("key", ["vm.swappiness", "kernel.panic", "kernel.hostname"])
def test_sysctls_of_the_host_are_refused(container: Container, key: str) -> None:
    container.linux["sysctl"] = {key: "1"}
    with pytest.raises(RuntimeFailure, match=re.escape(key)):
        container.create()


def test_net_sysctls_are_refused_in_the_hosts_network(container: Container) -> None:
    container.without("network")
    container.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    with pytest.raises(RuntimeFailure, match="host's network namespace"):
        container.create()


# -- devices --


def test_default_devices_work_and_others_are_denied(container: Container) -> None:
    out = container.output(
        "for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done;"
        "head -c 4 /dev/zero | wc -c; mknod /tmp/mem c 1 1 && cat /tmp/mem 2>&1 | head -c 200;"
        "for l in fd stdin ptmx; do readlink /dev/$l; done"
    )
    assert "/dev/null 1:3 666" in out
    assert "/dev/tty 5:0 666" in out
    assert "not permitted" in out
    assert out.endswith("/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n")


def test_a_device_of_the_spec_is_made_with_mode_and_owner(container: Container) -> None:
    container.linux["devices"] = [
        {"path": "/dev/my/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
    ]
    container.linux["resources"]["devices"].append(
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"}
    )
    out = container.output("stat -c '%F %a %u %g' /dev/my/zero /dev/pipe; head -c 3 /dev/my/zero | wc -c")
    assert out == "character special file 640 7 8\nfifo 600 0 0\n3\n"


def test_privileged_rules_allow_every_device(container: Container) -> None:
    container.linux["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
    assert container.output("mknod /tmp/loop c 10 237; : < /tmp/loop && echo ok") == "ok\n"


# -- identity --


def test_capabilities_are_exactly_those_of_the_spec(container: Container) -> None:
    found = status_of(container)
    wanted, _ = capabilities.mask(DOCKER_CAPABILITIES)
    assert [int(found[key], 16) for key in ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb")] == [
        wanted,
        wanted,
        wanted,
        0,
        0,
    ]


def test_without_capabilities_there_are_none(container: Container) -> None:
    del container.process["capabilities"]
    found = status_of(container)
    assert {found[key].strip("0") for key in ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb")} == {""}


def test_a_user_keeps_ambient_capabilities_only(container: Container) -> None:
    container.process["user"] = {"uid": 1000, "gid": 1000}
    for name in ("inheritable", "ambient"):
        container.process["capabilities"][name] = ["CAP_NET_BIND_SERVICE"]
    found = status_of(container)
    assert int(found["CapEff"], 16) == 1 << capabilities.NUMBERS["CAP_NET_BIND_SERVICE"]
    assert int(found["CapBnd"], 16) == capabilities.mask(DOCKER_CAPABILITIES)[0]


def test_capabilities_the_host_lacks_are_left_out_with_a_warning(container: Container) -> None:
    every = list(capabilities.NUMBERS)
    container.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), every)
    found = status_of(container)
    held = capabilities.get()[1]
    assert int(found["CapEff"], 16) == held & (1 << len(every)) - 1
    missing = [name for name in every if not held >> capabilities.NUMBERS[name] & 1]
    if missing:
        assert any(all(name in warning for name in missing) for warning in container.warnings())


def test_an_unknown_capability_is_ignored_with_a_warning(container: Container) -> None:
    container.process["capabilities"]["bounding"] = [*DOCKER_CAPABILITIES, "CAP_FLY"]
    assert container.run() == 0
    assert any("CAP_FLY" in warning for warning in container.warnings())


def test_user_groups_umask_and_directory_are_the_specs(container: Container) -> None:
    container.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [5, 27], "umask": 0o027}
    container.process["cwd"] = "/home/user"
    assert container.output("id -u; id -G; umask; pwd; echo $HOME") == "1000\n1000 5 27\n0027\n/home/user\n/home/user\n"


def test_home_is_the_specs_when_it_says_so(container: Container) -> None:
    container.process["env"].append("HOME=/elsewhere")
    assert container.output("echo $HOME") == "/elsewhere\n"


def test_the_environment_is_exactly_the_specs(container: Container) -> None:
    container.process["env"] = ["PATH=/bin", "A=1", "B=x=y z", "A=2", "EMPTY="]
    container.process["args"] = ["env"]
    container.run()
    assert sorted(container.stdout.read_text().splitlines()) == ["A=2", "B=x=y z", "EMPTY=", "HOME=/root", "PATH=/bin"]


def test_a_missing_working_directory_is_made(container: Container) -> None:
    container.process["cwd"] = "/new/place"
    assert container.output("pwd") == "/new/place\n"


def test_a_working_directory_the_user_may_not_enter_is_an_error(container: Container) -> None:
    (container.rootfs / "root").chmod(0o700)
    container.process["user"] = {"uid": 1000, "gid": 1000}
    container.process["cwd"] = "/root"
    with pytest.raises(RuntimeFailure, match=r'chdir to cwd \("/root"\).*permission denied'):
        container.create()


def test_a_working_directory_outside_is_refused(container: Container) -> None:
    """CVE-2024-21626: /proc/self/fd/N of a directory that the host left open."""
    for number in range(3, 12):
        fresh = container.box.container()
        fresh.process["cwd"] = f"/proc/self/fd/{number}"
        with pytest.raises(RuntimeFailure):
            fresh.create()


def test_no_new_privileges_is_set_when_asked(box: Box) -> None:
    asked, plain = box.container(), box.container()
    asked.process["noNewPrivileges"] = True
    assert status_of(asked)["NoNewPrivs"] == "1"
    assert status_of(plain)["NoNewPrivs"] == "0"


def test_only_the_standard_descriptors_are_open(container: Container) -> None:
    container.process["args"] = ["ls", "/proc/self/fd"]
    container.run()
    # ls itself holds the directory
    assert container.stdout.read_text().split() == ["0", "1", "2", "3"]


def test_exec_too_has_only_the_standard_descriptors(container: Container) -> None:
    container.process["args"] = ["sleep", "100"]
    container.create()
    container.start()
    assert container.exec("ls", "/proc/1/fd")[1].split() == ["0", "1", "2"]
    assert container.exec("ls", "/proc/self/fd")[1].split() == ["0", "1", "2", "3"]


def test_no_signal_is_ignored_or_blocked(container: Container) -> None:
    container.process["args"] = ["cat", "/proc/self/status"]  # a shell would ignore signals of its own
    container.run()
    found = dict(line.split(":\t", 1) for line in container.stdout.read_text().splitlines() if ":\t" in line)
    assert int(found["SigIgn"], 16) == 0
    assert int(found["SigBlk"], 16) == 0


def test_rlimits_are_set(container: Container) -> None:
    container.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    limits = container.output("cat /proc/self/limits")
    assert re.search(r"Max open files +100 +200 ", limits)
    assert re.search(r"Max core file size +0 +0 ", limits)


def test_rlimits_of_a_user_and_in_exec_are_set(container: Container) -> None:
    container.process["user"] = {"uid": 1000, "gid": 1000}
    container.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6}]
    container.process["args"] = ["sleep", "100"]
    container.create()
    container.start()
    assert re.search(r"Max open files +5 +6 ", container.exec("cat", "/proc/1/limits")[1])
    rlimits = [{"type": "RLIMIT_NOFILE", "soft": 7, "hard": 8}]
    assert re.search(r"Max open files +7 +8 ", container.exec("cat", "/proc/self/limits", rlimits=rlimits)[1])


def test_a_limit_the_host_cannot_give_is_cut_down_with_a_warning(container: Container) -> None:
    with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
        too_much = int(file.read()) + 1
    container.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": too_much, "hard": too_much}]
    assert container.run() == 0
    assert any("RLIMIT_NOFILE" in warning for warning in container.warnings())


def test_the_oom_score_is_set_or_warned_about(container: Container) -> None:
    container.process["oomScoreAdj"] = 500
    assert container.output("cat /proc/self/oom_score_adj") == "500\n"


def test_an_oom_score_out_of_reach_is_a_warning(container: Container) -> None:
    container.process["oomScoreAdj"] = -1000
    value = int(container.output("cat /proc/self/oom_score_adj"))
    assert value == -1000 or any("oomScoreAdj" in warning for warning in container.warnings())


def test_scheduling_is_applied(container: Container) -> None:
    container.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
    container.process["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    out = container.output("awk '{print $19, $41}' /proc/self/stat; ionice -p 1")
    assert out.splitlines() == ["5 3", "idle"]


def test_security_labels_without_their_module_are_a_clear_error(container: Container) -> None:
    if not Path("/sys/module/apparmor/parameters/enabled").exists():
        container.process["apparmorProfile"] = "docker-default"
        with pytest.raises(RuntimeFailure, match="AppArmor is not enabled"):
            container.create()
    if not Path("/sys/fs/selinux/enforce").exists():
        other = container.box.container()
        other.process["selinuxLabel"] = "system_u:system_r:container_t:s0"
        with pytest.raises(RuntimeFailure, match="SELinux is not enabled"):
            other.create()


def test_the_profile_unconfined_needs_no_apparmor(container: Container) -> None:
    container.process["apparmorProfile"] = "unconfined"
    assert container.run() == 0


def test_the_session_keyring_is_the_containers_own(container: Container) -> None:
    container.linux["maskedPaths"] = []
    assert "_ses.c0" in container.output("cat /proc/keys")


# -- seccomp --


def profile(**more: Any) -> dict[str, Any]:
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
        **more,
    }


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_seccomp_refuses_what_the_profile_refuses(container: Container, no_new_privileges: bool) -> None:
    container.process["noNewPrivileges"] = no_new_privileges
    container.linux["seccomp"] = profile()
    out = container.output("grep Seccomp: /proc/self/status; mkdir /tmp/x 2>&1 || true")
    assert "2" in out
    assert "not supported" in out


def test_seccomp_holds_for_exec_too(container: Container) -> None:
    container.linux["seccomp"] = profile()
    container.process["args"] = ["sleep", "100"]
    container.create()
    container.start()
    assert "not supported" in container.exec("mkdir", "/tmp/x")[1]


def test_a_compiled_profile_is_kept(container: Container) -> None:
    container.linux["seccomp"] = profile()
    container.run()
    assert len(list((container.box.directory / "cache").glob("*.bpf"))) == 1


def test_arguments_are_compared(container: Container) -> None:
    container.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {
                "names": ["kill"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 95,
                "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    assert "not supported" in container.output("trap : USR2; kill -12 $$; kill -10 $$ 2>&1 || true")


def test_a_bad_profile_is_told_in_one_line(container: Container) -> None:
    container.linux["seccomp"] = {"defaultAction": "SCMP_ACT_FLY"}
    with pytest.raises(RuntimeFailure, match="SCMP_ACT_FLY") as caught:
        container.create()
    assert "\n" not in str(caught.value)


def test_seccomp_notification_is_refused(container: Container) -> None:
    container.linux["seccomp"] = profile(listenerPath="/run/agent.sock")
    with pytest.raises(RuntimeFailure, match="listenerPath"):
        container.create()


def test_dockers_default_profile_blocks_what_it_should_and_nothing_else(container: Container) -> None:
    from dockp.containers.seccomp import default_profile

    container.linux["seccomp"] = default_profile(frozenset(DOCKER_CAPABILITIES))
    out = container.output(
        "unshare -m true 2>&1; unshare -U true 2>&1; mount -t tmpfs x /tmp 2>&1; reboot -f 2>&1; hwclock -w 2>&1;"
        "echo; ls / | head -1; id -u; date +%Y > /dev/null && chroot / true && sleep 0.01 && echo works"
    )
    refused, worked = out.split("\n\n")
    assert refused.lower().count("not permitted") + refused.lower().count("denied") >= 3
    assert worked == "bin\n0\nworks\n"
