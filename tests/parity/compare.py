"""Run scripts of docker commands against both daemons, and show where they differ.

``python tests/parity/compare.py [--client 28|20.10] SCRIPT…``, as root. A script is one line of shell a step, with
``docker`` the client of the run; a backslash at the end continues a line. Before a step there may be
``#: why``: a difference that is known, and why it stays; it is an error if there is none.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
from twins import Outcome, Twin, client, together, twins


@attrs.frozen
class Step:
    line: int
    command: str
    reason: str = ""
    """Why the two may differ here; empty: they may not."""


def parse(text: str) -> Iterator[Step]:
    """The steps of a script."""
    reason, command, first = "", "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not command and line.startswith("#:"):
            reason = f"{reason} {line[2:].strip()}".strip()
        elif command or (line.strip() and not line.startswith("#")):
            first = first if command else number
            command += line.removesuffix("\\")
            if not line.endswith("\\"):
                yield Step(first, command, reason)
                reason, command = "", ""


def play(twin: Twin, steps: list[Step]) -> list[Outcome]:
    """What each step says, normalised."""
    found = []
    for step in steps:
        outcome = twin(step.command)
        found.append(Outcome(outcome.code, twin.normal(outcome.stdout), twin.normal(outcome.stderr)))
    return found


def differences(pair: tuple[Twin, Twin], script: Path) -> list[str]:
    """One text for each step that differs and should not, or should and does not."""
    steps = list(parse(script.read_text()))
    theirs, ours = together(lambda twin: play(twin, steps), pair)
    found = []
    for step, one, other in zip(steps, theirs, ours, strict=True):
        where = f"{script.name}:{step.line}: {step.command}"
        if one != other and not step.reason:
            lines = difflib.unified_diff(str(one).splitlines(), str(other).splitlines(), n=1, lineterm="")
            found.append("\n".join([where, *list(lines)[2:]]))
        elif one == other and step.reason:
            found.append(f"{where}\n  differs no more, though: {step.reason}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--client", default="28")
    parser.add_argument("scripts", nargs="+", type=Path)
    arguments = parser.parse_args()
    count = 0
    with tempfile.TemporaryDirectory(prefix="parity-") as base, twins(Path(base), client(arguments.client)) as pair:
        for script in arguments.scripts:
            for text in differences(pair, script):
                count += 1
                print(text, end="\n\n", flush=True)
    print(f"{count} differences")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
