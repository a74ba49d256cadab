"""Greedy decoding of one batch over a static KV cache: the loop, the cache and the masks.

Rows stand right-aligned: the last prompt token of every row is in column ``longest - 1``, so one column is written per
step for all rows. Prompts go through the model in slices of a few rows (a slice's activations stay in the CPU's cache
and are padded to the slice's longest row only). Rows that have ended leave the batch once they are half of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache, StaticLayer

from quantgate.engines._stops import EVERY, StopTexts
from quantgate.errors import EngineError
from quantgate.quantize.kv_cache import Rounding

SLICE_TOKENS = {"cpu": 1024}  # prompt positions that go through the model at once; 512 and 4096 took 4 % longer
SLICE_TOKENS_ELSEWHERE = 8192


@dataclass
class Window:
    """Which rows and columns of the cache the model writes now, and the first column that it sees."""

    rows: slice
    start: int
    end: int
    first: int


class Columns(StaticLayer):
    """Keys and values [rows, heads, columns, width] of one layer, written where the window stands.

    Unlike its parent it returns the columns up to the window's end, not the whole allocation, and keeps its place in
    Python numbers, so a step costs two copies and no index arithmetic.
    """

    def __init__(self, window: Window, rows: int, columns: int, rounding: Rounding | None = None) -> None:
        super().__init__(max_cache_len=columns)
        self.window, self.rows, self.rounding = window, rows, rounding

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        at = self.window
        if self.rounding is not None:
            key_states, value_states = self.rounding(key_states, value_states)
        if self.keys is None or self.values is None:
            # zeros, not empty: what was never written is masked, but 0 * NaN is NaN
            self.keys, self.values = (
                one.new_zeros(self.rows, one.shape[1], self.max_cache_len, one.shape[3])
                for one in (key_states, value_states)
            )
            self.is_initialized = True
        self.keys[at.rows, :, at.start : at.end] = key_states
        self.values[at.rows, :, at.start : at.end] = value_states
        if at.first == at.start:
            return key_states, value_states
        return self.keys[at.rows, :, at.first : at.end], self.values[at.rows, :, at.first : at.end]

    def get_seq_length(self) -> int:
        return self.window.start - self.window.first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.window.end - self.window.first, 0

    def grow(self, columns: int, begin: tuple[Tensor, Tensor] | None = None) -> None:
        """Room for more columns; ``begin`` are keys and values [rows, heads, some columns, width] to start with."""
        self.max_cache_len = columns
        held = begin or (None if self.keys is None or self.values is None else (self.keys, self.values))
        if held is not None:
            self.keys, self.values = (functional.pad(one, (0, 0, 0, columns - one.shape[2])) for one in held)
            self.is_initialized = True

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]


class Masks:
    """What each query may look at, in the form that the model's attention takes. Raises EngineError.

    transformers passes a mask of four dimensions on as it is, so it builds none of its own, at any step.
    """

    def __init__(self, config: Any) -> None:
        count = config.num_hidden_layers
        kinds = getattr(config, "layer_types", None) or (
            ["sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"] * count
        )
        self.kinds = sorted(set(kinds))
        unknown = [kind for kind in self.kinds if kind not in ("full_attention", "sliding_attention")]
        if unknown:
            raise EngineError(f"the model has layers of {unknown[0]}; this engine decodes full and sliding attention")
        self.reach = int(config.sliding_window) if "sliding_attention" in self.kinds else None
        self.boolean = config._attn_implementation == "sdpa"

    def __call__(self, allowed: Tensor, queries: Tensor, keys: Tensor, dtype: torch.dtype) -> Any:
        """``allowed`` [rows, queries, keys] by padding and order, ``queries`` and ``keys`` are their columns."""
        if self.reach is None or len(keys) <= self.reach:
            return self._form(allowed, dtype)
        near = allowed & (queries[:, None] - keys < self.reach)
        if len(self.kinds) == 1:
            return self._form(near, dtype)
        return {"full_attention": self._form(allowed, dtype), "sliding_attention": self._form(near, dtype)}

    def _form(self, allowed: Tensor, dtype: torch.dtype) -> Tensor:
        allowed = allowed[:, None]
        if self.boolean:
            return allowed
        return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
            ~allowed, torch.finfo(dtype).min
        )


@dataclass
class Rows:
    """What is known of the rows that are still in the batch; every tensor has one entry per row."""

    place: Tensor  # the row's number when the batch began
    token: Tensor  # its newest token
    length: Tensor  # of its prompt
    budget: Tensor
    running: Tensor  # False once it ended
    ends: Tensor  # whether a stop id ends it
    seen: Tensor  # [rows, columns]: True where a token of it stands, or will

    def keep(self, rows: Tensor) -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name)[rows])


class Decoder:
    """A transformers causal model, the ids that end its answers, and what its cache rounds each layer's entries to."""

    def __init__(
        self, network: Any, stops: Sequence[int], device: torch.device, roundings: Sequence[Rounding] = ()
    ) -> None:
        self.network, self.device, self.roundings = network, device, list(roundings)
        self.masks = Masks(network.config.get_text_config(decoder=True))
        self.layers = int(network.config.num_hidden_layers)
        self.stops = torch.tensor(stops, device=device)
        self.dtype: torch.dtype = network.dtype
        self.slice_tokens = SLICE_TOKENS.get(device.type, SLICE_TOKENS_ELSEWHERE)

    @torch.inference_mode()
    def answer(
        self,
        prompts: Sequence[list[int]],
        budgets: Sequence[int],
        stops: Sequence[StopTexts | None] = (),
        told: Callable[[list[int]], None] | None = None,
        full: Sequence[bool] = (),
    ) -> tuple[list[list[int]], float, float]:
        """Token ids of every row, its stop id included, at most ``budgets`` of them; prefill and decode seconds.

        ``prompts`` are sorted by length, so that the rows of a slice are alike. A row that wrote one of its ``stops``
        ends within EVERY steps. ``told`` hears, as soon as a step is computed, which rows got a token. No stop id ends
        the rows that are ``full``.
        """
        texts = {row: stop for row, stop in enumerate(stops) if stop}
        began = time.perf_counter()
        steps, longest = max(1, *budgets), len(prompts[-1])
        window = Window(slice(None), 0, 0, 0)
        cache, layers = self.room(window, len(prompts), longest + steps)
        ended = [not one for one in full] or [True] * len(prompts)
        rows = self._read(prompts, budgets, ended, cache, window, steps)
        prefilled = time.perf_counter()
        made = torch.zeros(len(prompts), steps, dtype=torch.long, device=self.device)
        columns = torch.arange(longest + steps, device=self.device)
        window.rows, window.first = slice(None), 0
        for step in range(steps):
            made[rows.place, step] = rows.token
            if told is not None:
                told(rows.place[rows.running].tolist())
            rows.running &= ~(torch.isin(rows.token, self.stops) & rows.ends) & (rows.budget > step + 1)
            if texts and step % EVERY == EVERY - 1:
                _end_at_texts(rows, made[:, : step + 1], texts)
            left = int(rows.running.sum())
            if not left:
                break
            if 2 * left <= len(rows.running):
                kept = rows.running.nonzero()[:, 0]
                rows.keep(kept)
                for layer in layers:
                    layer.keep(kept)
            window.start, window.end = longest + step, longest + step + 1
            mask = self.masks(
                rows.seen[:, None, : window.end], columns[window.start :][:1], columns[: window.end], self.dtype
            )
            rows.token = self._next(rows.token[:, None], (rows.length + step)[:, None], mask, cache)
        found = [row[:budget] for row, budget in zip(made.tolist(), budgets, strict=True)]
        ends = set(self.stops.tolist())
        cut = [_until_stop(row, ends) if stop else row for row, stop in zip(found, ended, strict=True)]
        return cut, prefilled - began, time.perf_counter() - prefilled

    def room(self, window: Window, rows: int, columns: int) -> tuple[Cache, list[Columns]]:
        """A cache of so many rows and columns that is written where ``window`` stands."""
        roundings: Sequence[Rounding | None] = self.roundings or [None] * self.layers
        layers = [Columns(window, rows, columns, rounding) for rounding in roundings]
        return Cache(layers=list(layers)), layers

    def whole(self, ids: Tensor) -> Tensor:
        """Logits of ``ids`` [batch, length] in one go, keys and values rounded as the cache rounds them."""
        if not self.roundings:
            return self.network(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]
        rows, length = ids.shape
        cache, _ = self.room(Window(slice(None), 0, length, 0), rows, length)
        return self.network(input_ids=ids, past_key_values=cache, use_cache=True).logits  # type: ignore[no-any-return]

    def _read(
        self,
        prompts: Sequence[list[int]],
        budgets: Sequence[int],
        ends: Sequence[bool],
        cache: Cache,
        window: Window,
        steps: int,
    ) -> Rows:
        """Fill the cache with the prompts, slice by slice, and find the first token of every answer."""
        longest, found, start = len(prompts[-1]), list[Tensor](), 0
        while start < len(prompts):
            end = start + 1  # rows are sorted, so the next one is the slice's longest
            while end < len(prompts) and (end + 1 - start) * len(prompts[end]) <= self.slice_tokens:
                end += 1
            width = len(prompts[end - 1])
            window.rows, window.end = slice(start, end), longest
            window.start = window.first = longest - width
            found.append(self._read_slice(prompts[start:end], width, cache))
            start = end
        length = torch.tensor([len(row) for row in prompts], device=self.device)
        return Rows(
            place=torch.arange(len(prompts), device=self.device),
            token=torch.cat(found),
            length=length,
            budget=torch.tensor(budgets, device=self.device),
            running=torch.ones(len(prompts), dtype=torch.bool, device=self.device),
            ends=torch.tensor(ends, device=self.device),
            seen=torch.arange(longest + steps, device=self.device) >= longest - length[:, None],
        )

    def _read_slice(self, prompts: Sequence[list[int]], width: int, cache: Cache) -> Tensor:
        pads = torch.tensor([[width - len(row)] for row in prompts], device=self.device)
        ids = torch.tensor([[0] * (width - len(row)) + row for row in prompts], device=self.device)
        columns = torch.arange(width, device=self.device)
        before = columns <= columns[:, None]
        # padding looks at itself: a query that sees nothing is NaN, and spreads
        allowed = (before & (columns >= pads)[:, None]) | (columns == columns[:, None])
        mask = self.masks(allowed, columns, columns, self.dtype)
        return self._next(ids, (columns - pads).clamp_min(0), mask, cache)

    def _next(self, ids: Tensor, positions: Tensor, mask: Any, cache: Cache) -> Tensor:
        """The likeliest next token of every row."""
        return self.scores(ids, positions, mask, cache).argmax(-1)

    def scores(self, ids: Tensor, positions: Tensor, mask: Any, cache: Cache) -> Tensor:
        """Float32 logits [rows, vocabulary] of what follows ``ids`` [rows, length]."""
        logits: Tensor = self.network(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1].float()  # argmax over bfloat16 takes four times as long


def _end_at_texts(rows: Rows, made: Tensor, texts: Mapping[int, StopTexts]) -> None:
    """Rows whose last EVERY tokens completed one of their stop texts run no longer; ``made`` [all rows, steps]."""
    for at, (place, running) in enumerate(zip(rows.place.tolist(), rows.running.tolist(), strict=True)):
        if running and place in texts and texts[place].met(made[place].tolist(), EVERY):
            rows.running[at] = False


def _until_stop(tokens: list[int], stops: set[int]) -> list[int]:
    """``tokens`` up to and including the first stop id."""
    return next((tokens[: at + 1] for at, token in enumerate(tokens) if token in stops), tokens)
