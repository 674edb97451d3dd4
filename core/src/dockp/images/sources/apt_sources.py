"""The machine's own apt sources: which mirror and which key to build from. Source: sources.list(5), deb822(5)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import evolve, frozen

_SUFFIXES = ("", "-updates", "-security", "/updates")
_ROLLING = frozenset({"sid", "unstable", "experimental"})


@frozen(kw_only=True)
class AptSource:
    """One stanza of binary packages. ``fields``: the remaining deb822 fields, such as ``Signed-By``."""

    uris: Sequence[str]
    suites: Sequence[str]
    components: Sequence[str]
    fields: Mapping[str, str]

    @property
    def signed_by(self) -> str:
        return self.fields.get("Signed-By", "")

    def stanza(self) -> str:
        """As deb822 text."""
        lines = {
            "Types": "deb",
            "URIs": " ".join(self.uris),
            "Suites": " ".join(self.suites),
            "Components": " ".join(self.components),
            **self.fields,
        }
        return "".join(f"{key}: {value}\n" for key, value in lines.items())


def read_sources(etc: Path) -> list[AptSource]:
    """Every enabled source of ``deb`` packages below ``etc`` (``/etc/apt``), in apt's order."""
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]
    found: list[AptSource] = []
    for file in files:
        if file.is_file():
            found += _one_line(file.read_text(errors="replace"))
    for file in sorted((etc / "sources.list.d").glob("*.sources")):
        found += _deb822(file.read_text(errors="replace"))
    return found


def sources_for(suite: str, sources: Sequence[AptSource], own_suite: str, distribution: str) -> list[AptSource]:
    """The sources of ``suite`` with its updates, from the distribution's own mirrors only.

    Args: own_suite: what the machine runs; for another suite the same mirrors are asked. distribution: ``debian``;
        what is signed by another's key is a third party's and is left out.
    """
    own = [source for source in sources if "main" in source.components and _is_own(source, distribution)]
    for base in (suite, own_suite):
        chosen = []
        for source in own:
            suffixes = [name.removeprefix(base) for name in source.suites if name.startswith(base)]
            suffixes = [suffix for suffix in suffixes if suffix in _SUFFIXES]
            if suite in _ROLLING:
                suffixes = [suffix for suffix in suffixes if not suffix]
            if suffixes:
                chosen.append(evolve(source, suites=tuple(suite + suffix for suffix in suffixes)))
        if any(suite in source.suites for source in chosen):
            return chosen
    return []


def _is_own(source: AptSource, distribution: str) -> bool:
    signed_by = source.signed_by
    if not signed_by or "\n" in signed_by:
        return True
    return Path(signed_by).name.startswith(f"{distribution}-archive")


def _one_line(text: str) -> list[AptSource]:
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<rest>\S.*)", line.partition("#")[0].strip())
        words = match["rest"].split() if match else []
        if match is None or len(words) < 3:
            continue  # a comment, a deb-src line, or a flat repository
        options = dict(pair.partition("=")[::2] for pair in shlex.split(match["options"] or ""))
        fields = {_FIELDS[key]: value.replace(",", " ") for key, value in options.items() if key in _FIELDS}
        found.append(AptSource(uris=words[:1], suites=words[1:2], components=words[2:], fields=fields))
    return found


def _deb822(text: str) -> list[AptSource]:
    found = []
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t") and key:
                fields[key] += "\n" + line
            elif ":" in line:
                key, _, value = line.partition(":")
                key = _CANONICAL.get(key.strip().lower(), key.strip())
                fields[key] = value.strip()
        enabled = fields.pop("Enabled", "yes").lower() not in ("no", "false", "0")
        types = fields.pop("Types", "").split()
        uris, suites, components = (fields.pop(name, "").split() for name in ("URIs", "Suites", "Components"))
        if enabled and "deb" in types and uris and suites and components:
            kept = {key: value for key, value in fields.items() if key in _FIELDS.values()}
            found.append(AptSource(uris=uris, suites=suites, components=components, fields=kept))
    return found


_FIELDS = {
    "signed-by": "Signed-By",
    "trusted": "Trusted",
    "check-valid-until": "Check-Valid-Until",
    "valid-until-max": "Valid-Until-Max",
    "check-date": "Check-Date",
}
_CANONICAL = {name.lower(): name for name in ("Types", "URIs", "Suites", "Components", "Enabled", *_FIELDS.values())}
