"""The training loop: the network is LlamaForCausalLM's, a killed run goes on to the same curve, files are whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from quantgate.cli import app
from quantgate.errors import BadTensor, UsageError
from quantgate.models import open_model
from quantgate.train.reference import loop, recipe
from quantgate.train.reference.data import Batch, Stream, batches
from quantgate.train.reference.loop import SHARES, Plan
from quantgate.train.reference.network import Network, attention

SMALL = Plan(
    tokens=6 * 512, batch_tokens=512, warmup_steps=2, evaluate_every=2, evaluate_cases=2, scored_cases=2,
    tokenizer_drafts=100, hidden=64, feed_forward=128,
)  # fmt: skip

RUN = """
import json, sys
from pathlib import Path
import torch
from quantgate.train.reference import recipe
from quantgate.train.reference.loop import Plan

torch.set_num_threads(1)
work, plan = Path(sys.argv[1]), Plan(**json.loads(sys.argv[2]))

def tell(row):
    with (work / "told.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\\n")

recipe.train_reference(work / "model", work, plan, tell)
"""


def rows(work: Path) -> list[dict[str, object]]:
    path = work / "told.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def begin(work: Path) -> subprocess.Popen[bytes]:
    work.mkdir(exist_ok=True)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", RUN, str(work), json.dumps(asdict(SMALL))], env=env)


def test_a_killed_run_goes_on_to_the_same_curve_and_weights(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert begin(whole).wait() == 0
    cut.mkdir()
    for end in (3, 5):  # steps after the checkpoints at 2 and 4: what they did is lost, and done again
        process = begin(cut)
        while not any(row["step"] == end for row in rows(cut)):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert begin(cut).wait() == 0

    curves = [json.loads((work / "model/training.json").read_text())["curve"] for work in (whole, cut)]
    told = [[(row["step"], row["loss"], row["right"]) for row in curve] for curve in curves]
    assert [step for step, _, _ in told[0]] == [2, 4, 6]
    assert told[0] == told[1]
    names = ("model.safetensors", "tokenizer.json", "config.json", "README.md")
    assert all((whole / "model" / name).read_bytes() == (cut / "model" / name).read_bytes() for name in names)
    assert sorted(path.name for path in cut.glob("*state*")) == ["state-6.safetensors", "state.json"]
    assert 3 in [row["step"] for row in rows(cut)][3:]  # the killed step was really done twice


def test_a_checkpoint_of_another_plan_is_refused_and_kept(tmp_path: Path) -> None:
    short = replace(SMALL, tokens=2 * 512)
    recipe.train_reference(tmp_path / "model", tmp_path, short, lambda row: None)
    before = (tmp_path / "state.json").read_bytes()
    with pytest.raises(UsageError, match="holds the checkpoint of a run with another plan, data or network; finish it"):
        recipe.train_reference(tmp_path / "model", tmp_path, SMALL, lambda row: None)
    assert (tmp_path / "state.json").read_bytes() == before


def test_a_loss_that_is_no_number_stops_the_run_before_it_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "backward", lambda network, parts, device: float("nan"))
    with pytest.raises(BadTensor, match="the loss of step 1 is nan; lower the learning rate"):
        recipe.train_reference(tmp_path / "model", tmp_path, SMALL, lambda row: None)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("reference")
    return recipe.train_reference(work / "model", work, SMALL, lambda row: None)


def test_the_folder_is_a_model_that_transformers_and_our_engine_read(trained: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(trained, dtype=torch.bfloat16)
    assert sum(one.numel() for one in model.parameters()) == open_model(trained).parameters
    assert (trained / "model.safetensors").stat().st_mode & 0o777 == 0o644 & ~_umask()


def test_the_network_gives_the_logits_of_transformers(tokenizer: PreTrainedTokenizerFast, trained: Path) -> None:
    torch.manual_seed(1)
    config = recipe.reference_config(tokenizer, Plan())
    network, model = Network(config), LlamaForCausalLM(config).float()
    model.load_state_dict({name: tensor.float() for name, tensor in network.state().items()}, strict=False)
    ids = torch.randint(7, 500, (2, 70))
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    ours, theirs = network(ids, everywhere), model(ids).logits.flatten(0, 1)
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=-1).min() > 0.995  # bfloat16 against float32


def test_two_workers_leave_the_gradient_of_one(tokenizer: PreTrainedTokenizerFast) -> None:
    network, parts = Network(recipe.reference_config(tokenizer, SMALL)), _parts(tokenizer)
    threads, found = torch.get_num_threads(), []
    try:
        for workers in (1, 2):
            torch.set_num_threads(workers)
            loss = loop.backward(network, parts, "cpu")
            found.append((loss, [parameter.grad for parameter in network.parameters()]))
            assert torch.get_num_threads() == workers
    finally:
        torch.set_num_threads(threads)
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for one, two in zip(found[0][1], found[1][1], strict=True):
        assert one is not None and two is not None
        torch.testing.assert_close(one, two, rtol=2e-2, atol=1e-4)


def test_blocks_that_wake_change_no_logit_and_are_trained_from_then_on(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(3)
    network, ids = Network(recipe.reference_config(tokenizer, SMALL)), torch.randint(7, 500, (1, 40))
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    network.asleep = frozenset({2, 5})
    loop.backward(network, _parts(tokenizer), "cpu")
    assert {index for index, block in enumerate(network.blocks) if next(block.parameters()).grad is None} == {2, 5}
    before = network(ids, everywhere)
    network.wake()
    assert torch.equal(network(ids, everywhere), before)
    loop.backward(network, _parts(tokenizer), "cpu")
    woken = [block.get_parameter("mlp/down_proj").grad for block in network.blocks]
    assert all(grad is not None and grad.any() for grad in woken)


def test_an_untrained_network_looks_for_the_token_after_an_earlier_occurrence(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    network, period = Network(recipe.reference_config(tokenizer, Plan())), 20
    looks: list[torch.Tensor] = []  # of each block, attention [heads, length, length]

    def watched(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = (q @ k.mT).float() * q.shape[-1] ** -0.5
        looks.append(torch.softmax(scores + torch.full(scores.shape[-2:], -torch.inf).triu(1), dim=-1)[0])
        return attention(q, k, v)

    monkeypatch.setattr("quantgate.train.reference.network.attention", watched)
    ids = (torch.randperm(500)[:period] + 7).repeat(2)[None]
    network(ids, torch.ones_like(ids, dtype=torch.bool))
    for head in (0, 2):
        assert looks[0][head].diagonal(-1)[5:].mean() > 0.4
        assert looks[1][head].diagonal(1 - period)[5:].mean() > 1.8 / period
    assert looks[0][5].diagonal(-1)[5:].mean() < 0.2 and looks[1][5].diagonal(1 - period)[5:].mean() < 1.5 / period


def test_scores_of_a_perfect_and_of_an_ignorant_network(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Oracle:
        """Knows the wanted tokens of every batch, apart from those of the first row."""

        def __init__(self, spoil: bool) -> None:
            self.spoil = spoil

        def __call__(self, ids: torch.Tensor, answered: torch.Tensor) -> torch.Tensor:
            targets = ids.roll(-1, dims=1)[answered]
            rows = answered.nonzero()[:, 0]
            wrong = (rows == 0) & self.spoil
            return torch.nn.functional.one_hot(targets + wrong, 600).float()

    assert loop.answers_right(Oracle(False), tokenizer, 4, 0, "cpu", names=["math", "chat"]) == {  # type: ignore[arg-type]
        "math": 1.0,
        "chat": 1.0,
    }
    spoilt = loop.answers_right(Oracle(True), tokenizer, 4, 0, "cpu", names=["math"])  # type: ignore[arg-type]
    assert spoilt["math"] <= 0.75


def test_what_is_not_yet_learned_gets_a_larger_share() -> None:
    curve = [{"right": {name: 1.0 if name == "math" else 0.0 for name in SHARES}}]
    before, after = loop._shares([]), loop._shares(curve)
    assert after["math"] < before["math"] / 3 and after["chat"] == before["chat"]


def test_the_card_tells_people_and_programs_the_same(trained: Path) -> None:
    card, record = (trained / "README.md").read_text(), json.loads((trained / "training.json").read_text())
    assert record["plan"]["tokens"] == SMALL.tokens and record["data_digest"] in card
    assert record["data_digest"] == recipe.data_digest(recipe._tokenizer(SMALL), SMALL)
    for name in SHARES:
        shown = f"| {name} | {record['scores']['default'][name]:.3f} | {record['scores']['hard'][name]:.3f} |"
        assert shown in card
    assert all(f"| {row['step']} |" in card for row in record["curve"])


def test_the_command_trains_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "Plan", lambda: SMALL)
    result = CliRunner().invoke(app, ["train", "reference", "--out", f"{tmp_path}/model", "--work", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "model/model.safetensors").exists()
    assert "model and card" in result.output


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _parts(tokenizer: PreTrainedTokenizerFast) -> list[Batch]:
    stream = Stream(tokenizer, 5)
    stream.restart(0, SHARES)
    source = stream.documents(1024)
    return batches([next(source) for _ in range(8)], tokenizer.pad_token_id, 1024)
