"""Commands and groups: click's classes, with Docker's rules for flags and Docker's texts for help and mistakes.

A leaf command is a `Command` row: flags as data, limits for its arguments, a function. click's `Option` objects, which
are slow to make, are only made for shell completion.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from dockp.cli.app import App, Failure
from dockp.cli.flags import HELP, Flag, UsageError, Values, parse

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Action = Callable[[App, Values], int | None]


class Command(click.Command):
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
        super().__init__(None, help=summary, short_help=summary, add_help_option=False)
        self.usage, self.action, self.flags, self.args = usage, action, flags, args
        self.interspersed, self.aliases, self.examples, self.names = interspersed, aliases, examples, names

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            values = parse(self.flags, args, interspersed=self.interspersed)
        except UsageError as error:
            if ctx.resilient_parsing:
                return []
            raise Failure(f"{error}\n\n{self._hint(ctx)}", 125) from None
        if not ctx.resilient_parsing:
            if "help" in values.given:
                click.echo(ctx.get_help())
                ctx.exit()
            self._check_count(ctx, len(values.args))
        ctx.meta["dockp.values"] = values
        return []

    def invoke(self, ctx: click.Context) -> int:
        return self.action(ctx.find_object(App) or App(), ctx.meta["dockp.values"]) or 0

    def use_line(self, ctx: click.Context) -> str:
        return f"{ctx.command_path} {self.usage}".rstrip()

    def _hint(self, ctx: click.Context) -> str:
        return f"Usage:  {self.use_line(ctx)}\n\nRun '{ctx.command_path} --help' for more information"

    def _check_count(self, ctx: click.Context, count: int) -> None:
        least, most = self.args
        if count >= least and (most is None or count <= most):
            return
        if most == 0:
            wants = "accepts no arguments"
        elif most == least:
            wants = f"requires {least} argument{'s' if least > 1 else ''}"
        elif count < least and most is None:
            wants = f"requires at least {least} argument{'s' if least > 1 else ''}"
        elif least == 0:
            wants = f"requires at most {most} argument{'s' if most != 1 else ''}"
        else:
            wants = f"requires at least {least} and at most {most} arguments"
        hint = self._hint(ctx)
        if "at least" in wants and most is None:
            hint = hint.replace("\nRun '", "\nSee '")  # Docker says it this way here, and only here
        raise Failure(f"dockp: '{ctx.command_path}' {wants}\n\n{hint}")

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The flags as click knows them, for completion."""
        return [_as_option(flag) for flag in (*self.flags, HELP) if not flag.hidden]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of objects, or flags after a dash."""
        values = ctx.meta.get("dockp.values")
        if not self.names or incomplete.startswith("-") or values is None:
            return super().shell_complete(ctx, incomplete)
        from dockp.cli.completing import complete

        # Where flags end at the first argument, what comes after it is a command of the container.
        if values.args and not self.interspersed:
            return []
        app = ctx.find_object(App) or App()
        app.configure(ctx.find_root().params)
        return complete(app, self.names, incomplete, values.args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"Usage:  {self.use_line(ctx)}\n\n{self.help}\n")
        if self.aliases:
            formatter.write(f"\nAliases:\n  {self.aliases}\n")
        rows = [(_label(flag), _described(flag)) for flag in sorted(self.flags) if not flag.hidden]
        if rows:
            with formatter.section("Options"):
                formatter.write_dl(rows, col_max=36)
        if self.examples:
            formatter.write("\nExamples:\n")
            for line in self.examples:
                formatter.write(f"  {line}\n")


def _label(flag: Flag) -> str:
    return f"{f'-{flag.short},' if flag.short else '   '} --{flag.name} {flag.kind.word}".rstrip()


def _described(flag: Flag) -> str:
    default = flag.default
    if default in (None, "", 0, False):
        return flag.help
    shown = f'"{default}"' if isinstance(default, str) else str(default).lower()
    return f"{flag.help} (default {shown})"


def _as_option(flag: Flag) -> click.Option:
    names = [f"--{flag.name}"] + ([f"-{flag.short}"] if flag.short else [])
    if not flag.kind.word:
        return click.Option(names, is_flag=True, help=flag.help)
    kind = click.Choice(flag.choices) if flag.choices else None
    return click.Option(names, multiple=bool(flag.kind.many), help=flag.help, type=kind)


class Group(click.Group):
    """A command with commands under it, which are loaded when named.

    Args:
        summary: one line.
        places: name -> ``"module:NAME"`` in `dockp.cli.commands`, or a `Group`.
        also: other spellings -> name.
        sections: headings for the help text -> names; all others come under "Commands".
    """

    def __init__(
        self,
        summary: str,
        places: Mapping[str, str | Group],
        *,
        also: Mapping[str, str] | None = None,
        sections: Mapping[str, Sequence[str]] | None = None,
        usage: str = "COMMAND",
        epilog: str = "",
        **more: Any,
    ) -> None:
        super().__init__(
            None,
            help=summary,
            short_help=summary,
            add_help_option=False,
            epilog=epilog,
            invoke_without_command=True,
            **more,
        )
        self.places, self.also, self.sections, self.usage = places, also or {}, sections or {}, usage
        self.params.append(
            click.Option(["-h", "--help"], is_flag=True, is_eager=True, expose_value=False, callback=_help)
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self.places.get(self.also.get(cmd_name, cmd_name))
        if not isinstance(place, str):
            return place
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"dockp.cli.commands.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        command = self.get_command(ctx, args[0])
        if command is None:
            if ctx.resilient_parsing:
                return None, None, args[1:]
            path = ctx.command_path
            hint = f"Usage:  {path} {self.usage}\n\n" if ctx.parent else ""
            raise Failure(f"dockp: unknown command: {path} {args[0]}\n\n{hint}Run '{path} --help' for more information")
        return self.also.get(args[0], args[0]), command, args[1:]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise Failure(f"{_docker_words(error, args)}\n\n{self._hint(ctx)}", 125) from None

    def invoke(self, ctx: click.Context) -> Any:
        result = super().invoke(ctx)
        if ctx.invoked_subcommand is None:
            sys.stderr.write(ctx.get_help() + "\n")
            return 0
        return result

    def _hint(self, ctx: click.Context) -> str:
        return f"Usage:  {ctx.command_path} {self.usage}\n\nRun '{ctx.command_path} --help' for more information"

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"Usage:  {ctx.command_path} {self.usage}\n\n{self.help}\n")
        left = set(self.places)
        headings = {heading: list(names) for heading, names in self.sections.items()}
        left -= {name for names in headings.values() for name in names}
        headings["Commands"] = sorted(left)
        for heading, names in headings.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(heading):
                formatter.write_dl([(name, command.short_help or "") for name, command in commands if command])
        options = [
            record for option in self.params if (record := option.get_help_record(ctx)) and option.name != "help"
        ]
        if options:
            with formatter.section("Global Options" if ctx.parent is None else "Options"):
                formatter.write_dl(options)
        tail = self.epilog or f"Run '{ctx.command_path} COMMAND --help' for more information on a command."
        formatter.write(f"\n{tail}\n")


def _help(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(ctx.get_help())
        ctx.exit()


def _docker_words(error: click.UsageError, args: Sequence[str]) -> str:
    """What Docker says where click says something of its own."""
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        if name.startswith("--"):
            return f"unknown flag: {name}"
        bundle = next((word for word in args if word.startswith("-") and name.lstrip("-") in word), name)
        return f"unknown shorthand flag: '{name.lstrip('-')}' in {bundle}"
    if isinstance(error, click.BadOptionUsage):
        return f"flag needs an argument: {error.option_name}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"invalid argument for --{(error.param.name or '').replace('_', '-')}: {error.message}"
    return error.format_message()
