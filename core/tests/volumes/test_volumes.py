"""Volumes without containers: names, options, filters, pruning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from dockp.engine.volumes import LocalVolumes
from dockp.linux.locks import RangeLocks, offset_of
from dockp.spi.errors import Conflict, InvalidArgument, NotFound, Unavailable
from dockp.spi.values import Mount
from dockp.store.database import Database
from dockp.volumes.local import LocalVolumes as LocalDriver
from dockp.volumes.service import SCHEMA, VolumeService


@frozen(kw_only=True)
class Home:
    root: Path
    service: VolumeService
    volumes: LocalVolumes
    events: list[tuple[str, str, dict[str, str]]]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    database = Database(tmp_path / "state.db", [SCHEMA])
    locks = RangeLocks(tmp_path / "locks")
    drivers = {"local": LocalDriver(tmp_path / "volumes", {}), "other": LocalDriver(tmp_path / "other", {})}
    events: list[tuple[str, str, dict[str, str]]] = []
    service = VolumeService(
        database,
        drivers.__getitem__,
        lambda name: locks.hold(offset_of(name)),
        lambda kind, action, id, attributes: events.append((action, id, dict(attributes))),
    )
    yield Home(root=tmp_path / "volumes", service=service, volumes=LocalVolumes(service, lambda: None), events=events)
    database.close()


def names(home: Home, **filters: list[str]) -> list[str]:
    return [document["Name"] for document in home.volumes.list(filters)]


def test_the_document_is_dockers(home: Home) -> None:
    document = dict(home.volumes.create("data"))
    assert document.pop("CreatedAt").endswith("Z")
    assert document == {
        "Driver": "local",
        "Labels": None,
        "Mountpoint": str(home.root / "data" / "_data"),
        "Name": "data",
        "Options": None,
        "Scope": "local",
    }
    anonymous = home.volumes.create(labels={"a": "b"})
    assert len(anonymous["Name"]) == 64
    assert anonymous["Labels"] == {"com.docker.volume.anonymous": "", "a": "b"}


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("x", "create x: volume name is too short, names should be at least two alphanumeric characters"),
        ("a/b", 'create a/b: "a/b" includes invalid characters for a local volume name, only "[a-zA-Z0-9]'),
        ("-x", 'create -x: "-x" includes invalid characters'),
        ("..", 'create ..: ".." includes invalid characters'),
    ],
)
def test_bad_names_are_refused_in_dockers_words(home: Home, name: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        home.volumes.create(name)
    assert str(caught.value).startswith(complaint)
    assert names(home) == []


def test_a_name_belongs_to_one_driver_and_keeps_its_first_options(home: Home) -> None:
    home.volumes.create("data", options={"type": "tmpfs", "device": "tmpfs"})
    again = home.volumes.create("data", labels={"late": ""})
    assert (again["Options"], again["Labels"]) == ({"type": "tmpfs", "device": "tmpfs"}, None)
    with pytest.raises(Conflict, match="driver 'local' already has volume 'data': volume name must be unique"):
        home.volumes.create("data", driver="other")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"foo": "bar"}, 'create data: invalid option: "foo"'),
        ({"type": "tmpfs"}, 'create data: missing required option: "device"'),
        ({"device": "/x"}, 'create data: missing required option: "type"'),
        ({"o": "ro"}, 'create data: missing required option: "device"'),
        ({"size": "10m"}, "create data: quota size requested but no quota support"),
    ],
)
def test_options_that_make_no_sense_leave_no_volume(home: Home, options: dict[str, str], complaint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        home.volumes.create("data", options=options)
    assert str(caught.value) == complaint
    assert names(home) == []
    assert home.events == []


@pytest.mark.parametrize(
    ("options", "mount"),
    [
        (
            {"type": "tmpfs", "device": "none", "o": "size=1m,uid=5"},
            Mount(type="tmpfs", source="none", options=("size=1m", "uid=5")),
        ),
        ({"type": "none", "device": "/srv", "o": "bind,ro"}, Mount(type="bind", source="/srv", options=("bind", "ro"))),
        (
            {"type": "nfs", "device": ":/x", "o": "addr=127.0.0.1,rw"},
            Mount(type="nfs", source=":/x", options=("addr=127.0.0.1", "rw")),
        ),
        (
            {"type": "nfs", "device": ":/x", "o": "addr=localhost"},
            Mount(type="nfs", source=":/x", options=("addr=127.0.0.1",)),
        ),
    ],
)
def test_options_say_what_is_mounted(home: Home, options: dict[str, str], mount: Mount) -> None:
    home.volumes.create("data", options=options)
    assert list(home.service.mounts("data")) == [mount]
    assert home.service.source(home.service.get("data")) == "", "no directory that could be bound"


def test_a_server_nobody_knows_is_unavailable(home: Home) -> None:
    home.volumes.create("data", options={"type": "nfs", "device": ":/x", "o": "addr=no.such.host.invalid"})
    with pytest.raises(Unavailable, match="error resolving passed in network volume address"):
        home.service.mounts("data")


def test_filters_match_as_dockers(home: Home) -> None:
    home.volumes.create("data", labels={"a": "1", "b": ""})
    home.volumes.create("more-data", labels={"a": "2"})
    home.volumes.create("else", driver="other")
    home.service.ensure("data", user="container")
    assert names(home, name=["data"]) == ["data", "more-data"], "a regular expression, anywhere in the name"
    assert names(home, name=["^data$", "els."]) == ["data", "else"]
    assert names(home, name=["["]) == []
    assert names(home, driver=["other"]) == ["else"]
    assert names(home, label=["a"]) == ["data", "more-data"]
    assert names(home, label=["a", "b"]) == ["data"], "every label, not any"
    assert names(home, label=["a=2"]) == ["more-data"]
    assert names(home, dangling=["true"]) == ["else", "more-data"]
    assert names(home, dangling=["0"], name=["data"]) == ["data"]
    for filters, complaint in (({"foo": ["x"]}, "invalid filter 'foo'"), ({"dangling": ["maybe"]}, "dangling=")):
        with pytest.raises(InvalidArgument, match=complaint):
            home.volumes.list(filters)


def write(home: Home, name: str, size: int) -> None:
    (home.root / name / "_data" / "file").write_bytes(b"x" * size)


def test_prune_takes_what_is_anonymous_and_free(home: Home) -> None:
    anonymous = home.volumes.create()["Name"]
    held = home.service.ensure(user="container").name
    home.volumes.create("named")
    home.volumes.create("tmp", options={"type": "tmpfs", "device": "tmpfs"})
    home.volumes.create("else", driver="other")
    write(home, anonymous, 1000)
    write(home, "named", 500)
    assert home.volumes.prune() == {"VolumesDeleted": [anonymous], "SpaceReclaimed": 1000}
    assert home.events[-2:] == [
        ("destroy", anonymous, {"driver": "local"}),
        ("prune", "", {"reclaimed": "1000"}),
    ]
    assert home.volumes.prune() == {"VolumesDeleted": [], "SpaceReclaimed": 0}
    assert home.volumes.prune({"all": ["1"]}) == {"VolumesDeleted": ["named"], "SpaceReclaimed": 500}
    assert names(home) == sorted([held, "tmp", "else"]), "in use, with options, of another driver"


def test_prune_goes_by_labels(home: Home) -> None:
    for name, labels in (("one", {"a": "1"}), ("two", {"a": "2"}), ("none", {})):
        home.volumes.create(name, labels=labels)
    everything = {"all": ["true"]}
    assert home.volumes.prune({**everything, "label": ["a=3"]})["VolumesDeleted"] == []
    assert home.volumes.prune({**everything, "label": ["a=1"]})["VolumesDeleted"] == ["one"]
    assert home.volumes.prune({**everything, "label!": ["a"]})["VolumesDeleted"] == ["none"]
    with pytest.raises(InvalidArgument, match="invalid filter 'name'"):
        home.volumes.prune({"name": ["x"]})


def test_usage_counts_users_and_bytes(home: Home) -> None:
    volume = home.service.ensure("data", user="one")
    home.service.ensure("data", user="two")
    write(home, "data", 42)
    assert home.service.usage(volume) == {"RefCount": 2, "Size": 42}
    mounted = home.service.ensure("tmp", options={"type": "tmpfs", "device": "tmpfs"})
    assert home.service.usage(mounted) == {"RefCount": 0, "Size": -1}


def test_removal_is_refused_while_in_use_and_told_when_done(home: Home) -> None:
    home.service.ensure("data", user="abc")
    with pytest.raises(Conflict, match=r"remove data: volume is in use - \[abc\]"):
        home.volumes.remove("data")
    home.service.let_go("abc", remove_anonymous=True)
    home.volumes.remove("data")
    assert [event[0] for event in home.events] == ["create", "destroy"]
    with pytest.raises(NotFound, match="get data: no such volume"):
        home.volumes.remove("data")
    home.volumes.remove("data", force=True)


def test_a_removal_that_was_cut_short_is_done_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.volumes.create("data")
    write(home, "data", 1)

    def fail(path: object) -> None:
        raise OSError(5, "killed here")

    with monkeypatch.context() as patched:
        patched.setattr("dockp.volumes.local.discard_tree", fail)
        with pytest.raises(OSError, match="killed here"):
            home.volumes.remove("data")
    assert names(home) == ["data"], "still known, so that it can be removed"
    home.volumes.remove("data")
    assert list(home.root.iterdir()) == []


def test_events_of_a_volume_come_once(home: Home) -> None:
    make: Callable[[], Any] = lambda: home.volumes.create("data")  # noqa: E731
    make()
    make()
    assert home.events == [("create", "data", {"driver": "local"})]
