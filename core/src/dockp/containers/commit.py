"""An image made of a container: ``commit``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from dockp.containers.changes import layer
from dockp.containers.states import State
from dockp.containers.telling import tell
from dockp.images.changes import apply_changes
from dockp.images.reference import parse_tag
from dockp.jsonmodel import to_json
from dockp.spi.errors import Conflict, DockpError, FailedPrecondition

if TYPE_CHECKING:
    from dockp.containers.context import Context
    from dockp.containers.model import Config
    from dockp.containers.record import Container

_IMAGE_FIELDS = (
    *("User", "ExposedPorts", "Env", "Cmd", "Healthcheck", "Volumes", "WorkingDir", "Entrypoint", "OnBuild"),
    *("Labels", "StopSignal", "StopTimeout", "Shell"),
)
"""What of a container's configuration belongs into an image. Source: OCI image-spec config.md; Docker's own."""
_MERGED = ("ExposedPorts", "Labels", "Volumes")


def commit(
    context: Context,
    container: Container,
    *,
    reference: str,
    message: str,
    author: str,
    changes: Sequence[str],
    pause: bool,
    config: Config | None,
) -> str:
    """See `dockp.interface.Containers.commit`; ``reference`` is a name or ""."""
    from dockp.archive.pack import PackStream

    if container.task.state is State.DEAD:
        raise Conflict(f"You cannot commit container {container.id} which is Dead")
    if container.task.state is State.REMOVING:
        raise Conflict(f"You cannot commit container {container.id} which is being removed")
    own = to_json(container.request.config)
    process = laid_over(apply_changes(own if config is None else to_json(config), changes), own)
    with _paused(context, container, pause), layer(context, container) as pieces:
        image = context.images.commit(
            cast(BinaryIO, PackStream(pieces, lambda: None)),
            parent=container.image,
            process={key: process[key] for key in _IMAGE_FIELDS if process.get(key) not in (None, "", [], {})},
            created_by=" ".join(own.get("Cmd") or ()),
            message=message,
            author=author,
            reference=reference,
        )
        name = parse_tag(reference).familiar if reference else ""
        if name:
            context.events.emit("image", "tag", image.id, {**image.labels, "name": name})
        tell(context, container, "commit", comment=message, imageID=image.id, imageRef=name)
    return image.id


def laid_over(wanted: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """``wanted`` with what it leaves open taken from ``base``, both ``Config`` in Docker's JSON. Source: moby, what its
    commit does with a configuration that a client sends."""
    result = dict(wanted)
    for key in ("User", "WorkingDir", "StopSignal", "StopTimeout", "Shell", "OnBuild", "Healthcheck"):
        if not result.get(key):
            result[key] = base.get(key)
    for key in _MERGED:
        result[key] = {**(base.get(key) or {}), **(wanted.get(key) or {})}
    named = {pair.partition("=")[0] for pair in wanted.get("Env") or ()}
    result["Env"] = [
        *(wanted.get("Env") or ()),
        *(pair for pair in base.get("Env") or () if pair.partition("=")[0] not in named),
    ]
    if not wanted.get("Entrypoint"):
        if not wanted.get("Cmd"):
            result["Cmd"] = base.get("Cmd")
        if wanted.get("Entrypoint") is None:
            result["Entrypoint"] = base.get("Entrypoint")
    return result


@contextlib.contextmanager
def _paused(context: Context, container: Container, wanted: bool) -> Iterator[None]:
    """Let nothing of the container run, unless it is not running, or paused, already."""
    if not (wanted and container.task.state is State.RUNNING):
        yield
        return
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(DockpError):  # it may have ended, or somebody else has paused it
            shim = stack.enter_context(contextlib.closing(context.supervisor.connect(container.id)))
            with contextlib.suppress(FailedPrecondition):
                shim.pause(held=True)
                stack.callback(_unpause, shim)
        yield


def _unpause(shim: Any) -> None:
    with contextlib.suppress(DockpError):
        shim.unpause()
