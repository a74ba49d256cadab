from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from quantgate.errors import DataError, UsageError
from quantgate.models import OpenedModel, open_model
from quantgate.models.families import FAMILIES, save_family
from quantgate.models.random import save_byte_tokenizer, save_random
from quantgate.quantize import baseline, load_dequantized
from quantgate.train import Document
from quantgate.train._importance import Round, influence, look_at, remove_blocks, spread, without
from quantgate.train._shapes import NARROWED, shape_of
from quantgate.train.options import DistillOptions
from quantgate.train.prune import Importance, Kept, choose, cut, student_name, wanted_shape

IDS = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(5))
CPU = torch.device("cpu")
Edit = Callable[[dict[str, Tensor]], None]


def documents(count: int = 6, length: int = 20) -> list[Document]:
    draw = torch.Generator().manual_seed(7)
    rows = torch.randint(0, 256, (count, length), generator=draw).tolist()
    return [Document("made", ids, [0.0] + [0.1] * (length // 2) + [1.0] * (length - length // 2 - 1)) for ids in rows]


def logits(model: OpenedModel) -> Tensor:
    with torch.no_grad():
        out: Tensor = load_dequantized(baseline(model), torch.float32)(input_ids=IDS, use_cache=False).logits
    return out


def planted(folder: Path, edit: Edit, **settings: Any) -> OpenedModel:
    """A random Llama of four blocks whose weights ``edit`` has changed."""
    save_family(folder, "llama", layers=4, **settings)
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return open_model(folder)


def silent(_what: str, _done: int, _total: int) -> None:
    pass


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> OpenedModel:
    return open_model(save_family(tmp_path_factory.mktemp("four"), "llama", layers=4))


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_student_that_keeps_every_block_answers_as_its_teacher(kind: str, tmp_path: Path) -> None:
    model = open_model(save_family(tmp_path / "model", kind))
    shape = shape_of(model.config)
    student = open_model(cut(model, shape, Kept(blocks=(0, 1)), tmp_path / "student"))
    assert torch.equal(logits(student), logits(model))


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "qwen3_moe"])
def test_a_student_of_some_blocks_is_its_teacher_with_the_others_passed_over(kind: str, tmp_path: Path) -> None:
    model = open_model(save_family(tmp_path / "model", kind, layers=4))
    shape = shape_of(model.config).model_copy(update={"layers": 2})
    student = open_model(cut(model, shape, Kept(blocks=(0, 3)), tmp_path / "student"))
    look = look_at(model, documents(), CPU)
    with without(look, [1, 2]), torch.no_grad():
        want = look.network(input_ids=IDS, use_cache=False).logits
    assert torch.allclose(logits(student), want, atol=1e-5)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(blocks=st.sets(st.integers(0, 3), min_size=1, max_size=3))
def test_any_blocks_can_be_kept(blocks: set[int], four: OpenedModel, tmp_path: Path) -> None:
    kept = tuple(sorted(blocks))
    shape = shape_of(four.config).model_copy(update={"layers": len(kept)})
    student = open_model(cut(four, shape, Kept(blocks=kept), tmp_path / "student"))
    look = look_at(four, documents(), CPU)
    with without(look, sorted({0, 1, 2, 3} - blocks)), torch.no_grad():
        want = look.network(input_ids=IDS, use_cache=False).logits
    assert torch.allclose(logits(student), want, atol=1e-5)


@pytest.mark.parametrize("kind", NARROWED)
def test_a_student_that_keeps_every_head_and_channel_answers_as_its_teacher(kind: str, tmp_path: Path) -> None:
    model = open_model(save_family(tmp_path / "model", kind))
    shape = shape_of(model.config)
    every = Kept(
        blocks=(0, 1),
        groups=(tuple(range(shape.kv_heads)),) * 2,
        feed_forward=(tuple(range(shape.feed_forward)),) * 2,
        hidden=tuple(range(shape.hidden)),
    )
    student = open_model(cut(model, shape, every, tmp_path / "student"))
    assert torch.equal(logits(student), logits(model))


@pytest.mark.parametrize("kind", NARROWED)
def test_a_narrower_student_loads_without_missing_tensors_and_answers(kind: str, tmp_path: Path) -> None:
    model = open_model(save_family(tmp_path / "model", kind))
    narrow = {"heads": 2, "feed_forward": 48} | ({} if "gemma" in kind else {"hidden": 48})
    shape = wanted_shape(model, DistillOptions.model_validate(narrow))
    found = choose(model, shape, documents())
    student = open_model(cut(model, shape, found.kept, tmp_path / "student"))
    assert shape_of(student.config) == shape
    assert torch.isfinite(logits(student)).all()
    assert student.parameters < model.parameters


def test_a_block_that_does_nothing_goes_first_and_nothing_changes(tmp_path: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            tensors[f"model.layers.2.{name}.weight"].zero_()

    model = planted(tmp_path / "model", edit)
    shape = wanted_shape(model, DistillOptions(layers=3))
    found = choose(model, shape, documents())
    assert found.kept.blocks == (0, 1, 3)
    assert found.removed[0].block == 2
    assert found.removed[0].kl["2"] == pytest.approx(0, abs=1e-6)
    assert found.influence[2] == pytest.approx(0, abs=1e-6)
    student = open_model(cut(model, shape, found.kept, tmp_path / "student"))
    assert torch.allclose(logits(student), logits(model), atol=1e-5)


def test_heads_that_nobody_reads_go_and_nothing_changes(tmp_path: Path) -> None:
    dead = (0, 1, 1, 0)  # key-value group, of each block; two heads of 16 each

    def edit(tensors: dict[str, Tensor]) -> None:
        for block, group in enumerate(dead):
            tensors[f"model.layers.{block}.self_attn.o_proj.weight"][:, group * 32 : (group + 1) * 32] = 0

    model = planted(tmp_path / "model", edit)
    shape = wanted_shape(model, DistillOptions(heads=2))
    found = choose(model, shape, documents())
    assert found.kept.groups == ((1,), (0,), (0,), (1,))
    assert found.lost["groups"] == pytest.approx((0, 0, 0, 0), abs=1e-6)
    student = open_model(cut(model, shape, found.kept, tmp_path / "student"))
    assert student.config.num_key_value_heads == 1 and student.config.head_dim == 16
    assert torch.allclose(logits(student), logits(model), atol=1e-5)


def test_channels_that_nobody_reads_go_and_nothing_changes(tmp_path: Path) -> None:
    gone = [list(range(block, 96, 2))[:36] for block in (0, 1, 0, 1)]

    def edit(tensors: dict[str, Tensor]) -> None:
        for block, channels in enumerate(gone):
            tensors[f"model.layers.{block}.mlp.down_proj.weight"][:, channels] = 0

    model = planted(tmp_path / "model", edit)
    shape = wanted_shape(model, DistillOptions(feed_forward=60))
    found = choose(model, shape, documents())
    for kept, channels in zip(found.kept.feed_forward, gone, strict=True):
        assert sorted({*range(96)} - {*kept}) == channels
    student = open_model(cut(model, shape, found.kept, tmp_path / "student"))
    assert torch.allclose(logits(student), logits(model), atol=1e-5)


def test_a_dead_channel_of_the_stream_goes_and_gains_make_up_for_the_shorter_mean(tmp_path: Path) -> None:
    dead = [3, 17, 40, 41, 42, 50, 51, 60]

    def edit(tensors: dict[str, Tensor]) -> None:
        tensors["model.embed_tokens.weight"][:, dead] = 0
        for block in range(4):
            for name in ("self_attn.o_proj", "mlp.down_proj"):
                tensors[f"model.layers.{block}.{name}.weight"][dead] = 0

    model = planted(tmp_path / "model", edit, rms_norm_eps=1e-12)
    shape = wanted_shape(model, DistillOptions(hidden=56))
    found = choose(model, shape, documents())
    assert sorted({*range(64)} - {*found.kept.hidden}) == dead
    assert found.lost["hidden"] == pytest.approx((0,), abs=1e-6)
    assert len(found.kept.gains) == 9
    assert list(found.kept.gains.values()) == pytest.approx([(64 / 56) ** 0.5] * 9)
    student = open_model(cut(model, shape, found.kept, tmp_path / "student"))
    assert torch.allclose(logits(student), logits(model), atol=1e-4)


def test_block_influence_is_one_minus_the_mean_cosine(four: OpenedModel) -> None:
    look = look_at(four, documents(1), CPU)
    found = influence(look)
    ids, counted, _ = look.batches[0]
    hidden = look.network(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
    before, after = hidden[1][counted], hidden[2][counted]
    cosine = (before * after).sum(-1) / (before.norm(dim=-1) * after.norm(dim=-1))
    assert found[1] == pytest.approx(float(1 - cosine.mean()), rel=1e-4)


def test_the_kl_of_a_removal_is_that_of_the_two_distributions(four: OpenedModel) -> None:
    look = look_at(four, documents(2), CPU)
    with without(look, [1]):
        found = look.divergence()
        now = [one.double() for one in look.run()]
    lost = weight = 0.0
    for logs, other, (_, _, weights) in zip(look.logs, now, look.batches, strict=True):
        p = logs.double().exp()
        lost += float((weights * (p * (p.log() - other)).sum(-1)).sum())
        weight += float(weights.sum())
    assert found == pytest.approx(lost / weight, rel=1e-4)


def test_what_is_passed_over_is_run_again_afterwards(four: OpenedModel) -> None:
    look = look_at(four, documents(2), CPU)
    with pytest.raises(RuntimeError, match="stop"), without(look, [0, 1]):
        raise RuntimeError("stop")
    assert look.divergence() == pytest.approx(0, abs=1e-7)


def test_of_a_deep_model_only_the_less_influential_half_is_measured(tmp_path: Path) -> None:
    model = open_model(save_random(tmp_path, hidden=32, layers=13, feed_forward=32, dtype="float32"))
    look = look_at(model, documents(2), CPU)
    influences = influence(look)
    first, second = remove_blocks(look, 2, influences, silent)
    assert isinstance(first, Round)
    least = sorted(range(13), key=lambda at: influences[at])
    assert set(first.measured) == set(least[:7])
    assert set(second.measured) == set([at for at in least if at != first.removed][:6])
    assert first.removed == min(first.measured, key=lambda at: first.measured[at])


def test_some_of_every_source_are_looked_at_and_not_more_than_enough() -> None:
    some = [Document(source, [1] * 2048, [0.0] + [1.0] * 2047) for source in "aab" for _ in range(3)]
    chosen = spread(some, 256)
    assert [one.source for one in chosen] == ["a", "b", "a", "b"]
    assert len(spread(some, 2**26)) == 1  # a huge vocabulary: one conversation, whatever it takes


def test_importance_needs_conversations(four: OpenedModel) -> None:
    with pytest.raises(DataError, match="importance is measured on conversations, and there are none"):
        choose(four, wanted_shape(four, DistillOptions(layers=2)), [])


def test_importance_is_saved_and_told(four: OpenedModel, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    shape = wanted_shape(four, DistillOptions(layers=2, heads=2))
    found = choose(
        four, shape, documents(), tell=lambda stage, done, total, row=None: told.append((stage, done, total))
    )
    assert Importance.load(found.save(tmp_path / "importance.json")) == found
    assert ("importance of blocks", 7, 7) in told
    sentences = found.told()
    assert sentences[0].startswith(f"block {found.removed[0].block} goes first: without it KL is ")
    assert sentences[-1].startswith("groups: what is cut stands for ")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"layers": 9}, "layers: 9 is more than the 4 of"),
        ({"layers": 4}, "a student of 4 blocks and the teacher's widths is the whole of"),
        (
            {"heads": 3},
            "heads: 3 are not whole groups; in .* 2 heads share their keys and values, so choose a multiple",
        ),
        ({"hidden": 50}, "a student of that shape cannot be built: .*hidden size .50. is not a multiple"),
        ({"feed_forward": 97}, "feed_forward: 97 is more than the 96 of"),
    ],
)
def test_a_shape_that_cannot_be_cut_is_refused(asked: dict[str, int], sentence: str, four: OpenedModel) -> None:
    with pytest.raises(UsageError, match=sentence):
        wanted_shape(four, DistillOptions.model_validate(asked))


@pytest.mark.parametrize(
    ("kind", "asked", "sentence"),
    [
        ("gpt_neox", {"feed_forward": 48}, "feed_forward: models of type 'gpt_neox' are cut in depth alone"),
        ("phi3", {"heads": 2}, "heads: models of type 'phi3' are cut in depth alone; ask for 'layers', or take one of"),
        (
            "gemma2",
            {"hidden": 32},
            "hidden: a model of type 'gemma2' multiplies its embeddings by the root of its width",
        ),
    ],
)
def test_a_width_that_we_cannot_cut_is_refused(kind: str, asked: dict[str, int], sentence: str, tmp_path: Path) -> None:
    model = open_model(save_family(tmp_path, kind))
    with pytest.raises(UsageError, match=sentence):
        wanted_shape(model, DistillOptions.model_validate(asked))


def test_blocks_of_two_kinds_cannot_stand_in_each_others_place(tmp_path: Path) -> None:
    """The second of Qwen3-MoE's blocks here is a plain MLP; a mixture keeps its own kind wherever it goes."""
    model = open_model(save_family(tmp_path / "model", "qwen3_moe", layers=3))
    shape = shape_of(model.config).model_copy(update={"layers": 2})
    student = open_model(cut(model, shape, Kept(blocks=(1, 2)), tmp_path / "student"))
    assert student.config.mlp_only_layers == [0]
    look = look_at(model, documents(), CPU)
    with without(look, [0]), torch.no_grad():
        want = look.network(input_ids=IDS, use_cache=False).logits
    assert torch.allclose(logits(student), want, atol=1e-5)


def written(model: OpenedModel, folder: Path, **changed: object) -> str:
    raw = json.loads((model.path / "config.json").read_bytes())
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(raw | changed))
    return str(folder)


def test_a_configuration_of_its_own_gives_the_shape(four: OpenedModel, tmp_path: Path) -> None:
    folder = written(four, tmp_path / "small", num_hidden_layers=2, intermediate_size=64)
    by_config = wanted_shape(four, DistillOptions(config=folder))
    assert by_config == wanted_shape(four, DistillOptions(layers=2, feed_forward=64))
    assert by_config == wanted_shape(four, DistillOptions(config=f"{folder}/config.json"))
    assert student_name(DistillOptions(config=folder)) == "student-small"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"vocab_size": 299}, "a vocabulary of 299 tokens, and .* has 300; a student learns the teacher's own tokens"),
        ({"model_type": "mistral"}, "a model of type 'mistral', and .* is 'llama'; a student takes its first weights"),
        ({"num_hidden_layers": 6}, "layers: 6 is more than the 4 of"),
        ({"num_hidden_layers": 2, "hidden_act": "gelu"}, "'hidden_act' is 'gelu', and in .* 'silu'; weights that were"),
        ({"num_hidden_layers": 2, "tie_word_embeddings": False}, "'tie_word_embeddings' is False"),
        ({"num_attention_heads": 2, "head_dim": 32}, "head_dim: 32 is more than the 16"),
        ({"num_key_value_heads": 1}, "4 heads of 16 with 1 for keys and values cannot be cut out of"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    changed: dict[str, object], sentence: str, four: OpenedModel, tmp_path: Path
) -> None:
    folder = written(four, tmp_path / "small", **changed)
    with pytest.raises(UsageError, match=sentence):
        wanted_shape(four, DistillOptions(config=folder))


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "no such"}', '{"hidden_size": 3}'])
def test_what_is_no_configuration_is_refused(content: str, four: OpenedModel, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match="not a configuration of a model"):
        wanted_shape(four, DistillOptions(config=str(tmp_path)))
    with pytest.raises(UsageError, match="not a configuration of a model"):
        wanted_shape(four, DistillOptions(config=str(tmp_path / "nowhere")))


def test_a_configuration_with_another_tokenizer_is_refused(four: OpenedModel, tmp_path: Path) -> None:
    folder = Path(written(four, tmp_path / "small", num_hidden_layers=2))
    save_byte_tokenizer(folder)
    assert wanted_shape(four, DistillOptions(config=str(folder))).layers == 2
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|user|>"}))
    with pytest.raises(UsageError, match=r"its tokenizer is not that of .*; leave the tokenizer files out"):
        wanted_shape(four, DistillOptions(config=str(folder)))


def test_the_teachers_tokenizer_and_template_come_along(four: OpenedModel, tmp_path: Path) -> None:
    shape = wanted_shape(four, DistillOptions(layers=1))
    student = open_model(cut(four, shape, Kept(blocks=(0,)), tmp_path / "student", dtype="bfloat16"))
    assert student.tokenizer_digest == four.tokenizer_digest
    assert student.template_digest == four.template_digest
    assert {entry.dtype for entry in student.files.entries.values()} == {"BF16"}
    assert json.loads((student.path / "config.json").read_bytes())["dtype"] == "bfloat16"
    assert student.tied
