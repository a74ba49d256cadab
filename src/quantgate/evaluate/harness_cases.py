"""Cases of the EleutherAI harness's tasks: what ``harness`` opened, as quantgate asks it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs
from pydantic import JsonValue

from quantgate.evaluate.harness import CHOICES, Opened, Options, open_tasks
from quantgate.evaluate.suites import Case, Message
from quantgate.records import digest_of, parse


def cases(name: str, options: Mapping[str, JsonValue] = {}, *, capability: str = "") -> tuple[list[Case], str]:
    """All cases of ``lm_eval:<task>``, and the versions that they come from.

    Of documents that ask the same, the first is taken. Raises UnknownName, UsageError for a task that cannot be judged,
    DataError when its data cannot be read.
    """
    wanted = parse(Options, dict(options), where=f"{name}: options")
    tasks = open_tasks(name, wanted)
    found: dict[str, Case] = {}
    for one in tasks:
        slices = (f"task={one.task.task_name}",) if len(tasks) > 1 else ()
        for document in one.requests:
            case = _case(one, wanted, capability or name, document, slices)
            found.setdefault(digest_of([[message.body() for message in case.messages], case.choices]), case)
    return list(found.values()), "; ".join(f"{one.task.task_name} version {one.version}" for one in tasks)


def _case(made: Opened, wanted: Options, suite: str, document: str, slices: tuple[str, ...]) -> Case:
    requests, task = made.requests[document], made.task
    context = "" if task.OUTPUT_TYPE == "loglikelihood_rolling" else requests[0].args[0]
    chat = bool(wanted.apply_chat_template and context)
    turns: list[dict[str, Any]] = json.loads(context) if chat else [{"role": "user", "content": context}]
    target = task.doc_to_target(requests[0].doc)
    return Case(
        suite=suite,
        id=f"{task.task_name}-{document[7:19]}",
        messages=tuple(Message(role=one["role"], content=one["content"]) for one in turns),
        scorer="lm_eval",
        reference={
            "task": task.task_name,
            "version": made.version,
            "config": made.config,
            "document": document,
            "options": wanted.model_dump(mode="json", exclude_defaults=True),
        },
        slices=slices,
        answer=target if isinstance(target, str) and task.OUTPUT_TYPE == "generate_until" else None,
        plain=not chat,
        **_ask(made, document),
    )


def _ask(made: Opened, document: str) -> dict[str, Any]:
    """Continuations to be weighed, or where an answer ends."""
    requests = made.requests[document]
    if made.task.OUTPUT_TYPE in CHOICES:
        return {"choices": tuple(one.args[-1] for one in requests)}
    told = normalize_gen_kwargs(dict(requests[0].args[1]))
    return {"stop": tuple(told["until"]), "max_tokens": told["max_gen_toks"]}
