"""Hadamard matrices of many orders, and the random rotation that is made of them.

A Hadamard matrix of order n holds 1 and -1 and has orthogonal rows: H H^T = n I. Three constructions, and Kronecker
products of them, reach the widths of published models:

    Sylvester    orders 2^k                        [[H, H], [H, -H]] from [1]
    Paley I      q + 1, q a prime power, q % 4 == 3      12, 20, 24, 28, 44, 60 ...
    Paley II     2 (q + 1), q a prime power, q % 4 == 1  12, 20, 28, 36, 52, 76 ...

Source: Paley 1933, "On orthogonal matrices", J. Math. Phys. 12; Horadam 2007, "Hadamard Matrices and Their
Applications", section 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from quantgate.errors import FormatError

SYLVESTER = 64  # the largest Sylvester factor: two small products cost less than one large one
PIECE = 1 << 22  # numbers that are rotated at a time, in float64


def hadamard(order: int) -> Tensor:
    """A Hadamard matrix [order, order] of float64. Raises FormatError for an order that no construction reaches."""
    made = torch.ones(1, 1, dtype=torch.float64)
    for factor in factors(order):
        made = torch.kron(made, factor)
    return made


def constructible(order: int) -> bool:
    """Whether ``factors`` has a product of that order.

    >>> [order for order in range(1, 100) if not constructible(order) and order % 4 == 0]
    [92]
    """
    return _orders(order) is not None


def factors(order: int) -> tuple[Tensor, ...]:
    """Small Hadamard matrices whose Kronecker product has that order. Raises FormatError where there are none."""
    orders = _orders(order)
    if orders is None:
        raise FormatError(
            f"a width of {order} has no Hadamard matrix among those that can be made; expected a product of powers of "
            "two and of Paley's orders q + 1 and 2(q + 1), q a prime power (12, 20, 28, 36, 44, 52, 60, 76 ...)"
        )
    return tuple(_factor(one) for one in orders)


@dataclass(frozen=True, eq=False)
class Rotation:
    """Q = diag(signs) H / sqrt(n), orthogonal [n, n]. Signs come first, so that what H mixes has no common sign."""

    signs: Tensor  # [n] float64, 1 and -1
    factors: tuple[Tensor, ...]  # float64; H is their Kronecker product

    @classmethod
    def of(cls, width: int, seed: int) -> Rotation:
        """The rotation of ``width`` channels whose signs follow from ``seed``. Raises FormatError."""
        signs = torch.randint(0, 2, (width,), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
        return cls(signs, factors(width))

    def __call__(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """x Q, computed in float64 and rounded once to ``dtype``: [..., n] -> [..., n]."""
        width = len(self.signs)
        rows = x.reshape(-1, width)
        out = torch.empty(rows.shape, dtype=dtype, device=x.device)
        parts = [factor.to(x.device) for factor in self.factors]
        signs = self.signs.to(x.device) / width**0.5
        step = max(1, PIECE // width)
        for start in range(0, len(rows), step):
            out[start : start + step] = _product(rows[start : start + step].double() * signs, parts)
        return out.reshape(x.shape)

    def columns(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Q^T x: [n, columns] -> [n, columns]."""
        return self(x.T, dtype).T.contiguous()

    def both(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Q^T x Q of a symmetric x [n, n]."""
        return self.columns(self(x, torch.float64), dtype)


def _product(x: Tensor, parts: list[Tensor]) -> Tensor:
    """x [rows, n] times the Kronecker product: each factor takes the first axis of n and puts it last."""
    rows, width = x.shape
    for part in parts:
        x = x.reshape(rows, len(part), -1).transpose(1, 2) @ part  # [rows, n / len(part), len(part)]
    return x.reshape(rows, width)


@cache
def _orders(order: int) -> tuple[int, ...] | None:
    """Orders of factors: Paley's first, then powers of two of at most SYLVESTER; None where there are none."""
    if order >= 1 and order & (order - 1) == 0:
        large, rest = divmod(order.bit_length() - 1, SYLVESTER.bit_length() - 1)
        return (SYLVESTER,) * large + ((1 << rest,) if rest else ())
    for found in range(12, order + 1, 4):
        if order % found == 0 and found & (found - 1) and _paley(found) is not None:
            rest_of = _orders(order // found)
            if rest_of is not None:
                return (found, *rest_of)
    return None


@cache
def _paley(order: int) -> tuple[int, int, int] | None:
    """Which of Paley's constructions makes ``order``, with its prime and power: (1 or 2, p, k)."""
    for kind, q in ((1, order - 1), (2, order // 2 - 1)):
        found = _prime_power(q)
        if found is not None and q % 4 == (3 if kind == 1 else 1):
            return (kind, *found)
    return None


def _prime_power(q: int) -> tuple[int, int] | None:
    """(p, k) with q = p^k, k at most 3."""
    for power in (1, 2, 3):
        p = round(q ** (1 / power))
        if p > 1 and p**power == q and all(p % one for one in range(2, int(p**0.5) + 1)):
            return p, power
    return None


@cache
def _factor(order: int) -> Tensor:
    found = _paley(order) if order & (order - 1) else None
    if found is None:
        made = torch.ones(1, 1, dtype=torch.float64)
        while len(made) < order:
            made = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), made)
        return made
    kind, p, power = found
    core = _bordered(_jacobsthal(p, power), -1.0 if kind == 1 else 1.0)
    one = torch.eye(len(core), dtype=torch.float64)
    if kind == 1:
        return core + one
    plus, minus = torch.tensor([[[1.0, 1.0], [1.0, -1.0]], [[1.0, -1.0], [-1.0, -1.0]]], dtype=torch.float64)
    return torch.kron(core, plus) + torch.kron(one, minus)


def _bordered(core: Tensor, sign: float) -> Tensor:
    """[[0, 1], [sign, core]]: Paley's conference matrix, skew for ``sign`` -1."""
    made = torch.zeros(len(core) + 1, len(core) + 1, dtype=torch.float64)
    made[0, 1:], made[1:, 0], made[1:, 1:] = 1.0, sign, core
    return made


def _jacobsthal(p: int, power: int) -> Tensor:
    """[q, q] of the quadratic character of a - b over the field of q = p^power elements: 0, 1 or -1."""
    places = p ** torch.arange(power)
    digits = torch.arange(p**power)[:, None] // places % p  # an element is a polynomial over the integers modulo p
    products = torch.zeros(p**power, 2 * power - 1, dtype=torch.long)
    for at in range(power):
        products[:, at : at + power] += digits[:, at, None] * digits
    modulus = _irreducible(p, power)
    for at in range(2 * power - 2, power - 1, -1):
        products[:, at - power : at] -= products[:, at, None] * modulus
    squares = (products[:, :power] % p * places).sum(dim=1)
    character = torch.full((p**power,), -1.0, dtype=torch.float64)
    character[squares] = 1.0
    character[0] = 0.0
    return character[((digits[:, None] - digits) % p * places).sum(dim=2)]


def _irreducible(p: int, power: int) -> Tensor:
    """Coefficients below the leading 1 of a polynomial without roots modulo p: irreducible at degrees 2 and 3."""
    if power == 1:
        return torch.zeros(1, dtype=torch.long)
    x = torch.arange(p)
    for number in range(p**power):
        low = number // p ** torch.arange(power) % p
        values = x**power + (x[:, None] ** torch.arange(power) * low).sum(dim=1)
        if bool((values % p).all()):
            return low
    raise FormatError(f"no irreducible polynomial of degree {power} modulo {p}")
