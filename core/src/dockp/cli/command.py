"""Commands, and groups of them, as data. `dockp.cli.clicked` shows them to click, for help and completion."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence

from dockp.cli.app import App
from dockp.cli.flags import Flag, Values

Action = Callable[[App, Values], int | None]


class Command:
    """One command.

    Args:
        usage: what follows the name in the usage line.
        summary: one line, no full stop.
        action: called with the app and the parsed values; its result is the exit code (None is 0).
        args: least and greatest number of arguments; None for no upper limit.
        interspersed: flags may come after arguments.
        aliases: for the help text.
        examples: complete command lines, each of which parses (a test checks).
        names: what the arguments name, for completion: a key of `dockp.cli.completing.NAMES`.
    """

    def __init__(
        self,
        usage: str,
        summary: str,
        action: Action,
        flags: Sequence[Flag] = (),
        *,
        args: tuple[int, int | None] = (0, None),
        interspersed: bool = True,
        aliases: str = "",
        examples: Sequence[str] = (),
        names: str = "",
    ) -> None:
        self.usage, self.summary, self.action, self.flags, self.args = usage, summary, action, flags, args
        self.interspersed, self.aliases, self.examples, self.names = interspersed, aliases, examples, names

    def takes(self, count: int) -> bool:
        """Whether that many arguments are right."""
        least, most = self.args
        return count >= least and (most is None or count <= most)


class Tree:
    """A command with commands under it, which are loaded when named.

    Args:
        summary: one line.
        places: name -> ``"module:NAME"`` in `dockp.cli.commands`, or a `Tree`.
        also: other spellings -> name.
        sections: headings for the help text -> names; all others come under "Commands".
    """

    def __init__(
        self,
        summary: str,
        places: Mapping[str, str | Tree],
        *,
        also: Mapping[str, str] | None = None,
        sections: Mapping[str, Sequence[str]] | None = None,
        usage: str = "COMMAND",
        epilog: str = "",
    ) -> None:
        self.summary, self.places, self.also = summary, places, also or {}
        self.sections, self.usage, self.epilog = sections or {}, usage, epilog

    def get(self, name: str) -> Command | Tree | None:
        """What is called ``name`` here."""
        place = self.places.get(self.also.get(name, name))
        if not isinstance(place, str):
            return place
        module, _, attribute = place.partition(":")
        command: Command = getattr(importlib.import_module(f"dockp.cli.commands.{module}"), attribute)
        return command

    def find(self, words: Sequence[str]) -> tuple[Command, Sequence[str]] | None:
        """The command that ``words`` begin with, and the words after it; None when they name none."""
        found: Command | Tree | None = self
        for position, word in enumerate(words):
            if isinstance(found, Tree):
                found = found.get(word)
            if isinstance(found, Command):
                return found, words[position + 1 :]
            if found is None:
                return None
        return None
