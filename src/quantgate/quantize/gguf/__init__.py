"""GGUF: whole files for llama.cpp and what reads it. A file is the model, its tokenizer and its chat template at once.

make_gguf(model, "model-Q4_K_M.gguf", "Q4_K_M")     # from an opened model folder
file = open_gguf("model-Q4_K_M.gguf")               # header only, nothing trusted
file.metadata["general.architecture"], file.tensors["blk.0.attn_q.weight"].type.name

types.py          block types: sizes, names, numbers in the file
blocks.py         numbers to bytes and back
presets.py        which tensor gets which type: Q4_K_M, Q3_K_S ...
names.py          what tensors are called, and which rows change places
metadata.py       an architecture in llama.cpp's words, or why it has none
vocabulary.py     a tokenizer as pieces, scores and merges; pretokenizers.py: how it splits text
read.py, write.py
"""

from quantgate.quantize.gguf.blocks import Encode, decode, encode, encode_at_once
from quantgate.quantize.gguf.presets import FILE_TYPES, types_of
from quantgate.quantize.gguf.read import GgufFile, Stored, open_gguf
from quantgate.quantize.gguf.types import TYPES, BlockType
from quantgate.quantize.gguf.write import Layout, layout_of, make_gguf, write_gguf

__all__ = [
    "FILE_TYPES",
    "TYPES",
    "BlockType",
    "Encode",
    "GgufFile",
    "Layout",
    "Stored",
    "decode",
    "encode",
    "encode_at_once",
    "layout_of",
    "make_gguf",
    "open_gguf",
    "types_of",
    "write_gguf",
]
