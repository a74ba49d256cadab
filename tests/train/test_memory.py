from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.train.tiny import Tiny
from transformers import AutoModelForCausalLM, LlamaConfig

from quantgate.errors import TrainingError
from quantgate.train import Group
from quantgate.train.memory import Budget, Shape, estimate, out_of_memory, per_token, room
from quantgate.train.options import QatOptions, TrainOptions

ROOT = Path(__file__).resolve().parents[2]
CONFIG = LlamaConfig(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=192,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
)


class Whole(Tiny):
    """A Tiny that says it is the transformers model ``model``, whose numbers are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.model = AutoModelForCausalLM.from_config(CONFIG)

    def groups(self) -> list[Group]:
        return [Group("weights", dict(self.model.named_parameters()))]


def test_what_a_block_keeps_is_what_autograd_keeps() -> None:
    model = AutoModelForCausalLM.from_config(CONFIG)
    ids = torch.randint(0, 96, (4, 64))
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    kept: dict[int, int] = {}
    held = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=ids, use_cache=False)
    shape = Shape.of(CONFIG)
    assert shape == Shape(4, 64, 4, 2, 16, 192, 96)
    assert per_token(shape) * 4 == pytest.approx(sum(kept.values()) / ids.numel(), rel=0.2)


def test_checkpointing_keeps_one_block_and_what_the_others_were_given() -> None:
    shape = Shape.of(CONFIG)
    assert shape is not None
    plain = estimate(1000, 1000, shape, tokens=256, checkpointing=False)
    less = estimate(1000, 1000, shape, tokens=256, checkpointing=True)
    assert plain.activations == 4 * 256 * per_token(shape)
    assert less.activations == 256 * (per_token(shape) + 4 * 64 * 4)
    assert (plain.optimizer, plain.gradients, plain.weights) == (8000, 8000, 8000)


def test_the_first_setting_that_is_enough_is_named() -> None:
    options = QatOptions(batch_tokens=65536)
    budget = Budget.of(Whole(), options, longest=64, threads=1, batch=65536)
    needs = {cure.setting: cure.need.total for cure in budget.cures}
    assert list(needs) == ["gradient_checkpointing: true", "batch_tokens: 32768", "adapters: 16"]
    assert all(need < budget.need.total for need in needs.values())
    tight = Budget(budget.need, needs["batch_tokens: 32768"], budget.cures)
    with pytest.raises(
        TrainingError, match=r"^run: a step takes about .* GB \(weights .* are there; set \w"
    ) as refused:
        tight.refuse(Path("run"))
    enough = [name for name, need in needs.items() if need <= needs["batch_tokens: 32768"]]
    assert f"set {enough[0]} (then" in str(refused.value) and ", or " not in str(refused.value)
    with pytest.raises(
        TrainingError, match=r"set gradient_checkpointing: true .*, or batch_tokens: 32768 .*, or adapters: 16"
    ):
        Budget(budget.need, 1000, budget.cures).refuse(Path("run"))
    Budget(budget.need, budget.need.total, budget.cures).refuse(Path("run"))
    Budget(budget.need, None, budget.cures).refuse(Path("run"))


def test_what_is_set_already_is_not_proposed() -> None:
    options = TrainOptions(batch_tokens=64, gradient_checkpointing=True)
    assert Budget.of(Whole(), options, longest=63, threads=1, batch=64).cures[0].setting == "batch_tokens: 32"
    assert Budget.of(Whole(), options, longest=63, threads=1, batch=63).cures == ()


def test_long_documents_are_to_be_cut_where_a_batch_holds_one() -> None:
    options = TrainOptions(batch_tokens=64, gradient_checkpointing=True)
    budget = Budget.of(Whole(), options, longest=256, threads=1, batch=64)
    (cure,) = budget.cures
    assert cure.setting == "max_tokens: 128" and cure.need.logits == budget.need.logits // 2


def test_memory_that_others_took_is_not_blamed_on_the_step() -> None:
    budget = Budget.of(Whole(), QatOptions(batch_tokens=256), longest=64, threads=1, batch=256)
    assert "GB are there; look for other programs or a limit that took the rest, or set gradient" in str(
        Budget(budget.need, 10**11, budget.cures)
    )
    assert "look for other programs" not in str(Budget(budget.need, 1000, budget.cures))


def test_a_configuration_with_other_names_is_not_guessed() -> None:
    assert Shape.of(None) is None
    assert estimate(10, 10, None, tokens=5, checkpointing=False).activations == 0


def test_other_errors_are_not_taken_for_memory() -> None:
    assert not out_of_memory(ValueError("out of memory"))
    assert not out_of_memory(RuntimeError("shapes"))


LIMITED = """
import resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from quantgate.train import Group
from quantgate.train.memory import out_of_memory, room
from tests.train.test_loop import Tiny, run, OPTIONS

class Hungry(Tiny):
    def logits(self, ids, counted):
        hoard.append(torch.empty(64 << 20))  # 256 MiB each, as much as there is
        return super().logits(ids, counted)

hoard = []
folder = Path(sys.argv[1])
run(folder / "one", Tiny(1), OPTIONS.model_copy(update={"steps": 1}))  # whatever loads late is loaded
mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 30), resource.RLIM_INFINITY))
assert room(torch.device("cpu")) <= 1 << 30
try:
    run(folder / "two", Hungry(1))
except Exception as problem:
    hoard.clear()
    print(type(problem).__name__, problem)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on address space")
def test_memory_that_really_ran_out_is_told_with_figures(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert said.startswith("TrainingError ") and "two: out of memory at step" in said
    assert "a step takes about" in said and "are there" in said and "Kept: " in said


def test_free_memory_is_a_number_of_bytes() -> None:
    free = room(torch.device("cpu"))
    assert free is None or free > 1 << 20
