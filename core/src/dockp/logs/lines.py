"""What ``logs`` shows besides the output itself, as Docker writes it."""

from __future__ import annotations

from collections.abc import Mapping
from time import gmtime, strftime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dockp.spi.logs import LogEntry


def parse_tail(text: str) -> int | None:
    """How many lines; None is everything, as for what is no number in Docker."""
    try:
        count = int(text)
    except ValueError:
        return None
    return count if count >= 0 else None


def stamp(time: int) -> bytes:
    """Nanoseconds since the epoch as they stand before a line."""
    seconds, rest = divmod(time, 10**9)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(seconds))}.{rest:09d}Z ".encode()


def frame(entry: LogEntry, framed: bool, prefix: bytes = b"") -> bytes:
    """An entry as attached clients get output: after Docker's eight bytes (stream, zeros, length) where ``framed``."""
    data = prefix + entry.data
    if not framed:
        return data
    return bytes((2 if entry.stream == "stderr" else 1, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def details(document: Mapping[str, object]) -> bytes:
    """The labels and variables that a container's log options name, as ``k=v,k=v `` before each line.

    Args: document: of the container, as `dockp.interface.Containers.inspect` gives it.
    """
    host, config = document.get("HostConfig"), document.get("Config")
    if not isinstance(host, dict) or not isinstance(config, dict):
        return b" "
    options = (host.get("LogConfig") or {}).get("Config") or {}
    wanted = [name for name in options.get("labels", "").split(",") if name]
    shown = {name: value for name, value in (config.get("Labels") or {}).items() if name in wanted}
    wanted = [name for name in options.get("env", "").split(",") if name]
    for text in config.get("Env") or ():
        name, _, value = text.partition("=")
        if name in wanted:
            shown[name] = value
    return (",".join(f"{name}={value}" for name, value in sorted(shown.items())) + " ").encode()
