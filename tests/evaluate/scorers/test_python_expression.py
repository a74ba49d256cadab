"""python_expression: right outputs count, whatever the spelling; what is not whitelisted is a wrong answer, quickly."""

from __future__ import annotations

import ast
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers._expressions import Refused, evaluate, size_of
from quantgate.evaluate.scorers.python_expression import score

REFERENCE = {"variables": "xs", "inputs": [[1, 2, 3, 4], [], [-2, -2, 5]], "outputs": [[4, 8], [], [-4, -4]]}
ONE = {"variables": "xs", "inputs": [[1, 2]], "outputs": [3]}


def judged(answer: str, reference: Any = REFERENCE) -> Score:
    made = score(answer, reference)
    assert isinstance(made, Score), made
    return made


def run(source: str, **variables: Any) -> Any:
    return evaluate(ast.parse(source, mode="eval").body, variables)


@pytest.mark.parametrize(
    "answer",
    [
        "[x * 2 for x in xs if x % 2 == 0]",
        "list(map(lambda x: x * 2, filter(lambda x: not x % 2, xs)))",
        "[*(2 * x for x in xs if x & 1 == 0)]",
        "```python\n[x * 2 for x in xs if x % 2 == 0]\n```",
        "Here it is:\n```\nresult = [x + x for x in xs if x % 2 == 0]\n```\nIt doubles the even ones.",
        "`[x * 2 for x in xs if x % 2 == 0]`",
        "```[x * 2 for x in xs if x % 2 == 0]```",
        "return [x * 2 for x in xs if x % 2 == 0]",
        "f = lambda ys: [y * 2 for y in ys if y % 2 == 0]",
        "lambda xs: [x * 2 for x in xs if x % 2 == 0]",
    ],
)
def test_every_spelling_of_the_right_expression_scores_one(answer: str) -> None:
    assert judged(answer) == Score(value=1.0, answer=judged(answer).answer)


@pytest.mark.parametrize(
    ("answer", "because"),
    [
        ("", "the answer is empty"),
        ("[x * 2 for x in xs]", "for [1, 2, 3, 4] it gives [2, 4, 6, 8] instead of [4, 8]"),
        ("(x * 2 for x in xs if x % 2 == 0)", "for [1, 2, 3, 4] it gives a generator instead of [4, 8]"),
        ("tuple(x * 2 for x in xs if x % 2 == 0)", "for [1, 2, 3, 4] it gives (4, 8) instead of [4, 8]"),
        ("[x * 2.0 for x in xs if x % 2 == 0]", "for [1, 2, 3, 4] it gives [4.0, 8.0] instead of [4, 8]"),
        ("reversed(xs)", "for [1, 2, 3, 4] it gives a list_reverseiterator instead of [4, 8]"),
        ("xs[9]", "fails with IndexError: list index out of range"),
        ("import os", "uses Import, which is not an expression"),
        ("def f(xs): return xs", "uses FunctionDef, which is not an expression"),
        ("xs; xs", "is 2 statements instead of one expression"),
        ("the even ones doubled", "is not Python: invalid syntax"),
        ("ys", "uses the name 'ys', which is not known here"),
    ],
)
def test_a_wrong_answer_says_what_is_wrong(answer: str, because: str) -> None:
    assert judged(answer) == Score(value=0.0, answer=judged(answer).answer, because=because)


def test_types_count_in_numbers_too() -> None:
    assert judged("sum(xs)", ONE).value == 1.0
    assert judged("float(sum(xs))", ONE).value == 0.0
    assert judged("sum(xs) == 3", {**ONE, "outputs": [1]}).because == "for [1, 2] it gives True instead of 1"


def test_several_variables_take_an_input_list_each() -> None:
    reference = {"variables": "xs, k", "inputs": [[[1, 2, 3], 2], [[], 1]], "outputs": [[1, 2], []]}
    assert judged("xs[:k]", reference).value == 1.0
    assert judged("lambda a, n: a[:n]", reference).value == 1.0
    assert judged("xs[k:]", reference).value == 0.0


@pytest.mark.parametrize(
    "reference",
    [
        None,
        {"variables": "xs", "inputs": [[1]]},
        {"variables": "xs", "inputs": [], "outputs": []},
        {"variables": "xs", "inputs": [[1]], "outputs": [1, 2]},
        {"variables": "1s", "inputs": [[1]], "outputs": [1]},
        {"variables": "xs, k", "inputs": [[[1]]], "outputs": [1]},
        {"variables": "xs", "inputs": [[0] * 20_000], "outputs": [1]},
    ],
)
def test_a_bad_reference_is_unscored(reference: Any) -> None:
    assert isinstance(score("xs", reference), Unscored)


ATTACKS = (
    "().__class__.__bases__[0].__subclasses__()",
    "xs.__class__",
    "str.mro()",
    "'{0.__class__}'.format(xs)",
    "f'{xs!r}'",
    "f'{1:>9999999999}'",
    "__import__('os').system('true')",
    "open('/etc/passwd').read()",
    "eval('1')",
    "globals()",
    "(lambda: 1).__globals__",
    "xs.sort()",
    "xs.append(1)",
    "(y := xs)",
    "10 ** 10 ** 10",
    "2 ** 10 ** 9",
    "pow(2, 10 ** 9)",
    "pow(base=2, exp=10 ** 9)",
    "pow(3, -1, 10 ** 9)",
    "1 << 10 ** 9",
    "round(5, -10 ** 12)",
    "round(5, ndigits=-10 ** 12)",
    "99999999999999999999999999999",
    "'a' * 10 ** 9",
    "10 ** 9 * [xs]",
    "[0] * 9000 * 9000",
    "('a' * 5000) * 5000",
    "('a' * 9000).replace('a', 'b' * 9000)",
    "('b' * 9000).replace('', 'b' * 9000)",
    "('a' * 9000).join('b' * 900)",
    "'%999999999d' % 1",
    "list(range(10 ** 12))",
    "sum(range(10 ** 12))",
    "max(range(10 ** 30))",
    "[0 for x in range(9000) for y in range(9000)]",
    "sum(1 for x in range(9000) for y in range(9000))",
    "[sum(range(9000)) for x in range(9000)]",
    "sum(([0] * 9000 for x in range(9000)), [])",
    "sum((ys for ys in [[0] * 90] * 90), [])",
    "[[0] * 9000 for x in range(9000)]",
    "list(map(lambda x: [0] * 9000, range(9000)))",
    "sorted(range(9000), key=lambda x: sum(range(9000)))",
    "[0] * 9000 + [0] * 9000",
    "range(10 ** 12, 0, -1)",
    "len(range(10 ** 18)) * [0]",
    "enumerate(range(10 ** 12))",
    "list(zip(*[range(9000)] * 9000))",
    "(lambda f: f(f))(lambda f: f(f))",
    "(lambda f: f(f))(lambda f: [f(f), f(f)])",
    "str((lambda a: [a] * 90)((lambda a: [a] * 90)((lambda a: [a] * 90)([0] * 90))))",
    "[[[[[0] * 90] * 90] * 90] * 90] == [[[[[0] * 90] * 90] * 90] * 90]",
    "(" * 150 + "xs" + ")" * 150 + " + ys",
    "-" * 1900 + "1",
    "[" * 1900,
    "+".join(["1"] * 900),
    "xs" + "[:]" * 600,
    "not " * 400 + "xs",
    "xs if " * 300,
    "\0",
    "'\\d' * 2",
    "1" * 1999,
    "x" * 5000,
    "int('9' * 9000)",
    "next(iter(xs))",
    "next(x for x in [])",
    "[x async for x in xs]",
    "[await x for x in xs]",
    "b'ab'",
    "1j",
    "(-8) ** 0.5",
    "2.0 ** 10 ** 4",
    "...",
    "{**{}}",
    "max(**{})",
    "(lambda *a: a)(1)",
    "[0 for xs[0] in xs]",
    "1 / 0",
    "{[]: 1}",
    "len(5)",
    "sorted([1, 'a'])",
    "xs()",
)


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_what_is_not_whitelisted_or_too_large_is_a_wrong_answer_at_once(attack: str) -> None:
    started = time.process_time()
    made = judged(attack)
    assert time.process_time() - started < 1.0
    assert made.value == 0.0
    assert made.because and "\n" not in made.because


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("'a' * 9999", "'a' * 10000"),
        ("[[]] * 9999", "[[]] * 10000"),
        ("list(range(9999))", "list(range(10000))"),
        ("[0 for x in range(3000)]", "[0 for x in range(9000)]"),
        ("2 ** 63 + (2 ** 63 - 1)", "2 ** 64"),
        ("-(2 ** 63) * 1", "-(2 ** 64)"),
        ("[" * 58 + "1" + "]" * 58, "[" * 60 + "1" + "]" * 60),
    ],
)
def test_a_budget_lets_everything_below_it_through(inside: str, outside: str) -> None:
    assert run(inside) == eval(inside)
    with pytest.raises(Refused):
        run(outside)


@pytest.mark.parametrize("source", ["range(5)", "range(0)", "range(9, 2)", "range(9, 2, -2)", "range(2, 9, 4)"])
def test_the_size_of_a_range_is_its_length(source: str) -> None:
    assert size_of(eval(source)) == 1 + len(eval(source))


def test_nothing_in_an_expression_changes_the_inputs() -> None:
    judged("sorted(xs, reverse=True)[::-1] + list(reversed(xs))")
    assert REFERENCE["inputs"] == [[1, 2, 3, 4], [], [-2, -2, 5]]


@pytest.mark.parametrize(
    "source",
    [
        "sum(x ** 2 for x in xs if x > 1)",
        "[x // 3 - -x % 2 for x in xs]",
        "[(i, x) for i, x in enumerate(xs, 1)]",
        "[[a, b] for a in xs for b in range(a) if a != b]",
        "{x: x * x for x in xs if x > 0}",
        "{x % 2 for x in xs}",
        "sorted(xs, key=lambda x: (-x, x))[1:]",
        "sorted(set(xs), reverse=True)[-2:]",
        "max(xs, key=abs), min(xs, default=0)",
        "any(x > 3 for x in xs) and all(xs) or None",
        "1 < len(xs) <= 4 != 5",
        "xs[::-1][0] if xs else -1",
        "list(zip(xs, xs[1:], strict=False))",
        "''.join(map(str, xs))",
        "[w.title() for w in s.split() if w.startswith('a')]",
        "s.strip().replace('a', 'e', 1).upper()[2:-1]",
        "'-'.join(sorted(s.split(), key=len))",
        "list(map(str.upper, s))",
        "s.count('a') + s.find('b')",
        "sum(map(len, s.split()))",
        "{c: s.count(c) for c in s}.get('a', 0)",
        "(lambda n: n + len(xs))(2)",
        "[*xs, *range(2)]",
        "f'{s}{len(xs)}'",
        "round(sum(xs) / 3, 2)",
        "4 in xs or s not in 'abc'",
        "dict(zip(s, xs))",
        "list({'a': 1}.items())",
        "divmod(7, 2) + (abs(-3), int('12'), bool(xs), chr(ord('a') + 1))",
        "[f(x) for f in (abs, str) for x in xs]",
        "next(x for x in xs if x > 1)",
        "[n for n in (x for x in reversed(xs))]",
    ],
)
def test_the_interpreter_agrees_with_python(source: str) -> None:
    names = {"xs": [4, -7, 2, 2, 9], "s": "  an apple and a banana "}
    wanted = eval(source, dict(names))
    got = run(source, **names)
    assert got == wanted and type(got) is type(wanted)


OPERATIONS = ("+", "-", "*", "//", "%", "<", "==", "&", "|", "and", "or")
TERMS = st.recursive(
    st.sampled_from(["a", "b", "2", "-3", "len(xs)", "xs[0]"]),
    lambda inner: st.tuples(inner, st.sampled_from(OPERATIONS), inner).map(lambda part: f"({' '.join(part)})"),
    max_leaves=8,
)


@given(TERMS, st.integers(-9, 9), st.integers(-9, 9))
def test_arithmetic_agrees_with_python_or_is_refused_where_python_fails(source: str, a: int, b: int) -> None:
    names = {"a": a, "b": b, "xs": [a, b]}
    try:
        wanted = eval(source, dict(names))
    except ZeroDivisionError:
        with pytest.raises(Refused, match="ZeroDivisionError"):
            run(source, **names)
    else:
        assert run(source, **names) == wanted


@given(st.text(max_size=60))
def test_no_text_makes_the_scorer_fail(answer: str) -> None:
    assert 0.0 <= judged(answer).value <= 1.0
