"""quantgate: make a language model smaller, and prove that nothing the product needs was lost.

>>> import quantgate
>>> sorted(quantgate.__all__)
['compare', 'load_config', 'run']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantgate.pipeline import compare_models as compare
    from quantgate.pipeline import run
    from quantgate.release_config import load_config

__all__ = ["compare", "load_config", "run"]


def __getattr__(name: str) -> Any:
    """The functions are loaded when they are first used, so that importing quantgate stays light."""
    if name in ("run", "compare"):
        from quantgate import pipeline

        return pipeline.run if name == "run" else pipeline.compare_models
    if name == "load_config":
        from quantgate.release_config import load_config

        return load_config
    raise AttributeError(f"module 'quantgate' has no attribute '{name}'")
