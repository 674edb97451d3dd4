"""Cut the text of a Go template into tokens.

The token language is that of Go's text/template (https://pkg.go.dev/text/template). The whole text is cut at
once; a lexical fault becomes a last token of kind ERROR, which the parser reports only if it gets that far,
so that the first fault in reading order is the one the user sees.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dockp.golang import code_point, quote

TEXT = "text"
OPEN = "{{"
CLOSE = "}}"
SPACE = "space"
FIELD = "field"
VARIABLE = "variable"
IDENTIFIER = "identifier"
KEYWORD = "keyword"
DOT = "dot"
NIL = "nil"
BOOL = "bool"
NUMBER = "number"
CHARACTER = "character"
STRING = "string"
RAW_STRING = "raw string"
PIPE = "|"
LEFT_PAREN = "("
RIGHT_PAREN = ")"
ASSIGN = "="
DECLARE = ":="
CHAR = "char"
ERROR = "error"
EOF = "eof"

_KEYWORDS = frozenset(("block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"))
_SPACES = " \t\r\n"
_WORD = re.compile(r"\w*")
_SPACE_RUN = re.compile(r"[ \t\r\n]+")
# A quoted text ends at its quote; neither an escape nor the text may run over the end of the line.
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"')
_CHARACTER = re.compile(r"'(?:[^'\\\n]|\\[^\n])*'")
_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?"
    r"|0[oO][0-7_]*(?:\.[0-7_]*)?"
    r"|0[bB][01_]*(?:\.[01_]*)?"
    r"|[0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?)i?"
)
_SINGLE = {"=": ASSIGN, "|": PIPE}


class Token(NamedTuple):
    """One token: its kind, its source text (an ERROR's message), its offset and its line (from 1)."""

    kind: str
    text: str
    pos: int
    line: int

    def describe(self) -> str:
        """The token as an error message shows it."""
        if self.kind == EOF:
            return "EOF"
        if self.kind == ERROR:
            return self.text
        if self.kind in (KEYWORD, DOT, NIL):
            return f"<{self.text}>"
        if len(self.text) > 10:
            return quote(self.text[:10]) + "..."
        return quote(self.text)


class _Fault(Exception):
    """A lexical fault; carries the message of the ERROR token."""


class _Lexer:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[Token] = []
        self.pos = 0
        self.line = 1  # the line of self.pos
        self.depth = 0  # open parentheses in the present action

    def run(self) -> list[Token]:
        try:
            self._text()
        except _Fault as fault:
            self.tokens.append(Token(ERROR, str(fault), self.pos, self.line))
        return self.tokens

    def _skip(self, end: int) -> None:
        self.line += self.text.count("\n", self.pos, end)
        self.pos = end

    def _emit(self, kind: str, end: int) -> None:
        self.tokens.append(Token(kind, self.text[self.pos : end], self.pos, self.line))
        self._skip(end)

    def _text(self) -> None:
        text = self.text
        while True:
            start = text.find(OPEN, self.pos)
            if start < 0:
                if self.pos < len(text):
                    self._emit(TEXT, len(text))
                self._emit(EOF, len(text))
                return
            end = start
            inside = start + 2
            trim = text[inside : inside + 1] == "-" and text[inside + 1 : inside + 2] in tuple(_SPACES)
            if trim:
                end = self.pos + len(text[self.pos : start].rstrip(_SPACES))
                inside += 2
            if end > self.pos:
                self._emit(TEXT, end)
            self._skip(start)
            if text.startswith("/*", inside):
                self._comment(inside)
                continue
            self._emit(OPEN, start + 2)
            self._skip(inside)
            self._action()

    def _comment(self, inside: int) -> None:
        end = self.text.find("*/", inside + 2)
        if end < 0:
            raise _Fault("unclosed comment")
        self._skip(end + 2)
        trim = self._at_close()
        if trim is None:
            raise _Fault("comment ends before closing delimiter")
        self._after_close(self.pos + (4 if trim else 2), trim)

    def _at_close(self) -> bool | None:
        """Whether an action ends here: None for no, else whether it trims the text that follows."""
        text, pos = self.text, self.pos
        if text.startswith(CLOSE, pos):
            return False
        if text[pos : pos + 1] in tuple(_SPACES) and text.startswith("-}}", pos + 1):
            return True
        return None

    def _after_close(self, end: int, trim: bool) -> None:
        self._skip(end)
        if trim:
            while self.pos < len(self.text) and self.text[self.pos] in _SPACES:
                self._skip(self.pos + 1)

    def _action(self) -> None:
        text = self.text
        self.depth = 0
        while True:
            trim = self._at_close()
            if trim is not None:
                if self.depth:
                    raise _Fault("unclosed left paren")
                if trim:
                    self._skip(self.pos + 2)
                self._emit(CLOSE, self.pos + 2)
                self._after_close(self.pos, trim)
                return
            if self.pos >= len(text):
                raise _Fault("unclosed action")
            self._inside(text[self.pos])

    def _inside(self, char: str) -> None:
        text, pos = self.text, self.pos
        following = text[pos + 1 : pos + 2]
        if char in _SPACES:
            match = _SPACE_RUN.match(text, pos)
            assert match is not None
            end = match.end()
            # The last space belongs to a closing " -}}".
            self._emit(SPACE, end - 1 if text.startswith("-}}", end) else end)
        elif char in _SINGLE:
            self._emit(_SINGLE[char], pos + 1)
        elif char == ":":
            if following != "=":
                raise _Fault("expected :=")
            self._emit(DECLARE, pos + 2)
        elif char == '"':
            self._matched(STRING, _QUOTED, "unterminated quoted string")
        elif char == "'":
            self._matched(CHARACTER, _CHARACTER, "unterminated character constant")
        elif char == "`":
            end = text.find("`", pos + 1)
            if end < 0:
                raise _Fault("unterminated raw quoted string")
            self._emit(RAW_STRING, end + 1)
        elif char == "$":
            self._word(VARIABLE, pos + 1)
        elif char == "." and not ("0" <= following <= "9"):
            self._word(FIELD, pos + 1)
        elif char in "+-." or "0" <= char <= "9":
            self._number()
        elif char == "_" or char.isalnum():
            self._word(IDENTIFIER, pos)
        elif char == "(":
            self.depth += 1
            self._emit(LEFT_PAREN, pos + 1)
        elif char == ")":
            self.depth -= 1
            if self.depth < 0:
                raise _Fault("unexpected right paren")
            self._emit(RIGHT_PAREN, pos + 1)
        elif " " <= char <= "~":
            self._emit(CHAR, pos + 1)
        else:
            raise _Fault(f"unrecognized character in action: {code_point(char)}")

    def _matched(self, kind: str, pattern: re.Pattern[str], fault: str) -> None:
        match = pattern.match(self.text, self.pos)
        if match is None:
            raise _Fault(fault)
        self._emit(kind, match.end())

    def _number(self) -> None:
        match = _NUMBER.match(self.text, self.pos)
        end = match.end() if match is not None else self.pos
        if self.text[end : end + 1] in ("+", "-"):  # Go would go on to a complex number
            match = _NUMBER.match(self.text, end)
            end = match.end() if match is not None else end
            after = re.match(r"\w?", self.text[end : end + 1])
            shown = self.text[self.pos : end] + (after[0] if after is not None else "")
            raise _Fault(f"bad number syntax: {quote(shown)}")
        if re.match(r"\w", self.text[end : end + 1]):
            raise _Fault(f"bad number syntax: {quote(self.text[self.pos : end + 1])}")
        self._emit(NUMBER, end)

    def _word(self, kind: str, start: int) -> None:
        match = _WORD.match(self.text, start)
        assert match is not None
        end = match.end()
        # A word must end where another operand may begin, so that "$x+2" is a fault and not two operands.
        if not (end >= len(self.text) or self.text[end] in _SPACES + ".,|:)(" or self.text.startswith(CLOSE, end)):
            raise _Fault(f"bad character {code_point(self.text[end])}")
        word = self.text[start:end]
        if kind == FIELD and not word:
            kind = DOT
        elif kind == IDENTIFIER:
            if word in _KEYWORDS:
                kind = KEYWORD
            elif word in ("true", "false"):
                kind = BOOL
            elif word == "nil":
                kind = NIL
        self._emit(kind, end)


def tokens(text: str) -> list[Token]:
    """Cut ``text``; the last token is of kind EOF or ERROR. Raises nothing."""
    return _Lexer(text).run()
