"""The vocabulary of measures: which direction is better, in which range, how many decimals. Bold in a table never guesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Measure:
    """One number of a run.

    Attributes:
        name: the column of the data frame.
        label: as printed above a column.
        better: which direction is better; None where neither is (a fact such as the number of networks).
        low, high: smallest and largest possible value.
        decimals: as printed in tables.
        unit: as printed in captions and on axes.
    """

    name: str
    label: str
    better: Direction | None
    low: float = 0.0
    high: float = inf
    decimals: int = 1
    unit: str = ""

    def is_better(self, a: float, b: float) -> bool:
        """Whether ``a`` is better than ``b``.

        Raises:
            ValueError: neither direction is better.
        """
        if self.better is None:
            raise ValueError(f"measure {self.name!r} has no better direction; it is a fact, not a score")
        return a > b if self.better == "higher" else a < b


def _retrieval() -> list[Measure]:
    recalls = [
        Measure(f"{way}_r{k}", f"{way} R@{k}", "higher", 0.0, 100.0, 1, "%")
        for way in ("i2t", "t2i")
        for k in (1, 5, 10)
    ]
    ranks = [
        Measure(f"{way}_{kind}_rank", f"{way} {kind} rank", "lower", 1.0, inf, 1)
        for way in ("i2t", "t2i")
        for kind in ("median", "mean")
    ]
    sums = [
        Measure("rsum", "rSum", "higher", 0.0, 600.0, 1, "sum of six recalls in %"),
        Measure("mean_r1", "mean R@1", "higher", 0.0, 100.0, 1, "%"),
    ]
    return [*recalls, *sums, *ranks]


def _label_retrieval() -> list[Measure]:
    def precision(name: str, label: str, unit: str = "%") -> Measure:
        return Measure(name, label, "higher", 0.0, 100.0, 1, unit)

    ties = "%, all ties broken"
    return [
        precision("i2t_map", "i2t MAP"),
        precision("t2i_map", "t2i MAP"),
        precision("mean_map", "MAP", "%, mean of both directions"),
        precision("mean_map_lower", "MAP, ties against", f"{ties} against the query"),
        precision("mean_map_upper", "MAP, ties for", f"{ties} for the query"),
        precision("mean_map_at_k", "MAP@k", "%, mean of both directions"),
        precision("mean_precision_radius_2", "precision, radius 2", "%, within Hamming distance 2"),
        precision("last_mean_map", "MAP, last epoch", "%, mean of both directions"),
        precision("noisy_val_mean_map", "MAP, noisy validation", "%, mean of both directions"),
        Measure("best_on_test_mean_map", "MAP, best test epoch", None, 0.0, 100.0, 1, "test-set selection"),
        Measure("tie_width", "tie width", "lower", 0.0, 100.0, 1, "MAP in %, ties for the query minus against"),
        Measure("map_optimism", "optimism gap", "lower", -100.0, 100.0, 1, "MAP, best test epoch minus selected"),
        Measure("still_true", "still true", None, 0.0, 1.0, 2, "share of noisy rows that keep a true label"),
        Measure(
            "wrong_affinity", "wrong relations", None, 0.0, 1.0, 3, "share of pairs of training items related wrongly"
        ),
    ]


def _costs_and_checks() -> list[Measure]:
    return [
        Measure("auc", "AUC", "higher", 0.0, 1.0, 3, "area under the ROC curve for recognising noisy pairs"),
        Measure("last_rsum", "rSum, last epoch", "higher", 0.0, 600.0, 1, "sum of six recalls in %"),
        Measure("best_on_test_rsum", "rSum, best test epoch", None, 0.0, 600.0, 1, "test-set selection"),
        Measure("single_rsum", "rSum, one network", "higher", 0.0, 600.0, 1, "sum of six recalls in %"),
        Measure("noisy_val_rsum", "rSum, noisy validation", "higher", 0.0, 600.0, 1, "sum of six recalls in %"),
        Measure("optimism", "optimism gap", "lower", -600.0, 600.0, 1, "rSum, best test epoch minus selected"),
        Measure("selected_epoch", "epoch", None, 0.0, inf, 0),
        Measure("networks_at_test", "networks", None, 0.0, inf, 0, "averaged at test time"),
        Measure("parameters", "parameters", "lower", 0.0, inf, 0),
        Measure("gradient_steps", "steps", "lower", 0.0, inf, 0),
        Measure("seconds", "seconds", "lower", 0.0, inf, 1, "s"),
        Measure("peak_memory_bytes", "peak memory", "lower", 0.0, inf, 0, "bytes"),
    ]


RECALLS: tuple[str, ...] = ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10")
MEASURES: dict[str, Measure] = {
    measure.name: measure for measure in [*_retrieval(), *_label_retrieval(), *_costs_and_checks()]
}

# The number that tables show first, by task.
HEADLINES: dict[str, str] = {"pair-retrieval": "rsum", "label-hashing": "mean_map"}

# On which level a noise model mismatches pairs; published tables mix them, ours never do (protocol-noisy-correspondence.md 3.3).
NOISE_LEVELS: dict[str, str] = {
    "none": "as it comes with the data",
    "nested-mismatch": "caption level",
    "caption-shuffle": "caption level",
    "image-shuffle": "image level: all captions of an image move together",
    "replay": "level of the published index file",
}
# What label noise models do; a rate means another thing under each (protocol-noisy-labels.md section 3).
LABEL_NOISE: dict[str, str] = {
    "nested-symmetric": "one wrong label for both modalities, never the true class: exactly this share of the items",
    "symmetric": "one label for both modalities drawn from all classes, the true one included",
    "per-modality-symmetric": "a label of its own for each modality, drawn from all classes",
    "asymmetric": "half of the classes are taken for another class",
    "multilabel-flip": "one label lost and one wrong label gained in this share of the rows",
    "replay": "labels of a published file",
}


def measure(name: str) -> Measure:
    """The measure of that name.

    Raises:
        ValueError: unknown name, with the known ones.
    """
    if name not in MEASURES:
        raise ValueError(f"unknown measure {name!r}; known are {', '.join(MEASURES)}")
    return MEASURES[name]


def measures(names: Sequence[str]) -> list[Measure]:
    """Several at once, in order."""
    return [measure(name) for name in names]
