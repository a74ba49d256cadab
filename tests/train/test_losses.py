from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from quantgate.train import Tops
from quantgate.train.losses import Totals, kl, mixed

HALVES = Tops(torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.25]]).log())  # a quarter lies elsewhere


def tops_of(logits: Tensor, k: int) -> Tops:
    logs, tokens = torch.log_softmax(logits.double(), 1).topk(k, dim=1)
    return Tops(tokens, logs.float())


def whole_kl(teacher: Tensor, network: Tensor, temperature: float = 1.0) -> Tensor:
    one, other = ((logits.double() / temperature).log_softmax(1) for logits in (teacher, network))
    return (one.exp() * (one - other)).sum(1) * temperature**2


@st.composite
def two_sides(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    vocabulary = draw(st.integers(2, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    sharp = draw(st.sampled_from([0.1, 1.0, 8.0, 30.0]))
    teacher, network = torch.randn(2, 3, vocabulary, generator=generator) * sharp
    return teacher, network, draw(st.integers(1, vocabulary))


@settings(max_examples=40)
@given(two_sides())
def test_merging_the_rest_never_adds_to_the_divergence(case: tuple[Tensor, Tensor, int]) -> None:
    teacher, network, k = case
    found, full = kl(network, tops_of(teacher, k)), whole_kl(teacher, network)
    assert (found <= full * (1 + 1e-4) + 1e-4).all()
    assert (found >= -1e-5).all()


@settings(max_examples=40)
@given(two_sides(), st.sampled_from([0.5, 1.0, 2.0]))
def test_it_is_the_whole_divergence_when_every_token_is_kept(
    case: tuple[Tensor, Tensor, int], temperature: float
) -> None:
    teacher, network, _ = case
    found = kl(network, tops_of(teacher, teacher.shape[1]), temperature)
    torch.testing.assert_close(found.double(), whole_kl(teacher, network, temperature), rtol=1e-4, atol=1e-4)


@settings(max_examples=40)
@given(two_sides(), st.sampled_from([0.7, 1.0, 3.0]))
def test_a_network_that_agrees_is_at_no_distance_and_stays(
    case: tuple[Tensor, Tensor, int], temperature: float
) -> None:
    teacher, _, k = case
    logits = teacher.clone().requires_grad_()
    found = kl(logits, tops_of(teacher, k), temperature)
    found.sum().backward()
    assert found.abs().max() < 1e-4
    assert logits.grad is not None and logits.grad.abs().max() < 1e-3


def test_known_answer_with_a_quarter_in_the_rest() -> None:
    """Teacher 1/2, 1/4 and 1/4 for two others together; the network gives all four tokens a quarter."""
    expected = 0.5 * torch.tensor(2.0).log() + 0.25 * torch.tensor(0.5).log()
    torch.testing.assert_close(kl(torch.zeros(1, 4), HALVES)[0], expected)


def test_the_gradient_is_what_the_network_expects_less_what_the_teacher_does() -> None:
    """In the rest, tokens share the teacher's quarter as the network shares its own: dKL/dz = q - p."""
    logits = torch.tensor([[1.0, 0.0, 2.0, -1.0]], requires_grad=True)
    kl(logits, HALVES).sum().backward()
    q = logits.detach().softmax(1)[0]
    rest = q[2:] / q[2:].sum() * 0.25
    torch.testing.assert_close(logits.grad, (q - torch.cat([torch.tensor([0.5, 0.25]), rest]))[None])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("gap", [0.0, 40.0, 500.0, 20_000.0])
def test_the_gradient_is_finite_where_the_rest_is_all_but_impossible(gap: float, temperature: float) -> None:
    logits = torch.tensor([[gap, gap, 0.0, 0.0], [0.0, 0.0, gap, gap]], requires_grad=True)
    sure = Tops(torch.tensor([[0, 1], [0, 1]]), torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log())
    found = kl(logits, sure, temperature)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_a_step_is_the_same_in_one_batch_or_in_two() -> None:
    draw = torch.Generator().manual_seed(3)
    logits, teacher = torch.randn(2, 6, 10, generator=draw)
    tops, targets = tops_of(teacher, 4), torch.arange(6)
    weights = torch.tensor([0.1, 1.0, 2.0, 0.1, 1.0, 1.0])
    whole = Totals(float(weights.sum()), 5.0)

    def part(at: slice) -> Tensor:
        some = Tops(tops.tokens[at], tops.logs[at])
        return mixed(logits[at], some, targets[at], weights[at], whole, task=0.25, temperature=1.0)

    torch.testing.assert_close(part(slice(0, 6)), part(slice(0, 2)) + part(slice(2, 6)))
    surprise = F.cross_entropy(logits, targets, reduction="none")
    answers = (surprise * weights)[weights >= 1].sum() / 5
    expected = 0.75 * (kl(logits, tops) * weights).sum() / weights.sum() + 0.25 * answers
    torch.testing.assert_close(part(slice(0, 6)), expected)


def test_without_answers_the_task_has_no_say() -> None:
    logits, weights = torch.randn(2, 5), torch.tensor([0.5, 0.5])
    tops = tops_of(torch.randn(2, 5), 3)
    found = mixed(logits, tops, torch.zeros(2).long(), weights, Totals(1.0, 0.0), task=0.5, temperature=1.0)
    torch.testing.assert_close(found, 0.5 * kl(logits, tops).mean())
