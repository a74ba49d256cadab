"""An upstream's whole answer, as far as guards, converters and clients count on its form.

What is no answer is refused. What stands beside an answer and is not what it should be (a usage that is no numbers, log
probabilities that are none) is left out, because nobody has to do without the answer for its sake.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantgate.guard.known import logprobs_of
from quantgate.serve import Body, UpstreamFault
from quantgate.serve.passage import count_of

HEAD: Mapping[str, tuple[type, ...]] = {"id": (str,), "created": (int, float), "model": (str,)}
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
DETAILS = ("prompt_tokens_details", "completion_tokens_details")


def sound(body: Body, most: int) -> Body:
    """The answer, the same object where nothing is amiss; of at most ``most`` choices. Raises UpstreamFault."""
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise UpstreamFault("malformed", "the upstream's answer has no choices")
    if len(choices) > most:
        raise UpstreamFault("malformed", f"the upstream's answer has {len(choices)} choices; {most} were asked for")
    found = [_choice(choice) for choice in choices]
    if len(choices) > 1 and sorted(choice.get("index", -1) for choice in found) != list(range(len(choices))):
        raise UpstreamFault("malformed", "the choices of the upstream's answer are not numbered from 0 on")
    wrong = [key for key, kinds in HEAD.items() if key in body and not isinstance(body[key], kinds)]
    if body.get("usage") is not None and not usage_sound(body["usage"]):
        wrong.append("usage")
    same = all(one is was for one, was in zip(found, choices, strict=True))
    if same and not wrong:
        return body
    return {key: value for key, value in body.items() if key not in wrong} | {"choices": found}


def _choice(choice: Any) -> Body:
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        raise UpstreamFault("malformed", "the upstream's answer has a choice without a message")
    if not isinstance(choice.get("finish_reason"), str | None):
        raise UpstreamFault("malformed", "the upstream's answer ends for a reason that is no text")
    if not isinstance(choice.get("index", 0), int) or isinstance(choice.get("index"), bool):
        raise UpstreamFault("malformed", "a choice of the upstream's answer has an index that is no number")
    told = choice.get("logprobs")
    return choice if told is None or logprobs_of(told) is not None else {**choice, "logprobs": None}


def usage_sound(usage: Any) -> bool:
    """Whether it tells how many tokens were used, in numbers.

    >>> usage_sound({"prompt_tokens": 1, "completion_tokens": 2}), usage_sound({"prompt_tokens": "1"})
    (True, False)
    """
    return (
        isinstance(usage, Mapping)
        and all(usage.get(key) is None or count_of(usage[key]) for key in COUNTS)
        and all(isinstance(usage.get(key), Mapping | None) for key in DETAILS)
    )
