"""``images`` (``image ls``), ``tag``, ``rmi`` (``image rm``), ``image prune``, ``import`` and ``pull``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from dockp.cli.app import App, Failure, error_text, warn
from dockp.cli.command import Command
from dockp.cli.flags import FILTER, LIST, STRING, SWITCH, Flag, Values, quote
from dockp.cli.format.printer import Column, Listing, short_id
from dockp.cli.rendering import LIST_FORMAT, familiar

_TABLE = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
_TABLE_DIGESTS = "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
_RAW = (
    "repository: {{.Repository}}\ntag: {{.Tag}}\n%simage_id: {{.ID}}\n"
    "created_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"
)
LISTING = Listing(
    "formatter.imageContext",
    [
        Column("ID", "IMAGE ID"),
        Column("Repository", "REPOSITORY"),
        Column("Tag", "TAG"),
        Column("Digest", "DIGEST"),
        Column("CreatedSince", "CREATED"),
        Column("CreatedAt", "CREATED AT"),
        Column("Size", "SIZE"),
        Column("Containers", "CONTAINERS"),
        Column("VirtualSize", "SIZE"),
        Column("SharedSize", "SHARED SIZE"),
        Column("UniqueSize", "UNIQUE SIZE"),
    ],
    default=_TABLE,
    raw=_RAW % "",
)
_NONE = "<none>"
# What people type after "images" when they mean a command of "image".
_COMMANDS = frozenset(
    ("history", "import", "inspect", "list", "load", "ls", "prune", "pull", "push", "rm", "save", "tag")
)


def images(app: App, values: Values) -> None:
    filters = values.filters()
    name = values.args[0] if values.args else ""
    if name:
        filters.setdefault("reference", []).append(name)
    if values["tree"]:
        from dockp.cli.commands.image_tree import show

        show(app, values, filters)
        return
    documents = app.engine.images.list(all=values["all"], filters=filters)
    digests, format = values["digests"], values["format"] or None
    if format == "raw" and digests:
        format = _RAW % "digest: {{.Digest}}\n"
    elif format and format.startswith("table ") and digests and "{{.Digest}}" not in format:
        format += "\t{{.Digest}}"
    wants_digests = digests or "{{.Digest}}" in (format or "")
    shown = {"short": not values["no-trunc"], "digests": wants_digests, "all_digests": digests}
    rows = [row for document in documents for row in rows_of(document, **shown)]
    LISTING.write(
        sys.stdout,
        rows,
        format=format,
        quiet=values["quiet"] and format in (None, "table"),
        default=_TABLE_DIGESTS if digests else None,
    )
    if name in _COMMANDS and not documents:
        warn(f'\nNo images found matching {quote(name)}: did you mean "dockp image {name}"?')


def rows_of(
    document: Mapping[str, Any], *, short: bool = True, digests: bool = False, all_digests: bool = False
) -> Iterator[dict[str, Any]]:
    """One row a tag (and digest, with ``digests``); one for a repository known by its digest alone, or as many as it
    has with ``all_digests``."""
    names = _by_repository(document.get("RepoTags"), ":", "<none>:<none>")
    known = _by_repository(document.get("RepoDigests"), "@", "<none>@<none>")
    rest = _row(document, short)
    if not names and not known:
        yield rest | {"Repository": _NONE, "Tag": _NONE, "Digest": _NONE}
        return
    for repository, tags in names.items():
        of_this = known.pop(repository, [])
        for tag in tags:
            for digest in (of_this if digests else []) or [_NONE]:
                yield rest | {"Repository": repository, "Tag": tag, "Digest": digest}
    for repository, found in known.items():
        for digest in found if all_digests else [""]:
            yield rest | {"Repository": repository, "Tag": _NONE, "Digest": digest}


def _by_repository(references: list[str] | None, separator: str, absent: str) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for reference in references or ():
        if reference != absent:
            repository, _, rest = familiar(reference).rpartition(separator)
            grouped.setdefault(repository, []).append(rest)
    return grouped


def _row(document: Mapping[str, Any], short: bool) -> dict[str, Any]:
    from dockp.units import format_ago, format_created_at, human_size

    created, size = document["Created"] * 10**9, document["Size"]
    shared, containers = document.get("SharedSize", -1), document.get("Containers", -1)
    return {
        "ID": short_id(document["Id"]) if short else document["Id"],
        "CreatedSince": format_ago(created),
        "CreatedAt": format_created_at(created),
        "Size": human_size(size, 3),
        "Containers": "N/A" if containers == -1 else str(containers),
        "VirtualSize": human_size(size),
        "SharedSize": "N/A" if shared == -1 else human_size(shared),
        "UniqueSize": "N/A" if -1 in (size, shared) else human_size(size - shared),
    }


def tag(app: App, values: Values) -> None:
    app.engine.images.tag(*values.args)


def remove(app: App, values: Values) -> int:
    from dockp.spi.errors import DockpError, NotFound

    failed: list[DockpError] = []
    for name in values.args:
        try:
            removed = app.engine.images.remove(name, force=values["force"], prune=not values["no-prune"])
        except DockpError as error:
            failed.append(error)
            continue
        for item in removed:
            print(f"Deleted: {item['Deleted']}" if item.get("Deleted") else f"Untagged: {item['Untagged']}", flush=True)
    for failure in failed:
        warn(error_text(failure))
    forgiven = values["force"] and all(isinstance(failure, NotFound) for failure in failed)
    return 1 if failed and not forgiven else 0


def import_(app: App, values: Values) -> None:
    from dockp.cli.pulling import shown_progress

    source = values.args[0]
    if source.startswith(("http://", "https://")):
        raise Failure(f"Error: importing from a URL is not supported: fetch {source} first, or pipe it in with '-'")
    if source == "-" and sys.stdin.isatty():
        raise Failure("Error: '-' reads the archive from standard input, which is a terminal")
    with (
        sys.stdin.buffer if source == "-" else open(source, "rb") as file,
        shown_progress(sys.stderr, quiet=not sys.stderr.isatty()) as progress,
    ):
        id = app.engine.images.import_(
            file,
            reference=values.args[1] if len(values.args) > 1 else "",
            changes=values["change"],
            message=values["message"],
            platform=values["platform"],
            progress=progress,
        )
    print(id)


def pull(app: App, values: Values) -> None:
    from dockp.cli.pulling import SOURCES, pull
    from dockp.images.reference import DEFAULT_SCHEME, parse, split_scheme

    reference, quiet = values.args[0], values["quiet"]
    scheme, rest = split_scheme(reference, SOURCES)
    name = parse(rest) if scheme == DEFAULT_SCHEME else None
    if name is not None:
        if values["all-tags"] and (name.tag or name.digest):
            raise Failure("tag can't be used with --all-tags/-a")
        if not values["all-tags"] and not name.tag and not name.digest:
            name = name.with_default_tag()
            if not quiet:
                print(f"Using default tag: {name.tag}", flush=True)
    id = pull(
        app,
        reference,
        sys.stdout,
        tag=values["tag"],
        platform=values["platform"],
        all_tags=values["all-tags"],
        quiet=quiet,
    )
    print(familiar(values["tag"]) if values["tag"] else id if name is None else name)


def prune(app: App, values: Values) -> None:
    from dockp.cli.confirming import confirmed
    from dockp.units import human_size

    which = "images without at least one container associated to them" if values["all"] else "dangling images"
    if not values["force"] and not confirmed(f"WARNING! This will remove all {which}."):
        return
    filters = values.filters()
    filters["dangling"] = ["false" if values["all"] else "true"]
    report = app.engine.images.prune(filters)
    if report["ImagesDeleted"]:
        print("Deleted Images:")
        for row in report["ImagesDeleted"]:
            for what, name in row.items():
                print(f"{what.lower()}: {name}")
        print()
    print(f"Total reclaimed space: {human_size(report['SpaceReclaimed'])}")


_PLATFORM = Flag("platform", "", STRING, "Set platform if server is multi-platform capable")

IMAGES = Command(
    "[OPTIONS] [REPOSITORY[:TAG]]",
    "List images",
    images,
    (
        Flag("all", "a", SWITCH, "Show all images (default hides intermediate images)"),
        Flag("digests", "", SWITCH, "Show digests"),
        Flag("filter", "f", FILTER, "Filter output based on conditions provided"),
        LIST_FORMAT,
        Flag("no-trunc", "", SWITCH, "Don't truncate output"),
        Flag("quiet", "q", SWITCH, "Only show image IDs"),
        Flag("tree", "", SWITCH, "List multi-platform images as a tree"),
    ),
    args=(0, 1),
    aliases="dockp image ls, dockp image list, dockp images",
    examples=("dockp images", "dockp image ls --digests --filter dangling=false debian"),
)
TAG = Command(
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    tag,
    args=(2, 2),
    interspersed=False,
    aliases="dockp image tag, dockp tag",
    examples=("dockp tag debian:bookworm base:1", "dockp image tag 0123456789ab app:test"),
    names="image",
)
REMOVE = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Remove one or more images",
    remove,
    (
        Flag("force", "f", SWITCH, "Force removal of the image"),
        Flag("no-prune", "", SWITCH, "Do not delete untagged parents"),
    ),
    args=(1, None),
    aliases="dockp image rm, dockp image remove, dockp rmi",
    examples=("dockp rmi app:test", "dockp image rm -f 0123456789ab"),
    names="image",
)
PRUNE = Command(
    "[OPTIONS]",
    "Remove unused images",
    prune,
    (
        Flag("all", "a", SWITCH, "Remove all unused images, not just dangling ones"),
        Flag("filter", "", FILTER, 'Provide filter values (e.g. "until=<timestamp>")'),
        Flag("force", "f", SWITCH, "Do not prompt for confirmation"),
    ),
    args=(0, 0),
    examples=("dockp image prune -f", "dockp image prune -a --filter until=24h"),
)
IMPORT = Command(
    "[OPTIONS] FILE|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    import_,
    (
        Flag("change", "c", LIST, "Apply Dockerfile instruction to the created image"),
        Flag("message", "m", STRING, "Set commit message for imported image"),
        _PLATFORM,
    ),
    args=(1, 2),
    aliases="dockp image import, dockp import",
    examples=(
        "dockp import rootfs.tar.gz base:1",
        "dockp import -c 'CMD [\"sh\"]' -m 'from scratch' - base:1",
    ),
)
PULL = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]|SCHEME:REFERENCE",
    "Download an image from a registry",
    pull,
    (
        Flag("all-tags", "a", SWITCH, "Download all tagged images in the repository"),
        _PLATFORM,
        Flag("quiet", "q", SWITCH, "Suppress verbose output"),
        Flag("tag", "t", STRING, "Name the image (NAME[:TAG])"),
    ),
    args=(1, 1),
    aliases="dockp image pull, dockp pull",
    examples=(
        "dockp pull debian:bookworm",
        "dockp pull --all-tags 127.0.0.1:5000/app",
        "dockp pull debootstrap:bookworm -t debian:bookworm",
        "dockp pull -q oci:./layout:latest -t app",
    ),
)
