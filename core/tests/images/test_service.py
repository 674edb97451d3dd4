"""Finding, listing, naming and removing images."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from dockp.images.removal import ImageUser
from dockp.spi.errors import Conflict, InvalidArgument, NotFound

Tar = Callable[[Mapping[str, bytes | None]], bytes]
USER = "0123456789ab" + "c" * 52


@pytest.fixture
def make(store: Any, make_tar: Tar) -> Callable[..., Any]:
    """Import an image; each call another one."""
    count = 0

    def build(*tags: str, changes: Sequence[str] = ()) -> Any:
        nonlocal count
        count += 1
        image = store.images.import_(
            io.BytesIO(make_tar({"file": b"x" * count})), reference=tags[0] if tags else "", changes=changes
        )
        for tag in tags[1:]:
            store.images.tag(image.id, tag)
        return image

    return build


def using(running: bool) -> Callable[[str], Sequence[ImageUser]]:
    return lambda id: [ImageUser(id=USER, running=running)]


def add_digest(store: Any, name: str, image: Any) -> str:
    """As a pull does it."""
    from dockp.images import records

    with store.database.write() as connection:
        records.set_digest(connection, name, image.manifest.digest, image.id)
    return f"{name}@{image.manifest.digest}"


def test_an_image_is_found_by_every_kind_of_name(store: Any, make: Callable[..., Any]) -> None:
    image = make("debian:12")
    make("other")
    add_digest(store, "docker.io/library/debian", image)
    hexadecimal = image.id.removeprefix("sha256:")
    for ref in (
        "debian:12",
        "docker.io/library/debian:12",
        image.id,
        hexadecimal,
        hexadecimal[:12],
        f"sha256:{hexadecimal[:20]}",
        f"debian@{image.manifest.digest}",
        f"debian:whatever@{image.manifest.digest}",
    ):
        assert store.images.get(ref).id == image.id, ref


@pytest.mark.parametrize(
    ("ref", "complaint"),
    [
        ("debian", "No such image: debian:latest"),
        ("library/debian:x", "No such image: debian:x"),
        ("abc", "No such image: abc:latest"),
        ("sha256:abc", "No such image: sha256:abc"),
        ("0" * 64, f"No such image: sha256:{'0' * 64}"),
        ("sha256:" + "0" * 64, f"No such image: sha256:{'0' * 64}"),
        ("debian@sha256:" + "0" * 64, f"No such image: debian@sha256:{'0' * 64}"),
    ],
)
def test_a_missing_image_is_not_found_in_dockers_words(store: Any, ref: str, complaint: str) -> None:
    with pytest.raises(NotFound) as caught:
        store.images.get(ref)
    assert str(caught.value) == complaint


def test_a_malformed_name_is_refused(store: Any) -> None:
    with pytest.raises(InvalidArgument, match="must be lowercase"):
        store.images.get("Debian")


def test_a_tag_that_looks_like_an_id_wins_and_an_ambiguous_id_is_refused(store: Any, make: Callable[..., Any]) -> None:
    images = [make() for _ in range(17)]
    first = [image.id[7] for image in images]
    twice = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(InvalidArgument, match=f"multiple IDs found with provided prefix: {twice}"):
        store.images.get(twice)
    store.images.tag(images[0].id, twice)
    assert store.images.get(twice).id == images[0].id


def test_the_list_shows_what_docker_shows(store: Any, make: Callable[..., Any]) -> None:
    image = make("debian:12", "debian:latest", changes=["LABEL a=b"])
    untagged = make()
    assert [row["Id"] for row in store.images.list()] == [untagged.id, image.id], "the latest first"
    row = store.images.list(filters={"reference": ["debian"]})[0]
    assert row["RepoTags"] == ["debian:12", "debian:latest"]
    assert row["RepoDigests"] == []
    assert row["Labels"] == {"a": "b"}
    assert row["Size"] == 1
    assert (row["ParentId"], row["SharedSize"], row["Containers"]) == ("", -1, -1)
    assert abs(row["Created"] - time.time()) < 60


def test_filters_choose_images(store: Any, make: Callable[..., Any]) -> None:
    old = make("old:1", changes=["LABEL stage=one"])
    new = make("new:1", "registry.test/new:2", changes=["LABEL stage=two"])
    untagged = make()

    def ids(**filters: str) -> set[str]:
        return {row["Id"] for row in store.images.list(filters={key: [value] for key, value in filters.items()})}

    assert ids(dangling="true") == {untagged.id}
    assert ids(dangling="0") == {old.id, new.id}
    assert ids(label="stage") == {old.id, new.id}
    assert ids(label="stage=two") == {new.id}
    assert ids(before="new:1") == {old.id}
    assert ids(since="old:1") == {new.id, untagged.id}
    assert ids(reference="new:*") == {new.id}
    assert ids(reference="*/new") == {new.id}
    assert ids(until="1h") == set()
    assert ids(until=str(time.time() + 1)) == {old.id, new.id, untagged.id}
    (row,) = store.images.list(filters={"reference": ["new:1", "none"]})
    assert row["RepoTags"] == ["new:1"], "only the names that were asked for"
    for filters, error in (({"x": "y"}, "invalid filter 'x'"), ({"dangling": "maybe"}, "invalid filter 'dangling")):
        with pytest.raises(InvalidArgument, match=error):
            ids(**filters)
    with pytest.raises(NotFound, match="No such image: none:latest"):
        ids(before="none")
    with pytest.raises(InvalidArgument, match="invalid time 'soon'"):
        ids(until="soon")


def test_inspect_has_every_field_that_the_api_names(store: Any, make: Callable[..., Any]) -> None:
    image = make("debian:12", changes=["CMD x", "HEALTHCHECK NONE"])
    name = add_digest(store, "docker.io/library/debian", image)
    store.images.unpack(image, "vfs")
    store.images.unpack(image, "overlay2")
    document = store.images.inspect("debian:12", "overlay2")
    assert document["Id"] == image.id
    assert document["RepoTags"] == ["debian:12"]
    assert document["RepoDigests"] == [name.removeprefix("docker.io/library/")]
    assert document["RootFS"] == {"Type": "layers", "Layers": [image.chain_id]}
    assert document["Config"]["Healthcheck"] == {"Test": ["NONE"]}
    assert {"Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "Volumes", "WorkingDir"} <= set(document["Config"])
    assert document["GraphDriver"]["Name"] == "overlay2"
    assert document["GraphDriver"]["Data"]["LowerDir"].startswith(str(store.path / "overlay2"))
    assert document["Descriptor"]["digest"] == image.manifest.digest
    assert document["Metadata"]["LastTagTime"].startswith("20")
    assert document["Comment"] == "Imported from -"
    assert document["Size"] == 1
    assert "Variant" not in document


def test_a_tag_moves_and_the_old_image_dangles(store: Any, make: Callable[..., Any]) -> None:
    old, new = make("a"), make("b")
    store.images.tag("b", "a:latest")
    assert store.images.get("a").id == new.id
    assert store.images.list(filters={"dangling": ["true"]})[0]["Id"] == old.id
    for target, complaint in (("A", "lowercase"), (f"a@{old.id}", "refusing to create a tag with a digest reference")):
        with pytest.raises(InvalidArgument, match=complaint):
            store.images.tag("b", target)
    with pytest.raises(NotFound, match="No such image: none:latest"):
        store.images.tag("none", "c")


def test_removing_one_of_two_names_only_untags(store: Any, make: Callable[..., Any]) -> None:
    image = make("a:1", "b:1")
    assert store.images.remove("a:1", used_by=using(True)) == [{"Untagged": "a:1"}]
    assert store.images.get("b:1").id == image.id
    with pytest.raises(NotFound, match="No such image: a:1"):
        store.images.remove("a:1")


def test_removing_the_last_name_deletes_the_image_with_its_digests_and_layers(
    store: Any, make: Callable[..., Any]
) -> None:
    image = make("a:1")
    name = add_digest(store, "docker.io/library/a", image)
    assert store.images.remove("a:1") == [
        {"Untagged": "a:1"},
        {"Untagged": name.removeprefix("docker.io/library/")},
        {"Deleted": image.id},
        {"Deleted": image.chain_id},
    ]
    with pytest.raises(NotFound):
        store.images.get(image.id)
    assert store.images.list(all=True) == []


def test_removing_a_digest_reference_leaves_the_tag(store: Any, make: Callable[..., Any]) -> None:
    image = make("a:1")
    name = add_digest(store, "docker.io/library/a", image).removeprefix("docker.io/library/")
    assert store.images.remove(name) == [{"Untagged": name}]
    assert store.images.get("a:1").id == image.id


def test_removing_by_id_takes_the_only_name_along(store: Any, make: Callable[..., Any]) -> None:
    image = make("a:1")
    assert store.images.remove(image.id[7:19])[0] == {"Untagged": "a:1"}


def test_removing_by_id_with_several_names_needs_force(store: Any, make: Callable[..., Any]) -> None:
    image = make("a:1", "b:1")
    short = image.id[7:19]
    with pytest.raises(Conflict) as caught:
        store.images.remove(short)
    assert str(caught.value) == (
        f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    )
    done = store.images.remove(short, force=True)
    assert done[:3] == [{"Untagged": "a:1"}, {"Untagged": "b:1"}, {"Deleted": image.id}]


def test_the_only_name_of_a_used_image_needs_force(store: Any, make: Callable[..., Any]) -> None:
    image = make("a:1")
    short = image.id[7:19]
    with pytest.raises(Conflict) as caught:
        store.images.remove("a:1", used_by=using(False))
    assert str(caught.value) == (
        'conflict: unable to remove repository reference "a:1" (must force) - container 0123456789ab is using its '
        f"referenced image {short}"
    )
    with pytest.raises(Conflict) as caught:
        store.images.remove(short, used_by=using(False))
    assert str(caught.value) == (
        f"conflict: unable to delete {short} (must be forced) - image is being used by stopped container 0123456789ab"
    )
    assert store.images.get("a:1").id == image.id, "a refused removal changes nothing"
    assert store.images.remove(short, force=True, used_by=using(False))[1] == {"Deleted": image.id}


def test_an_image_of_a_running_container_is_only_untagged_even_by_force(store: Any, make: Callable[..., Any]) -> None:
    image = make("a:1")
    short = image.id[7:19]
    with pytest.raises(Conflict) as caught:
        store.images.remove(short, force=True, used_by=using(True))
    assert str(caught.value) == (
        f"conflict: unable to delete {short} (cannot be forced) - image is being used by running container 0123456789ab"
    )
    assert store.images.remove("a:1", force=True, used_by=using(True)) == [{"Untagged": "a:1"}]
    assert store.images.get(image.id).id == image.id


def test_what_was_built_on_an_image_holds_it_and_untagged_parents_go_with_their_child(
    store: Any, make: Callable[..., Any]
) -> None:
    parent, child = make("base"), make("child")
    with store.database.write() as connection:
        connection.execute("UPDATE images SET parent = ? WHERE id = ?", (parent.id, child.id))
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image has dependent child images"):
        store.images.remove(parent.id, force=True)
    assert store.images.remove("base") == [{"Untagged": "base:latest"}]
    assert [row["Id"] for row in store.images.list()] == [child.id]
    assert {row["Id"] for row in store.images.list(all=True)} == {parent.id, child.id}
    assert [row for row in store.images.remove("child") if row.get("Deleted") in (parent.id, child.id)] == [
        {"Deleted": child.id},
        {"Deleted": parent.id},
    ]


def test_finding_an_image_costs_one_query_and_unpacked_ones_one_more(store: Any, make: Callable[..., Any]) -> None:
    image = make("a:1")
    store.images.unpack(image, "vfs")
    queries: list[str] = []
    with store.database.read() as connection:
        connection.set_trace_callback(queries.append)
        store.images.unpack(store.images.get("a:1"), "vfs")
        connection.set_trace_callback(None)
    assert len(queries) == 2
