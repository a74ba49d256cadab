"""json_tools: the gold call is right by its own schema, problems are named without their wording, guessing fails."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from typing import Any

import jsonschema_rs
import pytest

from quantgate.evaluate import suites
from quantgate.evaluate.scorers import Score
from quantgate.evaluate.scorers.tool_call import score
from quantgate.evaluate.suites import Difficulty, Draft, json_tools
from quantgate.evaluate.suites._tools import CITIES, FOODS, LANGUAGES, TOOLS, elsewhere, leaves

LEVELS: tuple[Difficulty, ...] = ("default", "hard")


def drawn(level: Difficulty, count: int = 500) -> list[Draft]:
    rng = random.Random(7)
    return [json_tools.draw(rng, level) for _ in range(count)]


def value_of(answer: str, draft: Draft) -> float:
    made = score(answer, draft.reference)
    assert isinstance(made, Score)
    return made.value


def schemas(draft: Draft) -> dict[str, dict[str, Any]]:
    """The tools listed in the system message, by name."""
    lines = [json.loads(line) for line in draft.messages[0][1].split("\n")[1:-1]]
    return {line["name"]: line["parameters"] for line in lines}


@pytest.mark.parametrize("level", LEVELS)
def test_the_gold_answer_scores_one(level: Difficulty) -> None:
    assert all(value_of(draft.answer, draft) == 1.0 for draft in drawn(level))


@pytest.mark.parametrize("level", LEVELS)
def test_the_gold_call_keeps_the_listed_schema_in_its_order(level: Difficulty) -> None:
    for draft in drawn(level):
        if draft.slices["kind"] != "abstain":
            call = json.loads(draft.answer)
            properties = schemas(draft)[call["name"]]
            assert list(call["arguments"]) == list(properties)
            schema = {"type": "object", "properties": properties, "required": list(properties)}
            jsonschema_rs.validate(schema, call["arguments"])


@pytest.mark.parametrize("level", LEVELS)
def test_the_prompt_lists_as_many_different_tools_as_its_slice_says(level: Difficulty) -> None:
    assert all(len(schemas(draft)) == int(draft.slices["tools"]) for draft in drawn(level))


@pytest.mark.parametrize("level", LEVELS)
def test_the_right_tool_is_missing_exactly_where_the_answer_abstains(level: Difficulty) -> None:
    for draft in drawn(level):
        _, canonical, *_ = json.loads(draft.identity)
        names = next((tool.names for tool in TOOLS if tool.names[0] == canonical), ())
        assert bool(names) == (level == "hard" or draft.slices["kind"] != "abstain")
        assert any(name in schemas(draft) for name in names) == (draft.slices["kind"] != "abstain")


def test_what_no_tool_does_is_said_with_the_words_of_tools() -> None:
    asked = [elsewhere(random.Random(seed))[1] for seed in range(3000)]
    assert len(set(asked)) > 2000
    assert not any("{" in text for text in asked)
    opening = {text.split(" {")[0] for tool in TOOLS for text in tool.requests}
    assert not any(text.startswith(tuple(one for one in opening if len(one) > 3)) for text in asked)
    said = {word for text in asked for word in text.strip(".?").replace(",", "").split()}
    assert {*CITIES, *FOODS, *LANGUAGES} <= said


def test_at_hard_a_twin_of_the_missing_tool_stays_listed() -> None:
    for draft in drawn("hard"):
        if draft.slices["kind"] == "abstain":
            _, canonical, *_ = json.loads(draft.identity)
            family = next(tool.family for tool in TOOLS if tool.names[0] == canonical)
            twins = [name for tool in TOOLS if tool.family == family for name in tool.names]
            assert any(name in schemas(draft) for name in twins)


@pytest.mark.parametrize("level", LEVELS)
def test_a_single_turn_request_says_every_argument(level: Difficulty) -> None:
    for tool in TOOLS:
        rng = random.Random(tool.names[0])
        values = json_tools.draw_values(rng, tool.fields)
        for request in tool.requests:
            for name, field in leaves(tool.fields):
                assert "{" + name + "}" in request, (tool.names, request)
                assert field.say(values[name])


@pytest.mark.parametrize(("level", "changes"), [("default", 1), ("hard", 2)])
def test_a_follow_up_changes_and_names_so_many_arguments(level: Difficulty, changes: int) -> None:
    for draft in drawn(level):
        if draft.slices["kind"] == "multi_turn":
            _, _, before, after = json.loads(draft.identity)
            changed = [name for name in before if before[name] != after[name]]
            assert len(changed) == changes
            assert all(str(after[name]) in draft.messages[-1][1] for name in changed)
            assert [role for role, _ in draft.messages] == ["system", "user", "assistant", "tool", "assistant", "user"]


@pytest.mark.parametrize("level", LEVELS)
def test_an_identity_holds_no_wording(level: Difficulty) -> None:
    answers: dict[str, set[str]] = {}
    for draft in drawn(level):
        if level == "hard" or draft.slices["kind"] != "abstain":  # what no tool does is said in one way only
            assert not any(message in draft.identity for _, message in draft.messages)
        arguments = json.loads(draft.answer)["arguments"] if draft.answer != "no_tool" else "no_tool"
        answers.setdefault(draft.identity, set()).add(json.dumps(arguments, sort_keys=True))
    assert all(len(one) == 1 for one in answers.values())


@pytest.mark.parametrize("level", LEVELS)
def test_degenerate_answers_score_badly(level: Difficulty) -> None:
    found = drawn(level)
    abstaining = sum(draft.slices["kind"] == "abstain" for draft in found) / len(found)
    assert 0.14 < abstaining < 0.26
    for answer in ("", "abc", "{}", "no_tool"):
        total = sum(value_of(answer, draft) for draft in found) / len(found)
        assert total == (pytest.approx(abstaining) if answer == "no_tool" else 0.0)
    assert sum(value_of(draft.messages[-1][1], draft) for draft in found) == 0.0
    assert sum(value_of("\n".join(text for _, text in draft.messages), draft) for draft in found) == 0.0
    repeats = sum(value_of(draft.messages[2][1], draft) for draft in found if draft.slices["kind"] == "multi_turn")
    assert repeats == 0.0


def test_every_declared_slice_value_occurs() -> None:
    for level, tools in (("default", {"2", "3"}), ("hard", {"4", "5", "6"})):
        kinds = Counter(draft.slices["kind"] for draft in drawn(level))  # type: ignore[arg-type]
        assert set(kinds) == {"call", "nested", "abstain", "multi_turn"}
        assert kinds["nested"] < 0.34 * kinds.total()
        assert {draft.slices["tools"] for draft in drawn(level)} == tools  # type: ignore[arg-type]


def test_every_tool_is_asked_for_and_problems_are_plenty() -> None:
    found = drawn("default", 1500) + drawn("hard", 1500)
    called = {json.loads(draft.identity)[1] for draft in found if draft.slices["kind"] != "abstain"}
    assert called == {tool.names[0] for tool in TOOLS}
    assert len({draft.identity for draft in found}) > 0.95 * len(found)


@pytest.mark.parametrize("level", LEVELS)
def test_the_gate_split_has_enough_cases(level: Difficulty) -> None:
    assert len({case.id for case in suites.cases("json_tools", "gate", 400, difficulty=level)}) == 400


def test_many_requests_of_one_list_are_all_answered_right() -> None:
    kinds = Counter[str]()
    for seed in range(150):
        turns = json_tools.draw_many(random.Random(seed), 4)
        assert sum(role == "user" for role, _ in turns) in (4, 5)  # a call and its follow-up come together
        listed = [json.loads(line) for line in turns[0][1].split("\n")[1:-1]]
        properties = {line["name"]: line["parameters"] for line in listed}
        families = {tool.family for tool in TOOLS if set(tool.names) & set(properties)}
        for (role, request), (_, answer) in pairwise(turns):
            if role != "user":
                continue
            if answer == json_tools.NO_TOOL:
                kinds["abstain"] += 1
                continue
            kinds["call"] += 1
            call = json.loads(answer)
            wanted = properties[call["name"]]
            schema = {"type": "object", "properties": wanted, "required": list(wanted), "additionalProperties": False}
            jsonschema_rs.validate(schema, call["arguments"])
            assert len(families) == len(listed), request
    assert 0.1 < kinds["abstain"] / kinds.total() < 0.35


def test_requests_of_one_list_keep_to_their_split() -> None:
    firsts: dict[str, set[str]] = {}
    splits: tuple[suites.Split, ...] = ("train", "gate")
    for split in splits:
        turns = [json_tools.draw_many(random.Random(seed), 1, split) for seed in range(400)]
        firsts[split] = {answer for _, (_, answer) in ((one[1], one[2]) for one in turns)} - {json_tools.NO_TOOL}
    assert len(firsts["train"]) > 200 and not firsts["train"] & firsts["gate"]
