"""One row of the planner's benchmark as a process of its own: what a variant takes, and how fast it decodes.

    python -m benchmarks._planned '{"make": false, "ref": ..., "engine": "llama.cpp", "scheme": "Q8_0", ...}'

Nothing heavy is imported before it is needed: what the process holds is part of what is measured.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPT, ANSWER = 256, 48  # tokens


def _artifact(asked: dict[str, Any]) -> Path:
    name = Path(asked["ref"]).name.replace("/", "-")
    return Path(asked["cache"]) / "artifacts" / f"{name}-{asked['scheme']}"


def made(asked: dict[str, Any]) -> bool:
    """Whether the artifact is there, or none is needed."""
    path = _artifact(asked)
    if asked["engine"] == "llama.cpp":
        return path.with_suffix(".gguf").is_file()
    return asked["scheme"] == "BF16" or path.is_dir()


def _make(asked: dict[str, Any]) -> dict[str, Any]:
    """The artifact, once."""
    from quantgate.models import open_model
    from quantgate.quantize import Recipe
    from quantgate.quantize.gguf import make_gguf
    from quantgate.quantize.sweep import sweep

    model, path = open_model(asked["ref"]), _artifact(asked)
    if asked["engine"] == "llama.cpp":
        path.parent.mkdir(parents=True, exist_ok=True)
        make_gguf(model, path.with_suffix(".gguf"), asked["scheme"])
    else:
        recipe = Recipe(scheme=asked["scheme"], method="rtn", label=path.name)
        sweep(model, None, [recipe], path.parent)
    return {}


def _measure(asked: dict[str, Any]) -> dict[str, Any]:
    decode, context = (_in_torch if asked["engine"] == "torch" else _in_llamacpp)(asked)
    paces = [decode()]
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    found = {"memory": _resident(), "context": context}
    from quantgate.hardware.detect import detect

    profiles = []
    for _ in range(2):
        profiles.append(detect("2026-01-01", threads=asked["threads"]).profile)
        paces += [decode(), decode()]
    least = {"bandwidth": max(one.bandwidth for one in profiles), "call_s": min(one.call_s or 0 for one in profiles)}
    best = profiles[0].model_copy(update=least)  # a busy moment slows either side; the best of each is compared
    return found | {"profile": best.body(), "decode": max(paces)}


def _in_torch(asked: dict[str, Any]) -> tuple[Callable[[], float], int]:
    """What decodes an answer and gives its tokens a second, and the cache's length."""
    import torch

    from quantgate.engines import Completion, Prompt
    from quantgate.engines.torch import open_engine
    from quantgate.models import open_model
    from quantgate.quantize import baseline, open_artifact

    torch.set_num_threads(asked["threads"])
    model = open_model(asked["ref"])
    engine = open_engine(model, baseline(model) if asked["scheme"] == "BF16" else open_artifact(_artifact(asked)))
    engine.stops, engine.decoder.stops = set(), torch.tensor([], dtype=torch.long)
    prompt = Prompt(turns=(("user", "a" * (PROMPT - 6)),), max_tokens=ANSWER)

    def decode() -> float:
        one = engine.generate([prompt])[0]
        assert isinstance(one, Completion) and one.tokens is not None  # the prompt fits, and our engine counts
        return one.tokens / one.decode_s

    return decode, PROMPT + ANSWER


def _in_llamacpp(asked: dict[str, Any]) -> tuple[Callable[[], float], int]:
    from quantgate.engines._llama import LlamaContext, LlamaModel

    length = -(-(PROMPT + ANSWER) // 256) * 256
    file = _artifact(asked).with_suffix(".gguf")
    context = LlamaContext(LlamaModel(file), 1, length, "f16", "f16", asked["threads"])

    def decode() -> float:
        context.clear()
        context.decode([(1 + at % 200, at, 0, at == PROMPT - 1) for at in range(PROMPT)])
        began = time.perf_counter()
        for at in range(PROMPT, PROMPT + ANSWER):
            context.decode([(1 + at % 200, at, 0, True)])
        return ANSWER / (time.perf_counter() - began)

    return decode, length


def _resident() -> int:
    """Bytes of memory that this process holds; see proc(5)."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(rows["VmRSS"].split()[0]) * 1024


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    print(json.dumps(_make(wanted) if wanted["make"] else _measure(wanted)))
