"""The default seccomp profile, from Docker's portable form to the one of the OCI runtime spec.

``seccomp_default.json`` beside this module is moby's default profile (Apache-2.0), as data. Its rules say for which
architectures, capabilities and kernels they hold; here they are settled for one container.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from dockp.spi.errors import InvalidArgument

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64", "s390x": "s390x"}
_NATIVE = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64", "arm": "SCMP_ARCH_ARM"}
_NATIVE |= {"riscv64": "SCMP_ARCH_RISCV64", "s390x": "SCMP_ARCH_S390X"}


@lru_cache(maxsize=16)
def default_profile(capabilities: frozenset[str]) -> dict[str, Any]:
    """The OCI ``linux.seccomp`` object for a container with these capabilities (``"CAP_…"``): one for all of them, not
    to be changed."""
    return settle(_default(), capabilities)


@cache
def _default() -> Mapping[str, Any]:
    # By path, not importlib.resources: that brings zipfile, tempfile and more, for one file beside this one.
    with open(os.path.join(os.path.dirname(__file__), "seccomp_default.json"), encoding="utf-8") as file:
        document: Mapping[str, Any] = json.load(file)
    return document


def custom_profile(text: str, capabilities: frozenset[str]) -> dict[str, Any]:
    """The same from ``--security-opt seccomp=…`` text. Raises InvalidArgument."""
    try:
        profile = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error
    if not isinstance(profile, Mapping) or "defaultAction" not in profile:
        raise InvalidArgument("Decoding seccomp profile failed: it has no defaultAction")
    return settle(profile, capabilities)


def settle(profile: Mapping[str, Any], capabilities: frozenset[str]) -> dict[str, Any]:
    """Keep the rules that hold for this machine, this kernel and these capabilities."""
    uname = os.uname()
    architecture = _MACHINES.get(uname.machine, uname.machine)
    kernel = _version(uname.release)
    settled: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    for name in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if profile.get(name) is not None:
            settled[name] = profile[name]
    settled["architectures"] = _architectures(profile, architecture)
    rules = []
    for rule in profile.get("syscalls") or ():
        if not _holds(rule.get("includes") or {}, architecture, capabilities, kernel, default=True):
            continue
        if _holds(rule.get("excludes") or {}, architecture, capabilities, kernel, default=False):
            continue
        names = rule.get("names") or ([rule["name"]] if rule.get("name") else [])
        kept: dict[str, Any] = {"names": names, "action": rule["action"]}
        if rule.get("errnoRet") is not None:
            kept["errnoRet"] = rule["errnoRet"]
        if rule.get("args"):
            kept["args"] = rule["args"]
        rules.append(kept)
    settled["syscalls"] = rules
    return settled


def _architectures(profile: Mapping[str, Any], architecture: str) -> list[str]:
    native = _NATIVE.get(architecture, "")
    for row in profile.get("archMap") or ():
        if row["architecture"] == native:
            return [native, *(row.get("subArchitectures") or ())]
    return list(profile.get("architectures") or ([native] if native else []))


def _holds(
    condition: Mapping[str, Any],
    architecture: str,
    capabilities: frozenset[str],
    kernel: tuple[int, int],
    default: bool,
) -> bool:
    """For ``includes`` every part must hold (``default`` True), for ``excludes`` any part is enough (False)."""
    verdicts = []
    if condition.get("arches"):
        verdicts.append(architecture in condition["arches"])
    if condition.get("caps"):
        present = [capability in capabilities for capability in condition["caps"]]
        verdicts.append(all(present) if default else any(present))
    if condition.get("minKernel"):
        verdicts.append(kernel >= _version(condition["minKernel"]))
    return all(verdicts) if default else any(verdicts)


def _version(release: str) -> tuple[int, int]:
    major, _, rest = release.partition(".")
    minor = ""
    for letter in rest:
        if not letter.isdigit():
            break
        minor += letter
    return int(major), int(minor or 0)
