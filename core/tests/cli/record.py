"""Record what Docker's own command line does with the cases of ``clicases.py``: run it again after adding cases.

Needs the ``docker`` command (any 28) and no daemon: it talks to ``fakedocker``. Writes the files of ``recorded/``.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ["RECORDING"] = "1"

import clicases  # noqa: E402
import clidocuments  # noqa: E402
import fakedocker  # noqa: E402


def docker(fake: fakedocker.FakeDocker, directory: Path, arguments: list[str]) -> dict[str, Any]:
    """Run docker with ``arguments``; its output, code and what it asked."""
    fake.requests.clear()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/root",
        "DOCKER_HOST": f"unix://{fake.address}",
        "DOCKER_CONFIG": str(directory / "config"),
        **clicases.ENVIRONMENT,
    }
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, env=environment, cwd=directory, check=False, timeout=30
    )
    place = str(directory)
    return {
        "code": done.returncode,
        "out": done.stdout.replace(place, "@DIR@"),
        "err": done.stderr.replace(place, "@DIR@"),
        "requests": json.loads(json.dumps(fake.requests).replace(place, "@DIR@")),
    }


def record_create(fake: fakedocker.FakeDocker, directory: Path) -> list[dict[str, Any]]:
    fake.answers["/containers/create"] = {"Id": "0" * 64, "Warnings": []}
    rows = []
    for row in clicases.CREATE:
        done = docker(fake, directory, ["create", *clicases.expand(row)])
        entry: dict[str, Any] = {"row": row, "code": done["code"]}
        sent = [request for request in done["requests"] if request[1] == "/containers/create"]
        if sent:
            entry["query"], entry["body"] = sent[0][2], sent[0][3]
        else:
            entry["err"] = done["err"]
        rows.append(entry)
    return rows


def record_mistakes(fake: fakedocker.FakeDocker, directory: Path) -> list[dict[str, Any]]:
    rows = []
    for row in clicases.MISTAKES:
        done = docker(fake, directory, shlex.split(row))
        rows.append({"row": row, "code": done["code"], "err": done["err"]})
    return rows


def record_output(fake: fakedocker.FakeDocker, directory: Path) -> list[dict[str, Any]]:
    rows = []
    for name, lines in clidocuments.LINES.items():
        for row in lines:
            fake.answers.clear()
            fake.answers.update(clidocuments.ANSWERS[name])
            done = docker(fake, directory, shlex.split(row))
            rows.append({"set": name, "row": row, "code": done["code"], "out": done["out"], "err": done["err"]})
    return rows


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name).resolve()
        for file, text in clicases.FILES.items():
            (directory / file).write_bytes(text.encode())
        (HERE / "recorded").mkdir(exist_ok=True)
        (HERE / "recorded" / "now.json").write_text(f"{clidocuments.NOW}\n")
        with fakedocker.serving(directory) as fake:
            for kind, recorder in (
                ("create", record_create),
                ("mistakes", record_mistakes),
                ("output", record_output),
            ):
                rows = recorder(fake, directory)
                lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
                (HERE / "recorded" / f"{kind}.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
