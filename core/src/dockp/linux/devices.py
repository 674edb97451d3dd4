"""Which devices a cgroup may use: rules of the OCI spec as cgroup v1 lines and as a cgroup v2 BPF program.

A rule is an object ``{"allow", "type": "a|b|c", "major", "minor", "access": "rwm"}`` (OCI runtime-spec config-linux.md,
"Allowed Device list"); rules apply in order, later ones win. Sources: kernel doc admin-guide/cgroup-v1/devices.rst,
bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE.
"""

from __future__ import annotations

import os
import struct

from dockp.linux.libc import address, buffer, c_int, c_uint, c_void_p, check, error, system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Rule = Mapping[str, Any]

_BPF_PROG_LOAD = 5
_BPF_PROG_ATTACH = 8
_BPF_PROG_TYPE_CGROUP_DEVICE = 15
_BPF_CGROUP_DEVICE = 6
_BPF_F_ALLOW_MULTI = 2

# The kernel's struct bpf_cgroup_dev_ctx: access << 16 | type, major, minor
_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}

_bpf = system_call("bpf", c_int, c_void_p, c_uint)


def number(rule: Rule, key: str) -> int | None:
    """The major or minor number of a rule, None for any."""
    value = rule.get(key)
    return None if value is None or value < 0 else int(value)


def everything(rule: Rule) -> bool:
    """Whether the rule is about all devices and all ways to use them."""
    access = rule.get("access") or "rwm"
    wild = number(rule, "major") is None and number(rule, "minor") is None
    return (rule.get("type") or "a") == "a" and wild and not set("rwm") - set(access)


def effective(rules: Sequence[Rule]) -> list[Rule]:
    """The rules that still matter: a rule about everything makes all before it void."""
    kept: list[Rule] = []
    for rule in rules:
        if everything(rule):
            kept = [rule]
        else:
            kept.append(rule)
    return kept


def v1_lines(rules: Sequence[Rule]) -> list[tuple[str, str]]:
    """What to write, in order, as (file name, line). Nothing, where everything stays allowed as in a new cgroup."""
    wanted = effective(rules)
    lines: list[tuple[str, str]] = []
    if not wanted or not everything(wanted[0]):
        wanted = [{"allow": False}, *wanted]
    if len(wanted) == 1 and wanted[0].get("allow"):
        return []
    for rule in wanted:
        name = "devices.allow" if rule.get("allow") else "devices.deny"
        if everything(rule):
            lines.append((name, "a"))
            continue
        major, minor = number(rule, "major"), number(rule, "minor")
        place = f"{'*' if major is None else major}:{'*' if minor is None else minor}"
        kinds = ("b", "c") if (rule.get("type") or "a") == "a" else (rule["type"],)
        lines += [(name, f"{kind} {place} {rule.get('access') or 'rwm'}") for kind in kinds]
    return lines


def _instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, destination | source << 4, offset, value)


def program(rules: Sequence[Rule]) -> bytes:
    """The same as a BPF program: 1 to allow, 0 to refuse.

    The last rule that matches wins, so they are tested from the last to the first. An allow rule must cover all that
    is asked for; a deny rule refuses when it covers any of it.
    """
    load, move, right, both, jump_ne, jump_eq, store, leave = 0x61, 0xBF, 0x74, 0x54, 0x55, 0x15, 0xB7, 0x95
    code = [
        _instruction(load, 2, 1, 0),
        _instruction(move, 3, 2),
        _instruction(both, 2, value=0xFFFF),  # r2: type
        _instruction(right, 3, value=16),  # r3: access
        _instruction(load, 4, 1, 4),  # r4: major
        _instruction(load, 5, 1, 8),  # r5: minor
    ]
    wanted = effective(rules)
    by_default = False
    if wanted and everything(wanted[0]):
        # The verifier refuses what no path reaches, so this rule is the program's end and not one more test.
        by_default = bool(wanted.pop(0).get("allow"))
    for rule in reversed(wanted):
        allow = bool(rule.get("allow"))
        mask = 0
        for letter in rule.get("access") or "rwm":
            mask |= _ACCESS[letter]
        tests: list[tuple[int, int, int]] = []  # (jump code, register, value): jump away means no match
        kind = rule.get("type") or "a"
        if kind != "a":
            tests.append((jump_ne, 2, _TYPES["c" if kind == "u" else kind]))
        for key, register in (("major", 4), ("minor", 5)):
            device = number(rule, key)
            if device is not None:
                tests.append((jump_ne, register, device))
        body: list[bytes] = []
        masking = mask != 7
        left = len(tests) + (3 if masking else 0) + 2
        for jump, register, value in tests:
            left -= 1
            body.append(_instruction(jump, register, offset=left, value=value))
        if masking:
            body.append(_instruction(move, 6, 3))
            body.append(_instruction(both, 6, value=7 & ~mask if allow else mask))
            left -= 3
            body.append(_instruction(jump_ne if allow else jump_eq, 6, offset=left, value=0))
        body.append(_instruction(store, 0, value=int(allow)))
        body.append(_instruction(leave))
        code += body
    code += [_instruction(store, 0, value=int(by_default)), _instruction(leave)]
    return b"".join(code)


def attach(cgroup_fd: int, code: bytes) -> None:
    """Load a device program and attach it to a cgroup2 directory, beside what is attached there. Raises OSError."""
    loaded = _load(code)
    try:
        attributes = struct.pack("=IIII", cgroup_fd, loaded, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI)
        check(_bpf(_BPF_PROG_ATTACH, buffer(attributes), len(attributes)), "device program")
    finally:
        os.close(loaded)


def _load(code: bytes) -> int:
    # Without the verifier's log: a good program fails to load (ENOSPC) when its log is longer than the buffer for it.
    loaded = _try_load(code, None)
    if loaded >= 0:
        return loaded
    problem = error("device program")
    log = buffer(1 << 16)
    loaded = _try_load(code, log)
    if loaded >= 0:
        return loaded
    lines = log.raw.split(b"\0", 1)[0].decode(errors="replace").partition("\nprocessed ")[0].splitlines()
    reason = f" ({lines[-1]})" if lines else ""
    raise OSError(problem.errno, f"{problem.strerror}{reason}", "device program")


def _try_load(code: bytes, log: Any) -> int:
    instructions, licence = buffer(code), buffer(b"GPL\0")
    attributes = struct.pack(
        "=IIQQIIQII",
        _BPF_PROG_TYPE_CGROUP_DEVICE,
        len(code) // 8,
        address(instructions),
        address(licence),
        1 if log else 0,
        len(log) if log else 0,
        address(log) if log else 0,
        0,
        0,
    )
    return int(_bpf(_BPF_PROG_LOAD, buffer(attributes), len(attributes)))
