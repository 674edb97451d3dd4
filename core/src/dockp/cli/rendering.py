"""What several commands show in the same way."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from dockp.cli.app import Failure
from dockp.cli.flags import STRING, Flag, Values

LIST_FORMAT = Flag("format", "", STRING, "Format output: 'table', 'table TEMPLATE', 'json', or a Go template")
INSPECT_FORMAT = Flag("format", "f", STRING, "Format output: 'json', or a Go template")


def natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key in which numbers inside a text count as numbers."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def familiar(image: str) -> str:
    """An image reference as people write it (``docker.io/library/debian:12`` is ``debian:12``); other text stays."""
    from dockp.images.reference import parse
    from dockp.spi.errors import InvalidArgument

    try:
        return parse(image).familiar
    except InvalidArgument:
        return image


def write_documents(values: Values, fetch: Callable[[str], Mapping[str, Any]]) -> int:
    """Show the objects that the arguments name, as ``inspect`` does; the exit code.

    Raises: Failure with code 64 for a malformed template, as Docker does.
    """
    from dockp.cli.format.inspect_output import write_inspect
    from dockp.spi.errors import DockpError

    try:
        return write_inspect(sys.stdout, sys.stderr, values.args, fetch, format=values["format"] or None)
    except DockpError as error:
        raise Failure(str(error), 64) from None


def write_document(document: Mapping[str, Any], format: str) -> None:
    """Print one document as JSON (``json``) or through a template. Raises: Failure with code 64, InvalidArgument."""
    from dockp.cli.format.gotemplate import TemplateError, compile

    try:
        template = compile("{{json .}}" if format == "json" else format)
    except TemplateError as error:
        raise Failure(str(error), 64) from None
    print(template.render(document))
