"""llama.cpp as an engine: runs the GGUF file itself, with the kernels that it would be served with on a CPU.

Text is tokenized by the file's own vocabulary and rendered by the baseline's chat template, which the file carries too.
Prompts are sorted by length; a batch of them is read and decoded together, a sequence each. What llama.cpp rounds, it
rounds here: activations to 8 bits in front of every matrix of blocks, keys and values to the cache's type.

    engine = open_engine(model, open_gguf_artifact("model-Q4_K_M.gguf", model), kv_cache="q8_0")
    engine.generate(prompts), engine.speed()

With ``draft`` a smaller file of the same tokenizer says some tokens ahead, and one pass judges them: ``_llama_drafts``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quantgate.engines import Completion, Failure, Identity, Kept, KernelPath, Product, Prompt
from quantgate.engines._choices import Weigher
from quantgate.engines._kept import Keep
from quantgate.engines._llama import KV_TYPES, LlamaContext, LlamaModel, Sampler, system
from quantgate.engines._llama_answers import Answerer, Made, Row, Speed, grammar_of
from quantgate.engines._llama_choose import Chooser, Held, Likeliest, Rejection
from quantgate.engines._llama_drafts import Draft, Speculator, Tally
from quantgate.engines._llama_seats import LlamaSeats
from quantgate.engines._llama_trace import Tracer
from quantgate.engines._prompts import is_chat, leading, read, text_of
from quantgate.engines._stops import stops_of
from quantgate.engines.torch import stop_ids
from quantgate.errors import EngineError, UnknownName
from quantgate.models import OpenedModel
from quantgate.quantize import Artifact
from quantgate.quantize.gguf.activations import PARTNER
from quantgate.quantize.gguf.artifact import GgufArtifact
from quantgate.quantize.machine import refuse_beyond
from quantgate.records import digest_of

BATCH_ROWS = 16
BATCH_TOKENS = 16384  # positions of prompt and answer that one batch may hold
STEP = 256  # llama.cpp gives a sequence room in steps of so many tokens


class LlamaCppEngine:
    """See ``engines.Engine``. Raises EngineError when llama.cpp cannot run it, UnknownName for a wrong setting."""

    def __init__(
        self,
        model: OpenedModel,
        artifact: Artifact,
        *,
        threads: int = 0,
        rows: int = BATCH_ROWS,
        kv_cache: str = "f16",
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        grammar: str = "",
        json_schema: dict[str, Any] | None = None,
        guard: bool = True,
        draft: GgufArtifact | Path | str | None = None,
        draft_tokens: int = 8,
    ) -> None:
        """``threads`` 0 takes as many as torch does; ``rows`` are decoded together; ``kv_cache`` is the type of cached
        keys and values. ``temperature`` 0 takes the likeliest token; ``grammar`` (GBNF) or ``json_schema`` holds every
        answer to a form, ``guard`` each to its prompt's own schema. ``draft`` is a GGUF file of the same tokenizer that
        proposes ``draft_tokens`` at a time."""
        if not isinstance(artifact, GgufArtifact):
            raise EngineError(f"{artifact.path}: llama.cpp runs GGUF files; name one, or choose the torch engine")
        if kv_cache not in KV_TYPES:
            raise UnknownName("KV cache", kv_cache, KV_TYPES)
        config = model.config
        width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        if width % KV_TYPES[kv_cache][1]:
            raise EngineError(
                f"{artifact.path}: heads of {width} do not divide into {kv_cache}'s blocks of {KV_TYPES[kv_cache][1]}; "
                "choose f16 for the KV cache"
            )
        self.source, self.artifact, self.rows, self.kv_cache = model, artifact, rows, kv_cache
        self.threads = threads or torch.get_num_threads()
        file = artifact.tensors.file.path
        refuse_beyond(
            file.stat().st_size, f"{file}: llama.cpp", "free some, or choose a smaller type: it would read from disk"
        )
        self.loaded = LlamaModel(file)
        self.prefix = bool(artifact.tensors.file.metadata.get("tokenizer.ggml.add_space_prefix", False))
        self.stops = stop_ids(model) | self.loaded.ends()
        self.sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        self.grammar, self.guard = grammar_of(grammar, json_schema), guard
        self.plain = not self.grammar and temperature == 0
        if not self.plain:
            self._sampler([], self.grammar)  # a grammar that cannot be read is told now
        self.draft = None if draft is None else Draft(draft, artifact, draft_tokens, self.threads)
        self.watch: Callable[[Sequence[int]], None] | None = None  # hears which prompts just got a token; not of drafts
        self.context: LlamaContext | None = None
        self.tracer: Tracer | None = None
        self._spent = Speed()
        self.kernels = self._paths()
        self.identity = self._identity()
        model.unchanged()  # what the digests say is what was loaded
        artifact.unchanged()

    def _identity(self) -> Identity:
        features = [f"{key}={value}" for key, value in sorted(system().items())]
        how = f"{self.sampling}{' grammar ' + digest_of(self.grammar)[7:23] if self.grammar else ''}"
        return Identity(
            engine="llamacpp",
            weights=self.artifact.manifest.digest,
            tokenizer=self.source.tokenizer_digest,
            template=self.source.template_digest,
            runtime=(
                f"kv_cache={self.kv_cache}",
                f"threads={self.threads}",
                f"batch={self.rows}x{BATCH_TOKENS}",
                f"stops={sorted(self.stops)}",
                *(["guard=schema"] if self.guard else []),
                *(self.draft.runtime if self.draft else ()),
                *features,
            ),
            sampling="greedy" if self.plain else how,
            config=self.source.config_digest,
            bos=leading(self.encode, self.source),
            stops=tuple(sorted(stop_ids(self.source))),
        )

    def _paths(self) -> tuple[KernelPath, ...]:
        """One row per type and shape: what llama.cpp multiplies a layer of this type with."""
        counts: Counter[tuple[str, tuple[int, int]]] = Counter()
        for name in self.artifact.quantized:
            out, columns = self.artifact.files.entry(f"{name}.weight").shape
            counts[self.artifact.stored(name).type.name, (out, columns)] += 1
        packed = ", some repacked on load" if self.loaded.repacked else ""
        return tuple(
            KernelPath(scheme=kind, shape=shape, asked=f"llama.cpp {kind}",
                       got=f"llama.cpp {kind} x {PARTNER[kind]}{packed}", linears=count)
            for (kind, shape), count in sorted(counts.items())
        )  # fmt: skip

    @property
    def template(self) -> str:
        """The chat template that llama.cpp has loaded."""
        return self.loaded.template

    def tokenize(self, text: str) -> list[int]:
        """llama.cpp's token ids of plain text, nothing added."""
        return self.loaded.tokenize(text, begin=False)

    def products(self, ids: Sequence[int]) -> list[Product]:
        """Inputs and outputs of every matrix for one row of ids, as the kernels made them."""
        return self._traced(ids).found

    def kept(self, ids: Sequence[int]) -> list[Kept]:
        """What the cache made of keys and values, layer by layer, for one row of ids."""
        return self._traced(ids).kept

    def _traced(self, ids: Sequence[int]) -> Tracer:
        if self.tracer is None or self.tracer.context.model is not self.loaded or self.tracer.context.length < len(ids):
            self.tracer = Tracer(self.loaded, -(-len(ids) // STEP) * STEP, self.kv_cache, self.threads)
        self.tracer.watch(ids)
        return self.tracer

    def speed(self) -> Speed:
        return self._spent

    def system(self) -> dict[str, str]:
        """The machine's instruction sets that llama.cpp uses, and its version."""
        return system()

    def encode(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """Token ids of a conversation: closed if it ends with an assistant turn, else ready for the answer."""
        messages = [{"role": role, "content": content} for role, content in turns]
        if turns[-1][0] != "assistant":
            return self._tokens(messages)
        closed = self.source.tokenizer.eos_token_id
        end = min(self.stops) if closed is None else int(closed)
        return [*self._tokens(messages[:-1]), *self.loaded.tokenize(turns[-1][1], begin=False), end]

    def _tokens(self, messages: list[dict[str, str]]) -> list[int]:
        text = self.source.render(messages)
        return self.loaded.tokenize(text, begin=not self.source.tokenizer.chat_template)

    def _asked(self, prompt: Prompt) -> list[int]:
        return self.encode(prompt.turns) if is_chat(prompt) else self.tokens(*text_of(self.source, prompt))

    def tokens(self, text: str, special: bool) -> list[int]:
        """Ids of a text, with the special tokens that the file gives to one where they are asked for."""
        return self.loaded.tokenize(text, begin=special)

    def logits(self, ids: Tensor, at: Tensor | None = None) -> Tensor:
        """Float32 logits [batch, length, vocabulary]; with ``at`` only where it is True: [positions, vocabulary]."""
        batch, length = ids.shape
        chosen = torch.ones_like(ids, dtype=torch.bool) if at is None else at.cpu()
        context = self._room(1, length)
        parts = []
        for row, wanted in zip(ids.tolist(), chosen.tolist(), strict=True):
            context.clear()
            last = max((place for place, one in enumerate(wanted) if one), default=-1) + 1
            parts.append(context.decode([(row[place], place, 0, wanted[place]) for place in range(last)]))
        found = torch.from_numpy(np.concatenate(parts) if parts else np.zeros((0, self.loaded.size), dtype=np.float32))
        return found.reshape(batch, length, -1) if at is None else found

    def _room(self, rows: int, length: int) -> LlamaContext:
        """A context for so many rows of so many tokens; the last one serves again where it is large enough."""
        held = self.context
        if held is None or held.sequences != rows or held.length < length:
            self.context = None  # released before the next one is made
            del held
            room = -(-length // STEP) * STEP
            self.context = LlamaContext(
                self.loaded, rows, room, self.kv_cache, self.kv_cache, self.threads,
                step=self.draft.tokens + 1 if self.draft else 1,
            )  # fmt: skip
        assert self.context is not None
        return self.context

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion | Failure]:
        """Answers in the order asked. A prompt that does not fit the context is a Failure."""
        ids, refused = read(self._asked, prompts, self.source.context)
        weigher = Weigher.of(self.source, self.stops, self.tokens, self.logits)
        answers: dict[int, Completion | Failure] = {**refused, **weigher.answers(prompts)}
        rows = []
        for index, prompt in ids.items():
            try:
                rows.append(self._row(index, prompt, prompts[index]))
            except EngineError as refused_schema:
                answers[index] = Failure(reason=str(refused_schema))
        rows.sort(key=lambda row: (len(row.prompt), row.prompt, row.budget))
        held = [row for row in rows if row.grammar]  # a batch is read in one way: with samplers, or without
        for batch in [*_cut([row for row in rows if not row.grammar], self.rows), *_cut(held, self.rows)]:
            answers |= self._batch(batch)
        return [answers[index] for index in range(len(prompts))]

    def _row(self, index: int, ids: list[int], prompt: Prompt) -> Row:
        """The engine's own grammar holds every answer; under ``guard`` a prompt's schema does where there is none."""
        held = self.guard and prompt.answer_schema and not self.grammar
        grammar = grammar_of("", prompt.answer_schema) if held else self.grammar
        return Row(index, ids, prompt.max_tokens, stops_of(prompt.stop, self.text), grammar, prompt.full)

    def _batch(self, batch: Sequence[Row]) -> dict[int, Completion]:
        longest = max(len(row.prompt) + row.budget for row in batch)
        context = self._room(self.rows, longest)
        done, tally = self._answer(context, batch)
        spent, written = self._spent, sum(len(made) - 1 for made in done.made)
        self._spent = Speed(
            prefill_tokens=spent.prefill_tokens + sum(len(row.prompt) for row in batch),
            prefill_s=spent.prefill_s + done.prefill_s,
            decode_tokens=spent.decode_tokens + written,
            decode_s=spent.decode_s + done.decode_s,
            passes=spent.passes + (tally.passes if tally else written),
            drafted=spent.drafted + (tally.drafted if tally else 0),
            accepted=spent.accepted + (tally.accepted if tally else 0),
            close=spent.close + (tally.close if tally else 0),
        )
        shares = done.prefill_s / len(batch), done.decode_s / len(batch)
        by_row = tally.by_row if tally else ((0, 0),) * len(batch)
        return {
            row.index: self._completion(made, row, shares, drafts)
            for row, made, drafts in zip(batch, done.made, by_row, strict=True)
        }

    def _answer(self, context: LlamaContext, batch: Sequence[Row]) -> tuple[Made, Tally | None]:
        if self.draft is None:
            greedy = self.plain and not batch[0].grammar
            samplers = None if greedy else [self._sampler(row.prompt, row.grammar) for row in batch]
            return Answerer(context, self.stops).answer(batch, samplers, self.watch), None
        choosers = [self._chooser(row, context) for row in batch]
        beside = self.draft.room(self.rows, context.length)
        return Speculator(context, beside, self.draft.tokens, self.stops).answer(batch, choosers)

    def _sampler(self, prompt: list[int], grammar: str) -> Sampler:
        return Sampler(self.loaded, grammar=grammar, **self._chance(prompt))

    def _chooser(self, row: Row, context: LlamaContext) -> Chooser:
        """The rule by which a prompt's drafts are judged: a grammar is held by llama.cpp's own sampler."""
        if row.grammar:
            return Held(context, self._sampler(row.prompt, row.grammar))
        return Likeliest() if self.plain else Rejection(**self._chance(row.prompt))

    def _chance(self, prompt: list[int]) -> dict[str, Any]:
        """How one prompt is sampled; its chance depends on the seed and the prompt, not on its place in the batch."""
        return {**self.sampling, "seed": int(digest_of([self.sampling["seed"], prompt])[7:15], 16)}

    def seats(self, keep: Keep, at_once: int) -> LlamaSeats:
        """Where conversations are written token by token; how each token is taken is asked with each of them."""
        if not self.plain:
            raise EngineError(
                f"{self.artifact.path}: answers token by token are sampled as each request asks; leave 'temperature' "
                "and 'grammar' out of the engine's settings"
            )
        length = -(-self.source.context // STEP) * STEP
        context = LlamaContext(self.loaded, at_once, length, self.kv_cache, self.kv_cache, self.threads)
        return LlamaSeats(context, keep)

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens stand for together; control tokens stand for nothing."""
        text = b"".join(self.loaded.piece(token) for token in tokens).decode(errors="replace")
        return text.removeprefix(" ") if self.prefix else text

    def _completion(
        self, made: list[int], row: Row, seconds: tuple[float, float], drafts: tuple[int, int]
    ) -> Completion:
        stopped = bool(made) and made[-1] in self.stops and not row.full
        body = made[:-1] if stopped else made
        cut = row.stop.cut(body) if row.stop else None
        text, tokens = cut or (self.text(body), len(body))
        return Completion(
            text=text,
            tokens=tokens,
            prompt_tokens=len(row.prompt),
            finish="stop" if stopped or cut else "length",
            prefill_s=seconds[0],
            decode_s=seconds[1],
            drafted=drafts[0],
            accepted=drafts[1],
        )


def _cut(rows: Sequence[Row], most: int) -> list[list[Row]]:
    """Batches of neighbours in length, within ``most`` rows and BATCH_TOKENS of cache."""
    batches: list[list[Row]] = [[]]
    longest = 0
    for row in rows:
        longest = max(longest, len(row.prompt) + row.budget)
        if batches[-1] and (len(batches[-1]) == most or longest * (len(batches[-1]) + 1) > BATCH_TOKENS):
            batches.append([])
            longest = len(row.prompt) + row.budget
        batches[-1].append(row)
    return [batch for batch in batches if batch]


def open_engine(model: OpenedModel, artifact: Artifact, **settings: Any) -> LlamaCppEngine:
    """An engine for a GGUF file; ``settings`` are those of ``LlamaCppEngine``."""
    return LlamaCppEngine(model, artifact, **settings)


ENGINE = open_engine
