"""Many commands at once on one root: all of them work, nothing is lost, nothing is given out twice."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence

import pytest
from harness import Dockp, image_tar, published_ports, remains, wait_for

_MANY = 50


def _all_at_once(dockp: Dockp, commands: Sequence[Sequence[str]], timeout: float = 120) -> list[tuple[int, str, str]]:
    """Start every command, then wait for each: exit code, output, complaints."""
    running = [
        dockp.popen(*arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for arguments in commands
    ]
    try:
        ends = [process.communicate(timeout=timeout) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return [(process.returncode, out.decode(), err.decode()) for process, (out, err) in zip(running, ends, strict=True)]


def _all_well(ends: Sequence[tuple[int, str, str]]) -> list[str]:
    assert [end for end in ends if end[0] != 0 or end[2]] == []
    return [out.strip() for _, out, _ in ends]


@pytest.fixture
def place(dockp: Dockp) -> Dockp:
    assert remains(dockp) == []
    return dockp


def test_fifty_detached_containers_start_at_once_with_names_and_addresses_of_their_own(place: Dockp) -> None:
    ids = _all_well(_all_at_once(place, [["run", "-d", "-p", "80", "busybox", "sleep", "1000"]] * _MANY))
    assert len(set(ids)) == _MANY
    documents = json.loads(place.ok("inspect", *ids))
    assert {document["State"]["Status"] for document in documents} == {"running"}
    assert len({document["Name"] for document in documents}) == _MANY
    settings = [document["NetworkSettings"] for document in documents]
    assert len({one["Networks"]["bridge"]["IPAddress"] for one in settings}) == _MANY
    assert len({one["Networks"]["bridge"]["MacAddress"] for one in settings}) == _MANY
    assert len({one["Ports"]["80/tcp"][0]["HostPort"] for one in settings}) == _MANY
    assert len(published_ports()) == _MANY
    assert len(place.ok("ps", "-q").splitlines()) == _MANY
    _all_well(_all_at_once(place, [["rm", "-f", *ids[:25]], ["rm", "-f", *ids[25:]]]))
    assert remains(place) == []


def test_fifty_commands_at_once_are_the_first_on_an_empty_root(fresh: Dockp) -> None:
    """Everybody finds nothing: no folders, no schema, no networks, no cache of plug-ins, no choice of drivers."""
    _all_well(_all_at_once(fresh, [["ps", "-aq"], ["info"], ["volume", "ls"], ["images"], ["network", "ls"]] * 10))
    fresh.add_image("busybox", image_tar("busybox"))
    ids = _all_well(_all_at_once(fresh, [["run", "-d", "busybox", "sleep", "1000"]] * 10))
    assert sorted(fresh.ok("ps", "-q", "--no-trunc").split()) == sorted(ids)


def test_fifty_containers_that_run_at_once_each_give_their_own_output_and_exit_code(place: Dockp) -> None:
    commands = [
        ["run", "--rm", "--network", "none", "busybox", "sh", "-c", f"echo out {n}; echo err {n} >&2; exit {n}"]
        for n in range(_MANY)
    ]
    ends = _all_at_once(place, commands)
    assert ends == [(n, f"out {n}\n", f"err {n}\n") for n in range(_MANY)]
    assert remains(place) == []


def test_of_many_removals_of_one_container_none_fails_but_for_its_absence(place: Dockp) -> None:
    place.ok("run", "-d", "--name", "victim", "-p", "80", "busybox", "sleep", "1000")
    ends = _all_at_once(place, [["rm", "-f", "victim"]] * 12)
    assert any(code == 0 for code, _, _ in ends)
    for code, out, err in ends:
        assert (code, out, err) in (
            (0, "victim\n", ""),
            (0, "", "Error: No such container: victim\n"),
            (1, "", "Error: No such container: victim\n"),
        )
    assert remains(place) == []


@pytest.mark.parametrize("verb", ["create", "run"])
def test_of_many_containers_with_one_name_exactly_one_is_made(place: Dockp, verb: str) -> None:
    arguments = {"create": ["create"], "run": ["run", "-d"]}[verb]
    ends = _all_at_once(place, [[*arguments, "--name", "wanted", "busybox", "sleep", "1000"]] * 12)
    winners = [out.strip() for code, out, _ in ends if code == 0]
    assert len(winners) == 1
    for code, out, err in ends:
        if code == 0:
            continue
        assert (code, out) == ({"create": 1, "run": 125}[verb], "")
        assert f'Conflict. The container name "/wanted" is already in use by container "{winners[0]}".' in err
    assert place.ok("ps", "-aq", "--no-trunc") == winners[0]
    place.ok("rm", "-f", "wanted")
    assert remains(place) == []


def test_of_many_starts_of_one_container_all_find_it_running(place: Dockp) -> None:
    place.ok("create", "--name", "wanted", "-p", "80", "busybox", "sleep", "1000")
    _all_well(_all_at_once(place, [["start", "wanted"]] * 12))
    assert place.state("wanted") == "running"
    assert len(published_ports()) == 1


def test_of_many_that_want_one_host_port_exactly_one_gets_it(place: Dockp) -> None:
    ends = _all_at_once(place, [["run", "-d", "-p", "47391:80", "busybox", "sleep", "1000"]] * 8)
    assert sorted(code for code, _, _ in ends) == [0, *[125] * 7]
    for code, _, err in ends:
        assert code == 0 or "port is already allocated" in err
    assert published_ports() == {"tcp . 47391"}


def test_starting_stopping_and_looking_at_once_harm_no_one(place: Dockp) -> None:
    for n in range(4):
        place.ok("create", "--name", f"busy{n}", "-p", "80", "--stop-signal", "KILL", "busybox", "sleep", "1000")
    commands: list[list[str]] = []
    for n in range(4):
        for verb in ("start", "stop", "restart"):
            commands += [[verb, f"busy{n}"]] * 3
    commands += [["ps", "-a"], ["inspect", "busy0"], ["info"]] * 3
    assert [end for end in _all_at_once(place, commands) if end[0] != 0] == []
    place.ok("start", *(f"busy{n}" for n in range(4)))
    assert len(place.ok("ps", "-q").splitlines()) == 4
    assert len(published_ports()) == 4
    place.ok("rm", "-f", *(f"busy{n}" for n in range(4)))
    assert remains(place) == []


def test_volumes_and_tags_made_and_removed_at_once_stay_whole(place: Dockp) -> None:
    commands = [["volume", "create", "shared"], ["volume", "rm", "-f", "shared"]] * 8
    commands += [["tag", "busybox", f"copy:{n}"] for n in range(8)]
    assert [end for end in _all_at_once(place, commands) if end[0] != 0] == []
    _all_well(_all_at_once(place, [["rmi", f"copy:{n}"] for n in range(8)]))
    place.ok("volume", "rm", "-f", "shared")
    assert place.ok("run", "--rm", "--network", "none", "busybox", "echo", "well") == "well"
    wait_for(_nothing_of(place), "nothing is left")


def _nothing_of(place: Dockp) -> Callable[[], bool]:
    return lambda: remains(place) == []
