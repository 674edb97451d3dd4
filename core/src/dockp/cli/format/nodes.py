"""The nodes of a parsed template."""

from __future__ import annotations

from dockp.golang import quote


class Node:
    """Base of all nodes. ``pos`` is the offset in the source; ``str(node)`` is Go's rendering of the node."""

    __slots__ = ("pos",)

    def __init__(self, pos: int) -> None:
        self.pos = pos


class Dot(Node):
    __slots__ = ()

    def __str__(self) -> str:
        return "."


class Nil(Node):
    __slots__ = ()

    def __str__(self) -> str:
        return "nil"


class Literal(Node):
    """A constant. ``value`` is what it is worth where no type is asked for; ``source`` how it was written.

    ``integer`` is its worth where an integer is asked for (5.0 is 5 there), or None.
    """

    __slots__ = ("integer", "source", "value")

    def __init__(self, pos: int, source: str, value: object, integer: int | None = None) -> None:
        super().__init__(pos)
        self.source = source
        self.value = value
        self.integer = integer

    def __str__(self) -> str:
        return self.source


class Identifier(Node):
    """The name of a function."""

    __slots__ = ("name",)

    def __init__(self, pos: int, name: str) -> None:
        super().__init__(pos)
        self.name = name

    def __str__(self) -> str:
        return self.name


class Field(Node):
    """``.A.B``: fields of the dot."""

    __slots__ = ("names",)

    def __init__(self, pos: int, names: list[str]) -> None:
        super().__init__(pos)
        self.names = names

    def __str__(self) -> str:
        return "".join("." + name for name in self.names)


class Variable(Node):
    """``$x.A``: a variable (``name`` has its dollar) and fields of it."""

    __slots__ = ("name", "names")

    def __init__(self, pos: int, name: str, names: list[str]) -> None:
        super().__init__(pos)
        self.name = name
        self.names = names

    def __str__(self) -> str:
        return ".".join([self.name, *self.names])


class Chain(Node):
    """``(pipeline).A`` or ``function.A``: fields of what a term gives."""

    __slots__ = ("names", "term")

    def __init__(self, pos: int, term: Node, names: list[str]) -> None:
        super().__init__(pos)
        self.term = term
        self.names = names

    def __str__(self) -> str:
        return ".".join([operand_text(self.term), *self.names])


class Command(Node):
    """Operands in a row: a value, or a function (or method) and its arguments."""

    __slots__ = ("args",)

    def __init__(self, pos: int, args: list[Node]) -> None:
        super().__init__(pos)
        self.args = args

    def __str__(self) -> str:
        return " ".join(operand_text(arg) for arg in self.args)


class Pipe(Node):
    """Commands joined by ``|``, whose result may be given to variables: declared, or with ``assign`` set."""

    __slots__ = ("assign", "commands", "variables")

    def __init__(self, pos: int) -> None:
        super().__init__(pos)
        self.variables: list[Variable] = []
        self.assign = False
        self.commands: list[Command] = []

    def __str__(self) -> str:
        text = " | ".join(str(command) for command in self.commands)
        if not self.variables:
            return text
        names = ", ".join(str(variable) for variable in self.variables)
        return f"{names} {'=' if self.assign else ':='} {text}"


def operand_text(node: Node) -> str:
    """A node as an operand: pipelines in parentheses."""
    return f"({node})" if isinstance(node, Pipe) else str(node)


class Text(Node):
    __slots__ = ("text",)

    def __init__(self, pos: int, text: str) -> None:
        super().__init__(pos)
        self.text = text


class Action(Node):
    """``{{pipeline}}``: print its value, unless it only sets variables."""

    __slots__ = ("pipe",)

    def __init__(self, pos: int, pipe: Pipe) -> None:
        super().__init__(pos)
        self.pipe = pipe


class Block(Node):
    """``if``, ``with`` or ``range`` (``keyword``) with its body and its else branch."""

    __slots__ = ("body", "keyword", "orelse", "pipe")

    def __init__(self, keyword: str, pipe: Pipe, body: list[Node], orelse: list[Node]) -> None:
        super().__init__(pipe.pos)
        self.keyword = keyword
        self.pipe = pipe
        self.body = body
        self.orelse = orelse

    def __str__(self) -> str:
        return f"{{{{{self.keyword} {self.pipe}}}}}"


class Invoke(Node):
    """``{{template "name" pipeline}}``."""

    __slots__ = ("name", "pipe")

    def __init__(self, pos: int, name: str, pipe: Pipe | None) -> None:
        super().__init__(pos)
        self.name = name
        self.pipe = pipe

    def __str__(self) -> str:
        return f"{{{{template {quote(self.name)}{'' if self.pipe is None else f' {self.pipe}'}}}}}"


class Jump(Node):
    """``break`` or ``continue``."""

    __slots__ = ("keyword",)

    def __init__(self, pos: int, keyword: str) -> None:
        super().__init__(pos)
        self.keyword = keyword
