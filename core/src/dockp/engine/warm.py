"""What an engine that stays keeps ready, so that a container starts sooner: a zygote, and network sandboxes.

Nothing depends on it: without a zygote a launch executes an interpreter, and an empty pool makes a start wait for its
namespace. Everything kept here ends with this process, however that ends: the zygote sees its connection close, and
namespaces live as long as their descriptors.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from typing import TYPE_CHECKING

from dockp.spi.errors import DockpError

if TYPE_CHECKING:
    from dockp.containers.context import Context

_log = logging.getLogger(__name__)

_FIRST_REST, _LAST_REST = 0.1, 60.0
"""Seconds between attempts to start a zygote that keeps ending."""


class Warm:
    """See `dockp.engine.LocalEngine.keep_warm`. Gets ready in the background, and ends with `close`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._end, self._ended = os.pipe2(os.O_CLOEXEC)
        self._zygote: socket.socket | None = None
        self._thread = threading.Thread(target=self._watch, name="zygote", daemon=True)
        self._thread.start()
        context.networks.pool.keep_filled()

    def close(self) -> None:
        """Keep nothing ready any more. Idempotent."""
        if self._ended < 0:
            return
        self._context.networks.pool.close()
        os.close(self._ended)
        self._ended = -1
        self._thread.join()
        os.close(self._end)
        if self._zygote is not None:
            self._zygote.close()

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start_zygote(self) -> socket.socket | None:
        """The connection that keeps a new zygote alive, or None when it cannot be started now."""
        context = self._context
        try:
            runtime = context.exec_driver(context.default_exec()).runtime
            writer = context.log_driver(context.config.log_driver).writer
            return context.supervisor.start_zygote([place.partition(":")[0] for place in (runtime, writer)])
        except (DockpError, OSError) as error:
            _log.warning("containers start slower, without a zygote: %s", error)
            return None

    def _watch(self) -> None:
        """Start a zygote whenever there is none, with longer and longer rests while that does not help."""
        self._zygote = self._start_zygote()
        rest = _FIRST_REST
        while True:
            poll = select.poll()
            poll.register(self._end, select.POLLIN)
            if self._zygote is not None:
                poll.register(self._zygote, select.POLLIN)
            events = poll.poll(None if self._zygote is not None else rest * 1000)
            if any(descriptor == self._end for descriptor, _ in events):
                return
            if self._zygote is not None:
                self._zygote.close()
                self._zygote = None
                continue
            self._zygote = self._start_zygote()
            rest = min(rest * 2, _LAST_REST)
