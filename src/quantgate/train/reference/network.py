"""The network that is trained: LlamaForCausalLM's arithmetic in 60 lines, with its parameter names.

One row is one conversation, padded on the right, so causal attention needs no mask. Weights are float32, matrix
products bfloat16.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig


class Block(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        hidden, heads = config.hidden_size, config.num_attention_heads
        self.head, self.heads, self.eps = hidden // heads, heads, config.rms_norm_eps
        self.kv_heads = config.num_key_value_heads or heads
        kv = self.kv_heads * self.head
        shapes = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (config.intermediate_size, hidden),
            "mlp.up_proj": (config.intermediate_size, hidden),
            "mlp.down_proj": (hidden, config.intermediate_size),
        }
        for name, shape in shapes.items():
            self.register_parameter(name.replace(".", "/"), nn.Parameter(torch.empty(shape)))
        self.input_layernorm = nn.Parameter(torch.ones(hidden))
        self.post_attention_layernorm = nn.Parameter(torch.ones(hidden))

    def weights(self, *names: str) -> Tensor:
        """The named matrices, stacked by rows, in bfloat16."""
        return torch.cat([self.get_parameter(name) for name in names]).bfloat16()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [batch, length, hidden] -> the same."""
        batch, length, hidden = x.shape
        qkv = F.linear(
            self.norm(x, self.input_layernorm), self.weights("self_attn/q_proj", "self_attn/k_proj", "self_attn/v_proj")
        )
        qkv = qkv.view(batch, length, -1, self.head).transpose(1, 2)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        repeat = self.heads // self.kv_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        seen = attention(q, k, v)
        x = x + F.linear(seen.transpose(1, 2).reshape(batch, length, hidden), self.weights("self_attn/o_proj"))
        both = F.linear(self.norm(x, self.post_attention_layernorm), self.weights("mlp/gate_proj", "mlp/up_proj"))
        gate, up = both.chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, self.weights("mlp/down_proj"))

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), self.eps)


class Network(nn.Module):
    """Tied embeddings, ``config.num_hidden_layers`` blocks, one last norm. Blocks that sleep are passed over."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        blocks = [Block(config) for _ in range(config.num_hidden_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.asleep = frozenset[int]()
        self.norm = nn.Parameter(torch.ones(config.hidden_size))
        self._draw()
        self._begin_with_induction(blocks[0], blocks[1])

    @torch.no_grad()
    def _draw(self) -> None:
        """Random weights under which a token's own embedding stands out of what the blocks add to it.

        With the usual sizes (embeddings 0.02, blocks of unit gain) the first block's output was eleven times as long as
        the embedding, and no head could learn to copy a token (docs/LOG.md). All embeddings share one direction: it
        shifts all logits alike, and gives heads without biases something to look by position alone.
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                adds = "o_proj" in name or "down_proj" in name
                gain = 0.3 * (2 * self.config.num_hidden_layers) ** -0.5 if adds else 1.0
                nn.init.normal_(parameter, std=0.25 if name == "embed" else gain * parameter.shape[1] ** -0.5)
        self.embed.add_(F.normalize(torch.randn(self.config.hidden_size), dim=0), alpha=3.0)
        nn.init.constant_(self.norm, 0.1)

    @torch.no_grad()
    def _begin_with_induction(self, first: Block, second: Block, pairs: int = 2) -> None:
        """Induction heads (Olsson et al. 2022) from the start: ``pairs`` of a head in each of the two blocks.

        The first looks one position back, by rotary phases alone, and writes what it saw there into a subspace of its
        own. The second looks for positions where that subspace holds the present token, and copies the token found
        there. Training is free to change both; without them they took more than 6 million tokens to form.
        """
        hidden, head, half = self.config.hidden_size, first.head, first.head // 2
        shared = F.normalize(self.embed.mean(0), dim=0)
        step = _frequencies(self.config, self.embed.device)
        slow = torch.cat([torch.arange(half // 2, half), torch.arange(half + half // 2, head)])
        for pair in range(pairs):
            query, key = pair * (first.heads // first.kv_heads) * head, pair * head
            read = _orthonormal(hidden, half, shared).T  # [half, hidden], the code of a token
            write = _orthonormal(hidden, half, shared)  # [hidden, half], where the token before is noted
            copied = _orthonormal(hidden, head).T

            q, k, v, o = (first.get_parameter(f"self_attn/{name}_proj") for name in "qkvo")
            q[query : query + head] *= 0.3
            k[key : key + head] *= 0.3
            k[key : key + half] += 0.63 * shared
            q[query : query + half] += 0.63 * torch.outer(step.cos(), shared)
            q[query + half : query + head] -= 0.63 * torch.outer(step.sin(), shared)
            v[key : key + half] = read
            o[:, query : query + half] = 0.3 * write

            q, k, v, o = (second.get_parameter(f"self_attn/{name}_proj") for name in "qkvo")
            q[query : query + head] *= 0.2
            k[key : key + head] *= 0.2
            q[query + slow] += 1.5 * read  # slow phases only: what matters is the token, not how far back it stands
            k[key + slow] += 1.5 * write.T
            v[key : key + head] = copied
            o[:, query : query + head] = 0.5 * copied.T

    def forward(self, ids: Tensor, answered: Tensor) -> Tensor:
        """Logits [answers, vocabulary] at the positions of ``ids`` [batch, length] where ``answered`` is True."""
        cos, sin = rotary(self.config, ids.shape[1], ids.device)
        x = F.embedding(ids, self.embed).bfloat16()
        for index, block in enumerate(self.blocks):
            if index not in self.asleep:
                x = block(x, cos, sin)
        x = F.rms_norm(x[answered], (x.shape[-1],), self.norm.to(x.dtype), self.config.rms_norm_eps)
        return F.linear(x, self.embed.bfloat16()).float()

    def awake(self) -> list[nn.Parameter]:
        """The parameters that training moves: all but those of the blocks that sleep."""
        slept = {id(parameter) for index in self.asleep for parameter in self.blocks[index].parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in slept]

    @torch.no_grad()
    def wake(self) -> None:
        """Let every sleeping block begin as its neighbour before it, adding nothing yet: no logit changes.

        Growing a trained network in depth by copies: Gong et al. 2019, "Efficient Training of BERT by Progressively
        Stacking", section 3; the zeros are those of "Net2Net" (arXiv 1511.05641), which keep the function.
        """
        for index in sorted(self.asleep):
            self.blocks[index].load_state_dict(self.blocks[index - 1].state_dict())
            for name in ("self_attn/o_proj", "mlp/down_proj"):
                self.blocks[index].get_parameter(name).zero_()
        self.asleep = frozenset()

    def state(self) -> dict[str, Tensor]:
        """The weights under LlamaForCausalLM's names, in bfloat16."""
        out = {"model.embed_tokens.weight": self.embed, "model.norm.weight": self.norm}
        for index, block in enumerate(self.blocks):
            for name, parameter in block.named_parameters():
                out[f"model.layers.{index}.{name.replace('/', '.')}.weight"] = parameter
        return {name: tensor.detach().to(torch.bfloat16).cpu().contiguous() for name, tensor in out.items()}


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention over [batch, heads, length, head].

    On a CPU the plain products beat the fused kernel below some 400 positions: five times at 64, forward and backward.
    """
    length = q.shape[2]
    if length > 384 or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    later = torch.full((length, length), -1e9, dtype=q.dtype).triu(1)
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)) + later
    return torch.matmul(torch.softmax(scores, dim=-1), v)


def rotary(config: LlamaConfig, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, each [length, head], of rotary position embedding (RoFormer, arXiv 2104.09864, section 3.4)."""
    angle = torch.outer(torch.arange(length, device=device).float(), _frequencies(config, device)).repeat(1, 2)
    return angle.cos().bfloat16(), angle.sin().bfloat16()


def _frequencies(config: LlamaConfig, device: torch.device) -> Tensor:
    """Radians per position of each pair of a head's dimensions, [head / 2], fastest first."""
    head = config.hidden_size // config.num_attention_heads
    rope: Any = config.rope_parameters
    theta = float(rope["rope_theta"])
    return torch.exp(torch.arange(0, head, 2, device=device).float() * (-math.log(theta) / head))


def _orthonormal(rows: int, columns: int, *without: Tensor) -> Tensor:
    """Random orthonormal columns [rows, columns], all of them orthogonal to the directions ``without``."""
    found: Tensor = torch.linalg.qr(torch.stack([*without, *torch.randn(columns, rows)], dim=1))[0]
    return found[:, len(without) :]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin
