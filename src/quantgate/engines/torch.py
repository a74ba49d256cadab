"""The in-process engine: baseline and variants side by side, batched greedy generation over a static KV cache.

Prompts are sorted by length and cut into batches, padded on the left; the cache is allocated once per batch for prompt
and answer. Low-bit layers run on torch's own low-bit kernels where there is one (see ``_linears``), and what ran is in
``kernels``, one row per scheme, shape and path.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import StaticCache

from quantgate.engines import Completion, Failure, Identity, KernelPath, Prompt
from quantgate.engines._linears import DequantizedLinear, build
from quantgate.errors import EngineError
from quantgate.models import OpenedModel
from quantgate.quantize import Artifact, load_dequantized

BATCH_TOKENS = 16384  # positions of prompt and answer that one batch may hold
BATCH_ROWS = 64


class TorchEngine:
    """See ``engines.Engine``. Raises EngineError when the model cannot be built."""

    def __init__(
        self,
        model: OpenedModel,
        artifact: Artifact,
        *,
        dtype: str = "bfloat16",
        kernels: str = "auto",
        device: str = "auto",
    ) -> None:
        self.device = torch.device(
            "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
        )
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.source, self.tokenizer = model, model.tokenizer
        self.network = load_dequantized(artifact, self.dtype).to(self.device).eval()
        self.kernels = () if artifact.is_baseline else self._swap(artifact, kernels)
        self.identity = Identity(
            engine="torch",
            weights=model.weights_digest if artifact.is_baseline else artifact.manifest.digest,
            tokenizer=model.tokenizer_digest,
            template=model.template_digest,
            runtime=(
                f"dtype={dtype}",
                f"kernels={kernels}",
                f"device={self.device.type}",
                f"torch={torch.__version__}",
                f"transformers={transformers.__version__}",
                f"batch={BATCH_ROWS}x{BATCH_TOKENS}",
            ),
        )
        self.stop = _stop_ids(self.network, self.tokenizer)

    def _swap(self, artifact: Artifact, kernels: str) -> tuple[KernelPath, ...]:
        """Put a module that computes from codes in the place of every quantized linear; tell what runs."""
        counts: Counter[tuple[tuple[int, int], str, str, str]] = Counter()
        for name in artifact.quantized:
            stored = artifact.linear(name)
            module, asked, because = build(stored, self.dtype, self.device, kernels)
            parent, _, leaf = name.rpartition(".")
            setattr(self.network.get_submodule(parent), leaf, module.to(self.device))
            out, columns = stored.codes.shape
            counts[(out, columns), asked, _got(module), because] += 1
        label = artifact.scheme.label
        return tuple(
            KernelPath(scheme=label, shape=shape, asked=asked, got=got, because=because, linears=count)
            for (shape, asked, got, because), count in sorted(counts.items())
        )

    def encode(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """Token ids of a conversation; one that ends with an assistant turn is closed, any other waits for the answer."""
        messages = [{"role": role, "content": content} for role, content in turns]
        if turns[-1][0] != "assistant":
            return self.source.encode(messages)
        return self.source.encode(messages[:-1]) + self._answer_ids(turns[-1][1])

    def _answer_ids(self, answer: str) -> list[int]:
        return [*self.tokenizer.encode(answer, add_special_tokens=False), min(self.stop)]

    @torch.inference_mode()
    def logits(self, ids: Tensor) -> Tensor:
        """Float32 logits [batch, length, vocabulary]; rows are padded on the right, which causal attention ignores."""
        out: Tensor = self.network(input_ids=ids.to(self.device), use_cache=False).logits
        return out.float().cpu()

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion | Failure]:
        """Greedy answers, in the order asked. A prompt that does not fit the context is a Failure."""
        answers: dict[int, Completion | Failure] = {}
        rows: list[tuple[int, list[int]]] = []
        for index, prompt in enumerate(prompts):
            ids = self.encode(prompt.turns)
            if len(ids) + prompt.max_tokens > self.source.context:
                reason = f"prompt of {len(ids)} tokens and answer of {prompt.max_tokens} exceed the context of {self.source.context}"
                answers[index] = Failure(reason=reason)
            else:
                rows.append((index, ids))
        rows.sort(key=lambda row: (len(row[1]), row[0]))
        for batch in _cut(rows, prompts):
            answers |= self._batch(batch, prompts)
        return [answers[index] for index in range(len(prompts))]

    @torch.inference_mode()
    def _batch(self, batch: list[tuple[int, list[int]]], prompts: Sequence[Prompt]) -> dict[int, Completion | Failure]:
        began = time.perf_counter()
        budgets = [prompts[index].max_tokens for index, _ in batch]
        longest, answer = max(len(ids) for _, ids in batch), max(budgets)
        ids, mask = _left_padded([ids for _, ids in batch], longest, answer)
        ids, mask = ids.to(self.device), mask.to(self.device)
        positions = (mask[:, :longest].cumsum(1) - 1).clamp_min(0)
        cache = StaticCache(config=self.network.config, max_cache_len=longest + answer)
        out = self.network(
            input_ids=ids,
            attention_mask=mask[:, :longest],
            position_ids=positions,
            past_key_values=cache,
            logits_to_keep=1,
        )
        token, at = out.logits[:, -1].argmax(-1), positions[:, -1]
        prefilled = time.perf_counter()
        made = torch.full((len(batch), answer), -1, device=self.device)
        stops = torch.tensor(sorted(self.stop), device=self.device)
        limit = torch.tensor(budgets, device=self.device)
        running = torch.ones(len(batch), dtype=torch.bool, device=self.device)
        for step in range(answer):
            made[running, step] = token[running]
            running &= ~torch.isin(token, stops) & (limit > step + 1)
            if step + 1 == answer or not running.any():
                break
            at = at + 1
            out = self.network(
                input_ids=token[:, None],
                attention_mask=mask[:, : longest + step + 1],
                position_ids=at[:, None],
                past_key_values=cache,
            )
            token = out.logits[:, -1].argmax(-1)
        shares = ((prefilled - began) / len(batch), (time.perf_counter() - prefilled) / len(batch))
        return {index: self._completion(made[row], len(ids), shares) for row, (index, ids) in enumerate(batch)}

    def _completion(self, made: Tensor, prompt_tokens: int, shares: tuple[float, float]) -> Completion:
        tokens = [int(one) for one in made[made >= 0]]
        stopped = bool(tokens) and tokens[-1] in self.stop
        body = tokens[:-1] if stopped else tokens
        return Completion(
            text=self.tokenizer.decode(body, skip_special_tokens=True, clean_up_tokenization_spaces=False),
            tokens=len(body),
            prompt_tokens=prompt_tokens,
            finish="stop" if stopped else "length",
            prefill_s=shares[0],
            decode_s=shares[1],
        )


def _got(module: nn.Module) -> str:
    if isinstance(module, DequantizedLinear) and module.activations is not None:
        return "dequantized matmul, activations emulated"
    return str(module.got)


def _cut(rows: list[tuple[int, list[int]]], prompts: Sequence[Prompt]) -> list[list[tuple[int, list[int]]]]:
    """Batches of neighbours in length, within BATCH_ROWS and BATCH_TOKENS."""
    batches: list[list[tuple[int, list[int]]]] = [[]]
    for row in rows:
        size = (len(row[1]) + prompts[row[0]].max_tokens) * (len(batches[-1]) + 1)
        if batches[-1] and (size > BATCH_TOKENS or len(batches[-1]) == BATCH_ROWS):
            batches.append([])
        batches[-1].append(row)
    return [batch for batch in batches if batch]


def _left_padded(rows: Sequence[list[int]], longest: int, answer: int) -> tuple[Tensor, Tensor]:
    """ids [rows, longest] and mask [rows, longest + answer], 1 where attention may look."""
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.ones(len(rows), longest + answer, dtype=torch.long)
    for index, row in enumerate(rows):
        mask[index, : longest - len(row)] = 0
    return ids, mask


def _stop_ids(network: Any, tokenizer: Any) -> set[int]:
    """Every token that ends an answer: the generation configuration's and the tokenizer's."""
    found = network.generation_config.eos_token_id
    stops = set(found if isinstance(found, list) else [found]) | {tokenizer.eos_token_id}
    stops.discard(None)
    if not stops:
        raise EngineError("the model names no end-of-answer token; set eos_token_id in generation_config.json")
    return {int(one) for one in stops}


def open_engine(model: OpenedModel, artifact: Artifact, **settings: Any) -> TorchEngine:
    """An engine for the baseline or a variant; ``settings``: dtype, kernels ("auto" or "dequantize"), device."""
    return TorchEngine(model, artifact, **settings)


ENGINE = open_engine
