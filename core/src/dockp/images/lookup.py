"""Looking at what a source has without keeping any of it."""

from __future__ import annotations

import hashlib
from typing import Any

from dockp.images.documents import (
    CONFIG_LIMIT,
    DOCUMENT_LIMIT,
    Index,
    descriptor_json,
    host_platform,
    parse_config,
    parse_manifest,
    platform_json,
)
from dockp.spi.errors import InvalidArgument
from dockp.spi.images import ImageSource
from dockp.spi.values import Descriptor


def distribution(source: ImageSource, reference: str) -> dict[str, Any]:
    """See `dockp.interface.Images.distribution`. Raises: as the source; InvalidArgument for what is no image."""
    descriptor = source.resolve(reference, host_platform())
    found = parse_manifest(document(source, descriptor, DOCUMENT_LIMIT), descriptor.media_type)
    if isinstance(found, Index):
        platforms = [platform_json(entry.platform) for entry in found.manifests if entry.platform is not None]
    else:
        platforms = [platform_json(parse_config(document(source, found.config, CONFIG_LIMIT)).platform)]
    return {"Descriptor": descriptor_json(descriptor), "Platforms": platforms}


def document(source: ImageSource, descriptor: Descriptor, limit: int) -> bytes:
    """A manifest or config, verified. Raises: InvalidArgument for more than ``limit`` bytes, or other ones."""
    with source.fetch(descriptor) as stream:
        data = stream.read(min(descriptor.size, limit) + 1)
    if len(data) > limit:
        raise InvalidArgument(f"document {descriptor.digest} is larger than {limit} bytes")
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if digest != descriptor.digest:
        raise InvalidArgument(f"document {descriptor.digest} arrived with another digest: {digest}")
    return data
