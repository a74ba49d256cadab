"""llama.cpp through its C interface: a model with its vocabulary, and a context that decodes many sequences at once.

Only what the engine needs, in Python's terms. What the library says on its log is kept, so that an error can repeat it.
"""

from __future__ import annotations

import ctypes
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from quantgate.errors import EngineError

Logits = np.ndarray[Any, np.dtype[np.float32]]
KV_TYPES = {  # of cached keys and values: ggml's number, numbers in a block
    "f32": (0, 1), "f16": (1, 1), "bf16": (30, 1), "q8_0": (8, 32), "q5_1": (7, 32), "q5_0": (6, 32), "q4_1": (3, 32),
    "q4_0": (2, 32), "iq4_nl": (20, 32),
}  # fmt: skip
UBATCH = 512  # tokens that go through the network at once
LOG: deque[str] = deque(maxlen=200)  # the library has one log for the whole process
PIECE_BYTES = 64


def _keep(_level: int, text: bytes, _data: Any) -> None:
    LOG.append(text.decode(errors="replace"))


KEEP = llama_cpp.llama_log_callback(_keep)  # held here, for the library calls it as long as the process lives


def _said(begin: int = 0) -> str:
    """The last complaint on the log."""
    lines = "".join(list(LOG)[begin:]).splitlines()
    found = [line for line in lines if re.search("error|fail|unable|missing|invalid|unknown", line, re.IGNORECASE)]
    return re.sub(r"\s+", " ", found[0].strip())[:200] if found else "it does not say why"


class LlamaModel:
    """A GGUF file that is loaded. Raises EngineError when llama.cpp refuses it."""

    def __init__(self, path: Path, *, vocabulary_only: bool = False) -> None:
        llama_cpp.llama_log_set(KEEP, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        LOG.clear()
        settings = llama_cpp.llama_model_default_params()
        settings.n_gpu_layers = 0
        settings.vocab_only = vocabulary_only
        self.path = path
        self.handle: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
        if not self.handle:
            raise EngineError(f"{path}: llama.cpp does not load it ({_said()}); check it with `quantgate inspect`")
        self.loaded = "".join(LOG)
        self.vocab: Any = llama_cpp.llama_model_get_vocab(self.handle)
        self.size = int(llama_cpp.llama_vocab_n_tokens(self.vocab))
        self.repacked = "REPACK model buffer" in self.loaded
        self._pieces: dict[int, bytes] = {}

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            llama_cpp.llama_model_free(self.handle)
            self.handle = None

    @property
    def template(self) -> str:
        """The chat template that the file carries, or ""."""
        found = llama_cpp.llama_model_chat_template(self.handle, None)
        return found.decode() if found else ""

    def tokenize(self, text: str, *, begin: bool) -> list[int]:
        """Token ids; special tokens in ``text`` are found, and those of a text's ends added when ``begin``."""
        raw = text.encode()
        room = len(raw) + 8
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), ids, room, begin, True)
        if count < 0:
            raise EngineError(f"{self.path}: llama.cpp does not tokenize a text of {len(raw)} bytes")
        return list(ids[:count])

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; none for control tokens."""
        if token not in self._pieces:
            room = PIECE_BYTES
            while True:
                buffer = ctypes.create_string_buffer(room)
                count = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, room, 0, False)
                if count >= 0:
                    break
                room = -count
            self._pieces[token] = buffer.raw[:count]
        return self._pieces[token]

    def ends(self) -> set[int]:
        """The tokens at which llama.cpp ends an answer by itself."""
        return {token for token in range(self.size) if llama_cpp.llama_vocab_is_eog(self.vocab, token)}


class LlamaContext:
    """Room for ``sequences`` sequences of ``length`` tokens each. Raises EngineError when there is none."""

    def __init__(
        self,
        model: LlamaModel,
        sequences: int,
        length: int,
        keys: str,
        values: str,
        threads: int,
        *,
        step: int = 1,
        watch: Any = None,
    ) -> None:
        """``step``: tokens of each sequence that one pass takes; ``watch`` is called for every node of the graph, see
        ``_llama_trace``."""
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = sequences * length, sequences
        settings.n_batch = max(UBATCH, sequences * step)
        settings.n_ubatch = settings.n_batch
        settings.n_threads = settings.n_threads_batch = threads
        settings.type_k, settings.type_v = KV_TYPES[keys][0], KV_TYPES[values][0]
        settings.kv_unified, settings.swa_full = False, True
        if KV_TYPES[values][1] > 1:  # values in blocks cannot be transposed, so only this attention reads them
            settings.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        if watch is not None:
            settings.cb_eval = watch
        self.model, self.sequences, self.room = model, sequences, int(settings.n_batch)
        LOG.clear()
        self.handle: Any = llama_cpp.llama_init_from_model(model.handle, settings)
        if not self.handle:
            raise EngineError(
                f"{model.path}: llama.cpp has no context of {sequences} x {length} tokens with keys in {keys} and "
                f"values in {values} ({_said()}); ask for fewer rows or another cache"
            )
        self.length = int(llama_cpp.llama_n_ctx_seq(self.handle))
        self._batch = llama_cpp.llama_batch_init(self.room, 0, 1)

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self.handle)
            self.handle = None

    def clear(self) -> None:
        """Forget every sequence."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.handle), True)

    def forget(self, sequence: int, start: int) -> None:
        """Forget a sequence from position ``start`` on. Raises EngineError for a memory that cannot."""
        if not llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(self.handle), sequence, start, -1):
            raise EngineError(
                f"{self.model.path}: llama.cpp cannot take back the tokens from {start} on; leave 'draft' out"
            )

    def decode(self, tokens: Sequence[tuple[int, int, int, bool]]) -> Logits:
        """Feed (token, position, sequence, wanted); float32 logits [wanted ones, vocabulary], in their order."""
        parts = [self._decode(tokens[at : at + self.room]) for at in range(0, len(tokens), self.room)]
        return np.concatenate(parts) if parts else np.zeros((0, self.model.size), dtype=np.float32)

    def _decode(self, tokens: Sequence[tuple[int, int, int, bool]]) -> Logits:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for at, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[at], batch.pos[at], batch.logits[at] = token, position, wanted
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
        LOG.clear()
        status = llama_cpp.llama_decode(self.handle, batch)
        if status:
            raise EngineError(f"{self.model.path}: llama.cpp stopped with {status} while decoding ({_said()})")
        count = sum(wanted for *_, wanted in tokens)
        if not count:
            return np.zeros((0, self.model.size), dtype=np.float32)
        pointer = llama_cpp.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(pointer, shape=(count, self.model.size)).copy()

    def sample(self, sampler: Any, at: int) -> int:
        """The token that ``sampler`` takes from the logits of the ``at``-th token of the last ``decode``."""
        return int(llama_cpp.llama_sampler_sample(sampler, self.handle, at))


class Sampler:
    """How the next token is drawn: the likeliest, or by chance, within a grammar where one is given."""

    def __init__(
        self, model: LlamaModel, *, grammar: str, temperature: float, top_k: int, top_p: float, seed: int
    ) -> None:
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        self.handle: Any = chain
        parts = []
        if grammar:
            LOG.clear()
            held = llama_cpp.llama_sampler_init_grammar(model.vocab, grammar.encode(), b"root")
            if not held:
                raise EngineError(f"the grammar cannot be read by llama.cpp ({_said()}); it needs a rule called root")
            parts.append(held)
        if temperature > 0:
            parts += [llama_cpp.llama_sampler_init_top_k(top_k)] if top_k else []
            parts += [llama_cpp.llama_sampler_init_top_p(top_p, 1)] if top_p < 1 else []
            parts += [llama_cpp.llama_sampler_init_temp(temperature), llama_cpp.llama_sampler_init_dist(seed)]
        else:
            parts.append(llama_cpp.llama_sampler_init_greedy())
        for part in parts:
            llama_cpp.llama_sampler_chain_add(chain, part)

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            llama_cpp.llama_sampler_free(self.handle)
            self.handle = None


def system() -> dict[str, str]:
    """What the library was built for and finds on this machine: instruction sets, and its own version."""
    told = llama_cpp.llama_print_system_info().decode()
    found = dict(re.findall(r"(\w+) = (\w+)", told))
    return {"llama-cpp-python": llama_cpp.__version__, **{key: value for key, value in found.items() if value != "0"}}
