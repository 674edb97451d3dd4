"""The `Engine` interface: what the command line, the API and programs are written against.

Met by `dockp.engine.local.LocalEngine` (does the work in this process) and by `dockp.remote.engine.RemoteEngine`
(speaks the Docker Engine API). Small protocols by noun; every method is synchronous and may be called from many
threads. Documents (`Document`) are Docker's JSON, ready to print or to serve. Errors are `dockp.spi.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias

from attrs import field, frozen

if TYPE_CHECKING:
    from dockp.containers.model import Config, CreateRequest, ExecConfig, UpdateRequest
    from dockp.spi.images import Credentials
    from dockp.spi.logs import LogEntry

Document: TypeAlias = dict[str, Any]
"""A JSON object in Docker's spelling."""
Filters: TypeAlias = Mapping[str, Sequence[str]]
"""``{"status": ["running"], "label": ["a=b"]}``: values of one key are alternatives, keys must all match."""
Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with (what, done, total or None) while long work goes on; any thread. What is said of one layer of several
begins with its short id: ``4abcf2066143: Pushing``."""


def is_summary(what: str) -> bool:
    """Whether what a `Progress` is told is a line about the whole work, in Docker's words, and of no single thing."""
    return what.startswith(("Digest: ", "Status: ", "The push refers to repository ")) or ": digest: " in what


START_FAILURE_CODES = {"not-found": 127, "not-executable": 126}
"""Exit codes of commands that could not be started, by the kind of `dockp.spi.errors.StartFailure`."""


@frozen(kw_only=True)
class Created:
    id: str
    warnings: tuple[str, ...] = ()


@frozen(kw_only=True)
class WaitResult:
    """How a container ended: ``exit_code`` 0–255 (128 + signal when killed); ``error`` when it could not be awaited."""

    exit_code: int
    error: str = ""


@frozen(kw_only=True)
class Top:
    """Processes of a container: column titles as ``ps`` prints them, and one row a process."""

    titles: tuple[str, ...]
    processes: tuple[tuple[str, ...], ...]


@frozen(kw_only=True)
class RunResult:
    """What `Containers.run` gives for a container that ran to its end."""

    id: str
    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""
    warnings: tuple[str, ...] = field(default=())


class Stream(Protocol):
    """A two-way byte stream to a container or exec. Output is raw when it has a terminal, else framed as Docker's
    (eight bytes of header: stream number, three zeros, length in four bytes, big-endian)."""

    def fileno(self) -> int: ...
    def recv(self, size: int) -> bytes: ...
    def send(self, data: bytes) -> int: ...
    def close_stdin(self) -> None:
        """Tell the container that no more input comes; output goes on."""

    def wait_end(self) -> str:
        """After the end of output: ``"exit"`` when the process ended, ``"detach"`` when the detach keys were seen."""

    def close(self) -> None: ...


class Containers(Protocol):
    """References are names, full ids or unique prefixes of ids. Raises NotFound("No such container: …")."""

    def create(self, request: CreateRequest) -> Created: ...
    def start(self, ref: str) -> None:
        """Raises NotModified when it runs already; RuntimeFailure's kinds arrive as `StartFailure`."""

    def attach(
        self, ref: str, *, stdin: bool, stdout: bool, stderr: bool, detach_keys: str = "", logs: bool = False
    ) -> Stream:
        """Attach to a running container, or to a created one just before `start`. ``detach_keys`` as Docker's
        (``"ctrl-p,ctrl-q"``, the default for ""). With ``logs`` what was written before comes first."""

    def resize(self, ref: str, rows: int, columns: int) -> None: ...
    def wait(self, ref: str, condition: str = "not-running") -> WaitResult:
        """Conditions are Docker's: "not-running", "next-exit", "removed". Any number of callers get the same answer."""

    def begin_wait(self, ref: str, condition: str = "not-running") -> Callable[[], WaitResult]:
        """Begin to wait: no end from now on is missed. The function waits for it, and is called at most once."""

    def stop(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        """Seconds until SIGKILL; None is the container's own value, -1 waits for ever. NotModified when stopped."""

    def restart(self, ref: str, timeout: int | None = None, signal: str = "") -> None: ...
    def kill(self, ref: str, signal: str = "KILL") -> None: ...
    def pause(self, ref: str) -> None: ...
    def unpause(self, ref: str) -> None: ...
    def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None: ...
    def rename(self, ref: str, name: str) -> None: ...
    def list(
        self, *, all: bool = False, limit: int = 0, size: bool = False, filters: Filters | None = None
    ) -> Sequence[Document]:
        """Summaries as ``GET /containers/json``, newest first."""

    def inspect(self, ref: str, *, size: bool = False) -> Document: ...
    def logs(
        self,
        ref: str,
        *,
        stdout: bool = True,
        stderr: bool = True,
        follow: bool = False,
        since: int = 0,
        until: int = 0,
        tail: int | None = None,
    ) -> Iterator[LogEntry]:
        """Entries in order; ``since`` and ``until`` in nanoseconds since the epoch, 0 for no bound."""

    def top(self, ref: str, ps_args: str = "") -> Top: ...
    def exec_create(self, ref: str, config: ExecConfig) -> str: ...
    def exec_start(self, exec_id: str, *, detach: bool = False, tty: bool | None = None) -> Stream | None:
        """Runs it; a stream unless ``detach``. A command that is not there arrives as `StartFailure`."""

    def exec_inspect(self, exec_id: str) -> Document:
        """As ``GET /exec/{id}/json``; ``ExitCode`` is None while it runs."""

    def exec_wait(self, exec_id: str) -> int:
        """Wait for its end; the exit code."""

    def exec_resize(self, exec_id: str, rows: int, columns: int) -> None: ...

    # Counters, files, changes

    def stats(self, ref: str, *, stream: bool = True, one_shot: bool = False) -> Iterator[Document]:
        """Documents as ``GET /containers/{id}/stats``, one a second while the container is there; with
        ``stream=False`` one, measured over a second; with ``one_shot`` too one at once, with no earlier sample."""

    def changes(self, ref: str) -> Sequence[Document]:
        """``[{"Path": "/etc/x", "Kind": 0}]``: against the image; 0 modified, 1 added, 2 deleted."""

    def export(self, ref: str) -> BinaryIO:
        """The container's whole file system as a tar, to be read and closed by the caller."""

    def archive_stat(self, ref: str, path: str) -> Document:
        """As the header ``X-Docker-Container-Path-Stat``: name, size, mode (Go's bits), mtime, linkTarget. The last
        part of ``path`` is not followed when it is a link, unless ``path`` ends in ``/`` or ``/.``. NotFound."""

    def archive_get(self, ref: str, path: str) -> tuple[BinaryIO, Document]:
        """A tar of the file or directory, to be read and closed by the caller, and what `archive_stat` says."""

    def archive_put(
        self,
        ref: str,
        path: str,
        source: BinaryIO,
        *,
        no_overwrite_dir_non_dir: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        """Unpack a (compressed) tar in the directory ``path``. Raises: NotFound, InvalidArgument when that is no
        directory, Forbidden when the root file system or the volume is read-only."""

    def commit(
        self,
        ref: str,
        *,
        repository: str = "",
        tag: str = "",
        message: str = "",
        author: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
        config: Config | None = None,
    ) -> str:
        """Make an image of the container; its id. ``config`` is laid over the container's own."""

    def update(self, ref: str, request: UpdateRequest) -> Sequence[str]:
        """Change limits and restart policy of a running or stopped container; warnings."""

    def prune(self, filters: Filters | None = None) -> Document:
        """Remove stopped containers: ``{"ContainersDeleted": […], "SpaceReclaimed": 0}``."""


class Images(Protocol):
    """References are names with tags or digests, image ids or unique prefixes. NotFound("No such image: …")."""

    def list(
        self,
        *,
        all: bool = False,
        filters: Filters | None = None,
        shared_size: bool = False,
        manifests: bool = False,
    ) -> Sequence[Document]:
        """Summaries as ``GET /images/json``; ``SharedSize`` and ``Manifests`` where they are asked for."""

    def inspect(self, ref: str) -> Document: ...
    def history(self, ref: str) -> Sequence[Document]: ...
    def tag(self, ref: str, target: str) -> None: ...
    def remove(self, ref: str, *, force: bool = False, prune: bool = True) -> Sequence[Document]:
        """``[{"Untagged": …}, {"Deleted": …}]``."""

    def import_(
        self,
        source: BinaryIO,
        *,
        reference: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        platform: str = "",
        progress: Progress | None = None,
    ) -> str:
        """Make an image of one layer from a (compressed) tar of a root file system; its id."""

    def pull(
        self,
        reference: str,
        *,
        tag: str = "",
        platform: str = "",
        all_tags: bool = False,
        credentials: Credentials | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Fetch an image from a registry (``NAME[:TAG|@DIGEST]``) or another source (``oci:dir:tag``,
        ``docker-archive:file``, ``debootstrap:bookworm``); its id.

        Args: tag: the name to give it, instead of its own. all_tags: everything the registry has of the repository;
            the id is the last one's. credentials: for the registry. progress: is told of each layer, and at the end
            the lines ``Digest: …`` and ``Status: …``.
        Raises: NotFound, Unauthorized, Unavailable; InvalidArgument; Forbidden when a plug-in refuses the image.
        """

    def save(self, refs: Sequence[str], *, platform: str = "") -> BinaryIO:
        """A tar with the images, in the layouts of both OCI and ``docker save``, to be read and closed by the
        caller."""

    def load(self, source: BinaryIO, *, platform: str = "", progress: Progress | None = None) -> Sequence[str]:
        """Take the images of a (compressed) tar made by `save`, ``docker save`` or as an OCI layout. Their names, or
        ids where they have none."""

    def push(
        self,
        reference: str,
        *,
        platform: str = "",
        credentials: Credentials | None = None,
        progress: Progress | None = None,
    ) -> Sequence[Document]:
        """Bring an image to the registry that its name says; without a tag, all that the repository has here.

        Returns: ``{"Tag": "1", "Digest": "sha256:…", "Size": 528}`` for each tag; the size is the manifest's.
        Raises: NotFound when there is no such image here; Unauthorized, Forbidden, Unavailable.
        """

    def search(
        self, term: str, *, limit: int = 0, filters: Filters | None = None, credentials: Credentials | None = None
    ) -> Sequence[Document]:
        """Look for ``[registry/]text`` in a registry: ``{"name", "description", "star_count", "is_official",
        "is_automated"}`` each. Filters: is-official, is-automated, stars. ``limit`` from 1 to 100, 0 for 25.

        Raises: InvalidArgument; NotImplemented when the registry offers no search.
        """

    def distribution(self, reference: str, *, credentials: Credentials | None = None) -> Document:
        """What a registry has under a name, as ``GET /distribution/{name}/json``: ``{"Descriptor", "Platforms"}``.

        Raises: NotFound, Unauthorized, Unavailable.
        """

    def prune(self, filters: Filters | None = None) -> Document:
        """Remove dangling images, with ``dangling=false`` all unused ones:
        ``{"ImagesDeleted": [{"Untagged": …}, {"Deleted": …}], "SpaceReclaimed": 0}``."""


class Volumes(Protocol):
    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: Mapping[str, str] = {},
        labels: Mapping[str, str] = {},
    ) -> Document: ...
    def list(self, filters: Filters | None = None) -> Sequence[Document]: ...
    def inspect(self, name: str) -> Document: ...
    def remove(self, name: str, *, force: bool = False) -> None: ...
    def prune(self, filters: Filters | None = None) -> Document:
        """Remove unused anonymous volumes, with ``all=true`` named ones too:
        ``{"VolumesDeleted": […], "SpaceReclaimed": 0}``."""


class Networks(Protocol):
    def list(self, filters: Filters | None = None) -> Sequence[Document]: ...
    def inspect(self, ref: str) -> Document: ...


class System(Protocol):
    def info(self) -> Document:
        """As ``GET /info``, with a ``Plugins`` part of dockp's own under ``DockpPlugins``."""

    def version(self) -> Document:
        """As ``GET /version``, with drivers and their versions among the components, and no API version while no API is
        served."""

    def events(
        self, *, since: int | None = None, until: int | None = None, filters: Filters | None = None
    ) -> Iterator[Document]:
        """Documents as ``GET /events``: first those that happened from ``since`` on, then new ones as they happen, up
        to ``until`` (both nanoseconds since the epoch; without ``until`` for ever). Its ``close``, which any thread may
        call, ends it."""

    def disk_usage(self, types: Sequence[str] = ()) -> Document:
        """As ``GET /system/df`` of API 1.50; ``types`` among container, image, volume, build-cache, or all."""

    def login(self, server: str, credentials: Credentials) -> Document:
        """Try credentials at a registry (``host[:port]``, or "" for Docker Hub), and keep nothing.

        Returns: ``{"Status": "Login Succeeded", "IdentityToken": ""}``; the token, where the registry gives one, is to
        be kept instead of the password. Raises: Unauthorized, Unavailable.
        """

    def plugins(self) -> Sequence[Document]:
        """One object a driver: Kind, Name, Summary, Distribution, Version, Supported, Reason, Features, Default."""

    def problems(self) -> Sequence[str]:
        """One line for each plug-in that cannot be used."""


class Engine(Protocol):
    """The whole engine. A context manager: leaving it closes what it opened, and stops no container."""

    @property
    def containers(self) -> Containers: ...
    @property
    def images(self) -> Images: ...
    @property
    def volumes(self) -> Volumes: ...
    @property
    def networks(self) -> Networks: ...
    @property
    def system(self) -> System: ...
    def close(self) -> None: ...
    def __enter__(self) -> Engine: ...
    def __exit__(self, *exc: object) -> None: ...
