"""The shim's process: from the launch to the loop."""

from __future__ import annotations

import _socket
import gc
import os
import sys

from dockp.linux import process
from dockp.shim import wire
from dockp.shim.control import Control
from dockp.shim.loop import Loop, catch
from dockp.shim.task import EXPECTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from dockp.shim.maker import Ahead

CONTROL, LOCK = 3, 4
"""The descriptors a shim starts with besides standard input, output and error: the launcher's socket, and the file
``<run>/containers/<id>/lock`` with its lock held. The lock came with the launch, so there is no moment at which a
launched shim does not hold it."""

# HUP, INT, QUIT, USR1, USR2, PIPE, ALRM, TERM, XFSZ: nothing but SIGKILL, or the container's end, ends a shim.
SURVIVED = (1, 2, 3, 10, 12, 13, 14, 15, 25)

LOADED_LATER = ("dockp.shim.copyup", "dockp.shim.health")
"""Modules that only some containers need; a zygote loads them for all."""

_SCORE = "-998"
"""Just above what the kernel never kills: losing a shim loses a container."""


class Newborn:
    """A shim's process before it knows its container. Descriptors from 5 on are closed.

    Attributes: oom_score_adj: what it inherited, and containers get. host: the mount namespace it was born in. ahead: a
    maker that waits as well, where there is one.
    """

    def __init__(self) -> None:
        process.close_from(LOCK + 1)
        os.chdir("/")
        os.umask(0o022)
        catch(*SURVIVED)
        process.set_child_subreaper()
        process.set_name("dockp-shim")
        self.oom_score_adj = _protect_from_oom_killer()
        self.host = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self.ahead: Ahead | None = None


def run(directory: str, newborn: Newborn | None = None) -> NoReturn:
    """Be the shim of the container whose run folder is ``directory``. Called in a process of one thread, whose parent
    is gone or about to go."""
    code = 1
    try:
        _serve(directory, newborn or Newborn())
        code = 0
    except BaseException:
        reporter(directory)()
    os._exit(code)


def _serve(directory: str, newborn: Newborn) -> None:
    for descriptor in (CONTROL, LOCK):
        os.set_inheritable(descriptor, False)
    config = wire.read_file(directory + "/shim.json")
    config["inherited_oom_score_adj"] = newborn.oom_score_adj
    report = reporter(directory)
    loop = Loop(report)
    control = Control(loop, directory, config, LOCK, newborn.host, report, newborn.ahead)
    control.listen()
    control.connect(_socket.socket(fileno=CONTROL), starter=True)
    try:
        control.task.prepare()
    except EXPECTED as failure:
        control.failure = failure
        control.task.refuse(str(failure))
    # What exists now lives as long as the shim: never walk over it again, which would also unshare its pages.
    gc.collect()
    gc.freeze()
    loop.run()
    control.task.stdio.close()
    loop.reap()


def _protect_from_oom_killer() -> int:
    """Lower the shim's score; returns what it was, which is what containers get."""
    descriptor = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    try:
        before = int(os.read(descriptor, 16))
        try:
            os.write(descriptor, _SCORE.encode())
        except OSError:
            pass  # lowering it takes CAP_SYS_RESOURCE
    finally:
        os.close(descriptor)
    return before


def reporter(directory: str) -> Callable[[], None]:
    """A function that appends the exception being handled to ``shim.log``."""

    def report() -> None:
        try:
            log = os.open(directory + "/shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.dup2(log, 2, inheritable=False)
            os.close(log)
            sys.__excepthook__(*sys.exc_info())
        except OSError:
            pass

    return report
