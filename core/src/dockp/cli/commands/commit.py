"""``commit``."""

from __future__ import annotations

from dockp.cli.app import App
from dockp.cli.command import Command
from dockp.cli.flags import LIST, STRING, SWITCH, Flag, Values


def commit(app: App, values: Values) -> None:
    name, *reference = values.args
    repository, tag = _split(reference[0]) if reference else ("", "")
    print(
        app.engine.containers.commit(
            name,
            repository=repository,
            tag=tag,
            message=values["message"],
            author=values["author"],
            changes=values["change"],
            pause=values["pause"],
        )
    )


def _split(reference: str) -> tuple[str, str]:
    """Repository and tag; a colon before the last slash belongs to a port."""
    repository, colon, tag = reference.rpartition(":")
    return (repository, tag) if colon and "/" not in tag and "@" not in reference else (reference, "")


COMMIT = Command(
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    commit,
    (
        Flag("author", "a", STRING, 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")'),
        Flag("change", "c", LIST, "Apply Dockerfile instruction to the created image"),
        Flag("message", "m", STRING, "Commit message"),
        Flag("pause", "p", SWITCH, "Pause container during commit", default=True),
    ),
    args=(1, 2),
    aliases="dockp container commit, dockp commit",
    examples=("dockp commit web site:1", "dockp commit -m 'fixed' -c 'CMD [\"nginx\"]' web site"),
    names="container",
)
