"""The storage contract: layers and copy-on-write as snapshots.

The life of a snapshot
    ``create(id, parent)`` makes a *writable* snapshot that looks like its parent. ``mounts(id)`` says how to mount it.
    ``seal(id)`` makes it immutable, and only a sealed snapshot may be a parent. ``remove(id)`` frees it.

Words
    *id*: an opaque name, chosen by the core, unique for ever on one root, matching ``[A-Za-z0-9_.-]{1,64}``; safe as a
    directory name. *parent*: the id of a sealed snapshot, or ``None`` for an empty start. *root*: a directory that
    belongs to this driver alone.

Who does what
    The core keeps the graph: which ids exist, whose parent is whose, what each is for. It journals every intent,
    serialises verbs on one id and never removes a parent before its children. It compares its graph with
    ``inventory()`` after a boot, before images are pulled or imported, and when it collects: what a driver holds
    without a record is garbage and is removed; what is recorded but missing is reported. So a driver keeps no
    database, takes no locks and has no recovery code; every verb is idempotent: doing again what is already done
    succeeds. Verbs on different ids may run at the same time in many threads and processes.

An example, an image of two layers and one container::

    driver.create("1", None);  unpack layer 1 into driver.mounts("1");  driver.seal("1")
    driver.create("2", "1");   unpack layer 2 into driver.mounts("2");  driver.seal("2")
    driver.create("3", "2");   run the container on driver.mounts("3")
    driver.remove("3")

Errors: see `dockp.spi.errors`. ``OSError`` may be raised as it comes; the core turns it into one line.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from dockp.spi.errors import NotImplemented
from dockp.spi.values import ChangesDirectory, Mount, Probe, Usage


class StorageDriver(ABC):
    """One storage driver on one root.

    Since: SPI 1.
    """

    name: ClassVar[str]
    """What ``--storage-driver`` takes."""
    summary: ClassVar[str] = ""
    """One line for ``dockp plugin ls``."""
    rebases: bool = False
    """Whether `rebase` works, so that the layers of an image can be unpacked side by side. Since: SPI 1."""
    priority: ClassVar[int] = 0
    """Automatic choice takes the supported driver with the highest number; below 0 is never chosen unasked."""

    @classmethod
    @abstractmethod
    def probe(cls, root: Path, options: Mapping[str, str]) -> Probe:
        """Say whether this driver can work on ``root``.

        Called: by the core before the first use of a root and for ``dockp info``; any thread; no lock held. ``root``
        may not exist yet (then its nearest existing parent decides). Must leave nothing behind.
        Args: root: the driver's own directory. options: ``--storage-opt`` pairs meant for this driver.
        Returns: a `Probe`; when not supported its reason names what is missing.
        Raises: InvalidArgument for an unknown or malformed option.
        """

    @abstractmethod
    def __init__(self, root: Path, options: Mapping[str, str]) -> None:
        """Open ``root``, creating it with mode 0710 when absent, whatever the umask.

        Called: once an engine and driver, before any verb. Must be cheap (it is on the path of every ``dockp run``):
        no probing here.
        Raises: InvalidArgument for an unknown or malformed option.
        """

    @abstractmethod
    def create(self, id: str, parent: str | None, options: Mapping[str, str]) -> None:
        """Make a writable snapshot ``id`` that looks like ``parent``; empty, mode 0755, owned by root without one.

        Called: under the core's lock on ``id``; ``parent`` is sealed and stays for the length of the call.
        Args: options: of this snapshot alone, such as ``size`` (bytes, or with a suffix) where quota is a feature.
        Raises: NotFound when ``parent`` is absent; InvalidArgument for an option it does not know. An ``id`` that
            exists already is success.
        Crash: killed at any point, a second ``create`` succeeds and ``remove`` cleans up.
        """

    @abstractmethod
    def mounts(self, id: str, read_only: bool = False) -> Sequence[Mount]:
        """How to mount ``id``, in order, all on the same target. Mounts nothing itself.

        Called: often; any thread. A sealed snapshot is always mounted read-only.
        Raises: NotFound.
        """

    @abstractmethod
    def seal(self, id: str) -> None:
        """Make ``id`` immutable and fit to be a parent. Durable on return: a power cut later loses nothing of it.

        Called: when nothing has it mounted. Raises: NotFound. Sealing twice is success.
        """

    def seal_all(self, ids: Sequence[str]) -> None:
        """As `seal`, for several at once, parents first; worth doing where the disk has to be waited for but once.

        Since: SPI 1.
        """
        for id in ids:
            self.seal(id)

    @abstractmethod
    def remove(self, id: str) -> None:
        """Free ``id`` and everything in it. An absent ``id`` is success.

        Called: when the core knows no child of it. Raises: FailedPrecondition when something still uses it, naming it.
        Crash: a second call finishes.
        """

    @abstractmethod
    def usage(self, id: str) -> Usage:
        """Disk use of ``id`` alone, parents excluded. Raises: NotFound."""

    @abstractmethod
    def inventory(self) -> frozenset[str]:
        """Every id that exists under the root, half-made and half-removed ones included; what the core has no record of
        it removes. Called: after a boot, before a pull or an import, by the collector."""

    def changes(self, id: str) -> ChangesDirectory | None:
        """Where the changes of ``id`` lie as plain files, or None when the driver has no such place.

        With it the core unpacks layers straight into a directory and finds differences without walking two trees.
        Without it the core mounts ``id`` and its parent and compares.
        """
        return None

    def rebase(self, id: str, parent: str, inherit_root: bool) -> None:
        """Put what was made without a parent on top of one: from now on ``id`` looks as if created with it.

        Called: only where `rebases` is true; when ``id`` is complete, mounted nowhere, and about to be sealed. The
        directory of its `changes` was filled as one with whiteouts of the kind ``"overlay"``.
        Args: parent: complete, and sealed before ``id`` or together with it. inherit_root: the root directory is to
            have owner, mode, xattrs and times of the parent's.
        Raises: NotFound. Crash: a second call finishes. Doing it twice is success.
        """
        raise NotImplemented(f"storage driver {self.name} cannot put layers on top of each other afterwards")

    def set_quota(self, id: str, size: int) -> None:
        """Limit ``id`` to ``size`` bytes. Only called where ``"quota"`` is among the features."""
        raise NotImplemented(f"storage driver {self.name} has no quota")

    def status(self) -> Sequence[tuple[str, str]]:
        """Pairs for the ``Storage Driver`` part of ``dockp info``, in the order to print them."""
        return ()
