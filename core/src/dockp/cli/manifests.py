"""Manifest lists in the making: Docker's ``manifests`` folder in the client's configuration directory, and registries.

``manifests/LIST/MANIFEST`` has one JSON object for each manifest of a list; the names are references with ``-`` for
colons and ``_`` for slashes. Docker's command line reads and writes the same files.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import field, frozen

from dockp.images.documents import (
    CONFIG_LIMIT,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    DOCUMENT_LIMIT,
    OCI_INDEX,
    OCI_MANIFEST,
    Index,
    Manifest,
    host_platform,
    parse_descriptor,
    parse_manifest,
)
from dockp.images.lookup import document
from dockp.images.reference import Reference, parse
from dockp.images.registry.source import RegistrySource
from dockp.spi.errors import InvalidArgument, NotFound
from dockp.spi.images import Credentials, RegistrySettings, SourceContext
from dockp.spi.values import Descriptor

_KINDS = {OCI_MANIFEST: "OCIManifest", DOCKER_MANIFEST: "SchemaV2Manifest"}
_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")


@frozen(kw_only=True)
class Entry:
    """One manifest of a list: Docker's ``ImageManifest``.

    Attributes:
        ref: the whole reference it was found under. raw: its bytes.
        platform: an OCI platform as JSON, with what was annotated.
    """

    ref: str
    media_type: str
    digest: str
    raw: bytes = field(repr=False)
    platform: Mapping[str, Any] = field(factory=dict)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.raw))

    @property
    def manifest(self) -> Manifest:
        """Raises: InvalidArgument."""
        found = parse_manifest(self.raw, self.media_type)
        if not isinstance(found, Manifest):
            raise InvalidArgument(f"{self.ref} is a manifest list")
        return found

    def document(self) -> dict[str, Any]:
        """As the files have it, and ``inspect --verbose`` shows it."""
        descriptor: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": len(self.raw)}
        if self.platform:
            descriptor["platform"] = dict(self.platform)
        shown = {"Ref": self.ref, "Descriptor": descriptor, "Raw": base64.b64encode(self.raw).decode()}
        return {**shown, _KINDS[self.media_type]: json.loads(self.raw)}


class ManifestStore:
    """The lists in one configuration directory."""

    def __init__(self, directory: str) -> None:
        self._root = os.path.join(directory, "manifests")

    def get(self, of: Reference, ref: Reference) -> Entry:
        """Raises: NotFound; InvalidArgument for a file that is none."""
        return self._read(os.path.join(self._folder(of), _file_name(ref)), ref)

    def entries(self, of: Reference) -> list[Entry]:
        """Raises: NotFound when there is no such list; InvalidArgument."""
        folder = self._folder(of)
        try:
            names = sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"No such manifest: {of}") from None
        return [self._read(os.path.join(folder, name), of) for name in names if not name.startswith(".")]

    def save(self, of: Reference, ref: Reference, entry: Entry) -> None:
        folder = self._folder(of)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, _file_name(ref))
        temporary = os.path.join(folder, f".{os.getpid()}")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(entry.document(), file, ensure_ascii=False, separators=(",", ":"))
        os.replace(temporary, path)

    def remove(self, of: Reference) -> None:
        """Raises: NotFound."""
        import shutil

        self.entries(of)
        shutil.rmtree(self._folder(of))

    def _folder(self, of: Reference) -> str:
        return os.path.join(self._root, _file_name(of))

    @staticmethod
    def _read(path: str, ref: Reference) -> Entry:
        try:
            with open(path, "rb") as file:
                found = json.loads(file.read())
            descriptor = found["Descriptor"]
            entry = Entry(
                ref=str(found["Ref"]),
                media_type=str(descriptor["mediaType"]),
                digest=parse_descriptor(descriptor).digest,
                raw=base64.b64decode(found["Raw"], validate=True),
                platform=dict(descriptor.get("platform") or {}),
            )
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"No such manifest: {ref}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument(f"invalid manifest file {path}: {error}") from None
        if entry.media_type not in _KINDS:
            raise InvalidArgument(f"invalid manifest file {path}: media type {entry.media_type!r} is no image manifest")
        return entry


@contextmanager
def registry(domain: str, credentials: Credentials, *, insecure: bool) -> Iterator[RegistrySource]:
    """A registry, asked from here, with what this user knows of it. ``insecure``: any certificate will do, or none."""
    settings = RegistrySettings(insecure=(domain,) if insecure else ())
    context = SourceContext(
        scratch="", progress=lambda what, done, total: None, credentials=credentials, registries=settings
    )
    source = RegistrySource(context)
    try:
        yield source
    finally:
        source.close()


def fetch(source: RegistrySource, ref: Reference) -> Entry | list[Entry]:
    """What a registry has under a reference: a manifest, or all of a list. Raises: NotFound in Docker's words."""
    try:
        root = source.resolve(str(ref), host_platform())
        raw = document(source, root, DOCUMENT_LIMIT)
        found = parse_manifest(raw, root.media_type)
        if isinstance(found, Manifest):
            return _entry(source, str(ref), root, raw, found, None)
        listed = json.loads(raw)["manifests"]
        return [
            _nested(source, f"{ref}@{one.digest}", one, given.get("platform"))
            for one, given in zip(found.manifests, listed, strict=True)
        ]
    except NotFound:
        raise NotFound(f"no such manifest: {ref}") from None


def _nested(source: RegistrySource, ref: str, descriptor: Descriptor, platform: Mapping[str, Any] | None) -> Entry:
    raw = document(source, descriptor, DOCUMENT_LIMIT)
    found = parse_manifest(raw, descriptor.media_type)
    if isinstance(found, Index):
        raise InvalidArgument(f"{ref} is a manifest list in a manifest list")
    return _entry(source, ref, descriptor, raw, found, platform)


def _entry(
    source: RegistrySource,
    ref: str,
    descriptor: Descriptor,
    raw: bytes,
    manifest: Manifest,
    platform: Mapping[str, Any] | None,
) -> Entry:
    if platform is None:
        config = json.loads(document(source, manifest.config, CONFIG_LIMIT))
        platform = {key: config[key] for key in _PLATFORM if config.get(key)}
    return Entry(ref=ref, media_type=manifest.media_type, digest=descriptor.digest, raw=raw, platform=dict(platform))


def list_bytes(target: Reference, entries: Sequence[Entry]) -> tuple[str, bytes]:
    """Media type and bytes of the list of ``entries``, to the last blank as Docker writes it, so that digests agree.

    Raises: InvalidArgument for a manifest of another registry.
    """
    manifests = []
    for entry in entries:
        domain = parse(entry.ref).domain
        if domain != target.domain:
            raise InvalidArgument(
                f"cannot use source images from a different registry than the target image: {domain} != {target.domain}"
            )
        platform = {key: entry.platform[key] for key in _PLATFORM if key in entry.platform}
        manifests.append(
            {
                "mediaType": entry.media_type,
                "size": len(entry.raw),
                "digest": entry.digest,
                "platform": {"architecture": "", "os": "", **platform},
            }
        )
    media_type = OCI_INDEX if entries and entries[0].media_type == OCI_MANIFEST else DOCKER_INDEX
    listed = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
    return media_type, json.dumps(listed, indent=3, ensure_ascii=False).encode()


def _file_name(ref: Reference) -> str:
    return str(ref).replace(":", "-").replace("/", "_")
