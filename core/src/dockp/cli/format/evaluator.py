"""Run a parsed template over a value, by the rules and with the error wording of Go's text/template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from dockp.cli.format import nodes
from dockp.cli.format.functions import CallFault, Function
from dockp.cli.format.govalues import (
    MISSING,
    GoMap,
    Method,
    Missing,
    NilList,
    NilPointer,
    Struct,
    is_true,
    plain,
    to_bytes,
    type_name,
)
from dockp.golang import quote

MissingKey = Literal["error", "novalue"]
Kind = Literal["pointer", "list", "strings", "lists", "pointers", "structs"]
"""What a field of a typed document is: a pointer, a list, or a map of strings, lists, pointers or structs."""

_DEEPEST = 60  # templates that call themselves end here
_NOTHING = object()  # no value comes from the preceding command of the pipeline


class EvaluationFault(Exception):
    """The template does not fit the value; ``str()`` is Go's message, with line, column and node."""


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


def _zero(kind: Kind, name: str) -> object:
    if kind == "pointer":
        return NilPointer(name)
    if kind == "list":
        return NilList()
    return GoMap(None, _element_zero(kind))


def _element_zero(kind: Kind) -> object:
    return {"strings": "", "lists": NilList(), "pointers": None}.get(kind, {})


class Evaluator:
    """One run of one template. ``out`` fills as it goes, so it holds what came before a fault."""

    def __init__(
        self,
        text: str,
        named: Mapping[str, list[nodes.Node]],
        functions: Mapping[str, Function],
        missing: MissingKey,
        shape: Mapping[str, Kind] | None,
    ) -> None:
        self.text = text
        self.named = named
        self.functions = functions
        self.strict = missing == "error"
        self.shape = shape
        self.out: list[str] = []
        self.template = ""
        self.depth = 0
        self.variables: list[list[Any]] = []
        self.node: nodes.Node | None = None

    def run(self, root: list[nodes.Node], value: object) -> None:
        """Render ``root`` over ``value`` into ``out``. Raises: EvaluationFault."""
        self.variables = [["$", value]]
        self.walk(root, value)

    def fault(self, message: str) -> NoReturn:
        where = ""
        if self.node is not None:
            before = to_bytes(self.text[: self.node.pos])
            line = before.count(b"\n") + 1
            column = len(before) - (before.rfind(b"\n") + 1)
            where = f":{line}:{column}: executing {quote(self.template)} at <{self.node}>: "
        raise EvaluationFault(f"template: {where}{message}")

    # -- nodes ----------------------------------------------------------------------------------------

    def walk(self, body: list[nodes.Node], dot: Any) -> None:
        for node in body:
            if isinstance(node, nodes.Text):
                self.out.append(node.text)
            elif isinstance(node, nodes.Action):
                value = self.pipeline(node.pipe, dot)
                if not node.pipe.variables:
                    self.out.append("<no value>" if isinstance(value, Missing) else plain(value))
            elif isinstance(node, nodes.Block):
                mark = len(self.variables)
                if node.keyword == "range":
                    self.loop(node, dot)
                else:
                    value = self.pipeline(node.pipe, dot)
                    if is_true(value):
                        self.walk(node.body, value if node.keyword == "with" else dot)
                    else:
                        self.walk(node.orelse, dot)
                del self.variables[mark:]
            elif isinstance(node, nodes.Invoke):
                self.invoke(node, dot)
            elif isinstance(node, nodes.Jump):
                raise _Break if node.keyword == "break" else _Continue

    def loop(self, node: nodes.Block, dot: Any) -> None:
        self.node = node
        value = self.pipeline(node.pipe, dot)
        variables = node.pipe.variables
        pairs: Any = ()
        if isinstance(value, (list, tuple)):
            pairs = enumerate(value)
        elif isinstance(value, dict):
            pairs = ((key, value[key]) for key in sorted(value, key=to_bytes))
        elif isinstance(value, int) and not isinstance(value, bool):
            if len(variables) > 1:
                self.fault(f"can't use {value} to iterate over more than one variable")
            pairs = ((MISSING, number) for number in range(value))
        elif value is not None and not isinstance(value, (Missing, NilPointer)):
            self.fault(f"range can't iterate over {plain(value)}")
        mark = len(self.variables)
        empty = True
        for key, element in pairs:
            empty = False
            given = [key, element][-len(variables) :] if variables else []
            for offset, item in enumerate(given):
                if node.pipe.assign:
                    self.assign(variables[offset].name, item)
                else:
                    self.variables[mark - len(given) + offset][1] = item
            try:
                self.walk(node.body, element)
            except _Continue:
                pass
            except _Break:
                break
            finally:
                del self.variables[mark:]
        if empty:
            self.walk(node.orelse, dot)

    def invoke(self, node: nodes.Invoke, dot: Any) -> None:
        self.node = node
        body = self.named.get(node.name)
        if body is None:
            self.fault(f"template {quote(node.name)} not defined")
        if self.depth >= _DEEPEST:
            self.fault(f"exceeded maximum template depth ({_DEEPEST})")
        value = MISSING if node.pipe is None else self.pipeline(node.pipe, dot)
        outer = self.template, self.variables
        self.template, self.variables = node.name, [["$", value]]
        self.depth += 1
        self.walk(body, value)
        self.depth -= 1
        self.template, self.variables = outer

    # -- pipelines ------------------------------------------------------------------------------------

    def pipeline(self, pipe: nodes.Pipe, dot: Any) -> Any:
        self.node = pipe
        value: Any = _NOTHING
        for command in pipe.commands:
            value = self.command(command, dot, value)
            if value is None:  # an interface holding nothing is no value at all from here on
                value = MISSING
        for variable in pipe.variables:
            if pipe.assign:
                self.assign(variable.name, value)
            else:
                self.variables.append([variable.name, value])
        return value

    def assign(self, name: str, value: Any) -> None:
        for variable in reversed(self.variables):
            if variable[0] == name:
                variable[1] = value
                return
        self.fault(f"undefined variable: {name}")

    def command(self, command: nodes.Command, dot: Any, final: Any) -> Any:
        first = command.args[0]
        if isinstance(first, (nodes.Field, nodes.Chain, nodes.Variable)):
            return self.fields_of(first, dot, command.args[1:], final)
        if isinstance(first, nodes.Identifier):
            self.node = first
            return self.call(first.name, self.functions[first.name], command, dot, command.args[1:], final)
        if not isinstance(first, nodes.Pipe):
            self.node = first
        self.not_a_function(command.args, final)
        if isinstance(first, nodes.Pipe):
            return self.pipeline(first, dot)
        if isinstance(first, nodes.Literal):
            return first.value
        if isinstance(first, nodes.Dot):
            return dot
        return self.fault("nil is not a command")

    def not_a_function(self, args: list[nodes.Node], final: Any) -> None:
        if len(args) > 1 or final is not _NOTHING:
            self.fault(f"can't give argument to non-function {args[0]}")

    def fields_of(self, node: nodes.Node, dot: Any, args: list[nodes.Node], final: Any) -> Any:
        """The value of a field, variable or chain node; only the last field of it may take arguments."""
        self.node = node
        if isinstance(node, nodes.Field):
            receiver, names = dot, node.names
        elif isinstance(node, nodes.Variable):
            names = node.names
            receiver = next((value for name, value in reversed(self.variables) if name == node.name), _NOTHING)
            if receiver is _NOTHING:
                self.fault(f"undefined variable: {node.name}")
            if not names:
                self.not_a_function([node, *args], final)
                return receiver
        else:
            assert isinstance(node, nodes.Chain)
            names = node.names
            if isinstance(node.term, nodes.Nil):
                self.fault(f"indirection through explicit nil in {node}")
            receiver = self.argument(node.term, "", dot)
        for name in names[:-1]:
            receiver = self.field(receiver, name, node, dot, [], _NOTHING)
        return self.field(receiver, names[-1], node, dot, args, final)

    # -- fields ---------------------------------------------------------------------------------------

    def field(self, receiver: Any, name: str, node: nodes.Node, dot: Any, args: list[nodes.Node], final: Any) -> Any:
        if isinstance(receiver, Missing):
            # With a shape, only an entry of a typed map can be missing, and that is no error.
            if self.strict and self.shape is None:
                self.fault(f"nil data; no entry for key {quote(name)}")
            return MISSING
        if isinstance(receiver, Struct):
            return self.struct_field(receiver, name, node, dot, args, final)
        if isinstance(receiver, dict):
            if args or final is not _NOTHING:
                self.fault(f"{name} is not a method but has arguments")
            return self.entry(receiver, name)
        if receiver is None:
            self.fault(f"nil pointer evaluating interface {{}}.{name}")
        if isinstance(receiver, NilPointer):
            self.fault(f"map has no entry for key {quote(receiver.name)}")
        # What stands in a document is held by an interface, whatever it is.
        return self.fault(f"can't evaluate field {name} in type interface {{}}")

    def struct_field(
        self, receiver: Struct, name: str, node: nodes.Node, dot: Any, args: list[nodes.Node], final: Any
    ) -> Any:
        if name not in receiver.fields:
            if receiver.is_map:
                return MISSING
            self.fault(f"can't evaluate field {name} in type {receiver.type_name}")
        value = receiver.fields[name]
        if isinstance(value, Method):
            return self.call(name, Function(value.call, "string"), node, dot, args, final)
        if args or final is not _NOTHING:
            given = len(args) + (final is not _NOTHING)
            self.fault(f"wrong number of args for {name}: want 0 got {given}")
        return value() if callable(value) else value

    def entry(self, document: dict[str, Any], name: str) -> Any:
        """An entry of a map. ``shape`` tells what is absent from a document and what is just empty."""
        kind = None
        if isinstance(document, GoMap):
            return document.get(name, MISSING)
        if self.shape is not None:
            kind = self.shape.get(name)
            if name not in document and name[:1].isupper():
                # Go's names differ from JSON's in their case only: .ID is "Id", .NanoCPUs is "NanoCpus".
                name = next((key for key in document if key.lower() == name.lower()), name)
        if name in document:
            value = document[name]
            if kind is None:
                return value
            if value is None:
                return _zero(kind, name)
            if isinstance(value, dict) and kind not in ("pointer", "list"):
                zero = _element_zero(kind)
                return GoMap({key: zero if item is None else item for key, item in value.items()}, zero)
            return value
        if kind is not None:
            return _zero(kind, name)
        if self.strict:
            self.fault(f"map has no entry for key {quote(name)}")
        return MISSING

    # -- calls ----------------------------------------------------------------------------------------

    def call(
        self, name: str, function: Function, node: nodes.Node, dot: Any, args: list[nodes.Node], final: Any
    ) -> Any:
        params = function.params
        given = len(args) + (final is not _NOTHING)
        if function.rest is None and given != len(params):
            self.fault(f"wrong number of args for {name}: want {len(params)} got {given}")
        if function.rest is not None and given < len(params):
            self.fault(f"wrong number of args for {name}: want at least {len(params)} got {len(args)}")
        kinds = [*params, *[function.rest or ""] * (given - len(params))]
        if name in ("and", "or") and name in self.functions and self.functions[name] is function:
            value: Any = MISSING
            for arg, kind in zip(args, kinds, strict=False):
                value = self.argument(arg, kind, dot)
                if is_true(value) == (name == "or"):
                    return value
            return value if final is _NOTHING else self.checked(final, kinds[-1])
        values = [self.argument(arg, kind, dot) for arg, kind in zip(args, kinds, strict=False)]
        if final is not _NOTHING:
            values.append(self.checked(final, kinds[-1]))
        try:
            return function.call(*values)
        except CallFault as fault:
            self.node = node
            self.fault(f"error calling {name}: {fault}")

    def argument(self, node: nodes.Node, kind: str, dot: Any) -> Any:
        """The value of an argument for a parameter of type ``kind``; the empty kind asks for no check."""
        self.node = node
        if isinstance(node, nodes.Nil):
            if kind == "any":
                return None
            if kind == "value":
                return MISSING
            self.fault(f"cannot assign nil to {kind}")
        if isinstance(node, nodes.Literal):
            return self.constant(node, kind)
        if isinstance(node, nodes.Dot):
            return self.checked(dot, kind)
        if isinstance(node, nodes.Pipe):
            return self.checked(self.pipeline(node, dot), kind)
        if isinstance(node, nodes.Identifier):
            return self.checked(self.call(node.name, self.functions[node.name], node, dot, [], _NOTHING), kind)
        return self.checked(self.fields_of(node, dot, [], _NOTHING), kind)

    def constant(self, node: nodes.Literal, kind: str) -> Any:
        value = node.value
        if kind == "string" and not isinstance(value, str):
            self.fault(f"expected string; found {node}")
        if kind == "int":
            if node.integer is None:
                self.fault(f"expected integer; found {node}")
            return node.integer
        return value

    def checked(self, value: Any, kind: str) -> Any:
        """``value`` as an argument of type ``kind``. Raises: EvaluationFault when it is of another type."""
        if isinstance(value, Missing):
            if kind == "any":
                return None
            if kind in ("value", ""):
                return MISSING
            self.fault(f"invalid value; expected {kind}")
        wanted = {"string": str, "int": int}.get(kind)
        if wanted is None or (isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))):
            return value
        return self.fault(f"wrong type for value; expected {kind}; got {type_name(value)}")
