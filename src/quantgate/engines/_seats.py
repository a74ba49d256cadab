"""Seats: one conversation each, with a cache of its own, read slice by slice and written token by token.

A seat that begins as an earlier conversation did takes what was read then (see ``_kept``) and reads only the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from quantgate.engines._greedy import Decoder, Window
from quantgate.engines._kept import Keep, Kept

States = list[tuple[Tensor, Tensor]]  # keys and values [1, heads, tokens, width] of every layer
GROWTH = 256  # columns that a cache grows by at least


class Seat(Protocol):
    """One conversation. Steps of several seats may take turns; each is used by one thread at a time."""

    @property
    def reused(self) -> int:
        """Tokens of the prompt that an earlier conversation had read."""
        ...

    def read(self) -> Tensor | None:
        """Read the next slice of the prompt; float32 logits [vocabulary] behind its end, None while more is left."""
        ...

    def feed(self, token: int) -> Tensor:
        """Go on by one token; float32 logits [vocabulary] behind it."""
        ...

    def leave(self) -> None:
        """The conversation is over; what was read of it may serve the next."""
        ...


class Seats(Protocol):
    def sit(self, ids: Sequence[int], most: int) -> Seat:
        """A seat for a prompt of token ids that will not grow beyond ``most`` tokens."""
        ...


class TorchSeats:
    """Seats of the torch engine: the network, the masks and the cache are those of its batches."""

    def __init__(self, decoder: Decoder, keep: Keep) -> None:
        self.decoder = decoder
        self.kept: Kept[States] = Kept(keep)

    @torch.inference_mode()
    def sit(self, ids: Sequence[int], most: int) -> TorchSeat:
        found = self.kept.find(ids)
        return TorchSeat(self, list(ids), most, found)


class TorchSeat:
    """See ``Seat``."""

    def __init__(self, seats: TorchSeats, ids: list[int], most: int, found: tuple[int, States] | None) -> None:
        self.seats, self.decoder, self.ids, self.most = seats, seats.decoder, ids, most
        self.window = Window(slice(None), 0, 0, 0)
        self.room = min(most, len(ids) + GROWTH)
        self.cache, self.layers = self.decoder.room(self.window, 1, self.room)
        self.reused = self.done = 0  # tokens whose keys and values stand in the cache
        if found is not None:
            self.reused = self.done = found[0]
            for layer, (keys, values) in zip(self.layers, found[1], strict=True):
                layer.grow(self.room, (keys[:, :, : self.done], values[:, :, : self.done]))

    def read(self) -> Tensor | None:
        end = min(len(self.ids), self.done + self.decoder.slice_tokens)
        logits = self._go(end)
        return logits if end == len(self.ids) else None

    def feed(self, token: int) -> Tensor:
        self.ids.append(token)
        return self._go(len(self.ids))

    @torch.inference_mode()
    def _go(self, end: int) -> Tensor:
        """Tokens up to ``end`` go through the network."""
        start, device = self.done, self.decoder.device
        if end > self.room:
            self.room = min(self.most, max(end, self.room + max(GROWTH, self.room // 2)))
            for layer in self.layers:
                layer.grow(self.room)
        self.window.start, self.window.end = start, end
        columns = torch.arange(end, device=device)
        allowed = (columns <= columns[start:, None])[None]
        mask = self.decoder.masks(allowed, columns[start:], columns, self.decoder.dtype)
        ids = torch.tensor([self.ids[start:end]], device=device)
        logits = self.decoder.scores(ids, columns[None, start:], mask, self.cache)[0]
        self.done = end
        return logits

    @torch.inference_mode()
    def leave(self) -> None:
        kept, done = self.seats.kept, self.done
        pairs = [(one.keys, one.values) for one in self.layers if one.keys is not None and one.values is not None]
        size = sum(one[:, :, :done].numel() * one.element_size() for pair in pairs for one in pair)
        if done and len(pairs) == len(self.layers) and kept.fits(size):
            held = [(keys[:, :, :done].clone(), values[:, :, :done].clone()) for keys, values in pairs]
            kept.put(self.ids[:done], held, size)
