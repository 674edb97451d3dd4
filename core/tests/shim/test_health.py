"""Health checks, with intervals short enough to watch."""

from __future__ import annotations

import pytest
from shimlab import eventually

from dockp.shim.health import duration

MS = 1_000_000


def checked(lab, test, script="sleep 60", **more):
    config = {"Test": test, "Interval": 50 * MS, "Timeout": 2000 * MS, "Retries": 2, **more}
    return lab.run("c", script, health=config)


def health(client):
    return client.state().health


def test_a_check_that_succeeds_makes_healthy(lab):
    client = checked(lab, ["CMD-SHELL", "echo fine"])
    assert health(client)["Status"] == "starting"
    eventually(lambda: health(client)["Status"] == "healthy")
    result = health(client)["Log"][-1]
    assert (result["ExitCode"], result["Output"]) == (0, "fine\n")
    assert result["Start"] < result["End"]
    eventually(lambda: len(health(client)["Log"]) == 5)


def test_enough_failures_in_a_row_make_unhealthy_and_one_success_heals(lab, tmp_path):
    client = checked(lab, ["CMD", "sh", "-c", "test -e /tmp/dockp-health || exit 3"])
    eventually(lambda: health(client)["FailingStreak"] == 1)
    assert health(client)["Status"] == "starting"
    eventually(lambda: health(client)["Status"] == "unhealthy")
    assert health(client)["Log"][-1]["ExitCode"] == 3


def test_watchers_hear_of_changes(plain):
    client = checked(plain, ["CMD", "true"])
    client.watch()
    while (event := client.next_event(10))["action"] != "health_status: healthy":
        pass
    assert event["state"]["health"]["Status"] == "healthy"


def test_a_check_that_takes_too_long_is_killed_and_fails(lab):
    client = checked(lab, ["CMD-SHELL", "echo slow; exec sleep 30"], Timeout=150 * MS)
    eventually(lambda: health(client)["Log"])
    assert health(client)["Log"][0]["ExitCode"] == -1
    assert health(client)["Log"][0]["Output"] == "Health check exceeded timeout (150ms): slow\n"


def test_a_check_that_cannot_run_fails(lab):
    client = checked(lab, ["CMD", "/no/such"])
    eventually(lambda: health(client)["Status"] == "unhealthy")
    assert health(client)["Log"][0]["ExitCode"] == -1


def test_failures_in_the_start_period_do_not_count(plain):
    client = checked(plain, ["CMD", "false"], StartPeriod=600 * MS, StartInterval=50 * MS)
    eventually(lambda: len(health(client)["Log"]) >= 3)
    assert health(client)["FailingStreak"] == 0
    eventually(lambda: health(client)["Status"] == "unhealthy")


def test_long_output_is_cut(plain):
    client = checked(plain, ["CMD-SHELL", "head -c 10000 /dev/zero | tr '\\0' x"])
    eventually(lambda: health(client)["Log"])
    assert health(client)["Log"][0]["Output"] == "x" * 4096 + "..."


def test_a_paused_container_is_not_checked(plain):
    client = checked(plain, ["CMD", "true"])
    eventually(lambda: health(client)["Status"] == "healthy")
    client.pause()
    log = health(client)["Log"]
    import time

    time.sleep(0.2)
    assert health(client)["Log"] == log
    client.unpause()
    eventually(lambda: health(client)["Log"] != log)


def test_an_ended_container_counts_as_unhealthy(plain):
    client = checked(plain, ["CMD", "true"], script="sleep 0.3")
    client.wait(timeout=10)
    assert health(client)["Status"] == "unhealthy"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (30_000_000_000, "30s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
        (1_500_000_000, "1.5s"),
        (150_000_000, "150ms"),
        (2_500, "2.5µs"),
        (7, "7ns"),
    ],
)
def test_durations_are_written_as_go_writes_them(nanoseconds, text):
    assert duration(nanoseconds) == text
