"""Listings as Docker prints them: ``ps``, ``image ls``, ``network ls`` and the like.

A command describes its rows once::

    LISTING = Listing(
        "formatter.ContainerContext",
        [Column("ID", "CONTAINER ID"), Column("Names", "NAMES"), Column("Size", "SIZE")],
        default="table {{.ID}}\\t{{.Names}}",
    )
    LISTING.write(sys.stdout, rows, format=options.format, quiet=options.quiet)

A row maps field names to values, or to callables without arguments that make the value when it is shown; a
`govalues.Method` takes the argument users give it (``.Label "name"``). Whether values are shortened
(``--no-trunc``) is up to the rows: `short_id` and `ellipsis` do what Docker does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from dockp.cli.format.govalues import Method, Struct, plain

MIN_WIDTH = 10
"""Least width of a column, its padding included."""
PADDING = 3
"""Spaces after the widest cell of a column."""


class Output(Protocol):
    """What a listing is written to."""

    def write(self, text: str, /) -> Any: ...


class Column(NamedTuple):
    """A field of a listing: its name in templates, and its header in tables."""

    name: str
    header: str


class Listing:
    """How one command lists. Immutable; one per command, at module level."""

    __slots__ = ("_headers", "default", "quiet", "raw", "type_name")

    def __init__(
        self,
        type_name: str,
        columns: Sequence[Column],
        *,
        default: str,
        quiet: str = "{{.ID}}",
        raw: str | None = None,
    ) -> None:
        """
        Args: ``type_name`` what error messages call a row; ``columns`` all fields a user may name;
        ``default`` the format when none is given; ``quiet`` the format of ``-q``; ``raw`` the format that the
        word ``raw`` stands for, where the command has one.
        """
        self.type_name = type_name
        self.default = default
        self.quiet = quiet
        self.raw = raw
        self._headers: dict[str, Any] = {column.name: column.header for column in columns}
        self._headers["Label"] = Method(_label_header)

    def uses(self, format: str | None, name: str) -> bool:
        """Whether a format shows the field ``name``, so that a command fetches sizes only when asked to."""
        return f".{name}" in (format or self.default) or format == "json"

    def write(
        self,
        out: Output,
        rows: Iterable[Mapping[str, Any]],
        *,
        format: str | None = None,
        quiet: bool = False,
        default: str | None = None,
    ) -> None:
        """Print ``rows`` to ``out``.

        Args: ``format`` as the user gave it: None, ``table``, ``table TEMPLATE``, ``json``, ``raw`` or a
        template, in which ``\\t`` and ``\\n`` stand for tab and newline; ``quiet`` for ``-q``, which wins;
        ``default`` replaces the listing's own, e.g. where ``--size`` adds a column.
        Raises: TemplateError, before anything is printed.
        """
        chosen = format or "table"
        if quiet:
            chosen = self.quiet
        elif chosen == "table":
            chosen = default or self.default
        elif chosen == "raw" and self.raw is not None:
            chosen = self.raw
        if chosen == "json":
            from dockp.cli.format.gojson import to_json

            out.write("".join(to_json(self._struct(row)) + "\n" for row in rows))
            return
        # The most usual listings need no template engine, which costs more to import than they to print.
        is_table = chosen.startswith("table")
        text = chosen.removeprefix("table") if is_table else chosen
        text = text.strip(" ").replace("\\t", "\t").replace("\\n", "\n")
        names = _plain_fields(text)
        if names is not None and all(name in self._headers and name != "Label" for name in names):
            body = "".join("\t".join(self._cells(row, names)) + "\n" for row in rows)
            header = "\t".join(self._headers[name] for name in names)
        else:
            from dockp.cli.format.gotemplate import compile

            template = compile(text)
            body = "".join(template.render(self._struct(row)) + "\n" for row in rows)
            header = template.render_header(self._headers) if is_table else ""
        out.write(align(f"{header}\n{body}") if is_table else body)

    def _struct(self, row: Mapping[str, Any]) -> Struct:
        return Struct(f"*{self.type_name}", row)

    def _cells(self, row: Mapping[str, Any], names: list[str]) -> Iterable[str]:
        for name in names:
            value = row[name]
            yield plain(value() if callable(value) else value)


def _label_header(name: str) -> str:
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def _plain_fields(template: str) -> list[str] | None:
    """The fields of a template that is only ``{{.A}}`` parted by tabs, or None."""
    names = []
    for part in template.split("\t"):
        if not (part.startswith("{{.") and part.endswith("}}") and part[3:-2].isidentifier()):
            return None
        names.append(part[3:-2])
    return names


# -- aligning -------------------------------------------------------------------------------------------


def width(text: str) -> int:
    """The places ``text`` takes in a terminal: two for wide East Asian characters, none for combining ones."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    places = 0
    for char in text:
        if category(char) not in ("Mn", "Me", "Cf"):
            places += 2 if east_asian_width(char) in "WF" else 1
    return places


def align(text: str, min_width: int = MIN_WIDTH, padding: int = PADDING) -> str:
    """Align tab-separated cells into columns, as Go's text/tabwriter does with spaces for padding.

    A column is a run of consecutive lines that have a cell there which a tab ends; the last cell of a line
    belongs to no column.
    """
    lines = [line.split("\t") for line in text.split("\n")]
    widths: list[list[int]] = [[] for _ in lines]
    for column in range(max(len(cells) for cells in lines) - 1):
        block: list[int] = []
        for number, cells in enumerate([*lines, []]):
            if len(cells) - 1 > column:
                block.append(number)
                continue
            if block:
                widest = max(width(lines[member][column]) for member in block)
                for member in block:
                    widths[member].append(max(min_width, widest + padding))
                block = []
    out = []
    for cells, places in zip(lines, widths, strict=True):
        padded = [cell + " " * (place - width(cell)) for cell, place in zip(cells, places, strict=False)]
        out.append("".join(padded) + cells[-1])
    return "\n".join(out)


# -- what Docker does to values ------------------------------------------------------------------------


def short_id(identifier: str) -> str:
    """An id without its algorithm, cut to twelve digits."""
    return identifier.rpartition(":")[2][:12]


def ellipsis(text: str, places: int) -> str:
    """``text`` cut to fit ``places`` of a terminal, the last of them an ellipsis when something was cut."""
    if places <= 0:
        return ""
    if places == 1:
        return text[:1]
    if width(text) <= places:
        return text
    while width(text) > places - 1:
        text = text[:-1]
    return text + "…"


def ports_text(ports: Iterable[Mapping[str, Any]]) -> str:
    """Ports as the Ports field shows them: ``0.0.0.0:8080->80/tcp, 9000-9002/udp``.

    Args: ``ports`` as the Engine API lists them: PrivatePort, Type, and IP and PublicPort where published.
    Neighbouring ports make a range, unless the public number differs from the private one.
    """
    from ipaddress import ip_address

    def order(port: Mapping[str, Any]) -> tuple[Any, ...]:
        address = ip_address(port["IP"]) if port.get("IP") else None
        place = (0, b"") if address is None else (address.version, address.packed)
        return port["PrivatePort"], place, port.get("PublicPort", 0), port["Type"]

    def group(where: tuple[str, str], first: int, last: int) -> str:
        host, protocol = where
        numbers = str(first) if first == last else f"{first}-{last}"
        return f"{host}:{numbers}->{numbers}/{protocol}" if host else f"{numbers}/{protocol}"

    closed: list[str] = []
    single: list[str] = []
    ranges: dict[tuple[str, str], list[int]] = {}
    for port in sorted(ports, key=order):
        private, protocol, host = port["PrivatePort"], port["Type"], port.get("IP") or ""
        host = f"[{host}]" if ":" in host else host
        if host and port.get("PublicPort", 0) != private:
            single.append(f"{host}:{port.get('PublicPort', 0)}->{private}/{protocol}")
            continue
        where = host, protocol
        span = ranges.get(where)
        if span is not None and private == span[1] + 1:
            span[1] = private
            continue
        if span is not None:
            closed.append(group(where, *span))
        ranges[where] = [private, private]
    return ", ".join([*closed, *(group(where, *span) for where, span in ranges.items()), *single])


def labels_text(labels: Mapping[str, str] | None) -> str:
    """Labels as the Labels field shows them: ``a=1,b=2``, sorted."""
    return ",".join(sorted(f"{key}={value}" for key, value in (labels or {}).items()))
