"""AutoRound's own layout: the tensors of GPTQ or AWQ, and settings of single layers by name or pattern.

Source: AutoRound 0.15, export/export_to_autoround/export.py, inference/backend.py and inference/utils.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantgate.errors import ArtifactError
from quantgate.models.tensors import TensorFiles
from quantgate.quantize.checkpoints import StoredLinear
from quantgate.quantize.foreign.awq import awq_format, read_awq
from quantgate.quantize.foreign.gptq import gptq_format, read_gptq
from quantgate.quantize.foreign.layers import LayerFormat, LayerTensors, check_pattern, number


class AutoRound:
    """``quant_method: auto-round``: GPTQ's or AWQ's tensors, with settings of single layers under ``extra_config``."""

    lists_kept = False
    PACKINGS = {
        "auto_round": "gptq_v2", "auto_round:gptqmodel": "gptq_v2", "auto_round:auto_gptq": "gptq",
        "auto_round:gptq": "gptq", "auto_round:exllamav2": "gptq", "auto_round:auto_awq": "awq",
        "auto_round:awq": "awq",
    }  # fmt: skip

    def __init__(self, config: dict[str, Any], file: Path) -> None:
        self.config, self.file = config, file
        packing = str(config.get("packing_format") or config.get("backend") or "(none)")
        if packing not in self.PACKINGS:
            raise ArtifactError(f"{file}: packing_format '{packing}'; supported are {', '.join(sorted(self.PACKINGS))}")
        self.container = self.PACKINGS[packing]
        if config.get("rotation_config"):
            raise ArtifactError(f"{file}: rotates activations at run time (rotation_config), which is not run here")
        self.extra = dict(config.get("extra_config") or {})
        for pattern in self.extra:
            check_pattern(pattern, file)
        self._format({})

    def asked(self, layer: str) -> LayerFormat | None:
        changes = self.extra.get(layer)
        if changes is None:
            changes = next((one for pattern, one in self.extra.items() if one and re.search(pattern, layer)), {})
        return self._format(changes)

    def _format(self, changes: Mapping[str, Any]) -> LayerFormat | None:
        told = self.config | dict(changes)
        if number(told, ("bits",), self.file) >= 16:
            return None
        kind = str(told.get("data_type") or "int")
        if kind not in ("int", "int_sym", "int_asym") or int(told.get("act_bits") or 16) < 16:
            inputs = f" with inputs of {told.get('act_bits')} bits" if int(told.get("act_bits") or 16) < 16 else ""
            raise ArtifactError(f"{self.file}: data_type '{kind}'{inputs}; supported are integer weights alone (int)")
        if self.container != "awq":
            return gptq_format(self.container, told, self.file)
        if number(told, ("bits",), self.file) != 4:
            raise ArtifactError(f"{self.file}: AWQ's layout with {told['bits']} bits; supported are 4")
        return awq_format(number(told, ("group_size",), self.file), not told.get("sym", True))

    def coded(self, layer: str, files: TensorFiles) -> bool:
        return f"{layer}.qweight" in files.entries

    def read(self, at: LayerTensors, shape: tuple[int, int], asked: LayerFormat) -> StoredLinear:
        return read_awq(at, shape, asked) if asked.packing == "awq" else read_gptq(at, shape, asked)
