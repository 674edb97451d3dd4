"""Every command explains itself, and what it explains is true."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from clihelpers import Outcome

from dockp.cli.command import Command, Tree
from dockp.cli.flags import parse
from dockp.cli.tree import ROOT


def commands(tree: Tree = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    for name in sorted(tree.places):
        found = tree.get(name)
        if isinstance(found, Tree):
            yield from commands(found, (*path, name))
        else:
            assert found is not None
            yield (*path, name), found


ALL = list(commands())
NAMES = [" ".join(path) for path, _ in ALL]


@pytest.mark.parametrize(("path", "command"), ALL, ids=NAMES)
def test_help_is_complete(path: tuple[str, ...], command: Command, dockp: Callable[..., Outcome]) -> None:
    outcome = dockp(*path, "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.startswith(f"Usage:  dockp {' '.join(path)}")
    assert not command.summary.endswith(".")
    for flag in command.flags:
        assert flag.hidden or f"--{flag.name}" in outcome.out
        assert flag.help
    assert all(len(line) <= 100 for line in outcome.out.splitlines())


@pytest.mark.parametrize(("path", "command"), ALL, ids=NAMES)
def test_flags_have_names_of_their_own(path: tuple[str, ...], command: Command) -> None:
    names = [flag.name for flag in command.flags]
    letters = [flag.short for flag in command.flags if flag.short]
    assert len(set(names)) == len(names)
    assert len(set(letters)) == len(letters)
    assert all(flag.alias_of in names for flag in command.flags if flag.alias_of)


@pytest.mark.parametrize(("path", "command"), ALL, ids=NAMES)
def test_examples_parse(path: tuple[str, ...], command: Command) -> None:
    assert command.examples
    for line in command.examples:
        words = shlex.split(line)
        assert words[0] == "dockp"
        found = ROOT.find(words[1:])
        assert found is not None
        assert found[0] is command
        rest = found[1]
        values = parse(command.flags, rest, interspersed=command.interspersed)
        assert command.takes(len(values.args))


@pytest.mark.parametrize("line", [(), ("container",), ("--help",), ("-h",), ("image", "--help"), ("plugin", "-h")])
def test_groups_list_their_commands(line: tuple[str, ...], dockp: Callable[..., Outcome]) -> None:
    outcome = dockp(*line)
    assert outcome.code == 0
    assert "Commands:" in outcome.out + outcome.err


def test_other_spellings_are_the_same_commands() -> None:
    for short, group, name in (("ps", "container", "list"), ("images", "image", "ls"), ("rmi", "image", "remove")):
        assert ROOT.find([short]) == ROOT.find([group, name])


def test_a_command_line_in_order_does_without_click() -> None:
    code = (
        "import sys; from dockp.cli.app import _in_order;"
        "assert _in_order(['--data-root=/x', 'container', 'run', '-it', '--rm', 'image', 'sh', '-c', 'x']);"
        "assert 'click' not in sys.modules, 'click was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
