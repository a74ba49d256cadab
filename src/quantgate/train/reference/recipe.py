"""Put the pieces together: tokenizer, network, training, and the files a Hugging Face model consists of."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from quantgate.evaluate import suites
from quantgate.records import digest_of, disk_errors, folder_aside
from quantgate.train.reference import tokenizer as bpe
from quantgate.train.reference.card import write_card
from quantgate.train.reference.data import Stream
from quantgate.train.reference.loop import SHARES, Plan, answers_right, train
from quantgate.train.reference.network import Network

VOCABULARY = 1536
CONTEXT = 2048


def train_reference(
    out: Path, work: Path, plan: Plan, report: Callable[[dict[str, Any]], None], device: str = "cpu"
) -> Path:
    """Train from nothing (or from ``work``'s checkpoint) and write the model folder ``out``, whole or not at all."""
    torch.manual_seed(plan.seed)
    tokenizer = _tokenizer(plan)
    config = reference_config(tokenizer, plan)
    network = Network(config)
    data = data_digest(tokenizer, plan)
    recipe = digest_of([asdict(plan), data, config.to_dict(), digest_of(tokenizer.backend_tokenizer.to_str())])
    curve = train(network, tokenizer, work, plan, report, device, recipe=recipe)
    scores = {
        level: answers_right(network, tokenizer, plan.scored_cases, plan.seed + 1, device, level)
        for level in ("default", "hard")
    }
    with folder_aside(out) as folder:
        write_model(folder, network, tokenizer, config)
        write_card(folder, plan, curve, scores, data)
    return out


def _tokenizer(plan: Plan) -> PreTrainedTokenizerFast:
    texts = []
    for name in SHARES:
        source = suites.drafts(suites.get(name), "train", plan.seed)
        count = plan.tokenizer_drafts // 10 if name == "long_context" else plan.tokenizer_drafts
        for _ in range(count):
            draft = next(source)
            texts += [content for _, content in draft.messages] + [draft.answer]
    return bpe.train(texts, VOCABULARY, CONTEXT)


def reference_config(tokenizer: PreTrainedTokenizerFast, plan: Plan) -> LlamaConfig:
    """Six blocks as wide as ``plan`` says."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=plan.hidden,
        intermediate_size=plan.feed_forward,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )


def write_model(folder: Path, network: Network, tokenizer: PreTrainedTokenizerFast, config: LlamaConfig) -> None:
    """Configuration, tokenizer and BF16 weights as transformers reads them."""
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    ).save_pretrained(folder)
    with disk_errors(folder):
        save_file(network.state(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)  # save_file lets nobody else read it


def data_digest(tokenizer: PreTrainedTokenizerFast, plan: Plan, count: int = 400) -> str:
    """Digest of the first training documents and drills: it changes when the tokenizer or any generator does."""
    stream = Stream(tokenizer, plan.seed, plan.prompts)
    stream.restart(0, SHARES)
    drills = (stream.copy_drill() for _ in range(8))
    documents = itertools.chain(drills, itertools.islice(stream.documents(CONTEXT), count))
    return digest_of([[document.suite, document.ids, document.wanted] for document in documents])
