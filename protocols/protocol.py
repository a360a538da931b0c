"""A protocol: one versioned YAML file that fixes everything but the method.

Files lie in ``protocols/specs/*.yaml``. Every key is validated; an unknown one is an error that names the nearest known key. The command
line may override single values; what was overridden becomes part of each cell's identity (``CellKey.overrides``).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Immutable; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetChoice(Strict):
    """Which data: a registered name (or a folder), and options of its loader."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class NoiseChoice(Strict):
    """Which mismatch: a named model and its rates; ``rates: null`` where the noise is real and there is no axis."""

    model: str
    rates: tuple[float, ...] | None
    options: dict[str, Any] = Field(default_factory=dict)


class BackboneChoice(Strict):
    """The trainable heads, see ``nocobench.methods.contract.Backbone``."""

    kind: Literal["residual_adapter", "projection", "mlp"] = "mlp"
    hidden: int | None = 1024
    dim: int = 512
    normalise_inputs: bool = True
    initial_scale: float = 1 / 0.07

    @property
    def label(self) -> str:
        return self.kind if self.kind == "residual_adapter" else f"{self.kind}-{self.dim}"


class ScheduleChoice(Strict):
    kind: Literal["constant", "cosine", "cosine-in-samples", "step"] = "cosine"
    warmup_steps: int = 500
    warmup_share: float = 0.1
    period: int = 30
    factor: float = 0.1


class OptimizerChoice(Strict):
    """See ``nocobench.methods.optim.Optimizer``."""

    rule: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    momentum: float = 0.9
    decay: float = 0.2
    decay_on: Literal["matrices", "all"] = "matrices"
    clip_norm: float | None = None
    schedule: ScheduleChoice = Field(default_factory=ScheduleChoice)


class BudgetChoice(Strict):
    """What every method may spend in the track ``fixed-budget``."""

    epochs: int = Field(ge=0)
    batch_size: int = Field(ge=2)
    optimizer: OptimizerChoice = Field(default_factory=OptimizerChoice)


class Selection(Strict):
    """Which epoch is reported: the first best one by ``metric`` on ``split``, or the last."""

    metric: Literal["rsum", "mean_r1"] = "rsum"
    split: Literal["val", "noisy-val", "last"] = "val"


class Evaluation(Strict):
    """How the test split is searched: whole, and as the mean over ``folds`` consecutive folds of images where folds > 1."""

    folds: int = Field(default=1, ge=1)
    headline: Literal["full", "folds"] = "full"
    block: int = Field(default=1024, ge=1)


class Numerics(Strict):
    """What changes bits: threads per process and dtype; ``width`` is the largest number of runs trained side by side."""

    width: int = Field(default=20, ge=1)
    threads: int = Field(default=1, ge=1)
    tf32: bool = False
    dtype: Literal["float32", "float64"] = "float32"


class MetaGrant(Strict):
    """Verified pairs: this share of the training images, with all their captions, set aside for everybody before noise."""

    share: float = Field(gt=0, lt=0.5)


class Grants(Strict):
    """Extra knowledge that methods may ask for; tables mark those that do."""

    clean_meta_set: MetaGrant | None = None
    noise_rate: bool = False

    @property
    def names(self) -> frozenset[str]:
        given = {"clean-meta-set": self.clean_meta_set is not None, "noise-rate": self.noise_rate}
        return frozenset(name for name, granted in given.items() if granted)


class Protocol(Strict):
    """Everything but the method; see the module docstring."""

    name: str
    version: int = Field(ge=1)
    task: Literal["pair-retrieval"] = "pair-retrieval"
    description: str
    dataset: DatasetChoice
    noise: NoiseChoice
    seeds: tuple[int, ...]
    backbone: BackboneChoice
    budget: BudgetChoice
    track: Literal["fixed-budget", "author-recipe"] = "fixed-budget"
    selection: Selection = Field(default_factory=Selection)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    numerics: Numerics = Field(default_factory=Numerics)
    grants: Grants = Field(default_factory=Grants)
