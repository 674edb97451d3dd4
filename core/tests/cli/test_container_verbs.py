"""stats, cp, diff, commit, export and update: what they ask of an engine and what they print."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clihelpers import Outcome
from fakeengine import FakeEngine

from dockp.cli.commands.stats import cpu_percent, memory_used, row
from dockp.spi.errors import Conflict, NotFound

SAMPLE: dict[str, Any] = {
    "id": "0123456789abcdef" * 4,
    "name": "/web",
    "cpu_stats": {"cpu_usage": {"total_usage": 3_000}, "system_cpu_usage": 20_000, "online_cpus": 4},
    "precpu_stats": {"cpu_usage": {"total_usage": 1_000}, "system_cpu_usage": 10_000, "online_cpus": 4},
    "memory_stats": {"usage": 3 << 20, "limit": 4 << 20, "stats": {"inactive_file": 1 << 20}},
    "blkio_stats": {
        "io_service_bytes_recursive": [
            {"major": 8, "minor": 0, "op": "read", "value": 1500},
            {"major": 8, "minor": 16, "op": "Read", "value": 500},
            {"major": 8, "minor": 0, "op": "write", "value": 3_000_000},
        ]
    },
    "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 2}, "eth1": {"rx_bytes": 648, "tx_bytes": 0}},
    "pids_stats": {"current": 7},
}
ZEROS: dict[str, Any] = {
    **SAMPLE,
    "cpu_stats": {"cpu_usage": {"total_usage": 0}},
    "precpu_stats": {"cpu_usage": {"total_usage": 0}},
    "memory_stats": {},
    "blkio_stats": {"io_service_bytes_recursive": None},
    "networks": None,
    "pids_stats": {},
}


def test_a_sample_becomes_a_row() -> None:
    assert cpu_percent(SAMPLE) == pytest.approx(80)
    assert row("web", SAMPLE, True) == {
        "Container": "web",
        "ID": "0123456789ab",
        "Name": "web",
        "CPUPerc": "80.00%",
        "MemUsage": "2MiB / 4MiB",
        "MemPerc": "50.00%",
        "NetIO": "1.65kB / 2B",
        "BlockIO": "2kB / 3MB",
        "PIDs": "7",
    }


def test_a_container_that_does_not_run_uses_nothing() -> None:
    shown = row("web", ZEROS, True)
    assert (shown["CPUPerc"], shown["MemUsage"], shown["MemPerc"], shown["PIDs"]) == ("0.00%", "0B / 0B", "0.00%", "0")


@pytest.mark.parametrize(
    ("stats", "used"),
    [({"total_inactive_file": 10, "inactive_file": 1}, 90), ({"inactive_file": 10}, 90), ({"inactive_file": 200}, 100)],
)
def test_memory_leaves_out_what_can_be_taken_back(stats: dict[str, int], used: int) -> None:
    assert memory_used({"usage": 100, "stats": stats}) == used


def test_stats_without_stream_lists_all_that_run(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.list"] = [{"Id": "b"}, {"Id": "a"}]
    engine.answers["containers.stats"] = lambda ref, **more: iter([{**SAMPLE, "name": f"/{ref}"}])
    assert dockp("stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}}") == (0, "a 80.00%\nb 80.00%\n", "")
    assert engine.arguments("containers.stats")[0] == (("a",), {"stream": False})


def test_diff_prints_letters(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    changes = [{"Path": "/a", "Kind": 0}, {"Path": "/a/b", "Kind": 1}, {"Path": "/c", "Kind": 2}]
    engine.answers["containers.changes"] = changes
    assert dockp("diff", "web") == (0, "C /a\nA /a/b\nD /c\n", "")


@pytest.mark.parametrize(
    ("reference", "repository", "tag"),
    [("app", "app", ""), ("app:1", "app", "1"), ("host:5000/app", "host:5000/app", ""), ("h:5/a:b", "h:5/a", "b")],
)
def test_commit_hands_on_the_name(
    dockp: Callable[..., Outcome], engine: FakeEngine, reference: str, repository: str, tag: str
) -> None:
    engine.answers["containers.commit"] = "sha256:1"
    assert dockp("commit", "-m", "why", "-a", "who", "-c", "ENV A=b", "-p=false", "web", reference).out == "sha256:1\n"
    assert engine.arguments("containers.commit") == [
        (
            ("web",),
            {
                **{"repository": repository, "tag": tag, "message": "why", "author": "who"},
                **{"changes": ["ENV A=b"], "pause": False},
            },
        )
    ]


def test_export_writes_a_file_when_it_is_whole(
    dockp: Callable[..., Outcome], engine: FakeEngine, tmp_path: Path
) -> None:
    engine.answers["containers.export"] = lambda ref: io.BytesIO(b"tar")
    assert dockp("export", "-o", f"{tmp_path}/out", "web") == (0, "", "")
    assert (tmp_path / "out").read_bytes() == b"tar"
    assert dockp("export", "-o", f"{tmp_path}/no/out", "web").err == (
        f"failed to export container: invalid output path: stat {tmp_path}/no: no such file or directory\n"
    )
    engine.answers["containers.export"] = NotFound("No such container: web")
    assert dockp("export", "-o", f"{tmp_path}/other", "web") == (1, "", "Error: No such container: web\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_update_asks_for_what_was_given_only(dockp: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.answers["containers.update"] = lambda ref, request: ["careful"]
    flags = ("-m", "64m", "--memory-swap", "-1", "--cpus", "1.5", "--restart", "on-failure:3", "-c", "9")
    assert dockp("update", *flags, "a", "b") == (0, "a\nb\ncareful\ncareful\n", "")
    (_, request), _ = engine.arguments("containers.update")[0]
    assert (request.memory, request.memory_swap, request.nano_cpus) == (64 << 20, -1, 1_500_000_000)
    assert (request.cpu_shares, request.pids_limit, request.cpuset_cpus) == (9, None, "")
    assert (request.restart_policy.name, request.restart_policy.maximum_retry_count) == ("on-failure", 3)
    assert dockp("update", "a").err == "you must provide one or more flags when using this command\n"
    engine.answers["containers.update"] = Conflict("no")
    assert dockp("update", "-c", "9", "a") == (1, "", "Error: no\n")


def test_cp_sends_a_tar_named_as_it_is_to_be(dockp: Callable[..., Outcome], engine: FakeEngine, tmp_path: Path) -> None:
    sent: dict[str, bytes] = {}

    def put(ref: str, path: str, source: Any, **more: Any) -> None:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            for entry in tar:
                file = tar.extractfile(entry)
                sent[f"{path}:{entry.name}"] = file.read() if file else b""

    (tmp_path / "f").write_bytes(b"text")
    engine.answers["containers.archive_stat"] = NotFound("Could not find the file")
    engine.answers["containers.archive_put"] = put
    assert dockp("cp", "--quiet=false", f"{tmp_path}/f", "web:/srv/g").err == (
        "Successfully copied 2.05kB to web:/srv/g\n"
    )
    assert sent == {"/srv:g": b"text"}
    (_, more) = engine.arguments("containers.archive_put")[0]
    assert more == {"no_overwrite_dir_non_dir": True, "copy_uid_gid": False}


def test_cp_follows_one_link_to_its_destination(
    dockp: Callable[..., Outcome], engine: FakeEngine, tmp_path: Path
) -> None:
    answers = {
        "/link": {"mode": 1 << 27 | 0o777, "linkTarget": "/real"},
        "/real": {"mode": 1 << 31 | 0o755, "linkTarget": ""},
    }
    (tmp_path / "f").touch()
    engine.answers["containers.archive_stat"] = lambda ref, path: answers[path]
    dockp("cp", f"{tmp_path}/f", "web:/link")
    assert engine.arguments("containers.archive_put")[0][0][:2] == ("web", "/real")


def test_cp_refuses_devices(dockp: Callable[..., Outcome], engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    engine.answers["containers.archive_stat"] = {"mode": 1 << 26 | 0o600, "linkTarget": ""}
    assert dockp("cp", f"{tmp_path}/f", "web:/dev/sda").err == (
        'destination "web:/dev/sda" must be a directory or a regular file\n'
    )
    assert dockp("cp", "web:/f", "/dev/null").err == (
        'invalid output path: "/dev/null" must be a directory or a regular file: got a device\n'
    )


def test_what_cp_unpacks_here_leads_nowhere_else(
    dockp: Callable[..., Outcome], engine: FakeEngine, tmp_path: Path
) -> None:
    outside, here = tmp_path / "outside", tmp_path / "here"
    outside.mkdir()
    here.mkdir()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("d/way")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        for entry in (_directory("d"), link, tarfile.TarInfo("d/way/owned")):
            tar.addfile(entry)
    found = {"name": "d", "mode": 1 << 31 | 0o755}
    engine.answers["containers.archive_get"] = lambda ref, path: (io.BytesIO(out.getvalue()), found)
    dockp("cp", "web:/d", str(here))
    assert (here / "d" / "way").is_symlink()
    assert list(outside.iterdir()) == []


def _directory(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry
