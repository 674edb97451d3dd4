"""One run of the command line: its global flags, its engine, and the one place where errors become text and codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dockp.cli.command import Command
    from dockp.cli.flags import Values
    from dockp.interface import Engine

    EngineOpener = Callable[[Mapping[str, object]], Engine]


class Failure(Exception):
    """A command ends with ``code``; ``text`` (when there is any) goes to standard error as it is."""

    def __init__(self, text: str = "", code: int = 1) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class App:
    """What a command gets besides its arguments.

    Attributes:
        flags: the global flags that were given, named as in `dockp.config.Config`, and those of `dockp.cli.hosts`.
        debug: show tracebacks.
    """

    def __init__(self, open_engine: EngineOpener | None = None) -> None:
        self.flags: dict[str, object] = {}
        self.debug = False
        self._open = open_engine or _open_chosen_engine
        self._engine: Engine | None = None

    def configure(self, parameters: Mapping[str, object]) -> None:
        """Take over the global flags that were given."""
        given = {name: value for name, value in parameters.items() if value not in (None, (), [], False)}
        given.pop("version", None)
        self.flags = given
        self.debug = "debug" in given

    @property
    def engine(self) -> Engine:
        """The engine, opened when first used and closed by `close`."""
        if self._engine is None:
            self._engine = self._open(self.flags)
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None


def _open_chosen_engine(flags: Mapping[str, object]) -> Engine:
    from dockp.cli.hosts import open_engine

    return open_engine(flags)


def open_local_engine(flags: Mapping[str, object]) -> Engine:
    """The engine in this process, configured by file, environment and ``flags``. Raises: any DockpError."""
    from dockp.config import Config
    from dockp.engine import open_engine

    config = Config.load(flags, os.environ)
    if config.debug or config.origin("log_level") != "default":
        import logging

        level = "debug" if config.debug else config.log_level
        logging.basicConfig(
            level={"warn": "WARNING", "fatal": "CRITICAL"}.get(level, level.upper()),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
    return open_engine(config)


def warn(text: str) -> None:
    print(text, file=sys.stderr)


def error_text(error: Exception) -> str:
    """How an engine's error is shown, without the command's name."""
    return f"Error: {error}"


def each(
    names: Sequence[str],
    act: Callable[[str], object],
    *,
    parallel: bool = False,
    forgive: tuple[type[Exception], ...] = (),
) -> int:
    """Call ``act`` for each name; print the names that went well, then the errors; the exit code.

    One failure does not stop the rest. With ``parallel`` they go on at the same time, since stopping may take a while.
    Errors of the classes ``forgive`` are printed, and are no failure.
    """
    from dockp.spi.errors import DockpError

    def attempt(name: str) -> DockpError | None:
        try:
            act(name)
        except DockpError as error:
            return error
        return None

    outcomes: Iterable[DockpError | None] = map(attempt, names)
    if parallel and len(names) > 1:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(len(names), 50)) as pool:
            outcomes = list(pool.map(attempt, names))
    failed = []
    for name, error in zip(names, outcomes, strict=True):
        if error is None:
            print(name, flush=True)
        else:
            failed.append(error)
    for error in failed:
        warn(error_text(error))
    return 1 if any(not isinstance(error, forgive) for error in failed) else 0


def run(arguments: Sequence[str], open_engine: EngineOpener | None = None) -> int:
    """Run one command line and return its exit code. Prints every error; raises nothing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # Names and paths are bytes to the kernel: what came in undecodable goes out unchanged.
            stream.reconfigure(errors="surrogateescape")
    app = App(open_engine)
    try:
        try:
            return _dispatch(app, arguments)
        finally:
            app.close()
    except Failure as failure:
        if failure.text:
            _say(failure.text)
        return failure.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return _unexpected(app, error)


def _dispatch(app: App, arguments: Sequence[str]) -> int:
    found = None if "_DOCKP_COMPLETE" in os.environ else _in_order(arguments)
    if found is None:
        # Help, completion and whatever is wrong: click's work.
        from dockp.cli.clicked import run as run_by_click

        return run_by_click(app, arguments)
    command, flags, values = found
    app.configure(flags)
    return command.action(app, values) or 0


def _in_order(arguments: Sequence[str]) -> tuple[Command, dict[str, object], Values] | None:
    """The command, the global flags and the command's values, when there is nothing to explain."""
    from dockp.cli.flags import UsageError, parse
    from dockp.cli.tree import GLOBAL_FLAGS, ROOT

    try:
        outer = parse(GLOBAL_FLAGS, arguments, interspersed=False)
        found = ROOT.find(outer.args)
        if found is None or outer.given & {"help", "version"}:
            return None
        command, rest = found
        values = parse(command.flags, rest, interspersed=command.interspersed)
    except UsageError:
        return None
    if "help" in values.given or not command.takes(len(values.args)):
        return None
    flags = {name.replace("-", "_"): outer[name] for name in outer.given}
    return command, flags, values


def _say(text: str) -> None:
    sys.stdout.flush()
    warn(text)


def _unexpected(app: App, error: Exception) -> int:
    """Print an error that no command handled: an engine's refusal, or a bug."""
    from dockp.spi.errors import DockpError

    if app.debug:
        import traceback

        _say("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, DockpError):
        _say(error_text(error))
        return 1
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        _say(f"Error: {error.strerror or error}{where}")
        return 1
    _say(f"Error: internal error: {type(error).__name__}: {error} (run with --debug for the traceback)")
    return 1
