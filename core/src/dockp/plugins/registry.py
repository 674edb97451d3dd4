"""What the engine asks about plug-ins: which drivers there are, their classes, and the moments."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import sys
import time
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from dockp.plugins import cache
from dockp.plugins.model import KINDS, DriverInfo, Findings, MomentInfo, Problem
from dockp.spi.errors import DockpError, InvalidArgument, SystemFault, Unavailable

if TYPE_CHECKING:
    import pluggy

    from dockp.config import Config

DISCOVERY_DEADLINE = 10.0
"""Seconds in which a plug-in must be imported and have answered its providers."""
MOMENT_DEADLINE = 30.0
"""Seconds for one plug-in's part in one moment."""
LOAD_DEADLINE = 30.0
"""Seconds for importing the class of a driver that is not dockp's own."""
RETRY_AFTER = 60.0
"""Seconds until a plug-in that hung or crashed in discovery is tried again; doubled each time, up to about an hour."""

DECIDING = ("dockp_image_verify", "dockp_container_spec")
"""Moments that may refuse. One of them that fails refuses too: a broken verifier must not let everything through."""

log = logging.getLogger(__name__)
trace = logging.getLogger("dockp.hooks")


class PluginRegistry:
    """The plug-ins of one engine. Thread-safe; there is no global one."""

    def __init__(self, findings: Findings) -> None:
        """``findings``: what discovery found; use `open` for that of this machine."""
        self._findings = findings
        self._by_name = {(info.kind, info.name): info for info in findings.drivers}
        self._hooks = frozenset(hook for info in findings.moments for hook in info.hooks)
        self._trace = os.environ.get("DOCKP_TRACE_HOOKS", "") not in ("", "0")
        self._moments: pluggy.PluginManager | None = None

    @classmethod
    def open(
        cls, config: Config | None = None, *, refresh: bool = False, deadline: float = DISCOVERY_DEADLINE
    ) -> PluginRegistry:
        """The plug-ins installed for this interpreter, from the cache where it holds.

        Args: config: where the cache may lie (its data root). refresh: look again even so.
            deadline: seconds for each plug-in, when they have to be looked at.
        Never raises for a plug-in's sake: see `problems`.
        """
        data_root = config.data_root if config is not None else "/var/lib/dockp"
        who = cache.identity(cache.search_path())
        places = cache.directories(data_root)
        previous: Mapping[str, Any] = {}
        if not refresh:
            for place in places:
                kept = cache.load(place, who)
                if kept is None:
                    continue
                findings, previous = kept
                if not cache.is_due(previous):
                    return cls(findings)
                break
        return cls(_discover(who, places, previous, deadline))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with which plug-in, one line each (``str``)."""
        return self._findings.problems

    @property
    def moments(self) -> tuple[MomentInfo, ...]:
        """The plug-ins that take part in moments."""
        return self._findings.moments

    def drivers(self, kind: str | None = None) -> list[DriverInfo]:
        """The drivers of one kind (a key of `KINDS`) or of all, the highest priority first."""
        return [info for info in self._findings.drivers if kind is None or info.kind == kind]

    def info(self, kind: str, name: str) -> DriverInfo:
        """One driver. Raises: InvalidArgument when there is none of that name, listing those there are."""
        try:
            return self._by_name[kind, name]
        except KeyError:
            pass
        rule = KINDS[kind]
        line = rule.unknown.format(name=name)
        # Entry points are named after their drivers, so this finds the one that would have been it.
        broken = next((problem for problem in self.problems if name and name in problem.plugin), None)
        if broken is not None:
            line += f"; {broken}"
        names = ", ".join(sorted(info.name for info in self.drivers(kind))) or "none"
        raise InvalidArgument(f"{line} ({rule.noun}s here: {names})")

    def load(self, kind: str, name: str) -> type[Any]:
        """Import the class of a driver.

        Raises: InvalidArgument for an unknown name; Unavailable when it cannot be imported now.
        """
        info = self.info(kind, name)
        label = f'{KINDS[kind].noun} "{name}" of plug-in "{info.plugin}" ({info.distribution})'
        try:
            if info.builtin:
                return _import(info)
            # Not on top: the guard needs this package for its messages.
            from dockp.guard import call

            return call(kind, name, "import", LOAD_DEADLINE, _import, info)
        except Unavailable:
            raise
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt):
                raise
            cause = exc.__cause__ or exc
            text = " ".join(str(cause).split())
            raise Unavailable(f"{label} cannot be imported: {type(cause).__name__}: {text}") from exc

    def moment(self, hook: str, **arguments: Any) -> None:
        """Call ``hook`` on every plug-in that implements it.

        Raises: what a plug-in raises of DockpError, to refuse. For the moments in `DECIDING` also SystemFault and
        Unavailable, when one fails, hangs or cannot be imported; for the others that is only logged.
        """
        if hook not in self._hooks:
            return
        manager = self._moments
        if manager is None:
            # Two threads may both build one; they are alike and the last stays.
            manager = self._moments = self._build()
        getattr(manager.hook, hook)(**arguments)

    def _build(self) -> pluggy.PluginManager:
        import pluggy

        from dockp.spi import hooks

        manager = pluggy.PluginManager("dockp")
        manager.add_hookspecs(hooks)
        # pluggy calls what was registered last first; we promise the order of the list.
        for info in reversed(self._findings.moments):
            manager.register(self._participant(info), name=f"{info.distribution}:{info.plugin}")
        return manager

    def _participant(self, info: MomentInfo) -> types.SimpleNamespace:
        """The moments of one plug-in, each behind a deadline and a handler."""
        try:
            from dockp.guard import call

            module = call("plug-in", info.plugin, "import", LOAD_DEADLINE, importlib.import_module, info.module)
        except DockpError as exc:
            return types.SimpleNamespace(**{hook: self._absent(info, hook, exc) for hook in info.hooks})
        from dockp.spi import hooks as specs

        taken: dict[str, Any] = {}
        for name in dir(module):
            function = getattr(module, name)
            options = getattr(function, "dockp_impl", None)
            if isinstance(options, dict):
                hook = options.get("specname") or name
                if hook in info.hooks and hook in specs.MOMENTS:
                    taken[name] = self._behind_guard(info, hook, function)
        return types.SimpleNamespace(**taken)

    def _behind_guard(self, info: MomentInfo, hook: str, function: Callable[..., Any]) -> Callable[..., Any]:
        from dockp.guard import call

        # wraps() also carries the hookimpl mark and, by __wrapped__, the signature that pluggy reads.
        @functools.wraps(function)
        def part(*args: Any, **kwargs: Any) -> None:
            if self._trace:
                trace.info("%s() of plug-in %s", hook, info.plugin)
            try:
                call("plug-in", info.plugin, hook, MOMENT_DEADLINE, function, *args, **kwargs)
            except (DockpError, OSError) as exc:
                if hook in DECIDING:
                    if isinstance(exc, DockpError):
                        raise
                    raise SystemFault(f'plug-in "{info.plugin}" failed in "{hook}": {exc}') from exc
                log.warning('plug-in "%s" (%s), %s: %s', info.plugin, info.distribution, hook, exc)

        return part

    def _absent(self, info: MomentInfo, hook: str, error: DockpError) -> Callable[..., None]:
        """Stands in for a plug-in that could be imported in discovery and cannot now."""
        from dockp.spi.hooks import hookimpl

        line = f'plug-in "{info.plugin}" ({info.distribution}) cannot be imported: {error}'

        def part() -> None:
            if hook in DECIDING:
                raise Unavailable(f"{line}; it takes part in {hook}, so this is refused")
            log.warning("%s", line)

        return cast("Callable[..., None]", hookimpl(part))


def _import(info: DriverInfo) -> type[Any]:
    found: Any = importlib.import_module(info.module)
    for part in info.qualname.split("."):
        found = getattr(found, part)
    rule = KINDS[info.kind]
    contract = getattr(importlib.import_module(rule.module), rule.contract)
    if not isinstance(found, type) or not issubclass(found, contract):
        raise TypeError(f"{info.module}:{info.qualname} is no {rule.noun}")
    return found


def _discover(who: list[Any], places: list[str], previous: Mapping[str, Any], deadline: float) -> Findings:
    """Run the discovery process and keep what it found."""
    try:
        answer = _ask(deadline)
        findings = cache.findings_from_json(answer["findings"])
    except (OSError, ValueError, LookupError, TypeError) as exc:
        # Nothing is known then, which makes every choice of a driver fail with this line in it.
        text = " ".join(str(exc).split())[:300]
        return Findings(problems=(Problem(plugin="discovery", distribution="dockp-core", message=text),))
    if os.environ.get("DOCKP_TRACE_HOOKS", "") not in ("", "0"):
        for line in answer["trace"]:
            trace.info("%s", line)
    if answer["keep"]:
        attempts = 0
        retry_at = 0.0
        if answer["transient"]:
            attempts = int(previous.get("attempts", 0)) + 1
            retry_at = time.time() + RETRY_AFTER * 2 ** min(attempts - 1, 6)
        record = {
            "findings": answer["findings"],
            "witnesses": answer["witnesses"],
            "attempts": attempts,
            "retry_at": retry_at,
        }
        any(cache.save(place, who, record) for place in places)
    return findings


def _ask(deadline: float) -> dict[str, Any]:
    """Raises: OSError or ValueError saying why discovery itself did not work."""
    import json
    import subprocess

    if not sys.executable:
        raise OSError("plug-ins cannot be looked up: this program does not say which Python it runs on")
    # The child must see what we see: our flags for what is set up at its start, and our search path itself.
    flags = ["-P"]
    flags += ["-I"] if sys.flags.isolated else []
    flags += ["-S"] if sys.flags.no_site else []
    flags += ["-s"] if sys.flags.no_user_site else []
    flags += ["-E"] if sys.flags.ignore_environment else []
    program = f"import sys; sys.path[:] = {cache.search_path()!r}; from dockp.plugins.discover import main; main()"
    try:
        done = subprocess.run(
            [sys.executable, *flags, "-c", program],
            input=json.dumps({"deadline": deadline}).encode(),
            capture_output=True,
            timeout=deadline * 4 + 30,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OSError("looking up plug-ins did not finish in time") from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise OSError(f"looking up plug-ins failed: {last[0]}")
    answer = json.loads(done.stdout)
    if not isinstance(answer, dict):
        raise ValueError("looking up plug-ins gave no answer")
    return answer
