"""An artifact as a plain transformers model: dequantized weights, activations rounded where the scheme rounds them.

This is the reference that engines and other people's runtimes are held against. It is as large as the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from quantgate.errors import ModelError
from quantgate.quantize.artifact import Artifact
from quantgate.quantize.manifest import LEFT_OUT

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from quantgate.formats import Grid


def load_dequantized(artifact: Artifact, dtype: torch.dtype | None = None) -> Any:
    """The artifact's architecture in ``dtype`` (None: the type it is stored in), in eval mode, on the CPU.

    Experts that transformers fuses are linear layers in it. Raises ModelError when the stored tensors do not fill the
    architecture.
    """
    return load_with_paths(artifact, dtype)[0]


def load_with_paths(artifact: Artifact, dtype: torch.dtype | None = None) -> tuple[Any, dict[str, str]]:
    """``load_dequantized``, and where each of its modules is: the artifact's name for it -> its path in the model."""
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    from quantgate.models.experts import expand, module_paths

    config = AutoConfig.from_pretrained(artifact.config_folder, trust_remote_code=False)
    stored = getattr(torch, str(config.dtype or torch.float32).removeprefix("torch."))
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    state: dict[str, Tensor] = {}
    rounding: dict[str, tuple[Grid, Tensor | None]] = {}
    quantized = set(artifact.quantized)
    for fate in artifact.manifest.fates:
        if fate.name in quantized:
            layer = artifact.linear(fate.name)
            state[f"{fate.name}.weight"] = layer.dequantized(dtype or stored)
            if layer.activations is not None:
                rounding[fate.name] = layer.activations, layer.input_scale
        elif fate.weights and fate.got != LEFT_OUT:  # the scales of a KV cache are no part of the architecture
            state |= {tensor: artifact.files.read(tensor) for tensor in fate.tensors}
    make: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with _quietly():
        model, told = make.from_pretrained(
            None, config=config, state_dict=state, dtype=dtype or stored, output_loading_info=True
        )
    if told["missing_keys"]:
        raise ModelError(
            f"{artifact.path}: no tensor '{sorted(told['missing_keys'])[0]}' for its architecture; make it again"
        )
    paths = module_paths(expand(model, str(artifact.path)))
    for name, (grid, given) in rounding.items():
        round_input(model.get_submodule(paths[name]), grid, given)
    return model.eval(), paths


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' own progress bar: the weights are in memory already."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def round_input(layer: nn.Module, grid: Grid, calibrated: Tensor | None = None) -> None:
    """From now on ``layer`` sees its input rounded to ``grid``, with the ``calibrated`` number where it needs one."""
    from quantgate.formats.codec import quantize_activations

    def rounded(x: Tensor) -> Tensor:
        return quantize_activations(x, grid, None if calibrated is None else calibrated.to(x.device))

    layer.register_forward_pre_hook(lambda _layer, args: (rounded(args[0]), *args[1:]))
