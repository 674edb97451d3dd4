"""Write requirements.lock: everything that running, testing and building all distributions here needs, with hashes.

Usage: python scripts/lock.py UV OUTPUT        (``make lock``)
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# Every package that running, testing and building dockp needs, with hashes. Made by `make lock`; do not edit.
"""
OUR_OWN = re.compile(r"dockp\b")


def wanted() -> list[str]:
    """The requirements that the workspace states, without its own distributions."""
    found: set[str] = set()
    for path in (ROOT / "pyproject.toml", ROOT / "core/pyproject.toml", *sorted(ROOT.glob("drivers/*/pyproject.toml"))):
        document = tomllib.loads(path.read_text())
        project = document["project"]
        found.update(project.get("dependencies", ()))
        for extra in project.get("optional-dependencies", {}).values():
            found.update(extra)
        for group in document.get("dependency-groups", {}).values():
            found.update(group)
        found.update(document["build-system"]["requires"])
    return sorted(line for line in found if not OUR_OWN.match(line))


def main(uv: str, output: str) -> None:
    # The machine's own package settings must not end up in the file, nor decide what is in it.
    env = {name: value for name, value in os.environ.items() if not name.startswith("UV_FIND_LINKS")}
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch, "requirements.in")
        listed.write_text("\n".join(wanted()) + "\n")
        result = Path(scratch, "requirements.lock")
        command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version=3.11", "--generate-hashes"]
        command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--strip-extras"]
        subprocess.run([*command, "-o", str(result), str(listed)], check=True, env=env)
        text = result.read_text()
    foreign = [line for line in text.splitlines() if "://" in line or line.startswith("-")]
    if foreign:
        sys.exit(f"the lock would name a place of this machine: {foreign[0]}")
    temporary = f"{output}.new"
    Path(temporary).write_text(HEADER + text)
    os.replace(temporary, output)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
