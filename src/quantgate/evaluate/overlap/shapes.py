"""The shape of a Python function: its syntax tree without names, comments, docstrings, annotations and decorators.

Two copies of one solution have one shape, however their functions and variables are called.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import re
import textwrap
import warnings
from collections.abc import Iterator

FUNCTION = re.compile(r"^([ \t]*)(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(", re.MULTILINE)
LEAST = 24  # nodes of a tree below which many people write the same function
KNOWN = frozenset(dir(builtins))


def shapes(text: str) -> frozenset[str]:
    """A digest for every function in ``text`` that is long enough to be recognised; text that is no Python has none.

    >>> one = "def f(xs):\\n    t = 0\\n    for x in xs:\\n        t += x * x\\n    return t if t > 3 else None"
    >>> shapes(one) == shapes(one.replace("xs", "values").replace("t ", "total ").replace("def f", "def g")) != set()
    True
    """
    return frozenset(shape for tree in _functions(text) if (shape := _shape(tree)))


def _functions(text: str) -> Iterator[ast.AST]:
    """Every ``def`` with the lines that are indented below it, where Python can read them."""
    if "def " not in text:
        return
    end = 0
    for found in FUNCTION.finditer(text):
        if found.start() < end:
            continue  # inside the function before
        block = _block(text[found.start() :], len(found[1].expandtabs()))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                tree = ast.parse(textwrap.dedent(block)).body[0]
        except (SyntaxError, ValueError, RecursionError, MemoryError, IndexError):
            continue
        end = found.start() + len(block)
        yield tree


def _block(text: str, indent: int) -> str:
    """The lines of a function: its head, up to the colon that ends it, and all that is indented deeper."""
    lines, open_brackets, headed = list[str](), 0, False
    for line in text.split("\n"):
        bare = line.strip()
        deeper = len(line.expandtabs()) - len(line.expandtabs().lstrip()) > indent
        if headed and bare and not deeper:
            break
        lines.append(line)
        if not headed:
            open_brackets += sum(line.count(one) for one in "([{") - sum(line.count(one) for one in ")]}")
            headed = open_brackets <= 0
    return "\n".join(lines)


def _shape(tree: ast.AST) -> str | None:
    plain = _Plain().visit(tree)
    if sum(1 for _ in ast.walk(plain)) < LEAST:
        return None
    return hashlib.blake2b(ast.dump(plain).encode(), digest_size=12).hexdigest()


class _Plain(ast.NodeTransformer):
    """Names become numbers in the order in which they appear; attributes and Python's own names stay."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def _name(self, name: str) -> str:
        return name if name in KNOWN else self.names.setdefault(name, f"n{len(self.names)}")

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._name(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg, node.annotation, node.type_comment = self._name(node.arg), None, None
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        if node.arg in self.names:
            node.arg = self.names[node.arg]
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return None
        return self.visit(ast.Assign(targets=[node.target], value=node.value))  # type: ignore[no-any-return]

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.name, node.returns, node.decorator_list, node.type_comment = self._name(node.name), None, [], None
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef
