"""Which Python source an answer stands for: its last fenced block, the text itself, or a body that follows a prompt."""

from __future__ import annotations

import ast
import re
import textwrap
import threading
import warnings
from collections.abc import Iterator

FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+.-]*)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_one_at_a_time = threading.Lock()  # CPython 3.11 counts the depth of a tree for all threads together, and warnings too
PYTHON = {"", "python", "python3", "py", "python2", "pycon"}
MOST_LINES = 400  # an answer whose tail is cut off line by line until it parses


def source_of(answer: str, setup: str, entry: str | None) -> str | None:
    """The whole source to run, ``setup`` in front; None where nothing in the answer is Python.

    Of several fenced blocks the last one that defines ``entry`` is taken, else the last. What does not define it may be
    the body of the function that ``setup`` ends with, with its indentation or without, or with all but the first
    line's, which a stripped completion has lost. Prose behind a body is cut off.
    """
    texts = _blocks(answer) or [answer]
    for text in reversed(texts):
        if _defines(parsed(_joined(setup, text)), entry) and _adds(text, entry):
            return _joined(setup, text)
    for shape in _shapes(texts[-1]):
        whole = _joined(setup, shape)
        if _defines(parsed(whole), entry):
            return whole
    return _cut(texts[-1], setup, entry)


def _blocks(answer: str) -> list[str]:
    found = [match for match in FENCE.finditer(answer) if match[2].lower() in PYTHON]
    return [match[3] for match in found if match[3].strip()]


def _joined(setup: str, text: str) -> str:
    return f"{setup.rstrip()}\n{text}" if setup.strip() else text


def parsed(source: str) -> ast.Module | None:
    """The tree of what is Python, whatever the compiler would warn about. Threads may call it."""
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _adds(text: str, entry: str | None) -> bool:
    """Whether the text itself is a module that defines ``entry``, rather than the end of one."""
    tree = parsed(text)
    return tree is not None and bool(tree.body) and (entry is None or entry in _names(tree))


def _names(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
    return names


def _defines(tree: ast.Module | None, entry: str | None) -> bool:
    """Whether a module gives ``entry`` something to do: a function that is only a docstring is still a prompt."""
    if tree is None:
        return False
    if entry is None:
        return bool(tree.body)
    last = next((node for node in reversed(tree.body) if entry in _names(node)), None)
    if not isinstance(last, ast.FunctionDef) or last.name != entry:
        return last is not None
    return len(last.body) > 1 or not (
        isinstance(last.body[0], ast.Expr) and isinstance(last.body[0].value, ast.Constant)
    )


def _shapes(text: str) -> Iterator[str]:
    yield text
    yield f"    {text.lstrip()}"
    yield textwrap.indent(textwrap.dedent(text), "    ")


def _cut(text: str, setup: str, entry: str | None) -> str | None:
    """The longest beginning, in whole lines, that gives ``entry`` something to do."""
    lines = text.splitlines()[:MOST_LINES]
    for shape in (lines, [f"    {text.lstrip()}".splitlines()[0], *lines[1:]] if lines else []):
        for count in range(len(shape) - 1, 0, -1):
            whole = _joined(setup, "\n".join(shape[:count]))
            if _defines(parsed(whole), entry) and (entry is not None or _adds("\n".join(shape[:count]), None)):
                return whole
    return None
