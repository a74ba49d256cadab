"""Tasks of the EleutherAI harness as suites: its own prompts, filters and metrics around our engines' answers.

    lm_eval:gsm8k        a task, a tag or a group of the installed harness, or of the yaml files in ``include_path``

Documents are asked with the harness's own few-shot contexts, drawn as ``lm_eval`` draws them; what an engine
answers goes back through the task's filters and its ``process_results``, see ``scorers/lm_eval.py``. What a gate
cannot judge is refused here, before anything is asked: metrics that are no mean of scores in [0, 1], sampling, code
that a task would run outside a sandbox, choices that stand in different contexts.
Source: lm-eval 0.4.13, ``api/task.py`` and ``evaluator.py``.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from pydantic import Field, JsonValue

from quantgate.errors import DataError, UnknownName, UsageError
from quantgate.records import Record, digest_of, parse

PREFIX = "lm_eval:"
SEED = 1234  # of the few-shot examples, as lm_eval.simple_evaluate has it
LIKE = ("acc", "exact_match", "em", "pass@", "prompt_level_strict_acc", "f1")  # metrics taken where none is named
CHOICES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")


class Options(Record):
    """What may be set of a task under ``options``."""

    include_path: str | None = Field(default=None, description="folder of your own task files (yaml)")
    num_fewshot: int | None = Field(default=None, ge=0, description="worked examples; left out, the task's own number")
    apply_chat_template: bool = Field(default=False, description="ask as a chat; false: as plain text")
    fewshot_as_multiturn: bool = Field(default=True, description="in a chat: each worked example as turns of its own")
    metric: str | None = Field(default=None, description="left out, the first accuracy-like one")
    filter: str | None = Field(default=None, description="of the task's filters; left out, the first")
    generation_kwargs: dict[str, JsonValue] = Field(default={}, description="in place of the task's, key by key")


@dataclass
class Opened:
    """A task whose documents have been read, and what its scores are taken from."""

    task: Any  # lm_eval.api.task.ConfigurableTask
    metric: str
    filter: str
    config: str  # digest of what makes the scores: prompts, filters, metrics and their code
    requests: dict[str, list[Instance]] = field(default_factory=dict)  # document's digest -> what is asked of it

    @property
    def version(self) -> str:
        return f"{self.task.VERSION}, lm-eval {importlib.metadata.version('lm-eval')}"

    def scores(self, document: str, answers: list[Any]) -> dict[str, Any]:
        """The task's metrics for one document; ``answers`` in the order of its requests."""
        task = self.task
        instances = [
            replace(one, resps=[answer] * task.config.repeats, filtered_resps={})
            for one, answer in zip(self.requests[document], answers, strict=True)
        ]
        for ensemble in task._filters:
            if ensemble.name == self.filter:
                ensemble.apply(instances)
        found = task.process_results(instances[0].doc, [one.filtered_resps[self.filter] for one in instances])
        return dict(found)


OPENED: dict[str, Opened] = {}  # by ``config``; a scorer finds here what has been opened to be asked


def open_tasks(name: str, wanted: Options) -> list[Opened]:
    """The tasks that ``lm_eval:<task>`` stands for, each with what it asks of every document.

    Raises UnknownName, UsageError for a task that cannot be judged, DataError when its data cannot be read.
    """
    found = [_opened(one, wanted) for one in _load(name.removeprefix(PREFIX), wanted.include_path).values()]
    for one in found:
        one.requests = _requests(one.task, wanted)
        before = OPENED.get(one.config)  # the same task on other documents
        OPENED[one.config] = replace(one, requests=before.requests | one.requests) if before else one
    return found


def opened(reference: Mapping[str, Any]) -> Opened | None:
    """The task that a reference names: of this process, or found again in the installed harness."""
    config = str(reference["config"])
    if config not in OPENED:
        told = parse(Options, reference["options"], where="lm_eval: options")
        try:
            open_tasks(str(reference["task"]), told)
        except (UsageError, DataError):
            return None
    return OPENED.get(config)


@lru_cache(maxsize=4)
def _manager(include_path: str | None, defaults: bool) -> TaskManager:
    return TaskManager(include_path=include_path, include_defaults=defaults)


def _load(name: str, include_path: str | None) -> dict[str, Any]:
    """The tasks that a name stands for. One's own files are looked at first: the harness's are many thousands."""
    if include_path is not None and not Path(include_path).is_dir():
        raise UsageError(
            f"{PREFIX}{name}: include_path: {include_path} is no folder; name the one with your task files"
        )
    manager = _manager(include_path, False) if include_path else None
    if manager is None or name not in manager.all_tasks:
        manager = _manager(include_path, True)
    if name not in manager.all_tasks:
        raise UnknownName("task of lm-eval", name, [one for one in manager.all_tasks if one[:1] == name[:1]][:40])
    try:
        return dict(manager.load(name)["tasks"])
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as problem:  # whatever its data set needs
        first = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise DataError(
            f"{PREFIX}{name}: the task cannot be opened ({first[:160]}); give it data that is here "
            "(dataset_path: json), or run where its data set can be downloaded"
        ) from None


def _opened(task: Any, wanted: Options) -> Opened:
    name = f"{PREFIX}{task.task_name}"
    if getattr(task, "UNSAFE_CODE", False):
        raise UsageError(f"{name}: runs generated code without a sandbox; take the suite humaneval or mbpp instead")
    if getattr(task, "MULTIMODAL", False):
        raise UsageError(f"{name}: shows pictures or sounds; quantgate judges text")
    if task.multiple_input:
        raise UsageError(f"{name}: its choices stand in different contexts, which a case cannot say; take another task")
    if wanted.num_fewshot is not None or task.config.num_fewshot is None:
        task.set_config(key="num_fewshot", value=wanted.num_fewshot or 0)
    if wanted.generation_kwargs:
        task.set_config(key="generation_kwargs", value=dict(wanted.generation_kwargs), update=True)
    _refuse_sampling(task, name)
    task.set_fewshot_seed(seed=SEED)
    made = Opened(task, _metric(task, wanted.metric, name), _filter(task, wanted.filter, name), "")
    if made.metric != "acc_mutual_info":
        task._metric_fn_list.pop("acc_mutual_info", None)  # would ask every choice once more, without its context
    made.config = digest_of([_settings(task), made.metric, made.filter, made.version, wanted.body()])
    return made


def _settings(task: Any) -> str:
    """What makes prompts and scores, as text, functions by their source; where the data lies does not count."""
    told = {key: value for key, value in task.dump_config().items() if not key.startswith("dataset_")}
    return json.dumps(told, sort_keys=True, default=str)


def _refuse_sampling(task: Any, name: str) -> None:
    if task.OUTPUT_TYPE == "generate_until" and normalize_gen_kwargs(dict(task.config.generation_kwargs))["do_sample"]:
        raise UsageError(
            f"{name}: samples its answers, and engines here answer greedily; add "
            "options: {generation_kwargs: {do_sample: false, temperature: 0}}"
        )


def _metric(task: Any, asked: str | None, name: str) -> str:
    """The metric that scores cases: a mean of numbers in [0, 1], more being better."""
    aggregation, better = task.aggregation(), task.higher_is_better()
    fit = [one for one in aggregation if aggregation[one] is mean and better.get(one, True)]
    if asked is not None and asked not in aggregation:
        raise UnknownName("metric", asked, aggregation, where=f"{name}: options")
    if asked is not None and (asked not in fit or asked == "acc_mutual_info"):
        raise UsageError(f"{name}: the metric '{asked}' is no mean of scores in [0, 1]; {_choose(fit)}")
    likely = [one for one in fit if one.startswith(LIKE) and one != "acc_mutual_info"]
    if asked is None and not likely:
        told = ", ".join(aggregation)
        raise UsageError(f"{name}: none of its metrics ({told}) is known to be a score in [0, 1]; {_choose(fit)}")
    return asked or likely[0]


def _choose(fit: list[str]) -> str:
    return f"name another one under options: metric ({', '.join(fit)})" if fit else "take another task"


def _filter(task: Any, asked: str | None, name: str) -> str:
    known = [one.name for one in task._filters]
    if asked is not None and asked not in known:
        raise UnknownName("filter", asked, known, where=f"{name}: options")
    return asked or str(known[0])


def _requests(task: Any, wanted: Options) -> dict[str, list[Instance]]:
    """By the document's digest, in the order of the documents: worked examples are drawn one after the other."""
    found: dict[str, list[Instance]] = {}
    for number, document in enumerate(task.eval_docs):
        context = task.fewshot_context(
            document,
            num_fewshot=task.config.num_fewshot,
            apply_chat_template=wanted.apply_chat_template,
            fewshot_as_multiturn=wanted.fewshot_as_multiturn,
            chat_template=_turns if wanted.apply_chat_template else None,
            gen_prefix=task.doc_to_prefix(document),
        )
        asked = task.construct_requests(
            doc=document,
            ctx=context,
            metadata=(task.task_name, number, task.config.repeats),
            apply_chat_template=wanted.apply_chat_template,
            chat_template=None,
        )
        key = digest_of(json.dumps(document, sort_keys=True, default=str))
        found.setdefault(key, asked if isinstance(asked, list) else [asked])
    return found


def _turns(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """The chat as JSON, where the harness expects the text of a template: the engine's own template will write it."""
    if not add_generation_prompt:
        raise UsageError("lm_eval: the task begins its answers (gen_prefix), which a chat cannot; ask it as plain text")
    return json.dumps(messages)
