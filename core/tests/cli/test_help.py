"""Every command explains itself, and what it explains is true."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

import click
import pytest
from clihelpers import Outcome

from dockp.cli.command import Command, Group
from dockp.cli.flags import parse
from dockp.cli.tree import root


def commands(group: Group = root, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, Group):
            yield from commands(command, (*path, name))
        else:
            assert isinstance(command, Command)
            yield (*path, name), command


ALL = list(commands())
NAMES = [" ".join(path) for path, _ in ALL]


@pytest.mark.parametrize(("path", "command"), ALL, ids=NAMES)
def test_help_is_complete(path: tuple[str, ...], command: Command, dockp: Callable[..., Outcome]) -> None:
    outcome = dockp(*path, "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.startswith(f"Usage:  dockp {' '.join(path)}")
    assert not (command.help or "").endswith(".")
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
        found: click.Command | None = root
        rest = words[1:]
        while isinstance(found, Group):
            found = found.get_command(click.Context(found), rest[0])
            rest = rest[1:]
        assert found is command
        values = parse(command.flags, rest, interspersed=command.interspersed)
        least, most = command.args
        assert least <= len(values.args)
        assert most is None or len(values.args) <= most


@pytest.mark.parametrize("line", [(), ("container",), ("--help",), ("-h",), ("image", "--help"), ("plugin", "-h")])
def test_groups_list_their_commands(line: tuple[str, ...], dockp: Callable[..., Outcome]) -> None:
    outcome = dockp(*line)
    assert outcome.code == 0
    assert "Commands:" in outcome.out + outcome.err


def test_other_spellings_are_the_same_commands() -> None:
    context = click.Context(root)
    for short, group, name in (("ps", "container", "list"), ("images", "image", "ls"), ("rmi", "image", "remove")):
        inner = root.get_command(context, group)
        assert isinstance(inner, Group)
        assert root.get_command(context, short) is inner.get_command(click.Context(inner), name)
