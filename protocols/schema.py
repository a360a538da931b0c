"""What a protocol file may hold: the pydantic models of ``protocols/specs/*.yaml``. See ``protocol.py`` for reading and errors."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

MOST_SEED = 2**63 - 1


class Strict(BaseModel):
    """Immutable; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DatasetChoice(Strict):
    """Which data: a registered name (or a folder), and options of its loader."""

    name: str = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)


class NoiseChoice(Strict):
    """Which mismatch: a named model and its rates; ``rates: null`` where the noise is real and there is no axis."""

    model: str = Field(min_length=1)
    rates: tuple[float, ...] | None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _rates_are_shares(self) -> Self:
        if (self.model == "none") != (self.rates is None):
            raise ValueError(
                "model 'none' (real noise) goes with 'rates: null', every other model with a list of rates"
            )
        if self.rates is not None:
            if not self.rates:
                raise ValueError("'rates' is empty; give at least one rate")
            _no_repeats("rates", self.rates)
            outside = [rate for rate in self.rates if not 0 <= rate <= 1]
            if outside:
                raise ValueError(f"rate {outside[0]:g} lies outside 0..1; a rate is a share, 0.4 means 40 %")
        return self


class BackboneChoice(Strict):
    """The trainable heads, see ``nocobench.methods.contract.Backbone``."""

    kind: Literal["residual_adapter", "projection", "mlp", "hashing"] = "mlp"
    hidden: int | None = Field(default=1024, ge=1)
    dim: int = Field(default=512, ge=1)
    normalise_inputs: bool = True
    initial_scale: float = Field(default=1 / 0.07, gt=0)

    @property
    def label(self) -> str:
        if self.kind == "residual_adapter":
            return self.kind
        return f"{self.kind}-{self.hidden if self.kind == 'hashing' else self.dim}"

    @model_validator(mode="after")
    def _hidden_layers_have_a_width(self) -> Self:
        if self.kind in ("mlp", "hashing") and self.hidden is None:
            raise ValueError(f"kind {self.kind!r} needs 'hidden', the width of its hidden layers")
        return self


class ScheduleChoice(Strict):
    kind: Literal["constant", "cosine", "cosine-in-samples", "step", "cosine-in-epochs"] = "cosine"
    warmup_steps: int = Field(default=500, ge=0)
    warmup_share: float = Field(default=0.1, ge=0, le=1)
    period: int = Field(default=30, ge=1)
    factor: float = Field(default=0.1, gt=0)


class OptimizerChoice(Strict):
    """See ``nocobench.methods.optim.Optimizer``."""

    rule: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = Field(default=1e-6, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    decay: float = Field(default=0.2, ge=0)
    decay_on: Literal["matrices", "all"] = "matrices"
    clip_norm: float | None = Field(default=None, gt=0)
    schedule: ScheduleChoice = Field(default_factory=ScheduleChoice)


class BudgetChoice(Strict):
    """What every method may spend in the track ``fixed-budget``."""

    epochs: int = Field(ge=0)
    batch_size: int = Field(ge=2)
    optimizer: OptimizerChoice = Field(default_factory=OptimizerChoice)


class Selection(Strict):
    """Which epoch is reported: the first best one by ``metric`` on ``split``, or the last."""

    metric: Literal["rsum", "mean_r1", "mean_map"] = "rsum"
    split: Literal["val", "noisy-val", "last"] = "val"


class LabelEvaluation(Strict):
    """What queries search in the task ``label-hashing`` (protocol-noisy-labels.md section 4), and with which codes.

    ``database``: ``test`` (test items search the other modality of the test split, their own counterpart included), ``train`` (the training
    items) or ``rest`` (whatever the data set keeps as a database). Validation items search the validation split in the first case, the
    training items in the others. ``codes`` of the database: by the ``hash-function`` of the modality that is searched, as training itself
    ``learned`` them for its items (which knows their noisy labels), or ``fused`` from both modalities of an item. ``k`` is that of MAP@k.
    """

    database: Literal["test", "train", "rest"] = "test"
    codes: Literal["hash-function", "learned", "fused"] = "hash-function"
    k: int = Field(default=50, ge=1)

    @model_validator(mode="after")
    def _learned_codes_are_of_training_items(self) -> Self:
        if self.codes == "learned" and self.database != "train":
            raise ValueError("codes 'learned' exist for training items only; they go with 'database: train'")
        return self


class Evaluation(Strict):
    """How the test split is searched: whole, and as the mean over ``folds`` consecutive folds of images where folds > 1.

    ``labels`` belongs to the task ``label-hashing``, and is not written in the other.
    """

    folds: int = Field(default=1, ge=1)
    headline: Literal["full", "folds"] = "full"
    block: int = Field(default=1024, ge=1)
    labels: LabelEvaluation | None = None

    @model_serializer(mode="wrap")
    def _without_absent_labels(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(handler(self), "labels", None)

    @model_validator(mode="after")
    def _headline_exists(self) -> Self:
        if self.headline == "folds" and self.folds == 1:
            raise ValueError("headline 'folds' needs 'folds' of at least 2")
        return self


class Numerics(Strict):
    """What changes bits: threads per process and dtype; ``width`` is the largest number of runs trained side by side."""

    width: int = Field(default=20, ge=1)
    threads: int = Field(default=1, ge=1, le=1024)
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

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: int = Field(ge=1)
    task: Literal["pair-retrieval", "label-hashing"] = "pair-retrieval"
    description: str
    dataset: DatasetChoice
    noise: NoiseChoice
    seeds: tuple[int, ...]
    bits: tuple[int, ...] = ()
    backbone: BackboneChoice
    budget: BudgetChoice
    track: Literal["fixed-budget", "author-recipe"] = "fixed-budget"
    selection: Selection = Field(default_factory=Selection)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    numerics: Numerics = Field(default_factory=Numerics)
    grants: Grants = Field(default_factory=Grants)

    @model_serializer(mode="wrap")
    def _without_absent_bits(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(_without(handler(self), "bits", []), "bits", ())

    @model_validator(mode="after")
    def _parts_belong_to_the_task(self) -> Self:
        hashing = self.task == "label-hashing"
        for what, given, key in (
            ("lengths of codes", bool(self.bits), "bits"),
            ("what is searched", self.evaluation.labels is not None, "evaluation.labels"),
            ("heads for codes", self.backbone.kind == "hashing", "backbone.kind: hashing"),
            ("a metric of labels", self.selection.metric == "mean_map", "selection.metric: mean_map"),
        ):
            if given != hashing:
                needs = "needs" if hashing else "has no"
                raise ValueError(f"task {self.task!r} {needs} {what} ({key!r})")
        _no_repeats("bits", self.bits)
        if self.bits and not all(1 <= bits <= 4096 for bits in self.bits):
            raise ValueError(f"a code of {min(self.bits)} to {max(self.bits)} bits; 1 to 4096 are possible")
        if hashing and self.evaluation.folds > 1:
            raise ValueError("task 'label-hashing' has no folds; leave 'evaluation.folds' out")
        return self

    @model_validator(mode="after")
    def _seeds_are_usable(self) -> Self:
        if not self.seeds:
            raise ValueError("'seeds' is empty; give at least one seed")
        _no_repeats("seeds", self.seeds)
        if min(self.seeds) < 0:
            raise ValueError(f"seed {min(self.seeds)} is negative; seeds are 0, 1, 2, ...")
        if max(self.seeds) > MOST_SEED:
            raise ValueError(f"a seed is larger than {MOST_SEED:,}; seeds are 0, 1, 2, ...")
        return self


def _without(written: dict[str, Any], key: str, absent: Any) -> dict[str, Any]:
    """Leave a key out that a task does not have, so that what is written of the other tasks stays as it was."""
    return {name: value for name, value in written.items() if name != key or value != absent}


def _no_repeats(what: str, values: tuple[Any, ...]) -> None:
    for value, times in Counter(values).items():
        if times > 1:
            raise ValueError(f"{what} holds {value} twice; every value may occur once")
