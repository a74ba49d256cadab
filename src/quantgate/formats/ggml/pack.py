"""Codes and headers <-> the bytes of a file. Pure tensor arithmetic, all blocks at once."""

from __future__ import annotations

import torch
from torch import Tensor

from quantgate.errors import FormatError
from quantgate.formats.ggml import BlockFormat, Header, Plane
from quantgate.formats.ggml.scales import joined


def pack(codes: Tensor, header: Tensor, layout: BlockFormat) -> Tensor:
    """int8 codes [out, in], uint8 headers [out, blocks * header] -> uint8 [out, blocks * size]: rows of a GGUF tensor.

    Raises FormatError when a code is none of the format's, or the headers do not belong to the codes.
    """
    out, columns = codes.shape
    blocks = columns // layout.block
    if columns % layout.block or tuple(header.shape) != (out, blocks * layout.header):
        raise FormatError(
            f"{layout.name}: codes [{out}, {columns}] do not go with scales of {list(header.shape)} bytes; expected "
            f"{layout.header} bytes for every {layout.block} codes of a row, choose scales with these codes"
        )
    stored = _stored(codes, layout).view(out * blocks, layout.block)
    rest = header.reshape(out * blocks, layout.header)
    fields = []
    for field in layout.fields:
        if isinstance(field, Header):
            fields.append(rest[:, : field.size])
            rest = rest[:, field.size :]
        else:
            fields.append(_plane(stored, field))
    return torch.cat(fields, dim=1).view(out, blocks * layout.size)


def unpack(data: Tensor, layout: BlockFormat) -> tuple[Tensor, Tensor]:
    """The int8 codes [out, in] and uint8 headers [out, blocks * header] of the bytes of a file's rows.

    Fp4's negative zero comes back as 0. Raises FormatError when the bytes are not whole blocks.
    """
    out, width = data.shape
    if width % layout.size:
        raise FormatError(
            f"{layout.name}: rows of {width} bytes, expected a multiple of {layout.size}; "
            "the tensor is of another format, or cut off"
        )
    blocks = width // layout.size
    rest = data.reshape(out * blocks, layout.size)
    stored = torch.zeros(out * blocks, layout.block, dtype=torch.uint8, device=data.device)
    headers = []
    for field in layout.fields:
        if isinstance(field, Header):
            headers.append(rest[:, : field.size])
            rest = rest[:, field.size :]
        else:
            taken = layout.block * field.width // 8
            _add_plane(stored, rest[:, :taken], field)
            rest = rest[:, taken:]
    return _codes(stored, layout).view(out, blocks * layout.block), torch.cat(headers, dim=1).view(out, -1)


def _stored(codes: Tensor, layout: BlockFormat) -> Tensor:
    """uint8: what a file has for each code."""
    if layout.levels is None:
        if layout.bits < 8 and codes.numel() and (int(codes.min()) < layout.low or int(codes.max()) > layout.high):
            raise FormatError(
                f"{layout.name}: codes {int(codes.min())}..{int(codes.max())} do not fit {layout.low}..{layout.high}; "
                "encode first"
            )
        return codes.contiguous().view(torch.uint8) + layout.zero
    places = torch.full((256,), 255, dtype=torch.uint8, device=codes.device)
    for at in reversed(range(len(layout.levels))):  # of two names for 0 the first
        places[layout.levels[at] & 255] = at
    stored = places[codes.view(torch.uint8).int()]
    if bool((stored == 255).any()):
        raise FormatError(f"{layout.name}: some codes are none of its {len(layout.levels)} levels; encode first")
    return stored


def _codes(stored: Tensor, layout: BlockFormat) -> Tensor:
    if layout.levels is None:
        return (stored - layout.zero).view(torch.int8)
    return torch.tensor(layout.levels, dtype=torch.int8, device=stored.device)[stored.int()]


def _plane(stored: Tensor, plane: Plane) -> Tensor:
    """uint8 [blocks, bytes]: the bits of the plane."""
    if plane.width == 8:
        return stored
    bits = stored >> plane.shift & (1 << plane.width) - 1
    return joined(bits.view(len(stored), -1, 8 // plane.width, plane.span), plane.width).flatten(1)


def _add_plane(stored: Tensor, held: Tensor, plane: Plane) -> None:
    if plane.width == 8:
        stored.copy_(held)
        return
    runs = stored.view(len(stored), -1, 8 // plane.width, plane.span)
    for at in range(8 // plane.width):
        bits = held.view(len(stored), -1, plane.span) >> at * plane.width & (1 << plane.width) - 1
        runs[:, :, at] |= bits << plane.shift
