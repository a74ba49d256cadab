"""The residual stream of a model in rotated channels: the same function, with no channel that stands out.

RMSNorm(x Q) = RMSNorm(x) Q for an orthogonal Q, once its gain g is folded into the layers that read it. So a decoder
whose blocks add to one stream computes the same with

    embedding E Q        reading layers W diag(g) Q, gains 1        writing layers Q^T W, biases b Q
    lm_head W diag(g) Q  (of the final norm)

and stays a plain model of its architecture: a runtime does nothing more than before. Source: Ashkboos et al. 2024,
"SliceGPT" (arXiv 2401.15024), section 3.1, theorem 1; "QuaRot" (arXiv 2404.00456), section 4, stage 1a; the same is R1
of "SpinQuant" (arXiv 2405.16406), section 3.1.

Statistics need no forward pass of their own: a reading layer that was given y is given (y / g) Q, so its Hessian
becomes Q^T diag(1/g) H diag(1/g) Q. A writing layer is given what it was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from quantgate.errors import FormatError, ModelError
from quantgate.models import OpenedModel
from quantgate.models.families import ROTATABLE
from quantgate.models.tensors import Entry, read_header, torch_dtype
from quantgate.models.walker import Block
from quantgate.quantize.hadamard import Rotation, factors
from quantgate.quantize.manifest import Fate
from quantgate.quantize.methods import LayerStats
from quantgate.quantize.shards import write_tensors

POST_NORMS = "its norms behind attention and feed-forward weigh single channels of what is written"
REFUSED = {  # model_type -> what stands in the way
    "gemma2": POST_NORMS,
    "gemma3_text": POST_NORMS,
    "gpt_neox": "its LayerNorm takes the mean off the channels and adds a bias",
    "opt": "its LayerNorm takes the mean off the channels and adds a bias",
}
READ = {  # norm -> the layers of its block that read it
    "input_layernorm": ("q_proj", "k_proj", "v_proj", "qkv_proj"),
    "post_attention_layernorm": ("gate_proj", "up_proj", "gate_up_proj", "w1", "w3", "gate"),
}
WRITTEN_BY = ("o_proj", "down_proj", "w2")
AGREE = 1e-3  # of the largest number that a block gives: float32 results that count as the same
TOKENS = 32  # that both forms of a block are held against each other on
ROUTED = 0.9  # share of them that must agree: near a tie, a router may choose another expert


@dataclass(frozen=True)
class Role:
    """What rotation does to one tensor."""

    kind: Literal["norm", "reads", "writes", "embeds"]
    gain: str = ""  # of what reads: the norm's tensor

    @property
    def told(self) -> str:
        return {
            "norm": "rotated: its gain is folded into the layers that read it",
            "reads": "rotated: reads the rotated stream",
            "writes": "rotated: writes the rotated stream",
            "embeds": "rotated: makes the rotated stream",
        }[self.kind]


def check_rotation(model: OpenedModel, where: str, *, calibrated: bool) -> None:
    """Raises FormatError for an architecture, a width or a gain that cannot be rotated exactly."""
    kind = str(model.config.model_type)
    if kind not in ROTATABLE:
        reason = REFUSED.get(kind, "nobody has proven that it computes the same in rotated channels")
        raise FormatError(
            f"{where}: a {kind} model cannot be rotated: {reason}; leave rotation out, or use one of "
            f"{', '.join(ROTATABLE)}"
        )
    try:
        factors(int(model.config.hidden_size))
    except FormatError as problem:
        raise FormatError(f"{where}: {model.ref} cannot be rotated: {problem}; leave rotation out") from None
    roles = [pair for block in range(model.depth if calibrated else 0) for pair in block_roles(model, block).items()]
    for name in (name for name, role in roles if role.kind == "norm"):
        if dead := int((model.files.read(name) == 0).sum()):
            raise FormatError(
                f"{where}: {name} has {dead} gains of 0, behind which a calibration set shows nothing of the rotated "
                "input; use a method without a calibration set, or leave rotation out"
            )


def block_roles(model: OpenedModel, index: int) -> dict[str, Role]:
    """Tensor of block ``index`` -> its role, for those that change."""
    stored, prefix = model.walker.anatomy.stored, model.walker.prefix(index)
    norms = {leaf: stored[f"{prefix}{leaf}.weight"] for leaf in READ}
    roles = {name: Role("norm") for name in norms.values()}
    reader = {layer: norms[leaf] for leaf, layers in READ.items() for layer in layers}
    for name in (name for path, name in stored.items() if path.startswith(prefix)):
        module, _, kind = name.rpartition(".")
        leaf = module.rpartition(".")[2]
        if leaf in WRITTEN_BY:
            roles[name] = Role("writes")
        elif leaf in reader and kind == "weight":
            roles[name] = Role("reads", reader[leaf])
    return roles


def around_roles(model: OpenedModel) -> dict[str, Role]:
    """The same for what stands around the blocks; a head that stays tied is not named."""
    norm, head = _around(model, "norm"), f"{model.walker.head}.weight"
    roles = {_around(model, "embed_tokens"): Role("embeds")}
    if not model.config.tie_word_embeddings or unties(model):
        roles |= {norm: Role("norm"), head: Role("reads", norm)}
    elif head in model.files.entries:  # a second copy of the embeddings
        roles[head] = Role("reads")
    return roles


def unties(model: OpenedModel) -> bool:
    """Whether a rotated head can no longer be the embedding table: the final norm weighs its channels differently.

    A gain that is one number for all of them stays in its norm, since it commutes with a rotation.
    """
    gain = model.files.read(_around(model, "norm"))
    return bool(model.config.tie_word_embeddings) and bool((gain != gain[0]).any())


class Turned:
    """One block in rotated channels: its weights in float32 (a second block in memory), what its layers are given."""

    def __init__(self, model: OpenedModel, block: Block, rotation: Rotation) -> None:
        """Raises ModelError when the rotated block does not compute what the block computes."""
        self.rotation, self._model = rotation, model
        self.roles = block_roles(model, block.index)
        plain = {name: _parameter(block, name).data for name in self.roles}
        self.gains = {name: plain[name] for name, role in self.roles.items() if role.kind == "norm"}
        self.tensors = {
            name: turned(tensor, self.roles[name], plain.get(self.roles[name].gain), rotation)
            for name, tensor in plain.items()
        }
        self._check(block, plain)

    def weight(self, layer: str) -> Tensor:
        """[out, in] float32."""
        return self.tensors[f"{layer}.weight"]

    def statistics(self, layer: str, stats: LayerStats | None) -> LayerStats | None:
        """Of the rotated input of ``layer``; its largest numbers are not known."""
        role = self.roles[f"{layer}.weight"]
        if stats is None or role.kind == "writes":
            return stats
        given = stats.divided(self.gains[role.gain])
        sample = None if given.sample is None else self.rotation(given.sample)
        return LayerStats(self.rotation.both(given.hessian), stats.tokens, None, sample)

    def rest(self, coded: set[str]) -> dict[str, Tensor]:
        """The tensors that change and are no layer in ``coded``, in the types that they are stored in."""
        entries = self._model.files.entries
        return {
            name: tensor.to(torch_dtype(entries[name].dtype)).cpu()
            for name, tensor in self.tensors.items()
            if name.removesuffix(".weight") not in coded
        }

    @torch.no_grad()
    def _check(self, block: Block, plain: Mapping[str, Tensor]) -> None:
        width = len(self.rotation.signs)
        given = torch.randn(1, TOKENS, width, generator=torch.Generator().manual_seed(1)).to(block.device)
        want = self.rotation(block(given))
        try:
            for name, tensor in self.tensors.items():
                _parameter(block, name).data = tensor
            found = block(self.rotation(given))
        finally:
            for name, tensor in plain.items():
                _parameter(block, name).data = tensor
        alike = (found - want).abs().amax(dim=-1) <= AGREE * want.abs().max()
        if float(alike.float().mean()) < ROUTED:
            raise ModelError(
                f"{self._model.ref}: its block {block.index} computes something else in rotated channels; leave "
                "rotation out for this model"
            )


def turned(tensor: Tensor, role: Role, gain: Tensor | None, rotation: Rotation) -> Tensor:
    """A tensor of the model in rotated channels, float32; ``gain`` [in] is that of the norm that it reads."""
    if role.kind == "norm":
        return torch.ones_like(tensor, dtype=torch.float32)
    if role.kind == "writes" and tensor.dim() == 2:
        return rotation.columns(tensor)
    return rotation(tensor if gain is None else tensor.double() * gain.double())


def surround(
    model: OpenedModel,
    rotation: Rotation,
    file: Path,
    entries: dict[str, Entry],
    fates: dict[str, Fate],
) -> None:
    """Complete a rotated artifact: what stands around the blocks goes to ``file`` and into ``entries``, and every
    tensor that changed says so in its fate. Raises DiskFull."""
    roles, tensors, head = around_roles(model), dict[str, Tensor](), f"{model.walker.head}.weight"
    untied = unties(model)
    for name, role in roles.items():
        source = _around(model, "embed_tokens") if untied and name == head else name
        tensor = model.files.read(source)
        gain = model.files.read(role.gain) if role.gain else None
        tensors[name] = turned(tensor, role, gain, rotation).to(tensor.dtype)
    write_tensors(file, tensors)
    entries |= read_header(file)
    for index in range(model.depth):
        roles |= block_roles(model, index)
    for name, role in roles.items():
        layer = name.removesuffix(".weight")
        fates[layer] = _told(fates[layer], role)


def _told(fate: Fate, role: Role) -> Fate:
    if fate.asked == fate.got:
        return fate.model_copy(update={"facts": {**fate.facts, "rotated": role.kind}})
    return fate.model_copy(update={"because": "; ".join(one for one in (fate.because, role.told) if one)})


def _around(model: OpenedModel, leaf: str) -> str:
    """The checkpoint's name of a tensor beside the blocks: of embed_tokens, norm."""
    anatomy = model.walker.anatomy
    return anatomy.stored[f"{anatomy.blocks.rpartition('.')[0]}.{leaf}.weight"]


def _parameter(block: Block, tensor: str) -> torch.nn.Parameter:
    module, _, leaf = tensor.rpartition(".")
    return block.module_named(module).get_parameter(leaf)
