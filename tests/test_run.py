"""``dockp run`` with its options, seen from inside the container."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from harness import Dockp, image_tar, wait_for

DEFAULT_CAPABILITIES = 0xA80425FB


def sh(dockp: Dockp, script: str, *options: str) -> str:
    """What a script prints in a container without a network."""
    return dockp.ok("run", "--rm", "--network", "none", *options, "busybox", "sh", "-c", script)


def test_output_and_exit_code_come_through_exactly(dockp: Dockp) -> None:
    done = dockp("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 42)


@pytest.mark.parametrize(("signal", "code"), [("KILL", 137), ("TERM", 143), ("SEGV", 139)])
def test_death_by_signal_is_128_plus_its_number(dockp: Dockp, signal: str, code: int) -> None:
    assert (
        dockp(
            "run", "--rm", "--network", "none", "busybox", "sh", "-c", f"sh -c 'kill -{signal} $$'; exit $?"
        ).returncode
        == code
    )


def test_the_images_own_platform_may_be_asked_for(dockp: Dockp) -> None:
    platform = dockp.ok("image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", "busybox")
    assert sh(dockp, "echo fine", "--platform", platform) == "fine"


def test_input_goes_in_byte_for_byte(dockp: Dockp) -> None:
    data = bytes(range(256)) * 4096
    done = subprocess.run(
        [*dockp.command, "run", "--rm", "-i", "--network", "none", "busybox", "cat"],
        input=data,
        capture_output=True,
        env=dockp.environment,
        timeout=60,
        check=True,
    )
    assert done.stdout == data


def test_without_i_the_command_reads_nothing(dockp: Dockp) -> None:
    assert dockp("run", "--rm", "--network", "none", "busybox", "cat", input="lost").stdout == ""


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/nosuch", 127, 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        ("/etc/passwd", 126, "permission denied"),
        pytest.param("/etc", 126, "is a directory", marks=pytest.mark.own),
    ],
)
def test_a_command_that_cannot_start_has_dockers_exit_code(dockp: Dockp, command: str, code: int, text: str) -> None:
    done = dockp("run", "--rm", "--network", "none", "busybox", command)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert dockp.ok("ps", "-aq") == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nosuchimage"], "Unable to find image 'nosuchimage:latest' locally"),
        (["Bad/Name"], "must be lowercase"),
        (["--memory", "1m", "busybox"], "Minimum memory limit allowed is 6MB"),
        (["--cpus", "1000", "busybox"], "range of CPUs is from 0.01 to"),
        (["--cap-add", "NOPE", "busybox"], 'unknown capability: "CAP_NOPE"'),
        (["-v", "relative:data", "busybox"], "mount path must be absolute"),
        (["--mount", "type=bind,source=/no/such,target=/x", "busybox"], "bind source path does not exist: /no/such"),
        (["--name", "a b", "busybox"], "Invalid container name"),
        (["--rm", "--network", "nosuch", "busybox"], "network nosuch not found"),
        (["--nosuchflag", "busybox"], "unknown flag: --nosuchflag"),
        pytest.param(["--storage-driver", "nosuch", "busybox"], "nosuch", marks=pytest.mark.own),
        pytest.param(
            ["--log-driver", "nosuch", "busybox"], "no log driver named 'nosuch' is registered", marks=pytest.mark.own
        ),
        pytest.param(["--gpus", "all", "busybox"], "could not select device driver", marks=pytest.mark.own),
        pytest.param(["--link", "a", "busybox"], "not supported", marks=pytest.mark.own),
        pytest.param(
            ["--platform", "linux/arm64", "--pull", "never", "busybox"],
            "does not match the specified platform (linux/arm64)",
            marks=pytest.mark.own,
        ),
        pytest.param(["--link-local-ip", "169.254.1.1", "busybox"], "not supported", marks=pytest.mark.own),
        pytest.param(["--network", "name=bridge,gw-priority=1", "busybox"], "not supported", marks=pytest.mark.own),
        (["-w", "relative", "busybox"], "needs to be an absolute path"),
        (["--rm", "-u", "nobodyhere", "busybox", "true"], "unable to find user nobodyhere"),
        (["--rm", "--sysctl", "kernel.hostname=x", "busybox"], "sysctl 'kernel.hostname=x' is not allowed"),
        (["--rm", "--restart", "always", "busybox"], "cannot specify both --restart and --rm"),
        pytest.param(["--tmpfs", "/x:nosuch", "busybox"], "invalid tmpfs option", marks=pytest.mark.own),
        (["-p", "99999:80", "busybox"], "invalid hostPort"),
        (["--ulimit", "nosuch=1", "busybox"], "invalid ulimit type: nosuch"),
    ],
)
def test_what_cannot_be_is_one_clear_line_with_125_and_leaves_nothing(
    dockp: Dockp, arguments: list[str], text: str
) -> None:
    done = dockp("run", *arguments)
    assert done.returncode == 125
    assert text.lower() in done.stderr.lower()  # older dockerds begin some with a capital
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert dockp.ok("ps", "-aq") == ""


def test_environment_user_directory_and_names(dockp: Dockp, tmp_path: Path) -> None:
    envfile = tmp_path / "env"
    envfile.write_text("FROM_FILE=1\n# comment\n")
    out = sh(
        dockp,
        'echo "$A|$FROM_FILE|$HOME|$HOSTNAME|$(id -u):$(id -g)|$(id -G)|$PWD|$(hostname)"',
        "-e", "A=b c", "--env-file", str(envfile), "-u", "user", "-w", "/made/here", "-h", "box",
        "--group-add", "extra",
    )  # fmt: skip
    assert out == "b c|1|/home/user|box|1000:1000|1000 2000|/made/here|box"


def test_domain_name_hosts_and_resolvers(dockp: Dockp) -> None:
    out = dockp.ok(
        "run", "--rm", "-h", "box", "--domainname", "example.org", "--add-host", "other:10.1.2.3",
        "--dns", "10.9.9.9", "--dns-search", "example.net", "--dns-option", "ndots:3",
        "busybox", "sh", "-c", "cat /proc/sys/kernel/domainname /etc/hosts /etc/resolv.conf",
    )  # fmt: skip
    assert out.splitlines()[0] == "example.org"
    assert "10.1.2.3\tother" in out
    assert re.search(r"172\.\d+\.\d+\.\d+\tbox\.example\.org box", out)
    assert "nameserver 10.9.9.9" in out
    assert "search example.net" in out
    assert "options ndots:3" in out


def capabilities(dockp: Dockp, *options: str) -> int:
    return int(sh(dockp, "grep CapEff /proc/self/status", *options).split()[1], 16)


def test_capabilities_are_dockers_and_can_be_changed(dockp: Dockp) -> None:
    assert capabilities(dockp) == DEFAULT_CAPABILITIES
    assert capabilities(dockp, "--cap-drop", "ALL") == 0
    assert capabilities(dockp, "--cap-drop", "ALL", "--cap-add", "NET_ADMIN") == 1 << 12
    assert capabilities(dockp, "--cap-add", "sys_time") == DEFAULT_CAPABILITIES | 1 << 25


@pytest.mark.own
def test_privileged_gets_all_that_the_host_has(dockp: Dockp) -> None:
    bounding = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    assert capabilities(dockp, "--privileged") == int(bounding.split()[1], 16)
    out = sh(
        dockp, "mount -t tmpfs x /mnt 2>/dev/null || mkdir -p /mnt && mount -t tmpfs x /mnt && ls /dev", "--privileged"
    )
    assert "kmsg" in out or "full" in out


def test_namespaces_are_the_containers_own(dockp: Dockp) -> None:
    names = ("pid", "net", "mnt", "ipc", "uts")
    inside = sh(dockp, f"for n in {' '.join(names)}; do readlink /proc/self/ns/$n; done").splitlines()
    outside = [os.readlink(f"/proc/self/ns/{name}") for name in names]
    assert not set(inside) & set(outside)
    assert sh(dockp, "echo $$") == "1"


@pytest.mark.parametrize(("flag", "name"), [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts"), ("--network", "net")])
def test_namespaces_of_the_host_can_be_used(dockp: Dockp, flag: str, name: str) -> None:
    inside = dockp.ok("run", "--rm", flag, "host", "busybox", "readlink", f"/proc/self/ns/{name}")
    assert inside == os.readlink(f"/proc/self/ns/{name}")


@pytest.mark.parametrize(("flag", "name"), [("--pid", "pid"), ("--network", "net"), ("--ipc", "ipc")])
def test_namespaces_of_another_container_can_be_joined(dockp: Dockp, flag: str, name: str) -> None:
    dockp.ok("run", "-d", "--name", "first", "--ipc", "shareable", "busybox", "sleep", "60")
    theirs = dockp.ok("exec", "first", "readlink", f"/proc/self/ns/{name}")
    mine = dockp.ok("run", "--rm", flag, "container:first", "busybox", "readlink", f"/proc/self/ns/{name}")
    assert mine == theirs


@pytest.mark.own
def test_shared_memory_is_limited_absent_or_refused(dockp: Dockp) -> None:
    assert "1024" in sh(dockp, "df -k /dev/shm | tail -n 1", "--shm-size", "1m").split()
    assert sh(dockp, "grep -c ' /dev/shm ' /proc/mounts; exit 0", "--ipc", "none") == "0"
    done = dockp("create", "--ipc", "shareable", "--shm-size", "1m", "busybox", "true")
    assert done.returncode == 1
    assert "--shm-size: a /dev/shm that is shared" in done.stderr


def test_the_root_can_be_read_only_while_tmpfs_is_not(dockp: Dockp) -> None:
    out = sh(dockp, "echo x > /x; echo y > /scratch/y && cat /scratch/y; stat -f -c %T /scratch; exit 0",
             "--read-only", "--tmpfs", "/scratch:size=1m")  # fmt: skip
    assert out.splitlines() == ["y", "tmpfs"]


def test_kernel_files_are_masked_and_read_only(dockp: Dockp) -> None:
    out = sh(
        dockp, "cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/vm/drop_caches || echo refused"
    )
    assert out.splitlines() == ["0", "0", "refused"]


def test_seccomp_is_on_and_can_be_turned_off(dockp: Dockp) -> None:
    assert sh(dockp, "grep Seccomp: /proc/self/status").split()[1] == "2"
    assert sh(dockp, "grep Seccomp: /proc/self/status", "--security-opt", "seccomp=unconfined").split()[1] == "0"
    assert dockp("run", "--rm", "--network", "none", "busybox", "unshare", "-U", "true").returncode != 0


@pytest.mark.own  # dockerd hands on what it was started with
def test_no_signal_is_ignored_or_blocked_from_the_start(dockp: Dockp) -> None:
    out = dockp.ok("run", "--rm", "--network", "none", "busybox", "grep", "-E", "SigIgn|SigBlk", "/proc/self/status")
    assert [int(line.split()[1], 16) for line in out.splitlines()] == [0, 0]


def test_no_new_privileges(dockp: Dockp) -> None:
    assert sh(dockp, "grep NoNewPrivs /proc/self/status", "--security-opt", "no-new-privileges").split()[1] == "1"


def test_memory_limit_kills_and_says_so(dockp: Dockp) -> None:
    done = dockp("run", "--name", "greedy", "--network", "none", "-m", "16m", "--memory-swap", "16m", "busybox",
                 "sh", "-c", "tail -c 64m /dev/zero")  # fmt: skip
    assert done.returncode == 137
    assert dockp.ok("inspect", "-f", "{{.State.OOMKilled}}", "greedy") == "true"


@pytest.mark.skipif(
    os.path.exists("/sys/fs/cgroup/cgroup.controllers"), reason="for cgroup v1; test_cgroup_v2.py has the same for v2"
)
def test_pids_cpu_and_other_limits_reach_the_cgroup(dockp: Dockp) -> None:
    container = dockp.ok("run", "-d", "--network", "none", "--pids-limit", "20", "--cpus", "0.5", "-c", "512",
                         "--cpuset-cpus", "0", "busybox", "sleep", "60")  # fmt: skip
    out = dockp.ok("exec", container, "cat", "/proc/self/cgroup")
    assert container in out
    base = Path("/sys/fs/cgroup")
    group = f"{dockp.cgroup_parent}/{container}"
    assert (base / "pids" / group / "pids.max").read_text().strip() == "20"
    assert (base / "cpu" / group / "cpu.cfs_quota_us").read_text().strip() == "50000"
    assert (base / "cpu" / group / "cpu.shares").read_text().strip() == "512"
    assert (base / "cpuset" / group / "cpuset.cpus").read_text().strip() == "0"


@pytest.mark.own
def test_ulimits_and_oom_score_are_granted_as_far_as_the_host_may(dockp: Dockp) -> None:
    out = sh(dockp, "ulimit -n; cat /proc/self/oom_score_adj", "--ulimit", "nofile=512:1024", "--oom-score-adj", "500")
    assert out.splitlines() == ["512", "500"]
    # More than the host itself may have: the container starts, with what there is.
    assert sh(dockp, "echo fine", "--ulimit", "nofile=99999999:99999999", "--oom-score-adj", "-1000") == "fine"


def test_devices_and_shared_memory(dockp: Dockp) -> None:
    out = sh(dockp, "ls -l /dev/fuzz | cut -c1; df -k /dev/shm | awk 'END {print $2}'; head -c4 /dev/fuzz | wc -c",
             "--device", "/dev/urandom:/dev/fuzz", "--shm-size", "8m")  # fmt: skip
    assert out.splitlines() == ["c", "8192", "4"]


def test_sysctls_inside_the_namespaces(dockp: Dockp) -> None:
    assert sh(dockp, "cat /proc/sys/kernel/msgmax", "--sysctl", "kernel.msgmax=9000") == "9000"


def test_init_reaps_and_forwards(dockp: Dockp) -> None:
    out = dockp("run", "--rm", "--init", "--network", "none", "busybox", "ps", "-o", "pid,args")
    if "install the Debian package tini" in out.stderr:
        pytest.fail("tini is not installed; scripts/packages/test.txt should name it")
    assert re.search(r"1\s+/sbin/docker-init", out.stdout)


@pytest.mark.own
def test_binds_volumes_and_what_the_image_has_there(dockp: Dockp, tmp_path: Path) -> None:
    source = tmp_path / "host"
    source.mkdir()
    (source / "file").write_text("from the host\n")
    assert sh(dockp, "cat /in/file; echo no > /in/file || true", "-v", f"{source}:/in:ro") == "from the host"
    assert (source / "file").read_text() == "from the host\n"
    sh(dockp, "echo written > /in/new", "-v", f"{source}:/in")
    assert (source / "new").read_text() == "written\n"
    # A named volume starts with what the image has at its place, and keeps what is written.
    assert sh(dockp, "ls /etc; echo mine > /etc/mine", "-v", "conf:/etc").split() == ["group", "passwd"]
    assert "mine" in sh(dockp, "cat /etc/mine", "-v", "conf:/etc")
    assert dockp("volume", "rm", "conf").returncode == 0
    mount = f"type=bind,source={source},target=/in,readonly"
    assert dockp("run", "--rm", "--mount", mount, "busybox", "touch", "/in/x").returncode != 0


@pytest.mark.own
def test_volumes_from_another_container(dockp: Dockp) -> None:
    dockp.ok("run", "--name", "keeper", "-v", "/data", "busybox", "sh", "-c", "echo kept > /data/file")
    assert sh(dockp, "cat /data/file", "--volumes-from", "keeper") == "kept"
    dockp.ok("rm", "-v", "keeper")
    assert dockp.ok("volume", "ls", "-q") == ""


def test_volumes_in_use_cannot_be_removed(dockp: Dockp) -> None:
    dockp.ok("create", "--name", "user", "-v", "held:/x", "busybox")
    done = dockp("volume", "rm", "held")
    assert done.returncode == 1
    assert "volume is in use" in done.stderr
    dockp.ok("rm", "user")
    dockp.ok("volume", "rm", "held")


def test_labels_ids_and_files_about_the_container(dockp: Dockp, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.write_text("from.file=yes\n")
    cidfile = tmp_path / "cid"
    done = dockp("run", "--cidfile", str(cidfile), "--name", "tagged", "-l", "a=1", "--label-file", str(labels),
                 "--stop-signal", "USR1", "--stop-timeout", "3", "busybox", "true")  # fmt: skip
    assert done.returncode == 0
    document = dockp.inspect("tagged")
    assert cidfile.read_text() == document["Id"]
    assert document["Config"]["Labels"] == {"a": "1", "from.file": "yes"}
    assert (document["Config"]["StopSignal"], document["Config"]["StopTimeout"]) == ("USR1", 3)
    assert dockp("run", "--cidfile", str(cidfile), "busybox", "true").returncode == 125


def test_entrypoint_replaces_and_resets(dockp: Dockp) -> None:
    assert sh(dockp, "", "--entrypoint", "/bin/echo") == "sh -c "
    assert dockp.ok("run", "--rm", "--entrypoint", "", "--network", "none", "busybox", "echo", "x") == "x"
    assert "no command specified" in dockp("run", "--rm", "--entrypoint", "", "busybox").stderr.lower()


@pytest.mark.parametrize("address", ["127.0.0.1", "gateway"])
def test_a_published_port_is_reached_from_the_host(dockp: Dockp, address: str) -> None:
    dockp.ok("run", "-d", "--name", "web", "-p", "18080:80", "busybox", "sh", "-c",
             "mkdir /www; echo hello > /www/index.html; exec httpd -f -h /www")  # fmt: skip
    host = dockp.inspect("web")["NetworkSettings"]["Gateway"] if address == "gateway" else address

    def fetch() -> str:
        done = subprocess.run(
            ["curl", "-s", "-m", "2", f"http://{host}:18080/"], capture_output=True, text=True, check=False
        )
        return done.stdout

    assert wait_for(fetch, "the web server answers") == "hello\n"
    assert dockp.ok("port", "web").startswith("80/tcp -> 0.0.0.0:18080")
    assert "0.0.0.0:18080->80/tcp" in dockp.ok("ps")


def test_a_port_that_is_taken_names_the_holder(dockp: Dockp) -> None:
    dockp.ok("run", "-d", "--name", "holder", "-p", "18081:80", "busybox", "sleep", "60")
    done = dockp("run", "-d", "--name", "late", "-p", "18081:80", "busybox", "sleep", "60")
    assert done.returncode == 125
    assert "port is already allocated" in done.stderr
    dockp.ok("rm", "-f", "holder")
    dockp.ok("start", "late")


def test_containers_reach_each_other_on_the_bridge(dockp: Dockp) -> None:
    dockp.ok("run", "-d", "--name", "peer", "busybox", "sleep", "60")
    address = dockp.ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "peer")
    assert dockp("run", "--rm", "busybox", "ping", "-c", "1", "-W", "2", address).returncode == 0


def test_none_has_only_loopback(dockp: Dockp) -> None:
    assert sh(dockp, "ls /sys/class/net; cat /sys/class/net/lo/flags").split() == ["lo", "0x9"]


def test_inspect_has_dockers_shape(dockp: Dockp) -> None:
    dockp.ok("run", "-d", "--name", "shape", "-p", "18082:80", "-m", "64m", "busybox", "sleep", "60")
    document = dockp.inspect("shape")
    assert document["State"]["Status"] == "running"
    assert document["State"]["Pid"] > 1
    assert document["HostConfig"]["Memory"] == 64 * 1024 * 1024
    assert document["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "18082"}]}
    assert document["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"] == "18082"
    assert document["Path"] == "sleep"
    assert document["Args"] == ["60"]
    assert json.loads(dockp.ok("inspect", "-f", "{{json .Config.Cmd}}", "shape")) == ["sleep", "60"]


@pytest.mark.embedded
def test_the_default_bridge_is_made_as_configured(fresh: Dockp) -> None:
    fresh.add_image("busybox", image_tar("busybox"))
    script = "ip -o -4 a show eth0; cat /sys/class/net/eth0/mtu"
    assert "172." in fresh.ok("run", "--rm", "busybox", "sh", "-c", script)
    fresh.settings = {"DOCKP_BIP": "10.77.0.1/24", "DOCKP_MTU": "1400"}
    out = fresh.ok("run", "-d", "--name", "there", "busybox", "sh", "-c", f"{script}; exec sleep 60")
    wait_for(lambda: "1400" in fresh.ok("logs", "there"), "it says what it has")
    assert "10.77.0.2/24" in fresh.ok("logs", out)
    fresh.settings = {"DOCKP_BIP": "10.78.0.1/24"}
    done = fresh("run", "--rm", "busybox", "true")
    assert done.returncode == 125
    assert 'container "there" is on it' in done.stderr
    fresh.settings = {}
