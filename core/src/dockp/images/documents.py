"""The documents an image is made of: manifest, index, config. OCI image-spec and Docker's schema 2.

They are read here, never rewritten: the bytes in the content store stay what was received. Everything in them is a
stranger's input: sizes, counts and types are checked before anything is fetched on their word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from dockp.spi.errors import InvalidArgument, NotFound
from dockp.spi.values import Descriptor, Platform
from dockp.store.content import hex_of

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"

NAME_ANNOTATION = "io.containerd.image.name"
"""On the descriptor that a source resolves: the whole name the image should get when the user gave none."""

DOCUMENT_LIMIT = 4 << 20
"""Bytes of a manifest or index that are read; the limit registries themselves keep."""
CONFIG_LIMIT = 16 << 20
LAYER_LIMIT = 512
"""Layers an image may have. The kernel's overlay takes 500."""

_KNOWN_LAYERS = (
    OCI_LAYER,
    OCI_LAYER + "+gzip",
    OCI_LAYER + "+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
)


@frozen(kw_only=True)
class Manifest:
    """One image for one platform: image-spec ``manifest.md``. ``layers`` base first."""

    media_type: str
    config: Descriptor
    layers: Sequence[Descriptor]
    annotations: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Index:
    """Manifests for several platforms: image-spec ``image-index.md``, Docker's manifest list."""

    media_type: str
    manifests: Sequence[Descriptor]
    annotations: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class ImageConfig:
    """The config: image-spec ``config.md``.

    Attributes:
        document: the whole JSON object.
        process: its ``config`` object, the defaults for containers (``Cmd``, ``Env`` ...).
        diff_ids: digests of the uncompressed layers, base first.
        created: RFC 3339 text as found, or "".
    """

    document: Mapping[str, Any]
    platform: Platform
    process: Mapping[str, Any]
    diff_ids: Sequence[str]
    history: Sequence[Mapping[str, Any]]
    created: str = ""
    author: str = ""

    @property
    def labels(self) -> Mapping[str, str]:
        return self.process.get("Labels") or {}


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The chain ID of each layer with those below it: image-spec ``config.md``, "Layer ChainID"."""
    import hashlib

    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(f"sha256:{hashlib.sha256(f'{chain[-1]} {diff_id}'.encode()).hexdigest()}" if chain else diff_id)
    return chain


def parse_manifest(data: bytes, media_type: str) -> Manifest | Index:
    """Read a manifest or index that was announced as ``media_type`` ("" when nobody said).

    Raises: InvalidArgument for anything that is no such document, contradicts itself, or asks for the absurd.
    """
    document = _object(data, "image manifest")
    stated = _text(document, "mediaType") or media_type
    refuse_schema_1(_SCHEMA_1 if document.get("schemaVersion") == 1 else stated)
    if media_type and stated != media_type:
        raise InvalidArgument(f"image manifest says it is {stated!r} but was announced as {media_type!r}")
    # A document that can be read both ways means different things to different readers (CVE-2021-41190).
    if "manifests" in document and ("layers" in document or "config" in document):
        raise InvalidArgument("image manifest is ambiguous: it has both 'manifests' and 'layers'")
    if not stated:
        stated = OCI_INDEX if "manifests" in document else OCI_MANIFEST
    if document.get("schemaVersion", 2) != 2:
        raise InvalidArgument(f"image manifest has schemaVersion {document['schemaVersion']!r}; only 2 is known")
    if stated in INDEX_TYPES:
        return Index(
            media_type=stated,
            manifests=tuple(parse_descriptor(entry) for entry in _list(document, "manifests")),
            annotations=_strings(document, "annotations"),
        )
    if stated not in MANIFEST_TYPES:
        raise InvalidArgument(f"media type {stated!r} is no image manifest")
    manifest = Manifest(
        media_type=stated,
        config=parse_descriptor(document.get("config")),
        layers=tuple(parse_descriptor(entry) for entry in _list(document, "layers")),
        annotations=_strings(document, "annotations"),
    )
    if manifest.config.media_type not in CONFIG_TYPES:
        raise InvalidArgument(
            f"this is not a container image but an artifact: its config has media type {manifest.config.media_type!r}"
        )
    if manifest.config.size > CONFIG_LIMIT:
        raise InvalidArgument(f"image config of {manifest.config.size} bytes is larger than the allowed {CONFIG_LIMIT}")
    if len(manifest.layers) > LAYER_LIMIT:
        raise InvalidArgument(f"image has {len(manifest.layers)} layers, more than the possible {LAYER_LIMIT}")
    for layer in manifest.layers:
        if layer.media_type not in _KNOWN_LAYERS:
            raise InvalidArgument(f"image layer {layer.digest} has the unknown media type {layer.media_type!r}")
    return manifest


def refuse_schema_1(media_type: str) -> None:
    """Raises: InvalidArgument for a manifest of Docker's first format, whose digests mean something else."""
    if media_type.startswith(_SCHEMA_1):
        raise InvalidArgument(
            "this image has a Docker schema 1 manifest, a format retired for its lack of security: "
            "ask its publisher for a newer build, or convert it with skopeo copy"
        )


def parse_config(data: bytes) -> ImageConfig:
    """Read an image config. Raises: InvalidArgument."""
    document = _object(data, "image config")
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type", "layers") != "layers":
        raise InvalidArgument("image config has no 'rootfs' of type 'layers'")
    diff_ids = _list(rootfs, "diff_ids") if rootfs.get("diff_ids") is not None else []
    if len(diff_ids) > LAYER_LIMIT:
        raise InvalidArgument(f"image has {len(diff_ids)} layers, more than the possible {LAYER_LIMIT}")
    for diff_id in diff_ids:
        hex_of(diff_id if isinstance(diff_id, str) else repr(diff_id))
    process = document.get("config") or {}
    history = document.get("history") or []
    if not isinstance(process, dict) or not isinstance(history, list) or not all(isinstance(h, dict) for h in history):
        raise InvalidArgument("image config is malformed: 'config' must be an object, 'history' a list of objects")
    _strings(process, "Labels")
    for key in ("Cmd", "Entrypoint", "Env", "OnBuild", "Shell"):
        value = process.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
            raise InvalidArgument(f"image config is malformed: {key!r} must be a list of strings")
    for key in ("User", "WorkingDir", "StopSignal"):
        _text(process, key)
    for key in ("ExposedPorts", "Volumes", "Healthcheck"):
        if not isinstance(process.get(key) or {}, dict):
            raise InvalidArgument(f"image config is malformed: {key!r} must be an object")
    return ImageConfig(
        document=document,
        platform=Platform(
            os=_text(document, "os") or "linux",
            architecture=_text(document, "architecture") or "amd64",
            variant=_text(document, "variant"),
        ),
        process=process,
        diff_ids=tuple(diff_ids),
        history=tuple(history),
        created=_text(document, "created"),
        author=_text(document, "author"),
    )


def check_match(manifest: Manifest, config: ImageConfig) -> None:
    """Refuse a manifest whose layers are not those of its config."""
    if len(manifest.layers) != len(config.diff_ids):
        raise InvalidArgument(
            f"image manifest has {len(manifest.layers)} layers, its config {len(config.diff_ids)}: they must be equal"
        )


def parse_descriptor(value: object) -> Descriptor:
    """Read one descriptor: image-spec ``descriptor.md``. Raises: InvalidArgument."""
    if not isinstance(value, dict):
        raise InvalidArgument("image manifest is malformed: a descriptor must be an object")
    size, digest = value.get("size"), value.get("digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0 or size >= 1 << 63:
        raise InvalidArgument(f"image manifest is malformed: {size!r} is no size in bytes")
    if not isinstance(digest, str):
        raise InvalidArgument(f"image manifest is malformed: {digest!r} is no digest")
    hex_of(digest)
    platform = value.get("platform")
    urls = _list(value, "urls") if value.get("urls") is not None else []
    if not all(isinstance(url, str) for url in urls):
        raise InvalidArgument("image manifest is malformed: 'urls' must be a list of strings")
    return Descriptor(
        media_type=_text(value, "mediaType"),
        digest=digest,
        size=size,
        platform=Platform(
            os=_text(platform, "os"), architecture=_text(platform, "architecture"), variant=_text(platform, "variant")
        )
        if isinstance(platform, dict)
        else None,
        annotations=_strings(value, "annotations"),
        urls=tuple(urls),
    )


def descriptor_json(descriptor: Descriptor) -> dict[str, Any]:
    """The descriptor as its JSON object."""
    document: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if descriptor.urls:
        document["urls"] = list(descriptor.urls)
    if descriptor.annotations:
        document["annotations"] = dict(descriptor.annotations)
    if descriptor.platform is not None:
        document["platform"] = platform_json(descriptor.platform)
    return document


def platform_json(platform: Platform) -> dict[str, str]:
    """The platform as its JSON object."""
    document = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        document["variant"] = platform.variant
    return document


def manifest_bytes(config: Descriptor, layers: Sequence[Descriptor], media_type: str = OCI_MANIFEST) -> bytes:
    """A new manifest, for an image made here."""
    return encode(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": descriptor_json(config),
            "layers": [descriptor_json(layer) for layer in layers],
        }
    )


def encode(document: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """JSON as it is stored: compact, UTF-8, the same bytes for the same document."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


# What may stand alone: Go's GOOS and GOARCH, as far as images come for them.
_SYSTEMS = ("aix", "darwin", "dragonfly", "freebsd", "illumos", "linux", "netbsd", "openbsd", "solaris", "windows")
_ARCHITECTURES = (
    *("386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle"),
    *("ppc64", "ppc64le", "riscv64", "s390x", "wasm"),
)


def parse_platform(text: str) -> Platform:
    """``os[/arch[/variant]]`` or ``arch`` as ``--platform`` takes it, normalised. Raises: InvalidArgument."""
    parts = text.strip().lower().split("/")
    if not all(part and all(c.isalnum() or c in "_-." for c in part) for part in parts) or len(parts) > 3:
        raise InvalidArgument(f"{text!r} is an invalid platform: expected os/architecture[/variant], as in linux/arm64")
    host = host_platform()
    if len(parts) == 1:
        if parts[0] in _SYSTEMS:
            return Platform(os=parts[0], architecture=host.architecture, variant=host.variant)
        if _normalise(parts[0], "")[0] not in _ARCHITECTURES:
            raise InvalidArgument(f'"{text}": unknown operating system or architecture: invalid argument')
        parts = [host.os, *parts]
    architecture, variant = _normalise(parts[1], parts[2] if len(parts) == 3 else "")
    return Platform(os=parts[0], architecture=architecture, variant=variant)


def host_platform() -> Platform:
    """What this machine runs."""
    import os

    architecture, variant = _normalise(os.uname().machine, "")
    return Platform(os="linux", architecture=architecture, variant=variant)


def select(index: Index, platform: Platform, name: str) -> Descriptor:
    """The entry of ``index`` for ``platform``: the nearest variant that it can run, then an older architecture's.

    Raises: NotFound in Docker's words.
    """
    best: tuple[int, Descriptor] | None = None
    for entry in index.manifests:
        if entry.media_type not in MANIFEST_TYPES | INDEX_TYPES:
            continue
        # An index of one image need not say what it is for.
        score = -1 if entry.platform is None else _nearness(entry.platform, platform)
        if score is not None and (best is None or score > best[0]):
            best = (score, entry)
    if best is None:
        raise NotFound(f"no matching manifest for {platform} in the manifest list entries of {name}")
    return best[1]


def runs_on(image: Platform, platform: Platform) -> bool:
    """Whether an image of the first platform is what was asked for with the second."""
    return _nearness(image, platform) is not None


_ALSO_RUNS: Mapping[str, tuple[str, int]] = {"amd64": ("386", 0), "arm64": ("arm", 8)}
"""Older architectures whose programs run as they are, up to a variant: containerd's platforms, "Only"."""
_SAME = 1000


def _nearness(image: Platform, platform: Platform) -> int | None:
    """How well an image of the first platform suits the second; None when it does not run there."""
    architecture, variant = _normalise(image.architecture, image.variant)
    rank = _rank(Platform(architecture=architecture, variant=variant))
    if image.os != platform.os:
        return None
    if architecture == platform.architecture:
        return _SAME + rank if rank <= _rank(platform) else None
    also, newest = _ALSO_RUNS.get(platform.architecture, ("", 0))
    return rank if architecture == also and rank <= newest else None


def _normalise(architecture: str, variant: str) -> tuple[str, str]:
    """One spelling for each architecture: containerd's platforms, "Normalization"."""
    architecture, variant = architecture.lower(), variant.lower()
    plain = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "i486": "386", "i586": "386"}
    plain |= {"i686": "386", "ppc64el": "ppc64le", "armhf": "arm", "armv7l": "arm", "armel": "arm", "armv6l": "arm"}
    if not variant:
        variant = {"armhf": "v7", "armv7l": "v7", "arm": "v7", "armel": "v6", "armv6l": "v6"}.get(architecture, "")
    elif variant.isdigit():
        variant = f"v{variant}"
    architecture = plain.get(architecture, architecture)
    if (architecture, variant) in {("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")}:
        variant = ""
    return architecture, variant


def _rank(platform: Platform) -> int:
    """Variants of one architecture in order; a machine runs those up to its own."""
    digits = platform.variant.removeprefix("v").partition(".")[0]
    if digits.isdigit():
        return int(digits)
    return {"amd64": 1, "arm64": 8}.get(platform.architecture, 0)


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{what} is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidArgument(f"{what} is not a JSON object")
    return document


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise InvalidArgument(f"image document is malformed: {key!r} must be a list")
    return value


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgument(f"image document is malformed: {key!r} must be a string")
    return value


def _strings(document: Mapping[str, Any], key: str) -> dict[str, str]:
    value = document.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidArgument(f"image document is malformed: {key!r} must be an object of strings")
    return value
