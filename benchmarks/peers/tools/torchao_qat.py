"""torchao's QAT beside ours, in one process of its environment: same data, teacher, loss, optimizer, steps and loop.

    python -m benchmarks.peers.tools.torchao_qat WORK.json RESULT.json

Both train the weights of the blocks' linear layers and the gains of norms. torchao's way: ``quantize_`` with
``QATConfig`` puts its fake-quantized layers in, our loop trains them, ``quantize_`` turns them into its own quantized
ones, and these are judged as they run. Ours: ``train.qat``, and the artifact as ``load_dequantized`` opens it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup
from torchao.quantization.qat import QATConfig

from benchmarks.peers.tools.contract import versions_of
from quantgate.evaluate import suites
from quantgate.models import REFERENCE, OpenedModel, open_model
from quantgate.quantize import Artifact, Recipe, baseline, load_dequantized, open_artifact
from quantgate.quantize.load import load_with_paths
from quantgate.records import digest_of
from quantgate.train import DataSummary, Document, Group, TrainingSet
from quantgate.train.data import training_set
from quantgate.train.devices import here
from quantgate.train.gradients import Worked
from quantgate.train.loop import batches, train
from quantgate.train.network import PlainNetwork, open_fake_network
from quantgate.train.options import QatOptions
from quantgate.train.order import packed
from quantgate.train.qat import qat
from quantgate.train.teacher import Teacher

WARM = 2  # steps of each that are not timed


@dataclass(frozen=True)
class Plan:
    """One comparison, as WORK.json holds it."""

    folder: str
    schemes: list[str]  # of quantgate: W4A16-g32, W4A8-g32
    rates: list[float]  # learning rates; of each side the best on the tune split counts
    steps: int
    batch_tokens: int
    documents: int  # that train
    held: int  # conversations that neither train nor choose
    tune: int
    rounds: int  # of timed steps
    threads: int
    reconstruct: int = 0  # steps of each block beforehand, ours; 0: the same steps on both sides


class TheirNetwork(PlainNetwork):
    """A model with torchao's fake-quantized layers, trained by our loop. What an artifact keeps is not trained."""

    def __init__(self, model: OpenedModel, config: Any) -> None:
        network, paths = load_with_paths(baseline(model), torch.float32)
        walked = {paths[layer] for block in range(model.depth) for group in model.linears(block) for layer in group}

        def chosen(_module: Any, path: str) -> bool:
            return path in walked

        quantize_(network, QATConfig(config, step="prepare"), filter_fn=chosen)
        self.config, self.chosen = config, chosen
        super().__init__(model, network, paths, "cpu", "float32")
        self.prepare(checkpointing=False)

    def groups(self) -> list[Group]:
        return [group for group in super().groups() if group.name != "ends"]

    def leaves(self) -> list[Tensor]:
        return [one for group in self.groups() for one in group.parameters.values()]

    def converted(self) -> Any:
        quantize_(self.model, QATConfig(self.config, step="convert"), filter_fn=self.chosen)
        return self


def config_of(scheme: str) -> Any:
    """What torchao calls a scheme: symmetric int4 of groups, inputs in 8 bits for W4A8."""
    kind, _, group = scheme.partition("-g")
    int4: Any = getattr(torch, "int4")  # noqa: B009, torch's stubs leave it out
    if kind == "W4A8":
        return Int8DynamicActivationIntxWeightConfig(weight_dtype=int4, weight_granularity=PerGroup(int(group)))
    return IntxWeightOnlyConfig(weight_dtype=int4, granularity=PerGroup(int(group)))


@dataclass
class Field:
    """What both sides are given."""

    plan: Plan
    model: OpenedModel
    data: TrainingSet
    held: list[Document]

    @classmethod
    def of(cls, plan: Plan) -> Field:
        model = open_model(REFERENCE)
        options = QatOptions(documents=plan.documents + plan.held, tune=plan.tune)
        whole = training_set(model, suites=suites.names(), options=options)
        held, documents = whole.documents[:: len(whole.documents) // plan.held], list[Document]()
        chosen = {id(one) for one in held}
        documents = [one for one in whole.documents if id(one) not in chosen]
        content = digest_of([[one.ids, one.wanted] for one in [*documents, *whole.tune]])
        summary = DataSummary(content=content, documents={"suites": len(documents)},
                              tokens=sum(len(one.ids) for one in documents), tune=len(whole.tune))  # fmt: skip
        return cls(plan, model, TrainingSet(documents, whole.tune, summary), held)

    def options(self, rate: float) -> QatOptions:
        plan = self.plan
        return QatOptions(steps=plan.steps, batch_tokens=plan.batch_tokens, learning_rate=rate, tune=plan.tune,
                          evaluate_every=max(1, plan.steps // 4), reconstruct=plan.reconstruct, precision="float32",
                          documents=plan.documents)  # fmt: skip

    def teacher(self) -> Teacher:
        plain = PlainNetwork(self.model, *load_with_paths(baseline(self.model), torch.float32), "cpu", "float32")
        plain.prepare(checkpointing=False)
        folder = Path(self.plan.folder) / ".teacher"
        return Teacher(plain.logits, self.data, folder, self.model.weights_digest, 64, self.plan.batch_tokens)

    @torch.no_grad()
    def kl(self, logits_of: Callable[[Tensor, Tensor], Tensor]) -> float:
        """KL(baseline || network) over the whole vocabulary, nats a counted token of the held-out conversations."""
        plain = PlainNetwork(self.model, *load_with_paths(baseline(self.model), torch.float32), "cpu", "float32")
        plain.prepare(checkpointing=False)
        total, count = 0.0, 0
        for batch in packed(self.held, range(len(self.held)), self.plan.batch_tokens):
            wanted = torch.log_softmax(plain.logits(batch.ids, batch.counted), 1)
            found = torch.log_softmax(logits_of(batch.ids, batch.counted), 1)
            answers = batch.weights >= 1
            total += float((wanted.exp() * (wanted - found)).sum(1)[answers].sum())
            count += int(answers.sum())
        return total / count


def theirs(field: Field, scheme: str, teacher: Teacher, rate: float) -> tuple[float, float, float]:
    """Tune KL of the best state, held-out KL of what it converts to, seconds."""
    network, began = TheirNetwork(field.model, config_of(scheme)), time.perf_counter()
    folder = Path(field.plan.folder) / "torchao" / f"{scheme}-{rate:g}"
    rows = train(network, field.data, teacher, field.options(rate), folder, tell=_quiet, recipe=scheme)
    spent = time.perf_counter() - began
    return min(row.kl for row in rows if row.kl is not None), field.kl(network.converted().logits), spent


def ours(field: Field, scheme: str, rate: float) -> tuple[float, float, float]:
    began = time.perf_counter()
    folder = Path(field.plan.folder) / "quantgate" / f"{scheme}-{rate:g}"
    recipe = Recipe(scheme=scheme, method="qat")
    samples = [one.ids for one in field.data.documents[:256]]
    artifact = qat(field.model, recipe, field.options(rate), field.data, folder, samples=samples)
    spent = time.perf_counter() - began
    training = artifact.manifest.training
    assert training is not None
    assert training.after is not None
    return training.after, field.kl(_logits(load_dequantized(artifact))), spent


def _logits(network: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda ids, counted: network.float()(input_ids=ids, use_cache=False).logits[counted].float()


def _quiet(*_: Any, **__: Any) -> None: ...


def steps(field: Field, scheme: str, teacher: Teacher) -> dict[str, Any]:
    """Seconds of a step of each, and of plain training, taken in turns on the same batches."""
    options = field.options(1e-5)
    start = start_of(field, scheme)
    networks: dict[str, Any] = {
        "plain": PlainNetwork(field.model, *load_with_paths(baseline(field.model), torch.float32), "cpu", "float32"),
        "torchao": TheirNetwork(field.model, config_of(scheme)),
        "quantgate": open_fake_network(field.model, start, precision="float32"),
    }
    networks["plain"].prepare(checkpointing=False)
    sides = {}
    for name, network in networks.items():
        parameters = [one for group in network.groups() for one in group.parameters.values()]
        sides[name] = Worked(network, teacher, options, here()), torch.optim.AdamW(parameters, lr=1e-6, fused=True)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for step in range(WARM + field.plan.rounds):
        order = list(sides) if step % 2 else list(reversed(sides))
        for name in order:
            worked, optimizer = sides[name]
            batch = batches(field.data.documents, options.batch_tokens, step, 0, room=worked.room)
            began = time.perf_counter()
            worked.backward(batch)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds[name].append(time.perf_counter() - began)
    return {name: [round(one, 4) for one in found[WARM:]] for name, found in seconds.items()}


def main() -> None:
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text("utf-8")))
    torch.set_num_threads(plan.threads)
    field = Field.of(plan)
    teacher = field.teacher()
    found: dict[str, Any] = {}
    for scheme in plan.schemes:
        sides = {
            "torchao": [theirs(field, scheme, teacher, rate) for rate in plan.rates],
            "quantgate": [ours(field, scheme, rate) for rate in plan.rates],
        }
        found[scheme] = {"kl": sides, "before": before(field, scheme), "steps": steps(field, scheme, teacher)}
        result = {"versions": versions_of(("torch", "torchao", "transformers")), "schemes": found}
        Path(sys.argv[2]).write_text(json.dumps(result, indent=1), "utf-8")
        told = {name: median(one) for name, one in found[scheme]["steps"].items()}
        print(scheme, sides, told, flush=True)


def before(field: Field, scheme: str) -> dict[str, float]:
    """Held-out KL without training: torchao's own rounding, and what our training begins with."""
    rounded = TheirNetwork(field.model, config_of(scheme)).converted()
    mine = _logits(load_dequantized(start_of(field, scheme)))
    return {"torchao": field.kl(rounded.logits), "quantgate": field.kl(mine)}


def start_of(field: Field, scheme: str) -> Artifact:
    """The post-training artifact that our runs began with; all of them have the same."""
    found = sorted(Path(field.plan.folder).glob(f"quantgate/{scheme}-{field.plan.rates[0]:g}/.starts/*/manifest.json"))
    return open_artifact(found[0].parent)


if __name__ == "__main__":
    main()
