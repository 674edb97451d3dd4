"""Figures, and how they are shown: one aligned Markdown table a section, which reads well in a terminal too."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MS, SECONDS, MB = "ms", "s", "MB"
_SCALE = {MS: 1e-3, SECONDS: 1.0, MB: 1e6}


@dataclass
class Row:
    """One measure of several contestants.

    Attributes:
        samples: for each contestant its values in seconds or bytes. Values of one index were measured one right after
            the other, so that ratios can be taken pair by pair.
        rival: whom ``limit`` is relative to, or "" where it is ``limit`` times the unit itself.
        limit: what the first contestant may need at most; None where the row is for information.
    """

    title: str
    unit: str
    samples: Mapping[str, Sequence[float]]
    rival: str = ""
    limit: float | None = None

    def ratios(self, subject: str) -> list[float]:
        pairs = zip(self.samples.get(subject, ()), self.samples.get(self.rival, ()), strict=False)
        return [mine / theirs for mine, theirs in pairs]

    def verdict(self, subject: str) -> str:
        """Whether the target is met, in words; "" without a target or without figures."""
        if self.limit is None:
            return ""
        if self.rival:
            ratios = self.ratios(subject)
            if not ratios:
                return f"≤ {self.limit} × {self.rival}: not measured"
            met = statistics.median(ratios) <= self.limit
            target = f"≤ {self.limit} × {self.rival}"
        else:
            if not self.samples.get(subject):
                return f"≤ {self.limit} {self.unit}: not measured"
            met = statistics.median(self.samples[subject]) <= self.limit * _SCALE[self.unit]
            target = f"≤ {self.limit} {self.unit}"
        return f"{target}: {'met' if met else 'NOT met'}"


@dataclass
class Section:
    """A table: the first contestant is the one that has targets."""

    title: str
    note: str
    contestants: Sequence[str]
    rows: list[Row] = field(default_factory=list)

    def render(self) -> str:
        subject = self.contestants[0]
        shown = [name for name in self.contestants if any(row.samples.get(name) for row in self.rows)]
        rivalry = any(row.ratios(subject) for row in self.rows)
        judged = any(row.verdict(subject) for row in self.rows)
        head = ["", *shown, *(["ratio"] if rivalry else []), *(["target"] if judged else [])]
        body = []
        for row in self.rows:
            line = [
                row.title,
                *(figure(row.samples[name], row.unit) if row.samples.get(name) else "" for name in shown),
            ]
            if rivalry:
                ratios = row.ratios(subject)
                line.append(f"{spread(ratios, '.2f')} × {row.rival}" if ratios else "")
            if judged:
                line.append(row.verdict(subject))
            body.append(line)
        note = textwrap.fill(self.note, 120)
        return f"### {self.title}\n\n{note}\n\n{_table([head, *body])}\n"

    def verdicts(self) -> list[tuple[str, str]]:
        """(what, verdict) of each row that has a target."""
        found = ((row.title, row.verdict(self.contestants[0])) for row in self.rows)
        return [(f"{self.title}, {title}", verdict) for title, verdict in found if verdict]


def figure(samples: Sequence[float], unit: str) -> str:
    scaled = [sample / _SCALE[unit] for sample in samples]
    form = ".1f" if statistics.median(scaled) < 100 else ".0f"
    return f"{spread(scaled, form)} {unit}"


def spread(values: Sequence[float], form: str) -> str:
    """The median, and the least and the greatest where there are several."""
    middle = f"{statistics.median(values):{form}}"
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}–{max(values):{form}})"


def _table(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (lines[0], rule, *lines[1:])
    )
