"""torch.compile as a part of the stack: what it computes, what it is called, and where it cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from quantgate import plugins
from quantgate.engines import Completion, Prompt
from quantgate.errors import EngineError
from quantgate.models import open_model
from quantgate.models.random import save_random
from quantgate.quantize import baseline

pytestmark = [
    pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),  # torch's own, on import
]


def open_engine(folder: Path, **settings):
    model = open_model(folder)
    return plugins.get("engines", "torch")(model, baseline(model), **settings)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_compiled_parts_compute_what_torch_does(kind, tmp_path):
    more: dict[str, Any] = {"ffn_dim": 256, "word_embed_proj_dim": 128} if kind == "opt" else {}
    save_random(tmp_path / "m", kind=kind, **more)
    plain = open_engine(tmp_path / "m", dtype="float32")
    fast = open_engine(tmp_path / "m", dtype="float32", compile=True)
    ids = torch.randint(0, 256, (3, 20), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(plain.logits(ids), fast.logits(ids), atol=2e-4)
    prompts = [Prompt(turns=(("user", "x" * size),), max_tokens=8) for size in (3, 9, 30)]
    texts = [[one.text for one in engine.generate(prompts) if isinstance(one, Completion)] for engine in (plain, fast)]
    assert texts[0] == texts[1] and len(texts[0]) == 3


def test_compilation_is_part_of_the_identity(tmp_path):
    save_random(tmp_path / "m")
    plain, fast = open_engine(tmp_path / "m"), open_engine(tmp_path / "m", compile=True)
    assert plain.identity.key != fast.identity.key
    assert "compile=inductor, 6 modules" in fast.identity.runtime  # two blocks: an MLP and two norms each


def test_experts_are_refused(tmp_path):
    save_random(tmp_path / "m", kind="mixtral", num_local_experts=4)
    with pytest.raises(EngineError, match="experts route tokens one by one"):
        open_engine(tmp_path / "m", compile=True)


def test_without_a_compiler_it_is_refused_before_anything_is_asked(tmp_path, monkeypatch):
    from torch._inductor import config

    save_random(tmp_path / "m", hidden=64, feed_forward=192)  # shapes that no test before has compiled
    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(config, "fx_graph_cache", False)
    torch._dynamo.reset()
    with pytest.raises(EngineError, match=r"install a C\+\+ compiler .* or leave 'compile' out"):
        open_engine(tmp_path / "m", compile=True)
    torch._dynamo.reset()


def test_a_batch_of_no_rows_is_refused(tmp_path):
    save_random(tmp_path / "m")
    with pytest.raises(EngineError, match="a batch has at least 1 row"):
        open_engine(tmp_path / "m", rows=0)


def test_rows_are_decoded_together_up_to_the_number_asked_for(tmp_path):
    save_random(tmp_path / "m")
    engine = open_engine(tmp_path / "m", rows=2)
    seen, answer = [], engine.decoder.answer

    def watched(prompts, *rest):
        seen.append(len(prompts))
        return answer(prompts, *rest)

    engine.decoder.answer = watched
    engine.generate([Prompt(turns=(("user", "x" * size),), max_tokens=4) for size in range(1, 6)])
    assert seen == [2, 2, 1]
