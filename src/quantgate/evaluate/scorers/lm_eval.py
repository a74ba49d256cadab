"""lm_eval: what the EleutherAI harness's own filters and metric say of an answer.

The reference names a task, its version and settings, and one of its documents; ``evaluate/harness.py`` writes it. An
answer to choices is JSON, ``[[log likelihood, greedy], ...]``, as engines give it.
"""

from __future__ import annotations

import json
from typing import Any

from quantgate.evaluate import harness
from quantgate.evaluate.scorers import Score, Unscored

KEYS = {"task", "version", "config", "document", "options"}


def score(answer: str, reference: Any) -> Score | Unscored:
    """The task's metric for this answer; unscored where the task is another one here, or its metric is no score."""
    if not isinstance(reference, dict) or set(reference) != KEYS:
        return Unscored(reason=f"lm_eval: the reference is no object with {', '.join(sorted(KEYS))}")
    task = harness.opened(reference)
    if task is None or reference["document"] not in task.requests:
        return Unscored(
            reason=f"lm_eval: the task {reference['task']} of version {reference['version']} with this document "
            "is not installed here"
        )
    answers = _answers(answer, task, reference["document"])
    if answers is None:
        return Score(value=0.0, answer=answer or None, because="the answer is no list of log likelihoods")
    try:
        value = task.scores(reference["document"], answers)[task.metric]
    except Exception as problem:  # the task's own code, which may be anything
        return Unscored(reason=f"lm_eval: {reference['task']} cannot score the answer ({problem!r:.160})")
    if not isinstance(value, bool | int | float) and not hasattr(value, "item"):
        return Unscored(reason=f"lm_eval: the metric '{task.metric}' gives {type(value).__name__}, not a number")
    if not 0 <= float(value) <= 1:
        return Unscored(reason=f"lm_eval: the metric '{task.metric}' gives {float(value):g}, which is not in [0, 1]")
    because = "" if float(value) == 1 else f"{task.metric} is {float(value):g}"
    return Score(value=float(value), answer=answer.strip() or None, because=because)


def _answers(answer: str, task: harness.Opened, document: str) -> list[Any] | None:
    """What the task's requests are answered with; None where choices have no such answer."""
    if task.task.OUTPUT_TYPE not in harness.CHOICES:
        return [answer]
    try:
        found = [(float(weight), bool(greedy)) for weight, greedy in json.loads(answer)]
    except (ValueError, TypeError):
        return None
    if len(found) != len(task.requests[document]):
        return None
    return [weight for weight, _ in found] if task.task.OUTPUT_TYPE == "loglikelihood_rolling" else list(found)


SCORER = score
