"""Values cross from the tests to the code and back as they are; code sees its arguments as if it were called here."""

from __future__ import annotations

import collections
import contextlib
import datetime
import decimal
import fractions
import os
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.sandbox import Job
from quantgate.sandbox.box import Box
from quantgate.sandbox.inside import wire

ATOMS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False) | st.decimals(allow_nan=False) | st.fractions() | st.datetimes()
    | st.dates() | st.times() | st.timedeltas() | st.builds(range, st.integers(), st.integers(), st.integers(1))
    | st.sampled_from([int, str, list, type(None)])
)  # fmt: skip
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
VALUES: st.SearchStrategy[Any] = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner) | st.sets(KEYS) | st.frozensets(KEYS)
        | st.builds(collections.deque, st.lists(inner)) | st.builds(collections.Counter, st.lists(KEYS))
        | st.builds(collections.OrderedDict, st.dictionaries(KEYS, inner)) | st.builds(bytearray, st.binary())
    ),
    max_leaves=20,
)  # fmt: skip


def nothing(value: Any) -> Any:
    raise AssertionError(f"{value!r} should be plain")


def through(value: Any) -> Any:
    """As the other side of a real pipe reads it."""
    receive, send = os.pipe()
    end = wire.Channel(receive, send)
    written = wire.Writer(nothing).write(value)
    sending = threading.Thread(target=end.put, args=(written,))
    sending.start()
    found = wire.Reader(nothing).read(end.get())
    sending.join()
    os.close(receive)
    os.close(send)
    return found


@given(VALUES)
def test_plain_values_arrive_equal_and_of_the_same_type(value: Any) -> None:
    found = through(value)
    assert found == value and type(found) is type(value)
    assert repr(found) == repr(value) or isinstance(value, set | frozenset | dict | list | tuple | collections.deque)


def test_special_numbers_and_shared_structure_survive() -> None:
    assert repr(through([-0.0, float("inf"), float("nan"), 10**400, -(2**60)])) == repr(
        [-0.0, float("inf"), float("nan"), 10**400, -(2**60)]
    )
    row: list[Any] = [0]
    grid = through([row, row])
    assert grid[0] is grid[1]
    loop: list[Any] = []
    loop.append(loop)
    found = through(loop)
    assert found[0] is found


def test_subclasses_arrive_as_their_base() -> None:
    class Yes(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    class Text(str):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    class Many(list[int]):
        def __iter__(self) -> Any:
            return iter([9])

    assert through(Yes(3)) != 4 and type(through(Yes(3))) is int
    assert through(Text("a")) != "b" and type(through(Text("a"))) is str
    assert through(Many([1, 2])) == [1, 2] and type(through(Many([1, 2]))) is list
    point = collections.namedtuple("point", "x y")
    assert through(point(1, 2)) == (1, 2) and through(point(1, 2)).y == 2


TEXTS = st.text(alphabet="rlsdnifobtzTRDFqCO\x00", max_size=3)
MESSAGES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=12,
)


@given(MESSAGES)
def test_any_message_is_read_or_refused_and_nothing_else(message: Any) -> None:
    with contextlib.suppress(wire.Broken):
        wire.Reader(lambda parts: parts).read(message)


@pytest.mark.parametrize("data", [b"", b"[1", b"\xff", b"[" * 100_000, b"nul"])
def test_broken_bytes_are_refused(data: bytes) -> None:
    receive, send = os.pipe()
    os.set_blocking(send, False)
    os.write(send, len(data).to_bytes(8, "big") + data[:60_000])
    os.close(send)
    with pytest.raises(wire.Broken):
        wire.Channel(receive, receive).get()
    os.close(receive)


def passes(box: Box, code: str, tests: str) -> None:
    made = box.run(Job(code=code, tests=tests))
    assert made.verdict == "passed", made


@settings(max_examples=25)
@given(value=VALUES)
def test_a_value_comes_back_from_the_code_as_it_went(any_box: Box, value: Any) -> None:
    tests = (
        "import collections, datetime, fractions\nfrom collections import *\nfrom decimal import Decimal\n"
        "from fractions import Fraction\nNoneType, inf = type(None), float('inf')\n"
        f"value = {shown(value)}\nfound = same(value)\nassert found == value and type(found) is type(value), found\n"
    )
    passes(any_box, "def same(x):\n    return x", tests)


def shown(value: Any) -> str:
    """Source of a value."""
    match value:
        case type():
            return value.__name__
        case complex():
            return f"complex({value.real!r}, {value.imag!r})"
        case collections.OrderedDict() | collections.Counter():
            return f"{type(value).__name__}({{{', '.join(f'{shown(k)}: {shown(v)}' for k, v in value.items())}}})"
        case dict():
            return f"{{{', '.join(f'{shown(k)}: {shown(v)}' for k, v in value.items())}}}"
        case list():
            return f"[{', '.join(map(shown, value))}]"
        case tuple():
            return f"({''.join(f'{shown(one)}, ' for one in value)})"
        case collections.deque():
            return f"deque([{', '.join(map(shown, value))}])"
        case _:
            return repr(value)


CALLS = {
    "arguments are changed in place": (
        "def f(rows, seen):\n    rows.sort()\n    rows[0].append(9)\n    seen['a'] = 1\n    seen.pop('b')",
        "rows, inner, seen = [[2], [1]], None, {'b': 2}\ninner = rows[1]\nf(rows, seen)\n"
        "assert rows == [[1, 9], [2]] and rows[0] is inner and seen == {'a': 1}",
    ),
    "what was given comes back as the same object": (
        "def f(rows):\n    return rows[0]",
        "rows = [[1], [2]]\nassert f(rows) is rows[0]",
    ),
    "unchanged arguments may be walked meanwhile": (
        "def f(seen, key):\n    return seen[key]",
        "seen = {1: 2, 3: 4}\nfor key in seen:\n    assert f(seen, key) == key + 1",
    ),
    "named arguments and defaults": (
        "def f(a, *, b=2):\n    return a, b",
        "assert f(1) == (1, 2) and f(a=3, b=4) == (3, 4)",
    ),
    "functions of the tests can be called": (
        "def f(function, values):\n    return [function(one) for one in values]",
        "assert f(lambda x: x + 1, [1, 2]) == [2, 3] and f(len, ['ab']) == [2] and f(str.upper, ['a']) == ['A']",
    ),
    "functions of the tests can call the code": (
        "def f(function, n):\n    return function(n)",
        "assert f(lambda n: 1 if n == 0 else n * f(lambda m: m, n - 1), 4) == 12",
    ),
    "errors of the tests' functions pass through": (
        "def f(function):\n    try:\n        return function()\n    except ZeroDivisionError:\n        return 'caught'",
        "assert f(lambda: 1 / 0) == 'caught'",
    ),
    "functions can be returned": ("def f(n):\n    return lambda x: x + n", "assert f(2)(3) == 5"),
    "built-in errors can be caught": (
        "def f(x):\n    raise KeyError('no')",
        "try:\n    f(1)\n    raise SystemError\nexcept KeyError as told:\n    assert told.args == (\"'no'\",)",
    ),
    "errors of the code's own can be caught": (
        "class Empty(LookupError):\n    pass\nclass Full(Empty):\n    pass\ndef f():\n    raise Full('x')",
        "caught = []\nfor kind in (Full, Empty, LookupError):\n    try:\n        f()\n    except kind:\n"
        "        caught.append(kind.__name__)\nassert caught == ['Full', 'Empty', 'LookupError']",
    ),
    "classes of the code": (
        "class Stack:\n    def __init__(self, *a):\n        self.items = list(a)\n    def push(self, one):\n"
        "        self.items.append(one)\n        return self\n    def __len__(self):\n        return len(self.items)\n"
        "    def __getitem__(self, at):\n        return self.items[at]\n    def __eq__(self, other):\n"
        "        return self.items == other.items\n    def __str__(self):\n        return f'Stack{self.items}'\n"
        "    __hash__ = None",
        "s = Stack(1)\nassert s.push(2) is s and len(s) == 2 and s[1] == 2 and list(s) == [1, 2] and 2 in s\n"
        "s.items = [5]\n"
        "assert s.items == [5] and str(s) == 'Stack[5]' and bool(s) and s == Stack(5) and s != Stack(6)\n"
        "assert isinstance(s, Stack) and not isinstance(3, Stack)",
    ),
    "trees of the tests' making": (
        "class Node:\n    def __init__(self, v):\n        self.v, self.left = v, None\n"
        "def depth(n):\n    return 0 if n is None else 1 + depth(n.left)",
        "root = Node(1)\nroot.left = Node(2)\nassert depth(root) == 2 and root.left.v == 2",
    ),
    "generators": ("def f(n):\n    yield from range(n)", "assert list(f(3)) == [0, 1, 2] and next(f(1)) == 0"),
    "modules that the code imported": ("import math\ndef f(x):\n    return x", "assert math.isclose(f(1.0), 1.0)"),
    "a name that is a built-in's": ("def sum(a, b):\n    return a + b", "assert sum([1, 2]) == 3"),
    "random numbers repeat": (
        "import random\ndef f():\n    return random.random()",
        "assert f() == 0.8444218515250481",
    ),
    "sets have one order": (
        "def f():\n    return list({'a', 'b', 'c', 'd'})",
        "assert f() == list({'a', 'b', 'c', 'd'})",
    ),
}


@pytest.mark.parametrize("name", [one for one in CALLS if "built-in's" not in one])
def test_code_is_called_as_if_it_were_here(box: Box, name: str) -> None:
    passes(box, *CALLS[name])


def test_a_name_that_is_a_builtins_is_the_codes_only_when_it_is_the_entry(any_box: Box) -> None:
    code = "def sum(a, b):\n    return a + b"
    assert any_box.run(Job(code=code, tests="assert sum(1, 2) == 3", entry="sum")).verdict == "passed"
    assert any_box.run(Job(code=code, tests="assert sum(1, 2) == 3")).verdict == "failed"


def test_values_that_cannot_cross_are_the_tests_fault(any_box: Box) -> None:
    tests = "class Own:\n    pass\nassert f(Own()) is None"
    made = any_box.run(Job(code="def f(x):\n    return None", tests=tests))
    assert made.verdict == "broken" and "an object of type Own" in made.because


def test_known_types_are_read_from_their_own_libraries() -> None:
    value = [decimal.Decimal("1.50"), fractions.Fraction(1, 3), datetime.timedelta(days=-1, seconds=5)]
    assert repr(through(value)) == repr(value)
