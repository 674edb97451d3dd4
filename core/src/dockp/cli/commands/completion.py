"""``completion``: the scripts that make a shell complete ``dockp`` commands, made by click."""

from __future__ import annotations

from dockp.cli.app import App
from dockp.cli.command import Action, Command
from dockp.cli.flags import Values


def _script(shell: str) -> Action:
    def show(app: App, values: Values) -> None:
        from click.shell_completion import get_completion_class

        from dockp.cli.clicked import Group
        from dockp.cli.tree import ROOT

        maker = get_completion_class(shell)
        if maker is not None:
            print(maker(Group(ROOT), {}, "dockp", "_DOCKP_COMPLETE").source())

    return show


def _command(shell: str, *examples: str) -> Command:
    return Command("", f"Print the completion script for {shell}", _script(shell), args=(0, 0), examples=examples)


BASH = _command("bash", "dockp completion bash")
ZSH = _command("zsh", "dockp completion zsh")
FISH = _command("fish", "dockp completion fish")
