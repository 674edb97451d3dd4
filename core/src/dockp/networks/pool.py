"""Network namespaces made ahead: making one, and its loopback interface, takes a lock that all of the host's share.

They are descriptors of this process, so nothing of them outlives it.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from dockp.linux import namespaces, netns

_log = logging.getLogger(__name__)

_READY = 8
"""So many are kept."""

_REST = 0.025
"""Seconds that the processor is left to the container that has taken one, while others are ready."""


class SandboxPool:
    """Namespaces with the loopback interface up. Empty, and costing nothing, until `keep_filled`. Thread-safe."""

    def __init__(self) -> None:
        self._ready: list[int] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def take(self) -> int | None:
        """A descriptor of one, now the caller's; None when none is ready."""
        with self._changed:
            if not self._ready:
                return None
            self._changed.notify()
            return self._ready.pop()

    def take_or_make(self) -> int:
        """As `take`; a new one, its loopback interface still down, where none is ready. Raises OSError."""
        found = self.take()
        return netns.new() if found is None else found

    def keep_filled(self) -> None:
        """Make some in the background, and others for those that are taken, until `close`."""
        self._thread = threading.Thread(target=self._fill, name="sandboxes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Make no more, and let those go that are ready. Idempotent."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None:
            thread.join()
        while (left := self.take()) is not None:
            os.close(left)

    def _fill(self) -> None:
        # This thread's own namespace is the newest; it does nothing else, so it need not go back in between.
        while True:
            with self._changed:
                while self._thread is not None and len(self._ready) >= _READY:
                    self._changed.wait()
                if self._thread is None:
                    return
            if self._ready:
                time.sleep(_REST)
            try:
                namespaces.unshare(namespaces.CLONE_NEWNET)
                namespaces.loopback_up()
                made = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                _log.warning("network namespaces are not made ahead: %s", error)
                return
            with self._changed:
                self._ready.append(made)
