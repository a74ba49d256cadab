"""The scales of a format's blocks: as numbers, as the bytes that a file has for them, and as what they come to.

Numbers are kept as stored, so that nothing is lost on the way to a file and back. What they come to is computed in
float32 as ggml does: ``d * number`` rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quantgate.errors import FormatError
from quantgate.formats.ggml import BlockFormat, Header

WHOLE_BYTES, WHOLE_NIBBLES = (-128, 127), (0, 15)  # ranges of the groups' numbers in Q6_K and in Q2_K


@dataclass(frozen=True, eq=False)
class BlockScales:
    """The numbers of the blocks of a weight [out, in]."""

    d: Tensor  # [out, blocks] float16; uint8 exponents for powers of two: 2^(exponent - 128) times a doubled number
    dmin: Tensor | None  # [out, blocks] float16
    scales: Tensor | None  # [out, blocks, groups] int16, within the format's range; None: ``d`` is the scale
    minima: Tensor | None  # the same for minima; None: ``dmin`` is the minimum, or there is none

    def steps(self) -> Tensor:
        """float32 [out, in / group]: what a code of 1 stands for; a negative number turns the codes around."""
        if self.d.dtype == torch.uint8:
            return torch.ldexp(torch.ones_like(self.d, dtype=torch.float32), self.d.int() - 128)
        return _product(self.d, self.scales)

    def offsets(self) -> Tensor | None:
        """float32 [out, in / group]: what a code of 0 stands for; None: 0."""
        if self.dmin is None:
            return None
        return self.dmin.float() if self.minima is None else -_product(self.dmin, self.minima)


def _product(shared: Tensor, numbers: Tensor | None) -> Tensor:
    return shared.float() if numbers is None else (shared.float().unsqueeze(-1) * numbers).flatten(1)


def pack_scales(held: BlockScales, layout: BlockFormat) -> Tensor:
    """uint8 [out, blocks * header]: the header of every block, its fields in the order of the file."""
    out, blocks = held.d.shape
    fields = []
    for field in layout.fields:
        if isinstance(field, Header):
            if field.kind == "groups":
                assert held.scales is not None
                fields.append(_pack_groups(held.scales, held.minima, layout))
            else:
                number = held.dmin if field.kind == "dmin" else held.d
                assert number is not None
                fields.append(number.contiguous().view(torch.uint8).reshape(out, blocks, field.size))
    return torch.cat(fields, dim=-1).reshape(out, blocks * layout.header)


def unpack_scales(header: Tensor, layout: BlockFormat) -> BlockScales:
    """The numbers that ``pack_scales`` was given. Raises FormatError when the bytes are not whole headers."""
    out, width = header.shape
    if width % layout.header:
        raise FormatError(
            f"{layout.name}: {width} bytes of scales in a row, expected a multiple of {layout.header}; "
            "they belong to another format"
        )
    rest = header.view(out, width // layout.header, layout.header)
    numbers: dict[str, Tensor] = {}
    scales = minima = None
    for field in layout.fields:
        if isinstance(field, Header):
            mine, rest = rest[..., : field.size], rest[..., field.size :]
            if field.kind == "groups":
                scales, minima = _unpack_groups(mine, layout)
            else:
                mine = mine.contiguous()
                numbers[field.kind] = (mine if field.kind == "exponent" else mine.view(torch.float16)).squeeze(-1)
    return BlockScales(numbers.get("d", numbers.get("exponent", rest)), numbers.get("dmin"), scales, minima)


def _pack_groups(scales: Tensor, minima: Tensor | None, layout: BlockFormat) -> Tensor:
    """uint8 [out, blocks, bytes] of the groups' whole numbers [out, blocks, groups].

    Q6_K: 16 bytes. Q2_K: 16 times a scale's four bits and a minimum's. Q3_K: 16 times six bits, the lower four of two
    scales to a byte, then the upper two of four. Q4_K, Q5_K: 8 scales and 8 minima of six bits; those of the first four
    groups leave two bits of their bytes, where the upper bits of the last four stand (``get_scale_min_k4`` in ggml).
    """
    stored = (scales - (layout.whole or (0, 0))[0]).to(torch.uint8)
    if minima is None:
        if layout.whole == WHOLE_BYTES:
            return scales.to(torch.int8).view(torch.uint8)
        upper = (stored >> 4).unflatten(-1, (4, 4))
        return torch.cat([joined((stored & 15).unflatten(-1, (2, 8)), 4), joined(upper, 2)], dim=-1)
    lower = minima.to(torch.uint8)
    if layout.whole == WHOLE_NIBBLES:
        return stored | lower << 4
    (first, second), (low, high) = stored.chunk(2, dim=-1), lower.chunk(2, dim=-1)
    return torch.cat([first | second >> 4 << 6, low | high >> 4 << 6, (second & 15) | (high & 15) << 4], dim=-1)


def _unpack_groups(held: Tensor, layout: BlockFormat) -> tuple[Tensor, Tensor | None]:
    """int16 scales and minima [out, blocks, groups] of ``_pack_groups``."""
    if not layout.minima:
        if layout.whole == WHOLE_BYTES:
            return held.contiguous().view(torch.int8).short(), None
        lower = torch.cat([held[..., :8] & 15, held[..., :8] >> 4], dim=-1)
        upper = torch.stack([held[..., 8:] >> shift & 3 for shift in (0, 2, 4, 6)], dim=-2).flatten(-2)
        return (lower | upper << 4).short() + (layout.whole or (0, 0))[0], None
    if layout.whole == WHOLE_NIBBLES:
        return (held & 15).short(), (held >> 4).short()
    first, low, rest = held.split(4, dim=-1)
    scales = torch.cat([first & 63, (rest & 15) | first >> 6 << 4], dim=-1)
    minima = torch.cat([low & 63, rest >> 4 | low >> 6 << 4], dim=-1)
    return scales.short(), minima.short()


def joined(parts: Tensor, width: int) -> Tensor:
    """[..., bytes] with part i of ``parts`` [..., parts, bytes] at bit i * width."""
    whole = torch.zeros_like(parts[..., 0, :])
    for at in range(parts.shape[-2]):
        whole |= parts[..., at, :] << at * width
    return whole
