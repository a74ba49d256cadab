"""What a process that works for a run does: named tasks without memory, so that any worker can do any of them again.

A task names files and digests and holds plain data; its answer depends on nothing else. A worker keeps the last engines
that it opened, because opening one is dear, and that is all that it keeps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantgate.errors import ArtifactError, ModelError
from quantgate.models import OpenedModel, open_model
from quantgate.records import Record, digest_of
from quantgate.variant_config import RuntimeConfig

if TYPE_CHECKING:
    from quantgate.engines import Completion, Engine, Failure, Identity, KernelPath, Prompt
    from quantgate.evaluate.drift_record import Drift
    from quantgate.evaluate.suites import Case
    from quantgate.quantize import Artifact

HELD = 2  # engines that a worker keeps open: the baseline's and a variant's


class Post(Record):
    """Which engine a task is for: the bytes that it runs, and how."""

    model: str  # as locate finds it
    weights: str  # digest of the model's weights
    artifact: str  # folder, GGUF file or Hugging Face id; empty: the model itself
    manifest: str  # digest of the artifact's manifest
    name: str  # of the variant
    engine: str
    runtime: RuntimeConfig | None = None
    out: str  # the run's folder, where proofs are kept

    @cached_property
    def key(self) -> str:
        return self.digest


@dataclass(frozen=True)
class Task:
    """One piece of work: the name of a method of ``Workplace`` and what it is given."""

    name: str  # for people: "W4A16: 128 prompts"
    call: str
    given: tuple[Any, ...]
    posts: tuple[str, ...] = ()  # keys of the engines that it needs
    digest: str = ""  # of all that its answer depends on, where somebody asks for it twice


@dataclass(frozen=True)
class Opened:
    """What is known of an engine that runs elsewhere."""

    identity: Identity
    kernels: tuple[KernelPath, ...]
    proof: str


@dataclass
class Workplace:
    """``threads``: of torch, those that a local run would have; sums are split among them."""

    threads: int
    models: dict[str, OpenedModel] = field(default_factory=dict)
    engines: OrderedDict[str, tuple[Engine, str]] = field(default_factory=OrderedDict)
    told: dict[str, tuple[str, int, int]] = field(default_factory=dict)  # task -> stage, done, total

    def do(self, task: Task) -> Any:
        import torch

        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        return getattr(self, task.call)(*task.given)

    def open(self, post: Post) -> Opened:
        engine, proof = self._engine(post)
        return Opened(engine.identity, tuple(engine.kernels), proof)

    def generate(self, post: Post, prompts: Sequence[Prompt]) -> list[Completion | Failure]:
        return self._engine(post)[0].generate(prompts)

    def encode(self, post: Post, turns: Sequence[tuple[str, str]]) -> list[int]:
        return self._engine(post)[0].encode(turns)

    def logits(self, post: Post, ids: Any, at: Any) -> Any:
        return self._engine(post)[0].logits(ids, at)

    def drift(self, baseline: Post, variant: Post, cases: Sequence[Case]) -> Drift:
        from quantgate.evaluate.drift import drift_of

        return drift_of(self._engine(baseline)[0], self._engine(variant)[0], cases)

    def sweep(self, model: str, weights: str, samples: Any, recipes: Any, out: str, seed: int, task: str) -> list[str]:
        """Artifacts of some of a sweep's recipes; their manifests' digests."""
        from quantgate.quantize.sweep import sweep

        def tell(stage: str, done: int, total: int) -> None:
            self.told[task] = (stage, done, total)

        try:
            made = sweep(self._model(model, weights), samples, recipes, out, progress=tell, seed=seed)
        finally:
            self.told.pop(task, None)
        return [one.manifest.digest for one in made]

    def _model(self, ref: str, weights: str) -> OpenedModel:
        if ref not in self.models:
            self.models[ref] = open_model(ref)
        found = self.models[ref]
        if found.weights_digest != weights:
            del self.models[ref]
            raise ModelError(f"{ref}: a worker sees other weights than the run; give it the same files, and run again")
        return found

    def _engine(self, post: Post) -> tuple[Engine, str]:
        from quantgate.pipeline.runtimes import engine_for

        if post.key in self.engines:
            self.engines.move_to_end(post.key)
            return self.engines[post.key]
        while len(self.engines) >= HELD:
            self.engines.popitem(last=False)
        model = self._model(post.model, post.weights)
        made = engine_for(model, self._artifact(post, model), post.engine, Path(post.out), post.runtime)
        self.engines[post.key] = made
        return made

    def _artifact(self, post: Post, model: OpenedModel) -> Artifact:
        from quantgate.pipeline.variants import open_variant
        from quantgate.quantize import baseline

        if not post.artifact:
            return baseline(model)
        found = open_variant(post.artifact, model, post.name)
        if found.manifest.digest != post.manifest:
            raise ArtifactError(f"{post.artifact}: a worker sees another artifact than the run; run again")
        return found


def post_of(model: OpenedModel, artifact: Artifact, engine: str, out: Path, runtime: RuntimeConfig | None) -> Post:
    return Post(
        model=model.ref if not Path(model.ref).exists() else str(Path(model.ref).resolve()),
        weights=model.weights_digest,
        artifact="" if artifact.is_baseline else str(artifact.path.resolve()),
        manifest="" if artifact.is_baseline else artifact.manifest.digest,
        name=artifact.name,
        engine=engine,
        runtime=runtime,
        out=str(out.resolve()),
    )


def asking(post: Post, prompts: Sequence[Prompt]) -> Task:
    digest = digest_of([post.key, [prompt.body() for prompt in prompts]])
    return Task(f"{post.name}: {len(prompts)} prompts", "generate", (post, list(prompts)), (post.key,), digest)
