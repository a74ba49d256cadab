"""A gate that cannot pass is refused before anything is spent, with the figures."""

from __future__ import annotations

from typing import Any

import pytest

from quantgate.decide import fewest_cases, likely_cases, refuse_hopeless, short_sentence
from quantgate.errors import UsageError


def test_hopeless_gate_is_refused_with_its_figures(make: Any) -> None:
    gate = make.gate(margin=0.01, pass_alpha=0.05 / 6)
    with pytest.raises(UsageError) as told:
        refuse_hopeless([gate], {"math": 400})
    assert str(told.value) == (
        "math: a margin of 1 % at alpha 5 % over 6 variants needs at least 679 cases, 400 are available; "
        "widen the margin, add cases, or judge fewer variants"
    )


def test_one_variant_shares_alpha_with_nobody(make: Any) -> None:
    with pytest.raises(UsageError) as told:
        refuse_hopeless([make.gate(margin=0.03, relative=False)], {"math": 100})
    need = fewest_cases(make.gate(margin=0.03, relative=False))
    assert need == 151  # where the e-process without a flip crosses 20
    assert str(told.value) == (
        "math: a margin of 3 points at alpha 5 % needs at least 151 cases, 100 are available; "
        "widen the margin or add cases"
    )


def test_other_hopeless_gates_are_named_too(make: Any) -> None:
    gates = [make.gate("math"), make.gate("chat", margin=0.5), make.gate("code"), make.gate("refusals")]
    with pytest.raises(UsageError, match=r"math: .* 20 are available \(and code and refusals too few as well\); widen"):
        refuse_hopeless(gates, dict.fromkeys(("math", "chat", "code", "refusals"), 20))


@pytest.mark.parametrize(
    ("margin", "rules"),
    [
        *((margin, rules) for margin in (0.01, 0.1, 0.3) for rules in ({}, {"relative": False}, {"pass_alpha": 0.01})),
        *((margin, {"relative": relative, "test": "exact"}) for margin in (0.1, 0.3) for relative in (True, False)),
    ],
)
def test_exactly_as_many_cases_as_needed_can_pass_and_one_fewer_cannot(make: Any, margin: float, rules: Any) -> None:
    gate = make.gate(margin=margin, **rules)
    need = fewest_cases(gate)
    refuse_hopeless([gate], {"math": need})
    assert make.comparison(gate, need).finding.verdict == "pass"
    assert make.comparison(gate, need - 1).finding.verdict == "inconclusive"
    with pytest.raises(UsageError):
        refuse_hopeless([gate], {"math": need - 1})


def test_gate_that_may_stay_undecided_is_told_with_its_figures_and_not_refused(make: Any) -> None:
    gate = make.gate(margin=0.03, relative=False, test="exact")
    refuse_hopeless([gate], {"math": 164})
    assert likely_cases(gate, 0.06) == 413
    assert short_sentence(gate, 164, 0.06, 413) == (
        "math: a margin of 3 points at alpha 5 % and 6 % of answers flipping: about 413 cases are likely to be needed, "
        "the suite has 164; it may stay undecided"
    )
    assert short_sentence(gate, 413, 0.06, 413) == ""
    assert "no number of cases decides, the suite has 9" in short_sentence(gate, 9, 0.06, None)
