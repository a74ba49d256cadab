"""What may be chosen about a training run. No torch here: release.yaml is checked against these records."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from quantgate.records import Record


class TrainOptions(Record):
    """Of every training run: how long, how fast, on what, and what counts as a loss."""

    steps: int = Field(default=400, ge=0, description="optimizer steps, at most")
    batch_tokens: int = Field(default=4096, ge=64, description="tokens of a step, over all devices")
    documents: int = Field(default=4000, ge=1, description="conversations of the suites' train split to draw, in all")
    max_tokens: int = Field(default=512, ge=16, description="longer conversations are cut here")
    prompts: float = Field(default=0.1, ge=0, le=1, description="how much a token outside of answers counts")
    learning_rate: float = Field(default=3e-4, gt=0, description="the highest, after warm-up; then a cosine")
    final_rate: float = Field(default=0.1, ge=0, le=1, description="where the cosine ends, over the highest rate")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps in which the rate rises")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's, on matrices")
    clip_norm: float = Field(default=1.0, gt=0, description="longest gradient")
    average: float = Field(default=0.0, ge=0, lt=1, description="decay, a step, of a running average of what is "
                           "trained, which is then what is looked at and kept; 0: no average")  # fmt: skip
    task: float = Field(default=0.1, ge=0, le=1, description="share of the loss on the answers' own tokens; the rest "
                        "is KL to the teacher")  # fmt: skip
    temperature: float = Field(default=1.0, gt=0, description="of both sides in the KL")
    top_k: int = Field(default=64, ge=1, description="tokens of the teacher that are kept at a position; the others "
                       "are one bucket")  # fmt: skip
    evaluate_every: int = Field(default=50, ge=1, description="steps between looks at the tune split")
    patience: int = Field(
        default=5, ge=1, description="looks without a better KL after which training stops; those in the first half "
        "of the steps count only where KL is no better than at the start"
    )  # fmt: skip
    tune: int = Field(default=160, ge=8, description="conversations of the tune split that decide when to stop")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of matrix products; auto: bfloat16 where the hardware multiplies it"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="keep only what each block is given and compute the rest again: a third more time, "
        "much less memory"
    )  # fmt: skip
    seed: int = 0


class QatOptions(TrainOptions):
    """Of quantization-aware training."""

    learning_rate: float = Field(
        default=6e-4, gt=0, description="the highest, after warm-up; then a cosine; of weights with a root "
        "mean square of 0.1, others in proportion"
    )  # fmt: skip
    temperature: float = Field(
        default=2.0, gt=0, description="of both sides in the KL; above 1, tokens of which the teacher is sure teach "
        "how sure it is"
    )  # fmt: skip
    start: str = Field(
        default="gptq", description="the post-training method whose scales training begins with, and which it must beat"
    )
    start_options: dict[str, JsonValue] = Field(default_factory=dict, description="what that method is told")
    reconstruct: int = Field(
        default=0,
        ge=0,
        description="steps for each block against the baseline's outputs, before the whole is trained; for starts that "
        "solved nothing (rtn), and for models too large to be trained whole",
    )
    adapters: int | None = Field(
        default=None, ge=1, description="rank of low-rank matrices that are trained instead of the weights; they are "
        "folded in before rounding"
    )  # fmt: skip
    scale_rate: float = Field(default=1.0, gt=0, description="learning rate of log scales and zero points over "
                              "that of weights")  # fmt: skip
    norms: bool = Field(default=True, description="also train the gains of norms")


SHAPE = ("layers", "heads", "feed_forward", "hidden")


class DistillOptions(TrainOptions):
    """Of a student: its shape, cut from the teacher by measured importance, or a configuration of its own."""

    steps: int = Field(default=2000, ge=0, description="optimizer steps, at most")
    learning_rate: float = Field(default=1e-3, gt=0, description="the highest, after warm-up; then a cosine")
    layers: int | None = Field(default=None, ge=1, description="decoder blocks that it keeps")
    heads: int | None = Field(default=None, ge=1, description="attention heads of each block; whole key-value groups")
    feed_forward: int | None = Field(default=None, ge=1, description="channels between an MLP's projections")
    hidden: int | None = Field(default=None, ge=1, description="channels of the residual stream")
    config: str | None = Field(default=None, description="a config.json (or its folder) of the teacher's architecture, "
                               "instead of a shape")  # fmt: skip

    @model_validator(mode="after")
    def _shape_or_config(self) -> Self:
        shape = [name for name in SHAPE if getattr(self, name) is not None]
        if bool(shape) == (self.config is not None):
            raise ValueError(
                f"a student has a shape ({', '.join(SHAPE)}) or a 'config', one of the two"
                + (f"; '{shape[0]}' stands beside 'config'" if shape else ", such as {layers: 4}")
            )
        return self
