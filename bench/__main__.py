"""The command. Run by scripts/bench.sh, in mount and pid namespaces that end with it."""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
from pathlib import Path

from bench import machine
from bench.daemons import Daemons
from bench.measures import Bench
from bench.pulls import Pulls
from bench.report import Section
from bench.turns import Turns

_REPOSITORY = Path(__file__).resolve().parent.parent
_BEGIN, _END = "<!-- figures: begin -->", "<!-- figures: end -->"


def main() -> int:
    """Measure, print, and put the figures into the page; 1 when something failed to run, else 0."""
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description="dockp beside runc, docker and podman")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; prints only")
    parser.add_argument("--daemons", action="store_true", help="dockpd beside dockerd only; prints only")
    parser.add_argument("--pulls", action="store_true", help="pulls, dockpd beside dockerd, only; prints only")
    parser.add_argument("--home", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--images", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--cgroup", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    facts = [*machine.describe(), ("load before", machine.load())]
    debian = options.images / "debian.tar"
    busybox = options.images / "busybox.tar"
    turns = Turns()
    benches: list[Bench | Daemons | Pulls] = []
    if not options.daemons and not options.pulls:
        whole = debian if debian.exists() and not options.quick else None
        benches.append(Bench(options.home, busybox, whole, options.cgroup, turns, options.quick))
    if not options.pulls:
        benches.append(Daemons(options.home, busybox, options.cgroup, turns, options.quick))
    if options.pulls or (debian.exists() and not options.quick and not options.daemons):
        benches.append(Pulls(options.home, debian, options.cgroup, turns))
    sections: list[Section] = []
    for bench in benches:
        try:
            sections += bench.all()
        finally:
            bench.close()
        facts += bench.versions
    facts.append(("load after", machine.load()))
    partly = options.quick or options.daemons or options.pulls
    text = _page(facts, sections, partly)
    print(text)
    for what, verdict in (pair for section in sections for pair in section.verdicts()):
        print(f"{what}: {verdict}")
    if not partly and not turns.problems:
        _write(_REPOSITORY / "docs" / "benchmarks.md", text)
    for problem in turns.problems:
        print(f"failed: {problem}", file=sys.stderr)
    return 1 if turns.problems else 0


def _page(facts: list[tuple[str, str]], sections: list[Section], partly: bool) -> str:
    command = " ".join(["scripts/bench.sh", *sys.argv[1:]]) if partly else "make bench"
    known = [("command", f"`{command}`"), ("date", datetime.date.today().isoformat()), *facts, ("source", _commit())]
    lines = "\n".join(f"- {name}: {value}" for name, value in known)
    return f"{lines}\n\n" + "\n".join(section.render() for section in sections)


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", _REPOSITORY, "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.stdout.strip() or "no git checkout"


def _write(page: Path, text: str) -> None:
    before, found, rest = page.read_text().partition(_BEGIN)
    _, ended, after = rest.partition(_END)
    if not found or not ended:
        raise SystemExit(f"{page} has no place for figures: it needs the lines {_BEGIN} and {_END}")
    page.write_text(f"{before}{_BEGIN}\n\n{text}\n{_END}{after}")


if __name__ == "__main__":
    sys.exit(main())
