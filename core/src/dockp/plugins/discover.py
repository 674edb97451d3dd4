"""The discovery process: finds, imports and checks plug-ins where nothing they do can hurt the engine.

Run by `dockp.plugins.registry` as ``python -c`` with the engine's ``sys.path``; it reads one JSON request from standard
input and writes one JSON answer to standard output. Each plug-in is imported in a fork of its own, with a deadline: one
that hangs, crashes the interpreter, prints, or exits costs itself and nobody else.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import select
import signal
import sys
import time
import traceback
import types
from collections.abc import Iterator, Sequence
from typing import Any

import pluggy
from attrs import field, frozen, mutable

from dockp.plugins import cache, model
from dockp.plugins.model import KINDS, DriverInfo, Findings, MomentInfo, Problem
from dockp.spi import hooks

GROUP = "dockp"
AT_ONCE = 8
MAX_ANSWER = 1 << 20
MAX_FILES = 500
NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,63}")
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
LOCATION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

FIRST_PARTY = frozenset(
    {
        "dockp",
        "dockp-core",
        "dockp-exec-libcontainer",
        "dockp-exec-lxc",
        "dockp-exec-oci",
        "dockp-net-bridge",
        "dockp-net-ipvlan",
        "dockp-net-macvlan",
        "dockp-net-overlay",
        "dockp-storage-aufs",
        "dockp-storage-btrfs",
        "dockp-storage-devicemapper",
        "dockp-storage-fuse-overlayfs",
        "dockp-storage-overlay2",
        "dockp-storage-vfs",
        "dockp-storage-zfs",
    }
)
"""Distributions made from this repository: on a clash of names they win over others."""


@frozen(kw_only=True)
class Plugin:
    """One entry point of the group."""

    name: str
    module: str
    distribution: str
    version: str

    @property
    def rank(self) -> tuple[int, str, str]:
        """Sorts the core first, then the drivers of this repository, then everybody else by name."""
        level = 0 if self.distribution == "dockp-core" else 1 if self.distribution in FIRST_PARTY else 2
        return (level, self.distribution, self.name)


@frozen(kw_only=True)
class Report:
    """What the check of one plug-in gave. ``transient``: it hung or crashed, so it is worth another try later."""

    drivers: tuple[dict[str, Any], ...] = ()
    moments: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    trace: tuple[str, ...] = ()
    spi: int = 0
    transient: bool = False


def main() -> None:
    """Answer the request on standard input. ``request``: ``{"deadline": seconds}``."""
    request = json.load(sys.stdin)
    answer = discover(cache.search_path(), float(request["deadline"]))
    json.dump(answer, sys.stdout)


def discover(path: Sequence[str], deadline: float) -> dict[str, Any]:
    """Check every plug-in on ``path``; ``deadline`` is seconds for each.

    Returns: the record that `cache.save` keeps, without the identity.
    """
    started_ns = time.time_ns()
    # Witnesses first: what changes while we look makes them stale.
    witnesses = [witness for entry in dict.fromkeys(path) for witness in cache.witness_path(entry)]
    # What is checked, and how, changes with dockp itself, also where it is edited in place.
    witnesses += cache.witness_files([hooks.__file__, __file__, model.__file__])
    problems: list[Problem] = []
    plugins = sorted(scan(path, problems), key=lambda plugin: plugin.rank)
    reports = check_all(plugins, deadline)
    witnesses += cache.witness_files(sorted({file for report in reports for file in report.files}))
    findings = settle(list(zip(plugins, reports, strict=True)), problems)
    # Our own drivers do not hang: the machine is overloaded, and that must not leave it without drivers for a minute.
    own_in_trouble = any(
        report.transient and plugin.rank[0] < 2 for plugin, report in zip(plugins, reports, strict=True)
    )
    return {
        "findings": cache.findings_to_json(findings),
        "witnesses": witnesses,
        "transient": any(report.transient for report in reports),
        "keep": not cache.is_racy(witnesses, started_ns) and not own_in_trouble,
        "trace": [line for report in reports for line in report.trace],
    }


def scan(path: Sequence[str], problems: list[Problem]) -> Iterator[Plugin]:
    """Every entry point of the group; a distribution with broken metadata is a problem of its own."""
    seen: set[str] = set()
    for found in importlib.metadata.distributions(path=list(path)):
        where = str(getattr(found, "_path", "a distribution"))
        name = os.path.basename(where)
        try:
            # Cheap test first: most distributions have nothing for us, and parsing metadata is slow.
            text = found.read_text("entry_points.txt") or ""
            if GROUP not in text:
                continue
            name = re.sub(r"[-_.]+", "-", found.metadata["Name"] or name).lower()
            if name in seen:
                continue  # shadowed by an earlier entry of the path, as for imports
            seen.add(name)
            version = found.version or "unknown"
            points = [point for point in found.entry_points if point.group == GROUP]
        except Exception as exc:
            problems.append(Problem(plugin="?", distribution=name, message=f"unreadable metadata: {one_line(exc)}"))
            continue
        for point in points:
            if not MODULE.fullmatch(point.value):
                message = f'the entry point names "{point.value}", which is not a module'
                problems.append(Problem(plugin=point.name, distribution=name, message=message))
                continue
            yield Plugin(name=point.name, module=point.value, distribution=name, version=version)


@mutable(kw_only=True)
class _Running:
    index: int
    pid: int
    fd: int
    until: float
    data: bytearray = field(factory=bytearray)


def check_all(plugins: Sequence[Plugin], deadline: float) -> list[Report]:
    """Check each plug-in in a fork of its own, a few at once."""
    reports: list[Report] = [Report()] * len(plugins)
    waiting = list(range(len(plugins)))
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                running.append(_fork(waiting.pop(0), plugins, deadline))
            for one in _ready(running):
                running.remove(one)
                reports[one.index] = _finish(one, deadline)
    finally:
        for one in running:
            _finish(one, deadline)
    return reports


def _fork(index: int, plugins: Sequence[Plugin], deadline: float) -> _Running:
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(plugins[index], writable)
    os.close(writable)
    return _Running(index=index, pid=pid, fd=readable, until=time.monotonic() + deadline)


def _child(plugin: Plugin, writable: int) -> None:
    """Check one plug-in and write the report to ``writable``. Never returns."""
    try:
        os.setsid()  # so that what the plug-in starts can be killed with it
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        from attrs import asdict

        answer = json.dumps(asdict(check(plugin))).encode() + b"\n"
        while answer:
            answer = answer[os.write(writable, answer) :]
    finally:
        os._exit(0)  # no atexit handler of the plug-in may hold us up


def _ready(running: list[_Running]) -> list[_Running]:
    """Wait; return those that answered, died, or ran out of time."""
    timeout = max(0.0, min(one.until for one in running) - time.monotonic())
    readable, _, _ = select.select([one.fd for one in running], [], [], timeout)
    now = time.monotonic()
    done = []
    for one in running:
        if one.fd in readable:
            chunk = os.read(one.fd, 65536)
            one.data += chunk
            if not chunk or one.data.endswith(b"\n") or len(one.data) > MAX_ANSWER:
                done.append(one)
                continue
        if now >= one.until:
            done.append(one)
    return done


def _finish(one: _Running, deadline: float) -> Report:
    os.close(one.fd)
    timed_out = time.monotonic() >= one.until
    with contextlib.suppress(ProcessLookupError):
        os.killpg(one.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(one.pid, signal.SIGKILL)  # for one that did not get as far as setsid
    _, status = os.waitpid(one.pid, 0)
    try:
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(one.data).items()
        }
        return Report(**fields)
    except (ValueError, TypeError, AttributeError):
        pass
    if timed_out:
        message = f"did not finish importing and answering within {deadline:g} s; it is set aside"
    elif os.WIFSIGNALED(status):
        message = f"crashed the interpreter with {signal.Signals(os.WTERMSIG(status)).name} while being imported"
    else:
        message = "ended the process while being imported"
    return Report(problems=(message,), transient=True)


def check(plugin: Plugin) -> Report:
    """Import and check one plug-in in this process."""
    before = set(sys.modules)
    problems: list[str] = []
    files: set[str] = set()
    drivers: list[dict[str, Any]] = []
    moments: list[str] = []
    trace: list[str] = []
    spi = 0
    try:
        module = importlib.import_module(plugin.module)
    except BaseException as exc:  # SystemExit too
        problems.append(f"cannot be imported: {one_line(exc)}")
        files.update(frame.filename for frame in traceback.extract_tb(exc.__traceback__))
    else:
        wrong = wrong_spi(module)
        if wrong:
            problems.append(wrong)
        else:
            spi = module.DOCKP_SPI
            for hook, function in implementations(module, problems):
                if hook in hooks.MOMENTS:
                    moments.append(hook)
                else:
                    trace.append(f"{hook}() of plug-in {plugin.name}")
                    drivers += provided(hook, function, problems, files)
    files |= sources(plugin, before, everything=bool(problems))
    return Report(
        drivers=tuple(drivers),
        moments=tuple(moments),
        problems=tuple(problems),
        files=tuple(sorted(files)),
        trace=tuple(trace),
        spi=spi,
    )


def wrong_spi(module: types.ModuleType) -> str:
    """What is wrong with the SPI version that ``module`` states, or ""."""
    if not hasattr(module, "DOCKP_SPI"):
        return f"does not state DOCKP_SPI, the SPI version it was written for (this dockp has {hooks.SPI_VERSION})"
    stated = module.DOCKP_SPI
    if type(stated) is not int:
        return f"DOCKP_SPI must be a whole number, not {stated!r:.60}"
    if stated != hooks.SPI_VERSION:
        advice = "upgrade dockp" if stated > hooks.SPI_VERSION else "install a newer version of the plug-in"
        return f"was written for SPI {stated}, this dockp has SPI {hooks.SPI_VERSION}: {advice}"
    return ""


def implementations(module: types.ModuleType, problems: list[str]) -> Iterator[tuple[str, Any]]:
    """Each usable hook of ``module`` with its function; what is unusable becomes a problem."""
    known = (*hooks.PROVIDERS, *hooks.MOMENTS)
    found = False
    for name in dir(module):
        function = getattr(module, name)
        options = getattr(function, "dockp_impl", None)
        if not inspect.isroutine(function) or not isinstance(options, dict):
            continue
        found = True
        hook = options.get("specname") or name
        if hook not in known:
            problems.append(f'implements "{hook}", which is no hook{nearest(hook, known)}')
            continue
        if options.get("wrapper") or options.get("hookwrapper"):
            problems.append(f"{hook}: hook wrappers are not part of SPI {hooks.SPI_VERSION}")
            continue
        # One at a time, so that a wrong signature costs this hook and not the others.
        manager = pluggy.PluginManager(GROUP)
        manager.add_hookspecs(hooks)
        try:
            manager.register(types.SimpleNamespace(**{name: function}), "plug-in")
            manager.check_pending()
        except pluggy.PluginValidationError as exc:
            problems.append(f"{hook}: {one_line(str(exc).splitlines()[-1])}")
            continue
        yield hook, function
    if not found:
        problems.append("implements no hook (is @hookimpl missing?)")


def provided(hook: str, function: Any, problems: list[str], files: set[str]) -> Iterator[dict[str, Any]]:
    """Call one provider and describe each sound class it returns."""
    kind = next(kind for kind, value in KINDS.items() if value.hook == hook)
    try:
        answer = function()
    except BaseException as exc:
        problems.append(f"{hook} failed: {one_line(exc)}")
        files.update(frame.filename for frame in traceback.extract_tb(exc.__traceback__))
        return
    if not isinstance(answer, list | tuple):
        problems.append(f"{hook} returned {type(answer).__name__}, not a list of classes")
        return
    for item in answer:
        try:
            wrong = wrong_driver(kind, item)
            if wrong:
                problems.append(f"{hook}: {wrong}")
            else:
                yield {
                    "kind": kind,
                    "name": getattr(item, KINDS[kind].key),
                    "module": item.__module__,
                    "qualname": item.__qualname__,
                    "summary": " ".join(item.summary.split()),
                    "priority": getattr(item, "priority", 0),
                }
        except BaseException as exc:  # a metaclass may do anything
            problems.append(f"{hook}: {one_line(exc)}")


def wrong_driver(kind: str, item: Any) -> str:
    """What keeps ``item`` from being a driver of this kind, or ""."""
    rule = KINDS[kind]
    contract = getattr(importlib.import_module(rule.module), rule.contract)
    if not isinstance(item, type):
        return f"returned {item!r:.80}, which is not a class"
    label = item.__qualname__
    if not issubclass(item, contract):
        return f"{label} is not a subclass of {rule.module}.{rule.contract}"
    missing = sorted(getattr(item, "__abstractmethods__", ()))
    if missing:
        return f"{label} does not implement {', '.join(missing)}"
    name = getattr(item, rule.key, None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return f"{label}.{rule.key} is {name!r:.80}, not a name like [a-z0-9][a-z0-9_.+-]*"
    for attribute, wanted in (("summary", str), ("priority", int)):
        value = getattr(item, attribute, wanted())
        if type(value) is not wanted:
            return f"{label}.{attribute} is {value!r:.80}, not {wanted.__name__}"
    for attribute in ("runtime", "writer"):
        if attribute in contract.__annotations__:
            value = getattr(item, attribute, None)
            if attribute == "writer" and value == "":
                continue  # a log driver that keeps nothing needs no writer
            if not isinstance(value, str) or not LOCATION.fullmatch(value):
                return f'{label}.{attribute} is {value!r:.80}, not "package.module:Class"'
    if resolve(item.__module__, item.__qualname__) is not item:
        return f"{label} cannot be found again as {item.__module__}:{item.__qualname__}; define it at module level"
    return ""


def resolve(module: str, qualname: str) -> Any:
    """The object at ``module:qualname``, or None."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def sources(plugin: Plugin, before: set[str], everything: bool) -> set[str]:
    """Files whose change could change the report: the plug-in's own modules that were loaded. With ``everything`` its
    whole package, folders included, since after a failure we do not know what it would have loaded, or misses."""
    top = plugin.module.partition(".")[0]
    own = [name for name in set(sys.modules) - before if name.partition(".")[0] == top]
    found = {file for name in [*own, plugin.module] if (file := getattr(sys.modules.get(name), "__file__", None))}
    if everything:
        with contextlib.suppress(Exception):
            spec = importlib.util.find_spec(top)
            if spec and spec.origin:
                found.add(spec.origin)
            for root in (spec.submodule_search_locations or ()) if spec else ():
                for folder, subfolders, names in os.walk(root):
                    subfolders[:] = [name for name in subfolders if name != "__pycache__"]
                    found |= {folder, *(os.path.join(folder, name) for name in names if name.endswith(".py"))}
                    if len(found) > MAX_FILES:
                        break
    return {os.path.abspath(file) for file in found if os.path.exists(file)}


def settle(checked: Sequence[tuple[Plugin, Report]], problems: list[Problem]) -> Findings:
    """Put the reports together, in order of rank: the first to claim a name has it."""
    drivers: dict[tuple[str, str], DriverInfo] = {}
    moments: list[MomentInfo] = []
    for plugin, report in checked:
        where: dict[str, Any] = {"plugin": plugin.name, "distribution": plugin.distribution}
        problems += [Problem(message=message, **where) for message in report.problems]
        for item in report.drivers:
            info = DriverInfo(**item, **where, version=plugin.version, spi=report.spi, builtin=plugin.rank[0] < 2)
            holder = drivers.setdefault((info.kind, info.name), info)
            if holder is not info:
                message = (
                    f'{KINDS[info.kind].noun} "{info.name}" is already provided by plug-in "{holder.plugin}" '
                    f"({holder.distribution} {holder.version}), which is used"
                )
                problems.append(Problem(message=message, **where))
        if report.moments:
            moments.append(
                MomentInfo(**where, version=plugin.version, module=plugin.module, hooks=tuple(report.moments))
            )
    order = sorted(drivers.values(), key=lambda info: (list(KINDS).index(info.kind), -info.priority, info.name))
    return Findings(drivers=tuple(order), moments=tuple(moments), problems=tuple(problems))


def nearest(word: str, known: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def one_line(error: BaseException | str) -> str:
    """An exception as one short line."""
    if isinstance(error, str):
        text = error
    else:
        try:
            text = str(error)
        except BaseException:
            text = ""
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return " ".join(text.split())[:300]
