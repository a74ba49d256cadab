"""The runtime proof: a correct runtime passes for every format, and each planted fault is caught by name.

The reference always reads the whole file; the fault is in what llama.cpp loads, as if it had misread the other.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.quantize.gguf.conftest import KINDS, small
from tests.quantize.gguf.test_vocabulary import pieces

from quantgate.errors import EngineError
from quantgate.evaluate.proof import Proof, prove, require
from quantgate.models import open_model
from quantgate.quantize.foreign.gguf import open_gguf_artifact
from quantgate.quantize.gguf import TYPES, make_gguf
from quantgate.quantize.gguf.activations import PARTNER, round_inputs

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (quantgate[gguf])")
pytest.importorskip("gguf", reason="the package 'gguf' is not installed (quantgate[gguf])")

LAYER = "blk.1.ffn_up.weight"


class Pair:
    """A runtime on one file and the reference of another."""

    def __init__(self, model: Any, artifact: Any) -> None:
        from quantgate.engines.llamacpp import open_engine
        from quantgate.evaluate.gguf_reference import GgufReference

        self.model, self.artifact = model, artifact
        self.engine, self.reference = open_engine(model, artifact, threads=1), GgufReference(model, artifact)
        self.raw: bytes = artifact.path.read_bytes()

    def planted(self, raw: bytes, folder: Path) -> Proof:
        """What the proof says when llama.cpp has these bytes instead."""
        from quantgate.engines._llama import LlamaModel

        bad = folder / "bad.gguf"
        bad.write_bytes(raw)
        whole = self.engine.loaded
        try:
            self.engine.context, self.engine.loaded = None, LlamaModel(bad)
            return prove(self.engine, self.reference)
        finally:
            self.engine.context, self.engine.loaded = None, whole

    def start(self, key: str, kind: int) -> int:
        """Where the value of a metadata key begins."""
        text = key.encode()
        mark = struct.pack("<Q", len(text)) + text + struct.pack("<I", kind)
        return self.raw.index(mark) + len(mark)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The built-in model as Q4_K_M."""
    model = open_model("quantgate/reference")
    file = make_gguf(model, tmp_path_factory.mktemp("proof") / "r-Q4_K_M.gguf", "Q4_K_M")
    return Pair(model, open_gguf_artifact(file.path, model))


def failed(proof: Proof) -> list[str]:
    return [one.name for one in proof.checks if not one.passed]


def test_llama_cpp_computes_what_the_file_says(pair: Pair) -> None:
    found = require(pair.engine, pair.reference)
    assert found.passed and [one.name for one in found.checks] == [
        "chat template",
        "tokens",
        "matrices",
        "cache",
        "logits",
    ]
    assert found.sentence.startswith("the runtime computes what the artifact says: the baseline's chat template; ")
    assert found.engine == pair.engine.identity.key and found.reference == pair.reference.identity.key


def test_a_swapped_nibble(pair: Pair, tmp_path: Path) -> None:
    stored = pair.artifact.tensors.file.tensors[LAYER]
    raw = bytearray(pair.raw)
    at = next(at for at in range(stored.start + 144 * 50 + 16, stored.end) if abs((raw[at] >> 4) - (raw[at] & 15)) > 3)
    raw[at] = raw[at] >> 4 | (raw[at] & 15) << 4
    found = pair.planted(bytes(raw), tmp_path)
    assert failed(found) == ["matrices"] and f"'{LAYER}' row 50 is off by" in found.sentence


def test_nibbles_in_the_other_order(pair: Pair, tmp_path: Path) -> None:
    stored = pair.artifact.tensors.file.tensors[LAYER]
    raw = bytearray(pair.raw)
    for block in range(stored.start, stored.end, 144):
        raw[block + 16 : block + 144] = bytes(one >> 4 | (one & 15) << 4 for one in raw[block + 16 : block + 144])
    assert failed(pair.planted(bytes(raw), tmp_path)) == ["matrices", "logits"]


def test_other_rotary_embeddings(pair: Pair, tmp_path: Path) -> None:
    at = pair.start("llama.rope.freq_base", 6)
    found = pair.planted(pair.raw[:at] + struct.pack("<f", 20000.0) + pair.raw[at + 4 :], tmp_path)
    assert failed(found) == ["logits"]


def test_a_norm_with_other_numbers(pair: Pair, tmp_path: Path) -> None:
    stored = pair.artifact.tensors.file.tensors["blk.2.ffn_norm.weight"]
    raw = bytearray(pair.raw)
    raw[stored.start : stored.end] = bytes(torch.ones(256).numpy().tobytes())
    assert failed(pair.planted(bytes(raw), tmp_path)) == ["logits"]


def test_a_wrong_merge(pair: Pair, tmp_path: Path) -> None:
    """One merge of 1,273 joins h and t instead of t and h."""
    length = struct.pack("<Q", 3)
    assert pair.raw.count(length + b"t h") == 1
    found = pair.planted(pair.raw.replace(length + b"t h", length + b"h t"), tmp_path)
    assert failed(found) == ["tokens"] and " becomes " in found.sentence


def test_a_changed_chat_template(pair: Pair, tmp_path: Path) -> None:
    at = pair.start("tokenizer.chat_template", 8) + 8
    found = pair.planted(
        pair.raw[:at] + pair.raw[at : at + 400].replace(b"<|end|>", b"<|pad|>", 1) + pair.raw[at + 400 :], tmp_path
    )
    assert failed(found) == ["chat template"]
    assert found.sentence.startswith("the runtime does not compute what the artifact says: chat template: another one")


def test_a_dropped_output_layer_that_the_runtime_quietly_replaces(tmp_path: Path) -> None:
    """Without output.weight llama.cpp takes the embeddings, loads and answers."""
    model = small(tmp_path / "untied", tied=False, hidden=64)
    whole = make_gguf(model, tmp_path / "whole.gguf", "Q8_0")
    pair = Pair(model, open_gguf_artifact(whole.path, model))
    tied = make_gguf(small(tmp_path / "tied", tied=True, hidden=64), tmp_path / "tied.gguf", "Q8_0")
    assert "output.weight" in whole.tensors and "output.weight" not in tied.tensors
    found = pair.planted(tied.path.read_bytes(), tmp_path)
    assert failed(found)[:1] == ["matrices"] and "'output.weight' is not multiplied" in found.sentence


def test_without_a_proof_nothing_goes_on(pair: Pair) -> None:
    class Deaf:
        """A runtime whose logits are all the same."""

        def __init__(self, engine: Any) -> None:
            self.engine = engine

        def __getattr__(self, name: str) -> Any:
            return getattr(self.engine, name)

        def logits(self, ids: Any, at: Any = None) -> Any:
            return torch.zeros(*ids.shape, 1536)

    with pytest.raises(
        EngineError, match=r"the runtime does not compute what the artifact says: logits: .* expected at most"
    ):
        require(Deaf(pair.engine), pair.reference)


@pytest.mark.parametrize("preset", ["Q8_0", "Q4_0", "Q4_1", "Q5_1", "Q2_K", "Q3_K_M", "Q6_K", "IQ4_NL"])
def test_every_format_is_proven_on_the_built_in_model(preset: str, pair: Pair, tmp_path: Path) -> None:
    file = make_gguf(pair.model, tmp_path / "f.gguf", preset)
    one = Pair(pair.model, open_gguf_artifact(file.path, pair.model))
    assert prove(one.engine, one.reference).passed


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_is_proven(kind: str, tmp_path: Path) -> None:
    model = small(tmp_path / f"m-{kind[:3]}", kind)
    one = Pair(model, open_gguf_artifact(make_gguf(model, tmp_path / f"{kind}.gguf", "Q8_0").path, model))
    found = prove(one.engine, one.reference)
    assert found.passed, found.sentence


ROPES = {
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64, "rope_theta": 10000.0},
    "linear": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0},
}  # fmt: skip


@pytest.mark.parametrize("rope", ROPES)
def test_scaled_rotary_embeddings_are_proven(rope: str, tmp_path: Path) -> None:
    model = small(tmp_path / rope, rope_parameters=ROPES[rope])
    one = Pair(model, open_gguf_artifact(make_gguf(model, tmp_path / "r.gguf", "Q8_0").path, model))
    found = prove(one.engine, one.reference)
    assert found.passed, found.sentence


def test_sentence_pieces_become_the_same_tokens(tmp_path: Path) -> None:
    """Spaces in front, bytes of unknown characters, and pieces joined by score instead of by merge."""
    model = pieces(small(tmp_path / "m", vocabulary=300).path)
    one = Pair(model, open_gguf_artifact(make_gguf(model, tmp_path / "m.gguf", "Q8_0").path, model))
    for text in ("ab abc", "  a  ab", "cab é\n", "b"):
        assert one.engine.tokenize(text) == one.reference.tokenize(text), text
    found = prove(one.engine, one.reference)
    assert found.passed, found.sentence


def test_activations_round_as_the_block_formats_say() -> None:
    """By hand: Q8_0 has 127 steps up to the largest of 32, in float16; Q8_K of 256, with its sign."""
    x = torch.zeros(1, 256)
    x[0, :3] = torch.tensor([127.0, 1.4, -0.6])
    assert round_inputs(x, "Q4_0")[0, :3].tolist() == [127.0, 1.0, -1.0]
    assert round_inputs(x, "Q4_K")[0, :3].tolist() == [127.0, 1.0, -1.0]
    assert torch.equal(round_inputs(torch.zeros(2, 256), "Q6_K"), torch.zeros(2, 256))
    assert set(PARTNER) >= {name for name, kind in TYPES.items() if kind.quantized}
