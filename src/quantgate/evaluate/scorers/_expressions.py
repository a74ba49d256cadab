"""An interpreter for Python expressions that a model wrote: a whitelist over ``ast`` with budgets, never ``eval``.

Only the nodes, names and methods below exist; everything else is refused by name. Three budgets make any answer end
soon: steps (each node, each item that a call walks over), the deep size of every value, and the depth of evaluation.
What could become large before it is looked at (a power, a repeat, a replace, a join) is measured first. Nothing in the
whitelist changes a value in place, so inputs can be shared between runs.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator
from typing import Any

MAX_STEPS = 20_000
MAX_SIZE = 10_000  # deep size of one value: characters, and items counted through every level
MAX_BITS = 64  # of a whole number
MAX_DEPTH = 60  # nested nodes and calls
VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))

Scope = dict[str, Any]
BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.LShift: operator.lshift, ast.RShift: operator.rshift,
}  # fmt: skip
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_, ast.Invert: operator.invert,
}  # fmt: skip
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
CALLS: dict[str, Callable[..., Any]] = {
    one.__name__: one
    for one in (
        abs, all, any, bool, chr, dict, divmod, enumerate, filter, float, int, len, list, map, max, min, next, ord, pow,
        range, reversed, round, set, sorted, str, sum, tuple, zip,
    )
}  # fmt: skip
TEXT_METHODS = """
    upper lower title capitalize swapcase casefold strip lstrip rstrip removeprefix removesuffix replace
    split rsplit splitlines partition rpartition join count find rfind index rindex startswith endswith
    isalpha isdigit isalnum isupper islower isspace
"""
METHODS: dict[type, frozenset[str]] = {
    str: frozenset(TEXT_METHODS.split()),
    list: frozenset(("count", "index", "copy")),
    tuple: frozenset(("count", "index")),
    set: frozenset(("union", "intersection", "difference", "issubset", "issuperset", "copy")),
    dict: frozenset(("get", "keys", "values", "items", "copy")),
}


class Refused(Exception):
    """The expression is not of this subset, fails, or uses up a budget; the sentence says which."""


def evaluate(tree: ast.expr, variables: Scope) -> Any:
    """The value of a parsed expression. Raises Refused, and nothing else, whatever the expression is."""
    try:
        return _Run().value(tree, dict(variables))
    except Refused:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, MemoryError) as failed:
        raise Refused(f"fails with {type(failed).__name__}: {failed}") from None
    except StopIteration:
        raise Refused("fails with StopIteration: nothing is left to take") from None


def size_of(value: Any, left: int = MAX_SIZE) -> int:
    """Characters and items of a value through every level, at least 1; may stop counting once it is above ``left``."""
    if isinstance(value, str):
        return 1 + len(value)
    if isinstance(value, range):
        return 1 + max(0, -((value.start - value.stop) // value.step))  # len() overflows
    if isinstance(value, dict):
        return size_of([*value.keys(), *value.values()], left)
    items: Any = value if isinstance(value, (list, tuple, set, *VIEWS)) else ()
    total = 1
    for one in items:
        total += size_of(one, left - total)
        if total > left:
            break
    return total


class _Run:
    """One evaluation and what is left of its budgets."""

    def __init__(self) -> None:
        self.steps, self.depth = MAX_STEPS, 0

    def charge(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise Refused(f"takes more than {MAX_STEPS} steps")

    def held(self, value: Any) -> Any:
        """The value, if it is of a known kind and small enough."""
        if isinstance(value, (bool, float, type(None), Iterator)) or callable(value):
            return value
        if isinstance(value, int):
            if value.bit_length() > MAX_BITS:
                raise Refused(f"makes a whole number of more than {MAX_BITS} bits")
            return value
        if not isinstance(value, (str, list, tuple, set, dict, range, *VIEWS)):
            raise Refused(f"makes a {type(value).__name__}, which is not allowed")
        self.fits(size := size_of(value))
        self.charge(size // 8)
        return value

    def fits(self, size: int) -> None:
        if size > MAX_SIZE:
            raise Refused(f"makes a value larger than {MAX_SIZE} items")

    def walk(self, items: Any) -> Iterator[Any]:
        """The items of anything that can be walked over, each at the price of its size."""
        for one in items:
            self.charge(size_of(one))
            yield one

    def value(self, node: ast.AST, scope: Scope) -> Any:
        self.charge(1)
        handler = HANDLERS.get(type(node))
        if handler is None:
            raise Refused(f"uses {type(node).__name__}, which is not allowed")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Refused(f"is nested more than {MAX_DEPTH} deep")
        try:
            return self.held(handler(self, node, scope))
        finally:
            self.depth -= 1

    def constant(self, node: ast.Constant, scope: Scope) -> Any:
        if not isinstance(node.value, bool | int | float | str | None):
            raise Refused(f"uses a {type(node.value).__name__} constant, which is not allowed")
        return node.value

    def name(self, node: ast.Name, scope: Scope) -> Any:
        if node.id in scope:
            return scope[node.id]
        if node.id in CALLS:
            return _Named(self, node.id)
        raise Refused(f"uses the name '{node.id}', which is not known here")

    def sequence(self, node: ast.List | ast.Tuple | ast.Set, scope: Scope) -> Any:
        items = self.items(node.elts, scope)
        return items if isinstance(node, ast.List) else tuple(items) if isinstance(node, ast.Tuple) else set(items)

    def items(self, nodes: list[ast.expr], scope: Scope) -> list[Any]:
        """Values of nodes in a display or a call, with ``*xs`` spread out."""
        made: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                made.extend(self.walk(self.value(node.value, scope)))
            else:
                made.append(self.value(node, scope))
        return made

    def mapping(self, node: ast.Dict, scope: Scope) -> Any:
        made: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                raise Refused("uses ** in a dict, which is not allowed")
            made[self.value(key, scope)] = self.value(value, scope)
        return made

    def comprehension(self, node: Any, scope: Scope) -> Any:
        source = iter(
            self.value(node.generators[0].iter, scope)
        )  # the first source is looked at right away, as in Python
        inner = dict(scope)
        if isinstance(node, ast.DictComp):
            pairs = self.loops(node.generators, inner, source)
            return {self.value(node.key, inner): self.value(node.value, inner) for _ in pairs}
        made = (self.value(node.elt, inner) for _ in self.loops(node.generators, inner, source))
        return (
            made if isinstance(node, ast.GeneratorExp) else list(made) if isinstance(node, ast.ListComp) else set(made)
        )

    def loops(self, loops: list[ast.comprehension], scope: Scope, source: Iterator[Any]) -> Iterator[None]:
        """One beat for every time that the element is to be made, with the loop names bound in ``scope``."""
        first, rest = loops[0], loops[1:]
        if first.is_async:
            raise Refused("uses async, which is not allowed")
        for one in self.walk(source):
            self.bind(first.target, one, scope)
            if all(self.value(test, scope) for test in first.ifs):
                if rest:
                    yield from self.loops(rest, scope, iter(self.value(rest[0].iter, scope)))
                else:
                    yield

    def bind(self, target: ast.expr, value: Any, scope: Scope) -> None:
        if isinstance(target, ast.Name):
            scope[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            for one, part in zip(target.elts, list(self.walk(value)), strict=True):
                self.bind(one, part, scope)
        else:
            raise Refused(f"binds to {type(target).__name__}, which is not allowed")

    def binary(self, node: ast.BinOp, scope: Scope) -> Any:
        if type(node.op) not in BINARY:
            raise Refused(f"uses {type(node.op).__name__}, which is not allowed")
        return self.operate(BINARY[type(node.op)], self.value(node.left, scope), self.value(node.right, scope))

    def operate(self, op: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
        """``left op right`` after a look at how large it can get."""
        if op is operator.mod and isinstance(left, str):
            raise Refused("uses % on a string, which is not allowed")
        if op is operator.mul:
            for many, count in ((left, right), (right, left)):
                if isinstance(many, str | list | tuple) and isinstance(count, int):
                    self.fits((size_of(many) - 1) * max(count, 0) + 1)
        whole = isinstance(left, int) and isinstance(right, int)
        if op is operator.lshift and whole and right > MAX_BITS:
            raise Refused(f"makes a whole number of more than {MAX_BITS} bits")
        if op is operator.pow and whole and abs(left) > 1 and right > MAX_BITS:
            raise Refused(f"makes a whole number of more than {MAX_BITS} bits")
        return op(left, right)

    def unary(self, node: ast.UnaryOp, scope: Scope) -> Any:
        return UNARY[type(node.op)](self.value(node.operand, scope))

    def either(self, node: ast.BoolOp, scope: Scope) -> Any:
        value: Any = None
        for one in node.values:
            value = self.value(one, scope)
            if bool(value) == isinstance(node.op, ast.Or):
                break
        return value

    def compare(self, node: ast.Compare, scope: Scope) -> Any:
        left, result = self.value(node.left, scope), True
        for op, other in zip(node.ops, node.comparators, strict=True):
            right = self.value(other, scope)
            if isinstance(op, ast.In | ast.NotIn) and isinstance(right, Iterator):
                right = list(self.walk(right))
            self.charge((size_of(left) + size_of(right)) // 8)
            result = COMPARE[type(op)](left, right)
            if not result:
                break
            left = right
        return result

    def choice(self, node: ast.IfExp, scope: Scope) -> Any:
        return self.value(node.body if self.value(node.test, scope) else node.orelse, scope)

    def subscript(self, node: ast.Subscript, scope: Scope) -> Any:
        whole = self.value(node.value, scope)
        if not isinstance(node.slice, ast.Slice):
            return whole[self.value(node.slice, scope)]
        parts = [
            None if one is None else self.value(one, scope)
            for one in (node.slice.lower, node.slice.upper, node.slice.step)
        ]
        return whole[slice(*parts)]

    def function(self, node: ast.Lambda, scope: Scope) -> Any:
        given = node.args
        if given.vararg or given.kwarg or given.kwonlyargs or given.posonlyargs or given.defaults:
            raise Refused("uses a lambda with more than plain arguments, which is not allowed")
        return _Function(self, [one.arg for one in given.args], node.body, scope)

    def attribute(self, node: ast.Attribute, scope: Scope) -> Any:
        owner = self.value(node.value, scope)
        if isinstance(owner, _Named) and CALLS[owner.name] is str and node.attr in METHODS[str]:
            return _Method(self, node.attr)
        if node.attr not in METHODS.get(type(owner), ()):
            raise Refused(f"uses the attribute '{node.attr}', which is not allowed")
        return _Method(self, node.attr, owner)

    def call(self, node: ast.Call, scope: Scope) -> Any:
        function = self.value(node.func, scope)
        if not isinstance(function, _Named | _Function | _Method):
            raise Refused(f"calls a {type(function).__name__}, which is not a function")
        arguments, named = self.items(node.args, scope), dict[str, Any]()
        for keyword in node.keywords:
            if keyword.arg is None:
                raise Refused("uses ** in a call, which is not allowed")
            named[keyword.arg] = self.value(keyword.value, scope)
        return function(*arguments, **named)

    def text(self, node: ast.JoinedStr, scope: Scope) -> Any:
        parts: list[str] = []
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                if part.format_spec is not None or part.conversion != -1:
                    raise Refused("uses a format in a string, which is not allowed")
                parts.append(str(_shown(self.value(part.value, scope))))
            else:
                parts.append(self.value(part, scope))
        return "".join(parts)


def _shown(value: Any) -> Any:
    if callable(value) or isinstance(value, Iterator):
        raise Refused("writes a function or an iterator as text, which is not allowed")
    return value


class _Named:
    """A built-in by its name, called at the price of what it walks over."""

    def __init__(self, run: _Run, name: str) -> None:
        self.run, self.name = run, name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        run, name = self.run, self.name
        run.charge(1)
        if name == "pow" and len(arguments) == 2:
            return run.held(run.operate(operator.pow, *arguments))
        if name == "pow" or (
            name == "round" and any(abs(digits) > MAX_BITS for digits in (*arguments[1:], *named.values()))
        ):
            raise Refused(f"uses {name} in a way that is not allowed")
        if name == "str" and arguments:
            _shown(arguments[0])
        if name not in ("next", "len", "str", "int", "float", "bool", "reversed"):
            arguments = tuple(run.walk(one) if isinstance(one, Iterator) else one for one in arguments)
        run.charge(sum(size_of(one) for one in arguments))
        return run.held(CALLS[name](*arguments, **named))


class _Function:
    """A lambda with the scope that it was written in."""

    def __init__(self, run: _Run, names: list[str], body: ast.expr, scope: Scope) -> None:
        self.run, self.names, self.body, self.scope = run, names, body, scope

    def __call__(self, *arguments: Any) -> Any:
        if len(arguments) != len(self.names):
            raise Refused(f"calls a lambda of {len(self.names)} arguments with {len(arguments)}")
        return self.run.value(self.body, {**self.scope, **dict(zip(self.names, arguments, strict=True))})


class _Method:
    """A method by its name, of one value or (``str.upper``) of the first argument."""

    def __init__(self, run: _Run, name: str, owner: Any = None) -> None:
        self.run, self.name, self.owner = run, name, owner

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        run, owner = self.run, self.owner
        if owner is None:
            owner, *rest = arguments
            arguments = tuple(rest)
            if not isinstance(owner, str):
                raise Refused(f"calls str.{self.name} on a {type(owner).__name__}")
        arguments = tuple(list(run.walk(one)) if isinstance(one, Iterator) else one for one in arguments)
        run.charge(1 + size_of(owner) + sum(size_of(one) for one in arguments))
        if self.name == "replace" and len(arguments) > 1 and all(isinstance(one, str) for one in arguments[:2]):
            run.fits(len(owner) + owner.count(arguments[0]) * len(arguments[1]))
        if self.name == "join" and arguments:
            run.fits(size_of(owner) * len(arguments[0]))
        return run.held(getattr(owner, self.name)(*arguments, **named))


HANDLERS: dict[type[ast.AST], Callable[[_Run, Any, Scope], Any]] = {
    ast.Constant: _Run.constant, ast.Name: _Run.name, ast.List: _Run.sequence, ast.Tuple: _Run.sequence,
    ast.Set: _Run.sequence, ast.Dict: _Run.mapping, ast.ListComp: _Run.comprehension, ast.SetComp: _Run.comprehension,
    ast.GeneratorExp: _Run.comprehension, ast.DictComp: _Run.comprehension, ast.BinOp: _Run.binary,
    ast.UnaryOp: _Run.unary, ast.BoolOp: _Run.either, ast.Compare: _Run.compare, ast.IfExp: _Run.choice,
    ast.Subscript: _Run.subscript, ast.Lambda: _Run.function, ast.Attribute: _Run.attribute, ast.Call: _Run.call,
    ast.JoinedStr: _Run.text,
}  # fmt: skip
