"""What the figures were taken on."""

from __future__ import annotations

import os
import re
from pathlib import Path


def describe() -> list[tuple[str, str]]:
    """(name, value) of what matters to a reader of figures."""
    facts = [("processor", f"{os.cpu_count()} × {_processor()}"), ("memory", _memory()), ("system", _system())]
    facts.append(("kernel", f"{os.uname().release} {os.uname().machine}, cgroup {_cgroups()}"))
    return facts


def load() -> str:
    """Processes that ran or waited to, averaged over 1, 5 and 15 minutes. A busy machine makes busy figures."""
    return " ".join(f"{average:.1f}" for average in os.getloadavg())


def _processor() -> str:
    return _found(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text()) or os.uname().machine


def _memory() -> str:
    total = _found(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return f"{int(total) / 2**20:.1f} GiB"


def _system() -> str:
    path = Path("/etc/os-release")
    return _found(r'^PRETTY_NAME="?([^"\n]+)', path.read_text() if path.exists() else "") or "unknown"


def _cgroups() -> str:
    return "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1"


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1].strip() if match else ""
