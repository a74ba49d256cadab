"""lm_eval:<task>: the same prompts, answers and scores, case by case, as the harness itself on the same model."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantgate.engines import Completion
from quantgate.errors import DataError, UnknownName, UsageError
from quantgate.evaluate import scorers
from quantgate.evaluate.answers import prompt_of
from quantgate.evaluate.scorers import Score, Unscored
from quantgate.models import open_model
from quantgate.models.locate import REFERENCE_FOLDER
from quantgate.quantize import baseline

pytest.importorskip("lm_eval", reason="lm-eval is not installed (quantgate[lm-eval])")
pytest.importorskip(
    "accelerate", reason="accelerate is not installed (quantgate[servers]): lm-eval runs models with it"
)
GSM8K = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k"
ROWS = 12
COMPLETE = {
    "output_type": "generate_until",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{answer.split('#### ')[-1]}}",
    "generation_kwargs": {"until": ["Question:", "\n"], "max_gen_toks": 24, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "filter_list": [
        {"name": "number", "filter": [{"function": "regex", "regex_pattern": "([0-9]+)"}, {"function": "take_first"}]},
        {"name": "none", "filter": [{"function": "take_first"}]},
    ],
    "metadata": {"version": 3.0},
}
CHOOSE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}\nIs the answer more than 20?",
    "doc_to_choice": ["yes", "no", "both of it"],
    "doc_to_target": "{{0 if answer.split('#### ')[-1].replace(',', '')|float > 20 else 1}}",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
}
ROLL = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{question}}",
    "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
}
GREEDY = {
    "output_type": "loglikelihood",
    "doc_to_text": "{{question.rsplit(' ', 1)[0]}} ",
    "doc_to_target": "{{question.rsplit(' ', 1)[1]}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}, {"metric": "perplexity"}],
}


@pytest.fixture(scope="module", autouse=True)
def quiet(tmp_path_factory: Any) -> Any:
    """The harness logs and warns a lot, and keeps its data sets in the home folder unless told otherwise."""
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    yield
    datasets.enable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: Any) -> Any:
    """``tasks(COMPLETE, num_fewshot=2)``: a folder with one task file called ``mine`` on a few rows of GSM8K."""
    if not GSM8K.is_dir():
        pytest.skip("no ../shared/data/gsm8k beside the repository")
    folder = tmp_path_factory.mktemp("rows")
    files = {}
    for split, name in (("test", "test.jsonl"), ("train", "train_400.jsonl")):
        lines = (GSM8K / name).read_text("utf-8").splitlines()[:ROWS]
        files[split] = str(folder / name)
        (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    data = {
        "task": "mine",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
        "training_split": "train",
        "fewshot_split": "train",
    }

    def write(body: dict[str, Any], **changes: Any) -> str:
        made = tmp_path_factory.mktemp("tasks")
        (made / "mine.yaml").write_text(yaml.safe_dump(data | body | changes), "utf-8")
        return str(made)

    return write


def cases_of(folder: str, **options: Any) -> list[Any]:
    from quantgate.evaluate.harness_cases import cases

    return cases("lm_eval:mine", {"include_path": folder, **options})[0]


@pytest.fixture(scope="module")
def model() -> Any:
    return open_model("quantgate/reference")


@pytest.fixture(scope="module")
def engine(model: Any) -> Any:
    from quantgate.engines.torch import open_engine

    return open_engine(model, baseline(model), dtype="float32")


@pytest.fixture(scope="module")
def peer() -> Any:
    """The harness's own Hugging Face backend on the same model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lm_eval.models.huggingface import HFLM

        return HFLM(pretrained=str(REFERENCE_FOLDER), dtype="float32", device="cpu", batch_size=4)


def theirs(peer: Any, folder: str, **settings: Any) -> list[dict[str, Any]]:
    """The harness's samples, in the order of the documents."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=folder, include_defaults=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = lm_eval.simple_evaluate(model=peer, tasks=["mine"], task_manager=manager, bootstrap_iters=0, **settings)
    return list(found["samples"]["mine"])


def ours(engine: Any, cases: list[Any]) -> list[tuple[str, float]]:
    made = []
    for case, answer in zip(cases, engine.generate([prompt_of(case) for case in cases]), strict=True):
        assert isinstance(answer, Completion), answer
        score = scorers.get("lm_eval")(answer.text, case.reference)
        assert isinstance(score, Score), score
        made.append((answer.text, score.value))
    return made


@pytest.mark.parametrize(
    "settings",
    [{"num_fewshot": 0}, {"num_fewshot": 2}, {"num_fewshot": 1, "apply_chat_template": True}],
    ids=["zero-shot", "two-shot", "chat"],
)
def test_generated_answers_and_scores_are_the_harness_own(
    engine: Any, peer: Any, tasks: Any, settings: dict[str, Any]
) -> None:
    folder = tasks(COMPLETE)
    samples = [one for one in theirs(peer, folder, **settings) if one["filter"] == "number"]
    found = ours(engine, cases_of(folder, **settings))
    assert [text for text, _ in found] == [one["resps"][0][0] for one in samples]
    assert [value for _, value in found] == [one["exact_match"] for one in samples]
    assert len(found) == ROWS and any(text.strip() for text, _ in found)


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_choices_are_weighed_and_scored_as_the_harness_does(
    engine: Any, peer: Any, tasks: Any, metric: str, chat: bool
) -> None:
    folder = tasks(CHOOSE)
    samples = theirs(peer, folder, apply_chat_template=chat)
    found = ours(engine, cases_of(folder, metric=metric, apply_chat_template=chat))
    for (text, value), sample in zip(found, samples, strict=True):
        for (weight, greedy), response in zip(json.loads(text), sample["filtered_resps"], strict=True):
            assert weight == pytest.approx(response[0], abs=2e-3) and greedy == response[1]
        assert value == sample[metric]
    assert metric == "acc_norm" or {value for _, value in found} == {0.0, 1.0}


def test_a_greedy_continuation_is_scored_as_the_harness_does(engine: Any, peer: Any, tasks: Any) -> None:
    folder = tasks(GREEDY)
    found = ours(engine, cases_of(folder))
    samples = theirs(peer, folder)
    for (text, value), sample in zip(found, samples, strict=True):
        assert json.loads(text)[0][0] == pytest.approx(sample["filtered_resps"][0][0], abs=2e-3)
        assert value == sample["acc"]


def test_cases_are_named_by_what_their_documents_say(tasks: Any) -> None:
    first, second = cases_of(tasks(COMPLETE)), cases_of(tasks(COMPLETE))
    assert [case.id for case in first] == [case.id for case in second]
    assert len({case.id for case in first}) == ROWS
    assert first[0].reference["version"].startswith("3.0, lm-eval ")
    other = cases_of(tasks(COMPLETE, doc_to_text="Q: {{question}}\nA:"))
    assert {case.id for case in other} == {case.id for case in first}
    assert not {case.digest for case in other} & {case.digest for case in first}


@pytest.mark.parametrize("task", [COMPLETE, CHOOSE], ids=["complete", "choose"])
@pytest.mark.parametrize("answer", ["", "abc", "I cannot help with that.", "Sure, here it is.", "[[0, true]]"])
def test_degenerate_answers_score_nothing(tasks: Any, task: dict[str, Any], answer: str) -> None:
    for case in cases_of(tasks(task)):
        score = scorers.get("lm_eval")(answer, case.reference)
        assert isinstance(score, Score) and score.value == 0


@pytest.mark.parametrize(
    ("body", "options", "error", "sentence"),
    [
        (ROLL, {}, UsageError, r"none of its metrics .word_perplexity, bits_per_byte. is known"),
        (GREEDY, {"metric": "perplexity"}, UsageError, "'perplexity' is no mean of scores"),
        (COMPLETE, {"metric": "exact_mach"}, UnknownName, "did you mean 'exact_match'"),
        (COMPLETE, {"filter": "nunber"}, UnknownName, "did you mean 'number'"),
        (COMPLETE, {"num_fewshots": 1}, UsageError, "unknown key 'num_fewshots'; did you mean 'num_fewshot'"),
        (COMPLETE | {"unsafe_code": True}, {}, UsageError, "without a sandbox"),
        (COMPLETE | {"generation_kwargs": {"temperature": 0.7}}, {}, UsageError, "samples its answers"),
        (COMPLETE | {"dataset_kwargs": {"data_files": "/nowhere.jsonl"}}, {}, DataError, "cannot be opened"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_sentence(
    tasks: Any, body: dict[str, Any], options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence) as told:
        cases_of(tasks(body), **options)
    assert "\n" not in str(told.value)


def test_a_folder_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"include_path: .*is no folder"):
        cases_of("nowhere")


def test_another_process_scores_what_this_one_asked(tasks: Any) -> None:
    from quantgate.evaluate import harness

    case = cases_of(tasks(COMPLETE))[0]
    harness.OPENED.clear()
    right = str(case.answer)
    assert scorers.get("lm_eval")(right, case.reference).value == 1  # type: ignore[union-attr]
    other = {**case.reference, "config": "sha256:other", "options": {}, "task": "no_such_task_anywhere"}
    found = scorers.get("lm_eval")(right, other)
    assert isinstance(found, Unscored) and "is not installed here" in found.reason
