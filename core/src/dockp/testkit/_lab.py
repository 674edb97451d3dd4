"""What a storage check works with: one driver on one root, and mounts nobody else sees."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dockp.spi.storage import StorageDriver
from dockp.spi.values import Mount
from dockp.testkit._mounts import mounted

OpenDriver = Callable[[Path], StorageDriver]


class StorageLab:
    """A driver under test.

    Attributes:
        root: the driver's own directory; made by the driver, not by the lab.
        scratch: an empty directory beside it, on the same file system.
        driver: the driver, opened on ``root``.
        shrink: whether property checks look for the smallest failing case, which takes many more runs.
    """

    shrink = True

    def __init__(self, open_driver: OpenDriver, base: Path) -> None:
        self._open = open_driver
        self.root = base / "root"
        self.scratch = base / "scratch"
        self.scratch.mkdir(parents=True)
        self.driver = open_driver(self.root)
        self._targets = 0

    def open(self, root: Path | None = None) -> StorageDriver:
        """One more driver object, as another process of the engine would have it."""
        return self._open(root or self.root)

    @contextmanager
    def mounted(self, id: str, read_only: bool = False) -> Iterator[str]:
        """The path of a directory on which ``id`` is mounted during the block."""
        with self.mount(self.driver.mounts(id, read_only)) as path:
            yield path

    @contextmanager
    def mount(self, mounts: Sequence[Mount]) -> Iterator[str]:
        """The path of a directory on which ``mounts`` are mounted during the block."""
        self._targets += 1
        target = self.scratch / f"mounted.{self._targets}"
        try:
            with mounted(mounts, str(target)) as path:
                yield path
        finally:
            if target.is_dir():
                target.rmdir()

    def layer(self, id: str, parent: str | None = None, edit: Callable[[str], object] | None = None) -> str:
        """Create ``id``, change it by ``edit(path)`` while it is mounted, seal it. Returns ``id``."""
        self.snapshot(id, parent, edit)
        self.driver.seal(id)
        return id

    def snapshot(self, id: str, parent: str | None = None, edit: Callable[[str], object] | None = None) -> str:
        """Like `layer`, but leaves ``id`` writable."""
        self.driver.create(id, parent, {})
        if edit is not None:
            with self.mounted(id) as path:
                edit(path)
        return id

    def killed_at_each_step(self, work: Callable[[StorageDriver], object], most: int = 80) -> Iterator[int]:
        """Run ``work(driver)`` in child processes, each killed by SIGKILL one step later than the one before.

        Yields the number of steps after each kill; ends when a child got through (or after ``most`` kills). A step is
        an audit event (file opened, renamed, removed ...: Python documentation, "Audit events table"), so the kills
        fall at the same points in every run. What a driver's helper programs do is one step.
        """
        for step in range(1, most + 1):
            if _killed_at(step, lambda: work(self.open())):
                yield step
            else:
                return


def _killed_at(step: int, work: Callable[[], object]) -> bool:
    """Whether a child that runs ``work`` was killed at its ``step``-th audit event, and not done before."""
    pid = os.fork()
    if pid == 0:
        left = step

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event.startswith(("os.", "open", "fcntl.", "shutil.", "subprocess.", "ctypes.")):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            sys.addaudithook(count)
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the driver failed in a child process"
    return False
