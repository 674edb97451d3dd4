"""The command line as click knows it: help texts, mistakes in Docker's words, shell completion.

Only imported for these. A command line that is in order goes straight to its `dockp.cli.command.Command`, since click
takes a sixth of the time of a whole ``dockp run`` to import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import shell_complete

from dockp.cli.app import App, Failure
from dockp.cli.command import Command, Tree
from dockp.cli.flags import HELP, Flag, UsageError, parse
from dockp.cli.tree import GLOBAL_FLAGS, ROOT

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Leaf(click.Command):
    """One `Command`, by click."""

    def __init__(self, command: Command) -> None:
        super().__init__(None, help=command.summary, short_help=command.summary, add_help_option=False)
        self.row = command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            values = parse(self.row.flags, args, interspersed=self.row.interspersed)
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
        return self.row.action(ctx.find_object(App) or App(), ctx.meta["dockp.values"]) or 0

    def use_line(self, ctx: click.Context) -> str:
        return f"{ctx.command_path} {self.row.usage}".rstrip()

    def _hint(self, ctx: click.Context) -> str:
        return f"Usage:  {self.use_line(ctx)}\n\nRun '{ctx.command_path} --help' for more information"

    def _check_count(self, ctx: click.Context, count: int) -> None:
        if self.row.takes(count):
            return
        least, most = self.row.args
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
        return [_as_option(flag) for flag in (*self.row.flags, HELP) if not flag.hidden]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of objects, or flags after a dash."""
        values = ctx.meta.get("dockp.values")
        if not self.row.names or incomplete.startswith("-") or values is None:
            return super().shell_complete(ctx, incomplete)
        from dockp.cli.completing import complete

        # Where flags end at the first argument, what comes after it is a command of the container.
        if values.args and not self.row.interspersed:
            return []
        app = ctx.find_object(App) or App()
        app.configure(ctx.find_root().params)
        return complete(app, self.row.names, incomplete, values.args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"Usage:  {self.use_line(ctx)}\n\n{self.help}\n")
        if self.row.aliases:
            formatter.write(f"\nAliases:\n  {self.row.aliases}\n")
        rows = [(_label(flag), _described(flag)) for flag in sorted(self.row.flags) if not flag.hidden]
        if rows:
            with formatter.section("Options"):
                formatter.write_dl(rows, col_max=36)
        if self.row.examples:
            formatter.write("\nExamples:\n")
            for line in self.row.examples:
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
    names = ([f"-{flag.short}"] if flag.short else []) + [f"--{flag.name}"]
    if not flag.kind.word:
        return click.Option(names, is_flag=True, help=flag.help)
    kind = click.Choice(flag.choices) if flag.choices else None
    word = None if kind else flag.kind.word
    return click.Option(names, multiple=bool(flag.kind.many), help=flag.help, type=kind, metavar=word)


class Group(click.Group):
    """One `Tree`, by click. ``flags`` are the global ones, for the root."""

    def __init__(self, tree: Tree, flags: Sequence[Flag] = ()) -> None:
        super().__init__(
            None,
            help=tree.summary,
            short_help=tree.summary,
            add_help_option=False,
            epilog=tree.epilog,
            invoke_without_command=True,
            callback=_global_flags if flags else None,
            params=[_as_option(flag) for flag in flags],
        )
        self.tree = tree
        self.params.append(
            click.Option(["-h", "--help"], is_flag=True, is_eager=True, expose_value=False, callback=_help)
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.tree.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = self.tree.get(cmd_name)
        if isinstance(found, Tree):
            return Group(found)
        return None if found is None else Leaf(found)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        command = self.get_command(ctx, args[0])
        if command is None:
            if ctx.resilient_parsing:
                return None, None, args[1:]
            path = ctx.command_path
            hint = f"Usage:  {path} {self.tree.usage}\n\n" if ctx.parent else ""
            raise Failure(f"dockp: unknown command: {path} {args[0]}\n\n{hint}Run '{path} --help' for more information")
        return self.tree.also.get(args[0], args[0]), command, args[1:]

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
        return f"Usage:  {ctx.command_path} {self.tree.usage}\n\nRun '{ctx.command_path} --help' for more information"

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"Usage:  {ctx.command_path} {self.tree.usage}\n\n{self.help}\n")
        left = set(self.tree.places)
        headings = {heading: list(names) for heading, names in self.tree.sections.items()}
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


def _global_flags(version: bool, **flags: Any) -> None:
    context = click.get_current_context()
    if version:
        from dockp import __version__

        click.echo(f"dockp version {__version__}")
        context.exit()
    app = context.find_object(App)
    if app is not None:
        app.configure(flags)


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


def run(app: App, arguments: Sequence[str]) -> int:
    """Run a command line, or print what is wrong with it, or complete it. Raises: Failure, and what commands raise."""
    root = Group(ROOT, GLOBAL_FLAGS)
    completion = os.environ.get("_DOCKP_COMPLETE")
    if completion:
        return shell_complete(root, {"obj": app}, "dockp", "_DOCKP_COMPLETE", completion)
    try:
        with root.make_context("dockp", list(arguments), obj=app) as context:
            return int(root.invoke(context) or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        raise Failure(f"{error.format_message()}\n\nRun 'dockp --help' for more information", 125) from None
