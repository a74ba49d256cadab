"""The in-process engine: baseline and variants side by side, batched greedy generation over a static KV cache.

Prompts are sorted by length and cut into batches; a batch is decoded by ``_greedy``. Low-bit layers run on torch's own
low-bit kernels where there is one (see ``_linears``), and what ran is in ``kernels``, one row per shape and path.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from quantgate.engines import Completion, Failure, Identity, KernelPath, Prompt
from quantgate.engines._choices import Weigher
from quantgate.engines._compiled import BACKEND, compile_blocks
from quantgate.engines._greedy import Decoder
from quantgate.engines._kept import Keep
from quantgate.engines._linears import Rounded, build
from quantgate.engines._products import ROWS, widen
from quantgate.engines._prompts import is_chat, leading, read, text_of
from quantgate.engines._seats import TorchSeats
from quantgate.engines._stops import StopTexts, stops_of
from quantgate.engines._tables import build_table, coded_paths
from quantgate.errors import EngineError, UnknownName
from quantgate.models import OpenedModel
from quantgate.quantize import Artifact
from quantgate.quantize.load import load_with_paths

BATCH_TOKENS = 16384  # positions of prompt and answer that one batch may hold
BATCH_ROWS = 128
DTYPES = ("bfloat16", "float16", "float32")
KERNELS = ("auto", "dequantize")
Row = tuple[int, list[int]]  # the prompt's place in the question, its token ids


class TorchEngine:
    """See ``engines.Engine``. Raises EngineError when the model cannot be run, UnknownName for a wrong setting."""

    def __init__(
        self,
        model: OpenedModel,
        artifact: Artifact,
        *,
        dtype: str = "bfloat16",
        kernels: str = "auto",
        device: str = "auto",
        rows: int = BATCH_ROWS,
        compile: bool = False,
    ) -> None:
        """``kernels`` "dequantize" decodes every weight on load; ``device`` "auto" takes a GPU where torch sees one.

        At most ``rows`` are decoded together; ``watch``, once it is set, hears at every step which of the prompts
        just got a token. ``compile`` hands MLPs and norms to torch.compile (see ``_compiled``).
        """
        if rows < 1:
            raise EngineError(f"rows={rows}: a batch has at least 1 row")
        if dtype not in DTYPES:
            raise UnknownName("dtype", dtype, DTYPES)
        if kernels not in KERNELS:
            raise UnknownName("kernels", kernels, KERNELS)
        self.device, self.dtype = _device(device), getattr(torch, dtype)
        self.source, self.tokenizer = model, model.tokenizer
        self.network, paths = load_with_paths(artifact, self.dtype)
        self.kernels = () if artifact.is_baseline else self._swap(artifact, kernels, paths)
        self.network.to(self.device)
        wide = widen(self.network, self.dtype, self.device)
        self.rows = rows
        self.watch: Callable[[Sequence[int]], None] | None = None
        compiled = compile_blocks(self.network) if compile else 0
        self.stops = stop_ids(model)
        self.decoder = Decoder(self.network, sorted(self.stops), self.device, artifact.kv_cache())
        self.identity = Identity(
            engine="torch",
            weights=model.weights_digest if artifact.is_baseline else artifact.manifest.digest,
            tokenizer=model.tokenizer_digest,
            template=model.template_digest,
            runtime=(
                f"dtype={dtype}",
                f"kernels={kernels}",
                f"device={self.device.type}",
                f"cpu={torch.backends.cpu.get_cpu_capability()}",
                f"threads={torch.get_num_threads()}",  # sums are split among threads
                f"torch={torch.__version__}",
                f"transformers={transformers.__version__}",
                f"batch={rows}x{BATCH_TOKENS}/{self.decoder.slice_tokens}",
                *([f"products=float32 from {ROWS} rows"] if wide else []),
                *([f"compile={BACKEND}, {compiled} modules"] if compile else []),
            ),
            config=model.config_digest,
            bos=leading(self.encode, model),
            stops=tuple(sorted(self.stops)),
        )
        model.unchanged()  # what the digests say is what was loaded
        artifact.unchanged()

    def _swap(self, artifact: Artifact, kernels: str, paths: dict[str, str]) -> tuple[KernelPath, ...]:
        """Put a module that computes from codes in the place of every quantized linear; tell what runs."""
        counts: Counter[tuple[tuple[int, int], str, str, str, str]] = Counter()
        rounded = Rounded()
        for name, path in coded_paths(self.network, artifact.quantized, paths):
            stored, present = artifact.linear(name), self.network.get_submodule(path)
            if isinstance(present, nn.Embedding):
                module, asked, got, because = build_table(present, stored, self.dtype, kernels)
            else:
                module, asked, got, because = build(stored, self.dtype, self.device, kernels, rounded)
            parent, _, leaf = path.rpartition(".")
            setattr(self.network.get_submodule(parent), leaf, module)
            out, columns = stored.codes.shape
            counts[(out, columns), asked, got, because, artifact.scheme_of(name).label] += 1
        return tuple(
            KernelPath(scheme=label, shape=shape, asked=asked, got=got, because=because, linears=count)
            for (shape, asked, got, because, label), count in sorted(counts.items())
        )

    def encode(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """Token ids of a conversation: closed if it ends with an assistant turn, else ready for the answer."""
        messages = [{"role": role, "content": content} for role, content in turns]
        if turns[-1][0] != "assistant":
            return self.source.encode(messages)
        closed = self.tokenizer.eos_token_id
        end = min(self.stops) if closed is None else int(closed)
        return [*self.source.encode(messages[:-1]), *self._plain(turns[-1][1]), end]

    def _plain(self, text: str) -> list[int]:
        return [int(one) for one in self.tokenizer.encode(text, add_special_tokens=False)]

    def _asked(self, prompt: Prompt) -> list[int]:
        return self.encode(prompt.turns) if is_chat(prompt) else self.tokens(*text_of(self.source, prompt))

    def tokens(self, text: str, special: bool) -> list[int]:
        """Ids of a text, with the special tokens that the tokenizer gives to one where they are asked for."""
        return [int(one) for one in self.tokenizer(text, add_special_tokens=special)["input_ids"]]

    def spell(self, ids: Sequence[int]) -> list[str]:
        return [self.tokenizer.decode([one], clean_up_tokenization_spaces=False) for one in ids]

    @torch.inference_mode()
    def logits(self, ids: Tensor, at: Tensor | None = None) -> Tensor:
        """Float32 logits [batch, length, vocabulary]; rows are padded on the right, which causal attention ignores.

        With ``at``, the output layer is given the hidden states of those positions alone.
        """
        if at is None:
            return self._logits(ids)
        chosen = at.to(self.device)
        head = self.network.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _head, args: (args[0][chosen].unsqueeze(0), *args[1:]))
        try:
            return self._logits(ids)[0]
        finally:
            hook.remove()

    def _logits(self, ids: Tensor) -> Tensor:
        return self.decoder.whole(ids.to(self.device)).float().cpu()

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion | Failure]:
        """Greedy answers, in the order asked. A prompt that does not fit the context is a Failure."""
        ids, refused = read(self._asked, prompts, self.source.context)
        weigher = Weigher.of(self.source, self.stops, self.tokens, self.logits)
        answers: dict[int, Completion | Failure] = {**refused, **weigher.answers(prompts)}
        rows: list[Row] = sorted(ids.items(), key=lambda row: (len(row[1]), row[0]))
        for batch in _cut(rows, prompts, self.rows):
            answers |= self._batch(batch, prompts)
        return [answers[index] for index in range(len(prompts))]

    def _batch(self, batch: Sequence[Row], prompts: Sequence[Prompt]) -> dict[int, Completion]:
        budgets = [prompts[index].max_tokens for index, _ in batch]
        stops = [stops_of(prompts[index].stop, self.text) for index, _ in batch]
        full = [prompts[index].full for index, _ in batch]
        made, prefill_s, decode_s = self.decoder.answer(
            [ids for _, ids in batch], budgets, stops, self._told(batch), full
        )
        shares = prefill_s / len(batch), decode_s / len(batch)
        return {
            index: self._completion(tokens, stop, len(ids), *shares, full=prompts[index].full)
            for (index, ids), tokens, stop in zip(batch, made, stops, strict=True)
        }

    def seats(self, keep: Keep, at_once: int) -> TorchSeats:
        """Where conversations are written token by token, any number at once."""
        return TorchSeats(self.decoder, keep)

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens stand for together; special ones stand for nothing."""
        text = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def _told(self, batch: Sequence[Row]) -> Callable[[list[int]], None] | None:
        """Steps of a batch as places in the question, for whoever watches."""
        watch = self.watch
        return None if watch is None else lambda rows: watch([batch[row][0] for row in rows])

    def _completion(
        self,
        made: list[int],
        stop: StopTexts | None,
        prompt_tokens: int,
        prefill_s: float,
        decode_s: float,
        *,
        full: bool,
    ) -> Completion:
        stopped = bool(made) and made[-1] in self.stops and not full
        body = made[:-1] if stopped else made
        cut = stop.cut(body) if stop else None
        text, tokens = cut or (self.text(body), len(body))
        return Completion(
            text=text,
            tokens=tokens,
            prompt_tokens=prompt_tokens,
            finish="stop" if stopped or cut else "length",
            prefill_s=prefill_s,
            decode_s=decode_s,
        )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as problem:  # torch asserts that it was built with CUDA
        first = str(problem).strip().splitlines()[0]
        raise EngineError(f"device '{name}' cannot be used ({first[:120]}); choose cpu or auto") from None
    return device


def _cut(rows: Sequence[Row], prompts: Sequence[Prompt], most: int) -> list[list[Row]]:
    """Batches of neighbours in length, within ``most`` rows and BATCH_TOKENS of cache."""
    batches: list[list[Row]] = [[]]
    steps = 0  # the longest answer of the batch; every row holds a place for it
    for row in rows:
        steps = max(steps, prompts[row[0]].max_tokens)
        full = len(batches[-1]) == most or (len(row[1]) + steps) * (len(batches[-1]) + 1) > BATCH_TOKENS
        if batches[-1] and full:
            batches.append([])
            steps = prompts[row[0]].max_tokens
        batches[-1].append(row)
    return [batch for batch in batches if batch]


def stop_ids(model: OpenedModel) -> set[int]:
    """Every token that ends an answer: the model's, its generation settings and the tokenizer's. Raises EngineError."""
    file = model.path / "generation_config.json"
    try:
        settings = json.loads(file.read_bytes()) if file.is_file() else {}
    except (json.JSONDecodeError, UnicodeDecodeError) as broken:
        raise EngineError(f"{file}: not valid JSON ({broken}); download it again, or delete it") from None
    stops: set[int] = set()
    for found in (model.config.eos_token_id, settings.get("eos_token_id"), model.tokenizer.eos_token_id):
        stops |= {int(one) for one in (found if isinstance(found, list) else [found]) if one is not None}
    if not stops:
        raise EngineError(f"{model.path}: no token ends an answer; set eos_token_id in generation_config.json")
    return stops


def open_engine(model: OpenedModel, artifact: Artifact, **settings: Any) -> TorchEngine:
    """An engine for the baseline or a variant; ``settings``: dtype, kernels ("auto" or "dequantize"), device."""
    return TorchEngine(model, artifact, **settings)


ENGINE = open_engine
