"""The release.yaml that ``quantgate init`` writes, and the one that ``quantgate demo`` runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from quantgate.decide import products
from quantgate.errors import UsageError
from quantgate.hardware import HERE
from quantgate.hardware import profile as find_profile
from quantgate.hardware.matrix import runtime_name
from quantgate.hardware.profiles import normal
from quantgate.records import parse
from quantgate.release_config import ReleaseConfig

EXAMPLE = """\
# What to release, what it must keep, and which smaller variants to try.
# Run it with: quantgate run release.yaml

# The baseline: a folder, a Hugging Face id, or the built-in model.
model: quantgate/reference

# The samples that quantization may see. Your own traffic represents your product best:
#   traffic: traffic.jsonl   # one {"messages": [...]} or {"prompt": "..."} per line, or a folder of quantgate calibrate
calibration:
  samples: 256
  max_tokens: 512

# What the product needs, and how much of it may be lost: proven, not just observed.
# A margin is a share of the baseline's score. Smaller margins need more cases:
# 3% needs at least about 150 cases without a single loss, 5% about 90.
capabilities:
  math:       {margin: 5%}
  json_tools: {margin: 5%}
  refusals:   {margin: 5%}
  # Your own suite is a JSONL file:
  #   support: {suite: support.jsonl, margin: 3%}

# The candidates. Method and group size are optional.
variants:
  - W8A8
  - W4A16-g64
  - {scheme: W3A16, method: gptq, group_size: 64}

# Registered before the run. The default test may look after every batch and still keeps its error rate.
judge:
  test: eprocess
  alpha: 5%
  order: e-bonferroni

out: runs/release
"""

TRAINED = """\
# Quantize, train with the rounding in place, or distil? All three on one frontier, by the same gates.
# Run it with: quantgate run release.yaml      (about a quarter of an hour on two cores; a stopped run goes on)

model: quantgate/reference

# Your own traffic calibrates, and trains as well, beside the train split of the capabilities below:
#   traffic: traffic.jsonl
calibration:
  samples: 256
  max_tokens: 512

# Training never sees these cases: they are of another split, and what trains is held against them.
capabilities:
  refusals: {margin: 10%, cases: 300}
  code_gen: {margin: 10%, cases: 300}

variants:
  # Rounded after training: the best that two bits can do without it.
  - {scheme: W2A16, method: gptq, options: {propagate: corrected}}
  # The same bits, trained with their rounding against the baseline.
  - scheme: W2A16
    method: qat
    options: {steps: 200, batch_tokens: 2048, learning_rate: 1e-3, reconstruct: 0}
  # Half of the blocks, distilled in this run, in eight bits.
  - student: {layers: 3, steps: 200, batch_tokens: 2048}
    scheme: W8A16

out: runs/trained
"""

DEMO = """\
model: quantgate/reference
calibration: {samples: 256, max_tokens: 512}
capabilities:
  math:            {margin: 5%, cases: 400, hard: 50}
  json_tools:      {margin: 5%, cases: 400, hard: 50}
  code_gen:        {margin: 5%, cases: 400, hard: 50}
  long_context:    {margin: 10%, cases: 400}
  multilingual:    {margin: 10%, cases: 400, hard: 50}
  rare_vocabulary: {margin: 10%, cases: 400, hard: 50}
  refusals:        {margin: 5%, cases: 400, hard: 50}
  chat:            {margin: 5%, cases: 400, hard: 50}
variants:
  - W8A8
  - FP8_DYNAMIC
  - W4A16-g32
  - W4A16
  - {scheme: W3A16, group_size: 64}
  - {scheme: W3A16, group_size: 64, method: rtn}
targets:
  fleet:       # many users on GPUs: the plan says what is possible there, nobody measured it
    {hardware: l4, runtime: vllm, price: 0.80/h, prompt: 512, answer: 64, concurrency: 16, rate: 8/s,
     ttft_p95: 300ms, tpot_p95: 30ms, speed: planned, stack: any}
  workstation: # this machine, load-tested; torch keeps four bits unpacked, so eight take less memory here
    {hardware: here, runtime: torch, prompt: 128, answer: 24, concurrency: 8, rate: 8/s,
     ttft_p50: 1s, e2e_p50: 2s, load_test: {seconds: 12, blocks: 2}}
  kiosk:       # a small CPU that fills in forms, and needs nothing else
    {hardware: cpu-avx2, runtime: openvino, memory: 512MB, prompt: 256, answer: 64, stack: any,
     capabilities: [json_tools, refusals, code_gen]}
out: runs/demo
"""


TARGETS = """\

# Where it must run, by names of your own. quantgate plan says what fits there before anything is made;
# every target gets the smallest variant that keeps all of its rules. What it promises is load-tested.
targets:
"""


def example(places: Sequence[str] = (), profile: str | None = None) -> str:
    """The commented release.yaml, with a target for each ``HARDWARE:runtime``, and the rules of a profile in it.

    Raises UsageError, UnknownName.
    """
    if not places and profile is None:
        return EXAMPLE
    chosen = None if profile is None else products.product(profile)
    targets = "".join(_target(one, chosen) for one in places or ("here:torch",))
    head, tail = EXAMPLE.split("\n# Registered before the run.")
    text = f"{head}{TARGETS}{targets}\n# Registered before the run.{tail}"
    parse(ReleaseConfig, yaml.safe_load(text), where="init")
    return text


def trained_example() -> str:
    """A commented release.yaml whose variants are rounded, trained and distilled."""
    return TRAINED


def _target(place: str, chosen: products.Product | None) -> str:
    hardware, _, served = place.partition(":")
    if not served:
        raise UsageError(f"--on {place}: names no runtime; write both, such as {place}:vllm")
    device = hardware if normal(hardware) == HERE else find_profile(hardware, where="--on").name
    runtime = runtime_name(served, where="--on")
    lines = [f"  {device}:", f"    hardware: {device}", f"    runtime: {runtime}"]
    if chosen is not None:
        lines += [f"    # {chosen.name}: {chosen.title}; every rule is yours to change"]
        lines += [f"    {key}: {_plain(rule.value)}  # {rule.because}" for key, rule in chosen.rules.items()]
        lines += ["    capabilities:"]
        for name, told in yaml.safe_load(EXAMPLE)["capabilities"].items():
            margin = chosen.margins.get(name)
            why = f"  # {margin.because}" if margin else ""
            lines.append(f"      {name}: {chosen.margin(name, told.get('suite'))}{why}")
    else:
        lines += ["    # ttft_p95: 300ms", "    # tpot_p95: 30ms", "    # rate: 8/s", "    # price: 2.50/h"]
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True, width=1000)).removesuffix("\n...\n").strip()


def demo_config(cases: int) -> ReleaseConfig:
    """The demo's release with at most ``cases`` cases per capability."""
    return parse(ReleaseConfig, _demo(cases), where="demo")


def demo_file(cases: int) -> str:
    """The same as a release.yaml that lies in the demo's folder, for commands that go on from there."""
    return yaml.safe_dump(_demo(cases) | {"out": "."}, sort_keys=False)


def _demo(cases: int) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(DEMO)
    for one in data["capabilities"].values():
        one["cases"] = min(one["cases"], cases)
    return data
