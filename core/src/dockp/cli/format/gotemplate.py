"""Go templates, as users of Docker type them after ``--format``.

>>> compile("{{.Name}}: {{join .Tags \\", \\"}}").render({"Name": "web", "Tags": ["a", "b"]})
'web: a, b'

The language is Go's text/template with the functions docker adds (json, join, split, upper, lower, title,
pad, truncate). Messages are those the docker command prints.
"""

from __future__ import annotations

from collections.abc import Mapping

from dockp.cli.format import parser
from dockp.cli.format.evaluator import EvaluationFault, Evaluator, Kind, MissingKey
from dockp.cli.format.functions import FUNCTIONS, HEADER_FUNCTIONS
from dockp.spi.errors import InvalidArgument

__all__ = ["Kind", "MissingKey", "Template", "TemplateError", "compile"]


class TemplateError(InvalidArgument):
    """A template is malformed or does not fit the value; the message starts "template parsing error: "."""


class Template:
    """A compiled template; immutable, may be rendered by many threads at once."""

    __slots__ = ("_named", "_root", "text")

    def __init__(self, text: str) -> None:
        """Raises: TemplateError when ``text`` is malformed."""
        self.text = text
        try:
            self._root, self._named = parser.parse(text, FUNCTIONS)
        except parser.ParseFault as fault:
            raise TemplateError(f"template parsing error: {fault}") from None
        except RecursionError:
            raise TemplateError("template parsing error: template: :1: nested too deeply") from None

    def render(
        self,
        value: object,
        *,
        missing: MissingKey = "novalue",
        shape: Mapping[str, Kind] | None = None,
    ) -> str:
        """Render over ``value``: anything JSON can say, or a `govalues.Struct`.

        Args: ``missing`` what an absent key of a dict gives: ``novalue`` prints ``<no value>``, ``error``
        refuses it. ``shape`` says of field names what they hold in a typed document, so that an optional
        field that is absent or null counts as empty there and not as an error; it also lets a name match a
        key that differs in case only (``.ID`` for ``Id``), as Go's structures do.
        Raises: TemplateError when the template does not fit the value.
        """
        run = Evaluator(self.text, self._named, FUNCTIONS, missing, shape)
        try:
            run.run(self._root, value)
        except EvaluationFault as fault:
            raise TemplateError(f"template parsing error: {fault}") from None
        except RecursionError:
            raise TemplateError("template parsing error: template: nested too deeply") from None
        return "".join(run.out)

    def render_header(self, headers: Mapping[str, object]) -> str:
        """Render the header line of a table: functions leave the header alone, and nothing is refused.

        Where the template does not fit headers, what came before that place is the header, as in Docker.
        """
        from contextlib import suppress

        from dockp.cli.format.govalues import Struct

        run = Evaluator(self.text, self._named, HEADER_FUNCTIONS, "novalue", None)
        with suppress(EvaluationFault, RecursionError):
            run.run(self._root, Struct("formatter.SubHeaderContext", headers, is_map=True))
        return "".join(run.out)


def compile(text: str) -> Template:
    """Compile a template. Raises: TemplateError with Go's message, e.g. ``unclosed action``."""
    return Template(text)
