"""Two sides are compared on the same terms, or a person has said which ones may differ."""

from __future__ import annotations

from typing import Any

import pytest

from quantgate.engines import Identity
from quantgate.errors import ComparabilityError
from quantgate.evaluate.lock import Terms, agreed, comparable, differences, scorer_digest, terms_of
from quantgate.evaluate.suites import Case, Message

CASES = {
    "math": [
        Case(suite="math", id="1", messages=(Message(role="user", content="1 + 1"),), scorer="numeric", reference=2),
        Case(suite="math", id="2", messages=(Message(role="user", content="say it"),), scorer="exact", reference="it",
             max_tokens=8, stop=("\n",)),
    ]
}  # fmt: skip
SIDE: dict[str, Any] = {
    "engine": "torch", "weights": "sha256:w", "tokenizer": "sha256:t", "template": "sha256:c",
    "runtime": ("threads=2", "batch=128x16384/64", "dtype=bfloat16"), "bos": "1 x token 0", "stops": (2, 5),
}  # fmt: skip


def side(**changes: Any) -> Identity:
    return Identity(**SIDE | changes)


def test_equal_sides_agree_whatever_their_weights() -> None:
    found = comparable(side(), side(weights="sha256:other"), CASES)
    assert (found.accepted, found.noted) == ((), ())
    assert found.baseline == found.variant
    assert found.baseline.max_tokens == {"math": (8, 64)}
    assert found.baseline.stop_strings == {"math": ("\n",)}
    assert sorted(found.baseline.scorers) == ["exact", "numeric"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"template": "sha256:d"}, "template: baseline sha256:c, variant sha256:d"),
        ({"tokenizer": "sha256:u"}, "tokenizer: baseline sha256:t, variant sha256:u"),
        ({"bos": "2 x token 0"}, "bos: baseline 1 x token 0, variant 2 x token 0"),
        ({"sampling": "temperature 0.7"}, "sampling: baseline greedy, variant temperature 0.7"),
        ({"stops": (2,)}, "stop_tokens: baseline 2, 5, variant 2"),
    ],
)
def test_an_engine_that_asks_otherwise_is_refused_with_both_values_unless_allowed(changes: Any, told: str) -> None:
    field = told.partition(":")[0]
    with pytest.raises(ComparabilityError, match=rf"cannot be compared: {told}; .* allow: \[{field}\]$") as refused:
        comparable(side(), side(**changes), CASES)
    assert refused.value.exit_code == 4
    found = comparable(side(), side(**changes), CASES, allow=[field])
    assert [one.field for one in found.accepted] == [field]
    assert comparable(side(), side(), CASES, allow=[field]).accepted == ()  # what is allowed need not differ


def test_what_a_server_does_not_tell_is_noted_and_not_refused() -> None:
    found = comparable(side(), side(bos="", stops=()), CASES)
    assert [one.field for one in found.noted] == ["bos (not told by one side)", "stop_tokens (not told by one side)"]
    assert found.accepted == () and found.noted[0].baseline == "1 x token 0"


def changed(**fields: Any) -> Terms:
    return terms_of(side(), CASES).model_copy(update=fields)


@pytest.mark.parametrize(
    ("other", "told", "allowed"),
    [
        (changed(stop_strings={"math": ()}), r"stop_strings of math: baseline \n, variant \(none\)", "stop_strings"),
        (changed(max_tokens={"math": (8, 32)}), "max_tokens of math: baseline 8, 64, variant 8, 32", "max_tokens"),
        (changed(sandbox="rlimits"), r"sandbox: baseline \(none\), variant rlimits", "sandbox"),
        (changed(suites={"math": "sha256:s"}), "suites of math: baseline sha256:.*, variant sha256:s", ""),
        (changed(suites={}), r"suites of math: baseline sha256:.*, variant \(none\)", ""),
        (changed(scorers={"numeric": scorer_digest("numeric")}), "scorers of exact: baseline sha256:.*", ""),
    ],
)
def test_other_cases_scorers_budgets_and_sandboxes_are_refused(other: Terms, told: str, allowed: str) -> None:
    with pytest.raises(ComparabilityError, match=told) as refused:
        agreed(terms_of(side(), CASES), other)
    assert ("allow:" in str(refused.value)) == bool(allowed)  # cases and scorers that differ make no pairs at all
    if allowed:
        assert len(agreed(terms_of(side(), CASES), other, allow=[allowed])) == 1


def test_every_field_of_the_terms_is_locked() -> None:
    mine = terms_of(side(), CASES)
    for name, value in mine:
        other = {"math": "else"} if isinstance(value, dict) else (9,) if isinstance(value, tuple) else "else"
        assert differences(mine, mine.model_copy(update={name: other})), name


def test_all_differences_are_told_at_once_and_each_must_be_allowed() -> None:
    other = side(template="sha256:d", tokenizer="sha256:u")
    with pytest.raises(ComparabilityError, match=r"template: .*; tokenizer: .*allow: \[template, tokenizer\]"):
        comparable(side(), other, CASES)
    with pytest.raises(ComparabilityError, match=r"compared: template: [^;]*; make them agree.*allow: \[template\]"):
        comparable(side(), other, CASES, allow=["tokenizer"])


def test_threads_and_batches_are_noted_and_not_locked() -> None:
    found = comparable(side(), side(runtime=("threads=4", "batch=128x16384/64", "dtype=bfloat16")), CASES)
    assert [str(one) for one in found.noted] == ["threads: baseline 2, variant 4"]


def test_a_finished_runs_terms_are_held_to_but_for_its_cases() -> None:
    now = changed(suites={"math": "sha256:s"}, max_tokens={"math": (4,)})
    assert agreed(terms_of(side(), CASES), now, since=True) == ()
    with pytest.raises(ComparabilityError, match=r"other terms than now: scorers of exact: .*; run it again"):
        agreed(terms_of(side(), CASES), changed(scorers={"numeric": scorer_digest("numeric")}), since=True)


def test_a_scorers_version_covers_what_it_imports() -> None:
    digests = {name: scorer_digest(name) for name in ("exact", "json_schema", "tool_call")}
    assert len(set(digests.values())) == 3
    from quantgate.evaluate.lock import ROOM, _imports
    from quantgate.evaluate.scorers import tool_call

    assert any(one == f"{ROOM}scorers._json" for one in _imports(__import__("pathlib").Path(str(tool_call.__file__))))
