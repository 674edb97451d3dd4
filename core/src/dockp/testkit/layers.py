"""Archives as tests write them."""

from __future__ import annotations

import io
import tarfile
from typing import Any, BinaryIO

DIRECTORY = tarfile.DIRTYPE


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of `layer`."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    info.mode = fields.pop("mode", 0o755 if kind == tarfile.DIRTYPE else 0o644)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def layer(*entries: tuple[tarfile.TarInfo, bytes]) -> BinaryIO:
    """A tar of `entry` values, exactly as given."""
    out = io.BytesIO()
    for info, data in entries:
        out.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        out.write(data + bytes(-len(data) % 512))
    out.write(bytes(1024))
    out.seek(0)
    return out
