"""``events``, ``system df`` and the prune family, as whole commands."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from typing import Any

from harness import Dockp, wait_for


def told(dockp: Dockp, *arguments: str) -> list[dict[str, Any]]:
    """The events from the beginning up to now."""
    text = dockp.ok("events", "--since", "1", "--until", "0s", "--format", "json", *arguments)
    return [json.loads(line) for line in text.splitlines()]


def story(dockp: Dockp, container_id: str) -> list[str]:
    """What happened to a container and its networks, a word each."""
    return [
        f"{event['Type']} {event['Action']}" if event["Type"] != "container" else event["Action"]
        for event in told(dockp)
        if container_id in (event["Actor"]["ID"], event["Actor"]["Attributes"].get("container"))
    ]


def test_a_container_tells_its_life_as_docker_does(dockp: Dockp) -> None:
    container_id = dockp.ok("create", "--name", "life", "-l", "a=b", "busybox", "sleep", "60")
    dockp.ok("start", "life")
    dockp.ok("exec", "life", "true")
    dockp.ok("pause", "life")
    dockp.ok("unpause", "life")
    dockp.ok("rename", "life", "death")
    dockp.ok("restart", "-t", "0", "death")
    dockp.ok("stop", "-t", "0", "death")
    dockp.ok("rm", "death")
    stopped = ["kill", "kill", "die", "network disconnect", "stop"]
    assert story(dockp, container_id) == [
        *("create", "network connect", "start"),
        *("exec_create: true", "exec_start: true", "exec_die"),
        *("pause", "unpause", "rename"),
        *(*stopped, "network connect", "start", "restart"),
        *(*stopped, "destroy"),
    ]
    by_action = {event["Action"]: event["Actor"]["Attributes"] for event in told(dockp, "-f", "label=a=b")}
    assert by_action["rename"] == {"a": "b", "image": "busybox", "name": "death", "oldName": "/life"}
    assert by_action["die"].pop("execDuration").isdigit()
    assert by_action["die"] == {"a": "b", "image": "busybox", "name": "death", "exitCode": "137"}
    assert by_action["kill"]["signal"] == "9"
    assert by_action["exec_die"]["exitCode"] == "0"
    assert by_action["exec_die"]["execID"] == by_action["exec_create: true"]["execID"]


def test_a_start_that_fails_is_told(dockp: Dockp) -> None:
    failed = dockp("run", "--name", "failing", "-v", "/data", "busybox", "nosuch")
    assert failed.returncode == 127
    container_id = dockp.ok("rm", "-v", "failing") and told(dockp, "-f", "container=failing")[0]["id"]
    joined = ["network connect", "volume mount"]
    left = ["network disconnect", "volume unmount"]
    assert story(dockp, container_id) == ["create", "attach", *joined, *left, "destroy"]


def test_what_happens_when_nobody_looks_is_told_once(dockp: Dockp) -> None:
    container_id = dockp.ok(
        *("run", "-d", "--network", "none", "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 3")
    )
    wait_for(lambda: story(dockp, container_id).count("die") == 3, "it was started three times")
    assert dockp.state(container_id) == "exited"
    life = ["start", "die"] * 3
    assert [word for word in story(dockp, container_id) if word in life] == life


def test_health_is_told(dockp: Dockp) -> None:
    dockp.ok(
        *("run", "-d", "--name", "healthy", "--network", "none"),
        *("--health-cmd", "true", "--health-interval", "100ms", "busybox", "sleep", "60"),
    )
    wait_for(lambda: told(dockp, "-f", "event=health_status", "-f", "container=healthy"), "it is healthy")
    (event,) = told(dockp, "-f", "event=health_status", "-f", "container=healthy")
    assert event["status"] == event["Action"] == "health_status: healthy"
    actions = [event["Action"] for event in told(dockp, "-f", "container=healthy")]
    assert actions[2:5] == ["exec_create: /bin/sh -c true", "exec_start: /bin/sh -c true", "exec_die"]


def test_listeners_hear_what_other_commands_do(dockp: Dockp) -> None:
    listening = dockp.popen("events", "--since", "10m", "-f", "type=container", stdout=subprocess.PIPE)
    assert listening.stdout is not None
    marker = dockp.ok("create", "--name", "marker0", "busybox")
    wait_for(lambda: _reads(listening), "the first event")
    dockp.ok("rm", marker)
    line = listening.stdout.readline().decode()
    while f"destroy {marker}" not in line:
        line = listening.stdout.readline().decode()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d)"
    assert re.fullmatch(rf"{stamp} container destroy {marker} \(image=busybox, name=marker0\)\n", line)
    listening.send_signal(signal.SIGINT)
    assert listening.wait() == 130
    listening.stdout.close()


def _reads(process: subprocess.Popen[bytes]) -> bool:
    import select

    return bool(select.select([process.stdout], [], [], 0)[0])


def test_a_killed_command_that_waits_leaves_the_end_to_the_next(dockp: Dockp) -> None:
    waiting = dockp.popen("run", "--rm", "--network", "none", "--name", "left", "busybox", "sleep", "1")
    wait_for(lambda: told(dockp, "-f", "container=left", "-f", "event=start"), "it runs")
    container_id = told(dockp, "-f", "container=left")[0]["id"]
    waiting.kill()
    waiting.wait()
    wait_for(lambda: "destroy" in story(dockp, container_id), "it removed itself")
    assert story(dockp, container_id)[-3:] == ["die", "network disconnect", "destroy"]


def test_templates_and_filters(dockp: Dockp) -> None:
    dockp.ok("run", "--rm", "--network", "none", "--name", "shown", "busybox", "true")
    format = "{{.Type}} {{.Action}} {{.Status}} {{.From}} {{.Actor.Attributes.name}}"
    shown = dockp.ok(
        *("events", "--since", "10m", "--until", "0s", "-f", "container=shown", "-f", "event=die", "--format", format)
    )
    assert shown == "container die die busybox shown"
    assert dockp("events", "-f", "nosuch=1").stderr == "Error: invalid filter 'nosuch'\n"
    assert dockp("events", "--format", "{{").returncode == 64


def test_disk_usage(dockp: Dockp) -> None:
    dockp.ok("run", "--name", "writer", "--network", "none", "busybox", "sh", "-c", "head -c 100000 /dev/zero >/x")
    dockp.ok("run", "-d", "--name", "runs", "--network", "none", "-v", "data:/data", "busybox", "sleep", "60")
    rows = [json.loads(line) for line in dockp.ok("system", "df", "--format", "json").splitlines()]
    counts = {row["Type"]: (row["TotalCount"], row["Active"]) for row in rows}
    assert counts == {
        "Images": ("1", "1"),
        "Containers": ("2", "1"),
        "Local Volumes": ("1", "1"),
        "Build Cache": ("0", "0"),
    }
    assert re.fullmatch(r"\d+(\.\d+)?kB \(\d+%\)", rows[1]["Reclaimable"])
    assert rows[0]["Reclaimable"] == "0B (0%)"
    table = dockp.ok("system", "df").splitlines()
    assert table[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    details = dockp.ok("system", "df", "-v")
    for title in ("Images", "Containers", "Local Volumes"):
        assert f"{title} space usage:\n\n" in details
    assert "Build cache usage: 0B\n" in details
    assert re.search(r"^data +1 +0B$", details, re.MULTILINE)
    dockp.ok("rm", "-f", "runs", "writer")
    dockp.ok("volume", "rm", "data")


def test_prune_removes_what_does_not_run(dockp: Dockp) -> None:
    dockp.ok("run", "-d", "--name", "runs", "--network", "none", "busybox", "sleep", "60")
    kept = dockp.ok("create", "-l", "keep", "busybox")
    gone = dockp.ok("run", "--name", "gone", "--network", "none", "-d", "busybox", "true")
    dockp.ok("wait", "gone")
    refused = dockp("container", "prune", input="n\n")
    assert refused.stdout.startswith("WARNING! This will remove all stopped containers.\n")
    assert dockp.state("gone") == "exited"
    done = dockp.ok("container", "prune", "--filter", "label!=keep", input="y\n")
    assert f"Deleted Containers:\n{gone}\n\nTotal reclaimed space: " in done
    assert dockp("container", "prune", "-f", "--filter", "until=24h").stdout == "Total reclaimed space: 0B\n"
    assert dockp("container", "prune", "-f", "--filter", "name=x").stderr == "Error: invalid filter 'name'\n"
    everything = dockp.ok("system", "prune", "-f", "--volumes")
    assert kept in everything
    assert dockp.state("runs") == "running"
    assert told(dockp, "-f", "event=prune", "-f", "type=container")[-1]["Actor"]["ID"] == ""


def test_waiting_for_the_next_end_and_for_the_removal(dockp: Dockp) -> None:
    dockp.ok("create", "--name", "later", "--network", "none", "busybox", "sh", "-c", "exit 7")
    assert dockp.ok("wait", "later") == "0"
    waiting = [
        dockp.popen("wait", "--condition", condition, "later", stdout=subprocess.PIPE)
        for condition in ("next-exit", "removed")
    ]
    time.sleep(1)  # until they wait; there is nothing to see of that
    dockp.ok("start", "later")
    assert waiting[0].communicate(timeout=10)[0] == b"7\n"
    dockp.ok("rm", "-f", "later")
    assert waiting[1].communicate(timeout=10)[0] == b"7\n"
