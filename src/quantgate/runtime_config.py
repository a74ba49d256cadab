"""The stack that runs a variant: the settings of the engine that answers for it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from quantgate.errors import UsageError
from quantgate.records import Record


class RuntimeConfig(Record):
    """The stack that runs a variant, as it will ship; evidence is taken with exactly these settings."""

    kv_cache: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"] = Field(
        default="f16", description="of llamacpp: the type that keys and values are cached in"
    )
    draft: str | None = Field(
        default=None,
        description="of llamacpp: a smaller GGUF file of the same tokenizer, which drafts tokens that the variant "
        "judges",
    )
    draft_tokens: int = Field(default=8, ge=1, le=64, description="of llamacpp: how many tokens are drafted at a time")
    batch: int | None = Field(
        default=None,
        ge=1,
        exclude_if=lambda batch: batch is None,  # settings without one keep their digest
        description="answers that are decoded together at most; left out, the engine's own number",
    )
    guard: bool = Field(
        default=False,
        exclude_if=lambda guard: not guard,
        description="of llamacpp: answers are held to the JSON schema that their case states, token by token",
    )
    compile: bool = Field(
        default=False,
        exclude_if=lambda compile: not compile,
        description="of torch: MLPs and norms go through torch.compile",
    )

    def settings(self, engine: str) -> dict[str, Any]:
        """What the engine's door is told. Raises UsageError for a setting that the engine does not have."""
        if engine == "openai":
            raise UsageError("runtime: sets engines that run here; what a server does stands in its 'launch' command")
        own = {"torch": ("batch", "compile"), "llamacpp": ("kv_cache", "draft", "draft_tokens", "batch", "guard")}[
            engine
        ]
        strange = [name for name in type(self).model_fields if name not in own and self.changes(name)]
        if strange:
            owner = "llamacpp" if engine == "torch" else "torch"
            raise UsageError(f"runtime: '{strange[0]}' is a setting of engine {owner}; choose it, or leave this out")
        told = {name: getattr(self, name) for name in own if name != "batch"}
        return told | ({} if self.batch is None else {"rows": self.batch})

    def changes(self, name: str) -> bool:
        """Whether a setting is not what it is when nothing is said."""
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that are not what they are when nothing is said, by name, in order."""
        return {name: getattr(self, name) for name in type(self).model_fields if self.changes(name)}
