"""Real servers from Debian's packages: they serve, and keep their data, on every storage driver."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from harness import Dockp, wait_for


@pytest.fixture(params=["overlay2", "vfs"])
def host(request: pytest.FixtureRequest, debian: Dockp) -> Iterator[Dockp]:
    debian.globals = (f"--storage-driver={request.param}",)
    yield debian
    debian.clear()
    debian.globals = ()


def curl(url: str) -> str:
    done = subprocess.run(["curl", "-s", "-m", "3", url], capture_output=True, text=True, check=False)
    return done.stdout


def test_nginx_serves_on_a_published_port(host: Dockp) -> None:
    host.ok(
        "run", "-d", "--name", "web", "-p", "18088:80", "debian:bookworm", "nginx", "-g", "daemon off;", timeout=300
    )
    assert "Welcome to nginx" in wait_for(lambda: curl("http://127.0.0.1:18088/"), "nginx answers")
    host.ok("stop", "web")
    assert host.ok("inspect", "-f", "{{.State.ExitCode}}", "web") == "0"
    assert curl("http://127.0.0.1:18088/") == ""


def test_redis_keeps_its_data_over_stop_and_start(host: Dockp) -> None:
    host.ok("run", "-d", "--name", "cache", "-v", "redis:/var/lib/redis", "debian:bookworm", "redis-server",
            "--dir", "/var/lib/redis", "--appendonly", "yes", timeout=300)  # fmt: skip
    wait_for(lambda: host("exec", "cache", "redis-cli", "ping").stdout == "PONG\n", "Redis answers")
    host.ok("exec", "cache", "redis-cli", "set", "answer", "42")
    host.ok("stop", "cache")
    host.ok("start", "cache")
    wait_for(lambda: host("exec", "cache", "redis-cli", "ping").stdout == "PONG\n", "Redis answers again")
    assert host.ok("exec", "cache", "redis-cli", "get", "answer") == "42"
    host.ok("rm", "-f", "cache")
    host.ok("volume", "rm", "redis")


def test_postgresql_keeps_its_data_over_a_kill(host: Dockp) -> None:
    script = (
        "d=/var/lib/postgresql/15/main; [ -s $d/PG_VERSION ] || exit 3; "
        "exec /usr/lib/postgresql/15/bin/postgres -D $d -c config_file=/etc/postgresql/15/main/postgresql.conf -k /tmp"
    )
    host.ok("run", "-d", "--name", "db", "-u", "postgres", "debian:bookworm", "sh", "-c", script, timeout=300)

    def ready() -> bool:
        return host("exec", "-u", "postgres", "db", "psql", "-h", "/tmp", "-Atc", "select 1").stdout == "1\n"

    wait_for(ready, "PostgreSQL answers", 40)
    host.ok(
        "exec", "-u", "postgres", "db", "psql", "-h", "/tmp", "-c", "create table t (n int); insert into t values (7)"
    )
    host.ok("kill", "db")
    wait_for(lambda: host.state("db") == "exited", "it is dead")
    host.ok("start", "db")
    wait_for(ready, "PostgreSQL recovers", 40)
    assert host.ok("exec", "-u", "postgres", "db", "psql", "-h", "/tmp", "-Atc", "select n from t") == "7"
