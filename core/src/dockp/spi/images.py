"""The image source contract: where images come from, and go to.

A source turns a reference into OCI documents and byte streams. It verifies nothing and stores nothing: the core checks
size and digest of every byte, keeps what it received unchanged, and decides what is fetched at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, ClassVar

from attrs import field, frozen

from dockp.spi.errors import NotImplemented
from dockp.spi.values import Descriptor, Platform


@frozen(kw_only=True)
class Credentials:
    """Who asks a registry; Docker's ``AuthConfig``. At most one of the three ways is filled in; none is anonymous.

    Attributes:
        username, password: for basic authentication, or to get tokens with.
        identity_token: an OAuth2 refresh token, exchanged for access tokens.
        registry_token: a bearer token, sent as it is.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@frozen(kw_only=True)
class RegistrySettings:
    """What the engine's configuration says of registries.

    Attributes:
        mirrors: base URLs to try before the registry itself, by the registry's name (``docker.io``).
        insecure: names, ``name:port`` and networks (``10.0.0.0/8``) of registries whose certificate is not checked and
            which may be without TLS. Loopback always is.
        certificates: directories with a folder for each ``host[:port]``, as Docker's ``certs.d``.
        stall_timeout: seconds without a byte after which a connection is given up.
        attempts: times that a blob's connection may break with little between, before the blob is given up.
        proxies: ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` in place of the environment's.
    """

    mirrors: Mapping[str, Sequence[str]] = field(factory=dict)
    insecure: Sequence[str] = ()
    certificates: Sequence[str] = ("/etc/dockp/certs.d", "/etc/docker/certs.d")
    stall_timeout: float = 30.0
    attempts: int = 5
    proxies: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class SourceContext:
    """What a source may use while it works.

    Attributes:
        scratch: an empty directory, removed by the core afterwards.
        progress: called with (what, done, total or None) as work goes on; any thread.
        options: ``name=value`` pairs for this source.
        credentials: of the caller, for the registry that the reference names; never for another host.
        registries: for sources that speak to registries.
    """

    scratch: str
    progress: Callable[[str, int, int | None], None]
    options: Mapping[str, str] = field(factory=dict)
    credentials: Credentials = field(factory=Credentials)
    registries: RegistrySettings = field(factory=RegistrySettings)


class ImageTarget(ABC):
    """One repository that an image is pushed to. Several threads may store blobs at once; the manifest comes last."""

    @abstractmethod
    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob or manifest is there already."""

    @abstractmethod
    def put(
        self,
        descriptor: Descriptor,
        read: Callable[[int], BinaryIO],
        *,
        mounts: Sequence[str] = (),
        progress: Callable[[int], None] = lambda done: None,
    ) -> str:
        """Store a blob.

        Args: read: opens its bytes from an offset on; called again when an upload has to go on or begin anew.
            mounts: whole names of repositories (``docker.io/library/debian``) that may have it, best first; those on
            other hosts are passed over. progress: told how many bytes are stored.
        Returns: the name of ``mounts`` that it was taken from, "" when the bytes were sent.
        Raises: Unauthorized, Unavailable.
        """

    @abstractmethod
    def put_manifest(self, descriptor: Descriptor, data: bytes, tag: str = "") -> None:
        """Store a manifest or index, under ``tag`` or else by its digest alone. Raises: as `put`; InvalidArgument."""


class ImageSource(ABC):
    """One scheme of image references, such as ``oci:`` or ``docker://``.

    Since: SPI 1.
    """

    scheme: ClassVar[str]
    """The word before the colon."""
    summary: ClassVar[str] = ""

    @abstractmethod
    def __init__(self, context: SourceContext) -> None:
        """Called once for each pull or push."""

    @abstractmethod
    def resolve(self, reference: str, platform: Platform) -> Descriptor:
        """The manifest, or the index of several platforms, that ``reference`` (without the scheme) means.

        Of an index the core fetches, through `fetch`, what is for ``platform``. A source that makes images may do the
        whole work here. Raises: NotFound, InvalidArgument, Unauthorized, Unavailable.
        """

    @abstractmethod
    def fetch(self, descriptor: Descriptor, offset: int = 0) -> BinaryIO:
        """The bytes of a manifest, config or layer, from ``offset`` on; the caller closes it.

        Several threads may call it, and read, at once. A read raises Unavailable when the bytes stop coming for good:
        what was read until then is sound and can be gone on from. Raises: NotFound, Unauthorized, Unavailable.
        """

    def tags(self, reference: str) -> Sequence[str]:
        """All tags of the repository that ``reference`` names. Raises: as `resolve`."""
        raise NotImplemented(f"tags cannot be listed of {self.scheme}:")

    def referrers(self, descriptor: Descriptor, artifact_type: str = "") -> Sequence[Descriptor]:
        """What refers to a manifest (signatures, bills of materials): distribution-spec "Listing Referrers".

        Called after `resolve`. ``artifact_type``: only those of it. Raises: as `fetch`.
        """
        return ()

    def target(self, reference: str) -> ImageTarget:
        """The repository that ``reference`` names, to push to. Raises: InvalidArgument."""
        raise NotImplemented(f"images cannot be pushed to {self.scheme}:")

    def close(self) -> None:
        """Called once at the end, also after an error. Reads that go on in other threads may end with Unavailable."""
        return
