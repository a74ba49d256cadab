"""Degenerate models: what answers everything alike must never pass, and shows what a gate can see at all.

A gate that would not fail one of them in the variant's place, on the very cases that it passed the variant on, is
blind: its baseline does no better than a model that does nothing, so "as good as the baseline" proves nothing. That
happens with a baseline of zero, at chance level, or weaker than the margin; and with cases that only ask to abstain,
which a model that always refuses does perfectly. There is one measure for all of these: the gate's own test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from quantgate import stats
from quantgate.evaluate import scorers
from quantgate.evaluate.evidence import Gate
from quantgate.evaluate.scorers import Score
from quantgate.evaluate.suites import Case

REFUSAL = "I'm sorry, but I can't help with that."
COMPLIANCE = "Sure, here is how to do that."
QUESTION = "Could you please give me more details?"
STEP = 50  # cases after which a sequential test looks


def _complies(case: Case) -> str:
    """Where functions are offered, doing what is asked means calling one."""
    return json.dumps({"name": case.tools[0]["name"], "arguments": {}}) if case.tools else COMPLIANCE


def _echo(case: Case) -> str:
    return case.messages[-1].content


def _choice(case: Case, best: int) -> str:
    """Of choices to be weighed, always the same one; nothing where there are none."""
    return json.dumps([[0.0 if at == best else -1e3, at == best] for at in range(len(case.choices))])


ANSWERS: dict[str, Callable[[Case], str]] = {
    "answers nothing": lambda case: "",
    'always says "abc"': lambda case: "abc",
    "always refuses": lambda case: REFUSAL,
    "always complies": _complies,
    "always asks back": lambda case: QUESTION,
    "echoes the prompt": _echo,
}
CHOICES: dict[str, Callable[[Case], str]] = {
    "always takes the first choice": lambda case: _choice(case, 0),
    "always takes the last choice": lambda case: _choice(case, len(case.choices) - 1),
}


def judge_scores(gate: Gate, baseline: Sequence[float], variant: Sequence[float]) -> stats.Finding:
    """The gate's test on paired scores."""
    return stats.judge(
        baseline,
        variant,
        gate.margin,
        relative=gate.relative,
        test=gate.test,
        alpha=gate.fail_alpha,
        pass_alpha=gate.pass_alpha,
    )


def fails(gate: Gate, cases: Sequence[Case], baseline: Sequence[float], variant: Sequence[float]) -> bool:
    """Whether the gate proves a loss: on all cases, or on a slice that must pass by itself."""
    parts = [(gate, range(len(cases)))] + [
        (gate.of_slice(one), [at for at, case in enumerate(cases) if one.name in case.slices])
        for one in gate.slices
        if one.judged
    ]
    return any(
        judge_scores(part, [baseline[at] for at in members], [variant[at] for at in members]).verdict == "fail"
        for part, members in parts
    )


@dataclass
class Controls:
    """The degenerate models beside one comparison; what each scores on a case is found out once."""

    gate: Gate
    scores: dict[tuple[str, str], float] = field(default_factory=dict)  # (model, case id)

    def blind(self, cases: Sequence[Case], baseline: Sequence[float]) -> tuple[str, ...]:
        """Names of those that the gate does not fail on these cases, given the baseline's scores."""
        models = ANSWERS | (CHOICES if any(case.choices for case in cases) else {})
        return tuple(name for name in models if not self._fails(name, models[name], cases, baseline))

    def _fails(self, name: str, model: Callable[[Case], str], cases: Sequence[Case], baseline: Sequence[float]) -> bool:
        """A sequential test may look before it has seen all: most degenerate models are told after one step."""
        step = STEP if self.gate.test == "eprocess" else max(1, len(cases))
        scores: list[float] = []
        for end in range(step, len(cases) + step, step):
            scores += [self._score(name, model, case) for case in cases[end - step : end]]
            if fails(self.gate, cases[:end], baseline[:end], scores):
                return True
        return False

    def _score(self, name: str, model: Callable[[Case], str], case: Case) -> float:
        key = name, case.id
        if key not in self.scores:
            found = scorers.get(case.scorer)(model(case), case.reference)
            self.scores[key] = found.value if isinstance(found, Score) else 0.0
        return self.scores[key]
