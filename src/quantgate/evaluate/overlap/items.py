"""The cases' side: what each case asks, once its suite's template is taken off."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from quantgate.calibrate import Turns
from quantgate.evaluate.overlap.anchors import Anchors, anchors_of
from quantgate.evaluate.overlap.shapes import shapes
from quantgate.evaluate.overlap.texts import Sample, case_cut, normal, shared_lines, without, words
from quantgate.evaluate.suites import Case

EXAMPLE_WORDS = 8  # of a shared line that is long enough to be an example's question
Key = tuple[tuple[str, str], ...]  # (role, normal content)


@dataclass(frozen=True)
class Item:
    """One case, ready to be compared."""

    case: Case
    turns: Key
    text: str  # the user's words, raw, without the template's lines
    plain: str  # the same, ``normal``
    anchors: Anchors
    shapes: frozenset[str]


@dataclass(frozen=True)
class Items:
    """All cases; ``suites`` numbers the suite of each, ``cuts`` says from how many cases on a text is its template."""

    items: list[Item]
    suites: list[int]
    cuts: list[int]
    names: tuple[str, ...]


def items_of(cases: Sequence[Case]) -> Items:
    names = tuple(dict.fromkeys(case.suite for case in cases))
    number = {name: at for at, name in enumerate(names)}
    groups = [[case for case in cases if case.suite == name] for name in names]
    cuts = [case_cut(len(group)) for group in groups]
    drops = [shared_lines(map(user_text, group), cut) for group, cut in zip(groups, cuts, strict=True)]
    suites = [number[case.suite] for case in cases]
    return Items([_item(case, drops[at]) for case, at in zip(cases, suites, strict=True)], suites, cuts, names)


def _item(case: Case, drop: frozenset[str]) -> Item:
    text = without(user_text(case), drop)
    tools = [str(tool["name"]) for tool in case.tools if "name" in tool]
    return Item(
        case=case,
        turns=tuple((message.role, normal(message.content)) for message in case.messages),
        text=text,
        plain=normal(text),
        anchors=anchors_of(text, _answer(case), tools),
        shapes=frozenset(shape for code in _codes(case) for shape in shapes(code)),
    )


def examples_of(cases: Sequence[Case]) -> list[Sample]:
    """What many cases of one suite are shown before their own question, numbered 0: few-shot examples are no secret.

    They are earlier turns in pairs, and the lines that the cases' texts have in common.
    """
    found = dict[Turns, None]()
    for suite in dict.fromkeys(case.suite for case in cases):
        group = [case for case in cases if case.suite == suite]
        cut = case_cut(len(group))
        pairs = Counter(pair for case in group for pair in {*_pairs(case)})
        found |= {pair: None for pair, count in pairs.items() if count >= cut}
        shared = shared_lines((case.messages[-1].content for case in group), cut)
        found |= {(("user", line),): None for line in sorted(shared) if len(words(line)) >= EXAMPLE_WORDS}
    return [Sample(0, turns) for turns in found]


def _pairs(case: Case) -> Iterator[Turns]:
    """A question with the answer that stands behind it, before the case's own question."""
    for asked, answered in zip(case.messages, case.messages[1:], strict=False):
        if (asked.role, answered.role) == ("user", "assistant"):
            yield (("user", asked.content), ("assistant", answered.content))


def user_text(case: Case) -> str:
    return "\n".join(message.content for message in case.messages if message.role == "user")


def _answer(case: Case) -> str | None:
    """What a right answer says, where the case knows it."""
    if isinstance(case.reference, bool) or case.reference is None:
        return case.answer
    if isinstance(case.reference, dict) and isinstance(case.reference.get("value"), int | float):
        return json.dumps(case.reference["value"])
    return json.dumps(case.reference) if isinstance(case.reference, int | float) else case.answer


def _codes(case: Case) -> Iterator[str]:
    """Every text of the case in which a right answer may stand, and the question completed by each."""
    asked = "\n".join(message.content for message in case.messages)
    for text in (case.answer or "", *_strings(case.reference)):
        if "def " in text or "def " in asked:
            yield text
            yield f"{asked}\n{text}"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)
