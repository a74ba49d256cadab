"""llama.cpp with a draft beside it: the answers of the plain engine, sooner."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.test_llamacpp import PROMPTS, SCHEMA, texts
from tests.quantize.gguf.conftest import small

from quantgate.engines import Prompt
from quantgate.errors import ArtifactError, EngineError
from quantgate.models import open_model
from quantgate.quantize.foreign.gguf import open_gguf_artifact
from quantgate.quantize.gguf import make_gguf, open_gguf
from quantgate.records import digest_file

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (quantgate[gguf])")
pytest.importorskip("gguf", reason="the package 'gguf' is not installed (quantgate[gguf])")


@pytest.fixture(scope="module")
def model() -> Any:
    return open_model("quantgate/reference")


@pytest.fixture(scope="module")
def files(model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model as a target and as two drafts: one that often agrees, and a random model that does not."""
    folder = tmp_path_factory.mktemp("drafts")
    stranger = small(folder / "random", hidden=64, vocabulary=int(model.config.vocab_size))
    return {
        "target": make_gguf(model, folder / "target.gguf", "Q8_0").path,
        "near": make_gguf(model, folder / "near.gguf", "Q4_0").path,
        "far": make_gguf(stranger, folder / "far.gguf", "Q8_0").path,
    }


@pytest.fixture(scope="module")
def opened(model: Any, files: dict[str, Path]) -> Any:
    from quantgate.engines.llamacpp import open_engine

    artifact = open_gguf_artifact(files["target"], model)
    return lambda **settings: open_engine(model, artifact, **{"threads": 1, "rows": 4, **settings})


def written(engine: Any, prompts: list[Prompt]) -> list[list[int]]:
    """Token ids, row by row."""
    from quantgate.engines._llama_answers import Row

    engine.stops = set()  # so that answers are long
    rows = [Row(at, engine.encode(one.turns), one.max_tokens) for at, one in enumerate(prompts)]
    return list(engine._answer(engine._room(len(rows), 256), rows)[0].made)


@pytest.mark.parametrize("draft", ["near", "far", "target"])
def test_greedy_answers_are_the_plain_engines(draft: str, opened: Any, files: dict[str, Path]) -> None:
    """A pass of another width sums in another order: where two answers part, two tokens were nearly alike."""
    from quantgate.engines._llama_choose import CLOSE

    plain, engine = opened(), opened(draft=files[draft], draft_tokens=5)
    parted = 0
    for prompt, one, other in zip(PROMPTS, written(plain, PROMPTS), written(engine, PROMPTS), strict=True):
        if one == other:
            continue
        parted += 1
        at = next(at for at in range(len(one)) if at >= len(other) or one[at] != other[at])
        logits = plain.logits(torch.tensor([[*plain.encode(prompt.turns), *one[:at]]]))[0, -1].numpy()
        assert logits[one[at]] - logits[other[at]] < CLOSE * logits.std()
    assert parted <= 1


def test_speed_tells_what_drafts_are_worth(opened: Any, files: dict[str, Path]) -> None:
    plain, near, far = opened(), opened(draft=files["near"]), opened(draft=files["far"], draft_tokens=2)
    for engine in (plain, near, far):
        engine.stops = set()
        engine.generate(PROMPTS)
    assert plain.speed().tokens_per_pass == 1 and plain.speed().drafted == 0 and plain.speed().accepted_share == 0
    assert near.speed().accepted_share > 0.3 and near.speed().tokens_per_pass > 1.5
    assert far.speed().accepted_share < 0.2 and 1 <= far.speed().tokens_per_pass < 1.5
    assert near.speed().decode_tokens == plain.speed().decode_tokens


def test_rows_draft_beside_each_other(opened: Any, files: dict[str, Path]) -> None:
    alone, together = opened(rows=1, draft=files["near"]), opened(rows=4, draft=files["near"])
    budgets = [Prompt(turns=one.turns, max_tokens=most) for one, most in zip(PROMPTS, (1, 2, 9, 24), strict=True)]
    assert texts(alone.generate(budgets)) == texts(together.generate(budgets))


def test_a_grammar_holds_beside_a_draft(opened: Any, files: dict[str, Path]) -> None:
    for how in ({"json_schema": SCHEMA}, {"json_schema": SCHEMA, "temperature": 1.2, "seed": 3}):
        found = texts(opened(draft=files["near"], **how).generate(PROMPTS))
        assert all(isinstance(json.loads(text)["ok"], bool) for text in found)
        assert found == texts(opened(**how).generate(PROMPTS))


def test_chance_is_fixed_by_the_seed(opened: Any, files: dict[str, Path]) -> None:
    hot = {"temperature": 1.2, "top_k": 40, "top_p": 0.95, "draft": files["near"]}
    one, again, other = (opened(seed=seed, **hot) for seed in (1, 1, 2))
    first = texts(one.generate(PROMPTS))
    assert first == texts(again.generate(PROMPTS)) and first != texts(other.generate(PROMPTS))
    assert 0.1 < one.speed().accepted_share <= 1


def test_first_tokens_are_distributed_as_without_a_draft(opened: Any, files: dict[str, Path]) -> None:
    """The second token of 300 answers, which a draft proposed, against the target's own chances of it."""
    from quantgate.engines._llama_choose import distribution

    hot = {"temperature": 1.0, "top_k": 4}
    engine = opened(rows=16, draft=files["near"], draft_tokens=2, **hot)
    prompt = Prompt(turns=PROMPTS[0].turns, max_tokens=3)
    ids = engine.encode(prompt.turns)
    made = []
    for seed in range(300):
        engine.sampling["seed"] = seed
        made += written(engine, [prompt])
    first = np.bincount([one[0] for one in made], minlength=engine.loaded.size)
    wanted = distribution(engine.logits(torch.tensor([ids]))[0, -1].numpy(), 1.0, 4, 1.0)
    assert first[wanted == 0].sum() == 0
    assert abs(first / 300 - wanted).max() < 4 * (0.25 / 300) ** 0.5
    likeliest = int(first.argmax())
    behind = distribution(engine.logits(torch.tensor([[*ids, likeliest]]))[0, -1].numpy(), 1.0, 4, 1.0)
    second = np.bincount([one[1] for one in made if one[0] == likeliest and len(one) > 1], minlength=engine.loaded.size)
    assert second[behind == 0].sum() == 0
    assert abs(second / second.sum() - behind).max() < 4 * (0.25 / second.sum()) ** 0.5


def test_evidence_is_kept_under_the_draft_too(opened: Any, files: dict[str, Path]) -> None:
    engine = opened(draft=files["near"], draft_tokens=3)
    assert {f"draft={digest_file(files['near'])}", "draft_tokens=3"} <= set(engine.identity.runtime)
    keys = {
        opened().identity.key,
        engine.identity.key,
        opened(draft=files["near"], draft_tokens=4).identity.key,
        opened(draft=files["far"], draft_tokens=3).identity.key,
    }
    assert len(keys) == 4


def test_refusals(opened: Any, files: dict[str, Path], tmp_path: Path) -> None:
    other = make_gguf(small(tmp_path / "m", vocabulary=1544, hidden=64), tmp_path / "other.gguf", "Q8_0").path
    with pytest.raises(
        ArtifactError, match=r"other.gguf: has 1544 tokens, .*target.gguf has 1536; draft with a model of"
    ):
        opened(draft=other)
    swapped, raw = tmp_path / "swapped.gguf", files["far"].read_bytes()
    words = open_gguf(files["far"]).array("tokenizer.ggml.tokens")
    word = next(one for one in words if len(one) == 4 and one.isascii() and one.isalpha())
    text = struct.pack("<Q", 4) + word.encode()
    swapped.write_bytes(raw.replace(text, text[:-4] + b"zqzq", 1))
    with pytest.raises(
        ArtifactError, match=rf"swapped.gguf: token \d+ is 'zqzq', in .*target.gguf it is '{word}'; draft"
    ):
        opened(draft=swapped)
    with pytest.raises(ArtifactError, match=r"nowhere.gguf: no such file"):
        opened(draft=tmp_path / "nowhere.gguf")
    with pytest.raises(EngineError, match=r"draft_tokens=0: expected 1 to 64; leave 'draft' out"):
        opened(draft=files["near"], draft_tokens=0)
