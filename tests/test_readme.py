"""What the README shows is what happens. Blocks below a line ``<!-- tested -->`` are run, and their output compared;
those below ``<!-- tested: daemon -->`` with a dockpd at ``DOCKER_HOST``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import REPOSITORY, Daemon, Dockp, image_tar

_BLOCK = re.compile(r"^<!-- tested((?:: daemon)?) -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BLOCKS = _BLOCK.findall((REPOSITORY / "README.md").read_text())


def _of(language: str, where: str = "") -> list[str]:
    return [text for at, kind, text in _BLOCKS if (at, kind) == (where, language)]


@pytest.fixture
def images(dockp: Dockp) -> Dockp:
    if dockp("image", "inspect", "debian:bookworm").returncode:
        dockp.add_image("debian:bookworm", image_tar("debian"))
    return dockp


def _run(dockp: Dockp, *command: str, **further: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = dockp.environment | {"PATH": path} | further
    done = subprocess.run(
        command, env=environment, cwd=dockp.base, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_there_is_something_to_test() -> None:
    assert len(_of("console")) == 2
    assert len(_of("console", ": daemon")) == 1
    assert len(_of("python")) == 1


@pytest.mark.parametrize("block", _of("console"))
def test_the_commands_print_what_is_shown(images: Dockp, block: str) -> None:
    _print_what_is_shown(images, block)


@pytest.mark.embedded
@pytest.mark.parametrize("block", _of("console", ": daemon"))
def test_dockers_commands_print_what_is_shown(images: Dockp, block: str) -> None:
    with Daemon(images) as daemon:
        _print_what_is_shown(images, block, DOCKER_HOST=daemon.url)


def _print_what_is_shown(images: Dockp, block: str, **further: str) -> None:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        # "…" stands for anything within a line.
        pattern = ".*".join(re.escape(piece) for piece in shown.split("…"))
        printed = _run(images, "bash", "-c", command, **further)
        assert re.fullmatch(pattern, printed), f"$ {command}\n{printed}"


@pytest.mark.parametrize("block", _of("python"))
def test_the_program_runs(images: Dockp, block: str) -> None:
    printed = _run(images, sys.executable, "-c", block)
    assert printed.startswith("0 PRETTY_NAME=")
    assert "[['/server']]" in printed


_LIBRARY = [text for *_, text in _BLOCK.findall((REPOSITORY / "docs" / "library.md").read_text())]
_LIBRARY_PRINTS = (
    "3 b'hello'\nnot-found\nNo such container: nosuch\n",
    "['0', '1', '2']\nstdout 1\nstdout 2\nstdout 3\n",
)


@pytest.mark.parametrize(("block", "printed"), list(zip(_LIBRARY, _LIBRARY_PRINTS, strict=True)))
def test_the_programs_of_the_library_page_print_what_they_should(dockp: Dockp, block: str, printed: str) -> None:
    assert _run(dockp, sys.executable, "-c", block) == printed
