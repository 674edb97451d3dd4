"""Parse a Go template into a tree of nodes.

Grammar and error wording are those of Go's text/template, so that a format that works with ``docker`` works
here, and a broken one gets the same complaint. ``parse`` returns the main body and the named templates.
"""

from __future__ import annotations

import re
from collections.abc import Container

from dockp.cli.format import lexer
from dockp.cli.format.lexer import Token
from dockp.cli.format.nodes import (
    Action,
    Block,
    Chain,
    Command,
    Dot,
    Field,
    Identifier,
    Invoke,
    Jump,
    Literal,
    Nil,
    Node,
    Pipe,
    Text,
    Variable,
)
from dockp.golang import quote, read_float, read_integer, unquote


class ParseFault(Exception):
    """The template is malformed; ``str()`` is Go's message, with the line."""


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
        integer = read_integer(text)
        if integer is not None:
            if not -(1 << 63) <= integer < 1 << 63:
                raise self.fault(f"integer overflow: {quote(text)}")
            # 1e3 reads as an integer where one is asked for and as a float elsewhere.
            return Literal(token.pos, text, integer, integer)
        value = read_float(text)
        if value is None:
            raise self.fault(f"illegal number syntax: {quote(text)}")
        if not re.search("[.eEpP]", text):  # digits alone that make no integer, as 089
            raise self.fault(f"integer overflow: {quote(text)}")
        whole = int(value) if value.is_integer() and abs(value) < 1 << 63 else None
        return Literal(token.pos, text, value, whole)


def _is_empty(nodes: list[Node]) -> bool:
    return all(isinstance(node, Text) and not node.text.strip() for node in nodes)


def parse(text: str, functions: Container[str]) -> tuple[list[Node], dict[str, list[Node]]]:
    """Parse ``text``; ``functions`` holds the names that may be called.

    Returns: the main body, and the bodies of the templates defined in it by name.
    Raises: ParseFault with Go's message and the line.
    """
    parser = _Parser(text, functions)
    return parser.parse(), parser.named
