"""From ``-v``, ``--mount``, ``--tmpfs``, ``--volumes-from`` and an image's volumes to the mounts of one container."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from dockp.containers.model import CreateRequest, MountPoint
from dockp.containers.record import Container, MountRecord
from dockp.spi.errors import InvalidArgument, NotFound
from dockp.spi.values import Mount
from dockp.volumes.service import Volume, VolumeService

_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_BIND_WORDS = {"ro", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated", "bind", "rbind"}


@frozen(kw_only=True)
class Staged:
    """``mounts`` as the container binds them, and ``rows``: what the shim mounts before (`dockp.shim.volumes`)."""

    mounts: Sequence[MountRecord]
    rows: Sequence[Mapping[str, Any]]


def resolve(
    request: CreateRequest,
    container_id: str,
    volumes: VolumeService,
    find: Callable[[str], Container],
) -> tuple[MountRecord, ...]:
    """All mounts of a new container, at most one a target; volumes are made and marked as used by it.

    Precedence is Docker's: what the container names itself, then ``--volumes-from``, then the image's volumes.
    Raises: InvalidArgument, NotFound, with Docker's words.
    """
    chosen: dict[str, MountRecord] = {}
    for record in _named(request, container_id, volumes):
        if record.target in chosen:
            raise InvalidArgument(f"Duplicate mount point: {record.target}")
        chosen[record.target] = record
    for record in _from_others(request.host.volumes_from, container_id, volumes, find):
        chosen.setdefault(record.target, record)
    for target in request.config.volumes:
        path = _target(target)
        if path not in chosen:
            volume = volumes.ensure(driver=request.host.volume_driver, user=container_id)
            chosen[path] = _of_volume(volume, volumes, target=path, options=("rbind",), copy_up=True)
    # Parents before what lies inside them, whatever order they were given in.
    return tuple(sorted(chosen.values(), key=lambda record: record.target.count("/") if record.target != "/" else 0))


def _named(request: CreateRequest, container_id: str, volumes: VolumeService) -> Iterable[MountRecord]:
    for text in request.host.binds:
        yield _bind(text, request.host.volume_driver, container_id, volumes)
    for mount in request.host.mounts:
        yield _mount(mount, container_id, volumes)
    for target, words in request.host.tmpfs.items():
        yield MountRecord(
            type="tmpfs", target=_target(target), mode=words, options=_tmpfs_options(words.split(",") if words else [])
        )


def _target(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{path}' mount path must be absolute")
    clean = posixpath.normpath(path).replace("//", "/")
    if clean == "/":
        raise InvalidArgument("invalid specification: destination can't be '/'")
    return clean


def _bind(text: str, volume_driver: str, container_id: str, volumes: VolumeService) -> MountRecord:
    """``[source:]target[:words]``, the argument of ``-v``."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts) or len(parts) < 2:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    source = parts[0]
    kind = "bind" if source.startswith("/") else "volume"
    try:
        target = _target(parts[1])
    except InvalidArgument as error:
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": {error}"
        ) from None
    words = parts[2].split(",") if len(parts) == 3 else []
    for word in words:
        if word not in _BIND_WORDS and word not in _PROPAGATIONS:
            raise InvalidArgument(f"invalid mode: {parts[2]}")
    if {"ro", "rw"} <= set(words):
        raise InvalidArgument(f"invalid mode: {parts[2]}")
    writable = "ro" not in words
    mode = ",".join(words)
    if kind == "bind":
        propagation = next((word for word in words if word in _PROPAGATIONS), "rprivate")
        source = posixpath.normpath(source)
        try:
            os.makedirs(source, exist_ok=True)  # -v, unlike --mount, makes what is missing
        except FileExistsError:
            pass
        except OSError as error:
            raise InvalidArgument(
                f"error while creating mount source path '{source}': mkdir {source}: {(error.strerror or '').lower()}"
            ) from error
        return MountRecord(
            type="bind",
            source=source,
            target=target,
            mode=mode,
            read_write=writable,
            propagation=propagation,
            options=_options(writable, propagation, recursive="bind" not in words),
        )
    if any(word in _PROPAGATIONS for word in words):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type \"volume\": "
            "field BindOptions must not be specified"
        )
    volume = volumes.ensure(source, driver=volume_driver, user=container_id)
    return _of_volume(
        volume,
        volumes,
        target=target,
        mode=mode or "z",
        read_write=writable,
        options=_options(writable, "", recursive=True),
        copy_up="nocopy" not in words,
    )


def _of_volume(volume: Volume, volumes: VolumeService, **fields: Any) -> MountRecord:
    """The record of a volume's mount. Raises: NotFound when the driver lost it."""
    directory = volumes.source(volume)
    return MountRecord(
        type="volume",
        name=volume.name,
        driver=volume.driver,
        source=directory or volumes.mountpoint(volume),
        staged=not directory,
        anonymous=volume.anonymous,
        **fields,
    )


def _options(writable: bool, propagation: str, *, recursive: bool) -> tuple[str, ...]:
    words = ["rbind" if recursive else "bind"]
    if not writable:
        words.append("rro" if recursive else "ro")
    if propagation:
        words.append(propagation)
    return tuple(words)


def _mount(mount: MountPoint, container_id: str, volumes: VolumeService) -> MountRecord:
    """One ``--mount``."""

    def wrong(why: str) -> InvalidArgument:
        return InvalidArgument(f'invalid mount config for type "{mount.type}": {why}')

    if not mount.target:
        raise wrong("field Target must not be empty")
    if mount.type not in ("bind", "volume", "tmpfs"):
        raise wrong("mount type unknown")
    try:
        target = _target(mount.target)
    except InvalidArgument as error:
        raise wrong(str(error)) from None
    writable = not mount.read_only
    if mount.type == "bind":
        if not mount.source:
            raise wrong("field Source must not be empty")
        if not mount.source.startswith("/"):
            raise wrong(f"invalid mount path: '{mount.source}' mount path must be absolute")
        if mount.volume_options is not None or mount.tmpfs_options is not None:
            raise wrong("field VolumeOptions must not be specified")
        options = mount.bind_options
        if not os.path.lexists(mount.source):
            if options is None or not options.create_mountpoint:
                raise wrong(f"bind source path does not exist: {mount.source}")
            os.makedirs(mount.source, exist_ok=True)
        propagation = (options.propagation if options else "") or "rprivate"
        if propagation not in _PROPAGATIONS:
            raise wrong(f"invalid propagation mode: {propagation}")
        recursive = not (options is not None and options.non_recursive)
        words = _options(writable, propagation, recursive=recursive)
        if options is not None and options.read_only_non_recursive:
            words = tuple("ro" if word == "rro" else word for word in words)
        return MountRecord(
            type="bind",
            source=posixpath.normpath(mount.source),
            target=target,
            read_write=writable,
            propagation=propagation,
            options=words,
        )
    if mount.bind_options is not None:
        raise wrong("field BindOptions must not be specified")
    if mount.type == "volume":
        settings = mount.volume_options
        driver = settings.driver_config if settings is not None else None
        if not writable and not mount.source:
            raise wrong("must not set ReadOnly mode when using anonymous volumes")
        volume = volumes.ensure(
            mount.source,
            driver=driver.name if driver else "",
            options=driver.options if driver else {},
            labels=settings.labels if settings else {},
            user=container_id,
        )
        subpath = posixpath.normpath(settings.subpath) if settings and settings.subpath else ""
        if subpath.startswith(("/", "../")) or subpath == "..":
            raise wrong("subpath must be a relative path within the volume")
        return _of_volume(
            volume,
            volumes,
            target=target,
            mode="z",
            read_write=writable,
            options=_options(writable, "", recursive=True),
            copy_up=not (settings is not None and settings.no_copy) and not subpath,
            subpath="" if subpath == "." else subpath,
        )
    if mount.source:
        raise wrong("field Source must not be specified")
    tmpfs = mount.tmpfs_options
    extra = []
    if tmpfs is not None and tmpfs.size_bytes:
        extra.append(f"size={tmpfs.size_bytes}")
    if tmpfs is not None and tmpfs.mode:
        extra.append(f"mode={tmpfs.mode:o}")
    if not writable:
        extra.append("ro")
    return MountRecord(type="tmpfs", target=target, read_write=writable, options=_tmpfs_options(extra))


def _tmpfs_options(words: list[str]) -> tuple[str, ...]:
    known = {"ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "sync", "noatime", "size", "mode", "uid"}
    known |= {"gid", "nr_inodes", "nr_blocks", "async", "atime", "diratime", "nodiratime", "relatime", "defaults"}
    for word in words:
        if word.partition("=")[0] not in known:
            raise InvalidArgument(f'invalid tmpfs option ["{word}"]')
    given = [word for word in words if word != "defaults"]
    defaults = [
        word for word, other in (("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")) if other not in given
    ]
    return tuple(dict.fromkeys([*defaults, *given]))


def _from_others(
    specs: Iterable[str], container_id: str, volumes: VolumeService, find: Callable[[str], Container]
) -> Iterable[MountRecord]:
    for spec in specs:
        ref, _, mode = spec.partition(":")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise InvalidArgument(f"invalid mode: {mode}")
        try:
            other = find(ref)
        except NotFound as error:
            # As Docker: "not found" at a creation is about the image, which clients pull then.
            raise InvalidArgument(str(error)) from None
        for record in other.mounts:
            if record.type == "tmpfs":
                continue
            if record.type == "volume":
                volumes.ensure(record.name, user=container_id)
            writable = record.read_write and mode != "ro"
            yield evolve(
                record,
                mode="",
                read_write=writable,
                options=_options(writable, record.propagation, recursive=record.options[0] == "rbind"),
                copy_up=False,  # done when the other was made, or not wanted there
            )


def check_propagation(records: Sequence[MountRecord]) -> None:
    """Raises InvalidArgument, with Docker's words, where mounts are to travel and the host's mount lets none. Source:
    mount_namespaces(7), "Propagation type transitions"."""
    for record in records:
        if record.type != "bind" or record.propagation not in _TRAVELLING:
            continue
        point, peers = _mount_of(os.path.realpath(record.source))
        shared, slave = "shared:" in peers, "master:" in peers
        if not (shared or (slave and record.propagation.endswith("slave"))):
            kind = "shared or slave" if record.propagation.endswith("slave") else "shared"
            raise InvalidArgument(f"path {record.source} is mounted on {point} but it is not a {kind} mount")


_TRAVELLING = frozenset({"shared", "rshared", "slave", "rslave"})


def _mount_of(path: str) -> tuple[str, str]:
    """The mount point that ``path`` is below, and its peer groups. Source: proc_pid_mountinfo(5)."""
    found, peers = "/", ""
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.partition(" - ")[0].split()
            point = fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
            if len(point) >= len(found) and f"{path}/".startswith(f"{point.rstrip('/')}/"):
                found, peers = point, " ".join(fields[6:])
    return found, peers


def staged(records: Sequence[MountRecord], place: str, volumes: VolumeService) -> Staged:
    """What the shim has to mount under the directory ``place`` before the container can bind it: volumes that are no
    directories of the host, and parts of volumes, which a path would name unsafely while others write there.

    Raises: NotFound when a driver lost its volume, and what it raises.
    """
    mounts, rows = [], []
    for number, record in enumerate(records):
        if record.staged or record.subpath:
            layers = (
                volumes.mounts(record.name)
                if record.staged
                else [Mount(type="bind", source=record.source, options=("rbind",))]
            )
            path = f"{place}/{number}"
            rows.append(
                {
                    "path": path,
                    "shown": record.source,
                    "subpath": record.subpath,
                    "mounts": [[layer.type, layer.source, list(layer.options)] for layer in layers],
                }
            )
            record = evolve(record, source=f"{path}/part" if record.subpath else f"{path}/whole")
        mounts.append(record)
    return Staged(mounts=tuple(mounts), rows=tuple(rows))
