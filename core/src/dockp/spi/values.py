"""Value types that cross the seams between the core and drivers."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen


@frozen(kw_only=True)
class Mount:
    """A serialized mount call, not a mounted directory. Source: mount(2), fsopen(2).

    Attributes:
        type: ``"bind"``, ``"overlay"``, or a file system type with a device as source (``"xfs"``, ``"ext4"``).
        source: the path or device; for overlay a label only.
        options: mount(8) words: ``"ro"``, ``"rbind"``, ``"nodev"``; for overlay also ``upperdir=``, ``workdir=`` and
            one ``lowerdir+=`` for each lower directory, nearest first, as it is, without escapes. The core splits
            flags from data, and hands lower directories to ``fsconfig`` one by one so that 128 layers mount.
    """

    type: str
    source: str
    options: tuple[str, ...] = ()


@frozen(kw_only=True)
class Usage:
    """Disk use of one snapshot without its parents: ``size`` in bytes, ``inodes`` as a count."""

    size: int
    inodes: int


@frozen(kw_only=True)
class Probe:
    """A driver's answer to "can you work here?".

    Attributes:
        supported: True when every verb of the contract will work on this host with these options.
        reason: when not supported, what is missing and what to do, in one line.
        features: names of optional powers that work here (``"quota"``, ``"native-diff"``, ``"idmap"`` ...).
        details: facts for ``dockp info``, in the order to print them.
    """

    supported: bool
    reason: str = ""
    features: frozenset[str] = frozenset()
    details: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class ChangesDirectory:
    """A directory that holds exactly what one snapshot changed against its parent.

    Attributes:
        path: the directory; valid until the snapshot is removed.
        whiteouts: how deletions are written there. ``"overlay"``: character device 0:0, and opaque directories by
            the xattr ``trusted.overlay.opaque=y`` (kernel doc filesystems/overlayfs). ``"none"``: deletions cannot
            appear (a snapshot without parent).
    """

    path: str
    whiteouts: str


@frozen(kw_only=True)
class Platform:
    """An image platform, OCI image-spec ``image-index.md`` (``platform``)."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@frozen(kw_only=True)
class Descriptor:
    """A reference to content, OCI image-spec ``descriptor.md``: media type, ``sha256:…`` digest, size in bytes.

    ``urls``: where else the bytes can be had, as foreign layers have it.
    """

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(factory=dict)
    urls: tuple[str, ...] = ()
