"""From traffic to calibration samples: broken lines are numbered, the choice is seeded, what was cut is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantgate.calibrate import choose, read_traffic
from quantgate.errors import DataError
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.records import digest_of


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return open_model(save_random(folder, hidden=32, layers=1, feed_forward=32, max_position_embeddings=64))


TALK = [(("user", f"question {at}"), ("assistant", f"answer {at}")) for at in range(20)]


def picked(model: Any, **wanted: Any) -> Any:
    settings: dict[str, Any] = {"source": "test", "samples": 5, "max_tokens": 512, "seed": 0} | wanted
    return choose(model, settings.pop("talk", TALK), **settings)


def write(folder: Path, *rows: Any) -> Any:
    path = folder / "traffic.jsonl"
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def test_both_forms_of_traffic_are_read(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
    ]
    path = write(tmp_path, {"messages": messages}, "", {"prompt": "p"}, {"prompt": "p", "completion": "c"})
    assert read_traffic(path) == [
        (("system", "s"), ("user", "u"), ("assistant", "a")),
        (("user", "p"),),
        (("user", "p"), ("assistant", "c")),
    ]


BROKEN = {
    "not valid JSON (Unterminated string starting at, column 10); mend or remove the line": '{"role": "us',
    "expected 'messages' (a list) or 'prompt' (text)": {"text": "x"},
    "expected 'messages' (a list) or 'prompt' (text); mend": {"messages": []},
    "expected 'messages' (a list) or 'prompt'": [1, 2],
    "every message needs a role (system, user, assistant, tool) and text as content": {
        "messages": [{"role": "human", "content": "x"}]
    },
    "every message needs a role": {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
    "begins with an answer, so nothing was asked": {"messages": [{"role": "assistant", "content": "x"}]},
    "'completion' is not text": {"prompt": "x", "completion": 5},
    "holds half of a character": '{"prompt": "\\ud83d"}',
}


@pytest.mark.parametrize("told", BROKEN)
def test_broken_line_is_told_with_its_number(tmp_path: Path, told: str) -> None:
    path = write(tmp_path, {"prompt": "fine"}, "", BROKEN[told], {"prompt": "fine"})
    with pytest.raises(DataError) as problem:
        read_traffic(path)
    assert str(problem.value).startswith(f"{path}, line 3: ")
    assert told in str(problem.value)


def test_file_without_a_conversation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"traffic\.jsonl: holds no conversation; expected one JSON object per line"):
        read_traffic(write(tmp_path, ""))
    with pytest.raises(DataError, match="no such file; name an existing one under calibration: traffic"):
        read_traffic(tmp_path / "missing.jsonl")


def test_choice_depends_on_the_seed_alone(tiny: Any) -> None:
    first, again, other = picked(tiny), picked(tiny), picked(tiny, seed=1)
    assert (first.record, first.ids) == (again.record, again.ids)
    assert first.record.samples != other.record.samples
    assert len(set(first.record.samples)) == 5
    assert set(first.turns) <= set(TALK)


def test_record_names_every_sample_in_the_order_used(tiny: Any) -> None:
    chosen = picked(tiny)
    assert chosen.record.samples == tuple(digest_of(turns) for turns in chosen.turns)
    assert chosen.record.source == "test"


def test_fewer_conversations_than_asked_for_are_all_used_and_both_numbers_stand(tiny: Any) -> None:
    chosen = picked(tiny, talk=TALK[:3])
    assert chosen.turns == TALK[:3]
    assert (len(chosen.record.samples), chosen.record.asked) == (3, 5)


def test_samples_are_whole_conversations_in_the_models_template(tiny: Any) -> None:
    chosen = picked(tiny, talk=TALK[:1])
    assert tiny.tokenizer.decode(chosen.ids[0]) == "<|user|>question 0<|end|><|assistant|>answer 0"
    assert (chosen.record.tokens, chosen.record.cut) == (len(chosen.ids[0]), 0)


def test_long_samples_are_cut_and_counted(tiny: Any) -> None:
    talk = [(("user", "x" * 9),), (("user", "y" * 40),), (("user", "z" * 5),)]
    chosen = picked(tiny, talk=talk, max_tokens=12)  # 3 tokens are the template's
    assert [len(ids) for ids in chosen.ids] == [12, 12, 8]
    assert (chosen.record.cut, chosen.record.tokens) == (1, 32)


def test_no_sample_is_longer_than_the_models_context(tiny: Any) -> None:
    chosen = picked(tiny, talk=[(("user", "x" * 100),)], max_tokens=512)
    assert (len(chosen.ids[0]), chosen.record.cut, chosen.record.tokens) == (64, 1, 64)
