"""Parse a Go template into a tree of nodes.

Grammar and error wording are those of Go's text/template, so that a format that works with ``docker`` works
here, and a broken one gets the same complaint. ``parse`` returns the main body and the named templates.
"""

from __future__ import annotations

import re
from collections.abc import Container

from dockp.cli.format import lexer
from dockp.cli.format.lexer import Token, quote


class ParseFault(Exception):
    """The template is malformed; ``str()`` is Go's message, with the line."""


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


class _End(Node):
    """``{{end}}`` or ``{{else}}``: ends a list of nodes, never part of the tree."""

    __slots__ = ("keyword",)

    def __init__(self, pos: int, keyword: str) -> None:
        super().__init__(pos)
        self.keyword = keyword

    def __str__(self) -> str:
        return f"{{{{{self.keyword}}}}}"


_OPERANDS = frozenset(
    (
        lexer.BOOL,
        lexer.CHARACTER,
        lexer.DOT,
        lexer.FIELD,
        lexer.IDENTIFIER,
        lexer.NUMBER,
        lexer.NIL,
        lexer.RAW_STRING,
        lexer.STRING,
        lexer.VARIABLE,
        lexer.LEFT_PAREN,
    )
)


class _Parser:
    def __init__(self, text: str, functions: Container[str]) -> None:
        self.tokens = lexer.tokens(text)
        self.functions = functions
        self.at = 0  # index of the next token
        self.furthest = 0  # index of the last token ever looked at: where errors are reported
        self.variables = ["$"]
        self.loops = 0
        self.action_line = 0
        self.named: dict[str, list[Node]] = {}

    # -- tokens ---------------------------------------------------------------------------------------

    def peek(self) -> Token:
        at = min(self.at, len(self.tokens) - 1)
        self.furthest = max(self.furthest, at)
        return self.tokens[at]

    def next(self) -> Token:
        token = self.peek()
        self.at += 1
        return token

    def peek_solid(self) -> Token:
        """Skip spaces, then peek."""
        while self.peek().kind == lexer.SPACE:
            self.at += 1
        return self.peek()

    def next_solid(self) -> Token:
        self.peek_solid()
        return self.next()

    def expect(self, kind: str, context: str) -> Token:
        token = self.next_solid()
        if token.kind != kind:
            raise self.unexpected(token, context)
        return token

    def fault(self, message: str) -> ParseFault:
        return ParseFault(f"template: :{self.tokens[self.furthest].line}: {message}")

    def unexpected(self, token: Token, context: str) -> ParseFault:
        if token.kind != lexer.ERROR:
            return self.fault(f"unexpected {token.describe()} in {context}")
        extra = ""
        if self.action_line and self.action_line != token.line:
            started = f" started at :{self.action_line}"
            extra = started if token.text.endswith(" action") else " in action" + started
        return self.fault(token.text + extra)

    # -- lists and actions ----------------------------------------------------------------------------

    def parse(self) -> list[Node]:
        root: list[Node] = []
        while self.peek().kind != lexer.EOF:
            start = self.at
            if self.peek().kind == lexer.OPEN:
                self.next()
                token = self.next_solid()
                if token.kind == lexer.KEYWORD and token.text == "define":
                    self.definition()
                    continue
                self.at = start
            node = self.text_or_action()
            if isinstance(node, _End):
                raise self.fault(f"unexpected {node}")
            root.append(node)
        return root

    def definition(self) -> None:
        context = "define clause"
        name = self.template_name(self.next_solid(), context)
        self.expect(lexer.CLOSE, context)
        self.add(name, *self.isolated(context))

    def isolated(self, context: str) -> tuple[list[Node]]:
        """The body of a named template: it sees no variables and no loops from around it."""
        outer, self.variables, loops, self.loops = self.variables, ["$"], self.loops, 0
        body, end = self.items()
        if end.keyword != "end":
            raise self.fault(f"unexpected {end} in {context}")
        self.variables, self.loops = outer, loops
        return (body,)

    def add(self, name: str, body: list[Node]) -> None:
        if name in self.named and not _is_empty(self.named[name]):
            if not _is_empty(body):
                raise self.fault(f"template: multiple definition of template {quote(name)}")
            return
        self.named[name] = body

    def items(self) -> tuple[list[Node], _End]:
        nodes: list[Node] = []
        while self.peek_solid().kind != lexer.EOF:
            node = self.text_or_action()
            if isinstance(node, _End):
                return nodes, node
            nodes.append(node)
        raise self.fault("unexpected EOF")

    def text_or_action(self) -> Node:
        token = self.next_solid()
        if token.kind == lexer.TEXT:
            return Text(token.pos, token.text)
        if token.kind != lexer.OPEN:
            raise self.unexpected(token, "input")
        self.action_line = token.line
        node = self.action()
        self.action_line = 0
        return node

    def action(self) -> Node:
        token = self.peek_solid()
        if token.kind != lexer.KEYWORD or token.text == "define":
            return Action(token.pos, self.pipeline("command", lexer.CLOSE))
        self.next()
        word = token.text
        if word in ("if", "range", "with"):
            return self.control(word)
        if word in ("break", "continue"):
            following = self.next_solid()
            if following.kind != lexer.CLOSE:
                raise self.unexpected(following, f"{{{{{word}}}}}")
            if not self.loops:
                raise self.fault(f"{{{{{word}}}}} outside {{{{range}}}}")
            return Jump(token.pos, word)
        if word == "end":
            return _End(self.expect(lexer.CLOSE, "end").pos, word)
        if word == "else":
            following = self.peek_solid()
            if following.kind == lexer.KEYWORD and following.text in ("if", "with"):
                return _End(following.pos, word)
            return _End(self.expect(lexer.CLOSE, "else").pos, word)
        context = f"{word} clause"
        name_token = self.next_solid()
        name = self.template_name(name_token, context)
        if word == "block":
            pipe = self.pipeline(context, lexer.CLOSE)
            self.add(name, *self.isolated(context))
            return Invoke(name_token.pos, name, pipe)
        if self.peek_solid().kind == lexer.CLOSE:
            self.next()
            return Invoke(name_token.pos, name, None)
        return Invoke(name_token.pos, name, self.pipeline(context, lexer.CLOSE))

    def template_name(self, token: Token, context: str) -> str:
        if token.kind not in (lexer.STRING, lexer.RAW_STRING):
            raise self.unexpected(token, context)
        return self.unquoted(token)

    def control(self, keyword: str) -> Block:
        known = len(self.variables)
        pipe = self.pipeline(keyword, lexer.CLOSE)
        if keyword == "range":
            self.loops += 1
        body, end = self.items()
        if keyword == "range":
            self.loops -= 1
        orelse: list[Node] = []
        if end.keyword == "else":
            following = self.peek()
            if keyword != "range" and following.kind == lexer.KEYWORD and following.text == keyword:
                # "else if" is an else that holds one if; the inner one takes the only end.
                self.next()
                orelse = [self.control(keyword)]
            else:
                orelse, end = self.items()
                if end.keyword != "end":
                    raise self.fault(f"expected end; found {end}")
        del self.variables[known:]
        return Block(keyword, pipe, body, orelse)

    # -- pipelines ------------------------------------------------------------------------------------

    def pipeline(self, context: str, end: str) -> Pipe:
        pipe = Pipe(self.peek_solid().pos)
        self.declarations(pipe, context)
        while True:
            token = self.next_solid()
            if token.kind == end:
                break
            if token.kind not in _OPERANDS:
                raise self.unexpected(token, context)
            self.at -= 1
            pipe.commands.append(self.command())
        if not pipe.commands:
            raise self.fault(f"missing value for {context}")
        for number, command in enumerate(pipe.commands[1:], 2):
            if isinstance(command.args[0], (Dot, Nil, Literal)):
                raise self.fault(f"non executable command in pipeline stage {number}")
        return pipe

    def declarations(self, pipe: Pipe, context: str) -> None:
        while self.peek_solid().kind == lexer.VARIABLE:
            start = self.at
            variable = self.next()
            following = self.peek_solid()
            if following.kind in (lexer.ASSIGN, lexer.DECLARE):
                pipe.assign = following.kind == lexer.ASSIGN
            elif not (following.kind == lexer.CHAR and following.text == ","):
                self.at = start  # an operand after all
                return
            self.next()
            pipe.variables.append(Variable(variable.pos, variable.text, []))
            self.variables.append(variable.text)
            if following.kind != lexer.CHAR:
                return
            if context != "range" or len(pipe.variables) > 1:
                raise self.fault(f"too many declarations in {context}")
            if self.peek_solid().kind not in (lexer.VARIABLE, lexer.CLOSE, lexer.RIGHT_PAREN):
                raise self.fault("range can only initialize variables")

    def command(self) -> Command:
        command = Command(self.peek_solid().pos, [])
        while True:
            self.peek_solid()
            operand = self.operand()
            if operand is not None:
                command.args.append(operand)
            token = self.next()
            if token.kind == lexer.SPACE:
                continue
            if token.kind in (lexer.CLOSE, lexer.RIGHT_PAREN):
                self.at -= 1
            elif token.kind != lexer.PIPE:
                raise self.unexpected(token, "operand")
            break
        if not command.args:
            raise self.fault("empty command")
        return command

    def operand(self) -> Node | None:
        term = self.term()
        if term is None or self.peek().kind != lexer.FIELD:
            return term
        # Go places a chain of fields at the first field after the term, and so do our error messages.
        pos = self.peek().pos
        names: list[str] = []
        while self.peek().kind == lexer.FIELD:
            names.append(self.next().text[1:])
        if isinstance(term, Field):
            return Field(pos, term.names + names)
        if isinstance(term, Variable):
            return Variable(pos, term.name, term.names + names)
        if isinstance(term, (Literal, Nil, Dot)):
            raise self.fault(f"unexpected . after term {quote(str(term))}")
        return Chain(pos, term, names)

    def term(self) -> Node | None:
        token = self.next_solid()
        pos, text = token.pos, token.text
        match token.kind:
            case lexer.IDENTIFIER:
                if text not in self.functions:
                    raise self.fault(f"function {quote(text)} not defined")
                return Identifier(pos, text)
            case lexer.DOT:
                return Dot(pos)
            case lexer.NIL:
                return Nil(pos)
            case lexer.VARIABLE:
                if text not in self.variables:
                    raise self.fault(f"undefined variable {quote(text)}")
                return Variable(pos, text, [])
            case lexer.FIELD:
                return Field(pos, [text[1:]])
            case lexer.BOOL:
                return Literal(pos, text, text == "true")
            case lexer.NUMBER:
                return self.number(token)
            case lexer.CHARACTER:
                value = unquote(text)
                if not value:
                    raise self.fault("invalid syntax")
                if len(value) != 1:
                    raise self.fault(f"malformed character constant: {text}")
                return Literal(pos, text, ord(value), ord(value))
            case lexer.STRING | lexer.RAW_STRING:
                return Literal(pos, text, self.unquoted(token))
            case lexer.LEFT_PAREN:
                return self.pipeline("parenthesized pipeline", lexer.RIGHT_PAREN)
        self.at -= 1
        return None

    def unquoted(self, token: Token) -> str:
        value = unquote(token.text)
        if value is None:
            raise self.fault("invalid syntax")
        return value

    def number(self, token: Token) -> Literal:
        text = token.text
        integer = _integer(text)
        if integer is not None:
            if not -(1 << 63) <= integer < 1 << 63:
                raise self.fault(f"integer overflow: {quote(text)}")
            # 1e3 reads as an integer where one is asked for and as a float elsewhere.
            return Literal(token.pos, text, integer, integer)
        value = _float(text)
        if value is None:
            raise self.fault(f"illegal number syntax: {quote(text)}")
        if not re.search("[.eEpP]", text):  # digits alone that make no integer, as 089
            raise self.fault(f"integer overflow: {quote(text)}")
        whole = int(value) if value.is_integer() and abs(value) < 1 << 63 else None
        return Literal(token.pos, text, value, whole)


_INTEGER = re.compile(r"([+-]?)(0[xX]|0[oO]|0[bB]|0(?=[0-9_]))?([0-9a-fA-F_]+)\Z")
_BASES = {"0x": 16, "0o": 8, "0b": 2, "0": 8, "": 10}


def _integer(text: str) -> int | None:
    """The integer that ``text`` is in Go's syntax (0x, 0o, 0b, leading 0 for octal, underscores), or None."""
    match = _INTEGER.match(text)
    if match is None:
        return None
    sign, prefix, digits = match[1], (match[2] or "").lower(), match[3]
    if "__" in digits or digits.endswith("_") or (digits.startswith("_") and not prefix):
        return None
    if len(digits) > 100:
        return 1 << 100 if re.fullmatch(r"[0-9]+", digits) else None  # too large, whatever it is
    try:
        value = int(digits.replace("_", ""), _BASES[prefix])
    except ValueError:
        return None
    return -value if sign == "-" else value


def _float(text: str) -> float | None:
    """The finite float that ``text`` is in Go's syntax, or None."""
    try:
        if "x" in text.lower():
            value = float.fromhex(text) if "p" in text.lower() and "_" not in text else None
        else:
            value = float(text)
    except (ValueError, OverflowError):
        return None
    return value if value is not None and value - value == 0 else None


_ESCAPE = re.compile(r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def unquote(literal: str) -> str | None:
    """The text a Go string, raw string or character literal stands for, or None when it is malformed.

    Bytes written as ``\\xff`` that are not UTF-8 come back as ``surrogateescape`` holds them.
    """
    mark, inside = literal[0], literal[1:-1]
    if mark == "`":
        return inside.replace("\r", "")
    out = bytearray()
    at = 0
    while at < len(inside):
        if inside[at] != "\\":
            out += inside[at].encode("utf-8", "surrogatepass")
            at += 1
            continue
        match = _ESCAPE.match(inside, at)
        if match is None:
            return None
        simple, hexa, octal, short, long = match.groups()
        if simple is not None:
            if simple in "'\"" and simple != mark:
                return None
            out += _SIMPLE.get(simple, simple).encode()
        elif hexa is not None or octal is not None:
            value = int(hexa, 16) if hexa is not None else int(octal, 8)
            if value > 0xFF:
                return None
            # In a character literal \xNN is the character NN, in a string the byte NN.
            out += chr(value).encode() if mark == "'" else bytes([value])
        else:
            value = int(short or long, 16)
            if value > 0x10FFFF or 0xD800 <= value <= 0xDFFF:
                return None
            out += chr(value).encode()
        at = match.end()
    try:
        return out.decode("utf-8", "surrogateescape")
    except UnicodeDecodeError:
        return None


def _is_empty(nodes: list[Node]) -> bool:
    return all(isinstance(node, Text) and not node.text.strip() for node in nodes)


def parse(text: str, functions: Container[str]) -> tuple[list[Node], dict[str, list[Node]]]:
    """Parse ``text``; ``functions`` holds the names that may be called.

    Returns: the main body, and the bodies of the templates defined in it by name.
    Raises: ParseFault with Go's message and the line.
    """
    parser = _Parser(text, functions)
    return parser.parse(), parser.named
